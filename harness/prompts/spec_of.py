"""The spec of prompts that the caller holds: a list of texts, a pandas DataFrame, or token ids.

A spec holds plain values, so that a run of such prompts is saved and done again like any other.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from harness import config
from harness.config import FilePrompts, InlinePrompts, RequestError, TokenIdPrompts
from harness.prompts import file, inline, token_ids
from harness.prompts.readers import Row, Table, kind, refuse

_FORMS = "pass a prompt set's name or spec, a list of texts, a pandas DataFrame, or lists of token ids"


def spec_of(prompts: Any, tokenizer: Any, overrides: Mapping[str, Any]) -> InlinePrompts | TokenIdPrompts:
    """Return the spec of texts or token ids with these other values. Raises `RequestError` for anything else.

    Token ids are lists of lists, a two-dimensional array or tensor, or a tokenizer's output, whose attention mask says
    which of them are padding.
    """
    if isinstance(prompts, Mapping):
        return _of_ids(_masked(prompts), tokenizer, overrides, padded=False)
    if _is_array(prompts):
        return _of_ids(_rows(prompts), tokenizer, overrides)
    if not isinstance(prompts, list | tuple):
        raise RequestError("prompts", type(prompts).__name__, _FORMS)
    if not prompts:
        raise RequestError("prompts", "[]", "give at least one text")
    if all(isinstance(each, str) for each in prompts):
        return _of_texts(prompts, overrides)
    if all(isinstance(each, list | tuple) or _is_array(each) for each in prompts):
        return _of_ids(_rows(prompts), tokenizer, overrides)
    if all(_is_whole(each) for each in prompts):
        raise RequestError("prompts", list(prompts), f"the ids of one prompt are a list in a list: {[list(prompts)]}")
    mixed = any(isinstance(each, str) for each in prompts)
    at, odd = next((at, each) for at, each in enumerate(prompts) if not (mixed and isinstance(each, str)))
    raise RequestError("prompts", odd, f"item {at} is {kind(odd)}: {_FORMS}")


# --- texts --------------------------------------------------------------------------------------------------------


def _of_texts(texts: Sequence[str], overrides: Mapping[str, Any]) -> InlinePrompts:
    return config.parse(
        InlinePrompts, {"name": "inline", "text": list(texts), **_parallel(overrides, inline.PARALLEL)}, "prompts."
    )


def _parallel(overrides: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return the values with arrays and series as lists; refuse an item of `keys` that is no text."""
    values = {key: _plain(value) for key, value in overrides.items()}
    for key in {*keys} & {*values}:
        for at, item in enumerate(values[key] if isinstance(values[key], list | tuple) else ()):
            if not (isinstance(item, str) or (key == "cluster" and _is_whole(item))):
                raise RequestError(f"prompts.{key}", item, f"item {at} is {kind(item)}, not a text")
    return values


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


# --- a DataFrame --------------------------------------------------------------------------------------------------


def spec_of_frame(frame: pd.DataFrame, overrides: Mapping[str, Any]) -> tuple[InlinePrompts, list[str]]:
    """Return the spec of the rows of a DataFrame, and the places that errors name.

    Columns named as keys of `FilePrompts` have their meaning; `overrides` name others, or None for a column that is not
    to be read. The rules are those of a file.
    """
    keys = [key for key in file.COLUMNS if key not in ("column", "words") and key in frame.columns]
    values = {**{key: key for key in keys}, **overrides, "name": "file", "path": "DataFrame"}
    columns = config.parse(FilePrompts, values, "prompts.")
    if columns.words is not None:
        remedy = "tags of words are the same for all rows of a DataFrame: save it, and load_prompts('file', …)"
        raise RequestError("prompts.words", columns.words, remedy)
    with of_frame():
        rows = file.rows_of(columns, _table(frame, [name for _, name in file.named_columns(columns)]))
    listed = {
        key: [str(row.values[name]) for row in rows] for key, name in file.named_columns(columns) if key != "tags"
    }
    tags = {name: [str(row.values[name]) for row in rows] for name in columns.tags}
    plain = {"name": "inline", "text": listed.pop("column"), "tags": tags, **listed}
    plain |= {"generate": columns.generate, "chat": columns.chat}
    return config.parse(InlinePrompts, plain, "prompts."), [row.place for row in rows]


@contextmanager
def of_frame(place: str | None = None) -> Iterator[None]:
    """Raise a file's `RequestError` inside as one of a DataFrame, with its row if there is a `place`."""
    try:
        yield
    except RequestError as error:
        if place is not None:
            remedy = f"{place}, {error.value}: {error.remedy}"
            raise RequestError("prompts", "DataFrame", remedy) from None
        if error.key == "prompts.path":
            raise RequestError("prompts", error.value, error.remedy) from None
        raise


def _table(frame: pd.DataFrame, wanted: Sequence[str]) -> Table:
    """Return the rows with the wanted columns as plain values, None for what is missing."""
    names = [str(name) for name in frame.columns]
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        refuse("DataFrame", f"it has the column {twice[0]!r} twice")
    if not len(frame):
        refuse("DataFrame", "it has no rows: it must have at least one prompt")
    columns = {}
    for name in {*wanted} & {*frame.columns}:
        missing = frame[name].isna().tolist()
        columns[name] = [None if gap else item for gap, item in zip(missing, frame[name].tolist(), strict=True)]
    rows = (Row(f"row {at + 1}", {name: items[at] for name, items in columns.items()}) for at in range(len(frame)))
    return Table(tuple(names), tuple(rows))


# --- token ids ----------------------------------------------------------------------------------------------------


def _of_ids(rows: list[list[int]], tokenizer: Any, overrides: Mapping[str, Any], padded: bool = True) -> TokenIdPrompts:
    values = _parallel({key: value for key, value in overrides.items() if key != "counterfactual"}, token_ids.PARALLEL)
    if overrides.get("counterfactual") is not None:
        values["counterfactual"] = _rows(overrides["counterfactual"], "prompts.counterfactual")
    if padded:
        _check_unpadded(rows, tokenizer)
    return config.parse(TokenIdPrompts, {"name": "token_ids", "token_id": rows, **values}, "prompts.")


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "dtype"))


def _rows(ids: Any, key: str = "prompts") -> list[list[int]]:
    """Return token ids as lists of whole numbers. Raises `RequestError` for other numbers and for other dimensions."""
    remedy = 'token ids are whole numbers: pass tokenizer(texts)["input_ids"]'
    if _is_array(ids):
        array = ids.detach().cpu().numpy() if hasattr(ids, "detach") else ids
        if array.dtype.kind not in "iu":
            raise RequestError(key, f"{type(ids).__name__} of {array.dtype}", remedy)
        if array.ndim != 2:
            shape = "×".join(map(str, array.shape))
            raise RequestError(
                key, f"{type(ids).__name__} of {shape}", "give ids of two dimensions, [prompt, position]"
            )
        return array.tolist()
    rows = [_rows(row[None], key)[0] if _is_array(row) else list(row) for row in ids]
    for number, row in enumerate(rows):
        odd = [each for each in row if not _is_whole(each)]
        if odd:
            raise RequestError(key, repr(odd[0]), f"prompt {number} has {kind(odd[0])} in its ids; {remedy}")
        if not row:
            raise RequestError(key, "[]", f"prompt {number} has no token")
        if min(row) < 0:
            raise RequestError(key, min(row), f"prompt {number} has a negative id; leave padding out, or pass its mask")
    return [[int(each) for each in row] for row in rows]


def _masked(output: Mapping[str, Any]) -> list[list[int]]:
    """Return the token ids of a tokenizer's output without its padding, which the attention mask tells."""
    if "input_ids" not in output:
        known = ", ".join(map(str, output)) or "nothing"
        raise RequestError(
            "prompts", "{…}", f"pass a tokenizer's output, with input_ids and attention_mask; it has {known}"
        )
    rows = _rows(_two_dimensional(output["input_ids"]))
    mask = output.get("attention_mask")
    kept = [[1] * len(row) if mask is None else [] for row in rows]
    if mask is not None:
        kept = [[int(each) for each in row] for row in _plain(_two_dimensional(mask))]
    if [len(row) for row in kept] != [len(row) for row in rows]:
        raise RequestError("prompts.attention_mask", "another shape", "give one 0 or 1 for each of input_ids")
    if any(map(any, map(_plain, _two_dimensional(output.get("token_type_ids", [[]]))))):
        remedy = "pass pairs as texts: load_prompts([first], model, pair=[second])"
        raise RequestError("prompts.token_type_ids", "1", remedy)
    return [_without_padding(*each, number) for number, each in enumerate(zip(rows, kept, strict=True))]


def _two_dimensional(ids: Any) -> Any:
    """Return the ids of a tokenizer that read one text as those of a list of one."""
    if _is_array(ids):
        return ids[None] if ids.ndim == 1 else ids
    return [ids] if ids and all(map(_is_whole, ids)) else ids


def _without_padding(ids: list[int], mask: list[int], number: int) -> list[int]:
    there = [at for at, kept in enumerate(mask) if kept]
    if {*mask} - {0, 1} or not there or there[-1] - there[0] >= len(there):
        remedy = "a mask is 1 at the prompt's tokens, which stand together, and 0 at padding before or after them"
        raise RequestError("prompts.attention_mask", mask, f"prompt {number}: {remedy}")
    return ids[there[0] : there[-1] + 1]


def _check_unpadded(rows: list[list[int]], tokenizer: Any) -> None:
    """Raise `RequestError` for rows that end or begin in padding tokens: without a mask they would be read as text."""
    pad = tokenizer.pad_token_id
    shared = pad in (tokenizer.bos_token_id, tokenizer.eos_token_id)  # one such token may be meant
    for number, row in enumerate(rows):
        if pad is not None and any(end and {*end} == {pad} for end in (row[-1 - shared :], row[: 1 + shared])):
            remedy = "a tokenizer's whole output, with attention_mask, or lists without padding"
            raise RequestError("prompts", pad, f"prompt {number} has padding at an end and no mask: pass {remedy}")
