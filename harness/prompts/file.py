"""Prompts from a file: ``prompts=file prompts.path=questions.csv prompts.answer=answer``.

Every row of the file is checked, also those that `prompts.n` leaves out, so that a file is valid or not whatever the
seed. A row is a cluster of its own unless a column names clusters.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import FilePrompts, RequestError, near
from harness.models import Model
from harness.prompts import readers
from harness.prompts.prompt import Prompt
from harness.prompts.readers import Row, Table
from harness.prompts.relations import parse_triples
from harness.prompts.row import from_row
from harness.prompts.word_tags import check_tags, parse_tags

#: The keys that name a column, the text's first.
COLUMNS = ("column", "pair", "target", "answer", "distractor", "cluster", "counterfactual", "relations", "words")


def make(spec: FilePrompts, model: Model) -> list[Prompt]:
    """Make one prompt per row: of all rows, or of `spec.n` drawn without replacement, in the order of the file."""
    return [_prompt(spec, model, row) for row in check(spec)]


def check(spec: FilePrompts) -> list[Row]:
    """Read and return the rows, checked as far as possible without a model: file, columns, values."""
    return rows_of(spec, readers.read(Path(spec.path), {name for _, name in named_columns(spec)}))


def named_columns(spec: FilePrompts) -> list[tuple[str, str]]:
    """Return the columns that the spec names, each after its key."""
    named = [(key, getattr(spec, key)) for key in COLUMNS if getattr(spec, key) is not None]
    return named + [("tags", name) for name in spec.tags]


def rows_of(spec: FilePrompts, table: Table) -> list[Row]:
    """Return the rows of a table that the spec draws, all of them checked."""
    if spec.distractor is not None and spec.answer is None:
        raise RequestError("prompts.distractor", spec.distractor, "a distractor needs an answer: prompts.answer=…")
    for key, name in named_columns(spec):
        _check_column(spec, table, key, name)
    rows = _drawn(spec, table.rows)
    for row in rows:
        with placed(spec, row.place):
            check_tags({} if spec.words is None else parse_tags(row.values[spec.words], "prompts.path"), "prompts.path")
            parse_triples("" if spec.relations is None else row.values[spec.relations])
    return rows


@contextmanager
def placed(spec: FilePrompts, place: str) -> Iterator[None]:
    """Raise a `RequestError` inside with the row's place in the file."""
    try:
        yield
    except RequestError as error:
        readers.refuse(spec.path, f"{place}, {error.value}: {error.remedy}")


def _drawn(spec: FilePrompts, rows: Sequence[Row]) -> list[Row]:
    if spec.n is None:
        return list(rows)
    if spec.n > len(rows):
        raise RequestError("prompts.n", spec.n, f"{spec.path} has {len(rows)} rows")
    picked = np.random.default_rng(spec.seed).choice(len(rows), spec.n, replace=False)
    return [rows[at] for at in sorted(picked)]


def _check_column(spec: FilePrompts, table: Table, key: str, name: str) -> None:
    """Check that the column exists and that every row has a text in it (for clusters and tags also a whole number)."""
    if name not in table.columns:
        raise RequestError(f"prompts.{key}", name, f"{spec.path} has no such column; {near(name, table.columns)}")
    lacking = [row for row in table.rows if row.values.get(name) in (None, "")]
    if lacking:
        raise RequestError(f"prompts.{key}", name, _lacking(spec, table.rows, lacking, name))
    for row in table.rows:
        wrong = _wrong(key, row.values[name])
        if wrong:
            readers.refuse(spec.path, f"{row.place} has {wrong} in {name!r}")


def _wrong(key: str, value: Any) -> str:
    """Describe what is wrong with one value; empty if nothing."""
    if key == "words" and isinstance(value, dict):
        return ""
    if not isinstance(value, str):
        return "" if key in ("cluster", "tags") and type(value) is int else f"{readers.kind(value)}, not a text,"
    if key in ("column", "pair", "target", "counterfactual") and not value.strip():
        return "only white space"
    return "half a character (a lone surrogate)" if re.search("[\ud800-\udfff]", value) else ""


def _lacking(spec: FilePrompts, rows: Sequence[Row], lacking: Sequence[Row], name: str) -> str:
    """Describe which rows lack a column, and the nearest key of the first of them."""
    noun = rows[0].place.split()[0]
    numbers = [row.place.split()[1] for row in lacking]
    which = f"{noun}{'s' * (len(lacking) > 1)} {', '.join(numbers[:5])}{' …' * (len(numbers) > 5)}"
    count = f"{len(lacking)} of {len(rows)} rows have none" if len(lacking) > 1 else f"1 of {len(rows)} rows has none"
    absent = [row for row in lacking if name not in row.values]
    hint = f"; {absent[0].place}: {near(name, tuple(absent[0].values))}" if absent else ""
    return f"{spec.path}: {count} ({which}): give one in every row{hint}"


def _prompt(spec: FilePrompts, model: Model, row: Row) -> Prompt:
    """Make the prompt of a row; errors in its tokens name its place."""
    values = {key: row.values[name] for key, name in named_columns(spec) if key not in ("column", "tags", "words")}
    with placed(spec, row.place):
        cluster = row.place if spec.cluster is None else str(row.values[spec.cluster])
        words = {} if spec.words is None else parse_tags(row.values[spec.words], "prompts.path")
        prompt = from_row(model, {"text": row.values[spec.column], **values}, cluster, words, spec.chat)
    return replace(prompt, tags={name: str(row.values[name]) for name in spec.tags})
