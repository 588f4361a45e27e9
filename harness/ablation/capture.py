"""z of clean forwards, taken where W_O receives it; nothing stays on the model."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation.edits import Baseline
from harness.hooks import Head
from harness.models import Model
from harness.prompts import Prompts

#: z by layer.
Captured = dict[int, Float[Tensor, "row position head d_head"]]


class _Enough(Exception):
    """The last layer that is wanted was reached; the rest of the forward need not run."""


@torch.no_grad()
def capture(model: Model, rows: Prompts, layers: Iterable[int]) -> Captured:
    """z of these layers from one clean forward of these rows, as they are.

    Raises `RuntimeError` if a layer's output projection did not run.
    """
    ids, segment = (torch.as_tensor(array, device=model.device) for array in (rows.token_id, rows.segment))
    wanted, kept = sorted(set(layers)), Captured()

    def keep(layer: int, args: tuple[Any, ...]) -> None:
        kept[layer] = args[0].clone().unflatten(2, (model.shape.n_heads, model.shape.d_head))
        if layer == wanted[-1]:
            raise _Enough

    handles = [
        hooks.output_projection(model.bridge, layer).register_forward_pre_hook(
            lambda _, args, layer=layer: keep(layer, args)
        )
        for layer in wanted
    ]
    try:
        model.forward(ids.clamp(min=0), (ids >= 0).long(), segment)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if list(kept) != wanted:
        raise RuntimeError(f"{model.name}: W_O ran in layers {list(kept)} where {wanted} were wanted")
    return kept


def in_place(captured: Captured) -> Baseline:
    """The baseline that puts captured z [row, position, head, d_head] in the place of each row's own."""

    def put(z: Float[Tensor, "row position d_head"], head: Head) -> Float[Tensor, "row position d_head"]:
        return captured[head.layer][:, :, head.head]

    return put
