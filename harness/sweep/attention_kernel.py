"""Choose which code computes attention in a sweep: the model's own, or torch's scaled-dot-product kernel."""

from dataclasses import replace
from typing import Any, Literal

import torch

from harness import hooks
from harness.hooks.fused_attention import fused_attention
from harness.models import Inputs, Model
from harness.prompts import Prompts

#: The shortest prompts for which the kernel is used. Measured on SmolLM2 (docs/measurements.md, 2026-12-01): up to 256
#: tokens the kernel gains nothing that can be told from noise, so that shorter prompts keep the numbers of earlier runs
#: bit for bit.
MIN_TOKENS = 512
#: The largest difference of z to the model's own, relative to z's largest entry.
TOLERANCE = 1e-5
#: Tokens of the probe, and how many more than a sliding window it has.
_PROBE, _BEYOND = 24, 8

Kernel = Literal["sdpa", "eager"]


def kernel_for(model: Model, prompts: Prompts) -> Kernel:
    """Return the kernel for a sweep of these prompts: ``sdpa`` where prompts are long and the model takes it."""
    longest = int(prompts.width.max())
    return "sdpa" if longest >= MIN_TOKENS and not why_eager(model, longest) else "eager"


@torch.no_grad()
def why_eager(model: Model, longest: int = _PROBE) -> str:
    """Return why a model's attention is computed by its own code; empty if the kernel gives the same z.

    A forward of two rows of random tokens, one of them padded, and longer than a sliding window that prompts of
    `longest` tokens would be longer than. In it z of every layer is computed both ways.
    """
    if model.spec.dtype != "float32":
        return f"{model.spec.dtype} rounds scores, which the kernel does not"
    with model.alone(), fused_attention(model.bridge, model.shape.sites, compared=True) as fused:
        model.forward(_probe(model, longest))
    if missing := [site for site in model.shape.sites if site not in fused.by_kernel]:
        return f"{missing[0]} computes its own scores ({fused.own.get(missing[0], 'not a product of rows and heads')})"
    if fused.own:
        site, reader = next(iter(fused.own.items()))
        return f"{site} reads its own scores ({reader})"
    return "" if fused.error <= TOLERANCE else f"z differs by {fused.error:.1g}"


def _probe(model: Model, longest: int) -> Inputs:
    settings: Any = hooks.plain_model(model.bridge).config
    windows = [getattr(settings, name, None) or 0 for name in ("sliding_window", "window_size")]
    beyond = max((window for window in windows if window < longest), default=0) + _BEYOND
    length = min(max(_PROBE, beyond), model.shape.n_ctx)
    generator = torch.Generator().manual_seed(0)
    token_id = torch.randint(model.shape.d_vocab, (2, length), generator=generator).to(model.device)
    mask = torch.ones_like(token_id)
    mask[1, 2 * length // 3 :] = 0
    inputs = Inputs(token_id, mask)
    return replace(inputs, source_id=token_id, source_mask=mask) if model.kind == "encoder_decoder" else inputs
