"""The command line around the runs: help, the table of runners, comments of the config, multiruns, what goes on."""

import itertools
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from drawing import drawn
from launches import LIGHT, Launcher

import harness
from harness import config, study
from harness.command import main
from harness.command.actions import run_stages
from harness.command.arguments import parse_arguments
from harness.command.composition import Composer, setting
from harness.command.runners import RUNNERS
from harness.config.describe import field_lines, first_line, options_of
from harness.results import manifest, store

CONF = config.conf_dir()
ROOT = Path(__file__).parents[1]
TINY = ("model=random", "prompts.n=2", "stats.resamples=200", "heads=[L0H0]")
ROWS = ("prompts=file", "~prompts.n")

# --- help -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", RUNNERS)
def test_help_shows_the_keys_that_a_runner_reads_on_one_page(command, runner):
    code, out, err = command(runner, "--help", store=False)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) <= 68
    assert lines[0] == f"{RUNNERS[runner].line}."
    shown = {line.split("=")[0].strip().split(".")[0] for line in lines if re.match(r"  [a-z_.]+=", line)}
    own = {key.split(".")[0] for key in RUNNERS[runner].reads or get_type_hints(RUNNERS[runner].spec)}
    assert shown == own | ({"store", "run", "resume", "dry_run", "experiment"} if RUNNERS[runner].makes_run else set())


def test_help_gives_type_default_and_line_of_a_key(command):
    _, out, _ = command("study", "--help", store=False)
    (row,) = [line for line in out.splitlines() if "sweep.n_random_orders" in line]
    assert row.split() == ["sweep.n_random_orders=10", "Number", "of", "random", "orders.", "(int", "≥1)"]
    for runner, key, kind in (("ablate_heads", "sets", "list"), ("again", "changes", "value")):
        assert re.search(rf"^  {key}=.*{{NAME: {kind}}}\)$", command(runner, "--help", store=False)[1], re.MULTILINE)
    _, out, _ = command("compare_attributions", "--help", store=False)
    assert "attribution.causes=auto " in out  # of its primary config, not of the type


def test_help_of_a_group_has_the_keys_of_each_option(command):
    code, out, _ = command("study", "--help", "ablation", store=False)
    assert code == 0
    for kind in options_of(config.AblationSpec).values():
        assert first_line(kind) in out
    assert "ablation.draws=1" in out
    code, _, err = command("list", "--help", "ablation", store=False)
    assert (code, err) == (2, "--help=ablation: list has no groups\n")


def test_help_says_where_the_keys_of_a_group_are(command):
    _, out, _ = command("ablate_heads", "--help", store=False)
    for group in ("model", "prompts", "ablation", "execute"):
        (row,) = [line for line in out.splitlines() if line.startswith(f"  {group}=")]
        assert row.endswith(f"; --help {group} lists their keys.")
        assert command("ablate_heads", "--help", group, store=False)[0] == 0


def interpolated():
    """Every key of ``conf/`` that follows another one, with the option of a group that has it."""
    for path in sorted(CONF.glob("*/*.yaml")):
        if path.parent.name in ("hydra", "experiment"):
            continue
        for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            if isinstance(value, str) and value.startswith("${"):
                yield path.parent.name, path.stem, key, value.strip("${}")


@pytest.mark.parametrize(("group", "option", "key", "other"), [*interpolated()])
def test_help_shows_which_key_another_follows(command, group, option, key, other):
    runner = "compare_attributions" if group == "attribution" else "ablate_heads"
    _, out, _ = command(runner, "--help", group, store=False)
    part = out if option == "default" else out.partition(f"{group}={option}: ")[2].partition(f"\n{group}=")[0]
    assert re.search(rf"^  {group}\.{key}=\({other}\) ", part, re.MULTILINE)
    if option == "default":
        _, out, _ = command(runner, "--help", store=False)
        assert re.search(rf"^  {group}\.{key}=\({other}\) ", out, re.MULTILINE)


def test_the_package_of_runners_lists_them_and_runs_them():
    run = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    listed = run([sys.executable, "-m", "experiments", "--help"])
    assert (listed.returncode, listed.stderr) == (0, "")
    for name, runner in RUNNERS.items():
        assert re.search(rf"^  {name} +{re.escape(runner.line)}$", listed.stdout, re.MULTILINE)
    assert f"{shlex.quote(sys.executable)} -m experiments RUNNER [key=value …]" in listed.stdout
    own = run([sys.executable, "-m", "experiments", "collect", "--help"])
    assert own.stdout.splitlines()[1] == f"{shlex.quote(sys.executable)} -m experiments collect [key=value …]"
    refused = run([sys.executable, "-m", "experiments", "colect"])
    assert (refused.returncode, refused.stderr.partition("?")[0]) == (2, "runner=colect: did you mean 'collect'")


@pytest.fixture(scope="module")
def fresh():
    """Commands of a process that has imported the configuration's libraries only."""
    with Launcher(LIGHT) as launcher:
        yield launcher


def test_help_needs_no_torch(fresh):
    done = fresh.run("experiments.study", "--help")
    assert done.returncode == 0
    assert not done.imported & {"torch", "numpy", "xarray", "matplotlib"}


def typed(monkeypatch, capfd, *words):
    """The installed command: (exit code, standard output, standard error)."""
    monkeypatch.setattr(sys, "argv", ["attention-harness", *words])
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code, *capfd.readouterr()


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_the_command_alone_lists_the_runners(monkeypatch, capfd, words):
    code, out, err = typed(monkeypatch, capfd, *words)
    assert (code, err) == (0, "")
    for name, runner in RUNNERS.items():
        assert re.search(rf"^  {name} +{re.escape(runner.line)}$", out, re.MULTILINE)


def test_the_command_runs_a_runner(monkeypatch, capfd, tmp_path):
    code, out, _ = typed(monkeypatch, capfd, "ablate_heads", *TINY, f"store={tmp_path}")
    assert (code, harness.open_run(out.splitlines()[-1]).manifest["runner"]) == (0, "ablate_heads")


def completed(monkeypatch, capfd, line):
    """What the shell is offered for a line, as the script that ``-sc install=bash`` prints asks for it."""
    monkeypatch.setenv("COMP_LINE", line)
    code, out, err = typed(monkeypatch, capfd, "-sc", "query=bash")
    assert (code, err) == (0, "")
    return out.split()


def test_a_shell_completes_runners_keys_and_options(monkeypatch, capfd):
    assert completed(monkeypatch, capfd, "attention-harness st") == [*RUNNERS]
    offered = completed(monkeypatch, capfd, "attention-harness study model=s")
    assert offered == ["model=smollm2"]
    assert "ablation=zero" in completed(monkeypatch, capfd, "attention-harness ablate_heads model=random ablation=")
    assert "sweep.kind=" in "".join(completed(monkeypatch, capfd, "attention-harness ablate_heads sweep.k"))
    assert completed(monkeypatch, capfd, "attention-harness stduy mod") == []
    monkeypatch.delenv("COMP_LINE")
    code, out, _ = typed(monkeypatch, capfd, "-sc", "install=bash")
    assert (code, out.splitlines()[-1].split()[-1]) == (0, "attention-harness")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("stduy",), "runner=stduy: did you mean 'study'? known: study, cache_attention"),
        (("model=random",), "runner=model=random: known: study"),
        (("study", "--nope"), "--nope=: unrecognized arguments: --nope"),
        (("study", "sweep.first=least_needed"), "sweep.first=least_needed: this key is now sweep.order_from"),
    ],
)
def test_a_wrong_command_is_one_line(monkeypatch, capfd, words, says):
    code, out, err = typed(monkeypatch, capfd, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(says)


def test_the_command_tells_its_version(monkeypatch, capfd):
    assert typed(monkeypatch, capfd, "--version") == (0, f"attention-harness {harness.__version__}\n", "")


def test_the_wheel_has_the_command():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'attention-harness = "harness.command:main"' in text


# --- the config explains itself ---------------------------------------------------------------------------------


def spec_of(path):
    """The spec that a file of ``conf/`` makes values for."""
    group, values = path.parent.name, yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent == CONF:
        return RUNNERS[path.stem].spec if path.stem in RUNNERS else config.RunSpec
    hint = get_type_hints(config.RunSpec, include_extras=True)[group]
    options = options_of(hint)
    return options[values.get("source") or values["name"]] if options else hint


CONFIGS = [path for path in sorted(CONF.rglob("*.yaml")) if path.parent.name not in ("experiment", "launcher")]


def comments(text):
    """(dotted key, comment above it) of each key of a YAML text; the comments at its top are of the file."""
    way, above, top = [], [], True
    for line in text.splitlines():
        if line.strip().startswith("#"):
            above.append(line.strip().removeprefix("#").strip())
        elif match := re.match(r"( *)([a-z_0-9]+):", line):
            way = [*way[: len(match[1]) // 2], match[2]]
            if top and ("\n\n" not in text or len(above) == 1):
                above = []
            top = False
            yield ".".join(way), " ".join(above)
            above = []
        elif not line.strip() and top:
            above, top = [], False


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(CONF)))
def test_every_comment_of_a_config_is_the_line_of_its_spec(path):
    kind = spec_of(path)
    for key, comment in comments(path.read_text(encoding="utf-8")):
        if key == "defaults" or key in ("name", "source"):
            continue
        lines = {**field_lines(config.Place), **field_lines(kind)} if kind is config.RunSpec else field_lines(kind)
        inside = kind
        for part in key.split(".")[:-1]:
            inside = get_type_hints(inside)[part]
            lines = field_lines(inside)
        if kind is config.RunSpec and "." in key:
            continue  # values that a runner sets otherwise: the group's file explains them
        if comment or not (path.parent == CONF and path.stem in RUNNERS and RUNNERS[path.stem].makes_run):
            assert comment == lines[key.split(".")[-1]], key


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(CONF)))
def test_a_config_begins_with_what_it_is(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    if path.parent == CONF and path.stem in RUNNERS:
        assert first == f"# {RUNNERS[path.stem].line}."
    elif path.name == "default.yaml":
        assert first == f"# {first_line(spec_of(path))}"
    assert first.startswith("# ")


def test_every_field_of_a_spec_has_a_line():
    for kind in {runner.spec for runner in RUNNERS.values()} | {config.Place}:
        for name, hint in get_type_hints(kind, include_extras=True).items():
            assert field_lines(kind)[name].endswith((".", "]")), f"{kind.__name__}.{name}"
            for option in options_of(hint).values():
                assert {*field_lines(option)} == {*get_type_hints(option)}


# --- settings that Hydra reads back -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["results/a", "a b", "a,b", "it's", "a=b", "${x}", "[a]", "{a}", "a\\", "日本", "1", "null", "a: b", "~x"]
)
def test_a_setting_is_read_back_as_it_was(value):
    words = shlex.split(shlex.join([setting("resume", value)]))
    values = Composer.of("study", parse_arguments(words)).values()
    assert values["resume"] == value


def test_a_section_may_be_set_as_a_whole():
    words = ["sweep={kind: set, memory: 2.0}", "sets={a: [L0H1], b: [L1]}"]
    values = Composer.of("study", parse_arguments(words)).values()
    assert (values["sweep"]["kind"], values["sweep"]["memory"], values["sweep"]["method"]) == ("set", 2.0, "exact")
    assert values["sets"] == {"a": ["L0H1"], "b": ["L1"]}


# --- many jobs --------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("John gave a drink to Mary\nthe store was far\n", encoding="utf-8")
    return ("model=random", "prompts=file", f"prompts.path={path}", "stats.resamples=200", "heads=[L0H0]")


def table(err):
    """The rows of the table at the end of a multirun."""
    lines = err.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("job  settings"))
    return [re.split(r"  +", line) for line in lines[at + 1 :] if line.startswith("#")]


def test_a_multirun_ends_with_a_table_of_its_jobs(command):
    code, out, err = command("ablate_heads", "-m", *TINY, "prompts.seed=1,2", "metrics=[loss],[los]")
    assert code == 2
    assert "job #1 (prompts.seed=1 metrics=[los]): metrics=los: did you mean 'loss'?" in err
    assert err.index("job #3 (") < err.index("job #0 of 4")  # all are checked before the first starts
    ends = table(err)
    assert [row[2] for row in ends] == ["complete", "refused", "complete", "refused"]
    assert [row[4] for row in ends if row[2] == "complete"] == out.splitlines()
    assert [row[1] for row in ends][2] == "prompts.seed=2 metrics=[loss]"


def test_a_job_that_fails_lets_the_others_run(command, monkeypatch):
    def run(runner, spec, *_):
        if spec.prompts.seed == 1:
            raise ZeroDivisionError("by hand")
        return Path("somewhere")

    monkeypatch.setattr("harness.study.run", run)
    monkeypatch.setattr("harness.command.actions._summarize", lambda _: None)
    code, out, err = command("ablate_heads", "-m", *TINY, "prompts.seed=1,2")
    assert (code, out) == (1, "somewhere\n")
    assert "job #0 (prompts.seed=1): ZeroDivisionError: by hand" in err
    assert [row[2] for row in table(err)] == ["failed", "complete"]


def test_an_interrupt_of_the_checks_starts_nothing(command, monkeypatch, asked):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.command.multirun.checked", stop)
    code, out, err = command("ablate_heads", "-m", *TINY, "seed=0,1")
    assert (code, out, err, asked) == (130, "", "job #0 (seed=0): interrupted\n", [])


def test_a_seed_that_nothing_reads_is_named(command, rows, asked):
    _, _, err = command("cache_attention", "-m", *rows, "seed=0,1")
    assert "job #1 has the same settings as job #0 but for seed, which nothing here reads\n" in err
    _, _, err = command("ablate_heads", "-m", *rows, "seed=0,1")
    assert "job #1 has the same settings as job #0 but for seed, which only the bootstrap of the intervals reads" in err
    for other in ("heads=[L0H0],[L0H1]", "metrics=[loss],[kl]", "model.seed=0,1", "prompts.n=1,2"):
        assert "the same settings" not in command("ablate_heads", "-m", *rows, other)[2]
    for reader in ("metrics=[kl]", "sweep.kind=cumulative", "sweep.method=fast", "ablation=resample"):
        assert "the same settings" not in command("ablate_heads", "-m", *rows, "seed=0,1", reader)[2]
    assert "the same settings" not in command("ablate_heads", "-m", *TINY, "seed=0,1")[2]


@pytest.fixture
def asked(monkeypatch):
    """What each run would be: its spec, in place of the run itself."""
    specs = []
    monkeypatch.setattr("harness.study.run", lambda runner, spec, *_: specs.append(spec))
    return specs


def test_a_multirun_goes_on_where_it_was_interrupted(command, monkeypatch, tmp_path):
    """Interrupted in its second job of three: the line that it prints does the third, ends the second, and leaves the
    first as it is."""
    real, begun = study.run, []

    def run(runner, spec, place, progress, tell):
        begun.append(spec.prompts.seed)

        def stop(stage, done, total):
            if len(begun) == 2 and done == 1:
                raise KeyboardInterrupt

        return real(runner, spec, place, stop, tell)

    monkeypatch.setattr("harness.study.run", run)
    given = ("model=random", "prompts.n=60", "stats.resamples=200", "prompts.seed=1,2,3")
    code, out, err = command("ablate_heads", "-m", *given)
    assert (code, begun, len(out.splitlines())) == (130, [1, 2], 1)
    assert [row[2] for row in table(err)] == ["complete", "interrupted", "not started"]
    line = err.splitlines()[-1].removeprefix("to go on: ")
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "experiments.ablate_heads"]
    done = {path: path.stat().st_mtime_ns for path in Path(out.strip()).rglob("*") if path.is_file()}
    code, again, err = command("ablate_heads", *words[3:], store=False)
    assert (code, begun) == (0, [1, 2, 2, 3])
    assert [row[2] for row in table(err)] == ["was complete", "complete", "complete"]
    assert again.splitlines()[0] == out.strip()
    assert {path: path.stat().st_mtime_ns for path in Path(out.strip()).rglob("*") if path.is_file()} == done
    runs = sorted((tmp_path / "results" / "ablate_heads").iterdir())
    assert len(runs) == 3
    assert all(harness.open_run(path).manifest["status"] == "complete" for path in runs)


ONE_HEAD = ("model=random", "stats.resamples=200", "heads=[L0H0]")
#: Nine jobs, of which one is wrong: a donor of another cluster is not to be had among prompts of one.
GRID = ("ablate_heads", "-m", *ONE_HEAD, "ablation=zero,mean,resample", "prompts.n=1,2,3")


def statuses(place):
    """How each run of a store ended: its status by its directory."""
    return {folder: manifest.read_manifest(folder)["status"] for folder in place.iterdir()}


@pytest.mark.soak  # 11 s of processor time
def test_a_killed_grid_of_nine_with_a_wrong_job_goes_on_with_nothing_twice_and_nothing_lost(command, tmp_path):
    """Killed without warning in its fifth job, after its first unit."""
    place, replace = tmp_path / "results" / "ablate_heads", Path.replace

    def dying(self, target):
        done = replace(self, target)
        if Path(target).suffix == ".unit" and len([*place.iterdir()]) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    def until_killed():
        Path.replace = dying
        command(*GRID)

    child = multiprocessing.get_context("fork").Process(target=until_killed, daemon=True)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    first = statuses(place)
    assert sorted(first.values()) == ["complete"] * 4 + ["running"]
    kept = [path for folder in first for path in folder.rglob("*") if first[folder] == "complete" and path.is_file()]
    (unit,) = place.rglob("*.unit")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in kept}

    renamed = set()

    def noted(self, target):
        renamed.add(Path(target))
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "replace", noted)
        patched.setattr("harness.views.figures.many_runs.PAIRS", 2)  # of 28: each takes a third of a second
        code, out, err = command(*GRID, f"resume={tmp_path / 'results'}", store=False)
    assert (code, unit in renamed) == (2, False)
    assert [row[2] for row in table(err)] == ["was complete"] * 4 + ["complete"] * 2 + ["refused"] + ["complete"] * 2
    assert "job #6 (ablation=resample prompts.n=1): ablation=resample: a donor comes from another cluster" in err
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in kept} == before
    last = statuses(place)
    assert ({*last.values()}, len(last), {*first} <= {*last}) == ({"complete"}, 8, True)
    assert {Path(line) for line in out.splitlines()} == {*last}
    collected = harness.open_runs(str(place / "*")).table()
    assert {*zip(collected["ablation.name"], collected["prompts.n"], strict=True)} == {
        *itertools.product(("zero", "mean", "resample"), (1, 2, 3))
    } - {("resample", 1)}
    (page,) = (tmp_path / "results" / "collect").glob("*/report.html")
    assert "8 runs: effects on logit_diff" in page.read_text(encoding="utf-8")


def test_an_interrupt_prints_the_line_that_goes_on(command, monkeypatch, tmp_path):
    place = tmp_path / "it's a, run"

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.command.actions.progress", lambda: stop)
    code, _, err = command("ablate_heads", *TINY, setting("run", str(place)))
    assert code == 130
    words = shlex.split(err.splitlines()[-1].removeprefix("interrupted; to go on: "))
    assert words[:3] == ["python", "-m", "experiments.ablate_heads"]
    monkeypatch.undo()
    from harness.command.launch import launch

    assert launch("ablate_heads", words[3:]) == 0
    assert manifest.read_manifest(place)["status"] == "complete"


def test_the_line_that_goes_on_is_that_of_the_command(monkeypatch, capfd, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.command.actions.progress", lambda: stop)
    code, _, err = typed(monkeypatch, capfd, "ablate_heads", *TINY, f"run={tmp_path / 'run'}")
    assert code == 130
    assert err.splitlines()[-1] == f"interrupted; to go on: attention-harness ablate_heads resume={tmp_path / 'run'}"


# --- what runners read ------------------------------------------------------------------------------------------

#: Keys of a tiny request that differ from the defaults nowhere.
REQUEST = {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 2}}


@pytest.mark.parametrize("runner", ["cache_attention", "ablate_heads", "compare_attributions", "profile_heads"])
def test_a_runner_reads_the_sections_in_its_help_and_no_others(runner, tmp_path, monkeypatch):
    values = {**REQUEST, "stats": {"resamples": 200}, "roles": {"n": 2, "length": 6, "draws": 40}}
    values |= {"n_random_sets": 2} if runner == "profile_heads" else {}
    spec = config.parse(config.RunSpec, values)
    read = set()
    plain = config.RunSpec.__getattribute__

    def noted(self, name):
        caller = sys._getframe(1).f_code.co_filename
        if "/harness/" in caller and "/harness/config/" not in caller:
            read.add(name)
        return plain(self, name)

    with drawn(figures=False):
        monkeypatch.setattr(config.RunSpec, "__getattribute__", noted)
        study.run(runner, spec, config.Place(store=str(tmp_path)), lambda *_: None)
        monkeypatch.undo()
    sections = {*get_type_hints(config.RunSpec)}
    shown = {key for key in sections if RUNNERS[runner].reads_key(key)}
    always = {"metrics", "compare", "stats", "sweep"}  # looked at by checks and by every report
    assert (read & sections) - always <= shown
    assert run_stages is RUNNERS[runner].act


def test_store_is_where_a_multirun_looks_for_its_runs(tmp_path):
    from harness.command.checks import Request
    from harness.command.multirun import _earlier

    spec = config.parse(config.RunSpec, {**REQUEST, "stats": {"resamples": 200}, "heads": ["L0H0"]})
    request = Request("ablate_heads", spec, config.Place(), frozenset())
    assert _earlier(request, str(tmp_path)) == (None, False)
    folder = study.run("ablate_heads", spec, config.Place(store=str(tmp_path)), lambda *_: None)
    assert _earlier(request, str(tmp_path)) == (folder, True)
    record = manifest.read_manifest(folder)
    manifest.write_manifest(folder, {**record, "status": "failed"})
    assert _earlier(request, str(tmp_path)) == (folder, False)
    manifest.write_manifest(folder, {**record, "code": "other"})
    assert _earlier(request, str(tmp_path)) == (None, False)
    store.write_text(folder / "manifest.json", "{")
    assert _earlier(request, str(tmp_path)) == (None, False)
