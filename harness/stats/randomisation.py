"""p-values from draws that all heads share: sign flips, or a matched null, and Westfall–Young max-T over heads.

**Sign flip.** Under the null hypothesis the effects of a cluster are as likely with one sign as with the other, so
flipping whole clusters draws from the null. The statistic is Student's t of the cluster sums, corrected for skew:

    T = mean / sd,   g = skewness,   u = g T / 3,   t = sqrt(n) (T (1 + u + u²/3) + g / 6n)

which is Hall's transformation (Hall 1992, On the removal of skewness by transformation, JRSS B 54) with |u| kept
under 1/2, because beyond that the expansion behind it turns a strong effect into a weak one. Why this one:

- *studentised*, so that max-T compares heads on one scale: with raw means the noisiest head would set the bar for all;
- *any* statistic is exact under a sign flip when the noise is symmetric, so the correction costs no validity there.
  Power of max-T for one standard deviation at 32 clusters, plain t → corrected: normal noise 0.98 → 0.97, t with 3
  degrees of freedom 0.95 → 0.80, exponential with its tail on the side of the effect 1.00 → 1.00, on the other
  0.92 → 0.48;
- effects are skewed (a head that matters matters on some prompts). Plain t then rejects a true null far too often
  in the tails that a test over 270 heads needs.

A two-sided test takes |t|. Whether a mean is beyond a boundary is one-sided and takes t (`sign_flip_beyond`).

Measured error rates: see `harness.stats.summary.summarize`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from harness.stats.draws import is_exact, rows_at_once, sign_blocks

TIE = 1e-6  # a draw that equals what was observed must count, however the products were rounded
MOST_SKEW = 0.5


@dataclass(frozen=True)
class Tail:
    """p-values of each head: alone, and adjusted over all heads by step-down max-T."""

    p_value: Float[np.ndarray, " head"]
    p_adjusted: Float[np.ndarray, " head"]
    smallest: float
    draws: str


def skew_corrected(
    first: Float[np.ndarray, "row head"], third: Float[np.ndarray, "row head"], n: int
) -> Float[np.ndarray, "row head"]:
    """Return the skew-corrected t from sums of values and of their cubes, scaled to sum of squares 1 (or 0)."""
    mean = first / n
    square = mean * mean
    left = 1 - n * square  # share of the mean square that is variance; sign flips leave the mean square alone
    sd = np.sqrt(np.maximum(left, 1e-9) / n)
    # Products, not powers: a power costs more than all the rest.
    skew = (third - 3 * mean) / n + 2 * square * mean
    skew /= sd * sd * sd
    skew *= left > 1e-4  # Values that hardly differ have a skewness of rounding errors only.
    t = mean / sd
    u = np.clip(skew * t / 3, -MOST_SKEW, MOST_SKEW)
    t *= 1 + u + u * u / 3
    t += skew / (6 * n)
    t *= np.sqrt(n)
    return t


def tail(
    observed: Float[np.ndarray, " head"],
    drawn: Iterable[Float[np.ndarray, "row head"]],
    exact: bool,
    unseen: int,
) -> tuple[Float[np.ndarray, " head"], Float[np.ndarray, " head"]]:
    """Return raw p and step-down max-T p (Westfall & Young 1993, algorithm 4.1; with t, Romano & Wolf 2005, JASA 100).

    From the strongest head down, each is compared with the maximum, draw by draw, of itself and all weaker ones. Heads
    tested but not passed (`unseen`) add one raw p each: a Bonferroni bound that takes their tails to be like this
    head's. Random draws count the observed value as one of them (Phipson & Smyth 2010).
    """
    order = np.argsort(-observed, kind="stable")
    bar = observed - TIE * (1 + np.abs(observed))
    alone, joint, total = np.zeros(len(bar)), np.zeros(len(bar)), 0
    for block in drawn:
        alone += (block >= bar).sum(axis=0)
        strongest = np.maximum.accumulate(block[:, order[::-1]], axis=1)[:, ::-1]
        joint += (strongest >= bar[order]).sum(axis=0)
        total += len(block)
    itself = 0 if exact else 1
    p_value, p_joint = ((count + itself) / (total + itself) for count in (alone, joint))
    p_adjusted = np.empty(len(bar))
    p_adjusted[order] = np.minimum(np.maximum.accumulate(p_joint + unseen * p_value[order]), 1)
    return p_value, p_adjusted


class SignFlips:
    """The skew-corrected t of each column under sign flips of whole clusters."""

    def __init__(self, sums: Float[np.ndarray, "cluster column"]):
        scaled = sums / np.maximum(np.abs(sums).max(axis=0), np.finfo(float).tiny)
        length = np.sqrt((scaled**2).sum(axis=0))
        self.unit = scaled / np.where(length > 0, length, 1)
        self.cubed = self.unit**3

    def observed(self) -> Float[np.ndarray, " column"]:
        """Return t without any flip."""
        return self.statistic(np.ones((1, len(self.unit))))[0]

    def statistic(self, signs: Float[np.ndarray, "row cluster"]) -> Float[np.ndarray, "row column"]:
        """Return t under each sign pattern. Odd: the opposite pattern has the opposite t."""
        return skew_corrected(signs @ self.unit, signs @ self.cubed, len(self.unit))


def sign_flip(
    sums: Float[np.ndarray, "cluster head"], resamples: int, seed: np.random.SeedSequence, unseen: int = 0
) -> Tail:
    """Test cluster sums against zero by two-sided sign flips; all patterns if they fit into `resamples`.

    Sums, not means, of clusters: the mean effect is over prompts.
    """
    n, flips = len(sums), SignFlips(sums)
    exact = is_exact(n, resamples)
    drawn = (np.abs(flips.statistic(signs)) for signs in sign_blocks(n, resamples, seed))
    p_value, p_adjusted = tail(np.abs(flips.observed()), drawn, exact, unseen)
    smallest = 2.0 ** (1 - n) if exact else max(2.0 ** (1 - n), 1 / (resamples + 1))
    text = f"all {2**n} sign flips of {n} clusters" if exact else f"{resamples} random sign flips of {n} clusters"
    return Tail(p_value, p_adjusted, smallest, text)


def sign_flip_beyond(
    sums: Float[np.ndarray, "cluster head"],
    size: Float[np.ndarray, " cluster"],
    least: float,
    resamples: int,
    seed: np.random.SeedSequence,
    unseen: int = 0,
    directions: tuple[int, ...] = (1, -1),
) -> Float[np.ndarray, " head"]:
    """Return the adjusted p of mean > `least` or mean < −`least`, the smaller: simultaneous over heads and directions.

    One-sided sign flips at the boundary: under direction d the cluster's value is d × sum − `least` × size, around
    zero if the mean is d × `least`, and the signed t is large where the mean is beyond. Step-down max-T over all
    columns (head, direction), all under the same sign patterns; the smallest p there is, is 2⁻ⁿ.
    """
    n, n_heads = sums.shape
    columns = np.concatenate([each * sums - least * size[:, None] for each in directions], axis=1)
    flips, exact = SignFlips(columns), is_exact(n, resamples)

    def drawn() -> Iterator[Float[np.ndarray, "row column"]]:
        for signs in sign_blocks(n, resamples, seed):
            block = flips.statistic(signs)
            yield block
            if exact:
                yield -block

    p_adjusted = tail(flips.observed(), drawn(), exact, unseen * len(directions))[1]
    return p_adjusted.reshape(len(directions), n_heads).min(axis=0)


def matched_null(
    sums: Float[np.ndarray, "cluster head"],
    null: Float[np.ndarray, "draw cluster head"],
    resamples: int,
    seed: np.random.SeedSequence,
    unseen: int = 0,
) -> Tail:
    """Test one-sidedly whether a distance exceeds that of random edits of the same norm.

    If it is not, then in each cluster the ablation is exchangeable with its `draw` random edits. So each resample
    picks one of the ``draw + 1`` in every cluster, the same pick for all heads, and sums over clusters: a stratified
    permutation test, valid for any distribution, and fine-grained with one draw already, since clusters multiply.

    The statistic is the picked sum less the mean of the ``draw + 1``, over its standard deviation under the picks.
    The edits must be drawn afresh for each cluster: one direction used for all prompts is one draw, not many.
    """
    both = np.concatenate([sums[None], null])
    both = both - both.mean(axis=0)
    scale = np.sqrt((both**2).mean(axis=0).sum(axis=0))
    both /= np.where(scale > 0, scale, 1)

    def statistic(picks: Int[np.ndarray, "row cluster"]) -> Float[np.ndarray, "row head"]:
        picked = ((picks == kind).astype(np.float64) @ table for kind, table in enumerate(both))
        return np.add.reduce(list(picked))

    rng, rows, n = np.random.default_rng(seed), rows_at_once(len(sums)), len(sums)
    blocks = (rng.integers(len(both), size=(min(rows, resamples - start), n)) for start in range(0, resamples, rows))
    p_value, p_adjusted = tail(both[0].sum(axis=0), map(statistic, blocks), exact=False, unseen=unseen)
    smallest = max(float(len(both)) ** -n, 1 / (resamples + 1))
    return Tail(p_value, p_adjusted, smallest, f"{resamples} random picks among {len(both)} edits in {n} clusters")
