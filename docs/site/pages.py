"""Pages of the site that are made when it is built: from the specs, the schema, the docstrings and the notebooks.

`PAGES` maps each page to the function that writes it; `pictures` makes the pictures, `notebooks` runs the notebooks.
The two functions at the end are hooks of MkDocs.
"""

import ast
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import notebooks  # noqa: E402
import pictures  # noqa: E402
from pictures import Made, Page  # noqa: E402

import harness  # noqa: E402
from harness.command.help import help_text, overview  # noqa: E402
from harness.command.runners import RUNNERS  # noqa: E402
from harness.config import RequestError, conf_dir  # noqa: E402
from harness.results.manifest import KEYS  # noqa: E402
from harness.results.schema import TABLES, VARIABLES  # noqa: E402
from harness.roles.catalogue import MEANING, ROLES  # noqa: E402

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

COMMAND = "attention-harness"
#: Modules of methods and causes, whose docstrings have the paper and the limits.
METHODS = (
    *(
        "rollout",
        "uniform_rollout",
        "effect_weighted_rollout",
        "gradient_rollout",
        "flow",
        "norms",
        "alti",
        "gradients",
    ),
    *("integrated", "mean_patterns"),
)
CAUSES = ("causes", "occlusion", "deletion", "knockout")
#: What the public functions return.
RETURNED = (
    *(f"interactive.result.{name}" for name in ("Effects", "Patterns", "Attributions")),
    *("behaviour.texts.Texts", "behaviour.bake.Baked"),
    *("results.run.Run", "compare.many_runs.Runs", "views.look.Look"),
)
#: Functions on arrays that the reference lists beside the public names.
FUNCTIONS = (
    *("attribution.rollout.rollout", "attribution.flow.flow", "attribution.norms.value_weighted_norms"),
    *("words.merge.merge_pattern", "words.merge.merge_scores", "stats.summary.summarize", "stats.planning.power"),
    *("stats.ranks.rank_correlation", "findings.findings", "metrics.of_function"),
)


def block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.strip()}\n```"


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def table(*rows: tuple[str, ...]) -> str:
    """A table of Markdown, the first row its head."""
    head, *rest = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join((head, "|" + "---|" * len(rows[0]), *rest))


# --- commands ---------------------------------------------------------------------------------------------------


@cache
def groups() -> dict[str, str]:
    """The groups of keys, with the first runner that reads each."""
    made = {}
    for group in sorted({path.name for path in conf_dir().iterdir() if path.is_dir()} - {"hydra", "experiment"}):
        for runner in RUNNERS:
            try:
                help_text(runner, COMMAND, (group,))
            except RequestError:
                continue
            made[group] = runner
            break
    return made


def runners() -> str:
    """The text of ``--help`` of each runner and each group of keys."""
    parts = ["# Runners and keys", "What `--help` prints, made from the typed specs.", block(overview(COMMAND))]
    for name in RUNNERS:
        parts += [f"## {name}", block(help_text(name, f"{COMMAND} {name}"))]
    for group, runner in groups().items():
        parts += [f"## Keys of {group}", block(help_text(runner, COMMAND, (group,)))]
    return "\n\n".join(parts)


def presets(made: Mapping[str, Made]) -> str:
    """Every preset with its question, its cost, its settings, and what it shows, for those that were run."""
    parts = ["# Presets", f"A preset is a question with its settings: `{COMMAND} study experiment=NAME`."]
    parts.append("Those that take seconds were run when this page was built; a picture's line says on what.")
    for path in sorted((conf_dir() / "experiment").glob("*.yaml")):
        _, *lines = path.read_text(encoding="utf-8").splitlines()
        about = [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), lines)]
        parts += [f"## {path.stem}", " ".join(about[:-1]), f"*{about[-1]}*"]
        parts.append(block("\n".join(lines[len(about) :]), "yaml"))
        parts += shown(path.stem, made)
    return "\n\n".join(parts)


def shown(preset: str, made: Mapping[str, Made]) -> list[str]:
    """What a preset shows, where it was run; of `ioi` the committed picture of the default study."""
    if preset == "ioi":
        picture = "![Report of the default study](report.png){ .picture }"
        return [picture, "The default study, which is this question with 32 prompts and both metrics."]
    if preset not in made:
        return []
    line, _ = pictures.PRESETS[preset]
    return [pictures.image(f"preset_{preset}", preset), f"`{COMMAND} {line}`", made[preset].answer]


def illustrated_presets() -> Page:
    """The presets, with pictures of those that take seconds."""
    made = pictures.preset_pictures()
    files = [pictures.files_of(f"preset_{name}", each) for name, each in made.items()]
    return Page(presets(made), {name: content for each in files for name, content in each.items()})


# --- reference --------------------------------------------------------------------------------------------------


def defined(home: str, name: str) -> str:
    """The full name of the module in which a public name is defined."""
    value = getattr(harness, name)
    return f"{getattr(value, '__module__', f'harness.{home}')}.{name}"


def reference() -> str:
    """Directives for mkdocstrings: every public name, the functions on arrays, and the views."""
    from harness import views

    rooms = ", ".join(f"`harness.{room}`" for room in harness._ROOMS)
    parts = ["# Python", block("import harness", "python"), f"Rooms of functions: {rooms}.", "## Public names"]
    parts += [f"::: {defined(home, name)}" for name, home in harness._HOME.items()]
    parts += ["## What they return", *(f"::: harness.{name}" for name in RETURNED)]
    parts += ["## Functions on arrays", *(f"::: harness.{name}" for name in FUNCTIONS), "## Views"]
    parts += [f"::: {getattr(views, name).__module__}.{name}" for name in views.__all__ if name != "View"]
    return "\n\n".join(parts)


def run_directory() -> str:
    """The files of a run directory, and what its arrays and tables hold."""
    files = (
        ("file", "holds"),
        ("`spec.yaml`", "the resolved config; enough to run it again"),
        ("`manifest.json`", f"{', '.join(f'`{key}`' for key in KEYS)}; `status` becomes `complete` last"),
        ("`stages/STAGE/plan.json`, `units/`", "the frozen plan and the finished units, while the run goes on"),
        ("`data.zarr`", "labelled arrays, below"),
        ("`NAME.csv`, `NAME.parquet`", "tables, below"),
        ("`report.html`", "one file, opens with the network off"),
        ("`figures/`", "the report's figures as SVG and PNG"),
    )
    arrays = [(f"`{name}`", ", ".join(dims.split()), holds) for name, (dims, holds) in VARIABLES.items()]
    columns = [(f"`{name}.csv`", ", ".join(f"`{column}`" for column in of.columns)) for name, of in TABLES.items()]
    about = (
        "`results/RUNNER/DATE-TIME-HASH/`; `harness.open_run` opens it without the model. In runs of an encoder-decoder"
        " `stack` stands before `layer`, and variables of the other stacks begin with `encoder_` or `cross_`; those of"
        " the second model of a comparison begin with `other_`. Empty cells were not computed."
    )
    parts = (
        "# The run directory",
        about,
        table(*files),
        "## Arrays",
        table(("variable", "dimensions", "holds"), *arrays),
    )
    return "\n\n".join((*parts, "## Tables", table(("table", "columns"), *columns)))


def docstring(module: str, name: str = "") -> str:
    """The docstring of a module's file, or of a function in it, without importing it."""
    path = ROOT / "harness" / f"{module.replace('.', '/')}.py"
    tree: Any = ast.parse(path.read_text(encoding="utf-8"))
    node = next(each for each in tree.body if getattr(each, "name", "") == name) if name else tree
    return (ast.get_docstring(node) or "").replace("``", "`")


def definition(role: str) -> str:
    """The docstring of the function that measures a role; empty where it has none of its own."""
    for module in ("roles.masks", "roles.role_measures"):
        with suppress(StopIteration):
            return docstring(module, role)
    return docstring("roles.copying").split("\n\n")[0] if role == "copying" else ""


def functions(module: str, names: str) -> dict[str, str]:
    """The functions of a dictionary in a module (``METHODS``), by key, as they are written."""
    path = ROOT / "harness" / f"{module.replace('.', '/')}.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == names and isinstance(node.value, ast.Dict):
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {key.value: ast.unparse(value) for key, value in pairs if isinstance(key, ast.Constant)}
    raise KeyError(names)


def methods() -> str:
    """Attribution methods, causes and roles, with their papers and limits as the docstrings have them."""
    named = functions("attribution.methods", "METHODS")
    lines = [(f"`{name}`", docstring("attribution.methods", of).split("\n")[0]) for name, of in named.items()]
    how = docstring("attribution.methods").split("\n\n")[-1].partition("`METHODS`. ")[2]
    parts = ["# Methods, roles and causes", "## Attribution methods", how]
    parts.append(table(("`attribution.methods`", "score of a token"), *lines))
    parts += [part for name in METHODS for part in (f"### {name.replace('_', ' ')}", docstring(f"attribution.{name}"))]
    parts.append("## Causes")
    parts += [part for name in CAUSES for part in (f"### {name}, measured", docstring(f"attribution.{name}"))]
    parts += ["## Roles", docstring("roles.role_measures"), docstring("roles.masks")]
    rows = [(f"`{role}`", MEANING[role], definition(role)) for role in ROLES]
    parts.append(table(("role", "a head with it", "definition"), *rows))
    return "\n\n".join(parts)


# --- pages of the project ---------------------------------------------------------------------------------------

#: Where links of the project's own pages go on the site; others lead to files that the site does not have.
MOVED = {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}


def of_project(name: str) -> str:
    """A page beside the README, its links as they are on the site."""

    def moved(match: re.Match[str]) -> str:
        text, target = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        there = target.removeprefix("docs/") if target.startswith("docs/") else MOVED.get(target)
        return f"[{text}]({there})" if there else text

    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", moved, (ROOT / name).read_text(encoding="utf-8"))


# --- hooks ------------------------------------------------------------------------------------------------------

PAGES: dict[str, Callable[[], str | Page]] = {
    "inspect_run.md": notebooks.inspect_run,
    "gallery.md": pictures.gallery,
    "runners.md": runners,
    "presets.md": illustrated_presets,
    "reference.md": reference,
    "run_directory.md": run_directory,
    "methods.md": methods,
    "contributing.md": lambda: of_project("CONTRIBUTING.md"),
    "security.md": lambda: of_project("SECURITY.md"),
    "changelog.md": lambda: of_project("CHANGELOG.md"),
}


def on_files(files: "Files", config: "MkDocsConfig", **_: Any) -> "Files":
    """Add the pages that are made, and their pictures."""
    from mkdocs.structure.files import File

    made = {name: write() for name, write in PAGES.items()}
    pictures.clean_up()
    for name, page in made.items():
        text, more = page if isinstance(page, Page) else (page, {})
        for path, content in {name: text + "\n", **more}.items():
            files.append(File.generated(config, path, content=content))
    return files


def on_post_build(config: "MkDocsConfig", **_: Any) -> None:
    """Refuse a page that would load anything from the network."""
    for path in Path(config.site_dir).rglob("*.html"):
        page = re.sub(r'srcdoc="[^"]*"', "", path.read_text(encoding="utf-8"))
        loaded = re.findall(
            r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""", page
        )
        if loaded:
            raise SystemExit(f"{path.name} loads {loaded[0]}: the site is to be read without a network")
