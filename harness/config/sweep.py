"""Specs of a sweep: what is ablated together, how it is measured, and by which method."""

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from harness.config.errors import RequestError, near
from harness.config.types import PositiveInt, spec


def listed(value: Any) -> Any:
    """Return words without duplicates; one word is a list of one."""
    items = [value] if isinstance(value, str) else value
    return list(dict.fromkeys(items)) if isinstance(items, list) and all(isinstance(x, str) for x in items) else items


def _worded(value: Any, known: tuple[str, ...], others: str) -> str:
    """Return a known word; raise a validation error that names the alternatives otherwise."""
    if value not in known:
        raise PydanticCustomError("worded", "{known}", {"known": f"{near(value, known)}, or {others}"})
    return value


def _max_heads(value: Any) -> Any:
    """Return how many heads: ``all``, a number, or a share of them."""
    if (type(value) is int and value >= 1) or (type(value) is float and 0 < value < 1):
        return value
    return _worded(value, ("all",), "a number of heads (20), or a share of them (0.25)")


def _pairs(value: Any) -> Any:
    """Return how pairs are chosen, or the listed pairs."""
    listed = list(value) if isinstance(value, list | tuple) else []
    if listed and all(
        isinstance(pair, list | tuple) and [type(name) for name in pair] == [str, str] for pair in listed
    ):
        return tuple(map(tuple, listed))
    return _worded(value, ("effect", "direct", "role", "all"), "a list of pairs such as [[L0H1,L1H2]]")


Kind = Literal["single", "layer", "mlp", "set", "complement", "cumulative", "pairs", "edges", "resid", "attn"]
Kinds = Annotated[tuple[Kind, ...], BeforeValidator(listed), Field(min_length=1)]
Orders = Annotated[
    tuple[Literal["effect", "estimate", "random", "greedy"], ...], BeforeValidator(listed), Field(min_length=1)
]
Method = Literal["exact", "fast", "screen"]
Methods = Annotated[tuple[Method, ...], BeforeValidator(listed), Field(min_length=1)]
MaxHeads = Annotated[str | int | float, BeforeValidator(_max_heads)]
Pairs = Annotated[str | tuple[tuple[str, str], ...], BeforeValidator(_pairs)]
Also = Annotated[tuple[Literal["z", "q", "k", "v", "scores", "resid"], ...], BeforeValidator(listed)]


@spec
class SweepSpec:
    """What a sweep ablates together, and by which method.

    Kinds: ``single``: heads one at a time; ``layer``: a layer's heads; ``mlp``: a layer's MLP; ``set``: the run's
    named sets (necessity); ``complement``: all heads but those of a set (sufficiency); ``cumulative``: heads one after
    another, each staying ablated, in each `order`: by ``effect`` or ``estimate`` of single heads, ``greedy`` (each the
    one that matters next, measured again every time), or ``random``; ``pairs``: two heads together, and what that does
    beyond the sum of each; ``edges``: what a head writes, as one input of a later head or MLP reads it (`EdgesSpec`);
    ``resid``: the residual stream before each layer, and after the last; ``attn``: a layer's attention, which is all of
    its heads. These two, ``mlp`` and ``single`` go together at each position in turn. Orders and pairs use the leading
    metric: `logit_diff` if it is measured, else the first. Where they need the effects of single heads and ``single``
    is not among the kinds, single heads are swept first.

    Methods: ``exact``: in the model's own precision. ``fast``: matrix products in bf16. ``screen``: attribution
    patching. Of its estimates the largest are measured, where the size of one is that of its mean over prompts and one
    standard error. ``auto``: exact or screen by the forecast (`harness.sweep.method`). Another `memory`, or
    `attention`, adds in another order, which moves effects by about 1e-6; a run's hash does not depend on them.
    """

    kind: Kinds = ("single",)
    """What is ablated: single, layer, mlp, resid, attn, set, complement, cumulative, pairs, edges; or several."""
    order: Orders = ("effect", "random")
    """Orders of the kind cumulative: effect, estimate, greedy, random."""
    n_random_orders: PositiveInt = 10
    """Number of random orders."""
    order_from: Literal["most_needed", "least_needed"] = "most_needed"
    """End of an order to begin at: the heads needed most, or least."""
    max_heads: MaxHeads = 20
    """How many heads are ablated one after another: a number, a share such as 0.25, or all."""
    pairs: Pairs = "effect"
    """Which pairs of heads: by effect or direct effect, of one role, all, or a list [[L0H1,L1H2]]."""
    pairs_top_k: Annotated[int, Field(ge=2)] = 10
    """Number of heads (of each role) that are paired."""
    method: Literal["exact", "fast", "screen", "auto"] = "exact"
    """exact, fast (bf16) or screen (gradient), which measure some heads again exactly; auto: exact, or else screen."""
    minutes: Annotated[float, Field(gt=0)] = 10
    """With auto: exact where its forecast ends within these minutes, else screen."""
    verify_fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Random share of the heads that fast measures again exactly."""
    verify_top_k: PositiveInt = 20
    """Number of strongest heads that fast and screen measure exactly."""
    gradient_steps: PositiveInt = 1
    """Points at which screen and the kind edges take the gradient, from the clean run towards all heads ablated."""
    direct: bool = True
    """Also the direct effect of each head (direct logit attribution)."""
    source_direct: bool = False
    """Also that effect by the token it was read from, for zero-ablation, logit_diff and logit."""
    account: bool = False
    """Also what each later head and MLP adds to each head's effect or takes back, for logit_diff and logit."""
    memory: Annotated[float, Field(gt=0)] | None = None
    """Ceiling in GB on the activations of one chunk; null: a quarter of what is free."""
    attention: Literal["auto", "eager"] = "auto"
    """auto: long prompts by a kernel that makes no pattern, where that is exact; eager: always the model's own code."""

    def __post_init__(self) -> None:
        kinds, shown = {*self.kind}, ",".join(self.kind)
        for field in fields(self):
            readers, value = _READ_BY.get(field.name, ()), getattr(self, field.name)
            if readers and value and value != field.default and not kinds & {*readers}:
                setting = " or ".join(f"sweep.kind={kind}" for kind in readers)
                raise RequestError("sweep.kind", shown, f"it does not read sweep.{field.name}, so set {setting}")
        for key, methods in _METHODS_THAT_READ.items():
            value = getattr(self, key)
            if "edges" in kinds and key == "gradient_steps":  # edges are screened whatever the method
                continue
            if value != type(self).__dataclass_fields__[key].default and self.method not in methods:
                setting = " or ".join(f"sweep.method={method}" for method in methods)
                raise RequestError(f"sweep.{key}", value, f"sweep.method={self.method} does not read it; set {setting}")
        if self.source_direct and not self.direct:
            raise RequestError("sweep.direct", "false", "sweep.source_direct=true splits direct effects: set true")
        if {"set", "complement"} <= kinds:
            remedy = "both are set_effect of the same names; make it two runs: -m sweep.kind=set,complement"
            raise RequestError("sweep.kind", shown, remedy)


#: Keys that decide how fast a sweep is: a run's hash does not depend on them.
OF_SPEED = ("memory", "attention")
#: Keys that only some methods read.
_METHODS_THAT_READ = {
    "verify_fraction": ("fast",),
    "verify_top_k": ("fast", "screen"),
    "gradient_steps": ("screen",),
    "account": ("exact",),
    "minutes": ("auto",),
}
#: Keys that only some kinds of sweep read.
_READ_BY: dict[str, tuple[Kind, ...]] = {
    **dict.fromkeys(("order", "n_random_orders", "order_from", "max_heads"), ("cumulative",)),
    **dict.fromkeys(("pairs", "pairs_top_k"), ("pairs",)),
    **dict.fromkeys(("source_direct", "account"), ("single",)),
}
