"""Roles of heads from the literature: score every head for each, and test the score against chance.

`catalogue` lists the roles, `attention_context` the keys that a query may attend to. `masks` (shares of attention) and
`role_measures` score roles on patterns, `copying` on the OV circuit, `syntax` on relations of the prompts. `scoring`
tests scores against their null distributions, `probe_prompts` makes repeated random tokens, `stage` is the stage of a
run, and `sets` ablates the heads of each role together.
"""

from harness.roles.catalogue import ROLES as ROLES
from harness.roles.catalogue import meaning_of as meaning_of
