"""Donors of resample-ablation: prompts whose z replaces a prompt's own, and how positions correspond."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from harness.config import RequestError
from harness.prompts import Prompts
from harness.prompts.needs import CLUSTERS

Index = Int[np.ndarray, "prompt position"]


def choose(prompts: Prompts, draws: int, seed: int) -> list[list[int]]:
    """Choose donors [draw][prompt]: from another cluster, never the same tokens, of the nearest length.

    They are drawn without repetition, those of the next nearest length once the nearest are used up; only a prompt
    with fewer possible donors than `draws` gets some of them again. Raises `RequestError` for a prompt with none.
    """
    rng = np.random.default_rng(seed)
    return np.stack([_drawn(_by_length(prompts, n), draws, rng) for n in range(len(prompts))], axis=1).tolist()


def distinct(chosen: Sequence[Sequence[int]]) -> Int[np.ndarray, " prompt"]:
    """Return the number of different donors of each prompt among [draw][prompt]."""
    return np.array([len({*donors}) for donors in zip(*chosen, strict=True)])


def _drawn(tiers: Sequence[Int[np.ndarray, " donor"]], draws: int, rng: np.random.Generator) -> list[int]:
    drawn: list[int] = []
    while len(drawn) < draws:
        for tier in tiers:
            if len(drawn) < draws:
                drawn += rng.permutation(tier).tolist()
    return drawn[:draws]


def _by_length(prompts: Prompts, number: int) -> list[Int[np.ndarray, " donor"]]:
    """Group the prompts of other clusters by difference in length (summed over both texts where there are two)."""
    lengths = prompts.lengths
    foreign = np.array([cluster != prompts.cluster[number] for cluster in prompts.cluster])
    if not foreign.any():
        raise RequestError(
            "ablation",
            "resample",
            f"a donor comes from another cluster, and all prompts are of {prompts.cluster[number]!r}; {CLUSTERS}",
        )
    other = (prompts.token_id != prompts.token_id[number]).any(axis=1)
    other |= (prompts.read != prompts.read[number]).any(axis=1)
    possible = np.flatnonzero(foreign & other)
    if not len(possible):
        raise RequestError(
            "ablation",
            "resample",
            f"prompt {number} ({prompts.text[number][:30]!r}) is the same as every prompt of another cluster; "
            "take other prompts, or set ablation=mean or ablation=zero",
        )
    off = np.abs(lengths[:, possible] - lengths[:, [number]]).sum(axis=0)
    return [possible[off == away] for away in np.unique(off)]


def corresponding(own: Sequence[int], donor: Sequence[int], end: int) -> Index:
    """Map positions of prompts of lengths `own` to the donors', [prompt, end]: in order, spread evenly, first to first
    and last to last. Positions beyond a prompt's length map to its donor's last."""
    steps, last = np.array(own)[:, None] - 1, np.array(donor)[:, None] - 1
    place = np.minimum(np.arange(end), steps)
    return (2 * place * last + steps) // np.maximum(2 * steps, 1)
