"""Charts of a run for the page, one topic to a file: each is a JSON-ready description that ``assets/charts.js`` draws.

A file has the numbers, which the figure for print (`harness.views.figures`) draws too, and their description. Kinds are
``heat`` (rows × columns of shades), ``dots`` (rows of means with intervals), ``curves``, ``bars`` and
``pairs-of-dots``.
"""

from typing import TYPE_CHECKING

from harness.views.charts.activations import activations
from harness.views.charts.changes import changes
from harness.views.charts.describe import Described
from harness.views.charts.joint import joint
from harness.views.charts.layers import layers
from harness.views.charts.methods import methods
from harness.views.charts.position_maps import maps
from harness.views.charts.positions import positions
from harness.views.charts.roles import roles
from harness.views.charts.segments import segments

if TYPE_CHECKING:
    from harness.results import Run

__all__ = ["charts"]

_TOPICS = (activations, layers, maps, positions, joint, changes, roles, methods, segments)


def charts(run: "Run") -> list[Described]:
    """Describe every chart that the run has data for. Each has the name and the section of its figure."""
    return [chart for topic in _TOPICS for chart in topic(run)]
