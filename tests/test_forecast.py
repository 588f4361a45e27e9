"""What a run will cost is said before it begins, and what cannot be held is refused."""

import re
import shutil
import sys
from collections import namedtuple

import pytest

import harness
from harness import hooks, study
from harness.attention import CacheStage
from harness.attribution.context.stage import TraceStage
from harness.attribution.evaluate.stage import AttributionStage
from harness.config import AttributionSpec, RequestError, RunSpec, TraceSpec, parse
from harness.sweep.trial import measured_once

Usage = namedtuple("Usage", "total used free")
BERT = {"model": {"name": "random", "source": "random", "shape": "bert"}}
TAGS = {"name": ["Mary", "John"], "punctuation": []}
TEXT = {"prompts": {"name": "inline", "text": ["Mary gave a drink", "the store"]}}


def dry(tmp_path, **asked):
    said = []
    place = study.Place(store=str(tmp_path / "store"), dry_run=True)
    run = study.run("study", parse(RunSpec, {**BERT, **TEXT, **asked}), place, lambda *_: None, said.append)
    assert run is None
    assert not (tmp_path / "store").exists()
    return said


def test_a_masked_lm_says_its_rows_before_it_starts(tmp_path, tiny):
    prompts = harness.load_prompts("inline", tiny("bert"), text=TEXT["prompts"]["text"])
    rows = int(prompts.target.sum())
    (swept,) = [line for line in dry(tmp_path) if line.startswith("sweep: ")]
    # the mean share of the blocks that follow a head, 12 heads in 3 layers, and the clean run
    forwards = rows * (1 + 12 * (1 + 2 / 3 + 1 / 3) / 3)
    assert f"2 prompts ({rows} rows, each scored token masked in a row of its own) × 12 interventions" in swept
    assert f"the work of {forwards:.0f} forwards of one row" in swept
    weights = sum(each.numel() for each in hooks.plain_model(tiny("bert").bridge).parameters()) * 4
    of_each = zip(prompts.target.sum(axis=1).tolist(), prompts.width.tolist(), strict=True)
    tokens = max(min(12, 4096 // (rows * width)) * rows * width for rows, width in of_each)
    chunk = tokens * (4 * 24 * 48 + 12 * 4 * int(prompts.width.max()))
    assert swept.endswith(f"; units of work: 2; memory for each worker: up to {(weights + chunk) / 1e6:.1f} MB")


def test_methods_and_causes_are_counted(tmp_path, tiny, monkeypatch):
    """By hand: each token once under the cause; the heads' mean share of blocks; and, counted as they run, no more."""
    asked = {"methods": ["rollout", "rollout_effect"], "causes": ["delete"], "fractions": [0.5], "targets": 1}
    model = tiny("gpt2")
    prompts = harness.load_prompts("inline", model, text=TEXT["prompts"]["text"], answer=[" Mary"] * 2)
    stage = AttributionStage(model, prompts, parse(AttributionSpec, asked))
    by_hand = sum(n + model.shape.n_layers * model.shape.n_heads / 2 + 2 * (2 * 2 + 1) for n in prompts.length)
    assert stage.work() == by_hand
    rows, forward = [], type(model).forward

    def counting(self, given):  # rows of texts; the model's head reads one token a row, with its blocks passed over
        rows.append(len(given.token_id) * (given.token_id.shape[1] > 1))
        return forward(self, given)

    monkeypatch.setattr(type(model), "forward", counting)
    for unit in range(len((plan := stage.plan())["batches"])):
        stage.compute(plan, unit)
    assert 0.4 * by_hand < sum(rows) < by_hand + 10
    (said,) = [line for line in dry(tmp_path) if line.startswith("attribution: ")]
    assert re.fullmatch(
        r"attribution: 2 prompts × 2 methods, 1 causes, at most the work of \d+ forwards of one row: .+", said
    )


@pytest.mark.parametrize(("heads", "gradient"), [("none", False), ("used", False), ("every", False), ("none", True)])
def test_what_tracing_takes_is_counted_block_by_block(tiny, heads, gradient):
    """Rows that go through blocks, and back, as they run; the forecast counts at most the parts that there are."""
    model = tiny("gpt2")
    prompts = harness.load_prompts("inline", model, text=["Mary saw John, and Mary ran."], words=TAGS)
    spec = parse(TraceSpec, {"heads": heads, "gradient": gradient, "targets": 3})
    stage, ran = TraceStage(model, prompts, spec, tuple(model.heads(["all"]))), []
    outputs = [
        hooks.output_projection(model.bridge, site) for site in model.shape.sites
    ]  # not where a block is skipped
    handles = [each.register_forward_pre_hook(lambda _, given: ran.append(len(given[0]))) for each in outputs]
    handles += [
        each.register_full_backward_pre_hook(lambda _, slope: ran.append(2 * len(slope[0]))) for each in outputs
    ]
    try:
        stage.compute(stage.plan(), 0)
    finally:
        for handle in handles:
            handle.remove()
    assert sum(ran) / model.shape.n_layers == pytest.approx(stage.work(), rel=0.15)


def test_tracing_says_what_it_takes(tmp_path):
    place, said = study.Place(store=str(tmp_path / "store"), dry_run=True), []
    asked = {"prompts": {"name": "inline", "text": ["Mary saw John."], "words": TAGS}, "trace": {"heads": "none"}}
    study.run("trace_context", parse(RunSpec, {**BERT, **asked}), place, lambda *_: None, said.append)
    (line,) = said
    said_of = r"trace: 1 prompts × \d parts, 2 causes, no heads, at most the work of \d+ forwards of one row: \d+ s"
    assert re.fullmatch(said_of, line)


def test_the_size_of_what_is_kept_is_that_of_the_arrays(tiny):
    model = tiny("gpt2")
    prompts = harness.load_prompts("ioi", model, n=4)
    also = ("z", "q", "k", "v", "scores", "resid")
    data = harness.cache_attention(model, prompts, "float16", also=also).data
    kept = sum(data[name].nbytes for name in ("pattern", *also))
    assert CacheStage(model, prompts, "float16", also).n_bytes() == kept


def test_a_disk_that_cannot_hold_it_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(RequestError, match=r"cache.also=z: keeping pattern, z takes up to .* MB, and 0.0 MB are free"):
        dry(tmp_path, cache={"also": ["z"]})
    with pytest.raises(RequestError, match=r"store=.*: keeping pattern takes up to"):
        dry(tmp_path)


def test_a_forecast_times_the_same_model_and_prompts_once(monkeypatch):
    """A screen has two stages, and a trial of SmolLM2 takes two seconds."""
    timed = []
    home = sys.modules[measured_once.__module__]
    monkeypatch.setattr(home, "seconds_per_row", lambda *pair: timed.append(pair) or 0.5)
    trial = measured_once()
    model, prompts, others = object(), object(), object()
    assert [trial(model, each) for each in (prompts, prompts, others)] == [0.5] * 3
    assert timed == [(model, prompts), (model, others)]
