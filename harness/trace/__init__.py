"""Which parts of a prompt a prediction used: the documents of a context, or words that carry a tag.

`looking` sums attention and rollout by part while the model runs, `stage` sets beside them the gradients and what is
measured when a part is taken away, `tables` makes claims of it. Nothing larger than one layer's pattern is held.
"""

from harness.trace.tables import parts_heads_table as parts_heads_table
from harness.trace.tables import parts_table as parts_table
