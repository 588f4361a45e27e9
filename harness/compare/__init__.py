"""Two models on the same prompts: which heads look elsewhere, do something else, or have other roles.

`pairing` says whether and how two models can be compared, `stage` runs the other model's stages beside the base's,
`distance` is how far apart two patterns are, `weights` which layers' parameters differ. `changes` puts the arrays of
both side by side, and `tables` makes ``changes.csv`` of them.
"""

from harness.compare.distance import pattern_distance as pattern_distance
from harness.compare.pairing import Pairing as Pairing
from harness.compare.pairing import check_metrics as check_metrics
from harness.compare.pairing import pairing as pairing
