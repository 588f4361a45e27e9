"""What heads do: masks worked by hand, patterns with a known role, planted models, and the heads that were measured."""

from dataclasses import replace

import numpy as np
import pytest
from drawing import drawn
from thinned import most, seeds

import harness
from harness import study
from harness.attention import activations
from harness.config import Place, RequestError, RolesSpec, RunSpec, StatsSpec, parse
from harness.findings import findings
from harness.hooks import Head
from harness.models import sources
from harness.models.planted import build
from harness.prompts.relations import Relation, relations
from harness.roles import ROLES, masks
from harness.roles.attention_context import AttentionContext
from harness.roles.copying import copying, raised
from harness.roles.masks import by_chance
from harness.roles.probe_prompts import repeats
from harness.roles.role_measures import MEASURES, alignment
from harness.roles.scoring import RelationHits, TextScores, beyond_chance, far_enough, role_scores
from harness.roles.stage import RolesStage
from harness.roles.syntax import best_offset, hits, syntactic
from harness.views import sections
from harness.words import Words

FEW = RolesSpec(n=4, draws=100)
STATS = StatsSpec(resamples=200)
NO_HITS = np.zeros((0, 2, 1, 3))


def profiled(model, prompts, spec=FEW):
    """The stage, here and now."""
    stage = RolesStage(model, prompts, spec, STATS)
    plan = stage.plan()
    return stage.assemble(plan, [stage.compute(plan, unit) for unit in range(len(plan["batches"]))])


def having(found):
    """The heads of each role that some head has."""
    made = {}
    for role in map(str, found["role"].values):
        given = found["role_given"].sel(role=role).values
        if given.any():
            made[role] = [Head(int(layer), int(head)) for layer, head in np.argwhere(given)]
    return made


# --- masks ------------------------------------------------------------------------------------------------------

TEXT = AttentionContext.of_text(np.array([7, 8, 9, 7, 8]))
BOTH_WAYS = AttentionContext.of_text(np.array([7, 8, 9, 7, 8]), causal=False)


def keys(mask, seen):
    """The keys of each query."""
    inside, _ = masks.counted(mask, seen)
    return [np.flatnonzero(row).tolist() for row in inside]


@pytest.mark.parametrize(
    ("maker", "causal", "expected"),
    [
        (masks.previous_token, True, [[], [0], [1], [2], [3]]),
        (masks.next_token, True, [[], [], [], [], []]),
        (masks.next_token, False, [[1], [2], [3], [4], []]),
        (masks.same_token, True, [[0], [1], [2], [3], [4]]),
        (masks.first_token, False, [[0], [0], [0], [0], [0]]),
        (masks.diagonal, True, [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]),
        (masks.duplicate_token, True, [[], [], [], [0], [1]]),
        (masks.duplicate_token, False, [[3], [4], [], [0], [1]]),
        (masks.induction, True, [[], [], [], [1], [2]]),
        (masks.induction, False, [[4], [], [], [1], [2]]),
        (masks.rare_word, True, [[0], [1], [2], [2], [2]]),
    ],
)
def test_which_keys_a_role_looks_at(maker, causal, expected):
    seen = TEXT if causal else BOTH_WAYS
    assert keys(maker(seen), seen) == expected


def test_special_tokens_are_a_role_of_their_own_only_where_not_the_first_alone():
    marks = np.array([True, False, False, False, True])
    framed = AttentionContext.of_text(np.array([1, 5, 6, 7, 2]), marks, causal=False)
    assert keys(masks.special_token(framed), framed) == [[0, 4]] * 5
    assert framed.rows.tolist() == [False, True, True, True, False]
    begun = AttentionContext.of_text(np.array([1, 5, 6]), np.array([True, False, False]))
    assert not masks.special_token(begun).any()
    assert not masks.duplicate_token(AttentionContext.of_text(np.array([1, 1]), np.array([True, True]))).any()


def test_a_score_is_the_mean_attention_of_the_rows_that_have_a_choice():
    pattern = np.array([[1, 0, 0, 0, 0], [0.3, 0.7, 0, 0, 0], [0.1, 0.2, 0.7, 0, 0], [0.4, 0.3, 0.2, 0.1, 0],
                        [0.1, 0.1, 0.6, 0.1, 0.1]])[None]  # fmt: skip
    assert masks.share(pattern, masks.previous_token(TEXT), TEXT) == pytest.approx((0.3 + 0.2 + 0.2 + 0.1) / 4)
    assert masks.share(pattern, masks.induction(TEXT), TEXT) == pytest.approx((0.3 + 0.6) / 2)
    assert masks.share(pattern, masks.diagonal(TEXT), TEXT) == pytest.approx((0.6 + 0.8) / 2)  # rows 0-2 have no choice
    assert np.isnan(masks.share(pattern, masks.next_token(TEXT), TEXT))


@pytest.mark.parametrize("maker", [masks.previous_token, masks.first_token, masks.diagonal])
def test_keys_moved_at_random_are_those_of_a_head_that_looks_everywhere_alike(maker):
    rng, seen = np.random.default_rng(0), AttentionContext.of_text(np.arange(9))
    mask, uniform = maker(seen), np.tril(np.ones((9, 9))) / np.arange(1, 10)[:, None]
    inside, rows = masks.counted(mask, seen)
    drawn = masks.by_chance(mask, seen, 3000, rng) * rows.sum()
    np.testing.assert_allclose(drawn.sum(2), np.tile(np.where(rows, inside.sum(1), 0), (3000, 1)), atol=1e-5)
    assert not drawn[:, ~seen.allowed].any()
    expected = uniform * inside.sum(axis=1, keepdims=True) * rows[:, None]
    np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=0.04)


# --- measures ---------------------------------------------------------------------------------------------------


def patterns(n, rng, causal=True):
    """Heads with a role by construction, one that spreads evenly, and one at random."""
    allowed = np.tril(np.ones((n, n))) if causal else np.ones((n, n))
    offset = np.arange(n)[None] - np.arange(n)[:, None]
    made = {
        "previous_token": offset == -1,
        "same_token": offset == 0,
        "first_token": np.broadcast_to(np.arange(n) == 0, (n, n)),
        "positional": offset == -4,
        "near_uniform": allowed,
        "": allowed * rng.standard_exponential((n, n)),
    }
    made |= {} if causal else {"next_token": offset == 1}
    spread = {name: (each + 1e-2 * (name not in ("near_uniform", ""))) * allowed for name, each in made.items()}
    return {name: each / each.sum(1, keepdims=True) for name, each in spread.items()}


@pytest.mark.parametrize("causal", [True, False])
def test_a_head_built_for_a_role_has_that_one_and_no_other(causal):
    rng = np.random.default_rng(0)
    built = patterns(48, rng, causal)
    seen = AttentionContext.of_text(rng.permutation(48), causal=causal)
    pattern = np.stack(list(built.values())).astype(np.float32)
    found = {}
    for role, measure in MEASURES.items():
        measured = measure.by(pattern, seen, 200, rng) if "self" in measure.where else None
        if measured is not None:
            chance = measured.null.mean(axis=0)
            far = far_enough(measured.score, chance, 0.4, measure.least)
            found[role] = far & (beyond_chance(measured.score, measured.null) < 0.05)
    for role, measure in MEASURES.items():
        for finer in measure.finer:
            if role in found and finer in found:
                found[role] &= ~found[finer]
    for role, given in found.items():
        names = [name for name, has in zip(built, given, strict=True) if has]
        assert names == ([role] if role in built else []), role


def test_scores_are_those_of_plain_loops():
    rng, n = np.random.default_rng(1), 12
    ids = np.concatenate([[99], rng.permutation(6), np.arange(5)])[:n]
    ids[7:] = ids[1:6]
    seen = AttentionContext.of_text(ids, ids == 99)
    pattern = np.tril(rng.random((3, n, n))).astype(np.float32)
    pattern /= pattern.sum(-1, keepdims=True)
    loops = {role: np.zeros(3) for role in ("induction", "duplicate_token", "rare_word")}
    rows = {role: 0 for role in loops}
    for query in range(1, n):
        ordinary = [key for key in range(query + 1) if ids[key] != 99]
        wanted = {
            "induction": [key for key in ordinary if key > 0 and ids[key - 1] == ids[query] and key - 1 != query],
            "duplicate_token": [key for key in ordinary if ids[key] == ids[query] and key != query],
            "rare_word": [key for key in ordinary if ids[key] == max(ids[k] for k in ordinary)],
        }
        for role, some in wanted.items():
            if some:
                loops[role] += pattern[:, query, some].sum(-1)
                rows[role] += 1
    for role, total in loops.items():
        measured = MEASURES[role].by(pattern, seen, 10, rng)
        np.testing.assert_allclose(measured.score, total / rows[role], rtol=1e-5)


def test_alignment_is_the_correlation_of_places():
    rng = np.random.default_rng(0)
    seen = AttentionContext(np.arange(10), np.zeros(10, bool), np.ones((8, 10), bool), np.ones(8, bool), another=True)
    along, still = np.eye(8, 10), np.tile(np.eye(10)[3], (8, 1))
    measured = alignment(np.stack([along, still, along[::-1]]).astype(np.float32), seen, 500, rng)
    np.testing.assert_allclose(measured.score, [1, 0, -1], atol=1e-6)
    assert abs(measured.null.mean()) < 0.05
    assert beyond_chance(measured.score, measured.null)[0] < 0.01


def test_far_enough_is_a_share_of_the_way_from_chance_to_one():
    """Four tenths of the way from 0 are 0.4, from 0.5 they are 0.7; below the least score nothing is enough."""
    score, chance = np.array([0.39, 0.41, 0.69, 0.71, 0.71]), np.array([0.0, 0.0, 0.5, 0.5, 0.0])
    assert far_enough(score, chance, 0.4, 0.0).tolist() == [False, True, False, True, True]
    assert far_enough(score, chance, 0.4, 0.7).tolist() == [False, False, False, True, True]


def texts_with(score, null):
    """Texts of which every role has these scores [text, head] and this null [draw, head], in one layer."""
    score, null = (np.broadcast_to(each, (len(ROLES), *np.shape(each))) for each in (score, null))
    clusters, n = np.arange(score.shape[1]).astype(str), np.ones((len(ROLES), 1), int)
    return TextScores(clusters, score[:, :, None, None].copy(), null[:, :, None, None].copy(), n)


def test_role_scores_give_no_role_that_chance_gives_as_often():
    """Three heads with one score; by chance the second has a higher one in every tenth draw."""
    null = np.full((100, 3), 0.1) + 0.01 * np.random.default_rng(0).standard_normal((100, 3))
    null[::10, 1] = 0.95
    texts = texts_with(np.tile([0.8, 0.8, 0.1], (6, 1)), null)
    found = role_scores(dict.fromkeys(("prompts", "repeats"), texts), RelationHits((), NO_HITS, True), [""], FEW, STATS)
    of_role = found.sel(role="previous_token", layer=0)
    assert of_role["role_given"].values.tolist() == [True, False, False]
    assert float(of_role["role_p"][0]) < 0.05 < float(of_role["role_p"][1])


def test_role_scores_give_no_syntactic_role_after_two_relations():
    """Both heads hit every relation and the best offset half of them; of two that is chance, of twenty it is not."""
    for n, given in ((2, False), (20, True)):
        related = [Relation("nsubj", 5 - at % 2, 6) for at in range(n)]
        texts = dict.fromkeys(("prompts", "repeats"), texts_with(np.zeros((2, 2)), np.zeros((10, 2))))
        hit = np.ones((n, 2, 1, 2))
        found = role_scores(texts, RelationHits(related, hit, True), [""], FEW, STATS)
        assert found["role_given"].sel(role="syntactic_nsubj", layer=0).values.tolist() == [given, given]


# --- copying ----------------------------------------------------------------------------------------------------


def test_a_head_copies_if_tokens_raise_themselves_most():
    rng = np.random.default_rng(0)
    loud = np.eye(12) + 5 * rng.standard_normal(12)[None, :]  # some tokens are always raised: that is no copying
    random, silent = rng.standard_normal((12, 12)), 1e-8 * np.eye(12)
    measured = copying(np.stack([loud, -np.eye(12), random, silent]), 300, rng)
    np.testing.assert_allclose(measured.score[[0, 1, 3]], [1, 0, 0])
    assert (beyond_chance(measured.score, measured.null) < 0.05).tolist() == [True, False, False, False]


def test_what_a_head_raises_is_its_ov_circuit(tiny):
    """Against W_V W_O and the unembedding of the plain model, multiplied by hand."""
    model = tiny("gpt2")
    probe = repeats(model, RolesSpec(n=1, length=6))
    position = np.arange(1, 7)
    found = raised(model, probe, position)[0]
    plain, ids = model.bridge.original_model, probe.token_id
    import torch

    with torch.no_grad():
        out = plain(torch.as_tensor(ids), output_hidden_states=True)
    for layer in range(3):
        block = plain.transformer.h[layer]
        x = block.ln_1(out.hidden_states[layer])[0]
        d, dh = x.shape[-1], x.shape[-1] // 4
        v = x @ block.attn.c_attn.weight[:, 2 * d :] + block.attn.c_attn.bias[2 * d :]
        for head in range(4):
            write = v[position][:, head * dh : (head + 1) * dh] @ block.attn.c_proj.weight[head * dh : (head + 1) * dh]
            read = (write - write.mean(-1, keepdim=True)) * plain.transformer.ln_f.weight
            token = plain.lm_head.weight[ids[0, position]]
            cosine = read @ token.T / read.norm(dim=-1)[:, None] / token.norm(dim=-1)
            np.testing.assert_allclose(found[layer, head], cosine.detach().numpy(), atol=1e-4)


def test_what_a_head_raises_reads_the_values_of_its_own_group(tiny):
    """Llama: two heads to a value, an RMSNorm; multiplied by hand as above."""
    import torch

    model = tiny("llama")
    probe, position = repeats(model, RolesSpec(n=1, length=6)), np.arange(1, 7)
    found, plain, ids = raised(model, probe, position)[0], model.bridge.original_model, probe.token_id
    with torch.no_grad():
        out = plain(torch.as_tensor(ids), output_hidden_states=True)
    for layer in range(3):
        block, dh = plain.model.layers[layer], model.shape.d_head
        v = block.self_attn.v_proj(block.input_layernorm(out.hidden_states[layer]))[0, position]
        for head in range(4):
            value = v[:, head // 2 * dh : (head // 2 + 1) * dh]
            read = value @ block.self_attn.o_proj.weight[:, head * dh : (head + 1) * dh].T * plain.model.norm.weight
            token = plain.lm_head.weight[ids[0, position]]
            cosine = read @ token.T / read.norm(dim=-1)[:, None] / token.norm(dim=-1)
            np.testing.assert_allclose(found[layer, head], cosine.detach().numpy(), atol=1e-4)


# --- syntax -----------------------------------------------------------------------------------------------------


def test_relations_are_read_and_checked():
    words = Words((0, 1, 2, 2, 3, 4, 5), ("", "The", " dog", "", " saw", " the", " cat"), ())
    special = (True, *[False] * 6)
    read = relations("nsubj(saw, dog); det(cat,the) ;", words, special)
    assert read == (Relation("nsubj", 3, 2), Relation("det", 5, 4))
    twice = Words((0, 1, 2), ("the", " dog", " the"), ())
    assert relations("det(dog, the#2)", twice, (False,) * 3) == (Relation("det", 1, 2),)
    with pytest.raises(RequestError, match=r"nsubj saw dog: a relation is written name\(head, dependent\)"):
        relations("nsubj saw dog", words, special)
    with pytest.raises(RequestError, match="Dog: the text has no such word; did you mean 'dog'"):
        relations("nsubj(saw, Dog)", words, special)
    with pytest.raises(RequestError, match="the text has no such word"):
        relations("det(dog, the#3)", twice, (False,) * 3)


def test_a_syntactic_head_beats_the_best_fixed_offset():
    rng, n = np.random.default_rng(0), 12
    found, related = [], []
    for _ in range(40):
        dependent = int(rng.integers(4, n))
        relation = Relation("nsubj", dependent - int(rng.choice([1, 1, 2, 3])), dependent)
        pattern = np.full((3, n, n), 0.01)
        pattern[0, dependent, relation.head] = pattern[1, dependent, dependent - 1] = 1
        pattern[2] = rng.random((n, n))
        found.append(hits(pattern, np.zeros(n, bool), [relation], causal=True))
        related.append(relation)
    fixed = best_offset(related, causal=True)
    assert np.isnan(fixed[:, 1]).all(), "a decoder cannot look from the head to a later dependent"
    share = np.mean([each.dependent - each.head == 1 for each in related])
    assert fixed[:, 0].mean() == share
    measured, chance = syntactic(np.concatenate(found), fixed, 500, rng)
    np.testing.assert_allclose(chance, share)
    np.testing.assert_allclose(measured.score[:2], [1, share])
    p = beyond_chance(measured.score, measured.null)
    assert p[0] < 0.01 < 0.05 < min(p[1:])


def test_special_words_and_the_word_itself_are_not_looked_at():
    pattern = np.array([[[0.9, 0.05, 0.05], [0.5, 0.4, 0.1], [0.4, 0.35, 0.25]]])
    hit = hits(pattern, np.array([True, False, False]), [Relation("x", 1, 2)], causal=False)
    assert hit[0, :, 0].tolist() == [1, 1]


def test_relations_of_a_file_become_roles(tiny, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,deps\n"When Mary and John went to the store","nsubj(went, Mary); det(store, the)"\n')
    model = tiny("bert")
    prompts = harness.load_prompts("file", model, path=str(path), relations="deps")
    found = profiled(model, prompts)
    assert list(found["role"].values) == [*ROLES, "syntactic_det", "syntactic_nsubj"]
    assert np.isfinite(found["role_score"].sel(role="syntactic_det")).all()
    path.write_text('text,deps\n"When Mary went","nsubj(went, Tom)"\n')
    with pytest.raises(RequestError, match="line 2, Tom: the text has no such word"):
        harness.load_prompts("file", model, path=str(path), relations="deps")


# --- models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", seeds(20))
def test_the_roles_of_planted_heads_are_the_planted_ones_and_no_others(seed):
    """The induction head also copies: its V reads the token and its O writes what is unembedded."""
    model = harness.load_model("planted", seed=seed)
    found = profiled(model, harness.load_prompts("induction", model, n=8, length=18))
    assert having(found) == {**model.truth, "copying": model.truth["induction"]}


@pytest.mark.parametrize("variant", most(["soft", "redundant", "harmful"], 1))
def test_the_roles_of_other_planted_variants(variant):
    for seed in range(3):
        model = harness.load_model("planted", seed=seed, variant=variant)
        found = having(profiled(model, harness.load_prompts("induction", model, n=8, length=18)))
        induction = model.truth["induction"]
        assert found == {"previous_token": model.truth["previous_token"], "induction": induction, "copying": induction}


def test_a_head_that_looks_everywhere_alike_but_at_one_position_is_broad():
    model = harness.load_model("planted", seed=0, variant="positional")
    found = having(profiled(model, harness.load_prompts("induction", model, n=8, length=18)))
    assert found["near_uniform"] == model.truth["positional"]


PLACES = ("previous_token", "next_token", "same_token", "first_token", "diagonal", "positional")
#: The layers whose queries see their own token and four before it; those of the others see all before them.
WINDOWED = {"mistral": [0, 1, 2], "gemma3": [0, 2], "gpt2": [], "bert": [], "llama": [], "neox": [], "qwen3": []}


@pytest.mark.parametrize("shape", most(WINDOWED, 4))
def test_random_heads_have_no_role_by_place_with_and_without_a_sliding_window(tiny, shape):
    model = tiny(shape)
    prompts = harness.load_prompts("prose", model, n=2, length=48)
    found = profiled(model, prompts, RolesSpec(n=1, length=6, draws=100))  # places are scored on the prompts
    assert not found["role_given"].sel(role=list(PLACES)).any()
    chance = found["role_chance"].sel(role="previous_token").values
    for layer in range(3):
        window = 5 if layer in WINDOWED[shape] else 1000
        of_texts = [
            1 / n if shape == "bert" else np.mean([1 / min(row + 1, window) for row in range(1, n)])
            for n in map(int, prompts.length)
        ]
        np.testing.assert_allclose(chance[layer], np.mean(of_texts), rtol=0.05)


def test_what_each_layers_mask_allows_is_read_off_its_scores(tiny):
    """Gemma 3: windows of 5 in its first and last layer; BERT: padding is read by none."""
    model = tiny("gemma3")
    prompts = harness.load_prompts("prose", model, n=4, length=12)
    prompts = prompts.take(np.flatnonzero(prompts.length == 12)[:2])
    allowed = activations(model, prompts, ("allowed",))["allowed"]
    whole = np.tril(np.ones((12, 12)))
    for layer, want in enumerate([np.triu(whole, -4), whole, np.triu(whole, -4)]):
        np.testing.assert_array_equal(allowed[:, layer], np.stack([want] * 2))
    model = tiny("bert")
    prompts = harness.load_prompts("inline", model, text=["When Mary", "When Mary and John went to the store"])
    allowed, (short, _) = activations(model, prompts, ("allowed",))["allowed"], prompts.length
    assert allowed[0, :, :short, :short].all()
    assert not allowed[0, :, short:].any()
    assert not allowed[0, :, :, short:].any()


def test_the_page_tells_which_roles_are_shadows_of_which():
    """`positional` and `diagonal`, and the smallest score of the first."""
    finer = {role: measure.finer for role, measure in MEASURES.items() if measure.finer}
    assert set(finer) == {"positional", "diagonal"}
    (of,) = {*finer.values()}
    assert f"a head with {of[0]}, {of[1]} or {of[2]}, which are more specific, has neither" in sections.ROLES
    assert {role: measure.least for role, measure in MEASURES.items() if measure.least} == {"positional": 0.9}
    assert "<b>positional</b> needs a score of 0.9" in sections.ROLES


def test_by_chance_moves_keys_within_a_window():
    """Keys 2 to 4 of a row may be looked at, the mask marks key 4: each of the three is as likely."""
    allowed = np.zeros((1, 6), bool)
    allowed[0, 2:5] = True
    seen = replace(AttentionContext.of_text(np.arange(6)), allowed=allowed, ordinary=np.ones(1, bool))
    mask = np.zeros((1, 6), bool)
    mask[0, 4] = True
    drawn = by_chance(mask, seen, 3000, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(axis=0)[0], [0, 0, 1 / 3, 1 / 3, 1 / 3, 0], atol=0.03)
    assert (drawn.sum(axis=(1, 2)) == 1).all()


@pytest.mark.parametrize("shape", ["llama", "gemma3", "bert", "bert_classifier", "t5"])
def test_every_kind_of_model_has_scores(tiny, shape):
    model = tiny(shape)
    more = {"target": ["Mary and John"]} if shape == "t5" else {}
    prompts = harness.load_prompts("inline", model, text=["When Mary and John went to the store"], **more)
    found = profiled(model, prompts)
    dims = ("role", "stack", "layer", "head") if shape == "t5" else ("role", "layer", "head")
    assert found["role_score"].dims == dims
    known = found["role_score"].notnull().any([dim for dim in dims if dim != "role"])
    told = {str(role) for role in known["role"].values[known.values]}
    assert ("next_token" in told) == (shape in ("bert", "bert_classifier", "t5"))
    assert ("copying" in told) == (shape in ("llama", "gemma3"))
    assert ("alignment" in told) == (shape == "t5")
    score = found["role_score"]
    assert ((score.isnull() | (score >= -1.001)) & (score.isnull() | (score <= 1.001))).all()
    if shape == "t5":  # two decoder layers beside three encoder layers
        assert score.sel(stack="decoder", layer=2).isnull().all()


@pytest.mark.soak
def test_smollm2s_heads_are_those_that_were_measured(smollm2):
    found = profiled(smollm2, repeats(smollm2, RolesSpec()), RolesSpec(draws=40))
    score, given = found["role_score"], found["role_given"]
    for role, head, value in (
        ("induction", Head(18, 6), 0.88),
        ("induction", Head(17, 4), None),
        ("induction", Head(17, 3), None),
        ("induction", Head(17, 5), None),
        ("previous_token", Head(16, 0), 0.90),
        ("previous_token", Head(11, 1), 0.85),
        ("previous_token", Head(2, 1), None),
        ("previous_token", Head(1, 2), None),
        ("first_token", Head(18, 8), 1.00),
    ):
        assert bool(given.sel(role=role, **head.place)), f"{head} is no {role} head"
        if value is not None:
            assert float(score.sel(role=role, **head.place)) == pytest.approx(value, abs=0.05)


def test_minilms_scores_are_those_of_hugging_faces_attentions():
    import torch
    from transformers import AutoModel

    model = harness.load_model("minilm")
    twin = AutoModel.from_pretrained(sources.local_folder(model.spec), attn_implementation="eager").eval()
    texts = ["The cat sat on the mat because it was tired of walking.", "A dog barked at the man who came in."]
    prompts = harness.load_prompts("inline", model, text=texts)
    found = profiled(model, prompts)
    scores = []
    for row, length in enumerate(prompts.length):
        with torch.no_grad():
            seen = twin(torch.as_tensor(prompts.token_id[row : row + 1, :length]), output_attentions=True)
        scores.append(torch.stack(seen.attentions)[:, 0].numpy())
    by_hand = {
        "next_token": [np.mean([p[:, :, q, q + 1] for q in range(1, p.shape[-1] - 1)], axis=0) for p in scores],
        "previous_token": [np.mean([p[:, :, q, q - 1] for q in range(1, p.shape[-1] - 1)], axis=0) for p in scores],
        "special_token": [p[:, :, 1:-1, [0, -1]].sum(-1).mean(-1) for p in scores],
    }
    for role, expected in by_hand.items():
        np.testing.assert_allclose(found["role_score"].sel(role=role), np.mean(expected, axis=0), atol=1e-4)
    assert found["role_given"].sel(role=["next_token", "previous_token", "special_token"]).any()


def test_what_cannot_be_asked(tiny):
    model = tiny("gpt2")
    prompts = harness.load_prompts("inline", model, text=["When Mary went"])
    with pytest.raises(RequestError, match=r"roles.length=200: this makes 401 tokens, random takes 256"):
        RolesStage(model, prompts, RolesSpec(length=200), STATS)
    with pytest.raises(RequestError, match=r"roles.draws=10: level 0.05 needs at least 20"):
        RolesStage(model, prompts, RolesSpec(draws=10), STATS)


# --- runs -------------------------------------------------------------------------------------------------------

PLANTED = {"name": "planted", "source": "planted", "variant": "redundant"}
REPEATED = {"name": "induction", "n": 4, "length": 18}
TRUTH = build(0, "redundant").truth
QUICK = {"stats": {"resamples": 200}, "roles": {"n": 4, "draws": 100}, "metrics": ["loss"]}


def ran(runner, folder, **asked):
    random_sets = {"n_random_sets": 30} if runner == "profile_heads" else {}
    spec = parse(RunSpec, {"model": PLANTED, "prompts": REPEATED, **QUICK, **random_sets, **asked})
    study.run(runner, spec, Place(run=str(folder)), lambda *_: None)
    return harness.open_run(folder)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    with drawn():
        return ran("profile_heads", tmp_path_factory.mktemp("profile") / "run")


def test_a_profile_has_a_row_of_roles_for_every_head(profile):
    expected = {head: "induction;copying" for head in TRUTH["induction"]}
    expected |= {head: "previous_token" for head in TRUTH["previous_token"]}
    found = {
        Head(layer, head): roles
        for layer, head, roles in profile.heads[["layer", "head", "roles"]].itertuples(index=False)
        if isinstance(roles, str)
    }
    assert found == expected
    assert len(profile.heads) == 12
    assert profile.data["role_score"].dims == ("role", "layer", "head")


def test_the_heads_of_a_role_are_ablated_together_beside_random_sets(profile):
    model = harness.load_model("planted", variant="redundant")
    prompts = harness.load_prompts("induction", model, n=4, length=18)
    sets = {role: TRUTH[role] for role in ("previous_token", "induction")}
    alone = harness.ablate_heads(model, prompts, metrics=["loss"], kind="set", sets=sets).data
    for role in sets:
        effect = profile.data["role_effect"].sel(metric="loss", having=role)
        np.testing.assert_allclose(effect, alone["set_effect"].sel(metric="loss", set=role), atol=1e-6)
    random = profile.data["random_effect"].sel(metric="loss", having="induction").mean("prompt")
    assert random.sizes["draw"] == 30
    assert (
        random.values <= float(profile.data["role_effect"].sel(metric="loss", having="induction").mean()) + 1e-6
    ).all()
    told = [found.text for found in findings(profile)]
    assert any(each.startswith("Role induction (looks at the token after") and "2 of 12 heads" in each for each in told)
    (worth,) = [each for each in told if each.startswith("By loss, ablating all 2 induction heads together")]
    assert "30 random sets of 2 heads" in worth


def test_the_report_of_a_profile_shows_the_roles(profile):
    page = (profile.path / "report.html").read_text(encoding="utf-8")
    assert "What heads do: their roles" in page
    assert "planted on induction: what attention heads do" in page
    assert (profile.path / "figures" / "roles.svg").is_file()


def test_pairs_are_chosen_by_role(tmp_path):
    run = ran("ablate_heads", tmp_path / "run", sweep={"kind": ["pairs"], "pairs": "role", "pairs_top_k": 2})
    pairs = set(zip(run.data["head_a"].values.tolist(), run.data["head_b"].values.tolist(), strict=True))
    induction = tuple(map(str, TRUTH["induction"]))
    previous = set(map(str, TRUTH["previous_token"]))
    assert induction in pairs
    assert len(pairs) == 2, "two of the three previous-token heads, and the induction heads once, though they copy too"
    assert all({*pair} <= previous for pair in pairs - {induction})
    assert "effect" not in run.data
    beyond = run.data["pair_difference"].sel(metric="loss").mean("prompt").values
    assert beyond.max() > 3


def test_pairs_by_role_need_two_heads_of_one_role(tmp_path):
    sharp = {**PLANTED, "variant": "sharp"}
    with pytest.raises(RequestError, match="sweep.pairs=role: no two of these heads have a role in common"):
        ran("ablate_heads", tmp_path / "run", model=sharp, sweep={"kind": ["pairs"], "pairs": "role"})


def test_published_roles_are_held_against_those_that_were_found(tmp_path):
    (previous, *_), (induction, _) = (TRUTH[role] for role in ("previous_token", "induction"))
    said = [
        {"source": "x", "what": "role", "head": str(previous), "role": "previous_token"},
        {"source": "y", "what": "role", "head": str(induction), "role": "previous_token"},
    ]
    run = ran("profile_heads", tmp_path / "run", published=said, n_random_sets=0)
    told = [found.text for found in findings(run) if found.text.startswith("Published")]
    assert told == [
        f"Published: {previous} is a previous_token head (x). Here: the same.",
        f"Published: {induction} is a previous_token head (y). Here: induction and copying.",
    ]
    assert "role_effect" not in run.data
