"""LayerNorm or RMSNorm with a frozen scale, which makes it linear."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "*row d_model"]


@dataclass(frozen=True)
class FrozenNorm:
    """LayerNorm or RMSNorm with the scale of a clean row: x ↦ γ ⊙ c(x) / s(clean) + β.

    c subtracts the mean (LayerNorm) or nothing (RMSNorm), and s(x)² = mean(c(x)²) + ε. The module's own output
    γ ⊙ c(x) / s(x) + β is rescaled, so how a family stores its γ does not matter.
    """

    norm: Callable[[Tensor], Tensor]
    clean: Rows

    def __call__(self, x: Rows) -> Rows:
        bias = self.norm(torch.zeros_like(x[..., :1, :]))
        return bias + (self.norm(x) - bias) * (self._scale(x) / self._scale(self.clean)).to(x)

    @cached_property
    def _centres(self) -> bool:
        return _centres(self.norm, self.clean)

    @cached_property
    def _epsilon(self) -> float:
        return _epsilon(self.norm, self.clean)

    def _scale(self, x: Rows) -> Float[Tensor, "*row 1"]:
        x = x.double()
        centred = x - x.mean(dim=-1, keepdim=True) if self._centres else x
        return (centred.square().mean(dim=-1, keepdim=True) + self._epsilon).sqrt()


class Gain(NamedTuple):
    """A norm without the division by the length of its input: x ↦ γ ⊙ c(x), a matrix that weights can be folded with.

    `scale` is γ; c subtracts the mean (`centres`, LayerNorm) or nothing (RMSNorm).
    """

    scale: Float[Tensor, "*head d"]
    centres: bool

    @classmethod
    def of(cls, norm: Any, like: Float[Tensor, "*head d"]) -> "Gain":
        """Read γ off the module's output for a vector of ±1, so how a family stores it does not matter."""
        signs = 1.0 - 2.0 * (torch.arange(like.shape[-1], device=like.device) % 2)
        row = signs.to(like).expand(1, *like.shape).contiguous()
        frozen = FrozenNorm(norm, row)
        x = row.double() - row.double().mean(dim=-1, keepdim=True) if frozen._centres else row.double()
        gain = (norm(row).double() - norm(torch.zeros_like(row)).double()) * frozen._scale(row) / x
        return cls(gain[0].float(), frozen._centres)

    def applied(self, x: Float[Tensor, "*row d"]) -> Float[Tensor, "*row d"]:
        """Return γ ⊙ c(x)."""
        return (x - x.mean(dim=-1, keepdim=True) if self.centres else x) * self.scale

    def folded(self, weight: Float[Tensor, "d out"]) -> Float[Tensor, "d out"]:
        """Return the matrix that reads x as `weight` reads γ ⊙ c(x)."""
        scaled = self.scale[:, None] * weight
        return scaled - scaled.mean(dim=0) if self.centres else scaled


def _centres(norm: Any, like: Tensor) -> bool:
    """Whether the module subtracts the mean: its output is then the same for a constant and for zero. (The width comes
    from `like`: OLMo's norm has no weight.)"""
    same, nothing = (norm(torch.full_like(like[..., :1, :], value)) for value in (1.0, 0.0))
    return bool(torch.allclose(same, nothing, atol=1e-4))


def _epsilon(norm: Any, like: Tensor) -> float:
    """Return the module's ε, from its attribute or else from its outputs for a long and a short vector."""
    for name in ("eps", "variance_epsilon", "norm_eps", "epsilon"):
        if isinstance(getattr(norm, name, None), float):
            return float(getattr(norm, name))
    # With N(kv) = γ ⊙ kc / √(k²m + ε) + β, the ratio r = |N(kv) − β| / |N(v) − β| gives ε = k²m (1 − r²) / (r² − k²).
    row = torch.linspace(-1.0, 1.0, like.shape[-1], device=like.device)[None].double().to(like.dtype)
    bias, short = norm(torch.zeros_like(row)), 3e-3
    lengths = [float((norm(row * k) - bias).double().norm()) for k in (short, 1.0)]
    ratio, mean = (lengths[0] / lengths[1]) ** 2, float(row.double().square().mean())
    return max(0.0, short**2 * mean * (1 - ratio) / (ratio - short**2))
