"""`sweep.method=auto`: exact where its forecast ends within the minutes asked for, else a screen; the run says so."""

from pathlib import Path

import numpy as np
import pytest
import yaml

import harness
from harness.sweep import method, trial

RANDOM = ("model=random", "prompts.n=3", "metrics=[loss]")


def run_with(command, monkeypatch, seconds_per_row, *settings):
    monkeypatch.setattr(trial, "seconds_per_row", lambda model, prompts: seconds_per_row)
    code, out, err = command("ablate_heads", *RANDOM, "sweep.method=auto", *settings)
    assert code == 0, err
    run = harness.open_run(out.splitlines()[-1])
    said = [line for line in err.splitlines() if "sweep.method=auto" in line]
    return run, said


def test_what_ends_in_time_is_exact_and_the_run_is_that_of_exact(command, monkeypatch):
    run, said = run_with(command, monkeypatch, 1e-4)
    assert len(said) == 1
    assert said[0].startswith("sweep.method=auto: exact, about 0 s (sweep.minutes=10)")
    code, out, _ = command("ablate_heads", *RANDOM)
    other = harness.open_run(out.splitlines()[-1])
    assert code == 0
    assert run.spec == other.spec
    assert run.spec["sweep"]["method"] == "exact"
    assert np.array_equal(run.data["effect"], other.data["effect"])


def test_what_takes_longer_is_screened(command, monkeypatch):
    run, said = run_with(command, monkeypatch, 1.0, "sweep.minutes=0.5", "prompts.n=4")
    model = harness.load_model("random")
    n_rows, n_heads = 4, model.shape.n_layers * model.shape.n_heads
    share = sum(1 - layer / model.shape.n_layers for layer in range(model.shape.n_layers)) / model.shape.n_layers
    forecast = n_rows * (1 + n_heads * share)
    assert said[0].startswith("sweep.method=auto: screen, since exact would take about ")
    stated = said[0].split("about ")[1].split(" (")[0]
    assert stated == f"{forecast:.0f} s"
    assert "estimate" in run.data
    assert run.spec["sweep"]["method"] == "screen"
    saved = yaml.safe_load((Path(run.path) / "spec.yaml").read_text())
    assert saved["sweep"]["method"] == "screen"


def test_a_run_goes_on_by_the_method_that_it_was_begun_with(command, monkeypatch, tmp_path):
    from harness.sweep.stage import SweepStage

    def interrupted(*_):
        raise KeyboardInterrupt

    settings = ("ablate_heads", *RANDOM, "sweep.method=auto")
    monkeypatch.setattr(trial, "seconds_per_row", lambda model, prompts: 1e-4)
    with monkeypatch.context() as patched:
        patched.setattr(SweepStage, "compute", interrupted)
        assert command(*settings, f"run={tmp_path / 'begun'}")[0] == 130
    monkeypatch.setattr(trial, "seconds_per_row", lambda model, prompts: 1e4)  # by now a screen would be chosen
    code, _, err = command(*settings, f"resume={tmp_path / 'begun'}")
    assert code == 0, err
    run = harness.open_run(tmp_path / "begun")
    assert run.spec["sweep"]["method"] == "exact"
    assert "estimate" not in run.data
    code, _, err = command(*settings, f"resume={tmp_path / 'begun'}")
    assert (code, err.count("\n")) == (2, 1)
    assert "this run is complete" in err


def test_workers_divide_the_time(command, monkeypatch, tiny):
    build = object()
    asked = []

    class Sweep:
        def seconds(self, trial):
            return 1200.0

    monkeypatch.setattr(method, "_seconds", lambda stages: asked.append(stages) or 1200.0)
    spec = harness.config.SweepSpec(method="auto")
    assert method.choose_method(spec, lambda own: build, workers=1)[0].method == "screen"
    assert method.choose_method(spec, lambda own: build, workers=2)[0].method == "exact"


def test_where_screen_is_refused_it_is_exact_and_says_why(command, monkeypatch):
    run, said = run_with(command, monkeypatch, 100.0, "sweep.kind=layer")
    assert "layer_effect" in run.data
    assert "though sweep.minutes=10, since screen is refused: sweep.method=screen: it is for single heads" in said[0]


def test_in_memory_too(monkeypatch):
    model = harness.load_model("random")
    prompts = harness.load_prompts("ioi", model, n=2)
    monkeypatch.setattr(trial, "seconds_per_row", lambda model, prompts: 1.0)
    screened = harness.ablate_heads(model, prompts, metrics="loss", method="auto", minutes=0.1)
    assert "estimate" in screened.data
    assert screened.spec["sweep"]["method"] == "screen"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["sweep.minutes=3"], "sweep.minutes=3.0: sweep.method=exact does not read it; set sweep.method=auto"),
        (["sweep.method=auto", "sweep.minutes=0"], "sweep.minutes=0"),
        (["sweep.method=auto", "sweep.account=true"], "sweep.account=True: sweep.method=auto does not read it; set"),
    ],
)
def test_bad_input_is_one_line(command, settings, says):
    code, _, err = command("ablate_heads", *RANDOM, *settings)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(says)
