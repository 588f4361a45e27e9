"""Which prompt's z stands in for a prompt's own (resample-ablation), and how positions of two lengths correspond."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from harness.config import RequestError
from harness.prompts import Prompts

Index = Int[np.ndarray, "prompt position"]


def choose(prompts: Prompts, draws: int, seed: int) -> list[list[int]]:
    """A donor for each prompt, [draw][prompt]: from another cluster, never the same tokens, of the nearest length.

    Among the donors of the nearest length they are drawn without repetition, as long as there are enough.
    Raises `RequestError` for a prompt that has no possible donor.
    """
    rng = np.random.default_rng(seed)
    by_prompt = [_nearest(prompts, number) for number in range(len(prompts))]
    drawn = [
        np.concatenate([rng.permutation(possible) for _ in range(-(-draws // len(possible)))])[:draws]
        for possible in by_prompt
    ]
    return np.stack(drawn, axis=1).tolist()


def _nearest(prompts: Prompts, number: int) -> Int[np.ndarray, " donor"]:
    """The prompts of other clusters whose length is nearest to this one's (of both texts, where there are two)."""
    lengths = prompts.lengths
    foreign = np.array([cluster != prompts.cluster[number] for cluster in prompts.cluster])
    if not foreign.any():
        raise RequestError(
            "ablation",
            "resample",
            f"a donor comes from another cluster, and all prompts are of {prompts.cluster[number]!r}; "
            "take prompts from at least two, or say ablation=mean or ablation=zero",
        )
    other = (prompts.token_id != prompts.token_id[number]).any(axis=1)
    other |= (prompts.read != prompts.read[number]).any(axis=1)
    possible = np.flatnonzero(foreign & other)
    if not len(possible):
        raise RequestError(
            "ablation",
            "resample",
            f"prompt {number} ({prompts.text[number][:30]!r}) is the same as every prompt of another cluster; "
            "take other prompts, or say ablation=mean or ablation=zero",
        )
    off = np.abs(lengths[:, possible] - lengths[:, [number]]).sum(axis=0)
    return possible[off == off.min()]


def corresponding(own: Sequence[int], donor: Sequence[int], end: int) -> Index:
    """For each position of prompts of the lengths `own`, the donor's position, [prompt, end]: in order, spread evenly,
    first to first and last to last. What is beyond a prompt's length is mapped to its donor's last."""
    steps, last = np.array(own)[:, None] - 1, np.array(donor)[:, None] - 1
    place = np.minimum(np.arange(end), steps)
    return (2 * place * last + steps) // np.maximum(2 * steps, 1)
