"""Run a saved spec with other settings, as a new run that names its parent.

python -m experiments.again run=results/study/20260101-120000-0123abcd ablation=mean seed=1
"""

from harness.command import main

if __name__ == "__main__":
    main("again")
