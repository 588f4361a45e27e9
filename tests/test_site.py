"""The site: its navigation has every page, and the pages that are made when it is built say what the code says. `make
docs` builds it, strictly; here nothing of MkDocs is needed."""

import ast
import importlib.util
import inspect
import re
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

import harness
from harness.attribution.methods import METHODS
from harness.command.arguments import parse_arguments
from harness.command.checks import checked
from harness.command.composition import Composer
from harness.command.help import help_text
from harness.command.runners import RUNNERS
from harness.config import RequestError, conf_dir
from harness.results.schema import TABLES, VARIABLES
from harness.views import figures
from harness.views.look import Look
from harness.views.notebook import View

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pages():
    """The module that writes the pages."""
    path, before = ROOT / "docs/site/pages.py", list(sys.path)
    spec = importlib.util.spec_from_file_location("site_pages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def settings():
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def test_the_navigation_has_every_page_once(pages):
    nav = [file for part in settings()["nav"] for value in part.values() for file in files_of(value)]
    assert sorted(nav) == sorted([*(path.name for path in (ROOT / "docs").glob("*.md")), *pages.PAGES])


def files_of(entry):
    return [entry] if isinstance(entry, str) else [file for part in entry for file in part.values()]


def test_the_site_asks_the_network_for_nothing(pages, tmp_path):
    values = settings()
    assert values["theme"]["font"] is False
    assert values["use_directory_urls"] is False
    assert all((ROOT / "docs" / file).is_file() for file in (*values["extra"]["polyfills"], *values["extra_css"]))

    class Config:
        site_dir = str(tmp_path)

    page = tmp_path / "page.html"
    page.write_text('<a href="https://x.example/">x</a><iframe srcdoc="<script src=//y.example>"></iframe>')
    pages.on_post_build(Config())
    for loaded in (
        '<script src="https://x.example/a.js">',
        "<img alt='' src=//x.example/a>",
        '<link href="//x.example">',
    ):
        page.write_text(loaded)
        with pytest.raises(SystemExit, match=r"page\.html loads (https:)?//x\.example"):
            pages.on_post_build(Config())


def test_runners_and_keys_are_the_text_of_help(pages):
    text = pages.runners()
    for name in RUNNERS:
        assert help_text(name, f"attention-harness {name}") in text
    folders = {path.name for path in conf_dir().iterdir() if path.is_dir()} - {"hydra", "experiment"}
    assert {*pages.groups()} == folders
    for group, runner in pages.groups().items():
        assert help_text(runner, "", (group,)) in text


def test_presets_have_their_question_cost_and_settings(pages):
    text = pages.presets({})
    paths = [*(conf_dir() / "experiment").glob("*.yaml")]
    assert re.findall("^## (.+)$", text, re.M) == sorted(path.stem for path in paths)
    assert len(re.findall(r"^\*Cost: .+\.\*$", text, re.M)) == len(paths)
    assert "What is the attention on the first token worth" in text.partition("## sinks")[2].partition("## ")[0]
    assert "question: sinks" in text


def test_the_gallery_has_a_line_for_each_view_and_each_section_of_figures(pages):
    entries = pages.pictures.ENTRIES
    assert len({entry.name for entry in entries}) == len(entries)
    lines = "\n".join(entry.line for entry in entries)
    methods = {name: each for name, each in vars(Look).items() if inspect.isfunction(each) and name[0] != "_"}
    views = {name for name, each in methods.items() if inspect.signature(each).return_annotation is View}
    assert views == {*re.findall(r"seen\.(\w+)\(", lines)}
    tree = ast.parse(inspect.getsource(figures))
    drawn = {
        value.elts[1].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Yield)
        for value in [node.value]
        if isinstance(value.elts[1], ast.Constant)
    }
    drawn |= {part for _, part, _, _ in figures._OTHERS}
    shown = {"map": "map", "strongest": "report", "layers": "layers", "changed": "changes", "roles": "roles"}
    shown |= {"rollout": "rollout", "patterns": "head", "methods": "methods", "parts": "segments"}
    shown |= {"activations": "activations"}
    shown |= dict.fromkeys(("maps", "positions", "sets", "pruning", "pairs"))
    assert {*shown} == drawn
    assert {name or part for part, name in shown.items()} <= {entry.name for entry in entries}


def test_the_lines_of_the_gallery_can_be_typed(pages):
    for entry in pages.pictures.ENTRIES:
        if not entry.figure:
            compile(entry.line, entry.name, "eval")
    commands = {entry.line for entry in pages.pictures.ENTRIES if entry.figure} | {
        line for line, _ in pages.pictures.PRESETS.values()
    }
    for line in "\n".join(commands).splitlines():
        runner, *words = shlex.split(line)
        arguments = parse_arguments(words)
        composer = Composer.of(runner, arguments)
        for job in composer.jobs() if arguments.flags["multirun"] else [None]:
            values = composer.values(job)
            if runner == "collect":  # its runs are there when the line before it has run
                continue
            with pytest.raises(RequestError, match="context.json") if "context.json" in line else nullcontext():
                checked(runner, values, composer.named())


@pytest.mark.soak
def test_the_gallery_is_made(pages):
    page = pages.pictures.gallery()
    shown = {*re.findall(r"\((pictures/[\w.]+)\)", page.text)}
    assert shown <= {*page.files}
    assert all(len(content) > 1000 for content in page.files.values())
    assert page.text.count("### ") == len(pages.pictures.ENTRIES)
    pages.pictures.clean_up()


def test_a_preset_that_was_run_stands_with_its_line_and_its_answer(pages):
    made = {"layers": pages.Made(b"<svg/>", answer="In layer 5.")}
    part = pages.presets(made).partition("## layers")[2].partition("## ")[0]
    assert "(pictures/preset_layers.svg)" in part
    assert "`attention-harness study experiment=layers`" in part
    assert "In layer 5." in part


def test_the_run_directory_has_every_variable_and_column(pages):
    text = pages.run_directory()
    for name, (dims, _) in VARIABLES.items():
        assert f"| `{name}` | {', '.join(dims.split())} |" in text
    for name, table in TABLES.items():
        assert f"| `{name}.csv` | {', '.join(f'`{column}`' for column in table.columns)} |" in text


def test_the_reference_has_every_public_name_where_it_is_defined(pages):
    named = [line.removeprefix("::: ") for line in pages.reference().splitlines() if line.startswith("::: ")]
    assert len(named) == len({*named})
    for name in (*named, *(f"harness.{home}.{name}" for name, home in harness._HOME.items())):
        module, _, last = name.rpartition(".")
        value = getattr(importlib.import_module(module), last)
        assert value.__doc__, f"{name} has no docstring"
    assert {*harness._HOME} <= {name.rpartition(".")[2] for name in named}


def test_methods_have_their_papers(pages):
    text = pages.methods()
    assert {*METHODS} == {*re.findall(r"^\| `(\w+)` \|", text.partition("## Causes")[0], re.M)}
    for paper in ("Quantifying Attention Flow in Transformers", "Kobayashi", "arXiv:1311.2901", "arXiv:2209.11895"):
        assert paper in text, paper


def test_links_of_the_projects_pages_are_those_of_the_site(pages):
    guide = pages.of_project("CONTRIBUTING.md")
    assert "[measurements](measurements.md)" in guide
    assert "](docs/" not in guide
    known = {path.name for path in (ROOT / "docs").iterdir()} | {*pages.PAGES}
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", pages.of_project(name)):
            assert re.match(r"https?:", target) or target in known, f"{name} links to {target}"
