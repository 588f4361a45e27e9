"""Head cards: why a head matters, for some heads of a sweep.

`card_stage` chooses the heads and computes their cards: the account of the effect and the direct effect by source (both
by `harness.sweep`), what the head writes to the logits (`logit_writes`), the metric read from the stream after each
block, clean and ablated (`logit_lens`), a row of its pattern on the prompts where it matters most and least
(`scored_rows`), and what its weights alone say (`weights`): which heads it composes with (`composition`) and what its
OV circuit moves (`ov_circuit`), by the matrices of `circuits`.
"""

from harness.head_card.card_stage import CardStage as CardStage
from harness.head_card.card_stage import part as part
from harness.head_card.card_stage import study_part as study_part
