"""A prediction traced to the parts of its prompt, against plain Hugging Face forwards and whole patterns."""

import json

import numpy as np
import pytest
import torch

import harness
from harness import hooks
from harness.attention.capture import activations
from harness.attribution import rollout
from harness.attribution.context import parts_heads_table, parts_table
from harness.attribution.context.stage import TraceStage
from harness.attribution.example import example_of, limit_targets
from harness.attribution.forward_cache import ForwardCache
from harness.attribution.gradients import gradient_norm, norms_in_turn
from harness.attribution.occlusion import mean_embedding
from harness.config import AttributionSpec, RequestError, RolloutSpec, StatsSpec, TraceSpec, parse
from harness.findings.segments import traced
from harness.hooks import Head
from harness.models import random as random_models
from harness.prompts.word_tags import parse_tags

LOWEST = torch.finfo(torch.float32).min
CONTEXT = {
    "parts": [
        {"name": "note", "text": "Mary went to the store."},
        {"name": "drink", "text": "John had a drink."},
    ],
    "question": "Where did Mary go?",
    "answer": "the store",
}
PART_ARRAYS = ("part_attention", "part_rollout", "part_cause", "part_head_cause")
WORDS = {"name": ["Mary", "John"], "function": [], "punctuation": []}


def parts_prompts(model, *contexts):
    return harness.load_prompts("context", model, contexts=list(contexts or [CONTEXT]))


def trace(model, prompts, heads="all", rollout=None, **options):
    chosen = model.heads([heads] if isinstance(heads, str) else heads)
    spec = parse(TraceSpec, options)
    stage = TraceStage(model, prompts, spec, tuple(chosen), rollout or RolloutSpec())
    plan = json.loads(json.dumps(stage.plan()))
    units = [stage.compute(plan, unit) for unit in range(len(plan["batches"]))]
    return prompts.dataset().merge(stage.assemble(plan, units))


@pytest.fixture(params=["llama", "gpt2", "bert", "bert_classifier"])
def asked(request, tiny):
    """Prompts of parts for a model of each kind, and the plain model with the same weights."""
    model = tiny(request.param)
    if model.kind == "decoder":
        prompts = parts_prompts(model)
    else:
        answer = {"answer": ["neutral"]} if model.kind == "classifier" else {}
        prompts = harness.load_prompts("inline", model, text=["Mary and John went home."], words=WORDS, **answer)
    twin, *_ = random_models.build(request.param, 0)
    return model, prompts, twin.eval()


def inside(prompts, part, row=0):
    return prompts.part[row, : prompts.length[row]] == part


# --- prompts ----------------------------------------------------------------------------------------------------


def test_every_token_belongs_to_the_part_it_stands_in(tiny):
    model = tiny("llama")
    prompts = parts_prompts(model)
    text = {name: "".join(prompts.token[0][inside(prompts, name)]) for name in ("note", "drink", "question", "answer")}
    assert text == {
        "note": "Mary went to the store.\n\n",
        "drink": "John had a drink.\n\n",
        "question": "Where did Mary go?",
        "answer": " the store",
    }
    scored = np.flatnonzero(prompts.target[0])
    assert (prompts.part[0][scored + 1] == "answer").all()
    assert len(scored) == inside(prompts, "answer").sum()


def test_an_answer_that_is_not_given_is_the_models_own(tiny):
    model = tiny("llama")
    asked = {key: value for key, value in CONTEXT.items() if key != "answer"}
    prompts = harness.load_prompts("context", model, contexts=[asked, CONTEXT], generate=3)
    given = parts_prompts(model)
    np.testing.assert_array_equal(prompts.token_id[1][: given.length[0]], given.token_id[0])
    begin = int(np.flatnonzero(prompts.part[0] == "answer")[0])
    twin, *_ = random_models.build("llama", 0)
    ids = torch.as_tensor(prompts.token_id[0][:begin])[None]
    for at in range(begin, prompts.length[0]):
        token = twin.eval()(ids).logits[0, -1].argmax()
        assert int(token) == prompts.token_id[0][at] == prompts.correct[0][at - 1]
        ids = torch.cat([ids, token[None, None]], dim=1)
    assert 1 <= prompts.length[0] - begin <= 3


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_contexts_from_a_file(tiny, tmp_path, ending):
    path = tmp_path / f"context.{ending}"
    path.write_text(json.dumps([CONTEXT, {**CONTEXT, "cluster": "same"}]), encoding="utf-8")
    prompts = harness.load_prompts("context", tiny("llama"), path=str(path))
    assert prompts.cluster == ("context 0", "same")
    np.testing.assert_array_equal(prompts.part[0], parts_prompts(tiny("llama")).part[0])


BAD = [
    ({}, "prompts.path=None: set prompts.path=context.json"),
    ({"contexts": [{**CONTEXT, "question": " "}]}, "prompts.contexts.0.question=' ': ask something"),
    ({"contexts": [{**CONTEXT, "answer": " "}]}, "prompts.contexts.0.answer=' ': write an answer"),
    ({"contexts": [{**CONTEXT, "parts": []}]}, "prompts.contexts.0.parts=[]: name at least one"),
    (
        {"contexts": [{**CONTEXT, "parts": [{"name": "question", "text": "a"}]}]},
        "prompts.contexts.0.parts=question: a part needs a name of its own",
    ),
    ({"path": "no.json"}, "prompts.path=no.json: there is no such file"),
    ({"path": "no.csv"}, "prompts.path=no.csv: contexts are read from .json, .yaml and .yml"),
]


@pytest.mark.parametrize(("asked", "said"), BAD)
def test_a_wrong_context_is_one_line(tiny, asked, said):
    with pytest.raises(RequestError) as error:
        harness.load_prompts("context", tiny("llama"), **asked)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"parts": 3}', "context 0, parts=3: name at least one"),
        ("[]", "this file has no context in it"),
        ("[1]", "context 0 is not an object"),
        ("{", "this file cannot be read"),
    ],
)
def test_a_wrong_file_of_contexts_is_named(tiny, tmp_path, text, said):
    path = tmp_path / "context.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match="prompts.path=") as error:
        harness.load_prompts("context", tiny("llama"), path=str(path))
    assert said.partition(":")[0] in str(error.value)


def test_contexts_need_a_decoder(tiny):
    with pytest.raises(RequestError, match="prompts=context: random is an encoder: an answer needs a decoder"):
        parts_prompts(tiny("bert"))


# --- tagged words -----------------------------------------------------------------------------------------------


def test_tagged_words_are_found_whole_and_in_any_capitals(tiny):
    text = "Mary said: she's GLAD, not sad; gladness, Mary!"
    tags = {"name": ["mary"], "emotion": ["glad", "sad"], "pronoun": [], "punctuation": []}
    prompts = harness.load_prompts("inline", tiny("bert"), text=[text], words=tags)
    tokens, part = prompts.token[0], prompts.part[0]
    by_tag = {tag: "".join(tokens[part == tag]).replace("##", "").lower() for tag in (*tags, "special")}
    assert by_tag["name"].count("mary") == 2
    assert "glad" in by_tag["emotion"]
    assert "sad" in by_tag["emotion"]
    assert "gladness" not in "".join(tokens[part == "emotion"])
    assert by_tag["special"] == "[cls][sep]"
    assert set(by_tag["punctuation"]) <= set(":,;!'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"colour": ["red"]}, "prompts.words.colour=['red']: none of these words stands in any prompt"),
        ({"colour": []}, "prompts.words.colour=[]: list its words"),
        ({"other": ["a"]}, "prompts.words=other: this is what words without a tag"),
        ({"name": ["Mary Ann"]}, "prompts.words.name='Mary Ann': a word is tagged by itself"),
    ],
)
def test_a_wrong_tag_is_one_line(tiny, words, said):
    with pytest.raises(RequestError) as error:
        harness.load_prompts("inline", tiny("llama"), text=["Mary went"], words=words)
    assert str(error.value).startswith(said)


def test_tags_in_a_file_are_an_object_or_text(tiny, tmp_path):
    rows = [
        {"text": "Mary went home", "tagged": {"name": ["Mary"]}},
        {"text": "John went home", "tagged": "name: John; place: home"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prompts = harness.load_prompts("file", tiny("llama"), path=str(path), words="tagged")
    assert "".join(prompts.token[0][prompts.part[0] == "name"]) == "Mary"
    assert set(prompts.part[1]) == {"special", "name", "other", "place"} | (
        {""} if (prompts.part[1] == "").any() else set()
    )
    assert parse_tags("a: b, c; d: e", "k") == {"a": ["b", "c"], "d": ["e"]}
    with pytest.raises(RequestError, match="k="):
        parse_tags({"a": [1]}, "k")


# --- what is looked at ------------------------------------------------------------------------------------------


def test_attention_and_rollout_are_those_of_whole_patterns(asked):
    model, prompts, _ = asked
    options = RolloutSpec(residual=0.4, start_layer=1)
    data = trace(model, prompts, heads="L0H0", rollout=options, targets=3)
    question = example_of(model, limit_targets(prompts, 3))
    rows = activations(model, question.rows)["pattern"]
    for target, (row, at) in enumerate(zip(question.row, question.position, strict=True)):
        whole = rollout(rows[row], residual=0.4, start_layer=1)[at]
        for part in map(str, data.part.values):
            mine = inside(prompts, part)
            got = data.part_attention.sel(part=part).values[0, target]
            np.testing.assert_allclose(got, rows[row][:, :, at, mine].sum(-1), atol=1e-5)
            np.testing.assert_allclose(data.part_rollout.sel(part=part).values[0, target], whole[mine].sum(), atol=1e-5)
    np.testing.assert_allclose(data.part_attention.sum("part"), 1, atol=1e-4)


def test_gradients_one_by_one_are_those_of_all_at_once(asked):
    model, prompts, _ = asked
    question = example_of(model, limit_targets(prompts, 3))
    evidence = ForwardCache(question, AttributionSpec(), mean_embedding(model))
    np.testing.assert_allclose(norms_in_turn(question), gradient_norm(evidence.slopes, question), rtol=1e-4, atol=1e-7)


# --- what it costs ----------------------------------------------------------------------------------------------


@torch.no_grad()
def loss(model, twin, ids, at, right, **given):
    logits = twin(torch.as_tensor(ids)[None], **given).logits[0]
    row = logits if model.kind == "classifier" else logits[at]
    return -float(row.double().log_softmax(-1)[right])


def test_causes_are_those_of_plain_forwards(asked):
    """The part's tokens left out, and its columns masked for everybody else."""
    model, prompts, twin = asked
    data = trace(model, prompts, heads="L0H0", targets=3)
    question = example_of(model, limit_targets(prompts, 3))
    for part in map(str, data.part.values):
        mine = inside(prompts, part)
        for target, (row, at) in enumerate(zip(question.row, question.position, strict=True)):
            if part in ("answer", "special", "question") or mine[at]:
                continue
            ids = question.rows.token_id[row]
            right = int(question.rows.correct[row, at])
            clean = loss(model, twin, ids, at, right)
            without = loss(model, twin, ids[~mine], int((~mine)[:at].sum()), right)
            blocked = torch.zeros(len(ids), len(ids)).masked_fill(
                torch.as_tensor(mine)[None, :] & ~torch.as_tensor(mine)[:, None], LOWEST
            )
            if model.kind == "decoder":
                blocked = blocked.masked_fill(torch.ones_like(blocked).triu(1).bool(), LOWEST)
            unread = loss(model, twin, ids, at, right, attention_mask=blocked[None, None])
            got = data.part_cause.sel(part=part).values[0, target]
            np.testing.assert_allclose(got, [without - clean, unread - clean], atol=3e-4)
    assert np.nanmax(np.abs(data.part_cause.values)) > 1e-3


def test_the_answer_itself_is_never_taken_away(tiny):
    data = trace(tiny("llama"), parts_prompts(tiny("llama")), heads="L0H0")
    assert np.isnan(data.part_cause.sel(part="answer")).all()
    assert np.isfinite(data.part_attention.sel(part="answer")).all()


def test_heads_are_knocked_out_for_the_part_that_is_used(tiny):
    """By hand: the head's z from its weights without the part's, put into a plain forward."""
    import plain

    model = tiny("llama")
    prompts = parts_prompts(model)
    data = trace(model, prompts, heads=["L1"])
    known = np.isfinite(data.part_head_cause).any(["prompt", "traced"])
    used = str(data.part.values[known.any(["layer", "head"]).values][0])
    candidates = data.part_cause.sel(taken="knockout", part=["note", "drink"]).mean(["prompt", "traced"])
    assert used == str(candidates.part.values[candidates.values.argmax()])
    assert known.sel(part=used).any("head").values.tolist() == [False, True, False]
    twin, *_ = random_models.build("llama", 0)
    mine, ids = inside(prompts, used), prompts.token_id[0]
    cache = harness.cache_attention(model, prompts, also=["v"]).data
    pattern, value = cache.pattern.values[0, 1].astype(float), cache.v.values[0, 1].astype(float)
    pattern[:, np.ix_(~mine, mine)[0], np.ix_(~mine, mine)[1]] = 0
    pattern /= pattern.sum(-1, keepdims=True)
    z = np.einsum("hqk,hkd->qhd", pattern, value.repeat(2, axis=0))
    new = np.zeros((3, *z.shape), np.float32)
    new[1] = z
    right, at = prompts.correct[0], np.flatnonzero(prompts.target[0])
    clean = plain.logits(twin.eval(), ids)
    for head in range(4):
        out = plain.logits(twin, ids, [Head(1, head)], z.shape[-1], torch.as_tensor(new))
        want = [
            float(clean[p].double().log_softmax(-1)[right[p]] - out[p].double().log_softmax(-1)[right[p]]) for p in at
        ]
        got = data.part_head_cause.sel(part=used, layer=1, head=head).values[0]
        np.testing.assert_allclose(got, want, atol=2e-4)


def test_prompts_without_parts_are_refused(tiny):
    prompts = harness.load_prompts("inline", tiny("llama"), text=["Mary went"])
    with pytest.raises(RequestError, match="prompts=inline: they have no parts: set prompts=context"):
        trace(tiny("llama"), prompts)


def test_an_encoder_decoder_is_refused(tiny):
    prompts = harness.load_prompts("inline", tiny("t5"), text=["Mary"], target=["John"], words={"name": ["John"]})
    with pytest.raises(RequestError, match="model=random: it reads one text and writes another"):
        trace(tiny("t5"), prompts)


@pytest.mark.parametrize("gradient", [False, True])
def test_of_a_long_text_no_pattern_outlives_its_layer(tiny, gradient):
    """Patterns alive whenever one more is made: none, except on the way to a gradient, which needs all."""
    from torch.multiprocessing.reductions import StorageWeakRef

    model, alive, seen = tiny("llama"), [], []
    long = {**CONTEXT, "parts": [{**part, "text": part["text"] * 11} for part in CONTEXT["parts"]]}
    prompts = parts_prompts(model, long)
    n, points = int(prompts.length[0]), [hooks.hook_name("pattern", site) for site in model.shape.sites]
    assert n > 190

    def look(module, args, pattern):
        assert pattern.shape[-2:] == (n, n) or pattern.shape[-1] < n
        alive.append(sum(not each.expired() for each in seen))
        seen.append(StorageWeakRef(pattern.untyped_storage()))

    handles = [model.bridge.hook_dict[name].register_forward_hook(look) for name in points]
    try:
        data = trace(model, prompts, gradient=gradient, targets=2)
    finally:
        for handle in handles:
            handle.remove()
    assert len(seen) > 10 * len(points)
    assert max(alive) == (len(points) - 1 if gradient else 0)
    assert not {"query", "key", "position"} & {dim for name in PART_ARRAYS for dim in data[name].dims}
    assert sum(data[name].nbytes for name in PART_ARRAYS) < 4 * n * n  # less than one pattern of one head


# --- what is claimed --------------------------------------------------------------------------------------------


def test_tables_are_means_of_the_arrays(tiny):
    model = tiny("llama")
    other = {**CONTEXT, "parts": CONTEXT["parts"][::-1], "answer": "a drink"}
    data = trace(model, parts_prompts(model, CONTEXT, other), heads="L0")
    table = parts_table(data, StatsSpec(resamples=500)).set_index(["measure", "part"])
    by_prompt = data.part_cause.sel(taken="delete", part="note").mean("traced")
    row = table.loc["delete", "note"]
    assert row["mean"] == pytest.approx(float(by_prompt.mean()), rel=1e-5)
    assert row["ci_low"] <= row["mean"] <= row["ci_high"]
    assert (row["over"], row["n_prompts"]) == ("prompts", 2)
    for measure in ("tokens", "attention", "rollout", "gradient"):
        assert table.loc[measure]["mean"].sum() == pytest.approx(1, abs=1e-4)
    heads = parts_heads_table(data, StatsSpec(resamples=500))
    assert set(heads["head"]) == {0, 1, 2, 3}
    for row in heads.to_dict("records"):
        chosen = data.part_head_cause.sel(part=row["part"], layer=row["layer"], head=row["head"]).mean("traced")
        assert row["mean"] == pytest.approx(float(chosen.mean()), rel=1e-5)


def test_one_context_has_intervals_over_its_scored_tokens(tiny):
    data = trace(tiny("llama"), parts_prompts(tiny("llama")), heads="L0H0")
    table = parts_table(data, StatsSpec(resamples=500))
    assert set(table["over"]) == {"scored tokens"}
    chosen = table[(table.measure == "knockout") & (table.part == "note")].iloc[0]
    values = data.part_cause.sel(taken="knockout", part="note").values[0]
    assert chosen["mean"] == pytest.approx(float(np.nanmean(values)), rel=1e-5)
    assert np.isfinite(chosen["ci_low"])


# --- the runner -------------------------------------------------------------------------------------------------


def test_the_runner_leaves_a_run_that_says_what_was_used(command, pictures, tmp_path):
    path = tmp_path / "context.json"
    path.write_text(json.dumps(CONTEXT), encoding="utf-8")
    code, out, _ = command("trace_context", "model=random", f"prompts.path={path}", "trace.heads=every")
    assert code == 0
    run = harness.open_run(out.splitlines()[-1])
    said = [finding.text for finding in traced(run)]
    costs = run.parts[run.parts.measure == "knockout"].set_index("part")["mean"]
    most = costs[["note", "drink"]].idxmax()
    assert f"{most} most" in said[0] or f"is {most}’s" in said[0]
    assert set(run.part_heads["part"]) == {"note", "drink"}
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert 'id="parts"' in page
    assert "attention to it is knocked out" in page
    assert {"parts", "part_heads"} <= {path.stem for path in run.path.glob("*.parquet")}


def test_the_sentences_change_with_the_data(command, tmp_path):
    from dataclasses import replace

    path = tmp_path / "context.json"
    path.write_text(json.dumps(CONTEXT), encoding="utf-8")
    _, out, _ = command("trace_context", "model=random", f"prompts.path={path}", "trace.heads=none")
    run = harness.open_run(out.splitlines()[-1])
    data = run.data.load().copy(deep=True)
    data["part_cause"].loc[{"part": "drink"}] = 5.0
    data["part_cause"].loc[{"part": "note"}] = 0.0
    other = replace(run, data=data, parts=parts_table(data, StatsSpec()))
    first = next(iter(traced(other)))
    assert first.text.startswith("Of 2 parts the prediction used drink most")
    assert first.value == 5.0
