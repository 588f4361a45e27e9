"""The contributors' guide: its map of rooms is that of today, and its diffs are right: they are applied to a copy, one
after another, and what they add is used there."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_architecture import ORDER

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DIFFS = re.findall(r"\*\*([A-Z][a-z ]+)\*\*: [^*]*?```diff\n(.*?)```", GUIDE, re.S)
KINDS = ["Metric", "Ablation", "Prompt set", "Attribution method", "Role", "Question", "View"]

#: Uses all that the diffs add, and prints what it gets.
USE = """
import harness
model = harness.load_model("random")
prompts = harness.load_prompts("counting", model, n=3)
effects = harness.ablate_heads(model, prompts, ablation="negate", metrics=["margin"], heads=["L0H1"])
assert effects.data.clean.max() <= 0 and abs(effects.data.effect.sel(layer=0, head=1)).max() > 0
scores = harness.compare_attributions(model, prompts, methods=["attention_max"])
assert {*scores.data.attribution_method.values} >= {"attention_max"}
run = effects.save("saved")
print(harness.__file__, prompts.text[1])
"""


def first_line(room):
    """The first sentence of a room's docstring."""
    path = ROOT / "harness" / room / "__init__.py"
    path = path if path.is_file() else ROOT / "harness" / f"{room}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("``", "`").split(". ")[0].rstrip(".")


def test_the_map_has_every_room_in_order_with_its_first_line():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", GUIDE, re.M)
    assert rows == [(room, first_line(room)) for room in ORDER]


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the project with all diffs."""
    copy = tmp_path_factory.mktemp("changed")
    for name in ("harness", "conf", "experiments"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for kind, diff in DIFFS:
        done = subprocess.run(["git", "apply", "-p1", "-"], cwd=copy, input=diff, text=True, capture_output=True)
        assert done.returncode == 0, f"{kind}: {done.stderr}"
    return copy


def test_the_diffs_apply_and_are_of_the_house_style(changed):
    assert [kind for kind, _ in DIFFS] == KINDS
    config = ["--no-cache", "--config", str(ROOT / "pyproject.toml")]
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, *config, "harness"]
        done = subprocess.run(command, cwd=changed, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def in_copy(copy, *words):
    done = subprocess.run([sys.executable, *words], cwd=copy, env=environment(copy), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(copy):
    return {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}


@pytest.mark.soak
def test_what_the_diffs_add_is_there(changed):
    assert in_copy(changed, "-c", USE).split(maxsplit=1) == [f"{changed}/harness/__init__.py", "1 2 3 4 5 6\n"]
    assert (changed / "saved/heads.csv").is_file()


@pytest.mark.soak
def test_a_question_a_view_and_a_role_of_the_diffs_are_in_a_run(changed):
    words = ("model=random", "stats.resamples=99", "prompts.n=3")
    study = in_copy(changed, "-m", "experiments.study", "experiment=reach", *words).strip()
    page = (changed / study / "report.html").read_text(encoding="utf-8")
    assert re.search(r"On average heads look [\d.]+ .* tokens away; L\dH\d farthest", page)
    assert (changed / study / "figures/first_token.svg").is_file()
    drawn = ("roles.n=2", "roles.length=6", "roles.draws=40")
    profile = in_copy(changed, "-m", "experiments.profile_heads", *words, *drawn).strip()
    assert "looks two tokens back" in (changed / profile / "report.html").read_text(encoding="utf-8")
