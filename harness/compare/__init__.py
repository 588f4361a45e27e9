"""Compare two models on the same prompts: changes of patterns, effects and roles of heads.

`pairing` checks whether and how two models can be compared, `stage` runs the other model's stages beside the base's,
`distance` is the distance of two patterns, `weights` that of parameters. `changes` subtracts the arrays of the two,
`change_table` makes ``changes.csv``, and `comparison` closes the run with both.
"""

from harness.compare.distance import pattern_distance as pattern_distance
from harness.compare.pairing import Pairing as Pairing
from harness.compare.pairing import check_metrics as check_metrics
from harness.compare.pairing import pairing as pairing
