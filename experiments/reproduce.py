"""Run a saved spec again in today's environment and compare, value by value; exit code 1 if one moved.

python -m experiments.reproduce run=results/reference/planted
python -m experiments.reproduce run=results/reference/planted resume=results/ablate_heads/20260101-120000-0123abcd
"""

from harness.command import main

if __name__ == "__main__":
    main("reproduce")
