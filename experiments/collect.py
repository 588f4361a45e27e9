"""Set saved runs side by side, as one table and one page.

python -m experiments.collect runs='results/ablate_heads/*'
python -m experiments.collect runs=[results/a,results/b] metric=loss by=depth
"""

from harness.command import main

if __name__ == "__main__":
    main("collect")
