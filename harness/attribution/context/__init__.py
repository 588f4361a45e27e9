"""Attribution of a long context: which parts (documents, or tagged words) of a prompt a prediction used.

`part_attention` sums attention and rollout by part while the model runs, `stage` adds gradients and the causes, which
remove a part, and `segment_table` makes ``parts.csv``.

Only sums by part are kept, so their size does not depend on the length of the text. One layer's pattern is in memory at
a time, of the copies that go through together (about 4,096 tokens, so memory grows with the length). Only the gradient
needs the patterns of all layers of a prompt: set ``trace.gradient=false`` where layers × heads × tokens² is too much.
"""

from harness.attribution.context.segment_table import parts_heads_table as parts_heads_table
from harness.attribution.context.segment_table import parts_table as parts_table
