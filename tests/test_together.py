"""Heads ablated together: sets that are kept, one head after another, and pairs, against plain Hugging Face forwards.

The naive loop is the reference: one plain forward for each prompt and set of heads, nothing of TransformerLens or the
engine in it (`plain`, and `test_kinds` for encoder-decoders).
"""

import json
from itertools import combinations

import numpy as np
import plain
import pytest
import test_kinds
from test_truth import circuit, planted
from thinned import most, seeds

import harness
from harness import study, sweep
from harness.ablation import ZERO
from harness.config import RequestError, RunSpec, SweepSpec, parse
from harness.hooks import Head
from harness.metrics import METRICS
from harness.models import random as random_models
from harness.results import manifest
from harness.sweep import SweepStage
from harness.sweep.greedy import GreedyStage

pytestmark = pytest.mark.usefixtures("padded")

TEXTS = ("When Mary and John went to the store", "a drink", "Then the garden, and a flower to the office")
NAMES = ("loss", "kl", "prob")


def everything(model, prompts, *sets, names=NAMES):
    """The effect of ablating each of these sets by plain forwards, [metric, prompt, set]."""
    clean, ablated = plain.ablated(model, prompts, sets, names)
    return ablated - clean[:, :, None]


def heads(names):
    return tuple(Head.parse(str(name)) for name in names)


# --- the numbers ------------------------------------------------------------------------------------------------


def test_a_set_that_is_kept_has_all_others_ablated(family):
    prompts = harness.load_prompts("inline", family, text=TEXTS)
    sets = {"two": ["L0H1", "L2H3"], "layer": ["L1"]}
    got = harness.ablate_heads(family, prompts, metrics=NAMES, kind="complement", sets=sets).data
    others = [[head for head in family.heads() if head not in family.heads(kept)] for kept in sets.values()]
    np.testing.assert_allclose(got.set_effect.values, everything(family, prompts, *others), atol=1e-4)
    assert got.set_effect["set"].values.tolist() == ["two", "layer"]
    assert got.set_effect.attrs["together"] == "all heads but those of a set, which is kept"


@pytest.mark.parametrize("kind", ["set", "complement"])
def test_random_sets_beside_named_ones_are_drawn_by_the_seed(tiny, kind):
    model = tiny()
    prompts, all_heads = harness.load_prompts("inline", model, text=TEXTS), model.heads()
    sets = {"two": ["L0H1", "L2H3"], "layer": ["L1"]}
    got = harness.ablate_heads(model, prompts, metrics=NAMES, kind=kind, sets=sets, n_random_sets=3).data
    rng = np.random.default_rng(0)
    drawn = [sorted(rng.choice(len(all_heads), n, replace=False)) for n in [2] * 3 + [4] * 3]
    assert len({tuple(each) for each in drawn}) > 4
    taken = [[head for at, head in enumerate(all_heads) if (at in each) == (kind == "set")] for each in drawn]
    want = everything(model, prompts, *taken).reshape(3, 3, 2, 3)
    np.testing.assert_allclose(got.random_set_effect.transpose("metric", "prompt", "set", "draw"), want, atol=1e-4)
    alone = harness.ablate_heads(model, prompts, metrics=NAMES, kind=kind, sets=sets).data
    np.testing.assert_allclose(got.set_effect, alone.set_effect, atol=1e-6)
    assert "random_set_effect" not in alone


def test_heads_that_are_not_asked_for_are_kept_too(tiny):
    model = tiny()
    prompts = harness.load_prompts("inline", model, text=TEXTS)
    got = harness.ablate_heads(
        model, prompts, metrics=["loss"], heads=["L0", "L1H3"], kind="complement", sets={"a": ["L0H1", "L2H0"]}
    ).data
    others = heads(["L0H0", "L0H2", "L0H3", "L1H3"])
    np.testing.assert_allclose(got.set_effect.values, everything(model, prompts, others, names=["loss"]), atol=1e-4)


def test_each_step_of_each_order_has_all_its_heads_ablated(family):
    prompts = harness.load_prompts("inline", family, text=TEXTS)
    order = ["effect", "greedy", "random"]
    got = harness.ablate_heads(
        family,
        prompts,
        metrics=NAMES,
        kind="cumulative",
        order=order,
        n_random_orders=2,
        max_heads=5,
        heads=["L0", "L2"],
    ).data
    assert got.cumulative_effect.dims == ("metric", "prompt", "order", "step")
    assert got["order"].values.tolist() == ["effect", "greedy", "random 1", "random 2"]
    assert got["step"].values.tolist() == [1, 2, 3, 4, 5]
    for name in got["order"].values:
        chosen = heads(got.cumulative_head.sel(order=name).values)
        assert len({*chosen}) == 5
        assert {*chosen} <= {*family.heads(["L0", "L2"])}
        want = everything(family, prompts, *(chosen[:step] for step in range(1, 6)))
        np.testing.assert_allclose(got.cumulative_effect.sel(order=name).values, want, atol=1e-4)


@pytest.mark.parametrize("first", ["most_needed", "least_needed"])
def test_orders_are_those_of_the_leading_metric(tiny, first):
    model, way = tiny("gpt2"), 1 if first == "most_needed" else -1
    prompts = harness.load_prompts("ioi", model, n=5)
    options = {"order": ["effect", "greedy"], "max_heads": "all", "order_from": first}
    got = harness.ablate_heads(model, prompts, metrics=["loss", "logit_diff"], kind="cumulative", **options).data
    alone = everything(model, prompts, *((head,) for head in model.heads()), names=["logit_diff"])[0].mean(0)
    ranked = [str(model.heads()[at]) for at in np.argsort(way * alone, kind="stable")]
    assert got.cumulative_head.sel(order="effect").values.tolist() == ranked
    assert got.cumulative_effect.attrs["ordered_by"] == "logit_diff"

    taken, left = (), [*model.heads()]
    for chosen in got.cumulative_head.sel(order="greedy").values:
        beside = everything(model, prompts, *((*taken, head) for head in left), names=["logit_diff"])[0].mean(0)
        best = left[int((way * beside).argmin())]
        assert str(best) == chosen
        taken, left = (*taken, best), [head for head in left if head != best]
    assert got.greedy_head.values.tolist() == [str(head) for head in taken]


def test_where_nobody_knows_which_way_is_better_the_size_decides(tiny):
    model = tiny()
    prompts = harness.load_prompts("inline", model, text=TEXTS)

    def least_likely(read):
        return read.log_prob.min(-1).values

    got = harness.ablate_heads(
        model, prompts, metrics=least_likely, kind="cumulative", order="effect", max_heads="all"
    ).data
    size = abs(got.effect.mean("prompt")[0]).values.ravel()
    assert got.cumulative_head.values[0].tolist() == [str(model.heads()[at]) for at in np.argsort(-size)]


def test_random_orders_are_of_the_seed_and_of_nothing_else(tiny):
    model = tiny()
    prompts = harness.load_prompts("ioi", model, n=3)

    def orders(seed, n=3):
        asked = SweepSpec(kind=("cumulative",), order=("random",), n_random_orders=n, max_heads="all")
        (stage,) = stages_of(model, prompts, asked, seed)
        return stage.plan()["orders"]

    assert orders(0) == {name: order for name, order in orders(0, n=5).items() if name in orders(0)}
    assert orders(0) != orders(1)
    assert len({tuple(order) for order in orders(0).values()}) == 3
    assert all(sorted(order) == sorted(map(str, model.heads())) for order in orders(0).values())


def test_pairs_their_sums_and_what_is_beyond(family):
    prompts = harness.load_prompts("inline", family, text=TEXTS)
    got = harness.ablate_heads(family, prompts, metrics=NAMES, kind="pairs", pairs="all", heads=["L0", "L2H1"]).data
    pairs = [heads(pair) for pair in zip(got.head_a.values, got.head_b.values, strict=True)]
    assert len({*pairs}) == 10
    joint = everything(family, prompts, *pairs)
    alone = everything(family, prompts, *((head,) for pair in pairs for head in pair))
    alone = alone.reshape(*joint.shape, 2).sum(-1)
    np.testing.assert_allclose(got.pair_effect.values, joint, atol=1e-4)
    np.testing.assert_allclose(got.pair_sum.values, alone, atol=1e-4)
    np.testing.assert_allclose(got.pair_difference.values, joint - alone, atol=2e-4)
    assert "effect" not in got


@pytest.mark.parametrize("by", ["effect", "direct"])
def test_pairs_of_the_heads_with_the_largest_effects(tiny, by):
    model = tiny("gpt2")
    prompts = harness.load_prompts("ioi", model, n=5)
    got = harness.ablate_heads(model, prompts, kind="pairs", pairs=by, pairs_top_k=4).data
    size = abs(got[by].sel(metric="logit_diff").mean("prompt")).values.ravel()
    top = {str(model.heads()[at]) for at in np.argsort(-size)[:4]}
    assert {*got.head_a.values} | {*got.head_b.values} == top
    assert got.sizes["pair"] == 6


def test_pairs_that_are_named_each_once_and_in_the_order_in_which_they_run(tiny):
    model = tiny()
    prompts = harness.load_prompts("ioi", model, n=2)
    named = [["L2H0", "L0H1"], [Head(0, 1), Head(2, 0)], ["L1H1", "L1H0"]]
    got = harness.ablate_heads(model, prompts, kind="pairs", pairs=named).data
    assert [*zip(got.head_a.values, got.head_b.values, strict=True)] == [("L0H1", "L2H0"), ("L1H0", "L1H1")]


@pytest.mark.parametrize("ablation", ["mean", "resample"])
def test_other_ablations_are_those_of_named_sets(tiny, ablation):
    model = tiny("mistral")
    prompts = harness.load_prompts("ioi", model, n=5)
    both = ["L0H1", "L2H3"]
    pair = harness.ablate_heads(model, prompts, ablation, kind="pairs", pairs=[both]).data
    options = {"order": "random", "n_random_orders": 1}
    steps = harness.ablate_heads(model, prompts, ablation, kind="cumulative", heads=both, **options).data
    together = harness.ablate_heads(model, prompts, ablation, kind="set", sets={"both": both}).data
    np.testing.assert_allclose(pair.pair_effect.values, together.set_effect.values, atol=1e-6)
    np.testing.assert_allclose(steps.cumulative_effect.values[:, :, 0, 1:], together.set_effect.values, atol=1e-6)


@pytest.mark.parametrize("chunk", most([5, 1, 100], 1))
def test_the_size_of_a_chunk_changes_nothing(tiny, chunk):
    model = tiny("qwen3")
    prompts = harness.load_prompts("inline", model, text=TEXTS)
    asked = SweepSpec(kind=("cumulative", "pairs"), order=("random",), n_random_orders=2, pairs="all")
    for stage in stages_of(model, prompts, asked):
        assert not isinstance(stage, GreedyStage)
        plan = stage.plan()
        whole = stage.compute(plan, 0)["ablated"]
        np.testing.assert_allclose(stage.compute(plan | {"chunks": [chunk]}, 0)["ablated"], whole, atol=1e-6)


def stages_of(model, prompts, asked, seed=0):
    return sweep.stages(model, prompts, asked, "all", (METRICS["loss"],), ZERO, "all", seed)


@pytest.fixture(scope="module")
def t5(tiny):
    """An encoder-decoder, the same weights in a plain one, and prompts of unequal lengths."""
    model, twin = tiny("t5"), random_models.build("t5", 0)[0].eval()
    texts, written = test_kinds.READ["padded"], test_kinds.WRITTEN["padded"]
    return model, twin, harness.load_prompts("inline", model, text=texts, target=written)


def across(t5, *sets):
    """The effect of ablating each of these sets in an encoder-decoder by plain forwards, [metric, prompt, set]."""
    model, twin, prompts = t5
    rows = [
        [test_kinds.ablated(model, twin, prompts, row, chosen, None) for chosen in ((), *sets)]
        for row in range(len(prompts))
    ]
    values = np.array(rows).transpose(2, 0, 1)
    return values[:, :, 1:] - values[:, :, :1]


def test_heads_of_an_encoder_decoder_are_named_with_their_stack(t5):
    model, _, prompts = t5
    names, chosen = test_kinds.names_of(model), ["encoder.L0H1", "decoder.L1H3", "cross.L0H0", "cross.L1H2"]
    asked = {"metrics": names, "heads": chosen}
    pairs = harness.ablate_heads(model, prompts, kind="pairs", pairs="all", **asked).data
    ends = [heads(pair) for pair in zip(pairs.head_a.values, pairs.head_b.values, strict=True)]
    assert ends == list(combinations(heads(chosen), 2))
    np.testing.assert_allclose(pairs.pair_effect.values, across(t5, *ends), atol=1e-4)
    steps = harness.ablate_heads(model, prompts, kind="cumulative", order=["effect", "greedy"], **asked).data
    for name in ("effect", "greedy"):
        order = heads(steps.cumulative_head.sel(order=name).values)
        want = across(t5, *(order[:step] for step in range(1, 5)))
        np.testing.assert_allclose(steps.cumulative_effect.sel(order=name).values, want, atol=1e-4)
    kept = harness.ablate_heads(model, prompts, kind="complement", sets={"cross": ["cross"]}, metrics=names).data
    others = [head for head in model.heads() if head.stack != "cross"]
    np.testing.assert_allclose(kept.set_effect.values, across(t5, others), atol=1e-4)


# --- what was planted -------------------------------------------------------------------------------------------


SEEDS = seeds(5, first=2)


@pytest.mark.parametrize("seed", SEEDS)
def test_of_all_pairs_the_redundant_one_stands_out(seed):
    model, prompts = planted("redundant", seed, n=4)
    got = harness.ablate_heads(model, prompts, metrics=["loss"], kind="pairs", pairs="all").data
    pairs = [heads(pair) for pair in zip(got.head_a.values, got.head_b.values, strict=True)]
    beyond = dict(zip(pairs, got.pair_difference.mean("prompt").values[0], strict=True))
    redundant = tuple(model.truth["redundant"])
    assert len(pairs) == 66
    assert beyond.pop(redundant) > 3
    assert max(map(abs, beyond.values())) < 1e-3
    assert float(abs(got.pair_sum).max()) < 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_the_planted_circuit_alone_is_enough_and_half_of_it_is_not(seed):
    model, prompts = planted("sharp", seed, n=4)
    (previous,), (induction,) = model.truth["previous_token"], model.truth["induction"]
    sets = {"circuit": [previous, induction], "previous": [previous], "induction": [induction]}
    kept = harness.ablate_heads(model, prompts, metrics=["loss"], kind="complement", sets=sets).data.set_effect[0]
    assert float(abs(kept.sel(set="circuit")).max()) < 1e-6
    assert float(kept.sel(set=["previous", "induction"]).min()) > 1


def test_what_else_a_circuit_needs_to_be_enough():
    """One head of each kind where there are spare ones; the positional head where it is needed."""
    model, prompts = planted("redundant", 0, n=4)
    spare = {"one of each": [model.truth["previous_token"][1], model.truth["induction"][1]]}
    kept = harness.ablate_heads(model, prompts, metrics=["loss"], kind="complement", sets=spare).data
    assert float(abs(kept.set_effect).max()) < 0.1
    model, prompts = planted("positional", 0)
    sets = {"circuit": circuit(model), "all": circuit(model) | {*model.truth["positional"]}}
    kept = harness.ablate_heads(model, prompts, metrics=["loss"], kind="complement", sets=sets).data.set_effect[0]
    assert float(kept.sel(set="circuit").mean()) > 0.05
    assert float(abs(kept.sel(set="all")).max()) < 1e-6


@pytest.mark.parametrize("variant", most(["sharp", "soft"], 1))
@pytest.mark.parametrize("seed", most(range(3), 1))
def test_the_circuit_is_ablated_first_or_last(variant, seed):
    model, prompts = planted(variant, seed, n=4)
    options = {"kind": "cumulative", "order": ["effect", "greedy"], "max_heads": "all", "metrics": ["loss"]}
    got = harness.ablate_heads(model, prompts, **options).data
    assert {*heads(got.cumulative_head.sel(order="effect").values[:2])} == circuit(model)
    assert heads(got.cumulative_head.sel(order="greedy").values[:1])[0] in circuit(model)
    last = harness.ablate_heads(model, prompts, order_from="least_needed", **options).data
    assert {*heads(last.cumulative_head.sel(order="effect").values[-2:])} == circuit(model)
    assert {*heads(last.cumulative_head.sel(order="greedy").values[-2:])} == circuit(model)
    curve = last.cumulative_effect.mean("prompt")[0].values
    assert np.abs(curve[:, :10]).max() < (1e-6 if variant == "sharp" else 0.3)
    assert curve[:, 10:].min() > 1


# --- a run ------------------------------------------------------------------------------------------------------


EVERY = {
    "kind": ["pairs", "cumulative"],
    "order": ["effect", "greedy", "random"],
    "n_random_orders": 2,
    "max_heads": 4,
    "pairs_top_k": 3,
}


def asked(**changes):
    values = {"model": {"name": "random", "source": "random"}, "prompts": {"name": "ioi", "n": 12}}
    return parse(RunSpec, {**values, "sweep": EVERY, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return study.run("ablate_heads", asked(), study.Place(str(tmp_path_factory.mktemp("runs"))), lambda *_: None)


def test_a_run_holds_what_the_library_gives_in_memory(finished, tiny):
    run, model = harness.open_run(finished), tiny()
    prompts = harness.load_prompts("ioi", model, n=12)
    for name, kind, keys in (
        ("pair_effect", "pairs", ("pairs_top_k",)),
        ("cumulative_effect", "cumulative", ("order", "n_random_orders", "max_heads")),
    ):
        got = harness.ablate_heads(model, prompts, kind=kind, **{key: EVERY[key] for key in keys}).data
        np.testing.assert_array_equal(run.data[name].values, got[name].values)
        assert run.data[name].attrs == got[name].attrs
    assert run.data.cumulative_head.values.tolist() == got.cumulative_head.values.tolist()
    assert {"effect", "pair_sum", "pair_difference", "head_a", "head_b"} <= {*run.data.variables}
    assert [path.name for path in sorted((finished / "stages").iterdir())] == [
        *("sweep", "sweep_cumulative", "sweep_greedy", "sweep_pairs"),
    ]


def test_the_checks_of_all_stages_are_counted(finished):
    """12 single heads; 3 pairs and their 3 heads; each greedy step's candidates with those before; 4 orders of 4."""
    greedy = sum((12 - step) * (step + 1) for step in range(4))
    once = 12 + (3 + 6) + greedy + 4 * (1 + 2 + 3 + 4)
    batches = len(json.loads((finished / "stages/sweep/plan.json").read_text())["batches"])
    assert manifest.read_manifest(finished)["intervention_check"]["edits_verified"] == once * batches


@pytest.mark.parametrize("which", most([2, 5, 13, 4, 8], 2))
def test_a_failed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, finished, which):
    """It fails in each stage: 2 units of single heads, 2 of pairs, 4 greedy steps of 2 batches, 2 of the orders."""
    monkeypatch.setattr("harness.study.record.draw", lambda run: None)
    calls, compute = [], SweepStage.compute

    def failing(self, plan, unit):
        calls.append(unit)
        if len(calls) == which:
            raise RuntimeError("lightning")
        return compute(self, plan, unit)

    monkeypatch.setattr(SweepStage, "compute", failing)
    with pytest.raises(RuntimeError, match="lightning"):
        study.run("ablate_heads", asked(), study.Place(run=str(tmp_path / "run")), lambda *_: None)
    study.run("ablate_heads", asked(), study.Place(resume=str(tmp_path / "run")), lambda *_: None)
    assert len(calls) <= 14 + 2  # what was there was not done again, but for the greedy step that failed
    run, whole = harness.open_run(tmp_path / "run").data, harness.open_run(finished).data
    for name in whole.variables:
        np.testing.assert_array_equal(run[name].values, whole[name].values)
    for stage in ("sweep_pairs", "sweep_greedy", "sweep_cumulative"):
        plans = [(folder / "stages" / stage / "plan.json").read_bytes() for folder in (tmp_path / "run", finished)]
        assert plans[0] == plans[1]


def test_a_forecast_says_that_single_heads_come_first(tmp_path):
    said = []
    place = study.Place(str(tmp_path), dry_run=True)
    assert study.run("ablate_heads", asked(), place, lambda *_: None, said.append) is None
    named = {line.partition(":")[0]: line for line in said}
    assert list(named) == ["sweep", "sweep_pairs", "sweep_greedy", "sweep_cumulative"]
    assert "(single heads first: sweep.kind=pairs and cumulative needs their effects)" in named["sweep"]
    counts = {"sweep": 12, "sweep_pairs": 6, "sweep_greedy": 12 + 11 + 10 + 9, "sweep_cumulative": 16}
    for name, n in counts.items():
        assert f"× {n} interventions" in named[name]
    study.run("ablate_heads", asked(sweep={"kind": "pairs", "pairs": "all"}), place, lambda *_: None, said.append)
    assert said[-1].startswith("sweep_pairs: 12 prompts (12 rows) × 78 interventions")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "complement"}, "sets={}: name at least one set"),
        ({"n_random_sets": 2}, "sweep.kind=single: it does not read n_random_sets, so set sweep.kind=set"),
        ({"kind": "set", "sets": {"a": ["all"]}, "n_random_sets": 2}, "n_random_sets=2: the set a has 12 heads, and"),
        (
            {"kind": "set", "sets": {"a": ["L0H1"], "a random 0": ["L1"]}, "n_random_sets": 1},
            "sets.a random 0=L1H0,L1H1,L1H2,L1H3: a random set has this name",
        ),
        ({"kind": "complement", "sets": {"a": ["L0", "L1", "L2"]}}, "sets=a: it keeps all heads of the request"),
        (
            {"kind": ["set", "complement"], "sets": {"a": ["L0"]}},
            "sweep.kind=set,complement: both are set_effect of",
        ),
        ({"kind": "cumulative", "order": "efect"}, "did you mean 'effect'?"),
        ({"kind": "cumulative", "order": []}, "sweep.order=[]: "),
        ({"kind": "cumulative", "order": "estimate"}, "sweep.order=estimate: only sweep.method=screen makes estimates"),
        (
            {"kind": "cumulative", "max_heads": 1.5},
            "sweep.max_heads=1.5: known: all, or a number of heads (20)",
        ),
        ({"kind": "cumulative", "max_heads": True}, "sweep.max_heads=True: "),
        ({"kind": "cumulative", "order_from": "most"}, "sweep.order_from=most: known: most_needed, least_needed"),
        ({"kind": "cumulative", "positions": "each"}, "ablation.positions=each: sweep.kind=cumulative takes all"),
        ({"kind": "pairs", "pairs": "role"}, "sweep.pairs=role: this run scored no roles"),
        ({"kind": "pairs", "pairs": [["L0H1"]]}, "or a list of pairs such as [[L0H1,L1H2]]"),
        ({"kind": "pairs", "pairs": [["L0H1", "L9H0"]]}, "sweep.pairs=L9H0: L9H0 is outside random"),
        ({"kind": "pairs", "pairs": [["L0H1", "L0H1"]]}, "sweep.pairs=L0H1+L0H1: a pair is two different heads"),
        ({"kind": "pairs", "pairs_top_k": 1}, "sweep.pairs_top_k=1: input should be greater than or equal to 2"),
        ({"kind": "pairs", "heads": ["L0H1"]}, "heads=L0H1: a pair is of two heads"),
        ({"max_heads": 3}, "sweep.kind=single: it does not read sweep.max_heads, so set sweep.kind=cumulative"),
        ({"kind": "cumulative", "pears": 3}, "sweep.pears=3: there is no such key; did you mean 'pairs'?"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(tiny, given, says):
    with pytest.raises(RequestError) as error:
        harness.ablate_heads(tiny(), harness.load_prompts("ioi", tiny(), n=2), **given)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_pairs_by_direct_effect_need_a_model_that_has_them(tiny):
    model = tiny("bert")
    prompts = harness.load_prompts("inline", model, text=["a drink to Mary"])
    with pytest.raises(RequestError, match="sweep.pairs=direct: these heads of random have no direct effect"):
        harness.ablate_heads(model, prompts, kind="pairs", pairs="direct")
