"""The page's scripts as code: node's own test runner on what is pure (``tests/js``), and ESLint on the whole.

Skipped where node or npm is missing, unless HARNESS_REQUIRE_BROWSER=1.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from page_linter import FOLDER, linter

from harness.views.page import _SCRIPTS, asset, code_of

ASSETS = Path(__file__).parents[1] / "harness" / "views" / "assets"
#: Scripts that stand alone: of a notebook's page, and of a view that waits for its script.
ALONE = ("share", "ask")


def unavailable(what):
    (pytest.fail if os.environ.get("HARNESS_REQUIRE_BROWSER") == "1" else pytest.skip)(what)


@pytest.fixture(scope="module")
def node():
    return shutil.which("node") or unavailable("no node: install nodejs")


def test_what_is_pure_passes_the_tests_of_node(node):
    files = sorted(map(str, FOLDER.glob("*.test.mjs")))
    done = subprocess.run([node, "--test", "--test-reporter=tap", *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = int(re.search(r"^# pass (\d+)$", done.stdout, re.M)[1])
    assert passed > 35, done.stdout[-500:]


@pytest.fixture(scope="module")
def lint(node, tmp_path_factory):
    """The linter's complaints about a script."""
    modules = linter() or unavailable("ESLint could not be fetched: install npm and connect it to its registry once")
    folder = tmp_path_factory.mktemp("lint")
    shutil.copy(FOLDER / "eslint.config.mjs", folder)
    (folder / "node_modules").symlink_to(modules)

    def complaints(code):
        (folder / "page.js").write_text(code, encoding="utf-8")
        command = [node, str(modules / "eslint" / "bin" / "eslint.js"), "--max-warnings=0", "page.js"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout.strip()

    return complaints


def test_the_pages_script_passes_the_linter(lint):
    assert lint(code_of()) == ""


@pytest.mark.parametrize("name", ALONE)
def test_scripts_of_notebooks_pass_the_linter(lint, name):
    assert lint(asset(f"{name}.js")) == ""


def test_the_linter_notices_what_is_undefined_unused_or_evaluated(lint):
    noticed = lint(code_of() + "\n(() => { const unused = 1; missing(); eval('1'); })();")
    for rule in ("no-unused-vars", "no-undef", "no-eval"):
        assert rule in noticed


def test_every_script_is_in_the_page_or_stands_alone():
    assert {path.stem for path in ASSETS.glob("*.js")} == {*_SCRIPTS, *ALONE}
