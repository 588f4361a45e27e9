"""Which parts of a prompt a prediction used: the documents of a context, or words that carry a tag.

`looking` sums attention and rollout by part while the model runs, `stage` sets beside them the gradients and what is
measured when a part is taken away, `tables` makes claims of it.

Kept are sums by part: their size does not depend on how long the text is. At work is one layer's pattern at a time, of
the copies that go through together (about 4,096 tokens, so memory grows with the length). Only the gradient needs the
patterns of all layers, of one prompt at once: say ``trace.gradient=false`` where layers × heads × tokens² is too much.
"""

from harness.attribution.context.segment_table import parts_heads_table as parts_heads_table
from harness.attribution.context.segment_table import parts_table as parts_table
