"""Run a model once and keep what passes its hook points."""

from typing import Any

import numpy as np
import torch

from harness import hooks
from harness.models import Model
from harness.prompts import Prompts

#: The start of a variable's name, by stack: what a model writes, or a stack alone, has none.
PREFIX = {"": "", "decoder": "", "encoder": "encoder_", "cross": "cross_"}


def sizes(model: Model, prompts: Prompts) -> dict[str, int]:
    """How long each dimension is when these prompts are run."""
    shape = model.shape
    size = {"prompt": len(prompts), "layer": shape.depth, "head": shape.n_heads, "position": prompts.token_id.shape[1]}
    if prompts.source is not None:
        size["source_position"] = prompts.source.token_id.shape[1]
    return size | {axis: size[position] for axis, position in hooks.POSITIONS.items() if position in size}


def dims(stack: str) -> tuple[str, ...]:
    """The dimensions of a stack's pattern."""
    return ("prompt", "layer", *hooks.axes("pattern", stack))


@torch.no_grad()
def patterns(model: Model, prompts: Prompts, dtype: str = "float32") -> dict[str, np.ndarray]:
    """The post-softmax attention of every head on a batch of prompts, by name of the variable.

    `pattern` is [prompt, layer, head, query, key]; an encoder-decoder has `encoder_pattern` and `cross_pattern` too.
    0 where query or key is padding, NaN in layers that a stack does not have. Raises `RuntimeError` if a hook point
    did not fire.
    """
    size = sizes(model, prompts)
    kept = {
        PREFIX[stack] + "pattern": torch.full(
            [size[dim] for dim in dims(stack)], torch.nan, dtype=getattr(torch, dtype)
        )
        for stack in model.shape.stacks
    }
    given, silent = prompts.inputs(model.device), set(model.shape.sites)
    real = {"position": given.mask.bool()}
    if given.source_mask is not None:
        real["source_position"] = given.source_mask.bool()

    def keep(pattern: torch.Tensor, hook: Any, site: hooks.Site) -> None:
        query, key = (real[hooks.POSITIONS[axis]] for axis in hooks.axes("pattern", site.stack)[1:])
        there = query[:, None, :, None] & key[:, None, None, :]
        into = kept[PREFIX[site.stack] + "pattern"]
        into[:, site.layer] = pattern.masked_fill(~there, 0).to(into)
        silent.discard(site)

    names = {site: hooks.hook_name("pattern", site) for site in model.shape.sites}
    watches = [(name, lambda tensor, hook, site=site: keep(tensor, hook, site)) for site, name in names.items()]
    with model.bridge.hooks(fwd_hooks=watches):
        model.forward(given)
    if silent:
        raise RuntimeError(f"{names[min(silent)]} of {model.name} did not fire ({len(silent)} hook points are silent)")
    return {name: array.numpy() for name, array in kept.items()}
