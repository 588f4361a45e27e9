"""Answer which heads feed which later heads and MLPs: the strongest edges."""

from typing import TYPE_CHECKING

from harness.findings.edges import strongest_edges
from harness.findings.finding import Finding
from harness.findings.questions.pattern_statistics import unanswered

if TYPE_CHECKING:
    from harness.results import Run


def edges(run: "Run") -> Finding:
    """Name the strongest edges by the leading metric, with how many are shown."""
    nothing = unanswered("No edges were measured: set sweep.kind=edges.")
    return next(strongest_edges(run), nothing)
