"""The code speaks the field's words: a short list of private ones stays out of docstrings, messages and names."""

import ast
import re
from pathlib import Path

import pytest
from test_architecture import ORDER

ROOT = Path(__file__).parents[1]

#: Rooms that are held to the list; `harness` is the package's own ``__init__.py``.
ROOMS = (
    *("config", "hooks", "words", "metrics", "stats", "results", "execute", "models", "prompts", "attention"),
    *("ablation", "sweep", "attribution", "roles", "compare", "findings", "views", "study", "benchmark", "command"),
    *("harness", "experiments"),
)

IN_NAMES = {"nobody", "told", "said", "asked", "found", "given"}
IN_TEXT = re.compile(r"\b(nobody|told|said|asked|cannot be had|to be had|numbers that are none)\b", re.IGNORECASE)
IN_MESSAGES = re.compile(IN_TEXT.pattern + r"|\b(say) ", re.IGNORECASE)

#: What may stay: (file, word) and why.
EXCEPTIONS: dict[tuple[str, str], str] = {}


def files(room):
    if room == "experiments":
        return sorted((ROOT / room).rglob("*.py"))
    if room == "harness":
        return [ROOT / room / "__init__.py"]
    return sorted([*(ROOT / "harness" / room).rglob("*.py"), *(ROOT / "harness").glob(f"{room}.py")])


def words_of(name):
    """The words of a snake_case or CamelCase name."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")


def bound_name(node):
    """The name that a node binds, if any: of a function, class, parameter, variable or attribute."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) else ""


def docstrings(tree):
    """The docstring nodes of a tree: (constant, whether it is public)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value, isinstance(node, ast.Module) or not node.name.startswith("_")


def violations(source):
    """Line and word of each word of the list in a public docstring, a message or a name."""
    tree = ast.parse(source)
    public = {id(node): is_public for node, is_public in docstrings(tree)}
    for node in ast.walk(tree):
        hits = [(node.lineno, word) for word in IN_NAMES & {*words_of(bound_name(node))}]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and public.get(id(node), " " in node.value):
            pattern = IN_TEXT if id(node) in public else IN_MESSAGES
            for match in pattern.finditer(node.value):
                hits.append((node.lineno + node.value[: match.start()].count("\n"), match[0].strip().lower()))
        yield from hits


def seen_in(path):
    return list(violations(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_speaks_the_fields_words(room):
    assert files(room), f"no room {room}"
    seen = [(str(path.relative_to(ROOT)), line, word) for path in files(room) for line, word in seen_in(path)]
    left = [f"{file}:{line}: {word}" for file, line, word in seen if (file, word) not in EXCEPTIONS]
    assert not left, "\n".join(("words of the private dialect (see tests/test_prose.py):", *left))


def test_only_known_rooms_are_done():
    assert {*ROOMS} <= {*ORDER, "harness", "experiments"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""One.\n\nWhat nobody reads."""', [(3, "nobody")]),
        ('def load():\n    """What is Asked."""', [(2, "asked")]),
        ('def _load():\n    """What is asked."""', []),
        ('raise ValueError("this is empty: say which")', [(1, "say")]),
        ("remedy = f'{key} cannot be had here'", [(1, "cannot be had")]),
        ("found_rows, AskedFor.told = 1, 2", [(1, "found"), (1, "told")]),
        ("def load(given): ...\nclass AskedRow: ...", [(1, "given"), (2, "asked")]),
        ("rows = founded = asked(given)  # nobody said", []),
    ],
)
def test_a_planted_word_is_seen(source, expected):
    assert sorted(violations(source)) == expected


def test_each_exception_is_needed():
    seen = {(file, word) for file in {file for file, _ in EXCEPTIONS} for _, word in seen_in(ROOT / file)}
    assert {*EXCEPTIONS} <= seen
