"""Draw a saved run again, without a model.

python -m experiments.render run=results/study/20260101-120000-0123abcd show.prompts=[3] show.heads=[L5H1]
python -m experiments.render run=results/study/20260101-120000-0123abcd views=saliency
python -m experiments.render run=results/study/20260101-120000-0123abcd figures=paper
"""

from typing import TYPE_CHECKING, Any

from experiments._launch import main as launch
from harness import config

if TYPE_CHECKING:
    from harness.results.objects import Folder


def main() -> None:
    launch("render", render)


def render(values: dict[str, Any]) -> "Folder":
    """The views of the run that are asked for, into its directory, which is given back."""
    asked = config.parse(config.RenderSpec, values)
    config.check_there("run", asked.run)
    from harness.results import open_run, verify

    run = open_run(asked.run)
    verify(asked.run)
    from harness.views.draw import draw_for_paper, draw_views  # not before: what is no run is found without waiting

    if asked.figures == "paper":
        draw_for_paper(run, asked.show)
    else:
        draw_views(run, asked.views, asked.show)
    return run.path


if __name__ == "__main__":
    main()
