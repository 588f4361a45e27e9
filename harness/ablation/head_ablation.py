"""Interventions as values: heads and the ablation that replaces their z, before any model is there.

`harness.zero("L5H1")`, `harness.scale("L7", 0.5)` … are what `harness.ablated` and `harness.ablate_heads` take; the
names of heads meet a model, and are checked, only there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from harness import config
from harness.config import AblationSpec
from harness.hooks import Head

#: One head, layer or stack (``"L5H1"``, ``"L5"``, ``"cross"``, ``Head(5, 1)``), or several.
Heads = str | Head | Iterable[str | Head]


@dataclass(frozen=True, repr=False)
class HeadAblation:
    """Heads by name, and the ablation that replaces their z together. Equal values do the same."""

    heads: tuple[str | Head, ...]
    ablation: AblationSpec

    def __repr__(self) -> str:
        spec, names = self.ablation, [str(head) for head in self.heads]
        default = vars(type(spec)())
        keys = {key: value for key, value in vars(spec).items() if key == "factor" or value != default[key]}
        shown = [repr(names[0] if len(names) == 1 else names), *(f"{key}={value!r}" for key, value in keys.items())]
        return f"{spec.name}({', '.join(shown)})"


def zero(heads: Heads, positions: Any = "all") -> HeadAblation:
    """Return the zero-ablation of heads: z becomes zero.

    `heads` is a name, a `Head`, or a list of these; `positions` are those of `harness.ablate_heads`. Raises
    `RequestError` for a key that the ablation does not allow. Source: Michel et al. 2019, arXiv:1905.10650.

    >>> import harness
    >>> harness.zero(["L5H1", harness.Head(7, 0)])
    zero(['L5H1', 'L7H0'])
    """
    return _value("zero", heads, positions)


def mean(heads: Heads, reference: str = "self", positions: Any = "all", means: str = "by_position") -> HeadAblation:
    """Return the mean-ablation of heads: z becomes its mean over a reference, the prompts or a named prompt set.

    With `means` ``"pooled"`` a head has one mean for all positions, in place of means by position.

    Raises `RequestError` as `zero` does. Source: Wang et al. 2022, arXiv:2211.00593, section 2.1.

    >>> import harness
    >>> harness.mean("L5", reference="ioi")
    mean('L5', reference='ioi')
    """
    return _value("mean", heads, positions, reference=reference, means=means)


def resample(heads: Heads, draws: int = 1, seed: int = 0, positions: Any = "all") -> HeadAblation:
    """Return the resample-ablation of heads: z becomes that of a prompt from another cluster.

    The metric is averaged over `draws` donors. Raises `RequestError` as `zero` does. Source: Chan et al. 2022, "Causal
    scrubbing".

    >>> import harness
    >>> harness.resample("L5H1", draws=4)
    resample('L5H1', draws=4)
    """
    return _value("resample", heads, positions, draws=draws, seed=seed)


def patch(heads: Heads, positions: Any = "all") -> HeadAblation:
    """Return the activation patching of heads: z becomes that of the prompt's counterfactual.

    Raises `RequestError` as `zero` does. Source: Vig et al. 2020, arXiv:2004.12265, interventions on heads.

    >>> import harness
    >>> harness.patch("L5H1", positions="last")
    patch('L5H1', positions='last')
    """
    return _value("patch", heads, positions)


def scale(heads: Heads, factor: float = 0.5, positions: Any = "all") -> HeadAblation:
    """Return the scaling of heads: z is multiplied by a factor; 0 is zero-ablation, 1 changes nothing.

    Raises `RequestError` as `zero` does.

    >>> import harness
    >>> harness.scale("cross", 2)
    scale('cross', factor=2.0)
    """
    return _value("scale", heads, positions, factor=factor)


def _value(name: str, heads: Heads, positions: Any, **keys: Any) -> HeadAblation:
    named = (heads,) if isinstance(heads, str | Head) else tuple(heads)
    listed = positions if isinstance(positions, str | int) else list(positions)
    spec = config.parse(AblationSpec, {"name": name, "positions": listed, **keys}, "ablation.")
    return HeadAblation(named, cast(AblationSpec, spec))
