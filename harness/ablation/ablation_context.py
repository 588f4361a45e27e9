"""Ablation as a context: heads stay ablated in every forward of the model inside it (`harness.ablated`).

An intervention of a sweep is for certain rows; a context's is for texts of any length, several positions at a time or
one by one from a key–value cache. So the new z may depend on nothing but z there and the position in the text, which
`Progress` follows. Where the text begins with a known prompt, z at that prompt's positions may come from a donor.
Whatever else hooks the model inside, a sweep too, takes the ablated model as its clean one.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness import config, hooks
from harness.ablation.edits import Baseline, Check, Edit, InterventionFailed, by_site, hooking, multiply, zeros
from harness.ablation.from_spec import AblationRequest, build, parse_ablation, reference_prompts
from harness.ablation.head_ablation import HeadAblation, Heads
from harness.ablation.mean import FIRST_APART, POOLED, Mean
from harness.ablation.positions import check as check_positions
from harness.ablation.positions import turns
from harness.ablation.rows import Share
from harness.config import AblationSpec, RequestError
from harness.hooks import Head, Part, Site
from harness.hooks.forward import removing
from harness.models import Model
from harness.prompts import Prompts


@contextmanager
def ablated(
    model: Model,
    heads: Heads | HeadAblation,
    ablation: AblationRequest = "zero",
    *more: HeadAblation,
    prompts: Prompts | None = None,
    prompt: int | None = None,
) -> Iterator[Check]:
    """Keep heads ablated in every forward of the model inside the context.

    Either `heads` with one `ablation`, or values: ``ablated(model, harness.zero("L5H1"), harness.scale("L7", 0.5))``.
    The ablations are ``zero``, ``scale`` and ``mean``: of z over `prompts` (or a named reference) as the model is
    before the context, with a mean of its own for a text's first token and one for all others, so that texts of any
    length have one (``{"name": "mean", "means": "pooled"}``: one for all tokens). `positions` are ``all`` or numbers
    from a text's beginning, such as ``[0, 1]``.

    With `prompt`, the number of one of `prompts`, every text inside begins with that prompt. Then positions may also be
    ``last``, ``target`` and numbers from its end, and at positions of the prompt z may be a donor's: ``resample`` and
    ``patch``, which have none for what is written after it.

    Inside, `Model.generate`, ``model.bridge(…)`` and the functions of the harness see the ablated model as the clean
    one: `ablate_heads` measures what other heads do on top. Contexts nest. Yields the `Check` that counts the edits
    verified at W_O; the model is as before afterwards, to the bit, also after an exception. Other threads wait for the
    model until the context ends.

    Raises `RequestError` for heads that the model lacks, a head in two values, a mean without prompts, and what has no
    meaning for a text of any length: a function and, without a prompt, ``resample``, ``patch`` and positions from a
    text's end. Raises `InterventionFailed` where an edit does not reach W_O as intended.

    >>> import harness
    >>> model = harness.load_model("random", shape="gpt2")
    >>> with harness.ablated(model, "L0H1") as check:
    ...     text = model.generate("When Mary and John", max_new_tokens=3)
    >>> check.fired
    3
    """
    text = Text(prompts, prompt) if prompts is not None and prompt is not None else None
    with ablating(model, _values(heads, ablation, more), prompts, text) as check:
        yield check


@dataclass(frozen=True)
class Text:
    """A text that begins with a known prompt: the number of one of these prompts."""

    prompts: Prompts
    number: int


@contextmanager
def ablating(
    model: Model,
    values: Sequence[HeadAblation],
    reference: Prompts | None,
    text: Text | None = None,
    rows: Sequence[slice] | None = None,
) -> Iterator[Check]:
    """Keep the heads of these values ablated inside the context, as `ablated` does; a mean is over `reference`.

    With `rows`, each value is for some rows of each forward, which no other's overlap.
    """
    parts = [(value.ablation, *checked(model, value, text)) for value in values]
    if rows is None:
        _check_apart(head for _, named, _ in parts for head in named)
    check, progress = Check(name=", ".join(map(repr, values))), Progress()
    with model.bridge.lock:
        with model.alone():  # means are of the model as it is outside
            edits = [
                Edit(those, head, baseline, None)
                for those, (spec, named, places) in zip(rows or [slice(None)] * len(parts), parts, strict=True)
                for baseline in [_baseline(model, spec, named, places, reference, text, progress)]
                for head in named
            ]
        with hooking(model, by_site(edits), check), progress.of(model, check):
            yield check


class Progress:
    """Where the rows of the forward that runs stand in their texts: after how many cached positions, and after how much
    padding on the left."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[int, Int[Tensor, " row"] | None]] = {}

    @contextmanager
    def of(self, model: Model, check: Check) -> Iterator[None]:
        """Follow the model's forwards inside the context, and verify of each whole one that no edit missed W_O."""
        handles = []
        for stack, module in hooks.stack_modules(model.bridge).items():
            begin, end = partial(self._begin, stack, check), partial(self._end, stack, check)
            handles.append(module.register_forward_pre_hook(begin, with_kwargs=True))
            handles.append(module.register_forward_hook(end, always_call=True))
        with removing(handles):
            yield

    def _begin(self, stack: str, check: Check, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = dict(zip(list(signature(type(module).forward).parameters)[1:], args, strict=False)) | kwargs
        past, mask = named.get("past_key_values"), named.get("attention_mask")
        start, padding = 0 if past is None else int(past.get_seq_length()), None
        if isinstance(mask, Tensor) and mask.ndim == 2 and not mask[:, 0].all():
            padding = mask.ne(0).long().argmax(dim=1)
        self._begun[stack] = start, padding
        check.pending.clear()  # a forward that was interrupted may have left something

    def _end(self, stack: str, check: Check, module: Any, args: tuple[Any, ...], output: Any) -> None:
        self._begun.pop(stack, None)
        if output is not None and check.pending:  # there is no output where the forward was stopped on the way
            raise InterventionFailed(f"{', '.join(map(str, check.pending))}: hook_z fired but W_O never ran")

    def positions(self, site: Site, z: Float[Tensor, "row position d_head"]) -> Int[Tensor, "row position"]:
        """Return the position in its text of each z of an attention; negative in padding on the left."""
        stack = site.stack.replace("cross", "decoder")
        if stack not in self._begun:
            raise InterventionFailed(f"{site}: it ran apart from its model's forward, so its positions are unknown")
        start, padding = self._begun[stack]
        at = torch.arange(start, start + z.shape[1], device=z.device).expand(len(z), -1)
        if padding is None:
            return at
        return at - padding.to(z.device).repeat(len(z) // len(padding))[:, None]  # rows of a sweep come in copies


def _values(
    heads: Heads | HeadAblation, ablation: AblationRequest, more: tuple[HeadAblation, ...]
) -> list[HeadAblation]:
    """Return the values of a request: those passed, or one of `heads` and their `ablation`."""
    if isinstance(heads, HeadAblation):
        further = [*([] if ablation == "zero" else [ablation]), *more]
    else:
        spec = spec_of(ablation)
        named = (heads,) if isinstance(heads, str | Head) else tuple(heads)
        heads, further = HeadAblation(named, spec), list(more)
    for each in further:
        if not isinstance(each, HeadAblation):
            raise RequestError("ablation", each, "beside a value others are values too, such as harness.zero('L5H1')")
    return [heads, *further]


def spec_of(ablation: AblationRequest) -> Any:
    """Return the spec of an ablation. Raises `RequestError` for a function."""
    if callable(ablation) and not isinstance(ablation, HeadAblation):
        name = getattr(ablation, "__name__", type(ablation).__name__)
        raise RequestError("ablation", name, f"a function may read all positions of z at once, {_ONE_BY_ONE}")
    return parse_ablation(ablation)


_ONE_BY_ONE = (
    "and a text that is being written has them one by one; use zero, mean or scale, or ablate_heads for certain prompts"
)


def checked(model: Model, value: HeadAblation, text: Text | None) -> tuple[tuple[Head, ...], tuple[int, ...] | None]:
    """Return the heads of a value, and the positions at which they are ablated; None for all.

    Raises `RequestError` for heads that the model lacks, and for an ablation or positions that the text does not allow.
    """
    named, positions = model.heads(list(value.heads)), value.ablation.positions
    if text is not None:
        _check_donor(model, value.ablation, text)
    if text is not None and positions not in ("all", "each"):
        own = text.prompts.take([text.number])
        check_positions(positions, own, named, causal=False)
        return named, turns(positions, own)[0][0]  # pyright: ignore[reportOptionalSubscript]
    if isinstance(positions, str) and positions != "all":
        remedy = "a text of any length has no such position: use all, numbers such as [0, 1], or ablate_heads"
        raise RequestError("ablation.positions", positions, remedy)
    if not isinstance(positions, str):
        if min(positions) < 0:
            remedy = "a text that grows has no end to count from: use numbers from its beginning, or all"
            raise RequestError("ablation.positions", list(positions), remedy)
        if any(head.stack == "encoder" for head in named):
            remedy = "positions are those of what is written; leave the encoder out: heads=[decoder,cross]"
            raise RequestError("ablation.positions", list(positions), remedy)
    return named, None if isinstance(positions, str) else positions


def _check_donor(model: Model, spec: AblationSpec, text: Text) -> None:
    """Raise `RequestError` for a donor's z at positions that the donor lacks, and for several donors."""
    if not isinstance(spec, config.ResampleAblation | config.PatchAblation):
        return
    if model.kind != "decoder":
        raise RequestError("ablation", spec.name, f"{model.name} is no decoder: use mean or zero, or ablate_heads")
    if spec.positions == "all":
        n = int(text.prompts.length[text.number])
        remedy = f"the donor of prompt {text.number} has z at its {n} positions, and a text grows beyond them: set "
        remedy += f"positions of the prompt, such as last or [{n - 1}], or use mean or zero"
        raise RequestError("ablation.positions", "all", remedy)
    if isinstance(spec, config.ResampleAblation) and spec.draws > 1:
        raise RequestError("ablation.draws", spec.draws, "a text is written from one donor: use draws=1")


def _check_apart(heads: Iterable[Head]) -> None:
    """Raise `RequestError` for a head in two values of one context, where neither would come first."""
    known: set[Head] = set()
    for head in heads:
        if head in known:
            raise RequestError("heads", head, "two of these ablations name it: name it once, or nest two contexts")
        known.add(head)


def _baseline(
    model: Model,
    spec: AblationSpec,
    named: tuple[Head, ...],
    places: tuple[int, ...] | None,
    prompts: Prompts | None,
    text: Text | None,
    progress: Progress,
) -> Baseline:
    """Return the replacement of z by an ablation, at these positions."""
    match spec:
        case config.ZeroAblation():
            made: Baseline = zeros
        case config.ScaleAblation(factor=factor):
            made = partial(multiply, factor=factor)
        case config.MeanAblation(reference=name, means=means):
            reference = reference_prompts(name, model, prompts)
            kind = POOLED if means == "pooled" else FIRST_APART
            made = _mean(Mean(model, reference, reference, name), kind, named, progress)
        case config.PatchAblation(into="corrupted"):
            remedy = "a text inside begins with the clean prompt; use clean, or ablate_heads for the corrupted run"
            raise RequestError("ablation.into", "corrupted", remedy)
        case config.ResampleAblation() | config.PatchAblation() if text is not None:
            made = _donor(model, spec, named, text, progress)
        case config.ResampleAblation() | config.PatchAblation():
            whose = "another prompt's" if isinstance(spec, config.ResampleAblation) else "a counterfactual's"
            remedy = f"it puts {whose} z at each position, which other texts than the prompts do not have"
            raise RequestError("ablation", spec.name, f"{remedy}; use mean or zero, or ablate_heads for these prompts")
        case _:
            raise RequestError("ablation", spec, "use zero, mean or scale")
    if places is None:
        return made
    listed = torch.tensor(places, dtype=torch.long)

    def placed(z: Float[Tensor, "row position d_head"], head: Part) -> Float[Tensor, "row position d_head"]:
        there = torch.isin(progress.positions(head.site, z), listed.to(z.device))
        return torch.where(there[..., None], made(z, head), z)

    return placed


def _donor(model: Model, spec: AblationSpec, named: tuple[Head, ...], text: Text, progress: Progress) -> Baseline:
    """Return the replacement by a donor's z at the same position; at later ones, which are not replaced, its last."""
    made, _ = build(spec, model, text.prompts)
    sites = list(dict.fromkeys(head.site for head in named))
    whole = made.prepare(made.plan(), Share([text.number]), sites, 0)

    def donor(z: Float[Tensor, "row position d_head"], head: Part) -> Float[Tensor, "row position d_head"]:
        its = whole(z, head)[0]
        return its[progress.positions(head.site, z).clamp(0, len(its) - 1)].to(z)

    return donor


def _mean(over: Mean, kind: str, named: tuple[Head, ...], progress: Progress) -> Baseline:
    """Return the replacement by the mean: of first tokens at a text's first position, of all others elsewhere; or by
    one for all positions."""
    sites = list(dict.fromkeys(head.site for head in named))
    for site in sites if kind == FIRST_APART else ():
        if (over.reference.queries(site.stack) >= 0).sum(axis=1).max() < 2:
            remedy = f"at {site} each has one position, and later ones of a text need a mean too; take longer prompts"
            raise RequestError("prompts", over.reference.name, remedy)
    means = over.means(kind, sites)

    def mean(z: Float[Tensor, "row position d_head"], head: Part) -> Float[Tensor, "row position d_head"]:
        here = means[head.site][0]
        return here[progress.positions(head.site, z).clamp(0, len(here) - 1), head.head].to(z)

    return mean
