"""Edges: path patching from a head to a later head's query, key or value, or to an MLP, against plain hooks."""

import json
import re

import families
import numpy as np
import pytest
import torch
import xarray as xr
from paths import Paths
from plain import twin
from thinned import seeds

import harness
from harness.config import EdgesSpec, RequestError, SweepSpec
from harness.execute import run_in_memory, run_stage
from harness.execute.protocols import make_unit
from harness.hooks import Head, Mlp
from harness.metrics import choose
from harness.results.objects import folder_at
from harness.results.store import StageFolder
from harness.sweep import build
from harness.sweep.edges.edge import Edge, edges_of
from harness.sweep.edges.halves import halves
from harness.sweep.edges.stage import SCREENED, EdgesStage
from harness.views import edge_section

TEXTS = ("When Mary and John went to the store, John gave a drink to", "Then Tom and Anna sat, and Tom spoke to")
EVERY_INPUT = ["q", "k", "v", "qkv", "mlp"]
EXACT = 1e-5


@pytest.fixture(scope="module")
def model():
    """Three layers, so that a component stands between sender and receiver."""
    return harness.load_model("random", shape="gpt2")


@pytest.fixture(scope="module")
def prompts(model):
    """Two prompts of different lengths, padded in one batch."""
    answers, distractors = (" Mary", " Anna"), (" John", " Tom")
    return harness.load_prompts("inline", model, text=TEXTS, answer=answers, distractor=distractors)


def measured(model, prompts, edges, ablation="zero", heads="all", **keys):
    return harness.ablate_heads(
        model, prompts, ablation, metrics=["logit_diff"], heads=heads, kind="edges", edges=edges, **keys
    ).data


def effects(data, of="edge_effect", metric="logit_diff"):
    """Effects [prompt] by sender, receiver and input."""
    names = zip(data["sender"].values, data["receiver"].values, data["into"].values, strict=True)
    return dict(zip(names, data[of].sel(metric=metric).values.T, strict=True))


# --- exact effects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mlps", ["frozen", "recomputed"])
def test_an_edge_over_a_layer_between_is_that_of_plain_hooks(model, prompts, mlps):
    edges = {"mlps": mlps, "into": EVERY_INPUT, "receivers": ["L1H0", "L2H2"]}
    mine = effects(measured(model, prompts, edges, heads=["L0H1"]))
    plain = families.Plain("gpt2", twin("gpt2"))
    assert len(mine) == 10
    for row, length in enumerate(prompts.length):
        answer, distractor = int(prompts.answer[row].item()), int(prompts.distractor[row].item())
        paths = Paths(plain, prompts.token_id[row, :length])
        for (_, receiver, into), value in mine.items():
            to = (int(receiver[1]), None if into == "mlp" else int(receiver[3]))
            changed = paths.edge((0, 1), to, into, mlps == "recomputed") - paths.clean_logits
            assert value[row] == pytest.approx(float(changed[answer] - changed[distractor]), abs=EXACT)
    assert np.abs(list(mine.values())).min(axis=1).max() > 100 * EXACT


def test_what_is_between_makes_a_difference(model, prompts):
    edges = {"into": ["k"], "receivers": ["L2"]}
    frozen, recomputed = (effects(measured(model, prompts, {**edges, "mlps": how})) for how in ("frozen", "recomputed"))
    assert all((np.abs(frozen[name] - recomputed[name]) > EXACT).any() == (name[0] < "L2") for name in frozen)


def test_an_unchanged_sender_changes_no_receiver(model, prompts):
    same = measured(model, prompts, {"into": EVERY_INPUT}, ablation={"name": "scale", "factor": 1.0})
    assert np.abs(same["edge_effect"]).max() < 1e-6
    assert np.abs(same["edge_estimate"]).max() < 1e-6


def test_a_position_is_the_only_one_that_a_sender_changes(model, prompts):
    """The sender's z at the first token alone: the queries, and the MLP, of the last token read nothing of it."""
    last = measured(model, prompts, {"into": ["q", "k", "v", "mlp"], "receivers": ["L2"]}, positions=[0])
    by_into = abs(last["edge_effect"]).max(["metric", "prompt"]).groupby("into").max()
    assert float(by_into.sel(into="k")) > EXACT
    assert float(by_into.sel(into="v")) > EXACT
    first = measured(model, prompts, {"into": ["k", "v"], "receivers": ["L2"]}, positions="last")
    assert np.isfinite(first["edge_effect"]).all()


# --- estimates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_an_estimate_is_the_effect_of_a_small_change(shape):
    model = harness.load_model("random", shape=shape)
    prompts = harness.load_prompts("ioi", model, n=3)
    data = measured(model, prompts, {"into": EVERY_INPUT, "top_k": 1000}, {"name": "scale", "factor": 0.999})
    effect, estimate = data["edge_effect"].values, data["edge_estimate"].values
    assert np.abs(effect).max() > 1e-4
    np.testing.assert_allclose(estimate, effect, atol=0.01 * np.abs(effect).max())
    assert np.corrcoef(estimate.ravel(), effect.ravel())[0, 1] > 0.999


def test_estimates_along_the_path_are_those_of_plain_autograd(model, prompts):
    """Two points, all senders (the last layer has none) clean and all halved, of one edge, by torch alone."""
    edges = {"into": ["v"], "top_k": 1000}
    mine = effects(measured(model, prompts, edges, gradient_steps=2), "edge_estimate")["L0H1", "L1H2", "v"]
    for row, length in enumerate(prompts.length):
        tokens = torch.as_tensor(prompts.token_id[row, :length])
        answer, distractor = int(prompts.answer[row].item()), int(prompts.distractor[row].item())
        by_point = [_by_autograd(tokens, answer, distractor, scale) for scale in (1.0, 0.5)]
        assert mine[row] == pytest.approx(np.mean(by_point), abs=EXACT)


def _by_autograd(tokens, answer, distractor, scale):
    """Δ of L0H1 times the derivative of the logit difference by what the value of L1H2 reads, z times `scale` before
    the last layer."""
    plain, kept = twin("gpt2"), {}
    outputs = [block.attn.c_proj for block in plain.transformer.h]
    width = outputs[0].weight.shape[0]
    d = width // plain.config.n_head

    def halve(module, args):
        kept[module, "raw"] = args[0]
        kept[module] = scale * args[0]
        return (kept[module],)

    def keep(module, args):
        kept["stream"] = args[0]

    def keep_output(module, args, out):
        kept["qkv"] = out

    block = plain.transformer.h[1]
    handles = [output.register_forward_pre_hook(halve) for output in outputs[:2]]
    handles += [block.ln_1.register_forward_pre_hook(keep), block.attn.c_attn.register_forward_hook(keep_output)]
    with torch.enable_grad():
        logits = plain(tokens[None]).logits[0, -1]
    for handle in handles:
        handle.remove()
    lead = logits[answer] - logits[distractor]
    by_z = torch.autograd.grad(lead, kept[outputs[1]], retain_graph=True)[0]
    own = torch.zeros_like(by_z)
    own[..., 2 * d : 3 * d] = by_z[..., 2 * d : 3 * d]
    by_qkv = torch.autograd.grad(kept[outputs[1], "raw"], kept["qkv"], own, retain_graph=True)[0]
    by_qkv[..., : 2 * width] = 0
    by_stream = torch.autograd.grad(kept["qkv"], kept["stream"], by_qkv)[0]
    with torch.no_grad():
        clean = []
        handle = outputs[0].register_forward_pre_hook(lambda _, args: clean.append(args[0]))
        plain(tokens[None])
        handle.remove()
        moved = -clean[0][..., d : 2 * d] @ outputs[0].weight[d : 2 * d]
    return float((moved * by_stream).sum())


def test_the_largest_estimates_by_each_metric_in_turn_are_measured(model):
    prompts = harness.load_prompts("ioi", model, n=12)
    keys = {"metrics": ["loss", "logit_diff"], "kind": "edges"}
    data = harness.ablate_heads(model, prompts, edges={"top_k": 5, "into": ["v"]}, **keys).data
    every = harness.ablate_heads(model, prompts, edges={"top_k": 1000, "into": ["v"]}, **keys).data
    choosing = data["edge_half"].values != "test"
    size = abs(every["edge_estimate"].isel(prompt=choosing).mean("prompt"))
    names = list(zip(*(every[name].values for name in ("sender", "receiver", "into")), strict=True))
    ranks = [np.argsort(-size.sel(metric=metric).values) for metric in ("loss", "logit_diff")]
    want = dict.fromkeys(names[at] for turn in zip(*ranks, strict=True) for at in turn)
    assert {*effects(data)} == {*list(want)[:5]}
    assert 0 < choosing.sum() < 12
    alone = effects(every)
    for name, value in effects(data).items():
        np.testing.assert_allclose(value, alone[name], atol=1e-6)
    np.testing.assert_allclose(data["edge_estimate_mean"], every["edge_estimate"].mean("prompt"), atol=1e-6)


# --- selection and tests ----------------------------------------------------------------------------------------------


def test_clusters_go_to_one_half_whole():
    clusters = [f"{number % 9}" for number in range(30)]
    half = halves(clusters, seed=3, chosen=True)
    by_cluster = {cluster: {*half[[at for at, each in enumerate(clusters) if each == cluster]]} for cluster in clusters}
    assert all(len(values) == 1 for values in by_cluster.values())
    assert sorted(value for (value,) in by_cluster.values()) == ["choose"] * 4 + ["test"] * 5
    assert not np.array_equal(half, halves(clusters, seed=4, chosen=True))


@pytest.mark.parametrize(("n_clusters", "chosen", "value"), [(7, True, "both"), (8, False, "test")])
def test_few_clusters_do_both_and_edges_that_are_all_measured_need_no_choice(n_clusters, chosen, value):
    assert {*halves([str(number) for number in range(n_clusters)], 0, chosen)} == {value}


def test_what_the_testing_half_shows_chooses_no_edge(model):
    """An estimate that is large on the testing half alone is not measured."""
    prompts = harness.load_prompts("ioi", model, n=8)
    stage = _stages(model, prompts, top_k=1)[1]
    half = halves(prompts.cluster, stage.sweep.seed, chosen=True)
    estimate = np.zeros((1, 8, len(stage.edges)))
    estimate[0, half == "test", 0], estimate[0, half == "choose", 1] = 100, 1
    done = xr.Dataset({SCREENED: (("metric", "prompt", "candidate"), estimate)})
    assert stage.plan(done)["edges"] == [[*stage.edges[1].names]]


def test_the_table_is_of_the_testing_half(model):
    prompts = harness.load_prompts("ioi", model, n=12)
    found = harness.ablate_heads(model, prompts, metrics="loss", kind="edges", edges={"top_k": 6})
    table, tested = found.edges, found.data["edge_half"].values == "test"
    values = found.data["edge_effect"].values[0][tested]
    want = harness.stats.summarize(
        values[:, None, :],
        clusters=np.array(prompts.cluster)[tested],
        min_effect=0.05 * float(found.data["clean"].values[0][tested].mean()),
    )
    assert table["n_prompts_tested"].tolist() == [tested.sum()] * 6
    assert table["n_clusters_tested"].tolist() == [len({*np.array(prompts.cluster)[tested]})] * 6
    for mine, theirs in (("effect_mean", "effect_mean"), ("p_adjusted", "p_adjusted"), ("ci_low", "ci_low")):
        np.testing.assert_allclose(table[mine], want[theirs], atol=1e-9)
    np.testing.assert_allclose(table["estimate"], found.data["edge_estimate"].values[0][tested].mean(0), atol=1e-6)


def test_a_table_without_halves_says_so(model):
    prompts = harness.load_prompts("ioi", model, n=3)
    found = harness.ablate_heads(model, prompts, metrics="loss", kind="edges", edges={"top_k": 6})
    assert "on the prompts that chose them" in found._closed.data["edge_effect"].attrs["note"]
    assert found.edges["n_prompts_tested"].tolist() == [3] * 6


# --- a known answer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", seeds(20, first=2))
def test_the_planted_path_is_the_only_edge_that_matters(seed):
    """The previous-token head writes what the induction head's key reads. (Of a clean loss of 0.0003 a change of 3e-5
    is important too, so sizes are compared.)"""
    model = harness.load_model("planted", seed=seed)
    prompts = harness.load_prompts("induction", model, n=16, seed=seed)
    found = harness.ablate_heads(model, prompts, metrics="loss", kind="edges", edges={"top_k": 12})
    (sender,), (receiver,) = model.truth["previous_token"], model.truth["induction"]
    best, *others = found.edges.sort_values("rank").to_dict("records")
    assert (best["sender"], best["receiver"], best["into"]) == (str(sender), str(receiver), "k")
    assert best["important"]
    assert best["effect_mean"] > 3
    assert max(abs(other["effect_mean"]) for other in others) < 1e-4


# --- the stages -------------------------------------------------------------------------------------------------------


def _stages(model, prompts, ablation="zero", memory=None, **edges):
    made, where = harness.ablation.build(ablation, model, prompts)
    spec = SweepSpec(kind=("edges",), memory=memory)
    every = EdgesSpec(into=("q", "v", "mlp"), **edges)
    return build.stages(model, prompts, spec, "all", choose(["loss"], prompts), made, where, edges=every)


def test_a_frozen_plan_and_any_chunks_give_the_same_values(model):
    """Resumed and spread over workers, units come from the plan that was frozen; and memory is no part of a value."""
    prompts = harness.load_prompts("ioi", model, n=9)
    data = []
    for memory in (None, 0.0004):
        screen, stage = _stages(model, prompts, {"name": "resample", "draws": 2}, memory, top_k=7)
        plan = json.loads(json.dumps(screen.plan()))
        units = [screen.compute(plan, unit) for unit in reversed(range(len(plan["batches"])))]
        done = screen.assemble(plan, units[::-1])
        frozen = json.loads(json.dumps(stage.plan(done)))
        fresh = _stages(model, prompts, {"name": "resample", "draws": 2}, memory, top_k=7)[1]
        made = [fresh.compute(frozen, unit) for unit in range(len(frozen["batches"]))]
        data.append((done, stage.assemble(frozen, made), plan["rows"]))
    (first, one, rows), (second, other, fewer) = data
    assert sum(fewer) < sum(rows)
    np.testing.assert_allclose(first[SCREENED], second[SCREENED], atol=1e-5)
    np.testing.assert_allclose(one["edge_effect"], other["edge_effect"], atol=1e-5)
    assert one["sender"].values.tolist() == other["sender"].values.tolist()
    assert int(one["edge_effect"].attrs["edits_verified"]) >= 7 * 9 // max(rows)


def test_a_stage_that_died_goes_on_where_it_was(model, tmp_path):
    prompts = harness.load_prompts("ioi", model, n=9)
    screen, stage = _stages(model, prompts, top_k=4)
    done = run_in_memory(screen)
    folder = StageFolder(folder_at(tmp_path))
    plan = folder.freeze(stage.plan(done))
    assert len(plan["batches"]) > 1
    make_unit(stage, folder, plan, 0)
    before = stage.sweep.check.fired
    resumed = run_stage(stage, folder, lambda *_: None, done)
    assert stage.sweep.check.fired - before < int(resumed["edge_effect"].attrs["edits_verified"])
    xr.testing.assert_identical(resumed, run_in_memory(_stages(model, prompts, top_k=4)[1], done))


def test_edges_run_beside_single_heads(model, prompts):
    found = harness.ablate_heads(model, prompts, metrics="loss", kind=["single", "edges"], edges={"top_k": 3})
    assert {"effect", "edge_effect"} <= set(found.data)
    assert isinstance(_stages(model, prompts)[1], EdgesStage)


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_graph_has_a_line_for_each_edge_and_a_node_for_each_end(model):
    prompts = harness.load_prompts("ioi", model, n=8)
    found = harness.ablate_heads(model, prompts, metrics="loss", kind="edges", edges={"top_k": 9})
    shown = edge_section.graph_and_table(found._whole)
    lines = re.findall(r'<g class="(.*?)" tabindex="0" role="img" aria-label="(.*?)">.*?stroke-width: ([\d.]+)', shown)
    table = found.edges.sort_values("rank").iloc[::-1].reset_index(drop=True)
    assert len(lines) == 9
    widths = [float(width) for *_, width in lines]
    assert widths == sorted(widths)
    assert widths[-1] == 9.0
    for (side, label, _), (_, row) in zip(lines, table.iterrows(), strict=True):
        assert label.startswith(f"{row['sender']} into ")
        assert f"{row['receiver']}: {'+' if row['effect_mean'] > 0 else '−'}" in label
        assert side == ("helps" if row["effect_mean"] > 0 else "hurts")
    assert shown.count("<rect ") == len({*table["sender"], *table["receiver"]})
    assert shown.count("stroke-dasharray") == int((table["p_adjusted"] >= 0.05).sum())
    sizes = abs(table["estimate"]), abs(table["effect_mean"])
    assert f"correlation of {sizes[0].corr(sizes[1], method='spearman'):.2f}".replace("-", "−") in shown


# --- requests ---------------------------------------------------------------------------------------------------------

BAD = [
    ({"heads": ["L2H1"], "edges": {"into": ["k"]}}, "no receiver is later than a sender (the first of which is L2H1)"),
    ({"heads": ["L1H1"], "edges": {"receivers": ["L0"]}}, "edges.receivers=L0H3: no receiver is later"),
    ({"edges": {"receivers": ["L9H0"]}}, "edges.receivers=L9H0: L9H0 is outside random"),
    ({"edges": {"top_k": 0}}, "edges.top_k=0: input should be greater than or equal to 1"),
    ({"edges": {"into": ["x"]}}, "edges.into.0=x: known: q, k, v, qkv, mlp"),
    ({"edges": {"mlps": "thawed"}}, "edges.mlps=thawed: known: frozen, recomputed"),
    ({"method": "screen"}, "sweep.method=screen: it is for single heads; set"),
    ({"method": "fast"}, "sweep.method=fast: it is for single heads; set"),
    ({"positions": "each"}, "ablation.positions=each: sweep.kind=edges takes all, last, target"),
    (
        {"kind": "single", "edges": {"top_k": 3}},
        "sweep.kind=single: it does not read edges.top_k, so set sweep.kind=edges",
    ),
    ({"kind": "single", "gradient_steps": 3}, "sweep.gradient_steps=3: sweep.method=exact does not read it"),
]


@pytest.mark.parametrize(("request_", "says"), BAD)
def test_a_wrong_request_names_key_value_and_remedy(model, prompts, request_, says):
    with pytest.raises(RequestError) as error:
        harness.ablate_heads(model, prompts, **{"metrics": "loss", "kind": "edges", **request_})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("shape", "kind"), [("bert", "masked-lm"), ("t5", "encoder-decoder")])
def test_models_with_an_encoder_are_refused(shape, kind):
    model = harness.load_model("random", shape=shape)
    prompts = harness.load_prompts(["a store"], model, **({"target": [" a drink"]} if shape == "t5" else {}))
    with pytest.raises(RequestError, match=f"sweep.kind=edges: edges are for decoder-only models, .* {kind}"):
        harness.ablate_heads(model, prompts, metrics="loss", kind="edges")


def test_an_edge_is_written_as_its_ends():
    assert str(Edge(Head(0, 1), Head(2, 3), "k")) == "L0H1→L2H3.k"
    assert str(Edge(Head(0, 1), Mlp(2), "mlp")) == "L0H1→L2.mlp"
    assert Edge.parse("L0H1", "L2.mlp", "mlp") == Edge(Head(0, 1), Mlp(2), "mlp")
    listed = edges_of([Head(0, 0), Head(1, 1)], [Head(0, 0), Head(1, 0)], ("k", "mlp"), {0: True, 1: False})
    assert [*map(str, listed)] == ["L0H0→L0.mlp", "L0H0→L1.mlp", "L0H0→L1H0.k"]
