"""Answer how attention spreads over the pieces of a word that the tokenizer split."""

from typing import TYPE_CHECKING

import numpy as np

from harness.findings.finding import Finding
from harness.findings.format import count, number, signed, with_spread
from harness.findings.intervals import interval
from harness.findings.questions.pattern_statistics import Pattern, extreme, looks_ahead, patterns, unanswered

if TYPE_CHECKING:
    from harness.results import Run


def subwords(run: "Run") -> Finding:
    """State the last piece's share of the attention that other words give to a split word, beside an even split."""
    shares, even, words = [], [], 0
    for prompt, pattern in enumerate(patterns(run)):
        each = [_last_share(pattern, pieces) for pieces in split_words(run, prompt)]
        split_shares = [share for share in each if share is not None]
        words += len(split_shares)
        shares.append(np.mean([share for share, _ in split_shares], axis=0) if split_shares else None)
        even.append(np.mean([1 / n for _, n in split_shares]) if split_shares else np.nan)
    if not words or any(each is None for each in shares):
        return unanswered("Not every prompt has a word that the tokenizer splits and that others can look at.")
    share, split = np.stack(shares), np.array(even)
    beyond = share - split[:, None, None]
    about = interval(run, beyond.mean(axis=(1, 2)))
    most, least = extreme(beyond), extreme(beyond, largest=False)
    text = f"Of the attention that other tokens give to a split word, its last piece gets {number(share.mean())} on "
    text += f"average ({count(words, 'word')}), {with_spread(about)} beyond an even split "
    text += f"({number(split.mean())}). {most[0]} favours the last piece most ({signed(most[1])}), {least[0]} least "
    return Finding(f"{text}({signed(least[1])}).", about.mean, about.low, about.high, "pattern")


def split_words(run: "Run", prompt: int) -> list[np.ndarray]:
    """Return the positions of each word of several tokens, without the first token's word (an attention sink)."""
    word = run.data["word"].values[prompt, : int(run.data["length"].values[prompt])]
    pieces = [np.flatnonzero(word == number) for number in range(word.max() + 1)]
    return [each for each in pieces if len(each) > 1 and each[0] > 0]


def _last_share(pattern: Pattern, pieces: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Return the last piece's share of the word's attention by head, and the number of pieces; None without queries."""
    n = pattern.shape[-1]
    others = np.setdiff1d(np.arange(0 if looks_ahead(pattern) else pieces[-1] + 1, n), pieces)
    if not len(others):
        return None
    attention = pattern[:, :, others][..., pieces].sum(axis=2)
    total = attention.sum(axis=-1)
    return np.where(total > 0, attention[..., -1] / np.where(total > 0, total, 1), 1 / len(pieces)), len(pieces)
