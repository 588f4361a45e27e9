"""The pages in Markdown: every local link and anchor resolves, and version and date are one everywhere."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

import harness

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def prose(page):
    """A page's text without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page):
    """Local links of a page: file (empty: the page itself) and anchor."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))
    local = [unquote(target) for target in targets if not re.match(r"[a-z]+:", target)]
    return [tuple(target.partition("#")[::2]) for target in local]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_local_link_and_anchor_of_a_page_resolves(page):
    for file, anchor in links(page):
        target = page.parent / file if file else page
        assert target.exists(), f"{page.name} links to {file}, which is not there"
        assert ROOT in target.resolve().parents, f"{page.name} links out of the project: {file}"
        if anchor:
            assert anchor in anchors(target), (
                f"{page.name} links to {file}#{anchor}; there are {sorted(anchors(target))}"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_has_one_title_and_whole_blocks(page):
    assert len(re.findall(r"^# ", prose(page), re.M)) == 1
    assert page.read_text(encoding="utf-8").count("```") % 2 == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_makes_is_a_target_and_the_tests_that_it_names_are_there(page):
    """They build environments, or run all that is here: that they are there is all that a test can look at."""
    text = page.read_text(encoding="utf-8")
    targets = {*re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)}
    named = {*re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)}
    assert named <= targets, f"{page.name} names {named - targets}"
    tests = {*re.findall(r"\btests/\w+\.py", text)}
    assert not {test for test in tests if not (ROOT / test).is_file()}


def test_every_page_is_reached_from_the_readme():
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop().resolve()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            left += [page.parent / file for file, _ in links(page) if file]
    assert {*PAGES} - reached <= {ROOT / "LOG.md"}


def test_the_version_is_one_in_package_citation_and_changelog():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == harness.__version__
    releases = re.findall(r"^## \[(.+?)\](?: - (.+))?$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert releases[0] == ("Unreleased", "")
    assert releases[1] == (citation["version"], citation["date-released"])


def test_the_changelog_has_the_headings_of_its_form():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    order = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    for version in re.split(r"^## ", text, flags=re.M)[1:]:
        headings = re.findall(r"^### (.+)$", version, re.M)
        assert headings == [heading for heading in order if heading in headings], version.splitlines()[0]
        assert headings, version.splitlines()[0]
