"""Reduce the stage's arrays to one number per prompt: each method's agreement with each cause, and its curves.

A prompt's number is the mean over its targets; NaN where no target has one.
"""

import warnings
from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.attribution.evaluate.agreement import kendall, overlap, spearman
from harness.attribution.evaluate.levels import by_word

#: Whether more is better; `share` statistics are neither.
BETTER: dict[str, bool] = {
    "spearman": True,
    "kendall": True,
    "overlap": True,
    "comprehensiveness": True,
    "sufficiency": False,
    "deletion": False,
    "insertion": True,
}
AGREEMENT = ("spearman", "kendall", "overlap")
Nodes = Float[np.ndarray, "prompt kind target node"]


def with_source(data: xr.Dataset, name: str) -> np.ndarray:
    """Return an array over tokens, the source's (where there is one) before the prompt's own."""
    own = data[name].values
    source = f"source_{name}"
    return np.concatenate([data[source].values, own], axis=-1) if source in data else own


def agreement(data: xr.Dataset, top: int, level: str = "token") -> xr.DataArray:
    """Compute the agreement of scores and effects, [statistic, policy, prompt, method, cause_kind].

    Over the tokens that count, or with `level` ``word`` over words, which have the sums of their tokens.
    """
    scores, effects, counts = (with_source(data, name) for name in ("attribution", "cause", "counted"))
    if level == "word":
        (scores, effects), counts = by_word(data, (scores, effects), counts)
    statistics: dict[str, Callable[..., float]] = {
        "spearman": spearman,
        "kendall": kendall,
        "overlap": lambda a, b: overlap(a, b, top),
    }
    shape = (len(statistics), counts.shape[1], len(scores), scores.shape[1], effects.shape[1])
    values = np.full(shape, np.nan)
    for policy, prompt, method, cause in np.ndindex(*shape[1:]):
        pairs = (scores[prompt, method], effects[prompt, cause], counts[prompt, policy])
        each = []
        for score, effect, counted in zip(*pairs, strict=True):
            known = counted & np.isfinite(score) & np.isfinite(effect)
            if counted.any():
                each.append([compute(score[known], effect[known]) for compute in statistics.values()])
        if each:
            values[:, policy, prompt, method, cause] = _mean(np.array(each), 0)
    note = {
        "units": "spearman and kendall −1 to 1, overlap 0 to 1",
        "method": f"Spearman of average ranks; Kendall's tau-b; overlap of the top {top}, ties sharing "
        f"the places left; scores and effects with their signs, of each {level}; mean over targets",
    }
    dims = ("statistic", "policy", "prompt", "attribution_method", "cause_kind")
    coords = {name: data[name].values for name in ("policy", "attribution_method", "cause_kind")}
    return xr.DataArray(values, {"statistic": list(statistics), **coords}, dims, attrs=note)


def curves(data: xr.Dataset) -> xr.DataArray:
    """Compute the erasure statistics [statistic, policy, prompt, attribution_method] from `erased`.

    ``comprehensiveness`` and ``sufficiency`` are means over the fractions, in the unit of the causes; ``deletion`` and
    ``insertion`` are areas under the curve of exp(−loss) (the probability of the right token; of a vector 1 − cosine
    distance), from none to all of the tokens that count.
    """
    fractions = data["fraction"].values
    clean = data["explained_value"].values[:, None, None, :, None]
    erased = data["erased"].values.astype(float)
    left = _left(clean + erased[:, :, :, 0], data), _left(clean + erased[:, :, :, 1], data)
    whole = np.broadcast_to(_left(clean, data), (*left[0].shape[:-1], 1))
    nothing = _left(clean + data["erased_all"].values[:, None, :, :, None], data)
    nothing = np.broadcast_to(nothing, whole.shape)
    at = np.concatenate([[0], fractions, [1]])
    order = np.argsort(at)
    areas = [
        np.trapezoid(np.concatenate(parts, -1)[..., order], at[order], axis=-1)
        for parts in ((whole, left[0], nothing), (nothing, left[1], whole))
    ]
    by_target = [erased[:, :, :, 0].mean(-1), erased[:, :, :, 1].mean(-1), *areas]
    values = np.moveaxis(_mean(np.stack(by_target), -1), 2, 3)  # [statistic, prompt, policy, method]
    note = {
        "units": f"comprehensiveness and sufficiency: {data['erased'].attrs['units']}; areas: 0 to 1",
        "method": f"{data['erased'].attrs['method']}; fractions {', '.join(f'{x:g}' for x in fractions)}",
    }
    dims, names = ("statistic", "prompt", "policy", "attribution_method"), list(BETTER)[3:]
    coords = {"statistic": names, **{name: data[name].values for name in ("policy", "attribution_method")}}
    array = xr.DataArray(values, coords, dims, attrs=note)
    return array.transpose("statistic", "policy", "prompt", "attribution_method")


def _left(value: np.ndarray, data: xr.Dataset) -> np.ndarray:
    """Return what is left of the prediction, 0 to 1."""
    return 1 - value if "cosine" in data["explained_value"].attrs["units"] else np.exp(-value)


def shares(data: xr.Dataset) -> xr.DataArray:
    """Compute the share of all |score| or |effect| on the first token and on the predicting one, [statistic, prompt,
    which]. The latter is NaN for the vector of a text. `which` is each method, then each cause."""
    strength = np.abs(np.concatenate([with_source(data, name) for name in ("attribution", "cause")], axis=1))
    n_source = data.sizes.get("source_position", 0)
    total = np.nansum(strength, axis=-1)
    first = strength[..., n_source]
    at = data["explained"].values
    predicted = "cosine" not in data["explained_value"].attrs["units"]
    picked = np.take_along_axis(strength, n_source + at.clip(0)[:, None, :, None], axis=-1)[..., 0]
    own = np.where(predicted, picked, np.nan)
    real = (at >= 0)[:, None] & (total > 0)
    by_token = [_mean(np.where(real, each / np.where(total > 0, total, 1), np.nan), -1) for each in (first, own)]
    which = [*data["attribution_method"].values, *data["cause_kind"].values]
    note = {"units": "share of the sum of absolute values over tokens"}
    coords = {"statistic": ["first_share", "own_share"], "which": which}
    return xr.DataArray(np.stack(by_token), coords, ("statistic", "prompt", "which"), attrs=note)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Average the finite values; NaN where there are none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice")
        return np.nanmean(values, axis=axis)
