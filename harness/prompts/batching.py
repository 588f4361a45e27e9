"""Divide padded prompts into batches, and into the rows that a masked-LM is run on."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from harness.prompts.padding import Prompts

#: The default largest share of padding in a batch.
PADDING = 0.03


def batches(prompts: Prompts, tokens: int = 1024, at_most: int = 8, padding: float | None = None) -> list[list[int]]:
    """Divide the prompts into batches of at most `at_most` prompts and `tokens` (padded) tokens, at least one in each.

    Prompts of one length go together, and others with them only where that adds at most a share of `padding` (default
    `PADDING`) to the computed tokens. Items of a choice go together where their contexts are equally long, so that they
    share one run of these. A masked-LM runs a prompt once for each of its scored positions.
    """
    made: list[list[int]] = []
    padding = PADDING if padding is None else padding
    rows, width, begins = prompts.n_rows, prompts.width, first_scored(prompts)
    for prompt in np.lexsort((width, begins)).tolist():
        wider = [*made[-1], prompt] if made and begins[made[-1][0]] == begins[prompt] else []
        padded, real = rows[wider].sum() * width[wider].max(initial=0), (rows * width)[wider].sum()
        if prompts.has_choices:
            real = padded
        if wider and len(wider) <= at_most and padded <= min(tokens, (1 + padding) * real):
            made[-1] = wider
        else:
            made.append([prompt])
    return made


def first_scored(prompts: Prompts) -> Int[np.ndarray, " prompt"]:
    """Return the first scored position of each item of a choice, the last of its context; 0 for other prompts."""
    if not prompts.has_choices:
        return np.zeros(len(prompts), dtype=int)
    return prompts.target.argmax(axis=1)


def masked(prompts: Prompts, mask_id: int) -> tuple[Prompts, Int[np.ndarray, " row"]]:
    """Mask each scored position in a row of its own, with the later pieces of its word, for a masked-LM.

    Returns the rows, each with one scored position, and the prompt that each belongs to. Masking the later pieces
    too keeps them from giving the word away (Salazar et al. 2020, arXiv:1910.14659; Kauf & Ivanova 2023,
    arXiv:2305.10588).
    """
    owner, position = np.nonzero(prompts.target)
    rows = prompts.take(owner)
    at = np.arange(rows.token_id.shape[1])
    word = rows.word[np.arange(len(owner)), position]
    hidden = (rows.word == word[:, None]) & (at >= position[:, None])
    correct = np.where(at == position[:, None], rows.correct, -1)
    return replace(rows, token_id=np.where(hidden, mask_id, rows.token_id), correct=correct), owner
