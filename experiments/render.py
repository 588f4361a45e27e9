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
    """Draw views of a run into its directory, and return that."""
    spec = config.parse(config.RenderSpec, values)
    config.check_there("run", spec.run)
    from harness.results import open_run, verify

    run = open_run(spec.run)
    verify(spec.run)
    from harness.views.draw import draw_for_paper, draw_views  # here: a slow import, after the checks of the run

    if spec.figures == "paper":
        draw_for_paper(run, spec.show)
    else:
        draw_views(run, spec.views, spec.show)
    return run.path


if __name__ == "__main__":
    main()
