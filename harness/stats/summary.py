"""Summarise effects: the statistics of `heads.csv`, one row per head."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from harness.config import RequestError
from harness.stats.bootstrap import Interval, interval
from harness.stats.clusters import Clusters, group
from harness.stats.columns import Columns, LabelledArray, columns
from harness.stats.discovery import false_discovery
from harness.stats.planning import check_share, clusters_needed, reachable
from harness.stats.randomisation import Tail, matched_null, sign_flip, sign_flip_beyond

SYMMETRY_FROM = 32  # effective clusters; below, error rates hold for near-symmetric effects only (see summarize)
SKEW_LIMIT = 0.03  # squared skewness over clusters effective against skew; above, error rates exceed the level (same)


@dataclass(frozen=True)
class _Options:
    confidence: float
    level: float
    resamples: int
    min_effect: float | None
    tested: int

    def __post_init__(self):
        check_share("stats.confidence", self.confidence)
        check_share("stats.level", self.level)
        if self.resamples * self.level < 1:
            raise RequestError(
                "stats.resamples", self.resamples, f"level {self.level} needs more than {1 / self.level:.0f}"
            )
        if self.min_effect is not None and not 0 <= self.min_effect < math.inf:
            raise RequestError("stats.min_effect", self.min_effect, "must be a finite number, zero or more")


def summarize(
    effect: Float[np.ndarray, "prompt layer head"] | LabelledArray,
    clusters: Shaped[np.ndarray, " prompt"] | None = None,
    higher_is_better: bool = False,
    confidence: float = 0.95,
    level: float = 0.05,
    resamples: int = 10_000,
    min_effect: float | None = None,
    seed: int = 0,
    *,
    distance: bool = False,
    null: Float[np.ndarray, "draw prompt layer head"] | LabelledArray | None = None,
    tested: int | None = None,
) -> pd.DataFrame:
    """Return per head the mean effect, its interval, effect size, p, q, adjusted p, and the claims made from them.

    Columns: the axes of `effect` other than the prompt (layer, head), then

    - `effect_mean`: mean over *prompts*, in the metric's units. Where clusters differ in size, large ones weigh more;
      interval, p and standard error are all of this mean, through cluster sums.
    - `ci_low`, `ci_high`: cluster bootstrap by half-sampling (`harness.stats.bootstrap`), for one head at a time;
      NaN with one cluster.
    - `effect_size`: Cohen's d of one sample, mean of the cluster means over their standard deviation (n − 1); without
      clusters, of the prompts. Infinite if they are all equal, 0 if all zero, NaN with one cluster.
    - `p_value`: two-sided sign flip of whole clusters, exact if 2^clusters ≤ resamples, else random with the
      observed one counted. Statistic: `harness.stats.randomisation`.
    - `q_value`: Benjamini–Hochberg over `tested`, the false discovery rate; no claim uses it.
    - `p_adjusted`: two-sided step-down Westfall–Young max-T of mean = 0, the same sign flips for all heads.
    - `p_important`: one-sided step-down max-T of mean > `min_effect` and of mean < −`min_effect`, over all heads and
      both directions at once, flips at the boundary (`randomisation.sign_flip_beyond`); the smaller of a head's two.
      A distance has one direction, and needs no null for this. NaN without `min_effect`.
    - `significant`: `p_adjusted` below the level. Guards against calling any head with mean 0 significant: the
      family-wise error over all heads, whatever the dependence between them, is at most the level.
    - `important`: `p_important` below the level; so is, at most, the chance to call any head important whose mean is
      within ±`min_effect`, also if all are on the boundary. And the whole interval beyond ±`min_effect`, so that
      table and word agree; and `significant`, where that is tested. NA without `min_effect`.
    - `rank`: by |effect_mean|, 1 = strongest, equals share the better rank; `n_prompts`, `n_clusters`.
    - `n_effective_clusters`: (sum of sizes)² / sum of squared sizes, which is `n_clusters` if all are equal.

    ``attrs``: `interval`, `test`, `tested`, `helps` (which sign of effect_mean means that the head helped) and
    `note` (what the number of clusters cannot show; empty if nothing).

    **Where the guarantee ends.** A sign flip assumes that cluster sums are symmetric around size × mean. Symmetric
    noise, however heavy its tails, is safe with any number and any sizes of clusters. Under skew the rates hold from
    some number on, and large clusters do not count in full. So ``attrs["note"]`` is not empty where

    - fewer than 32 clusters are effective (rounded down), or
    - squared skewness (of the cluster means, absolute, averaged over heads) is more than 0.03 times the number of
      clusters that are effective against skew, (sum of sizes²)³ / (sum of sizes³)².

    What a sign flip can reach at all (2 / 2ⁿ, one-sided 1 / 2ⁿ) is a matter of the actual number.

    Coverage in % of the interval at 95 %, clusters sharing their noise (12,000 columns, standard error 0.4; one of 64
    with a quarter of the prompts; sizes from a Pareto distribution with exponent 1.2). Noise of each prompt's own,
    with clusters of unequal size, is nearer to normal and covered better:

    ==============================  ======  =========  ===========  =========
    clusters (effective)            normal  t, 3 d.f.  exponential  lognormal
    ==============================  ======  =========  ===========  =========
    8                               95      94         93           87
    16                              95      94         94           88
    32                              95      94         93           90
    64                              95      94         94           91
    64, one with a quarter (13.7)   94      94         93           90
    64, Pareto sizes (21.8)         94      94         92           88
    64, Pareto sizes (37.0)         95      94         93           90
    ==============================  ======  =========  ===========  =========

    Wrong claims: share of runs in which any of 20 heads is `significant` though all means are 0, and `important`
    though all are on the boundary (the worse of all at +`min_effect`, the long tail on the side of zero, and half of
    them at −`min_effect`); level 0.05, 400 runs, standard error 0.011. `*`: with a note in nine of ten runs or more,
    `(*)`: in some; without one, claims are wrong in 5 % of the runs at most. Correlated: exponential noise that ten
    heads share, plus normal noise of each:

    =============================  ==========  ============  ===========  ==========  ============
    clusters (effective)           normal      t, 3 d.f.     exponential  lognormal   correlated
    =============================  ==========  ============  ===========  ==========  ============
    32                             .03, .03    .04, .04 (*)  .04, .06 *   .10, .13 *  .06, .08 (*)
    64                             .05, .03    .05, .03 (*)  .02, .04 *   .04, .06 *  .02, .02 (*)
    64, one with a quarter (13.7)  .05, .03 *  .05, .03 *    .09, .11 *   .22, .27 *  .04, .05 *
    64, Pareto sizes (21.8)        .04, .04 *  .05, .03 *    .18, .19 *   .39, .41 *  .05, .05 *
    64, Pareto sizes (37.0)        .04, .04    .06, .03 *    .12, .14 *   .26, .28 *  .03, .04 *
    =============================  ==========  ============  ===========  ==========  ============

    Measured on 40 independent null heads, all skewed, equal clusters, at level 0.05: family-wise rate of max-T, false
    discovery rate of BH (1,000 runs, standard error 0.007; plain t, for comparison, 200 runs):

    =====================  ==========  ==========  ==========  ==========  ==========
    noise / clusters       8           16          32          64          128
    =====================  ==========  ==========  ==========  ==========  ==========
    t with 3 d.f.          0.06, 0.00  0.06, 0.04  0.04, 0.03  0.05, 0.03  0.05, 0.04
    skewness 1 (gamma)     0.09, 0.00  0.06, 0.08  0.04, 0.06  0.04, 0.04  0.04, 0.04
    skewness 2 (exp.)      0.19, 0.00  0.10, 0.26  0.04, 0.17  0.02, 0.06  0.02, 0.03
    skewness 6 (lognorm.)  0.41, 0.01  0.31, 0.61  0.13, 0.38  0.05, 0.16  0.02, 0.06
    skewness 2, plain t    0.40, 0.00  0.48, 0.28  0.38, 0.26  0.28, 0.18  0.15, 0.14
    =====================  ==========  ==========  ==========  ==========  ==========

    So max-T holds from 32 equal clusters (skewness 2) or 64 (6), BH from 32 (1), 128 (2) or more (6). More prompts in
    a cluster lower the skew of its sum only as far as they do not share it. What the correction costs in power:
    `harness.stats.randomisation`.

    Args:
        effect: metric(ablated) − metric(clean); a head that is NaN for every prompt was not ablated and is left out.
            A DataArray may have other axes beside the prompt, such as (layer) or (stack, layer, head).
        clusters: one label per prompt; prompts of a cluster are resampled and flipped together.
        higher_is_better: of the metric. Decides ``attrs["helps"]`` only.
        min_effect: in the metric's units (the caller turns 5 % of the clean value into this).
        distance: the metric cannot be negative (`kl`, `embedding`): no sign test, and p, q and p_adjusted are NaN.
        null: distances only: the same metric for random edits of z of the same norm, drawn afresh for each cluster;
            p is then one-sided against those (`harness.stats.randomisation.matched_null`).
        tested: over how many heads to correct, if more were screened than are passed (`sweep.method=screen`).

    Raises:
        RequestError: names the key, or the prompt and head with a value that is not finite.

    Sources: max-T, Westfall & Young 1993; q, Benjamini & Hochberg 1995; each file of `harness.stats` has its own.

    >>> import numpy as np
    >>> import harness
    >>> effect = np.random.default_rng(0).normal(size=(32, 1, 3)) + [0, 0, 2]      # [prompt, layer, head]
    >>> harness.stats.summarize(effect, min_effect=0.5)["important"].tolist()
    [False, False, True]
    """
    taken = columns(effect)
    n_heads = taken.values.shape[1]
    if tested is not None and tested < n_heads:
        raise RequestError("tested", tested, f"there are effects of {n_heads} heads")
    options = _Options(confidence, level, resamples, min_effect, tested or n_heads)
    grouped = group(clusters, len(taken.values))
    sums = grouped.sums(taken.values)
    draw, flip = np.random.SeedSequence(seed).spawn(2)
    bounds = interval(sums, grouped.size, confidence, resamples, draw)
    edits = None if null is None else _null_sums(null, taken, grouped, distance)
    if edits is not None:
        test = matched_null(sums, edits, resamples, flip, options.tested - n_heads)
    else:
        test = None if distance else sign_flip(sums, resamples, flip, options.tested - n_heads)
    p_important = np.full(n_heads, np.nan)
    if min_effect is not None:
        directions = (1,) if distance else (1, -1)
        p_important = sign_flip_beyond(
            sums, grouped.size, min_effect, resamples, flip, options.tested - n_heads, directions
        )
    table = _table(taken, grouped, sums, bounds, test, p_important, options)
    flipped = not distance or min_effect is not None
    choices = None if edits is None else len(edits) + 1
    table.attrs["note"] = _note(grouped, sums, test, flipped, options, choices)
    table.attrs["helps"] = "negative" if higher_is_better and not distance else "positive"
    return table


def _table(
    taken: Columns,
    grouped: Clusters,
    sums: Float[np.ndarray, "cluster head"],
    bounds: Interval,
    test: Tail | None,
    p_important: Float[np.ndarray, " head"],
    options: _Options,
) -> pd.DataFrame:
    n_prompts, n_heads = taken.values.shape
    table = taken.labels.copy()
    table["effect_mean"] = sums.sum(axis=0) / n_prompts
    table["ci_low"], table["ci_high"] = bounds.low, bounds.high
    table["effect_size"] = _effect_size(sums / grouped.size[:, None])
    empty = np.full(n_heads, np.nan)
    table["p_value"] = test.p_value if test else empty
    table["q_value"] = false_discovery(test.p_value, options.tested) if test else empty
    table["p_adjusted"] = test.p_adjusted if test else empty
    table["p_important"] = p_important
    table["significant"] = table["p_adjusted"] < options.level
    table["important"] = _important(table, test, options)
    table["rank"] = table["effect_mean"].abs().rank(method="min", ascending=False).astype(int)
    table["n_prompts"], table["n_clusters"] = n_prompts, len(grouped)
    table["n_effective_clusters"] = grouped.effective
    table.attrs["interval"] = "half-sampling" if len(grouped) > 1 else "none"
    table.attrs["test"] = test.draws if test else "none: a distance has no sign"
    table.attrs["tested"] = options.tested
    return table


def _effect_size(means: Float[np.ndarray, "cluster head"]) -> Float[np.ndarray, " head"]:
    if len(means) < 2:
        return np.full(means.shape[1], np.nan)
    mean, sd = means.mean(axis=0), means.std(axis=0, ddof=1)
    equal = sd <= 1e-12 * np.abs(means).max(axis=0)  # equal but for rounding
    alike = np.where(mean == 0, 0.0, np.copysign(np.inf, mean))
    return np.where(equal, alike, mean / np.where(equal, 1, sd))


def _important(table: pd.DataFrame, test: Tail | None, options: _Options) -> pd.Series:
    if options.min_effect is None:
        return pd.Series(pd.NA, index=table.index, dtype="boolean")
    beyond = (table["ci_low"].to_numpy() > options.min_effect) | (table["ci_high"].to_numpy() < -options.min_effect)
    claimed = table["p_important"].to_numpy() < options.level
    if test:
        claimed &= table["significant"].to_numpy()
    return pd.Series(beyond & claimed, index=table.index)


def _skewness(means: Float[np.ndarray, "cluster head"]) -> float:
    """Return the absolute skewness of the cluster means, averaged over heads; heads without spread count as 0."""
    away = means - means.mean(axis=0)
    largest = np.abs(away).max(axis=0)
    differ = largest > 1e-9 * np.abs(means).max(axis=0)  # else there is only rounding
    away /= np.where(differ, largest, 1)
    spread = np.where(differ, (away**2).mean(axis=0), 1)
    return float(np.where(differ, np.abs((away**3).mean(axis=0)) / spread**1.5, 0).mean())


def _note(
    grouped: Clusters,
    sums: Float[np.ndarray, "cluster head"],
    test: Tail | None,
    flipped: bool,
    options: _Options,
    choices: int | None,
) -> str:
    """Describe what this many clusters cannot show; `choices` is the number of edits among which a matched null picks
    in each cluster."""
    n_clusters, n_effective, level = len(grouped), grouped.effective, options.level
    have = f"{n_clusters} cluster{'' if n_clusters == 1 else 's'}"
    weighed = have if n_effective == n_clusters else f"{have}, {n_effective:.1f} effective"
    notes = []
    if not reachable(n_clusters, 1 - options.confidence):
        needed = clusters_needed(1 - options.confidence)
        notes.append(f"{have}: no interval can hold {options.confidence:.0%} with fewer than {needed}.")
    if test and test.smallest >= level:
        needed, by = clusters_needed(level), "a sign flip"
        if choices:
            needed, by = math.floor(-math.log(level, choices)) + 1, f"a pick among {choices} edits"
        notes.append(
            f"{have}: p cannot go below {test.smallest:.2g}, so nothing can be significant at the level {level}; "
            f"{by} needs {needed} clusters."
        )
    elif test and test.smallest * options.tested >= level:
        least = math.floor(test.smallest * options.tested / level) + 1
        notes.append(
            f"{have}: p cannot go below {test.smallest:.2g}, so q over {options.tested} heads falls below {level} "
            f"only where at least {least} heads get there; p_adjusted has no such limit."
        )
    if flipped and int(n_effective) < SYMMETRY_FROM:
        notes.append(f"{weighed}: with fewer than {SYMMETRY_FROM}, p holds only if effects are about symmetric.")
    elif flipped and (skew := _skewness(sums / grouped.size[:, None])) ** 2 > SKEW_LIMIT * grouped.effective_skew:
        notes.append(
            f"{weighed}, and effects are skewed (mean absolute skewness of cluster means {skew:.1f}): p may be too "
            f"small; that much skew needs {math.ceil(skew**2 / SKEW_LIMIT)} clusters of equal size."
        )
    return " ".join(notes)


def _null_sums(
    null: Float[np.ndarray, "draw prompt layer head"] | LabelledArray, taken: Columns, grouped: Clusters, distance: bool
) -> Float[np.ndarray, "draw cluster measured"]:
    """Return cluster sums of the random edits, for the heads that were measured."""
    if not distance:
        raise RequestError("null", "set", "a matched null is for distances (distance=True); effects get a sign test")
    if isinstance(null, LabelledArray):
        null = null.transpose("draw", "prompt", *taken.labels.columns)
    edits = np.asarray(null, dtype=np.float64)
    if edits.shape[1:] != taken.shape or not len(edits):
        raise RequestError(
            "null", f"shape {edits.shape}", f"it must be [draw, *effect], the effect being {taken.shape}"
        )
    flat = edits.reshape(*edits.shape[:2], -1)[..., taken.kept]
    if not np.isfinite(flat).all():
        draw, prompt, head = (int(i) for i in np.argwhere(~np.isfinite(flat))[0])
        raise RequestError("null", "nan", f"draw {draw}, prompt {prompt}, {taken.name(head)} is not a finite number")
    return np.stack([grouped.sums(each) for each in flat])
