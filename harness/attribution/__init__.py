"""Ways to say which tokens a prediction drew on: one method per file, numpy in and numpy out."""

from harness.attribution.raw import layer_pattern as layer_pattern
from harness.attribution.raw import mean_pattern as mean_pattern
from harness.attribution.rollout import rollout as rollout
