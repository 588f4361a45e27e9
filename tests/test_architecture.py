"""Who may import whom, and that the contributors' map names every room."""

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: The rooms in the order data passes through them; a room imports only rooms above it (or itself).
ORDER = (
    "config",
    "hooks",
    "words",
    "metrics",
    "stats",
    "results",
    "execute",
    "models",
    "prompts",
    "attention",
    "ablation",
    "sweep",
    "attribution",
    "roles",
    "compare",
    "behaviour",
    "head_card",
    "findings",
    "views",
    "study",
    "interactive",
    "benchmark",
    "command",
)
FILES = sorted((ROOT / "harness").rglob("*.py"))


def room(path):
    return path.relative_to(ROOT / "harness").parts[0].removesuffix(".py")


@cache
def parsed(path):
    """A file's syntax tree, and all its nodes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tree, list(ast.walk(tree))


def imports(path, at_import_time=False):
    """(module, name) of every import; `at_import_time` leaves out those inside functions and under TYPE_CHECKING."""
    tree, nodes = parsed(path)
    if at_import_time:
        nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def rooms_imported(path):
    for module, name in imports(path):
        if module == "harness" and name:
            yield name
        elif module.startswith("harness."):
            yield module.split(".")[1]


def test_a_room_imports_only_rooms_above_it():
    wrong = {}
    for path in FILES:
        if path != ROOT / "harness" / "__init__.py":
            here = ORDER.index(room(path))
            below = {name for name in rooms_imported(path) if name in ORDER and ORDER.index(name) > here}
            wrong |= {path: below - type_only(path)} if below - type_only(path) else {}
    assert wrong == {}, "files that import from below"


def type_only(path):
    """Rooms that are imported for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    inside = [node for block in blocks for node in ast.walk(block) if isinstance(node, ast.ImportFrom)]
    return {(node.module or "").split(".")[1] for node in inside if (node.module or "").startswith("harness.")}


def test_every_room_has_its_place_in_the_order():
    assert {room(path) for path in FILES} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("hydra", {"harness/command/composition.py"}),
        ("omegaconf", {"harness/command/composition.py"}),
        ("circuitsvis", set()),
        (
            "transformer_lens",
            {f"harness/{name}.py" for name in ("models/load", "models/bridge", "benchmark/edge_times")},
        ),
        ("matplotlib", {"harness/views/figures", "harness/views/glyphs.py"}),
    ],
)
def test_a_package_is_known_in_one_place(package, allowed):
    files = [*FILES, *(ROOT / "experiments").rglob("*.py")]
    knowing = {
        str(path.relative_to(ROOT))
        for path in files
        if any(module.split(".")[0] == package for module, _ in imports(path))
    }
    assert {file for file in knowing if file not in allowed and str(Path(file).parent) not in allowed} == set()


@pytest.mark.parametrize("name", ["config", "hooks", "words", "metrics", "stats", "results", "views", "findings"])
def test_torch_is_not_imported_where_no_model_is(name):
    in_a_forward = {"softmax", "fused_attention", "frozen_norm"}  # of hooks: imported only by what runs a model
    for path in FILES:
        if room(path) == name and not (name == "hooks" and path.stem in in_a_forward):
            assert not {module.split(".")[0] for module, _ in imports(path)} & {
                "torch",
                "transformers",
            } - torch_in_types(path)


def test_what_needs_only_arrays_is_had_without_torch():
    """These rooms have files that run models too; what their names give at once does not load torch."""
    rooms = (
        "attribution",
        "attribution.evaluate",
        "attribution.context",
        "findings",
        "findings.questions",
        "views",
        "results",
    )
    lines = [
        f"import harness.{name}; assert 'torch' not in sys.modules, 'harness.{name} loads torch'" for name in rooms
    ]
    subprocess.run([sys.executable, "-c", "\n".join(("import sys", *lines))], cwd=ROOT, check=True)


def torch_in_types(path):
    """``torch`` where it is imported for types or inside the one function that needs it."""
    at_top = {module.split(".")[0] for module, _ in imports(path, at_import_time=True)}
    return {"torch", "transformers"} - at_top


def test_computations_do_not_print_or_read_the_clock_or_the_environment():
    outward = {"print", "time.time", "datetime.now", "os.getenv", "os.environ.get", "torch.manual_seed"}
    wrong = {}
    for path in FILES:
        if room(path) not in ("models", "study", "results", "interactive", "benchmark", "command"):
            _, nodes = parsed(path)
            called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
            wrong |= {path: called & outward} if called & outward else {}
    assert wrong == {}


def test_the_contributors_map_names_every_room_and_the_commands_page_every_runner():
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in ORDER:
        assert f"| `{name}` |" in guide, f"the map of CONTRIBUTING.md lacks {name}"
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    for path in (ROOT / "experiments").glob("[a-z]*.py"):
        assert f"| `{path.stem}` |" in page, f"docs/commands.md lacks the runner {path.stem}"
    for path in (ROOT / "conf/experiment").glob("*.yaml"):
        assert f"`{path.stem}`" in page, f"docs/commands.md lacks the preset {path.stem}"


def test_every_room_is_packaged():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {".".join(path.parent.relative_to(ROOT).parts) for path in FILES if path.name == "__init__.py"}
    assert {*named} - {"harness.conf", "experiments"} == rooms
