"""Building blocks of specs: the dataclass decorator, and the types of values."""

import os
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def spec(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass that refuses unknown keys, values of another type, NaN and infinity."""
    made: Any = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))(cls)
    return made


Count = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _names(value: Any) -> Any:
    """Return names as a list of texts: one name is a list of one, and YAML may have read a name as a number."""
    items = [value] if isinstance(value, str) else value
    return (
        [str(item) if isinstance(item, int | float) else item for item in items] if isinstance(items, list) else items
    )


def _heads(value: Any) -> Any:
    """Return heads as a list of names: ``(5, 1)`` is ``L5H1``, and one head is a list of one."""
    if isinstance(value, str) or _is_pair(value):
        return [_head(value)]
    return _names([_head(each) for each in value]) if isinstance(value, list | tuple) else value


def _is_pair(value: Any) -> bool:
    """Whether a value is a head's layer and number, with or without a stack."""
    return isinstance(value, list | tuple) and [type(each) for each in value] in ([int, int], [int, int, str])


def _head(value: Any) -> Any:
    if not _is_pair(value):
        return value
    layer, head, *stack = value
    return "".join(f"{name}." for name in stack if name) + f"L{layer}H{head}"


def _text(value: Any) -> Any:
    """Return a number that YAML read from a word as the word."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _path(value: Any) -> Any:
    value = _text(os.fspath(value) if isinstance(value, os.PathLike) else value)
    return os.path.expanduser(value) if isinstance(value, str) else value


def _torch_name(value: Any) -> Any:
    """Return the name of a torch device or dtype object."""
    of_torch = type(value).__module__ == "torch" and type(value).__name__ in ("device", "dtype")
    return str(value).removeprefix("torch.") if of_torch else value


Text = Annotated[str, BeforeValidator(_text)]
PathText = Annotated[str, Field(min_length=1), BeforeValidator(_path)]
Device = Annotated[str, BeforeValidator(_torch_name)]
Dtype = Annotated[Literal["float32", "bfloat16", "float16"], BeforeValidator(_torch_name)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Heads = Annotated[tuple[str, ...], BeforeValidator(_heads)]
Bos = Literal["auto", "always", "never"]
