"""Draw a saved run again, without a model.

python -m experiments.render run=results/study/20260101-120000-0123abcd show.prompts=[3] show.heads=[L5H1]
python -m experiments.render run=results/study/20260101-120000-0123abcd views=saliency
python -m experiments.render run=results/study/20260101-120000-0123abcd figures=paper
"""

from harness.command import main

if __name__ == "__main__":
    main("render")
