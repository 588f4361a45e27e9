"""The commands as a person types them: exit codes, one-line complaints, and what is left behind."""

import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from drawing import drawn
from thinned import most

import harness
from harness.command.runners import RUNNERS
from harness.results.manifest import read_manifest

ROOT = Path(__file__).parents[1]
TINY = ("model=random", "prompts.n=3", "stats.resamples=300")
FEW_ROLES = ("roles.n=2", "roles.length=6", "roles.draws=40")


def test_study_ends_with_the_path_of_a_complete_run(command):
    with drawn(figures=False):
        code, out, _ = command("study", *TINY, *FEW_ROLES)
    assert code == 0
    run = harness.open_run(out.splitlines()[-1])
    assert run.manifest["runner"] == "study"
    assert (run.path / "report.html").stat().st_size > 1000
    assert {"pattern", "effect", "rollout"} <= set(run.data)


def test_cache_attention_keeps_patterns_only(command):
    code, out, _ = command("cache_attention", *TINY)
    run = harness.open_run(out.splitlines()[-1])
    assert code == 0
    assert "pattern" in run.data
    assert "effect" not in run.data
    assert run.heads.empty


def test_ablate_heads_measures_what_is_asked(command):
    code, out, _ = command("ablate_heads", *TINY, "heads=[L0H1,L2]", "metrics=[kl,accuracy]")
    run = harness.open_run(out.splitlines()[-1])
    assert code == 0
    assert "pattern" not in run.data
    assert run.data.metric.values.tolist() == ["kl", "accuracy"]
    assert len(run.heads) == 2 * 5


def test_named_sets_are_ablated_together(command):
    code, out, _ = command("ablate_heads", *TINY, "sweep.kind=set", "sets={a: [L0H1, L1], b: [L2H0]}")
    assert code == 0
    assert harness.open_run(out.splitlines()[-1]).data.set_effect.set.values.tolist() == ["a", "b"]


def test_a_preset_and_a_run_directory_of_ones_own(command, tmp_path):
    code, out, _ = command(
        "study", *TINY, *FEW_ROLES, "experiment=induction", f"run={tmp_path / 'mine'}", "prompts.length=5"
    )
    assert (code, out.splitlines()[-1]) == (0, str(tmp_path / "mine"))
    assert harness.open_run(tmp_path / "mine").spec["prompts"]["name"] == "induction"


def test_render_draws_again_without_a_model(command):
    _, out, _ = command("ablate_heads", *TINY)
    run = Path(out.splitlines()[-1])
    assert not (run / "report.html").exists()
    code, out, _ = command("render", f"run={run}", "show.heads=[L1H1]", store=False)
    assert (code, out.strip()) == (0, str(run))
    assert (run / "report.html").is_file()


BAD = [
    (("model=smolm2",), "model=smolm2: did you mean 'smollm2'?"),
    (("prompts=oii",), "prompts=oii: did you mean 'ioi'?"),
    (("ablation=zeros",), "ablation=zeros: did you mean 'zero'?"),
    (("experiment=inductoin",), "experiment=inductoin: did you mean 'induction'?"),
    (("metrics=[los]",), "metrics=los: did you mean 'loss'?"),
    (("metics=[loss]",), "metics=['loss']: there is no such key; did you mean 'metrics'?"),
    (("prompts.m=3",), "prompts.m=3: there is no such key"),
    (("prompts.n=0",), "prompts.n=0: input should be greater than or equal to 1"),
    (("prompts.n=x",), "prompts.n=x: input should be a valid integer"),
    (("prompts.n=[",), "prompts.n=[: write key=value"),
    (("prompts.n",), "prompts.n=???: write key=value"),
    (("model=random", "model.shape=lama"), "model.shape=lama: did you mean 'llama'?"),
    (("model=random", "model.dtype=int8"), "model.dtype=int8: known: float32"),
    (("model=random", "model.device=cuda:7"), "model.device=cuda:7: this machine has cpu"),
    (("model=random", "heads=[L3H0]"), "L3H0 is outside random: it has layers 0-2"),
    (("model=random", "heads=[5.1]"), "a head is written L5H1"),
    (("model=random", "heads=[]"), "heads=[]: name at least one head"),
    (("model=random", "sweep.kind=set"), "sets={}: name at least one set"),
    (("model=random", "sweep.kind=set", "sets={a: [L9H9]}"), "L9H9 is outside random"),
    (("model=random", "prompts=inline"), "prompts.text=???: set it"),
    (("model=random", "prompts=inline", "prompts.text=['']"), "prompts.text='': a prompt must have at least one token"),
    (("model=random", "prompts=inline", "prompts.text=[a]", "metrics=[logit_diff]"), "it needs prompts with answer"),
    (("model=random", "prompts.names=[Mary,John,Bartholomew]"), "prompts.names=' Bartholomew': this must be one token"),
    (("model=random", "prompts.names=[Mary,John]"), "give at least three different names"),
    (("model=random", "prompts=induction", "prompts.length=500"), "this makes 1001 tokens, random takes 256"),
    (("model=hub",), "model.id=???: set it"),
    (("model=path", "model.path=/no/such"), "model.path=/no/such: there is no such folder"),
    (("model=gguf", "model.path=/no/such"), "model.path=/no/such: there is no such file"),
    (("resume=/no/such",), "resume=/no/such: there is no"),
    (("heads=[null]",), "heads.0=None: input should be a valid string"),
    (("heads=[[L0]]",), "input should be a valid string"),
    (("metrics=[null]",), "metrics.0=None: input should be a valid string"),
    (("prompts=inline", "prompts.text=[null]"), "prompts.text.0=None: input should be a valid string"),
    (("sweep.kind=set", "sets={1: [L0]}"), "input should be a valid string"),
    (("sets={a: [L0]}",), "sweep.kind=single: it does not read sets, so set sweep.kind=set"),
    (("sweep=3",), "sweep=3: this is a section: write sweep.KEY=value; known: kind, order"),
    (("stats=null",), "stats=None: this is a section: write stats.KEY=value; known: confidence"),
    (("run=true",), "run=True: input should be a valid string"),
    (("resume=[a]",), "resume=['a']: input should be a valid string"),
    (("resume=123",), "resume=123: there is no"),
    (("run=a", "resume=b"), "run=a: resume goes on in its own directory"),
    (("model=path", "model.path=123"), "model.path=123: there is no such folder"),
    (("model=null",), "model=null: known: bert"),
    (("ablation=null",), "ablation=null: known: mean"),
    (("seed=-1",), "seed=-1: input should be greater than or equal to 0"),
    (("prompts.seed=-1",), "prompts.seed=-1: input should be greater"),
    (("stats.seed=-1",), "stats.seed=-1: input should be greater"),
    (("model=random", "model.seed=-1"), "model.seed=-1: input should be greater"),
    (("--cfg", "job", "+model=random"), "model"),
    (("--config-name", "nope"), "nope"),
    (("--cfg", "job", "model=nope"), "model=nope: known: bert"),
    (("stats.level=2",), "stats.level=2: input should be less than 1"),
]


@pytest.mark.parametrize(("arguments", "says"), most(BAD, 12), ids=[" ".join(arguments) for arguments, _ in BAD])
def test_a_wrong_request_is_one_line_and_code_2_and_leaves_nothing(command, tmp_path, arguments, says):
    code, out, err = command("study", *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


# --- configs of the user's own ----------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """A folder for ``--config-dir``: a model that is a folder of its own, one that inherits, prompts and a preset; and
    a second one, for ``hydra.searchpath``."""
    files = {
        "own/model/mine.yaml": f"name: mine\nsource: path\npath: {tmp_path / 'model'}\n",
        "own/model/heir.yaml": "defaults: [random]\nshape: gpt2\n",
        "own/prompts/few.yaml": "name: ioi\nn: 2\n",
        "own/experiment/short.yaml": "# @package _global_\nstats: {resamples: 100}\n",
        "own/main.yaml": "defaults: [ablate_heads, _self_]\nheads: [L1H1]\n",
        "more/ablation/own_mean.yaml": "name: mean\n",
        "model/config.json": '{"num_hidden_layers": 3, "num_attention_heads": 4}',
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path / "own"


@pytest.fixture
def asked(monkeypatch):
    """What each run would be: its spec, in place of the run itself."""
    specs = []
    monkeypatch.setattr("harness.study.run", lambda runner, spec, *_: specs.append(spec))
    return specs


OWN = [
    (("--config-dir", "{own}", "model=mien"), "model=mien: did you mean 'mine'? known: bert, "),
    (("--config-dir", "{own}", "prompts=fwe"), "prompts=fwe: did you mean 'few'?"),
    (("--config-dir={own}", "experiment=shrot"), "experiment=shrot: did you mean 'short'?"),
    (("-cd", "{own}", "model=mine", "heads=[L3H0]"), "heads=L3H0: L3H0 is outside mine: it has layers 0-2"),
    (("--config-dir", "{own}", "model=mine", "sotre=x"), "sotre=x: there is no such key; did you mean 'store'?"),
    (("--config-dir", "{own}", "-m", "model=mien"), "job #0 (model=mien "),
    (("--config-dir", "{own}/none", "model=mine"), "--config-dir={own}/none: there is no such folder (looked for"),
    (("hydra.searchpath=[file://{own}]", "model=mien"), "model=mien: did you mean 'mine'?"),
    (("hydra.searchpath=[{own}/none]",), "hydra.searchpath={own}/none: there is no such folder (looked for {own}/none"),
    (("hydra.searchpath={own}",), "hydra.searchpath={own}: give a list of folders"),
    (("hydra.searchpath=[{own}/../more]", "ablation=own_maen"), "ablation=own_maen: did you mean 'own_mean'?"),
    (("--config-dir", "{own}", "compare.model.name=mien"), "compare.model.name=mien: did you mean 'mine'?"),
    (("--config-dir", "{own}", "compare.model=mien"), "compare.model.name=mien: did you mean 'mine'?"),
    (("--config-dir", "{own}", "--config-name", "main", "model=mien"), "model=mien: did you mean 'mine'?"),
]


@pytest.mark.parametrize(("arguments", "says"), OWN, ids=[" ".join(arguments) for arguments, _ in OWN])
def test_launch_knows_the_groups_of_own_config_folders(command, own, arguments, says):
    code, out, err = command("ablate_heads", *(each.replace("{own}", str(own)) for each in arguments))
    assert (code, out) == (2, ""), err
    assert err.startswith(says.replace("{own}", str(own)))
    assert len(err.splitlines()) == 1


def test_launch_composes_own_groups_from_config_dir_and_searchpath(command, own, asked):
    given = ("--config-dir", str(own), f"hydra.searchpath=[file://{own.parent / 'more'}]")
    chosen = ("model=heir", "prompts=few", "experiment=short", "ablation=own_mean", "compare.model.name=mine")
    code, _, err = command("compare_models", *given, *chosen)
    assert code == 0, err
    (spec,) = asked
    assert (spec.model.name, spec.model.shape, spec.prompts.n) == ("random", "gpt2", 2)
    assert (spec.stats.resamples, spec.ablation.name) == (100, "mean")
    assert (spec.compare.model.source, spec.compare.model.path) == ("path", str(own.parent / "model"))


def test_launch_runs_a_primary_config_of_the_users_own(command, own, asked):
    code, _, err = command("ablate_heads", "--config-dir", str(own), "--config-name", "main", "model=heir")
    assert code == 0, err
    assert (asked[0].heads, asked[0].model.shape) == (("L1H1",), "gpt2")


def test_launch_inherits_in_the_model_to_compare_with(command, own, asked):
    given = ("--config-dir", str(own), "model=random", "compare.model.name=heir", "compare.model.dtype=bfloat16")
    code, _, err = command("compare_models", *given)
    assert code == 0, err
    assert (asked[0].compare.model.shape, asked[0].compare.model.dtype) == ("gpt2", "bfloat16")


def test_a_broken_config_of_the_users_own_is_one_line(command, own):
    (own / "model" / "mine.yaml").write_text("name: [", encoding="utf-8")
    (own / "main.yaml").write_text("a: [", encoding="utf-8")
    for given, says in (("model=mine", "model=mine: this cannot stand there ("), ("--config-name=main", "--config-na")):
        code, _, err = command("ablate_heads", "--config-dir", str(own), given)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert err.startswith(says)


# --- a text where the name of a prompt set belongs --------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["The capital of France is", "When Mary and John went, Mary said", "It's a (half", 'costs $5 `a` \\ "b"', "東京は"],
)
def test_prompts_given_as_a_text_point_to_inline_which_then_reads_it(command, asked, text):
    code, out, err = command("study", f"prompts={text}")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    words = shlex.split(err[err.index("prompts=inline ") :])  # as a shell reads what the line says to write
    assert command("study", *words)[0] == 0
    assert asked[0].prompts.text == (text,)
    if text.startswith("The"):
        assert err.endswith("prompts=inline \"prompts.text=['The capital of France is']\"\n")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("prompts=rows.csv", "for this file: prompts=file prompts.path=rows.csv"),
        ("model=gpt2-medium", "for a repository of the hub: model=hub model.id=gpt2-medium"),
        ("model=org/model", "for a repository of the hub: model=hub model.id=org/model"),
        ("model=tests", "for this folder: model=path model.path=tests"),
        ("model=a.gguf", "for this file: model=gguf model.path=a.gguf"),
    ],
)
def test_a_file_or_repository_given_as_a_group_points_to_its_key(command, monkeypatch, given, says):
    monkeypatch.chdir(ROOT)
    code, _, err = command("study", given)
    assert code == 2
    assert err.endswith(f"; {says}\n")


def test_a_prompt_that_is_too_long_says_how_long_and_is_never_cut(command):
    code, _, err = command("study", "model=random", "prompts=inline", f"prompts.text=['{'store ' * 300}']")
    assert code == 2
    assert "tokens, random takes 256" in err


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "there is no such directory"),
        (lambda p: p.mkdir(), "this directory holds no run"),
        (lambda p: (p.mkdir(), (p / "manifest.json").write_text("[]")), "its manifest.json is damaged"),
    ],
)
def test_render_of_what_is_no_run(command, tmp_path, make, says):
    make(tmp_path / "run")
    code, out, err = command("render", f"run={tmp_path / 'run'}", store=False)
    assert (code, out) == (2, "")
    assert says in err


def test_a_store_that_is_none(command):
    code, _, err = command("study", *TINY, "store=null", store=False)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "store=None: input should be a valid string" in err


def test_a_number_is_the_name_of_a_run(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("ablate_heads", *TINY, "heads=L0H1", "run=123")
    assert (code, out.splitlines()[-1]) == (0, "123")
    code, out, _ = command("render", "run=123", store=False)
    assert (code, out.splitlines()[-1]) == (0, "123")


def test_a_store_that_may_not_be_written_to(command, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = command("study", *TINY, f"store={tmp_path / 'file'}", store=False)
    assert code == 2
    assert "store=" in err
    assert len(err.splitlines()) == 1


def test_a_full_disk(command, tmp_path, monkeypatch):
    import errno

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = command("study", *TINY)
    assert code == 2
    assert "the disk is full" in err.splitlines()[-1]


def listening():
    """A command started in the background of a script has SIGINT ignored, and would never hear it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.launch
def test_an_interrupt_while_importing_says_nothing():
    code = (
        "import os, signal, sys; sys.argv = ['-m']; import experiments; "
        "os.kill(os.getpid(), signal.SIGINT); sys.exit(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, preexec_fn=listening
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_config_can_be_shown_without_running(command, asked):
    code, out, _ = command("study", "--cfg", "job", "model=random", "heads=[L1]")
    assert (code, asked) == (0, [])
    assert "source: random" in out


def test_a_multirun_prints_a_line_a_run(command, tmp_path):
    code, out, _ = command("ablate_heads", "-m", *TINY, "prompts.seed=1,2", "heads=[L0H0]")
    assert code == 0
    runs = out.splitlines()
    assert len(runs) == 2
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["ablate_heads", "collect"]
    assert [harness.open_run(run).spec["prompts"]["seed"] for run in runs] == [1, 2]


def test_a_wrong_job_of_a_multirun_is_named_and_the_later_ones_run(command, monkeypatch):
    monkeypatch.setattr("harness.study.record.draw", lambda *_: None)
    given = (*TINY, "prompts.n=2", "heads=[L0H0],[L99],[L1H0]")
    code, out, err = command("ablate_heads", "-m", *given)
    assert [harness.open_run(run).spec["heads"] for run in out.splitlines()] == [["L0H0"], ["L1H0"]]
    (line,) = [line for line in err.splitlines() if "outside" in line]
    assert line.startswith("job #1 (heads=[L99]): heads=L99: L99 is outside random: it has layers 0-2")
    assert code == 2


def test_a_multirun_ends_with_the_highest_code_of_its_jobs(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / name).mkdir()
    seen = []

    def act(spec):
        seen.append(spec.run)
        sys.exit({"a": 1, "b": 0, "c": 1}[spec.run])

    monkeypatch.setitem(RUNNERS, "reproduce", replace(RUNNERS["reproduce"], act=act))
    assert command("reproduce", "-m", "run=a,b,c", store=False)[:2] == (1, "")
    assert seen == ["a", "b", "c"]
    assert command("reproduce", "-m", "run=b", store=False)[:2] == (0, "")


def test_an_interrupt_ends_a_multirun(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / name).mkdir()
    seen = []

    def act(spec):
        seen.append(spec.run)
        raise KeyboardInterrupt

    monkeypatch.setitem(RUNNERS, "reproduce", replace(RUNNERS["reproduce"], act=act))
    assert command("reproduce", "-m", "run=a,b", store=False)[0] == 130
    assert seen == ["a"]


def test_jobs_that_hydra_cannot_compose_are_code_2_and_a_line_each(command):
    code, out, err = command("ablate_heads", "-m", *TINY, "sets=[L0],[L1]")
    assert (code, out, len(err.splitlines())) == (2, "", 2)
    assert err.startswith("job #0 (sets=[L0]): sets=[L0]: this cannot stand there (")


def test_each_wrong_job_of_a_multirun_is_one_line(command):
    code, out, err = command("ablate_heads", "-m", *TINY, "heads=[L0],[L9]", "model.seed=x")
    assert (code, out) == (2, "")
    says = "model.seed=x: input should be a valid integer, unable to parse string as an integer"
    assert err.splitlines() == [f"job #{number} (heads=[{head}]): {says}" for number, head in enumerate(("L0", "L9"))]


def interrupted(run, number, unit, *asked):
    """A sweep in a process of its own, sent a signal once it has said that so many units are done."""
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.ablate_heads", "model=random", *asked, f"run={run}"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listening,
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith(f"sweep {unit}/"):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == f"interrupted; to go on: {sys.executable} -m experiments.ablate_heads resume={run}"
    assert read_manifest(run)["status"] == "failed"


@pytest.mark.launch
@pytest.mark.parametrize("number", most([signal.SIGINT, signal.SIGTERM], 1))
def test_an_interrupted_run_is_code_130_and_can_go_on(command, tmp_path, number):
    run = tmp_path / "run"
    interrupted(run, number, 1, "prompts.n=60")
    assert command("ablate_heads", f"resume={run}", store=False)[0] == 0
    assert harness.open_run(run).data.sizes["prompt"] == 60


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_by_workers_is_code_130_and_can_go_on_by_others(launch, tmp_path, number):
    """In a process of its own, with workers of its own."""
    interrupted(tmp_path / "run", number, 2, "prompts.n=200", "execute.workers=2")
    again = launch.run("experiments.ablate_heads", f"resume={tmp_path / 'run'}", "execute.workers=1")
    assert again.returncode == 0, again.stderr
    run = harness.open_run(tmp_path / "run")
    assert (run.data.sizes["prompt"], run.spec["execute"]["workers"]) == (200, 1)
