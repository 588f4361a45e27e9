"""Baselines and positions against plain Hugging Face forwards, what must change nothing, and what is refused."""

import dataclasses
import json

import numpy as np
import plain
import pytest
import torch
from thinned import most

import harness
from harness import ablation, metrics
from harness.ablation import applied, donors, positions, zeros
from harness.config import RequestError
from harness.hooks import Head
from harness.metrics import choose
from harness.models import Inputs
from harness.results.store import StageFolder
from harness.sweep import SweepStage, groups

pytestmark = pytest.mark.usefixtures("padded")

FAMILIES = ("gpt2", "llama", "gemma3")
POOLED = {"name": "mean", "means": "pooled"}
BASELINES = (
    {"name": "mean"},  # first, so that the covering arrays have it with padding
    {"name": "zero"},
    {"name": "mean", "reference": "induction"},
    POOLED,
    {"name": "resample", "draws": 2, "seed": 3},
    {"name": "patch"},
)
PLACES = ("all", "last", "target", [0, 3, -2])
HEADS = [Head(0, 1), Head(1, 3), Head(2, 0)]
NAMES = ("loss", "kl", "logit_diff")


@pytest.fixture(params=FAMILIES)
def model(request, tiny):
    return tiny(request.param)


@pytest.fixture(params=["padded", "aligned"])
def prompts(request, model):
    """Prompts of unequal lengths, or those of the commonest one."""
    made = harness.load_prompts("ioi", model, n=5 if request.param == "padded" else 24)
    if request.param == "padded":
        assert len(set(made.length)) > 1
        return made
    return made.take(np.flatnonzero(made.length == np.bincount(made.length).argmax())[:4])


ONE, TWO = {"text": [" the store"]}, {"text": [" the store", " a drink to"]}


def twin_of(model):
    return plain.twin(model.spec.shape, model.spec.seed)


def tokens(prompts, row):
    return prompts.token_id[row, : prompts.length[row]]


def stage_of(model, prompts, asked, where=None, heads=HEADS, names=NAMES):
    made, at = ablation.build(asked, model, prompts)
    at = at if where is None else ablation.parse_positions(where)
    return SweepStage(model, prompts, groups(model, heads), choose(names, prompts), made, at)


# --- the reference: everything prompt by prompt, with plain forwards --------------------------------------------


def naive_replacements(model, twin, prompts, asked, row, plan):
    """What z of one prompt becomes, [layer, position, head, d_head], once for each draw (None is zero)."""
    n = prompts.length[row]
    match asked["name"]:
        case "zero":
            return [None]
        case "patch":
            return [naive_z(model, twin, prompts.counterfactual[row, :n])]
        case "resample":
            return [naive_donor(model, twin, prompts, row, chosen[row]) for chosen in plan["donors"]]
    name = asked.get("reference", "self")
    reference = prompts if name == "self" else harness.load_prompts(name, model)
    every = [naive_z(model, twin, tokens(reference, number)) for number in range(len(reference))]
    if asked.get("means") == "pooled":
        return [torch.cat(every, dim=1).mean(1, keepdim=True).expand(-1, n, -1, -1)]
    if len({z.shape[1] for z in every} | set(prompts.length.tolist())) == 1:
        return [torch.stack(every).mean(0)]
    first, rest = torch.stack([z[:, 0] for z in every]).mean(0), torch.cat([z[:, 1:] for z in every], dim=1).mean(1)
    return [torch.stack([first, *[rest] * (n - 1)], dim=1)]


Z = {}


def naive_z(model, twin, token_id):
    """z of one prompt, by a forward that is run once."""
    key = (id(twin), token_id.tobytes())  # a twin is kept as long as the tests run
    if key not in Z:
        Z[key] = plain.z(twin, token_id, model.shape.d_head)
    return Z[key]


def naive_donor(model, twin, prompts, row, donor):
    n, m = prompts.length[row], prompts.length[donor]
    z = naive_z(model, twin, tokens(prompts, donor))
    return z[:, [int(at * (m - 1) / (n - 1) + 0.5) for at in range(n)]]


def naive_places(prompts, where, row):
    match where:
        case "all":
            return None
        case "last":
            return [prompts.length[row] - 1]
        case "target":
            return np.nonzero(prompts.target[row])[0].tolist()
    return [at % prompts.length[row] for at in where]


def naive_values(model, twin, prompts, row, asked, replacements):
    """The metrics [metric, asked] of one prompt, for each (heads, places) that are replaced together, averaged over
    draws."""
    edits = [(heads, new, places) for heads, places in asked for new in replacements]
    before, *after = plain.logits_each(twin, tokens(prompts, row), [((), None, None), *edits], model.shape.d_head)
    found = [plain.metrics(prompts, row, each, before) for each in after]
    values = np.array([[each[name] for each in found] for name in NAMES])
    return values.reshape(len(NAMES), len(asked), len(replacements)).mean(-1)


# --- against the reference --------------------------------------------------------------------------------------


def of_heads(array, row, heads=HEADS):
    """The values [metric, head, …] of one prompt."""
    return np.stack([array.values[:, row, head.layer, head.head] for head in heads], axis=1)


@pytest.mark.covering(1)
@pytest.mark.parametrize("asked", BASELINES, ids=lambda asked: "-".join(map(str, asked.values())))
def test_every_baseline_at_every_place_equals_plain_hugging_face(model, prompts, asked):
    twin = twin_of(model)
    plan = stage_of(model, prompts, asked).plan()
    replacements = [naive_replacements(model, twin, prompts, asked, row, plan) for row in range(len(prompts))]
    for where in PLACES:
        got = harness.ablate_heads(model, prompts, asked, NAMES, HEADS, positions=where).data
        for row, new in enumerate(replacements):
            places = naive_places(prompts, where, row)
            want = naive_values(model, twin, prompts, row, [([head], places) for head in HEADS], new)
            np.testing.assert_allclose(of_heads(got.ablated, row), want, atol=1e-4)
        assert float(np.abs(got.effect.sel(metric="loss")).max()) > 2e-4, where


@pytest.mark.covering(1)
@pytest.mark.parametrize("asked", BASELINES, ids=lambda asked: "-".join(map(str, asked.values())))
def test_each_position_in_turn_equals_plain_hugging_face(model, prompts, asked):
    prompts, heads, twin = prompts.take([0, 1]), HEADS[1:], twin_of(model)
    got = harness.ablate_heads(model, prompts, asked, NAMES, heads, positions="each").data
    plan = stage_of(model, prompts, asked).plan()
    assert "effect" not in got
    assert got.position_effect.dims == ("metric", "prompt", "layer", "head", "position")
    for row in range(2):
        new, n = naive_replacements(model, twin, prompts, asked, row, plan), prompts.length[row]
        each = [([head], [at]) for head in heads for at in range(n)]
        want = naive_values(model, twin, prompts, row, each, new) - got.clean.values[:, row, None]
        effect = of_heads(got.position_effect, row, heads)
        np.testing.assert_allclose(effect[..., :n], want.reshape(len(NAMES), len(heads), n), atol=1e-4)
        assert np.isnan(effect[..., n:]).all()


@pytest.mark.covering(2)
@pytest.mark.parametrize("asked", [BASELINES[0], *BASELINES[2:]], ids=lambda asked: "-".join(map(str, asked.values())))
def test_sets_are_replaced_together(model, prompts, asked):
    """Later heads of a set get the baseline's z too, whatever the earlier ones did to theirs."""
    twin, both = twin_of(model), [Head(0, 1), Head(2, 0)]
    got = harness.ablate_heads(model, prompts, asked, NAMES, kind="set", sets={"both": both}, positions=[-1, 2]).data
    plan = stage_of(model, prompts, asked).plan()
    for row in range(len(prompts)):
        new = naive_replacements(model, twin, prompts, asked, row, plan)
        (want,) = naive_values(model, twin, prompts, row, [(both, naive_places(prompts, [-1, 2], row))], new).T
        np.testing.assert_allclose(got.set_effect[:, row, 0] + got.clean[:, row], want, atol=1e-4)


# --- a masked-LM: a row for each masked position, and the same masks in whatever z comes from --------------------

BERT_TEXTS = {
    "aligned": (" Mary gave a drink to John", " John gave a letter to Mary", " Mary went to the store to"),
    "padded": (" Mary gave a drink", " John gave a letter to Mary", " the store"),
}


@pytest.fixture(params=BERT_TEXTS)
def bert_prompts(request, tiny):
    """Three texts; the counterfactual of each has its ordinary tokens in reverse order."""
    prompts = harness.load_prompts("inline", tiny("bert"), text=BERT_TEXTS[request.param])
    assert (len(set(prompts.length)) == 1) == (request.param == "aligned")
    other = prompts.token_id.copy()
    for row, target in enumerate(prompts.target):
        other[row, target] = other[row, target][::-1]
    return dataclasses.replace(prompts, counterfactual=other)


def naive_masked(model, prompts, row, at, place=None, token_id=None):
    """The tokens of a prompt (or others) with `at` masked and the later pieces of its word, or where these are put."""
    ids = (tokens(prompts, row) if token_id is None else token_id).copy()
    same = [p for p in range(at, prompts.length[row]) if prompts.word[row, p] == prompts.word[row, at]]
    ids[same if place is None else [place[p] for p in same]] = model.tokens.mask_id
    return ids


def naive_masked_replacement(model, twin, prompts, asked, row, at, plan):
    n, scored = prompts.length[row], [np.nonzero(t)[0] for t in prompts.target]
    match asked:
        case "zero":
            return None
        case "patch":
            ids = naive_masked(model, prompts, row, at, token_id=prompts.counterfactual[row, :n])
            return naive_z(model, twin, ids)
        case "resample":
            donor = plan["donors"][0][row]
            m = prompts.length[donor]
            place = [int(p * (m - 1) / (n - 1) + 0.5) for p in range(n)]
            return naive_z(model, twin, naive_masked(model, prompts, row, at, place, tokens(prompts, donor)))[:, place]
    every = {
        (other, p): naive_z(model, twin, naive_masked(model, prompts, other, p))
        for other in range(len(prompts))
        for p in scored[other]
    }
    if asked == POOLED:
        return torch.cat([*every.values()], dim=1).mean(1, keepdim=True).expand(-1, n, -1, -1)
    if len(set(prompts.length)) == 1:
        return torch.stack([z for (_, p), z in every.items() if p == at]).mean(0)
    first = torch.stack([z[:, 0] for z in every.values()]).mean(0)
    rest = torch.cat([z[:, 1:] for z in every.values()], dim=1).mean(1)
    return torch.stack([first, *[rest] * (n - 1)], dim=1)


@pytest.mark.parametrize("asked", ["zero", "mean", POOLED, "resample", "patch"], ids=str)
def test_every_baseline_of_a_masked_lm_equals_plain_hugging_face(tiny, bert_prompts, asked):
    model, prompts = tiny("bert"), bert_prompts
    twin, plan = twin_of(model), stage_of(model, prompts, asked, names=("loss",)).plan()
    wheres = ("all", "last", "target", [1, -1])
    every = [harness.ablate_heads(model, prompts, asked, ["loss"], HEADS, positions=where).data for where in wheres]
    for row in range(len(prompts)):
        want = []
        for at in np.nonzero(prompts.target[row])[0]:
            new = naive_masked_replacement(model, twin, prompts, asked, row, at, plan)
            places = [[at] if where == "target" else naive_places(prompts, where, row) for where in wheres]
            edits = [([head], new, each) for each in places for head in HEADS]
            logits = plain.logits_each(twin, naive_masked(model, prompts, row, at), edits, model.shape.d_head)
            want.append(-logits[:, at].log_softmax(-1)[:, prompts.correct[row, at]])
        want = torch.stack(want).mean(0).reshape(len(wheres), len(HEADS))
        for got, where, each in zip(every, wheres, want, strict=True):
            np.testing.assert_allclose(of_heads(got.ablated, row)[0], each, atol=1e-4, err_msg=f"{where} {row}")


@pytest.mark.parametrize("where", most(["each", "all", "target"], 1))
def test_a_masked_lm_is_unchanged_by_itself(tiny, bert_prompts, where):
    model = tiny("bert")
    itself = dataclasses.replace(bert_prompts, counterfactual=bert_prompts.token_id)
    assert_nothing(harness.ablate_heads(model, itself, "patch", ["loss", "kl"], positions=where).data)
    assert_nothing(harness.ablate_heads(model, itself.take([1]), "mean", ["loss", "kl"], positions=where).data)
    stage = stage_of(model, itself, "resample", where, heads="all", names=("loss", "kl"))
    assert_nothing(stage.assemble(plan := stage.plan() | {"donors": [[0, 1, 2]]}, [stage.compute(plan, 0)]))


# --- what must change nothing, or the same ----------------------------------------------------------------------


@pytest.mark.covering(1)
@pytest.mark.parametrize("where", ["all", "last", "each"])
def test_a_mean_over_one_prompt_changes_nothing(model, where):
    one = harness.load_prompts("ioi", model, n=1)
    assert_nothing(harness.ablate_heads(model, one, "mean", NAMES, positions=where).data)


@pytest.mark.covering(1)
@pytest.mark.parametrize("where", ["all", "target", "each"])
def test_patching_with_itself_changes_nothing(model, prompts, where):
    itself = dataclasses.replace(prompts, counterfactual=prompts.token_id)
    assert_nothing(harness.ablate_heads(model, itself, "patch", NAMES, positions=where).data)
    assert_nothing(harness.ablate_heads(model, itself, "patch", NAMES, kind="layer").data)


@pytest.mark.covering(1)
@pytest.mark.parametrize("where", ["all", "target", "each"])
def test_resampling_from_itself_changes_nothing(model, prompts, where):
    stage = stage_of(model, prompts, "resample", where, heads="all")
    plan = stage.plan() | {"donors": [list(range(len(prompts)))]}
    assert_nothing(stage.assemble(plan, [stage.compute(plan, unit) for unit in range(len(plan["batches"]))]))


def assert_nothing(got):
    """Exactly nothing; but rounding at late positions, which are run in rows of their own length."""
    effect = next(got[name] for name in ("effect", "position_effect", "layer_effect") if name in got)
    known = effect.values[np.isfinite(effect.values)]
    assert known.size
    np.testing.assert_allclose(known, 0, atol=0 if effect.attrs["positions"] == "all" else 1e-5)


def test_what_comes_after_the_last_scored_position_does_nothing(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("inline", model, text=["When Mary and John went to the store"])
    got = harness.ablate_heads(model, prompts, "zero", ["loss"], positions="each").data
    assert (got.position_effect[..., -1] == 0).all()
    assert (abs(got.position_effect[..., 0]) > 0).any()


def test_a_prompt_that_has_one_position_is_all_of_it(tiny):
    """`each` on the only position, `all` and [0] are the same question."""
    model = tiny("llama", bos="never")
    prompts = harness.load_prompts("inline", model, text=[" store", " drink"], answer=[" Mary", " John"])
    assert prompts.length.tolist() == [1, 1]
    each = harness.ablate_heads(model, prompts, "resample", ["loss"], positions="each").data.position_effect[..., 0]
    for where in ("all", "last", [0], -1):
        got = harness.ablate_heads(model, prompts, "resample", ["loss"], positions=where).data
        np.testing.assert_array_equal(got.effect.values, each.values)


@pytest.mark.parametrize("asked", ["zero", "mean", "patch"])
def test_each_is_the_single_positions_one_after_the_other(tiny, asked):
    model = tiny("gemma3")
    prompts = harness.load_prompts("ioi", model, n=4)
    each = harness.ablate_heads(model, prompts, asked, NAMES, HEADS, positions="each").data.position_effect
    for at in (0, 4, int(prompts.length.min()) - 1):
        got = harness.ablate_heads(model, prompts, asked, NAMES, HEADS, positions=[at]).data.effect
        np.testing.assert_allclose(each[..., at], got, atol=1e-6)


def test_draws_are_averaged(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=6)
    stage = stage_of(model, prompts, {"name": "resample", "draws": 3})
    plan = stage.plan()
    together, single = stage.compute(plan, 0)["ablated"], stage_of(model, prompts, "resample")
    alone = [single.compute(plan | {"donors": [one]}, 0)["ablated"] for one in plan["donors"]]
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-9)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


@pytest.mark.soak
@pytest.mark.parametrize("asked", most([{"name": "resample", "draws": 2}, {"name": "mean"}], 1))
def test_the_size_of_a_chunk_changes_nothing(tiny, asked):
    model = tiny("gemma3")
    stage = stage_of(model, harness.load_prompts("ioi", model, n=3), asked, "each")
    plan = stage.plan()
    whole = stage.compute(plan, 0)["ablated"]
    for chunk in (1, 7, 1000):
        np.testing.assert_allclose(stage.compute(plan | {"chunks": [chunk]}, 0)["ablated"], whole, atol=1e-6)


# --- donors -----------------------------------------------------------------------------------------------------


def test_donors_come_from_another_cluster_and_of_the_nearest_length(tiny):
    prompts = harness.load_prompts("ioi", tiny(), n=80)
    table = np.array(donors.choose(prompts, 5, seed=1))
    cluster, length = np.array(prompts.cluster), prompts.length
    assert table.shape == (5, 80)
    further = 0
    for number in range(80):
        others = np.flatnonzero(cluster != cluster[number])
        away = np.abs(length[others] - length[number])
        assert set(table[:, number]) <= set(others)
        assert len(set(table[:, number])) == 5
        assert sorted(np.abs(length[table[:, number]] - length[number])) == sorted(away)[:5]
        further += (sorted(away)[4] > away.min()).item()
    assert further, "no prompt of these has fewer than 5 donors of the nearest length"


def test_a_prompt_with_too_few_donors_has_some_again_and_the_note_says_how_few(tiny):
    model = tiny()
    texts = {"text": ["the store", "a drink to", "the store"], "cluster": ["a", "b", "a"]}
    asked = {"name": "resample", "draws": 2}
    stage = stage_of(model, harness.load_prompts("inline", model, **texts), asked, names=("loss",))
    plan = stage.plan()
    assert list(zip(*plan["donors"], strict=True))[::2] == [(1, 1), (1, 1)]
    assert donors.distinct(plan["donors"]).tolist() == [1, 2, 1]
    says = "2 for each (some again: there are as few as 1 possible donors), seed 0"
    assert says in stage.ablation.note(plan)


def test_donors_are_those_of_the_seed_and_of_the_frozen_plan(tiny, tmp_path):
    model = tiny()
    prompts = harness.load_prompts("ioi", model, n=20)
    asked = {"name": "resample", "draws": 2, "seed": 5}
    plan = stage_of(model, prompts, asked).plan()
    assert plan["donors"] == stage_of(model, prompts, asked).plan()["donors"]
    assert plan["donors"] != stage_of(model, prompts, asked | {"seed": 6}).plan()["donors"]
    frozen = StageFolder(tmp_path).freeze(plan)
    assert StageFolder(tmp_path).plan() == frozen == plan


def test_a_prompt_said_twice_is_never_its_own_donor(tiny):
    prompts = harness.load_prompts("inline", tiny(), text=["the store", "a drink to", "the store"])
    assert donors.choose(prompts, 1, seed=0)[0] == [1, donors.choose(prompts, 1, seed=0)[0][1], 1]


def test_positions_correspond_in_order_first_to_first_and_last_to_last():
    assert donors.corresponding([4, 2, 1, 3], [7, 5, 3, 3], 4).tolist() == [
        [0, 2, 4, 6],
        [0, 4, 4, 4],
        [0, 0, 0, 0],
        [0, 1, 2, 2],
    ]
    for n in range(1, 12):
        for m in range(1, 12):
            (places,) = donors.corresponding([n], [m], n)
            assert (np.diff(places) >= 0).all()
            assert places[0] == 0
            assert places[-1] == (m - 1 if n > 1 else 0)


# --- functions --------------------------------------------------------------------------------------------------


def halved(z, head):
    return z / 2


def second_choice(read):
    """Log-probability of the token that the clean model likes second."""
    return read.at(read.log_prob, read.clean.topk(2).indices[:, 1])


def test_a_function_is_an_ablation(tiny):
    model = tiny("gpt2")
    prompts, twin = harness.load_prompts("ioi", model, n=3), twin_of(model)
    got = harness.ablate_heads(model, prompts, halved, NAMES, HEADS, positions="last").data
    for row in range(3):
        new = [plain.z(twin, tokens(prompts, row), model.shape.d_head) / 2]
        last = naive_places(prompts, "last", row)
        want = naive_values(model, twin, prompts, row, [([head], last) for head in HEADS], new)
        np.testing.assert_allclose(of_heads(got.ablated, row), want, atol=1e-4)
    assert got.effect.attrs["ablation"] == "halved"
    assert got.effect.attrs["baseline"] == "z becomes halved(z, head)"


def test_a_function_that_edits_in_place_still_touches_only_the_parse_positions(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=2)
    got = harness.ablate_heads(model, prompts, lambda z, head: z.zero_(), NAMES, HEADS, positions="last").data
    want = harness.ablate_heads(model, prompts, "zero", NAMES, HEADS, positions="last").data
    np.testing.assert_allclose(got.effect.values, want.effect.values, atol=1e-5)


def test_a_function_is_a_metric(tiny):
    model = tiny("gpt2")
    prompts, twin = harness.load_prompts("ioi", model, n=3), twin_of(model)
    got = harness.ablate_heads(model, prompts, "zero", ["loss", second_choice], HEADS).data
    assert got.metric.values.tolist() == ["loss", "second_choice"]
    for row in range(3):
        (at,) = np.nonzero(prompts.target[row])[0]
        second = int(plain.logits(twin, tokens(prompts, row))[at].topk(2).indices[1])
        for head in HEADS:
            after = plain.logits(twin, tokens(prompts, row), [head], model.shape.d_head)[at].log_softmax(-1)
            assert float(got.ablated[1, row, head.layer, head.head]) == pytest.approx(float(after[second]), abs=1e-4)
    said = json.loads(got.effect.attrs["metrics"])
    assert said["loss"] == {"units": "nats per target token", "higher_is_better": False, "distance": False}
    assert said["second_choice"] == {"units": "as the function gives", "higher_is_better": None, "distance": False}
    assert metrics.meaning("second_choice", got.effect.attrs).higher_is_better is None
    assert metrics.meaning("loss", {}).units == "nats per target token"
    assert metrics.meaning("unheard of", {}) == metrics.Meaning("", None)


def test_a_table_of_heads_can_be_made_of_a_function_too(tiny):
    from harness.config import StatsSpec
    from harness.sweep.head_table import heads_table

    model = tiny()
    got = harness.ablate_heads(
        model, harness.load_prompts("ioi", model, n=4), "zero", ["kl", second_choice], HEADS
    ).data
    table = heads_table(got, StatsSpec(resamples=50))
    assert table.groupby("metric").size().to_dict() == {"kl": 3, "second_choice": 3}
    assert table[table.metric == "kl"].p_value.notna().all()  # against random edits
    assert table[table.metric == "second_choice"].p_value.notna().all()


# --- what is recorded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("zero", "z becomes zero"),
        ("patch", "z becomes that of the prompt's counterfactual"),
        ({"name": "scale", "factor": -0.5}, "z is multiplied by -0.5"),
        ("mean", "z becomes its mean over 5 prompts (self), the first token apart from all others"),
        ({"name": "mean", "reference": "induction"}, "over 8 prompts (induction), the first token apart"),
        ({"name": "mean", "means": "pooled"}, "z becomes its mean over 5 prompts (self), pooled over all positions"),
        ({"name": "resample", "draws": 2}, "from another cluster, 2 for each, seed 0, "),
    ],
)
def test_the_arrays_say_what_was_done(tiny, asked, says):
    model = tiny()
    got = harness.ablate_heads(
        model, harness.load_prompts("ioi", model, n=5), asked, ["loss"], HEADS, positions=[3, -1]
    ).data
    for name in ("clean", "ablated", "effect"):
        assert says in got[name].attrs["baseline"]
        assert got[name].attrs["positions"] == "[3, -1]"


def test_the_plan_says_which_mean_and_which_donors(tiny):
    model = tiny()
    prompts = harness.load_prompts("ioi", model, n=5)
    plan = stage_of(model, prompts, "mean").plan()
    assert plan["means"] == "the first token apart from all others"
    assert plan["reference"] == {"name": "self", "n": 5, "sha256": prompts.sha256}
    assert stage_of(model, prompts.take([2]), "mean").plan()["means"] == "position by position"
    plan = stage_of(model, prompts, {"name": "resample", "draws": 2}, "each").plan()
    assert [len(row) for row in plan["donors"]] == [5, 5]
    length = prompts.length
    for row, spread in zip(plan["donors"], plan["spread"], strict=True):
        assert spread == [number for number, donor in enumerate(row) if length[donor] != length[number]]
    assert plan["positions"] == "each"


@pytest.mark.parametrize(
    ("asked", "where", "edits"),
    [("zero", "last", 6), ("patch", [0, 1], 6), ({"name": "resample", "draws": 2}, "each", 6)],
)
def test_every_edit_is_counted(tiny, asked, where, edits):
    """Those of the null that the distance is held against, too."""
    model = tiny()
    prompts = harness.load_prompts("ioi", model, n=3)
    stage = stage_of(model, prompts, asked, where)
    stage.compute(stage.plan(), 0)
    assert stage.check.fired == edits * (prompts.length.max() if where == "each" else 1)
    assert len(stage.check.spot_checks) == 2


@pytest.mark.covering(1)
def test_nothing_is_left_on_the_model(model, prompts):
    token_id = torch.as_tensor(tokens(prompts, 0))[None]
    before, hooked = model.forward(Inputs(token_id, torch.ones_like(token_id))), hooks_on(model)
    for asked in BASELINES:
        harness.ablate_heads(model, prompts, asked, ["loss"], HEADS)
    assert torch.equal(model.forward(Inputs(token_id, torch.ones_like(token_id))), before)
    assert hooks_on(model) == hooked
    assert not any(point.fwd_hooks for point in model.bridge.hook_dict.values())


def hooks_on(model):
    """TransformerLens keeps some of its own."""
    modules = model.bridge.original_model.modules()
    return [(len(module._forward_pre_hooks), len(module._forward_hooks)) for module in modules]


def test_applied_touches_only_the_parse_positions_of_each_row(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("inline", model, text=["When Mary went to the store", "the office"])
    token_id, mask = torch.as_tensor(prompts.token_id).clamp(min=0), torch.as_tensor(prompts.token_id >= 0).long()
    with applied(model, ablation.Intervention((Head(1, 2),), zeros, ((3, 4), (0,)))) as check:
        got = model.forward(Inputs(token_id, mask))
    assert check.fired == 1
    for row, places in enumerate(((3, 4), (0,))):
        want = plain.logits(twin_of(model), tokens(prompts, row), [Head(1, 2)], model.shape.d_head, positions=places)
        torch.testing.assert_close(got[row, : prompts.length[row]], want, atol=1e-4, rtol=0)


def test_places_of_a_batch(tiny):
    prompts = harness.load_prompts("inline", tiny(), **TWO)
    assert prompts.length.tolist() == [3, 4]
    assert positions.turns("all", prompts) == [None]
    assert positions.turns("last", prompts) == [((2,), (3,))]
    assert positions.turns("target", prompts) == [((0, 1), (0, 1, 2))]
    assert positions.turns("each", prompts) == [((0,), (0,)), ((1,), (1,)), ((2,), (2,)), ((), (3,))]
    assert positions.turns((-1, 2, 0), prompts) == [((0, 2), (0, 2, 3))]


# --- what is refused --------------------------------------------------------------------------------------------


def loss(read):
    return -read.logits[:, 0]


def one_number(read):
    return read.logits.mean()


def not_a_tensor(read):
    return 3.0


REFUSED = [
    (
        ONE,
        {"ablation": "resample"},
        "ablation=resample: a donor comes from another cluster, and all prompts are of 'text",
    ),
    (ONE, {"ablation": "patch"}, "ablation=patch: prompt 0 of inline has no counterfactual; give each prompt one"),
    (ONE, {"ablation": "maen"}, "ablation=maen: did you mean 'mean'? known: zero, mean, resample, patch, scale"),
    (ONE, {"ablation": {"name": "maen"}}, "ablation.name=maen: did you mean 'mean'?"),
    (ONE, {"ablation": {"name": "mean", "reference": "ioii"}}, "ablation.reference=ioii: did you mean 'ioi'?"),
    (ONE, {"ablation": {"name": "mean", "reference": "inline"}}, "known: self, ioi, induction"),
    (ONE, {"ablation": {"name": "mean", "means": "poled"}}, "ablation.means=poled: did you mean 'pooled'?"),
    (ONE, {"ablation": {"name": "mean", "draws": 2}}, "ablation.draws=2: there is no such key"),
    (ONE, {"ablation": {"name": "resample", "draws": 0}}, "ablation.draws=0: input should be greater than"),
    (TWO, {"positions": [3]}, "position 3 is outside prompt 0 (' the store'), which has 3 tokens: 0 to 2, or -3 to -1"),
    (TWO, {"positions": [1, -4]}, "ablation.positions=[1, -4]: position -4 is outside prompt 0"),
    (TWO, {"positions": "lats"}, "ablation.positions=lats: did you mean 'last'? known: all, last, target, each, or a"),
    (TWO, {"positions": []}, "ablation.positions=[]: known: all, last, target, each, or a list of positions"),
    (TWO, {"positions": [True]}, "ablation.positions=[True]: known: all, last"),
    (TWO, {"positions": "each", "kind": "layer"}, "ablation.positions=each: sweep.kind=layer takes all, last, target"),
    (TWO, {"metrics": [loss]}, "metrics=loss: this name is taken by another metric"),
    (TWO, {"metrics": [lambda read: read.correct]}, "metrics=<lambda>: a function is named by its __name__"),
    (
        TWO,
        {"metrics": [one_number]},
        "metrics=one_number: a metric gives a tensor [target], here of 5; this gave shape ()",
    ),
    (
        TWO,
        {"metrics": [not_a_tensor]},
        "metrics=not_a_tensor: a metric gives a tensor [target], here of 5; this gave f",
    ),
]


@pytest.mark.parametrize(("texts", "asked", "says"), REFUSED, ids=[says for _, _, says in REFUSED])
def test_what_cannot_be_asked_is_refused(tiny, texts, asked, says):
    model = tiny()
    prompts = harness.load_prompts("inline", model, **texts)
    with pytest.raises(RequestError) as refused:
        harness.ablate_heads(model, prompts, **{"metrics": ["loss"], "heads": ["L0H0", "L1H1"], **asked})
    assert says in str(refused.value)


def test_a_counterfactual_of_another_length_is_refused(tiny):
    prompts = harness.load_prompts("ioi", tiny(), n=2)
    other = prompts.counterfactual.copy()
    other[1, -1] = other[1, prompts.length[1] - 1] = -1
    with pytest.raises(RequestError, match=r"ablation=patch: prompt 1 of ioi has a counterfactual of \d+ tokens and"):
        harness.ablate_heads(tiny(), dataclasses.replace(prompts, counterfactual=other), "patch")


def test_nan_from_a_function_is_an_error(tiny):
    def undefined(read):
        return read.logits[:, 0] * float("nan")

    prompts = harness.load_prompts("ioi", tiny(), n=1)
    with pytest.raises(RequestError, match="the clean undefined on prompt 0 is nan"):
        harness.ablate_heads(tiny(), prompts, metrics=[undefined])
