"""The site: its navigation has every page, and the pages that are made when it is built say what the code says. `make
docs` builds it, strictly; here nothing of MkDocs is needed."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

import harness
from harness.attribution.methods import METHODS
from harness.command.help import help_text
from harness.command.runners import RUNNERS
from harness.config import conf_dir
from harness.results.schema import TABLES, VARIABLES

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
    text = pages.presets()
    paths = [*(conf_dir() / "experiment").glob("*.yaml")]
    assert re.findall("^## (.+)$", text, re.M) == sorted(path.stem for path in paths)
    assert len(re.findall(r"^\*Cost: .+\.\*$", text, re.M)) == len(paths)
    assert "What is the attention on the first token worth" in text.partition("## sinks")[2].partition("## ")[0]
    assert "question: sinks" in text


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
