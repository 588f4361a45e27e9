"""What heads do: which of the roles that the literature names each one has, beyond chance.

`catalogue` lists the roles, `attention_context` the keys that a pattern's rows may attend to.
`masks` (shares of attention) and `measures` score roles on patterns, `copying` on what heads write, `syntax` on
relations that the prompts give. `scoring` tests scores against chance, `probe_prompts` makes texts of repeated random
tokens, `stage` is a stage of a run, and `sets` ablates the heads of each role together.
"""

from harness.roles.catalogue import ROLES as ROLES
from harness.roles.catalogue import meaning_of as meaning_of
