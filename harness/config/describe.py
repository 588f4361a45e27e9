"""Describe the keys of specs, for ``--help`` and the comments of ``conf/``: type, default, and what each is for.

A field's line is the string below it in the class. It is read from the source once it is wanted.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

#: Words for types that a validator widens.
_TYPES = {str: "text", int: "int", float: "number", bool: "true|false"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class Key:
    """A key of a spec: its dotted name, type and default in words, and what it is for."""

    name: str
    type: str
    default: str
    line: str


@cache
def field_lines(kind: type) -> Mapping[str, str]:
    """Return the line below each field of a spec, its base classes' included.

    >>> from harness.config import ShowSpec
    >>> field_lines(ShowSpec)["level"]
    'Unit that the report opens with.'
    """
    lines: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                lines[field.target.id] = inspect.cleandoc(str(after.value.value))
    return lines


def first_line(kind: type) -> str:
    """Return the first line of a spec's docstring."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]


def options_of(hint: Any) -> dict[str, type]:
    """Return the specs of a union by what chooses them (``name`` or ``source``); empty for anything else."""
    options = {}
    for option in filter(is_dataclass, _arguments(hint)):
        hints = get_type_hints(option)
        tag = hints.get("source") or hints.get("name")
        if get_origin(tag) is Literal:
            options[str(get_args(tag)[0])] = option
    return options


def keys_of(kind: type, prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a spec, those of its sections in their place; unions of specs, and sections of sections, are
    one key each.

    >>> from harness.config import CompareSpec
    >>> [(key.name, key.type, key.default) for key in keys_of(CompareSpec, "compare.")]
    [('compare.model', 'a model', 'null'), ('compare.special', 'keep|drop', 'keep')]
    """
    hints, lines = get_type_hints(kind, include_extras=True), field_lines(kind)
    for field in fields(kind):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        if isinstance(hint, type) and is_dataclass(hint) and "." not in prefix:
            yield from keys_of(hint, f"{name}.")
        elif not (field.name in ("name", "source") and get_origin(hint) is Literal):
            yield Key(name, type_text(hint), _default(field), lines[field.name])


def type_text(hint: Any) -> str:
    """Describe a type as a user writes its values.

    >>> type_text(Literal["keep", "drop"]), type_text(bool), type_text(tuple[int, ...])
    ('keep|drop', 'true|false', 'list of int')
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join(filter(None, (type_text(inner[0]), _bounds(inner[1:]))))
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin is tuple:
        return f"list of {type_text(inner[0])}"
    if origin in (Union, UnionType):
        some = [each for each in inner if each is not NoneType]
        if any(options_of(each) or is_dataclass(each) for each in (*some, hint)):
            return "a model" if "hub" in options_of(some[0] if len(some) == 1 else hint) else "a group"
        return "|".join(dict.fromkeys(type_text(each) for each in some))
    if isinstance(origin or hint, type) and issubclass(origin or hint, Mapping):
        return "{NAME: value}" if inner and inner[1] is Any else "{NAME: list}"
    if isinstance(hint, type) and is_dataclass(hint):
        return f"section: {', '.join(get_type_hints(hint))}"
    return _TYPES.get(hint, str(hint))


def _arguments(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, through `Annotated`; the hint itself where it is none."""
    if get_origin(hint) is Annotated:
        return _arguments(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return tuple(option for each in get_args(hint) for option in _arguments(each))
    return (hint,)


def _bounds(marks: tuple[Any, ...]) -> str:
    """Describe the bounds of a number."""
    bounds = []
    for mark in marks:
        for bound in mark.metadata if isinstance(mark, FieldInfo) else (mark,):
            bounds += [f"{sign}{getattr(bound, name)}" for name, sign in _BOUNDS.items() if hasattr(bound, name)]
    return " ".join(each for each in bounds if len(each) < 12)  # not the bound of a seed


def _default(field: Any) -> str:
    """Describe a default as YAML writes it; ``???`` for what must be set."""
    info = field.default
    factory = field.default_factory
    if isinstance(info, FieldInfo):
        info, factory = info.default, info.default_factory or MISSING
    if factory is not MISSING:
        info = cast(Any, factory)()
    return "???" if info is MISSING or type(info).__name__ == "PydanticUndefinedType" else yaml_text(info)


def yaml_text(value: Any) -> str:
    """Return a value as a YAML flow: ``[a, b]``, ``null``, ``true``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {yaml_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml_text, value))}]"
    return repr(value) if value == "" or (isinstance(value, str) and "\n" in value) else str(value)
