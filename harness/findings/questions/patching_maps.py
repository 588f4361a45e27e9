"""Answer where an answer's information is, by layer and position: the strongest cell of the first patching map."""

from typing import TYPE_CHECKING

from harness.findings.finding import Finding
from harness.findings.position_maps import strongest_cells
from harness.findings.questions.pattern_statistics import unanswered

if TYPE_CHECKING:
    from harness.results import Run


def patching_maps(run: "Run") -> Finding:
    """Name the strongest cell of the residual stream, or of the first map that there is."""
    nothing = unanswered("No layer was patched position by position: set ablation.positions=each.")
    return next(strongest_cells(run), nothing)
