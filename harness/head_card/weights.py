"""What the weights alone say of some heads, as arrays of a unit and as labelled arrays of a run."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from harness.head_card.composition import WAYS, compositions
from harness.head_card.ov_circuit import ov_circuits
from harness.hooks import Head
from harness.hooks.weights import INPUTS
from harness.models import Model

#: Random turns: the largest of all partners' scores is larger than in each of these by chance once in twenty times.
DRAWS = 19
#: Partners that are kept, each way and by each input.
_PARTNERS = 3


def arrays(model: Model, heads: Sequence[Head], draws: int, seed: int) -> dict[str, np.ndarray]:
    """Return the strongest partners of each head with their scores, what chance gives, and the OV circuits.

    `composed` [card, way, circuit, partner] has the numbers of heads, layer after layer, −1 where there are fewer.
    """
    score, chance = compositions(model, heads, draws, seed)
    best = score.flatten(3).nan_to_num(nan=-1.0)
    best = best.topk(min(_PARTNERS, best.shape[-1]), dim=-1)
    ov = ov_circuits(model, heads)
    found = {
        "composed": torch.where(best.values >= 0, best.indices, -1),
        "composition": torch.where(best.values >= 0, best.values, torch.nan),
        "composition_chance": chance.amax(dim=-1),
        "ov_singular": ov.singular,
        "ov_token": ov.token,
        "ov_copying": ov.copying,
    }
    return {name: values.numpy() for name, values in found.items()}


def labelled(model: Model, unit: Mapping[str, np.ndarray]) -> dict[str, xr.DataArray]:
    """Return these arrays with names of heads and strings of tokens.

    The attribute `random` of `composition` is the root mean square of random matrices' scores.
    """
    n_heads = model.shape.n_heads
    named = np.vectorize(lambda at: str(Head(*divmod(int(at), n_heads))) if at >= 0 else "", otypes=[str])
    pairs, coordinates = ("card", "way", "circuit", "partner"), {"way": list(WAYS), "circuit": list(INPUTS)}
    token = np.vectorize(model.tokens.string, otypes=[str])(unit["ov_token"])
    signs = {"sign": ["+", "-"], "end": ["read", "written"]}
    random = {"random": model.shape.d_model**-0.5}
    return {
        "composed_head": xr.DataArray(named(unit["composed"]), coordinates, pairs),
        "composition": xr.DataArray(unit["composition"], coordinates, pairs, attrs=random),
        "composition_chance": xr.DataArray(unit["composition_chance"], coordinates, pairs[:-1], attrs=random),
        "ov_singular": xr.DataArray(unit["ov_singular"], dims=("card", "singular")),
        "ov_token": xr.DataArray(token, signs, ("card", "direction", "sign", "end", "nearest")),
        "ov_copying": xr.DataArray(unit["ov_copying"], dims="card"),
    }
