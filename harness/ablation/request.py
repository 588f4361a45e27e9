"""From what is asked to an `Ablation`."""

from collections.abc import Mapping
from typing import Any, get_args

from harness import config
from harness.ablation.baselines import ZERO, Ablation, FixedBaseline
from harness.ablation.edits import Baseline
from harness.ablation.mean import Mean
from harness.ablation.patch import Patch
from harness.ablation.resample import Resample
from harness.config import AblationSpec, PromptSpec, RequestError, near
from harness.models import Model
from harness.prompts import Prompts, load_prompts

#: How an ablation may be asked for: its name, its spec (or the keys of one), or a function of z and the head.
Asked = str | Mapping[str, Any] | AblationSpec | Baseline


def build(asked: Asked, model: Model, prompts: Prompts) -> tuple[Ablation, str | tuple[int, ...]]:
    """The ablation that is asked for, and at which positions.

    Raises `RequestError` for an unknown name, and for what these prompts do not allow.
    """
    if callable(asked):
        return FixedBaseline(asked, getattr(asked, "__name__", type(asked).__name__)), "all"
    spec: Any = _spec(asked)
    match spec:
        case config.ZeroAblation():
            made = ZERO
        case config.MeanAblation(reference=name):
            made = Mean(model, prompts, _reference(name, model, prompts), name)
        case config.ResampleAblation(draws=draws, seed=seed):
            made = Resample(model, prompts, draws, seed)
            made.plan()
        case config.PatchAblation():
            made = Patch(model, prompts)
        case _:
            raise RequestError("ablation", asked, near("", _names(AblationSpec)))
    return made, spec.positions


def asked_positions(asked: Any) -> str | tuple[int, ...]:
    """Positions given by themselves, checked as those of a spec."""
    listed = asked if isinstance(asked, str | int) else list(asked)
    return config.parse(config.ZeroAblation, {"positions": listed}, "ablation.").positions


def _spec(asked: Any) -> Any:
    if isinstance(asked, str):
        if asked not in _names(AblationSpec):
            raise RequestError("ablation", asked, near(asked, _names(AblationSpec)))
        asked = {"name": asked}
    return config.parse(AblationSpec, asked, "ablation.") if isinstance(asked, Mapping) else asked


def _names(union: Any) -> tuple[str, ...]:
    """The names by which a union of specs tells them apart."""
    return tuple(get_args(kind.__annotations__["name"])[0] for kind in get_args(get_args(union)[0]))


def _reference(name: str, model: Model, prompts: Prompts) -> Prompts:
    """The swept prompts themselves, or a prompt set with its defaults under the same model."""
    if name == "self":
        return prompts
    usable = tuple(known for known in _names(PromptSpec) if _has_defaults(known))
    if name not in usable:
        raise RequestError("ablation.reference", name, near(name, ("self", *usable)))
    try:
        reference = load_prompts(name, model)
    except RequestError as error:
        raise RequestError("ablation.reference", name, f"{model.name} cannot read these ({error}); say self") from None
    if reference.length.max() < 2 <= prompts.length.max():
        raise RequestError("ablation.reference", name, "its prompts have one token each; take a longer reference")
    return reference


def _has_defaults(name: str) -> bool:
    """Whether a prompt set can be had by its name alone."""
    try:
        config.parse(PromptSpec, {"name": name})
    except RequestError:
        return False
    return True
