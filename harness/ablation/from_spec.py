"""Build an `Ablation` from a request."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from harness import config
from harness.ablation.ablation import ZERO, Ablation, FixedBaseline, scaling
from harness.ablation.edits import Baseline
from harness.ablation.head_ablation import HeadAblation
from harness.ablation.mean import Mean
from harness.ablation.patch import Patch
from harness.ablation.resample import Resample
from harness.config import AblationSpec, RequestError, near
from harness.models import Model
from harness.prompts import Prompts, load_prompts
from harness.prompts.needs import check_reference

#: An ablation's name, its spec (or the keys of one), a value of `harness.zero` and its kin, or a function of z and the
#: head.
AblationRequest = str | Mapping[str, Any] | AblationSpec | HeadAblation | Baseline


def build(request: AblationRequest, model: Model, prompts: Prompts) -> tuple[Ablation, str | tuple[int, ...]]:
    """Build the ablation of z of a request, and return it with its positions.

    Raises `RequestError` for an unknown name, for other activations than z, which only a sweep of single heads
    replaces (`harness.sweep.head_inputs`), and for what these prompts do not allow.
    """
    if isinstance(request, HeadAblation):
        request = request.ablation
    if callable(request):
        name = getattr(request, "__name__", type(request).__name__)
        return FixedBaseline(request, name, f"z becomes {name}(z, head)"), "all"
    spec = parse_ablation(request)
    if getattr(spec, "of", ("z",)) != ("z",):
        remedy = "only a sweep of single heads (ablate_heads, study) replaces other activations; set z"
        raise RequestError("ablation.of", ",".join(spec.of), remedy)
    match spec:
        case config.ZeroAblation():
            made = ZERO
        case config.MeanAblation(reference=name, means=means):
            made = Mean(model, prompts, reference_prompts(name, model, prompts), name, means == "pooled")
        case config.ResampleAblation(draws=draws, seed=seed):
            made = Resample(model, prompts, draws, seed)
            made.plan()
        case config.PatchAblation(into=into):
            made = Patch.of(model, prompts, into)
        case config.ScaleAblation(factor=factor):
            made = scaling(factor)
        case _:
            raise RequestError("ablation", request, near("", _names(AblationSpec)))
    return made, spec.positions


def parse_ablation(request: Any) -> Any:
    """Return the spec of a name or of keys, and a spec as it is. Raises `RequestError`."""
    if isinstance(request, str):
        if request not in _names(AblationSpec):
            raise RequestError("ablation", request, near(request, _names(AblationSpec)))
        request = {"name": request}
    return config.parse(AblationSpec, request, "ablation.") if isinstance(request, Mapping) else request


def activations(request: AblationRequest) -> tuple[Any, tuple[config.Activation, ...]]:
    """Return the same ablation of z, and the activations that the request replaces, in the order of the field."""
    request = request.ablation if isinstance(request, HeadAblation) else request
    if callable(request):
        return request, ("z",)
    spec = parse_ablation(request)
    return replace(spec, of=("z",)), spec.of


def parse_positions(positions: Any) -> str | tuple[int, ...]:
    """Check positions outside a spec as those of a spec. Raises `RequestError`."""
    listed = positions if isinstance(positions, str | int) else list(positions)
    return config.parse(config.ZeroAblation, {"positions": listed}, "ablation.").positions


def _names(union: Any) -> tuple[str, ...]:
    """Return the names of the specs in a union."""
    return tuple(get_args(kind.__annotations__["name"])[0] for kind in get_args(get_args(union)[0]))


def reference_prompts(name: str, model: Model, prompts: Prompts | None) -> Prompts:
    """Return the prompts themselves (``self``), or a prompt set with its defaults under the same model.

    Raises `RequestError` for ``self`` without prompts, an unknown set, and one that the model cannot read.
    """
    if name == "self" and prompts is not None:
        return prompts
    if name == "self":
        raise RequestError("prompts", "none", "a mean is over prompts: pass prompts=…, or mean(heads, reference='ioi')")
    check_reference(name)
    try:
        reference = load_prompts(name, model)
    except RequestError as error:
        raise RequestError("ablation.reference", name, f"{model.name} cannot read these ({error}); use self") from None
    if prompts is not None and reference.length.max() < 2 <= prompts.length.max():
        raise RequestError("ablation.reference", name, "its prompts have one token each; take a longer reference")
    return reference
