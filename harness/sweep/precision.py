"""Run linear layers in bf16, everything between them in fp32.

The residual stream, norms, softmaxes and attention's own products stay in fp32; a linear layer's input is rounded to
bf16, multiplied with weights rounded to bf16, and returned in fp32. So errors do not accumulate in the stream, and most
of the arithmetic runs on bf16 units, where a machine has them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from harness import hooks
from harness.hooks.forward import replaced
from harness.models import Model

#: The smallest speedup for which bf16 is worth its errors.
MIN_SPEEDUP = 1.3
_ROWS, _TRIES = 1024, 5


@contextmanager
def bfloat16_products(model: Model) -> Iterator[None]:
    """Within this context, the model's linear layers multiply in bf16; its weights are not changed."""
    layers = [module for module in hooks.plain_model(model.bridge).modules() if hooks.is_linear(module)]
    with replaced({layer: _in_bfloat16(layer) for layer in layers}):
        yield


def speedup(model: Model) -> float:
    """Measure how many times as fast as in fp32 a linear layer of the model's width is, casts included.

    Each precision counts with the best of a few tries.
    """
    width = model.shape.d_model
    layer = torch.nn.Linear(width, 4 * width, bias=False, device=model.device)
    x = torch.randn(_ROWS, width, device=model.device)
    ways = [layer.forward, _in_bfloat16(layer)]
    times = [[_seconds(way, x) for way in ways] for _ in range(_TRIES)]
    plain, rounded = map(min, zip(*times, strict=True))
    return plain / rounded


def _in_bfloat16(layer: Any) -> Callable[[Tensor], Tensor]:
    weight = layer.weight if isinstance(layer, torch.nn.Linear) else layer.weight.T
    rounded, bias = weight.detach().bfloat16(), layer.bias

    def forward(x: Tensor) -> Tensor:
        product = linear(x.bfloat16(), rounded).to(x.dtype)
        return product if bias is None else product + bias

    return forward


@torch.no_grad()
def _seconds(way: Callable[[Tensor], Tensor], x: Tensor) -> float:
    started = time.perf_counter()
    way(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
