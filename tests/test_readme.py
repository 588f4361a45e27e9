"""The Python blocks of the README and of `docs/python.md` run on a tiny model in place of SmolLM2; their commands, and
those of two pages of `docs/`, are valid requests, and those of the README run."""

import json
import re
import runpy
import shlex
import warnings
from pathlib import Path

import numpy as np
import pytest
from thinned import most

import harness
from harness import study
from harness.command.arguments import parse_arguments
from harness.command.checks import checked
from harness.command.composition import Composer
from harness.config import RunSpec, parse
from harness.models import japanese
from harness.models import random as random_models

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.ja.md")
PAGES = (*READMES, "docs/commands.md", "docs/index.md")
TINY = ["stats.resamples=200"]


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


# --- Python -----------------------------------------------------------------------------------------------------


def tiny_code(page, run):
    """A page's blocks of Python, one after another, for the tiny model."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    assert blocks
    code = "\n".join(blocks)
    for pattern, tiny in (
        (r'"results/study/…"', repr(str(run))),
        (r"layer=23", "layer=2"),
        (r"L23", "L2"),
        (r"L17H4", "L2H3"),
        (r"blocks\.23\.", "blocks.2."),
        (r"\* 64", "* model.shape.d_head"),
        (r"Head\(23, 3\)", "Head(2, 3)"),
        (r'"smollm2"', '"random"'),
        (r"n=(64|8)\b", "n=2"),
    ):
        code = re.sub(pattern, lambda _, tiny=tiny: tiny, code)
    return code


def executed(page, run):
    scope: dict = {}
    exec(compile(tiny_code(page, run), page, "exec"), scope)  # what fails names its line of the blocks
    return scope


def test_the_blocks_of_the_python_page_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a block may save a figure
    scope = executed("docs/python.md", run)
    assert scope["run"].manifest["status"] == "complete"
    assert (tmp_path / "results/mine/heads.csv").is_file()


@pytest.mark.parametrize("page", READMES)
def test_the_blocks_of_a_readme_run_and_only_the_edit_of_z_is_the_ablation(page, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = executed(page, run)
    assert (tmp_path / "L2H3.svg").read_text(encoding="utf-8").startswith("<?xml")
    model, text = scope["model"], scope["text"]
    with harness.ablated(model, ["L2H3"]):
        ablated = model.bridge(text)
    sliced = model.bridge.run_with_hooks(text, fwd_hooks=[scope["wrong"]])
    assert (scope["logits"] == ablated).all()
    assert abs(sliced - ablated).max() > 0.01
    assert abs(sliced - model.bridge(text)).max() > 0.01


def test_the_block_about_texts_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {
        "model": {"name": "random", "source": "random"},
        "prompts": {"name": "ioi", "n": 2},
        "heads": ["L0"],
        "texts": {"max_new_tokens": 2},
    }
    study.run("generate", parse(RunSpec, values), study.Place(run="results/texts"), lambda *_: None)
    scope = executed("docs/what_is_lost.md", None)
    assert len(scope["texts"].table) == 4
    assert {*scope["texts"].table["set"]} == {"mover", "early"}


def test_the_way_to_other_tools_and_back_runs(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a block writes a circuit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        scope = executed("docs/beside_other_tools.md", run)
    np.testing.assert_allclose(scope["rollout"].sum(axis=-1), 1, atol=1e-6)
    assert scope["scores"].abs().max() > 0
    means = scope["effects"]["effect"].sel(metric="loss").mean("prompt")
    strongest = abs(means).stack(head_=("layer", "head")).to_series().nlargest(10).index
    circuit = json.loads((tmp_path / "circuit.json").read_text(encoding="utf-8"))
    assert {f"a{layer}.h{head}" for layer, head in strongest} == {
        name for name, node in circuit["nodes"].items() if node["in_graph"] and name[0] == "a"
    }
    assert {name for name, node in circuit["nodes"].items() if "score" not in node} == {
        "input",
        "m0",
        "m1",
        "m2",
        "logits",
    }
    whole, alone = scope["model"].bridge(scope["text"]), scope["alone"]
    assert abs(whole - alone).max() > 0.01


@pytest.mark.parametrize("tool", ["bertviz", "nnsight"])
def test_the_blocks_of_a_tool_run_where_it_is_installed(tool, run, tmp_path, monkeypatch):
    pytest.importorskip(tool)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/beside_other_tools.md").read_text(encoding="utf-8")
    (own,) = (block for block in re.findall(r"```py\n(.*?)```", text, re.S) if f"import {tool}" in block)
    code = tmp_path / "page.py"  # nnsight reads the source of a block from its file
    code.write_text(f"{tiny_code('docs/beside_other_tools.md', run)}\n{own}", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        runpy.run_path(str(code))


def test_the_first_block_of_the_readme_is_short_and_the_readme_too():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    first = text.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in first.splitlines() if line]) <= 9
    assert text[: text.index(first)].count("\n") < 40


def test_both_readmes_have_the_same_code_commands_and_links():
    english, japanese_ = ((ROOT / page).read_text(encoding="utf-8") for page in READMES)
    for what in (r"experiments\.\w+", r"```\w+", r"\]\(([^)#]+)", r"^\| .+ \| `(\w+)", r"\b\d+\.\d+\b"):
        ours, theirs = ({*re.findall(what, text, re.M)} - {*READMES} for text in (english, japanese_))
        assert ours == theirs, what


# --- commands ---------------------------------------------------------------------------------------------------


def commands(page):
    """The command lines of a page: of its shell blocks, and of the table of questions."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    rows = re.findall(r"^\| [^|`]+ \| `(\w+ [^`]+)` \|$", text, re.M)
    return [line for line in lines if line.startswith("python -m")] + [f"python -m experiments.{row}" for row in rows]


@pytest.fixture(scope="module")
def place(run, tmp_path_factory):
    """A folder with what the commands name: a run, a folder of runs, files of prompts; and a model's folder."""
    here = tmp_path_factory.mktemp("commands")
    (here / "results/ablate_heads").mkdir(parents=True)
    (here / "results/ablate_heads/one").symlink_to(run)
    (here / "DIR").symlink_to(run)
    (here / "rows.csv").write_text("text,answer\nWhen Mary went home she, to\n", encoding="utf-8")
    (here / "items.jsonl").write_text('{"context": "Mary has a", "choices": ["drink", "ball"], "answer": 0}\n')
    segments = '[{"name": "a", "text": "Mary has a drink."}, {"name": "b", "text": "John has a ball."}]'
    context = f'[{{"parts": {segments}, "question": "Mary has a", "answer": " drink"}}]'
    (here / "context.json").write_text(context, encoding="utf-8")
    model, _, _ = random_models.build("bert_japanese", 0)
    model.save_pretrained(here / "FOLDER")
    japanese.tokenizer("", "wordpiece").save_pretrained(here / "FOLDER")
    return here


def arguments_of(line):
    """A line's runner and words, with what is here in place of what it names."""
    line = line.replace("results/study/…", "DIR").replace("/models/mine", "FOLDER")
    python, flag, module, *words = shlex.split(line, comments=True)
    assert (python, flag) == ("python", "-m")
    return module.removeprefix("experiments."), words


@pytest.mark.parametrize(("page", "line"), [(page, line) for page in PAGES for line in commands(page)])
def test_a_command_is_a_valid_request(page, line, place, monkeypatch):
    monkeypatch.chdir(place)
    runner, words = arguments_of(line)
    arguments = parse_arguments(words)
    composer = Composer.of(runner, arguments)
    jobs = composer.jobs() if arguments.flags["multirun"] else [None]
    for job in jobs:
        checked(runner, composer.values(job), composer.named())


def _apart(lines):
    """A command of each runner first: the others run in the soak."""
    by_runner = {re.search(r"experiments\.(\w+)", line)[1]: line for line in reversed(lines)}
    first = [line for line in by_runner.values() if "study" not in line]
    return most([*first, *(line for line in lines if line not in first)], 7)


@pytest.mark.parametrize("line", _apart(commands("README.md") + commands("docs/index.md")))
def test_a_command_of_the_first_pages_runs_on_a_tiny_model(line, place, monkeypatch, command):
    monkeypatch.chdir(place)
    runner, words = arguments_of(line.replace("L23", "L2"))
    saved = "run=DIR" in words
    small = [] if saved else ["model=random"]
    small += [] if saved or runner in ("look", "trace_context", "compare_models") else TINY
    done, _, err = command(runner, *words, *small, store=runner not in ("look", "reproduce"))
    assert done == 0, err


#: What stands in for a command's model, by a word of the command.
STANDS_IN = {
    "model=t5": ["model=random", "model.shape=t5"],
    "model=minilm": ["model=random", "model.shape=bert"],
    "model=bert_japanese": ["model=random", "model.shape=bert_japanese"],
    "model=path": ["model=random", "model.shape=bert_japanese", "prompts=inline", "prompts.text=['犬が[MASK]を追う']"],
    "experiment=planted": [],
}
#: Words of a command that is not run to its end, and why.
NOT_RUN = {
    "store=s3://bucket/runs": "needs a bucket: tests/test_objects.py has one",
    "tasks=[arc_easy]": "its data come from the hub: tests/test_tasks_run.py has a task of its own",
}
#: Words that make a command fit the tiny model, by a word of the command.
FITS = {"experiment=lost": ["prompts.n=4", "sets={induction: [L0H1]}", "n_random_sets=2"]}


@pytest.mark.soak
@pytest.mark.parametrize("line", commands("docs/commands.md"))
def test_a_command_of_the_commands_page_runs_on_a_tiny_model(line, place, monkeypatch, command):
    monkeypatch.chdir(place)
    for own, tiny in {
        "L23": "L2",
        "L20": "L1",
        " Paris": " Mary",
        " Rome": " John",
        "language=ja": "language=ja prompts.length=64",
    }.items():
        line = line.replace(own, tiny)
    runner, words = arguments_of(line)
    if reason := next((why for word, why in NOT_RUN.items() if word in words), None):
        pytest.skip(reason)
    model = next((instead for word, instead in STANDS_IN.items() if word in words), ["model=random"])
    words = [word for word in words if not (model and word.startswith(("model=", "model.path=")))]
    saved = runner in ("again", "reproduce", "collect", "list", "benchmark", "look") or "resume=DIR" in words
    small = [] if saved else [*model, *([] if runner in ("trace_context", "bake") else TINY)]
    small += [word for key, fitting in FITS.items() if key in words for word in fitting]
    if "what=look" in words:
        small = model
    done, _, err = command(runner, *words, *small, store=(not saved and runner != "bake") or runner == "again")
    assert done == (2 if "resume=DIR" in words else 0), err
    assert "resume=DIR" not in words or "is complete" in err


def test_the_python_of_the_first_page_opens_the_run_of_its_command(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/mine").symlink_to(run)
    assert executed("docs/index.md", run)["run"].manifest["status"] == "complete"


def test_the_readme_answers_eleven_questions():
    assert len(commands("README.md")) == 12
