"""The benchmark's loop is a reference of its own; how long things take is not tested."""

import json
import sys
from pathlib import Path

import numpy as np
import plain
import pytest

import harness
from harness.benchmark import sides
from harness.models import random as random_models


@pytest.mark.parametrize("positions", ["all", "last"])
def test_loops_and_sweep_are_plain_hugging_face(tiny, positions):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=5)
    twin = random_models.build("llama", 0)[0].eval()
    work = sides.SweepTask(model, prompts, "logit_diff", model.heads()[::5], positions)
    found = [sides.lens_loop(work), sides.plain_loop(work), sides.sweep(work)]
    for row in range(5):
        n = prompts.length[row]
        token_id, places = prompts.token_id[row, :n], None if positions == "all" else [n - 1]
        before = plain.logits(twin, token_id)
        clean = plain.metrics(prompts, row, before, before)["logit_diff"]
        for at, head in enumerate(work.heads):
            after = plain.logits(twin, token_id, [head], model.shape.d_head, positions=places)
            want = plain.metrics(prompts, row, after, before)["logit_diff"] - clean
            assert [side[row, at] for side in found] == pytest.approx([want] * 3, abs=1e-4)


def test_the_command_leaves_every_round(command):
    code, out, err = command("benchmark", "model=random", "prompts.n=3", "rounds=2", "every=4")
    found = json.loads(Path(out.splitlines()[-1]).read_text())
    assert code == 0
    assert [len(side["seconds"]) for side in found["sides"]] == [2] * 5
    assert found["sides"][0]["ratio"] == [1.0, 1.0]
    assert np.isfinite(found["floor_seconds"])
    assert [side["name"] for side in found["sides"]] == [
        "TransformerLens loop", "Hugging Face loop", "sweep, exact", "sweep, fast", "sweep, screen",
    ]  # fmt: skip
    exact = found["sides"][2]
    assert exact["largest_error"] < 1e-4
    assert exact["rank_correlation"] == pytest.approx(1)
    assert err.splitlines()[-5].startswith("TransformerLens loop")


def test_maps_of_the_loop_and_of_the_sweep_are_the_same(command):
    code, out, err = command("benchmark", "model=random", "what=maps", "prompts.n=3", "rounds=1", "every=2")
    found = json.loads(Path(out.splitlines()[-1]).read_text())
    assert code == 0, err
    assert found["layers"] == [0, 2]
    assert found["largest_error"] < 1e-4
    assert found["cells"] == 2 * harness.load_prompts("ioi", harness.load_model("random"), n=3).length.sum()
    assert err.splitlines()[-1].startswith("resid × position of 3 prompts, 2 layers")
    assert sorted(map(len, found["seconds"].values())) == [1, 1]


def test_edges_of_the_loop_and_of_the_sweep_are_the_same(command):
    code, out, err = command("benchmark", "model=random", "what=edges", "prompts.n=3", "rounds=1", "every=2")
    found = json.loads(Path(out.splitlines()[-1]).read_text())
    n_layers, n_heads = harness.load_model("random").shape.n_layers, harness.load_model("random").shape.n_heads
    assert code == 0, err
    assert found["senders"] == [f"L{layer}H0" for layer in range(n_layers % 2, n_layers - 1, 2)]
    assert found["edges"] == sum((n_layers - 1 - layer) * n_heads for layer in range(n_layers % 2, n_layers - 1, 2))
    assert found["largest_error"] < 1e-4
    assert err.splitlines()[-1].startswith(f"{found['edges']} edges into queries, 3 prompts: loop")


def test_an_encoder_is_refused(command):
    code, _, err = command("benchmark", "model=random", "model.shape=bert", "prompts=inline", "prompts.text=[a]")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "the loops are those of a decoder" in err


def saved(command, runner):
    code, out, _ = command(runner, "model=random", "prompts.n=3")
    assert code == 0
    return out.splitlines()[-1]


def refused(command, page):
    code, _, err = command("benchmark", f"page={page}")
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith("page=")
    return err


@pytest.mark.soak
def test_a_page_is_measured_in_a_browser(pictures, browser_program, command, monkeypatch):
    run = saved(command, "study")
    code, out, err = command("benchmark", f"page={run}", "rounds=2")
    found = json.loads(Path(out.splitlines()[-1]).read_text())
    assert code == 0, err
    assert len(found["openings"]) == 2
    assert all(0 < opening["ready"] <= opening["drawn"] and opening["head"] > 0 for opening in found["openings"])
    assert found["megabytes"] == pytest.approx((Path(run) / "report.html").stat().st_size / 1e6, rel=0.01)
    assert err.splitlines()[-4].startswith(f"report {found['megabytes']:.1f} MB")
    monkeypatch.setenv("CHROMIUM", "false")
    assert "false did not show its report" in refused(command, run)
    monkeypatch.setenv("CHROMIUM", "nowhere")
    assert "there is no browser: install chromium" in refused(command, run)


def test_a_page_without_playwright_is_one_line(command, monkeypatch):
    monkeypatch.setenv("CHROMIUM", sys.executable)
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    assert "what drives a browser is missing: pip install playwright" in refused(command, saved(command, "study"))


def test_a_page_that_cannot_be_measured_is_one_line(command):
    assert "no patterns or no effects" in refused(command, saved(command, "cache_attention"))
    assert "there is no such" in refused(command, "nowhere")
    assert "secret" not in refused(command, "s3://key:secret@bucket/run")


def test_looks_and_refusals_are_timed(command, monkeypatch):
    monkeypatch.setattr("harness.benchmark.answer_times.LENGTHS", (8, 16))
    code, out, err = command("benchmark", "model=random", "what=look", "rounds=3")
    looks = json.loads(Path(out.strip()).read_text())["looks"]
    assert (code, [row["tokens"] for row in looks]) == (0, [8, 16])
    assert [len(row["seconds"]) for row in looks] == [3, 3]
    assert 0.01 < looks[0]["megabytes"] < looks[1]["megabytes"] < 3
    assert err.startswith("look, 8 tokens: first ")
    monkeypatch.setattr("harness.benchmark.answer_times.REFUSED", ("study sotre=x",))
    code, out, err = command("benchmark", "model=random", "what=refusals", "rounds=1")
    (row,) = json.loads(Path(out.strip()).read_text())["refusals"]
    assert (code, row["request"]) == (0, "study sotre=x")
    assert 0.05 < row["processor_seconds"][0] < 20
    monkeypatch.setattr("harness.benchmark.answer_times.REFUSED", ("study --help",))
    with pytest.raises(RuntimeError, match="study --help: exit code 0"):
        command("benchmark", "model=random", "what=refusals", "rounds=1")
