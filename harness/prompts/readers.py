"""Read files of prompts as rows: .txt, .jsonl, .csv, .tsv, .parquet, and folders that `datasets` saved to disk.

A .txt file has one prompt per line. Errors name the line as an editor shows it, counted from 1 (parquet files and
folders: the row). No code that comes with a file is ever run.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from harness.config import RequestError


@dataclass(frozen=True)
class Row:
    """One row: where it stands (``line 3``), and its values by column."""

    place: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """The columns of a file, and its rows with (at least) the wanted columns."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read(path: Path, wanted: Collection[str]) -> Table:
    """Read the rows of a file or folder. Raises `RequestError` for one that is missing, empty or broken."""
    if path.is_dir():
        table = _folder(path, wanted)
    elif not path.is_file():
        refuse(path, f"there is no such file or folder (looked for {path.absolute()})")
    elif path.suffix.lower() not in _READERS:
        refuse(path, f"prompts are read from {', '.join(_READERS)} and folders that datasets saved to disk")
    else:
        table = _READERS[path.suffix.lower()](path, wanted)
    if not table.rows:
        refuse(path, "this file is empty: it must have at least one prompt")
    return table


def refuse(path: Path | str, remedy: str) -> NoReturn:
    """Raise `RequestError` for the file at `path`."""
    raise RequestError("prompts.path", path, remedy) from None


# --- text -------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    """Read the whole file as text, without a byte order mark."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        refuse(path, f"this file cannot be opened ({error.strerror})")
    except UnicodeDecodeError as error:
        before = _unix(error.object[: error.start].decode("utf-8")).encode().split(b"\n")
        where = f"line {len(before)}, byte {len(before[-1]) + 1} (0x{error.object[error.start]:02x})"
        refuse(path, f"{where} is not UTF-8: save the file as UTF-8")
    if "\0" in text:
        line = _unix(text[: text.index("\0")]).count("\n") + 1
        refuse(path, f"line {line} holds a zero byte: this is no text, or UTF-16; save the file as UTF-8")
    return text


def _unix(text: str) -> str:
    """Normalise the line ends of Windows and old Macs."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _lines(path: Path) -> list[str]:
    """Return the lines; refuse empty ones, except at the end of the file."""
    lines = _unix(_text(path)).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            refuse(path, f"line {number} is empty: give one prompt per line")
    return lines


def _txt(path: Path, wanted: Collection[str]) -> Table:
    rows = (Row(f"line {number}", {"text": line}) for number, line in enumerate(_lines(path), 1))
    return Table(("text",), tuple(rows))


def _jsonl(path: Path, wanted: Collection[str]) -> Table:
    rows = tuple(Row(f"line {number}", _object(path, number, line)) for number, line in enumerate(_lines(path), 1))
    return Table(tuple(dict.fromkeys(key for row in rows for key in row.values)), rows)


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        refuse(path, f"line {number} is not JSON ({error.msg}, column {error.colno})")
    except (ValueError, RecursionError) as error:
        refuse(path, f"line {number} is not JSON ({error})")
    if not isinstance(value, dict):
        refuse(path, f'line {number} is {kind(value)}, not an object such as {{"text": "…"}}')
    return value


def kind(value: Any) -> str:
    """Describe the type of a value."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


#: What may separate the cells of a record, the likelier first, and what it is called.
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def _csv(path: Path, wanted: Collection[str]) -> Table:
    return _separated(path, wanted, (",", ";", "\t"))


def _tsv(path: Path, wanted: Collection[str]) -> Table:
    return _separated(path, wanted, ("\t", ",", ";"))


def _separated(path: Path, wanted: Collection[str], separators: Sequence[str]) -> Table:
    text = _text(path).rstrip("\r\n")
    separator = _separator(text, wanted, separators)
    records = list(_records(path, text, separator))
    if not records:
        return Table((), ())
    _, header = records[0]
    twice = [name for name, times in Counter(header).items() if times > 1 and name in wanted]
    if twice:
        refuse(path, f"line 1 names the column {twice[0]!r} twice")
    for place, cells in records[1:]:
        if len(cells) != len(header):
            remedy = f"quote texts that hold {_SEPARATORS[separator]}"
            refuse(path, f"{place} has {len(cells)} cells, the first line {len(header)}: {remedy}")
    return Table(
        tuple(header), tuple(Row(place, dict(zip(header, cells, strict=True))) for place, cells in records[1:])
    )


def _separator(text: str, wanted: Collection[str], separators: Sequence[str]) -> str:
    """Choose the separator by which the first line has most wanted columns, then most columns. Only the first line
    counts: texts may hold any of them."""

    def columns(separator: str) -> tuple[int, int]:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
        except (StopIteration, csv.Error):
            return 0, 0
        return len({*wanted} & {*header}), len(header)

    return max(separators, key=columns)


def _records(path: Path, text: str, separator: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the records of a CSV file, each with the line that it begins on; quoted texts may hold line ends."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            refuse(path, f"the record that begins on {place} cannot be read ({error}): check its quotation marks")
        if not cells:
            refuse(path, f"{place} is empty: give one prompt per record")
        yield place, cells


# --- tables -----------------------------------------------------------------------------------------------------


def _parquet(path: Path, wanted: Collection[str]) -> Table:
    from pyarrow import parquet

    def load() -> Table:
        with parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            kept = file.read(columns=[name for name in columns if name in wanted])
            return _rows(columns, kept.to_pydict(), file.metadata.num_rows)

    return _loaded(path, "a whole parquet file", load)


def _folder(path: Path, wanted: Collection[str]) -> Table:
    """Read a folder that `Dataset.save_to_disk` wrote, Arrow files and JSON; scripts in it are ignored."""
    if (path / "dataset_dict.json").is_file():
        splits = sorted(part.name for part in path.iterdir() if part.is_dir())
        refuse(path, f"this folder holds the splits {', '.join(splits)}: give the folder of one")
    if not (path / "dataset_info.json").is_file():
        refuse(path, "this folder has no dataset_info.json: give one that datasets' save_to_disk wrote, or a file")
    if not any(path.glob("*.arrow")):
        refuse(path, "this folder has no .arrow file, so no rows: it must have at least one prompt")

    def load() -> Table:
        import datasets

        saved: Any = datasets.load_from_disk(str(path.absolute()))
        kept = saved.with_format(None).select_columns([name for name in saved.column_names if name in wanted])
        return _rows(saved.column_names, kept[:], len(saved))

    return _loaded(path, "a whole datasets folder", load)


def _loaded(path: Path, what: str, load: Callable[[], Table]) -> Table:
    """Call `load`; raise any error of a library on a damaged file as a `RequestError`."""
    try:
        return load()
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        refuse(path, f"this is not {what} ({reason})")


def _rows(columns: list[str], values: dict[str, list[Any]], n: int) -> Table:
    rows = (Row(f"row {at + 1}", {name: column[at] for name, column in values.items()}) for at in range(n))
    return Table(tuple(columns), tuple(rows))


_READERS: dict[str, Callable[[Path, Collection[str]], Table]] = {
    ".txt": _txt,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
