"""Head cards against plain Hugging Face forwards and numpy: the logit lens, what a head writes, what it looks at."""

from dataclasses import replace

import numpy as np
import plain
import pytest
import torch

import harness
from harness import study, sweep, views
from harness.config import Place, RequestError, RunSpec, parse
from harness.execute import run_in_memory
from harness.findings.reading import looks_at
from harness.head_card.composition import compositions
from harness.hooks import Head
from harness.study import prepare
from harness.views import card_charts, card_weights, head_cards
from harness.views.report import report

HEADS = ["L0H1", "L1H2"]


def explained(tmp_path, shape="llama", runner="explain_heads", **keys):
    values = {"model": {"source": "random", "name": "random", "shape": shape}, "prompts": {"name": "ioi", "n": 3}}
    values |= {"stats": {"resamples": 99}, **keys}
    return harness.open_run(study.run(runner, parse(RunSpec, values), Place(str(tmp_path)), lambda *_: None))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return explained(tmp_path_factory.mktemp("cards"), heads=HEADS)


def lensed(twin, token_id, heads=(), d_head=None):
    """Logits at the last position from the stream before each layer and after the last, in the plain model."""
    kept, base = [], twin.base_model
    layers = base.layers
    handles = [layer.register_forward_pre_hook(lambda _, args: kept.append(args[0][0, -1])) for layer in layers]
    handles.append(
        layers[-1].register_forward_hook(
            lambda _, args, out: kept.append((out[0] if isinstance(out, tuple) else out)[0, -1])
        )
    )
    plain.logits(twin, token_id, heads, d_head)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        return twin.lm_head(base.norm(torch.stack(kept))).double()


def test_the_lens_is_that_of_a_plain_model(run):
    prompts = harness.load_prompts("ioi", harness.load_model("random", shape="llama"), n=3)
    twin, d_head = plain.twin("llama"), harness.load_model("random", shape="llama").shape.d_head
    assert run.data["lens"].dims == ("metric", "prompt", "depth")
    for row, n in enumerate(prompts.length):
        ids, right, wrong = prompts.token_id[row, :n], int(prompts.answer[row]), int(prompts.distractor[row])
        for heads, mine in (
            ((), run.data["lens"].sel(metric="logit_diff")[row]),
            ((Head(1, 2),), run.data["lens_ablated"].sel(metric="logit_diff", card="L1H2")[row]),
        ):
            logits = lensed(twin, ids, heads, d_head)
            np.testing.assert_allclose(mine, logits[:, right] - logits[:, wrong], atol=1e-4)
    for head in HEADS:
        place = harness.Head.parse(head).place
        np.testing.assert_allclose(
            run.data["lens_ablated"].sel(card=head)[..., -1], run.data["ablated"].sel(place), atol=1e-5
        )
    np.testing.assert_allclose(run.data["lens"][..., -1], run.data["clean"], atol=1e-5)


def test_what_a_head_writes_is_its_slice_of_w_o_through_the_unembedding(run):
    """In mean over the prompts, with the final norm at its clean scale."""
    model = harness.load_model("random", shape="llama")
    prompts, twin = harness.load_prompts("ioi", model, n=3), plain.twin("llama")
    d_head, total = model.shape.d_head, 0
    for row, n in enumerate(prompts.length):
        ids = prompts.token_id[row, :n]
        z = plain.z(twin, ids, d_head)[0, -1, 1]
        columns = twin.model.layers[0].self_attn.o_proj.weight[:, d_head : 2 * d_head]
        kept = {}
        handle = twin.model.norm.register_forward_pre_hook(lambda _, args: kept.update(end=args[0][0, -1]))  # noqa: B023
        plain.logits(twin, ids)
        handle.remove()
        norm = twin.model.norm
        scale = (kept["end"].square().mean() + norm.variance_epsilon).sqrt()
        total = total + twin.lm_head.weight @ (norm.weight * (columns @ z) / scale)
    mean = (total / 3).detach().numpy()
    for side, order in (("raised", np.argsort(-mean)), ("lowered", np.argsort(mean))):
        mine = run.data["written_logit"].sel(card="L0H1", side=side).values
        np.testing.assert_allclose(mine, mean[order[: len(mine)]], atol=1e-5)
        token = run.data["written_token"].sel(card="L0H1", side=side).values[0]
        assert token == model.tokens.string(int(order[0]))


def test_cards_have_the_sweeps_own_numbers(run):
    """The account sums to the effect, the direct effect by source to the direct effect; other heads have none."""
    assert (
        run.data["account"].sel(metric="logit_diff").notnull().all("component").sum(["layer", "head"]).values.tolist()
        == [2] * 3
    )
    for name in HEADS:
        place = harness.Head.parse(name).place
        account, effect = (run.data[of].sel(metric="logit_diff", **place) for of in ("account", "effect"))
        np.testing.assert_allclose(account.sum("component"), effect, atol=1e-4)
        sources, direct = (run.data[of].sel(metric="logit_diff", **place) for of in ("source_direct", "direct"))
        np.testing.assert_allclose(sources.sum("key"), direct, atol=1e-4)


def test_a_card_says_what_the_head_looks_at(run):
    head = Head(1, 2)
    said = looks_at(run, head)
    pattern, role = run.data["pattern"].sel(head.place).values, run.data["token_role"].values
    rows = [(row, int(n) - 1) for row, n in enumerate(run.data["length"].values)]
    shares = {
        name: np.mean([pattern[row, at][role[row] == name].sum() for row, at in rows])
        for name in np.unique(role)
        if name
    }
    most = max(shares, key=shares.get)
    assert said.value == pytest.approx(shares[most], abs=1e-6)
    assert f"of its attention to {'other tokens' if most == 'other' else f'the {most}'}" in said.text
    others = [pattern[row, at][role[row] == most].sum() for row, n in rows for at in range(n)]
    by_prompt = [np.mean([pattern[row, at][role[row] == most].sum() for at in range(n)]) for row, n in rows]
    assert len(others) > len(by_prompt)
    assert f"elsewhere {harness.findings.format.number(float(np.mean(by_prompt)))}" in said.text


def test_a_card_has_the_prompts_where_the_head_matters_most_and_least(run):
    """And the row of its pattern there, as the plain model has it."""
    twin, effect = plain.twin("llama"), abs(run.data["effect"].sel(metric="logit_diff"))
    for name in HEADS:
        head = harness.Head.parse(name)
        by_prompt = effect.sel(head.place).values
        shown = run.data["shown_prompt"].sel(card=name)
        assert shown.values.tolist() == [by_prompt.argmax(), by_prompt.argmin()]
        for extreme, row in zip(shown["extreme"].values, shown.values, strict=True):
            n = int(run.data["length"][row])
            ids = torch.as_tensor(run.data["token_id"].values[row, :n])[None]
            with torch.no_grad():
                pattern = twin(ids, output_attentions=True).attentions[head.layer][0, head.head, -1]
            mine = run.data["shown_pattern"].sel(card=name, extreme=extreme).values
            np.testing.assert_allclose(mine[:n], pattern, atol=1e-6)
            assert not mine[n:].any()


def test_a_card_names_the_partners_with_the_largest_scores(run):
    """The sentence and the table have those beyond chance only."""
    model = harness.load_model("random", shape="llama")
    score = compositions(model, list(map(harness.Head.parse, HEADS)), 1, 0).score.numpy()
    for at, name in enumerate(HEADS):
        for (way, circuit), own in zip(np.ndindex(2, 3), score[at].reshape(6, -1), strict=True):
            mine = run.data["composition"].sel(card=name).values[way, circuit]
            heads = run.data["composed_head"].sel(card=name).values[way, circuit]
            largest = np.sort(own[~np.isnan(own)])[::-1][:3]
            np.testing.assert_allclose(mine[: len(largest)], largest, rtol=1e-5)
            assert np.isnan(mine[len(largest) :]).all()
            best = str(harness.Head(*np.divmod(int(np.nanargmax(own)), 4))) if len(largest) else ""
            assert heads[0] == best
    data = run.data.assign(composition_chance=0 * run.data["composition_chance"])
    data["composition_chance"][dict(card=0)] = 1.0
    page = card_weights.by_weights(replace(run, data=data), harness.Head.parse(HEADS[0]))
    assert "composes with no other head beyond chance" in page
    page = card_weights.by_weights(replace(run, data=data), harness.Head.parse(HEADS[1]))
    assert str(data["composed_head"].sel(card=HEADS[1]).values[0, 0, 2]) + "&nbsp;" in page


def test_a_card_shows_all_of_it(run):
    page = head_cards.cards(run)
    assert "Why these heads" in report(run)
    for name in HEADS:
        assert f'id="card-{name}"' in page
    for part in (
        "Reads.",
        "Most and least.",
        "Writes.",
        "Weights alone.",
        "Where the effect went.",
        "<b>Logit lens</b>",
    ):
        assert page.count(part) == len(HEADS)


def test_a_card_is_a_view_of_its_own(run):
    view = views.head_card(run, "L1H2")
    assert 'id="card-L1H2"' in view.html
    assert 'id="card-L0H1"' not in view.html
    assert head_cards.cards(run).count("<article") == 2
    with pytest.raises(RequestError, match=r"^head='?L0H0'?: cards here: L\dH\d and L\dH\d$"):
        views.head_card(run, "L0H0")


def test_a_card_names_the_paths_from_a_head_and_into_it(tmp_path):
    kinds = {"sweep": {"kind": ["single", "edges"]}, "edges": {"into": ["q", "mlp"], "top_k": 40}}
    got = explained(tmp_path, "gpt2", heads=HEADS, metrics=["logit_diff"], **kinds)
    table = got.edges.sort_values("rank")
    cards = dict(zip(HEADS, head_cards.cards(got).split('<article class="head-card"')[1:], strict=True))
    sent, into = (table[table[end] == head].iloc[0] for end, head in (("sender", "L0H1"), ("receiver", "L1H2")))
    cards = {name: next(card for card in cards.values() if f'id="card-{name}"' in card) for name in HEADS}
    for name, way, row in (("L0H1", "feeds", sent), ("L1H2", "is fed by", into)):
        where = f"the query of {row.receiver}" if row["into"] == "q" else row.receiver
        value = harness.findings.format.signed(float(row.effect_mean))
        assert f"{name} {way}: {row.sender} into {where} {value} (" in cards[name]


def test_a_waterfall_ends_at_the_effect():
    account = {
        "direct": [-2.0, -1.0],
        **{f"L{layer}H0": [0.1 * layer, 0.1] for layer in range(1, 12)},
        "L3.mlp": [0.5, 0.7],
        "norm:final": [0.0, 0.01],
    }
    drawn = card_charts.waterfall({name: np.array(values) for name, values in account.items()}, "L0H0", "logits")
    total = sum(np.mean(values) for values in account.values())
    assert drawn.count("<rect") == 1 + 8 + 2 + 1  # direct, the largest, other heads and norms, the effect
    assert f">{harness.findings.format.signed(float(total))}</text></g></svg>" in drawn


def chosen(runner, **spec):
    """The heads that a runner makes cards of, and the mean effects by which it chose."""
    work = prepare(runner, parse(RunSpec, spec))
    swept, cards = (next(stage for stage in work.stages if stage.name == name) for name in ("sweep", "cards"))
    done = sweep.merge(work.prompts.dataset(), run_in_memory(swept))
    return {*cards.plan(done)["groups"]}, done["effect"].mean("prompt"), work


def test_a_study_explains_the_strongest_heads_each_way():
    model = {"source": "random", "name": "random", "shape": "llama"}
    got, mean, _ = chosen("study", model=model, prompts={"name": "ioi", "n": 2})
    flat = mean.sel(metric="logit_diff").stack(at=["layer", "head"])
    order = [f"L{layer}H{head}" for layer, head in flat.sortby(flat)["at"].values]
    assert float(flat.min()) < 0 < float(flat.max())
    assert got == {*order[:3], *order[-3:]}


@pytest.mark.parametrize("shape", ["bert", "t5"])
def test_a_card_leaves_out_what_a_model_does_not_allow(tmp_path, shape):
    keys = {"prompts": {"name": "inline", "text": ["a drink to Mary", "then John sat"]}}
    keys["prompts"] |= (
        {}
        if shape == "bert"
        else {"target": ["gave a drink", "sat"], "answer": [" M", " J"], "distractor": [" B", " C"]}
    )
    got = explained(tmp_path, shape, heads=["L0H1"] if shape == "bert" else ["cross.L1H0", "encoder.L0H1"], **keys)
    reasons = got.data["lens"].attrs["cards_left_out"]
    assert "source_direct" in reasons
    assert "weights" in reasons
    assert "composition" not in got.data
    assert ("account" in got.data) == (shape == "t5")
    np.testing.assert_allclose(got.data["lens"][..., -1], got.data["clean"], atol=1e-5)
    assert head_cards.cards(got)


def test_important_heads_have_a_card_where_none_are_named():
    planted = {"source": "planted", "name": "planted"}
    got, _, work = chosen("explain_heads", model=planted, prompts={"name": "induction", "n": 12}, metrics=["loss"])
    assert got <= {str(head) for heads in work.model.truth.values() for head in heads}
    assert {str(head) for head in work.model.truth["induction"]} <= got


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            {"ablation": {"name": "zero", "positions": "each"}},
            "ablation.positions=each: a card explains a head's effect",
        ),
        ({"sweep": {"kind": "layer"}}, "sweep.kind=layer: a card is of a single head; set sweep.kind=.single,layer."),
    ],
)
def test_a_request_without_an_effect_to_explain_is_refused(keys, says):
    spec = {"model": {"source": "random", "name": "random"}, "prompts": {"name": "ioi", "n": 2}, **keys}
    with pytest.raises(RequestError, match=says):
        prepare("explain_heads", parse(RunSpec, spec))
