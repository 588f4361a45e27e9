"""A norm with its scale held still, which makes it linear."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "*row d_model"]


@dataclass(frozen=True)
class FrozenNorm:
    """LayerNorm or RMSNorm as if each row had the scale of a clean row: x ↦ γ ⊙ c(x) / s(clean) + β.

    c takes the mean away (LayerNorm) or nothing (RMSNorm), and s(x)² = mean(c(x)²) + ε. The module is asked for
    γ ⊙ c(x) / s(x) + β and only rescaled, so how a family writes its γ does not matter.
    """

    norm: Callable[[Tensor], Tensor]
    clean: Rows

    def __call__(self, x: Rows) -> Rows:
        bias = self.norm(torch.zeros_like(x[..., :1, :]))
        return bias + (self.norm(x) - bias) * (self._scale(x) / self._scale(self.clean)).to(x)

    def _scale(self, x: Rows) -> Float[Tensor, "*row 1"]:
        x = x.double()
        centred = x - x.mean(dim=-1, keepdim=True) if _centres(self.norm) else x
        return (centred.square().mean(dim=-1, keepdim=True) + _epsilon(self.norm)).sqrt()


def _centres(norm: Any) -> bool:
    """Whether the module takes the mean away: whether it tells a constant from nothing."""
    weight = norm.weight
    same, nothing = (norm(torch.full_like(weight, value)[None]) for value in (1.0, 0.0))
    return bool(torch.allclose(same, nothing, atol=1e-4))


def _epsilon(norm: Any) -> float:
    """The module's ε, under whichever name."""
    return next(float(getattr(norm, name)) for name in ("eps", "variance_epsilon") if hasattr(norm, name))
