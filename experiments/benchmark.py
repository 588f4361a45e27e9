"""Time a sweep against loops of whole forwards in one process, or the opening of a saved run's report.

python -m experiments.benchmark prompts=ioi metric=logit_diff positions=last
python -m experiments.benchmark page=results/study/…
"""

from harness.command import main

if __name__ == "__main__":
    main("benchmark")
