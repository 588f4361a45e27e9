"""Answer what attention to later tokens changes: a masked-LM encoder beside a causal decoder."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.findings.finding import Finding
from harness.findings.format import named, number, with_spread
from harness.findings.questions.pattern_statistics import Pattern, extreme, over_heads, per_head

if TYPE_CHECKING:
    from harness.results import Run


def masked_vs_causal(run: "Run") -> Finding:
    """State the shares of attention ahead, back, at the token itself, and on the first and special tokens.

    Run it for both models on the same sentences (``-m model=minilm,smollm2``).
    """
    later = per_head(run, ahead)
    about, most = over_heads(run, later), extreme(later)
    itself = float(per_head(run, lambda pattern: np.diagonal(pattern, axis1=2, axis2=3).mean(-1)).mean())
    rest = float(resting(run).mean())
    text = f"{named(run.spec.get('model'))} looks ahead with {with_spread(about, sign=False)} of its attention"
    text += f" ({most[0]} most, {number(most[1])})" if about.mean > 0 else ": it is causal"
    text += f", back with {number(1 - about.mean - itself)}, at the token itself with {number(itself)}; "
    text += f"{number(rest)} rests on the first token and special ones."
    return Finding(text, about.mean, about.low, about.high, "pattern")


def ahead(pattern: Pattern) -> Float[np.ndarray, "layer head"]:
    """Return the share of attention on later tokens, mean over tokens."""
    return np.triu(pattern, 1).sum(axis=-1).mean(axis=-1)


def resting(run: "Run") -> Float[np.ndarray, " prompt"]:
    """Return the share of the other tokens' attention on the first token and special ones."""
    shares = []
    for prompt, end in enumerate(run.data["length"].values):
        sink = run.data["special"].values[prompt, :end].copy()
        sink[0] = True
        pattern = run.data["pattern"].values[prompt][:, :, :end, :end].astype(float)
        shares.append(pattern[:, :, ~sink][..., sink].sum(axis=-1).mean())
    return np.array(shares)
