"""Tokens to words: segmentation, patterns and scores merged by word, and labels.

`align` locates pieces in a text, `segment` finds where words could begin, `split` makes words of the two, `merge`
merges arrays by word or drops special tokens, `show` labels tokens with whole characters.

>>> import harness
>>> harness.words.is_unspaced("犬が猫を追う"), harness.words.is_unspaced("The dog")
(True, False)
"""

from harness.words.align import Span as Span
from harness.words.align import align as align
from harness.words.builtin import builtin_words as builtin_words
from harness.words.builtin import ioi_data as ioi_data
from harness.words.merge import merge_pattern as merge_pattern
from harness.words.merge import merge_scores as merge_scores
from harness.words.merge import share_on as share_on
from harness.words.merge import without as without
from harness.words.segment import Segmenter as Segmenter
from harness.words.segment import is_unspaced as is_unspaced
from harness.words.show import common_start as common_start
from harness.words.show import joined as joined
from harness.words.show import labels as labels
from harness.words.split import Words as Words
from harness.words.split import split as split
