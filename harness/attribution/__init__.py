"""Attribution: methods that score which tokens a prediction drew on, and causes that measure it by changing tokens.

Methods that need only arrays are one file each, numpy in and numpy out, importable without torch: the patterns
themselves (`mean_patterns`), `rollout` and its variants (`uniform_rollout`, `effect_weighted_rollout`,
`gradient_rollout`), `flow`, `norms`, `alti`, and a random order as the baseline (`chance`); `token_graph` makes one
graph of an encoder-decoder's three attentions. Attribution patching of heads is in `harness.sweep`.

>>> import numpy as np
>>> import harness
>>> harness.attribution.mean_pattern(np.array([[[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]]]))      # two heads
array([[1.  , 0.  ],
       [0.25, 0.75]])
"""

from harness.attribution.alti import contributions as contributions
from harness.attribution.chance import random_scores as random_scores
from harness.attribution.effect_weighted_rollout import effect_weighted as effect_weighted
from harness.attribution.effect_weighted_rollout import negative_share as negative_share
from harness.attribution.flow import flow as flow
from harness.attribution.flow import pooled_flow as pooled_flow
from harness.attribution.gradient_rollout import gradient_weighted as gradient_weighted
from harness.attribution.mean_patterns import layer_pattern as layer_pattern
from harness.attribution.mean_patterns import mean_pattern as mean_pattern
from harness.attribution.norms import value_weighted_norms as value_weighted_norms
from harness.attribution.rollout import rollout as rollout
from harness.attribution.token_graph import Nodes as Nodes
from harness.attribution.token_graph import joint as joint
from harness.attribution.uniform_rollout import uniform_normalised as uniform_normalised
