"""Traits of a family's attention, measured at load on a short probe rather than looked up by name.

Each trait guards numbers that are only right where it holds: a direct effect needs outputs that sum to the residual
stream, a knockout of one head needs z = pattern · v, and a sweep must know which arguments of a block grow with rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import hooks
from harness.hooks import Site
from harness.hooks.frozen_norm import FrozenNorm
from harness.hooks.softmax import at_softmax
from harness.models import Inputs, Model, Traits

if TYPE_CHECKING:
    from torch import Generator, Tensor

#: Positions of the probe that are used.
_LENGTH = 8
#: A final norm's output is multiplied by this, so that a soft cap shows. A power of 2 does not round.
_LARGE = 256.0
#: The largest relative difference of two sides of an identity, in fp32.
_TOLERANCE = 1e-3
_MIXING: tuple[hooks.Kind, ...] = ("pattern", "z", "v")


def measure(model: Model, inputs: Inputs) -> Traits:
    """Measure the traits of a model, from one clean forward of the probe and a few edited ones."""
    inputs = _short(inputs)
    clean = _Clean(model, inputs)
    learnt_sink, mixes_values = clean.attention()
    per_row = _per_row(model, inputs, clean.lengths)
    traits = Traits(learnt_sink, mixes_values, clean.has_scores(), per_row=per_row)
    if reason := _no_direct_path(model):
        return replace(traits, no_direct=reason)
    scale = _write_scales(clean)
    if isinstance(scale, str):
        return replace(traits, no_direct=scale)
    linear = _has_linear_logits(model, inputs)
    with hooks.uncapped(model.bridge):
        uncapped = linear or _has_linear_logits(model, inputs)
    return replace(traits, write_scale=scale, linear_logits=linear, linear_uncapped_logits=uncapped)


def _short(inputs: Inputs) -> Inputs:
    """Return the first tokens of each row."""
    return Inputs(**{name: value[:, :_LENGTH] for name, value in vars(inputs).items() if value is not None})


def _close(left: "Tensor", right: "Tensor", model: Model, rounding: "Tensor | float" = 0.0) -> bool:
    """Whether two tensors agree to the model's precision, relative to the right one's largest entry, plus the earlier
    `rounding` of each entry."""
    right = right.double()
    allowed = max(_TOLERANCE, 16 * _eps(model)) * right.abs().max().clamp(min=1e-12)
    return bool(((left.double() - right).abs() <= allowed + rounding).all())


def _eps(model: Model) -> float:
    import torch

    return torch.finfo(getattr(torch, model.spec.dtype)).eps


class _Moved(NamedTuple):
    """The change (`by`) of the stream after a block that an `offset` before it caused, with each entry's rounding.

    Trained models have entries thousands of times the others (SmolLM2's first token), next to which an offset vanishes
    in half precision.
    """

    by: "Tensor"
    offset: "Tensor"
    rounding: "Tensor"


class _Clean:
    """A clean forward: patterns, values and z, inputs and outputs of blocks, and the outputs of their parts."""

    def __init__(self, model: Model, inputs: Inputs):
        self.model, self.inputs = model, inputs
        first = model.shape.n_encoder_layers
        self.blocks = {at: block for at, block in enumerate(hooks.blocks(model.bridge)) if at >= first}
        self.parts = {at: hooks.parts(block) for at, block in self.blocks.items()}
        self.lengths: dict[str, int] = {}
        self._mixed: dict[tuple[Site, hooks.Kind], Tensor] = {}
        self._wrote: dict[Any, Any] = {}
        self._entered: dict[int, Tensor] = {}
        self.left: dict[int, Tensor] = {}
        modules = [module for parts in self.parts.values() for module in parts.values()]
        handles = [module.register_forward_hook(self._keep_write) for module in modules]
        for at, block in self.blocks.items():
            handles.append(block.register_forward_pre_hook(self._keep_arguments(at), with_kwargs=True))
        self._scores: dict[Site, Tensor] = {}
        looks = {site: self._look_at_scores(site) for site in model.shape.sites}
        watches = [self._watch(site, kind) for site in model.shape.sites for kind in _MIXING]
        with model.bridge.hooks(fwd_hooks=watches), at_softmax(model.bridge, looks):
            self.left = self._left(handles)

    def _watch(self, site: Site, kind: hooks.Kind) -> tuple[str, Callable[..., None]]:
        return hooks.hook_name(kind, site), lambda value, hook: self._mixed.__setitem__((site, kind), value)

    def _look_at_scores(self, site: Site) -> "Callable[[Tensor], Tensor]":
        def look(scores: "Tensor") -> "Tensor":
            self._scores[site] = scores
            return scores

        return look

    def _keep_write(self, module: Any, args: Any, out: Any) -> None:
        self._wrote[module] = _copied(out)

    def _keep_arguments(self, at: int) -> Callable[..., None]:
        def keep(_: Any, args: tuple, named: dict) -> None:
            self._entered[at] = args[0] if args else named["hidden_states"]
            self.lengths.update(_walk({**dict(enumerate(args)), **named}, ""))

        return keep

    def _left(self, handles: list[Any]) -> "dict[int, Tensor]":
        """Return the output of each block in a forward with these hooks, and remove them."""
        left: dict[int, Tensor] = {}
        for at, block in self.blocks.items():
            keep = lambda _, args, out, at=at: left.__setitem__(at, hooks.first_of(out))  # noqa: E731
            handles.append(block.register_forward_hook(keep))
        _run(self.model, self.inputs, handles)
        return left

    @property
    def real(self) -> "Tensor":
        """The mask of real tokens, [row, position]."""
        return self.inputs.mask.bool()

    def attention(self) -> tuple[bool, bool]:
        """Whether rows of patterns sum to less than 1 (a learnt sink takes the rest), and whether z = pattern · v."""
        import torch

        sink, mixes, shape = False, True, self.model.shape
        for site in shape.sites:
            pattern, z, v = (self._mixed[site, kind] for kind in _MIXING)
            own = self.inputs.source_mask if site.stack == "encoder" else self.inputs.mask
            assert own is not None
            real, by_head = own.bool(), v.repeat_interleave(shape.n_heads // shape.n_kv_heads, dim=2).to(pattern)
            sink = sink or bool((pattern.sum(-1).transpose(1, 2)[real] < hooks.WHOLE_ROW).any())
            mixes = mixes and _close(torch.einsum("rhqk,rkhd->rqhd", pattern, by_head)[real], z[real], self.model)
        return sink, mixes

    def has_scores(self) -> bool:
        """Whether every attention's softmax was intercepted and gives the pattern (without a learnt sink's column)."""
        if set(self._scores) != set(self.model.shape.sites):
            return False
        pairs = ((scores.softmax(-1), self._mixed[site, "pattern"]) for site, scores in self._scores.items())
        return all(_close(made[..., : pattern.shape[-1]], pattern, self.model) for made, pattern in pairs)

    def moved_by_input(self, generator: "Generator") -> dict[int, _Moved]:
        """Measure the effect of an offset at each block's input with the outputs of its parts held."""
        changed = {at: hidden + _offset(hidden, generator) for at, hidden in self._entered.items()}
        with self._held(free=None):
            left = self._left([self._give(at, changed[at]) for at in self.blocks])
        return {at: self._moved(at, left[at], changed[at].double() - self._entered[at].double()) for at in self.blocks}

    def moved_by_write(self, sites: Sequence[Site], generator: "Generator") -> dict[int, _Moved]:
        """Measure the effect of an offset at W_O's output of these attentions, all else held; the offset is read after
        the norm that follows W_O, if there is one."""
        arrived: dict[int, Tensor] = {}

        def add(site: Site) -> Callable[..., Any]:
            norm = hooks.norm_of_write(self.model.bridge, site) or (lambda written: written)
            at = self.model.shape.block(site)

            def change(_: Any, args: Any, out: Any) -> Any:
                changed = out + _offset(self._entered[at], generator)  # as large as the stream, to be seen in it
                arrived[at] = norm(changed).double() - norm(out).double()
                return changed

            return change

        with self._held(free=sites[0].stack):
            handles = [self._give(at, self._entered[at]) for at in self.blocks]
            for site in sites:
                handles.append(hooks.output_projection(self.model.bridge, site).register_forward_hook(add(site)))
            left = self._left(handles)
        return {at: self._moved(at, left[at], offset) for at, offset in arrived.items()}

    def _moved(self, at: int, left: "Tensor", offset: "Tensor") -> _Moved:
        """Return what moved at real tokens. Rounding is relative to the stream's size before and after the block."""
        stream = self._entered[at].double().abs() + self.left[at].double().abs() + offset.abs()
        moved = left.double() - self.left[at].double()
        return _Moved(*(each[self.real] for each in (moved, offset, 2 * _eps(self.model) * stream)))

    def _give(self, at: int, hidden: "Tensor") -> Any:
        """Hook a block to read these hidden states, so that blocks do not affect each other."""

        def give(_: Any, args: tuple, named: dict) -> Any:
            return ((hidden, *args[1:]), named) if args else (args, {**named, "hidden_states": hidden})

        return self.blocks[at].register_forward_pre_hook(give, with_kwargs=True)

    @contextmanager
    def _held(self, free: str | None) -> Iterator[None]:
        """Hold the outputs of all parts of every block at their clean values, except the attentions of stack `free`."""
        names = {"": "attn", "decoder": "self_attn", "cross": "cross_attn", None: None}
        held = [module for parts in self.parts.values() for name, module in parts.items() if name != names[free]]
        handles = [
            module.register_forward_hook(lambda module, args, out: _copied(self._wrote[module])) for module in held
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


# --- the path from a head's output to the unembedding -----------------------------------------------------------------


def _no_direct_path(model: Model) -> str:
    """Describe why the kind of model allows no direct path from a head to the unembedding; empty if it does."""
    if model.kind not in ("decoder", "encoder_decoder"):
        return "its later layers normalise the stream that passes them (post-norm)"
    return "" if hooks.has_final_norm(model.bridge) else "no norm stands before its unembedding"


def _write_scales(clean: _Clean) -> Mapping[Site, float] | str:
    """Return the factor on each attention's output before it joins the residual stream, or why there is none.

    With the outputs of all parts of a block (attention, MLP, a mixer) held at their clean values, an offset at the
    block's input must come out unchanged, and one at W_O's output must come out through the norm that follows W_O
    (Gemma's), times one number (Granite's `residual_multiplier`). Then the embedding and the outputs sum to the stream.
    """
    import torch

    model, generator = clean.model, torch.Generator().manual_seed(0)
    for at, moved in clean.moved_by_input(generator).items():
        if not _close(moved.by, moved.offset, model, moved.rounding):
            return f"block {at} changes the stream that passes it"
    scale: dict[Site, float] = {}
    sites = [site for site in model.shape.sites if site.stack != "encoder"]
    for stack in dict.fromkeys(site.stack for site in sites):
        some = [site for site in sites if site.stack == stack]
        written = clean.moved_by_write(some, generator)
        for site in some:
            moved = written[model.shape.block(site)]
            scale[site] = _multiplier(model, moved)
            if not _close(moved.by, scale[site] * moved.offset, model, moved.rounding):
                return f"what {site} writes does not join the stream as it is"
    end = clean.left[max(clean.left)][clean.real][None]
    if not _is_linear_once_frozen(hooks.final_norm(model.bridge).original_component, end, generator, model):
        return "its final norm is not linear once its scale is held"
    return scale


def _multiplier(model: Model, moved: _Moved) -> float:
    """Return the factor on an offset: the config's, if the least-squares fit agrees with it up to rounding."""
    by, offset, rounding = moved
    weight = 1 / (rounding + 1e-9 * offset.abs().max()).square()
    total = float((weight * offset.square()).sum())
    fitted, error = float((weight * by * offset).sum()) / total, total**-0.5
    stated = (getattr(hooks.plain_model(model.bridge).config, "residual_multiplier", None), 1.0)
    return next((float(one) for one in stated if one and abs(fitted - one) < max(error, 1e-2 * one)), fitted)


def _is_linear_once_frozen(norm: Any, clean: "Tensor", generator: "Generator", model: Model) -> bool:
    """Whether `FrozenNorm` equals the norm at the clean rows and is linear in an offset."""
    offset, frozen = _offset(clean, generator), FrozenNorm(norm, clean)
    zero, once, twice = (frozen(clean + times * offset).double() for times in (0, 1, 2))
    rounding = 4 * _eps(model) * (zero.abs() + twice.abs())
    return _close(zero, norm(clean), model) and _close(twice - zero, 2 * (once - zero), model, rounding)


def _has_linear_logits(model: Model, inputs: Inputs) -> bool:
    """Whether logits are linear in the final norm's output, up to a bias.

    Gemma 2's soft cap is not, and shows only where logits are large. A random vector takes the place of the norm's
    output, which may be zero: Gemma 2's embedding of the padding token is.
    """
    import torch

    times, generator = (0.0, 1.0, _LARGE), torch.Generator().manual_seed(0)
    drawn = torch.randn(*inputs.token_id.shape, model.shape.d_model, generator=generator)
    rows = torch.cat([each * drawn for each in times])
    give = hooks.final_norm(model.bridge).register_forward_hook(lambda _, args, out: rows.to(out))
    zero, once, many = _run(model, inputs.repeated(len(times)), [give]).double().chunk(len(times))
    return _close(many - zero, _LARGE * (once - zero), model)


def _copied(out: Any) -> Any:
    """Copy a module's output: Falcon adds the attention's output to the MLP's in place."""
    return (out[0].clone(), *out[1:]) if isinstance(out, tuple) else out.clone()


def _offset(like: "Tensor", generator: "Generator") -> "Tensor":
    """Draw a random vector at each position, as large as `like`."""
    import torch

    drawn = torch.randn(like.shape, generator=generator).to(like)
    return drawn * like.double().square().mean().sqrt().clamp(min=1e-6).to(like)


def _run(model: Model, inputs: Inputs, handles: Sequence[Any]) -> "Tensor":
    """Return the logits under these hooks, and remove them."""
    try:
        return model.forward(inputs)
    finally:
        for handle in handles:
            handle.remove()


# --- rows -------------------------------------------------------------------------------------------------------------


def _per_row(model: Model, inputs: Inputs, once: Mapping[str, int]) -> Mapping[str, int]:
    """Return the entries per row along the first axis of each tensor argument of a block; 0 if rows share it.

    From the lengths in a forward of the probe and in one of the probe twice over: BLOOM's biases have `n_heads` for
    each row, MPT's are shared by rows, however many heads there are.
    """
    twice, n_rows = _Clean(model, inputs.repeated(2)).lengths, len(inputs.token_id)
    grown = {path: once[path] // n_rows for path in once if twice.get(path) == 2 * once[path]}
    return {path: grown.get(path, 0) for path in once}


def _walk(value: Any, path: str) -> Iterator[tuple[str, int]]:
    """Yield the length of the first axis of each tensor in a block's arguments, by its path."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.ndim > 1:
            yield path, len(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, f"{path}.{key}")
    elif isinstance(value, tuple | list):
        for number, item in enumerate(value):
            yield from _walk(item, f"{path}.{number}")
