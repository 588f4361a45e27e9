"""Interventions as values: which heads, what their z becomes, and where.

`edits` replaces z inside a context and verifies it at W_O; `positions` says where; `baselines` says what an ablation
is, with `mean`, `resample` (whose prompts `donors` chooses) and `patch`, which take z from clean forwards by `capture`;
`request` finds the one that is asked for, `null` edits at random as much as it does. `rows` says what a model is run
on for a prompt.
"""

from harness.ablation.baselines import ZERO as ZERO
from harness.ablation.baselines import Ablation as Ablation
from harness.ablation.capture import capture as capture
from harness.ablation.edits import Baseline as Baseline
from harness.ablation.edits import Check as Check
from harness.ablation.edits import Edit as Edit
from harness.ablation.edits import Intervention as Intervention
from harness.ablation.edits import InterventionFailed as InterventionFailed
from harness.ablation.edits import applied as applied
from harness.ablation.edits import by_site as by_site
from harness.ablation.edits import editing as editing
from harness.ablation.edits import zero as zero
from harness.ablation.edits import zeros as zeros
from harness.ablation.null import MatchedNull as MatchedNull
from harness.ablation.request import Asked as Asked
from harness.ablation.request import asked_positions as asked_positions
from harness.ablation.request import build as build
from harness.ablation.rows import Share as Share
from harness.ablation.rows import model_rows as model_rows
from harness.ablation.rows import together as together
