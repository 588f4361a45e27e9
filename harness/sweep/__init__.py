"""Ablate heads, alone or together, and measure the change of each metric.

`interventions` turns a request into interventions, `build` into stages. `engine` runs many interventions in one
forward: `blocks` adds their rows block by block, `kv_cache` starts late positions from the clean keys and values,
`shared_context` runs the context of an item once for all of its completions,
`last_block` runs the last block's linear layers at scored positions only, `memory` keeps chunks within a budget.
`batch` measures interventions on some prompts and refuses NaN, `direct` computes direct effects, `source_direct` splits
them by the token read, `stage` cuts a sweep into units, and `labels` labels its arrays. `cumulative` (with `greedy`)
and `pairs` ablate heads together, chosen by their single effects (`importance`). `fast` (bf16: `precision`) and
`attribution_patching` estimate all heads, and `verify` measures some of them exactly; `method` chooses by the forecast.
`edges` measures paths from a head to a later head or MLP.
"""

from harness.sweep.build import Ablating as Ablating
from harness.sweep.build import check_sets as check_sets
from harness.sweep.build import needs_roles as needs_roles
from harness.sweep.build import part as part
from harness.sweep.build import singles as singles
from harness.sweep.build import stages as stages
from harness.sweep.edges.build import check_edges as check_edges
from harness.sweep.engine import tolerance as tolerance
from harness.sweep.interventions import groups as groups
from harness.sweep.method import choose_method as choose_method
from harness.sweep.stage import SweepStage as SweepStage
from harness.sweep.verify import merge as merge
