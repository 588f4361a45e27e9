"""The guides: short pages in docs/, whose commands do what the page says."""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = ("read_the_report", "ablation_study", "add_a_model", "cluster", "what_is_lost", "tasks", "why_this_head")
#: Runners that take no model, so that none is put in place of the embedded one.
WITHOUT_MODEL = ("render", "reproduce", "list")
#: What stands in for a preset's own heads, which a tiny model does not have, and makes it small.
SMALL = {
    "prompts=prose": ["prompts.length=64"],
    "experiment=lost": ["prompts.n=4", "sets={induction: [L0H1]}", "n_random_sets=2"],
}
#: What a command needs of the machine, by a word of the command.
NEEDS = {"execute=ray": "ray", "experiments.evaluate": "lm_eval"}
#: Words of commands that are not run: their data come from the hub.
FROM_HUB = ("tasks=[arc_easy]",)


def commands(guide):
    """The command lines of a page's shell blocks, in order, with the exit code that each is said to end with."""
    text = (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines() if line]
    return [(line.partition("  # exit ")[0], int(line.partition("  # exit ")[2] or 0)) for line in lines]


def runnable(guide):
    """The commands of a page that can be run here."""
    missing = [word for word, package in NEEDS.items() if find_spec(package) is None]
    return [(line, code) for line, code in commands(guide) if not any(word in line for word in (*missing, *FROM_HUB))]


def write_files(guide, folder):
    """Write the files that a page shows, each beneath its name."""
    text = (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    for name, content in re.findall(r"`([\w/]+\.\w+)`[^`\n]*:\n\n```(?:json|yaml)\n(.*?)```", text, re.S):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")


def parsed(line):
    """A line's environment, runner and arguments."""
    words = shlex.split(line)
    given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    python, flag, module, *arguments = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    assert (python, flag) == ("python", "-m")
    return given, module.removeprefix("experiments."), arguments


@pytest.mark.parametrize(
    "guide", [pytest.param(guide, marks=[] if guide == "read_the_report" else pytest.mark.soak) for guide in GUIDES]
)
def test_the_commands_of_a_guide_run_on_a_tiny_model(guide, tmp_path, monkeypatch, command, request):
    if guide == "cluster":
        request.getfixturevalue("only_ray")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # what Ray's workers import
    write_files(guide, tmp_path)
    for line, code in runnable(guide):
        line = re.sub(r"L\d\dH(\d)", lambda head: f"L2H{int(head[1]) % 4}", line)  # it has three layers of four heads
        line = re.sub(r"L\d\d\b", "L2", line)
        line = line.replace("prompts.chat=true", "")  # tests/test_chat.py has a model with a template
        given, runner, arguments = parsed(line)
        named = any(word.startswith(("model=", "resume=")) for word in arguments)
        tiny = [] if runner in WITHOUT_MODEL or named else ["model=random"]
        tiny += ["stats.resamples=300"] if tiny and runner != "bake" else []
        tiny += [word for key, words in SMALL.items() if key in arguments for word in words]
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            done, _, err = command(runner, *arguments, *tiny, store=False)
        assert done == code, f"{line}\n{err}"


@pytest.mark.soak
@pytest.mark.parametrize("guide", GUIDES)
def test_the_commands_of_a_guide_run_as_they_stand(guide, tmp_path):
    write_files(guide, tmp_path)
    for line, code in runnable(guide):
        given, runner, arguments = parsed(line)
        done = subprocess.run(
            [sys.executable, "-m", f"experiments.{runner}", *arguments],
            cwd=tmp_path,
            env={**os.environ, **given, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_is_short_and_has_commands(guide):
    text = (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    assert len(commands(guide)) >= 3
