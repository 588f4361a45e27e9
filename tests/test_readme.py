"""The README's Python runs on the first prompts that its default run reads, with a tiny model in place of SmolLM2."""

import re
from pathlib import Path

import pytest

from harness import study
from harness.config import RunSpec, parse

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The default study, of a model that has a head L2H3."""
    values = {
        "model": {"name": "random", "source": "random"},
        "prompts": {"name": "ioi", "n": 6},
        "attribution": {"methods": ["gradient_input"]},
        "stats": {"resamples": 200},
        "roles": {"n": 2, "length": 6, "draws": 40},
    }
    return study.run(
        "study", parse(RunSpec, values), study.Place(str(tmp_path_factory.mktemp("readme"))), lambda *_: None
    )


@pytest.mark.parametrize("readme", ["README.md", "README.ja.md"])
def test_the_blocks_of_python_run(readme, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a block may save a figure
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text(encoding="utf-8"), re.S)
    assert blocks
    code = "\n".join(blocks)
    for pattern, tiny in (
        (r'"results/study/…"', repr(str(run))),
        (r"layer=23", "layer=2"),
        (r"L23H3", "L2H3"),
        (r"Head\(23, 3\)", "Head(2, 3)"),
        (r'"smollm2"', '"random"'),
        (r"n=64", "n=2"),
    ):
        code = re.sub(pattern, lambda _, tiny=tiny: tiny, code)
    scope: dict = {}
    exec(compile(code, readme, "exec"), scope)  # what fails names its line of the blocks
    assert scope["run"].manifest["status"] == "complete"
