"""Parse plain dictionaries into specs; mistakes become one-line `RequestError` messages."""

import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from harness.config.errors import RequestError, near
from harness.config.models import ModelSpec

T = TypeVar("T")

#: Keys and values of earlier versions: what they are called now. A value is written ``key=value``.
RENAMED = {
    "sweep.first": "sweep.order_from",
    "sweep.until": "sweep.max_heads",
    "sweep.top": "sweep.pairs_top_k",
    "sweep.orders": "sweep.n_random_orders",
    "sweep.verify": "sweep.verify_fraction",
    "sweep.verify_top": "sweep.verify_top_k",
    "sweep.steps": "sweep.gradient_steps",
    "attribution.steps": "attribution.ig_steps",
    "attribution.top": "attribution.top_k",
    "sweep.sets": "sets",
    "roles.sets": "n_random_sets",
    "roles.n_random_sets": "n_random_sets",
    "other": "compare.model",
    "sweep.kind=keep": "complement",
    "prompts.name=parts": "context",
}
#: Remedies by pydantic error type, in the words of a command line.
_PLAIN = {
    "bool_parsing": "use true or false",
    "bool_type": "use true or false",
    "dict_type": "give names and what they stand for, such as {key}={{a: …}}",
    "mapping_type": "give names and what they stand for, such as {key}={{a: …}}",
    "tuple_type": "give a list, such as {key}=[…]",
    "too_short": "name at least one",
    "string_too_short": "this is empty: set a value, or leave the key out",
}


def parse(kind: type[T] | Any, values: Mapping[str, Any], prefix: str = "") -> T:
    """Return `values` as a frozen spec of this kind.

    A value ``???`` (the mark of YAML files for what the user must set) counts as missing. Raises `RequestError` for the
    first mistake, its key preceded by `prefix`.
    """
    check_names(values, prefix)
    try:
        return TypeAdapter(kind).validate_python(_without_missing(values))
    except ValidationError as error:
        raise _first_mistake(error, kind, prefix, values) from None


def check_names(values: Any, prefix: str = "") -> None:
    """Raise `RequestError` for a key or value of earlier versions, with what it is called now.

    >>> check_names({"until": 20}, "sweep.")
    Traceback (most recent call last):
    harness.config.errors.RequestError: sweep.until=20: this key is now sweep.max_heads
    """
    for key, value in values.items() if isinstance(values, Mapping) else ():
        path = f"{prefix}{key}"
        if path in RENAMED:
            inner, value = _innermost(value)
            raise RequestError(path + inner, value, f"this key is now {RENAMED[path]}{inner}")
        for item in value if isinstance(value, list | tuple) else [value]:
            if new := RENAMED.get(f"{path}={item}"):
                raise RequestError(path, item, f"this value is now {new}")
        check_names(value, f"{path}.")


def _innermost(value: Any) -> tuple[str, Any]:
    """Return the dotted key below a value that is a section, and what is set there: its first one."""
    path = ""
    while isinstance(value, Mapping) and value:
        key, value = next(iter(value.items()))
        path += f".{key}"
    return path, value


def _without_missing(values: Any) -> Any:
    if isinstance(values, Mapping):
        known = {key: value for key, value in values.items() if not isinstance(value, str) or value != "???"}
        return {key: _without_missing(value) for key, value in known.items()}
    return values


def conf_dir() -> Path:
    """Return the folder of config files: beside the package in a checkout, inside it in an installed wheel."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def model_names() -> tuple[str, ...]:
    """Return the names of the models in ``conf/model``."""
    return tuple(sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml")))


def named_model(name: str, **overrides: object) -> Any:
    """Return the spec of a model in ``conf/model``, with `overrides` in place of its values."""
    return parse(ModelSpec, {**_named(name, "model"), **overrides}, "model.")


def model_to_compare(model: Any, second: Any) -> Any:
    """Return the values of the model that `model` is compared with.

    `second` is a name of ``conf/model``, or keys. Keys with a ``source`` are complete; with a ``name`` they override
    that model's values, otherwise those of `model` (``compare.model.dtype=bfloat16``).
    """
    keys = {"name": second} if isinstance(second, str) else second
    if not isinstance(keys, Mapping) or "source" in keys:
        return keys
    if "name" not in keys:
        return {**model, **keys} if isinstance(model, Mapping) else keys
    return {**_without_missing(_named(str(keys["name"]), "compare.model.name")), **keys}


def _named(name: str, key: str) -> dict[str, Any]:
    """Load the values of a file in ``conf/model``."""
    if name not in model_names():
        raise RequestError(key, name, near(name, model_names()))
    return yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))


def _first_mistake(error: ValidationError, kind: Any, prefix: str, values: Any) -> RequestError:
    # The shortest path goes first: a wrong seed is reported at every key that interpolates it. But pydantic also calls
    # a list too short because its wrong items do not count. A key is missing where it is misspelt.
    unknown = [str(each["loc"][-1]) for each in error.errors() if each["type"] == "unexpected_keyword_argument"]

    def late(each: Any) -> tuple[bool, int, bool]:
        misspelt = each["type"] == "missing" and bool(get_close_matches(str(each["loc"][-1]), unknown))
        return each["type"] == "too_short", len(each["loc"]), misspelt

    first: Any = min(error.errors(), key=late)
    path, siblings, inside = _walk(kind, [str(part) for part in first["loc"]])
    if path[-1:] == ["0"] and not isinstance(_at(values, path[:-1]), list | tuple):
        path = path[:-1]  # the user wrote one word, which a validator made a list of one
    key = prefix + ".".join(path)
    match first["type"]:
        case "dataclass_type" | "model_attributes_type":
            return RequestError(key, first["input"], f"this is a section: write {key}.KEY=value; {near('', inside)}")
        case "unexpected_keyword_argument":
            return RequestError(key, first["input"], f"there is no such key; {near(path[-1], siblings)}")
        case "missing":
            return RequestError(key, "???", f"set it: {key}=…")
        case "union_tag_invalid" | "union_tag_not_found":
            context = first["ctx"]
            tag_key = ".".join([*filter(None, [key.rstrip(".")]), context["discriminator"].strip("'")])
            if "expected_tags" not in context:
                return RequestError(tag_key, "???", f"set it: {tag_key}=…")
            options = _quoted(context["expected_tags"])
            return RequestError(tag_key, context.get("tag", "???"), near(context.get("tag", ""), options))
        case "literal_error":
            return RequestError(key, first["input"], near(first["input"], _quoted(first["ctx"]["expected"])))
        case kind_of_mistake if kind_of_mistake in _PLAIN:
            return RequestError(key, first["input"], _PLAIN[kind_of_mistake].format(key=key))
    return RequestError(key, first["input"], first["msg"][0].lower() + first["msg"][1:])


def _at(values: Any, path: list[str]) -> Any:
    """Return the user's value at a path."""
    for part in path:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _quoted(text: str) -> tuple[str, ...]:
    """Return the words that pydantic lists in quotation marks."""
    return tuple(re.findall(r"'([^']*)'", text))


def _walk(kind: Any, path: list[str]) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """Return the path without pydantic's union tags, the keys beside its last part and those below it."""
    kinds, known, kept = _dataclasses_in(kind), (), []
    for part in path:
        tagged = [option for option in kinds if part in _tags(option)] if len(kinds) > 1 else []
        if tagged:
            kinds = tagged
            continue
        hints = {name: hint for option in kinds for name, hint in get_type_hints(option, include_extras=True).items()}
        kept.append(part)
        if part.isdigit() and part not in hints:  # an item of a list, whose kind is that of the list's items
            continue
        kinds, known = _dataclasses_in(hints.get(part)), tuple(hints)
    return kept, known, tuple({name: 0 for option in kinds for name in get_type_hints(option)})


def _dataclasses_in(hint: Any) -> list[Any]:
    if isinstance(hint, type) and is_dataclass(hint):
        return [hint]
    return [kind for part in get_args(hint) for kind in _dataclasses_in(part)]


def _tags(option: Any) -> set[str]:
    """Return the discriminator values of a spec in its union."""
    hints = get_type_hints(option)
    return {tag for key in ("source", "name") for tag in get_args(hints.get(key)) if isinstance(tag, str)}
