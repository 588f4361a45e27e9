"""Interventions as values: heads, the replacement of their z, and positions.

`edits` replaces z inside a context and verifies it at W_O; `positions` selects positions; `ablation` defines what one
is; `mean`, `resample` (prompts from `donors`) and `patch` take z from clean forwards by `clean_z`; `from_spec` builds
the ablation of a request, `head_inputs` that of a head's q, k, v or pattern, `head_ablation` is one with its heads as a
value, and `ablation_context` keeps it on a model; `matched_edits` makes random edits of equal size; `rows` makes a
model's input rows.
"""

from harness.ablation.ablation import ZERO as ZERO
from harness.ablation.ablation import Ablation as Ablation
from harness.ablation.clean_z import capture as capture
from harness.ablation.edits import Baseline as Baseline
from harness.ablation.edits import Check as Check
from harness.ablation.edits import Edit as Edit
from harness.ablation.edits import Intervention as Intervention
from harness.ablation.edits import InterventionFailed as InterventionFailed
from harness.ablation.edits import applied as applied
from harness.ablation.edits import by_site as by_site
from harness.ablation.edits import editing as editing
from harness.ablation.edits import hooking as hooking
from harness.ablation.edits import zeros as zeros
from harness.ablation.from_spec import AblationRequest as AblationRequest
from harness.ablation.from_spec import activations as activations
from harness.ablation.from_spec import build as build
from harness.ablation.from_spec import parse_ablation as parse_ablation
from harness.ablation.from_spec import parse_positions as parse_positions
from harness.ablation.head_ablation import HeadAblation as HeadAblation
from harness.ablation.matched_edits import MatchedNull as MatchedNull
from harness.ablation.rows import Share as Share
from harness.ablation.rows import model_rows as model_rows
from harness.ablation.rows import targets_of as targets_of
from harness.ablation.rows import together as together
