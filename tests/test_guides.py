"""The guides: five short pages in docs/, whose commands do what the page says."""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = ("read_the_report", "ablation_study", "add_a_model", "cluster", "what_is_lost")
#: Runners that take no model, so that none is put in place of the embedded one.
WITHOUT_MODEL = ("render", "reproduce", "list")


def commands(guide):
    """The command lines of a page's shell blocks, in order, with the exit code that each is said to end with."""
    text = (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines() if line]
    return [(line.partition("  # exit ")[0], int(line.partition("  # exit ")[2] or 0)) for line in lines]


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
    for line, code in commands(guide):
        line = re.sub(r"L\d\dH(\d)", lambda head: f"L2H{int(head[1]) % 4}", line)  # it has three layers of four heads
        line = line.replace("prompts.chat=true", "")  # tests/test_chat.py has a model with a template
        given, runner, arguments = parsed(line)
        if "execute=ray" in arguments and find_spec("ray") is None:
            continue
        named = any(word.startswith(("model=", "resume=")) for word in arguments)
        tiny = [] if runner in WITHOUT_MODEL or named else ["model=random", "stats.resamples=300"]
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            done, _, err = command(runner, *arguments, *tiny, store=False)
        assert done == code, f"{line}\n{err}"


@pytest.mark.soak
@pytest.mark.parametrize("guide", GUIDES)
def test_the_commands_of_a_guide_run_as_they_stand(guide, tmp_path):
    for line, code in commands(guide):
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
