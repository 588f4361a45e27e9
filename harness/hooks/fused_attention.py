"""Compute attention by torch's scaled-dot-product kernel, which never makes the pattern, in the model's own forward.

TransformerLens and Hugging Face multiply queries by keys, scale, mask, take the softmax and multiply by values, each
family in code of its own. Inside `fused_attention` the first product is not computed but deferred: scales and masks are
noted on the way, and where values come the kernel computes z. Anything else that is done with the deferred product (a
soft cap's tanh, a learnt sink's column, a hook that reads or edits scores or the pattern) computes it by the model's
own operations. So no family is known by name, and a pattern that is read is still there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from harness.hooks import Site, attention_module
from harness.hooks.forward import replaced

#: A mask's entries for keys that are not attended to are at most this.
_MASKED = -1e30


@dataclass
class Fused:
    """How the attentions of the forwards inside a context were computed.

    `by_kernel`: those that the kernel computed. `own`: the operation for which an attention computed its own scores or
    pattern. `error`: the largest difference of z to that of the model's own operations, relative to z's largest entry,
    where it is `compared`.
    """

    compared: bool = False
    by_kernel: set[Site] = field(default_factory=set)
    own: dict[Site, str] = field(default_factory=dict)
    error: float = 0.0


@contextmanager
def fused_attention(bridge: Any, sites: Iterable[Site], compared: bool = False) -> Iterator[Fused]:
    """Compute z of these attentions by the kernel in every forward inside the context, where their code allows it.

    Without gradients and in float32 only. z is that of the model's own operations up to rounding, at the padding that
    follows a text too unless all texts are read from left to right: there it is another, which no token reads.
    """
    record = Fused(compared)

    def in_mode(forward: Callable[..., Any], mode: "_AtProducts") -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with mode:
                return forward(*args, **kwargs)

        return run

    modules = {attention_module(bridge, site): _AtProducts(site, record) for site in sites}
    with replaced({module: in_mode(module.forward, mode) for module, mode in modules.items()}):
        yield record


class _AtProducts(TorchFunctionMode):
    """Defers the products of one attention."""

    def __init__(self, site: Site, record: Fused):
        super().__init__()
        self.site, self.record = site, record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _PRODUCTS and not kwargs:
            left, right = args
            if _can_defer(left, right):
                return Deferred.of(left, right, self.site, self.record)
        return func(*args, **(kwargs or {}))


def _can_defer(left: Tensor, right: Tensor) -> bool:
    """Whether two factors may be queries and keys: [row, head, position, d_head] and its transpose."""
    plain = type(left) is type(right) is Tensor and left.dtype == right.dtype == torch.float32
    return plain and left.ndim == right.ndim == 4 and not torch.is_grad_enabled()


class Deferred(Tensor):
    """A product of queries and keys, or its softmax, that is computed when something reads it."""

    query: Tensor
    keys: Tensor
    scale: float
    bias: Tensor | None
    is_pattern: bool
    steps: tuple[Callable[[Tensor], Tensor], ...]
    value: Tensor | None
    site: Site
    record: Fused

    @classmethod
    def of(cls, query: Tensor, keys: Tensor, site: Site, record: Fused) -> "Deferred":
        """Defer query [row, head, query, d_head] × keys [row, head, d_head, key]."""
        shape = (*query.shape[:-1], keys.shape[-1])
        made = cls._empty(shape, query)
        made.query, made.keys, made.site, made.record = query, keys, site, record
        made.scale, made.bias, made.is_pattern, made.steps = 1.0, None, False, ()
        return made

    @classmethod
    def _empty(cls, shape: tuple[int, ...], like: Tensor) -> "Deferred":
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)  # pyright: ignore
        made.value = None
        return made

    def then(self, step: Callable[[Tensor], Tensor], **noted: Any) -> "Deferred":
        """Defer one more operation, with what is `noted` of it for the kernel."""
        made = type(self)._empty(tuple(self.shape), self.query)
        vars(made).update({**vars(self), "steps": (*self.steps, step), "value": None, **noted})
        return made

    def read(self, reader: str) -> Tensor:
        """Compute it by the model's own operations, once: what edits it in place edits this."""
        if self.value is None:
            self.record.own.setdefault(self.site, reader)
            self.value = self._own()
        return self.value

    def _own(self) -> Tensor:
        value = torch.matmul(self.query, self.keys)
        for step in self.steps:
            value = step(value)
        return value

    def times(self, values: Tensor) -> Tensor:
        """Compute z [row, head, query, d_head] from the values [row, head, key, d_head] by the kernel."""
        keys = self.keys.transpose(-2, -1)
        bias = None if self.bias is None else self.bias.expand(*self.bias.shape[:-2], *self.shape[-2:])
        causal = bias is not None and _is_causal(bias)
        mask = None if causal else bias  # half of the products are skipped where the kernel knows that it is causal
        z = scaled_dot_product_attention(self.query, keys, values, mask, is_causal=causal, scale=self.scale)
        self.record.by_kernel.add(self.site)
        if self.record.compared:
            own = torch.matmul(self._own(), values)
            off = (z - own).abs().amax(dim=(1, 3)) * (_reads_itself(bias) if causal and bias is not None else 1)
            self.record.error = max(self.record.error, float(off.max() / own.abs().max().clamp(min=1e-30)))
        return z

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        step = _STEPS.get(func)
        if step is not None and (made := step(args, kwargs)) is not None:
            return made
        read = cls._reads(getattr(func, "__name__", str(func)))
        return func(*tree_map(read, args), **tree_map(read, kwargs))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = cls._reads(str(func))
        return func(*tree_map(read, args), **tree_map(read, kwargs or {}))

    @classmethod
    def _reads(cls, reader: str) -> Callable[[Any], Any]:
        return lambda value: value.read(reader) if isinstance(value, cls) else value


def _is_causal(mask: Tensor) -> bool:
    """Whether a mask [row, 1, query, key] hides later keys from each token, and nothing else.

    Padding that follows a text is hidden from the text by that alone, so what it attends to itself makes no difference:
    a query that its own mask hides from itself is padding, if only such follow.
    """
    n_queries, n_keys = mask.shape[-2:]
    if n_queries != n_keys or n_queries == 1 or mask.ndim != 4 or mask.shape[1] != 1:
        return False
    causal = _causal(n_queries, mask.device)
    if torch.equal(mask, causal.expand_as(mask)):  # one pass over the mask, where there is no padding
        return True
    token = _reads_itself(mask)
    right = torch.where(causal < 0, mask <= _MASKED, mask == 0)[:, 0].all(-1)
    return bool((right | ~token).all()) and not bool((token[:, 1:] & ~token[:, :-1]).any())


@lru_cache(maxsize=2)
def _causal(n: int, device: torch.device) -> Tensor:
    """Return the additive mask [query, key] that hides later keys."""
    return torch.full((n, n), _LOWEST, device=device).triu(1)


def _reads_itself(mask: Tensor) -> Tensor:
    """Whether each query [row, query] attends to its own position."""
    return mask[:, 0].diagonal(dim1=-2, dim2=-1) == 0


# --- what the kernel can do by itself: each returns None for what it cannot -------------------------------------------


def _scaled(args: Any, kwargs: Any, factor: Callable[[float], float], func: Any) -> Any:
    """A scale by one number."""
    scores, by = args
    number = float(by) if isinstance(by, int | float) or (type(by) is Tensor and by.ndim == 0) else None
    if not isinstance(scores, Deferred) or scores.is_pattern or scores.value is not None or number is None:
        return None
    times = factor(number)
    bias = None if scores.bias is None else scores.bias * times
    return scores.then(lambda value: func(value, by), scale=scores.scale * times, bias=bias)


def _masked_by_sum(args: Any, kwargs: Any, func: Any) -> Any:
    """The sum with an additive mask, or with a bias by distance."""
    scores, mask = args if isinstance(args[0], Deferred) else args[::-1]
    if kwargs or not _is_scores(scores) or type(mask) is not Tensor or mask.dtype != scores.dtype:
        return None
    bias = mask if scores.bias is None else scores.bias + mask
    if not _broadcasts(bias, scores):
        return None
    return scores.then(lambda value: func(value, mask), bias=bias)


def _filled(args: Any, kwargs: Any, func: Any) -> Any:
    """A mask by `masked_fill`."""
    scores, where, filled = args
    if kwargs or not _is_scores(scores):
        return None
    return _hidden(scores, where, filled, lambda value: func(value, where, filled))


def _chosen(args: Any, kwargs: Any) -> Any:
    """A mask by `where`."""
    if kwargs or len(args) != 3 or not _is_scores(args[1]):
        return None
    where, scores, filled = args
    return _hidden(scores, ~where, filled, lambda value: torch.where(where, value, filled))


def _hidden(scores: "Deferred", where: Tensor, filled: Any, step: Callable[[Tensor], Tensor]) -> Any:
    number = float(filled) if isinstance(filled, int | float) or filled.numel() == 1 else 0.0
    if number > _MASKED:
        return None
    bias = scores.query.new_zeros(()) if scores.bias is None else scores.bias
    bias = bias.expand(torch.broadcast_shapes(bias.shape, where.shape)).masked_fill(where, max(number, _LOWEST))
    return scores.then(step, bias=bias) if _broadcasts(bias, scores) else None


def _soft(args: Any, kwargs: Any) -> Any:
    """The softmax over keys."""
    scores, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else None)
    if not _is_scores(scores) or dim not in (-1, 3) or kwargs.get("dtype") not in (None, scores.dtype):
        return None
    return scores.then(lambda value: torch.softmax(value, dim=-1), is_pattern=True)


def _kept(args: Any, kwargs: Any) -> Any:
    """A conversion to the type that it has."""
    value, to = args[0], args[1] if len(args) > 1 else kwargs.get("dtype")
    to = to.dtype if isinstance(to, Tensor) else to
    return value if isinstance(value, Deferred) and value.value is None and to == value.dtype else None


def _without_dropout(args: Any, kwargs: Any) -> Any:
    rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    training = kwargs.get("training", args[2] if len(args) > 2 else True)
    return args[0] if isinstance(args[0], Deferred) and (not training or rate == 0) else None


def _weighted(args: Any, kwargs: Any) -> Any:
    """The pattern times values."""
    pattern, values = args
    fits = isinstance(pattern, Deferred) and pattern.is_pattern and pattern.value is None
    return pattern.times(values) if fits and type(values) is Tensor and values.ndim == 4 else None


def _is_scores(value: Any) -> bool:
    return isinstance(value, Deferred) and not value.is_pattern and value.value is None


def _broadcasts(bias: Tensor, scores: Tensor) -> bool:
    """Whether a bias is one for these scores, of rows and heads or of neither."""
    ends = zip(bias.shape[::-1], scores.shape[::-1], strict=False)
    return bias.ndim <= 4 and all(own in (1, size) for own, size in ends)


_LOWEST = torch.finfo(torch.float32).min
_PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__}
_METADATA = {
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.__len__),
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "is_cuda", "requires_grad")),
}
_STEPS: Mapping[Any, Callable[[Any, Any], Any]] = {
    **{func: partial(_scaled, factor=float, func=func) for func in (torch.mul, Tensor.mul, Tensor.__mul__)},
    **{
        func: partial(_scaled, factor=lambda number: 1 / number, func=func)
        for func in (torch.div, Tensor.div, Tensor.__truediv__)
    },
    **{
        func: partial(_masked_by_sum, func=func)
        for func in (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)
    },
    **{func: partial(_filled, func=func) for func in (torch.masked_fill, Tensor.masked_fill)},
    torch.where: _chosen,
    **dict.fromkeys((torch.softmax, Tensor.softmax, torch.nn.functional.softmax), _soft),
    **dict.fromkeys((Tensor.to, Tensor.float, Tensor.type_as, Tensor.type), _kept),
    torch.nn.functional.dropout: _without_dropout,
    **dict.fromkeys(_PRODUCTS, _weighted),
}
