"""What heads do: which of the roles that the literature names each one has, beyond chance.

`names` says what roles are called, `seen` what a pattern's rows may look at (`reading` takes it from a batch). `masks`
(shares of attention) and `measures` read roles off patterns, `copying` off what heads write, `syntax` off relations
that the prompts give. `judged` and `scores` make claims of scores, `repeats` makes texts of repeated random tokens,
`stage` is a part of a run, `having` a table of who has which; `sets` ablates the heads of each role together.
"""

from harness.roles.having import roles_joined as roles_joined
from harness.roles.names import ROLES as ROLES
from harness.roles.names import meaning_of as meaning_of
