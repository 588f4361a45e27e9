"""What ablations and metrics need of prompts, checked on their spec: before a model is loaded or torch is imported."""

from typing import Any

from harness import config
from harness.config import AblationSpec, PromptSpec, RequestError, near
from harness.config.describe import options_of

#: How prompts come to have counterfactuals.
COUNTERFACTUALS = (
    "give each prompt one of its own length (prompts=ioi has them), or set ablation=resample or ablation=mean"
)
#: How prompts come to have answers.
ANSWERS = "take prompts=ioi, set them for prompts=inline or file, or set metrics=[loss]"
#: How prompts come to be of several clusters.
CLUSTERS = "take prompts from at least two, or set ablation=mean or ablation=zero"


def check_ablation(ablation: AblationSpec, prompts: PromptSpec) -> None:
    """Raise `RequestError` for an ablation that these prompts do not allow, as far as their spec tells."""
    if isinstance(ablation, config.PatchAblation) and not _has(prompts, "counterfactual", config.IoiPrompts):
        remedy = f"prompt 0 of {prompts.name} has no counterfactual; {COUNTERFACTUALS}"
        raise RequestError("ablation", "patch", remedy)
    if isinstance(ablation, config.ResampleAblation) and len(clusters := _clusters(prompts)) == 1:
        remedy = f"a donor comes from another cluster, and all prompts are of {clusters.pop()!r}; {CLUSTERS}"
        raise RequestError("ablation", "resample", remedy)
    if isinstance(ablation, config.MeanAblation) and ablation.reference != "self":
        check_reference(ablation.reference)


def check_metrics(names: tuple[str, ...], prompts: PromptSpec) -> None:
    """Raise `RequestError` for `logit_diff` of prompts without an answer and a distractor to compare."""
    lacking = [need for need in ("answer", "distractor") if not _has(prompts, need, config.IoiPrompts)]
    if "logit_diff" in names and lacking:
        remedy = f"it needs prompts with {' and '.join(lacking)}, and {prompts.name} has none; {ANSWERS}"
        raise RequestError("metrics", "logit_diff", remedy)


def check_reference(name: str) -> None:
    """Raise `RequestError` for a reference of a mean that is no prompt set, or one that needs more than its name."""
    usable = tuple(known for known in options_of(PromptSpec) if _has_defaults(known))
    if name not in usable:
        raise RequestError("ablation.reference", name, near(name, ("self", *usable)))


def _has(prompts: Any, key: str, always: type) -> bool:
    """Whether these prompts have such a value: a kind that `always` has it, or others where the spec sets it."""
    return isinstance(prompts, always) or getattr(prompts, key, None) is not None


def _clusters(prompts: Any) -> set[str]:
    """Return the clusters of prompts that are written in the request; empty for all others."""
    if not isinstance(prompts, config.InlinePrompts | config.TokenIdPrompts):
        return set()
    texts = prompts.text if isinstance(prompts, config.InlinePrompts) else prompts.token_id
    return {*(prompts.cluster or (f"text {number}" for number in range(len(texts))))}


def _has_defaults(name: str) -> bool:
    """Whether a prompt set needs nothing but its name."""
    try:
        config.parse(PromptSpec, {"name": name})
    except RequestError:
        return False
    return True
