"""SmolLM2 itself, end to end: what `facts` measured about it, and plain Hugging Face forwards beside it."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import plain
import pytest
import torch
from fakes import fake_run
from test_word_views import attributed, told

import harness
from harness import study, views
from harness.config import RunSpec, parse
from harness.findings.segments import traced
from harness.hooks import Head
from harness.models.generation import next_logits

HEADS = ("L23H3", "L20H0", "L29H0")

pytestmark = pytest.mark.smollm2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The sweep of the default study on half of its prompts, on the heads that matter most and least."""
    values = {
        "model": {"name": "smollm2", **named()},
        "prompts": {"name": "ioi", "n": 16},
        "heads": list(HEADS),
    }
    place = study.Place(run=str(tmp_path_factory.mktemp("smollm2") / "run"))
    return harness.open_run(study.run("ablate_heads", parse(RunSpec, values), place, lambda *_: None))


def named():
    from dataclasses import asdict

    from harness.config import named_model

    return asdict(named_model("smollm2"))


@pytest.fixture(scope="module")
def twin(smollm2):
    """The same weights in a plain Hugging Face model that TransformerLens never touched."""
    from transformers import AutoModelForCausalLM

    from harness.models import sources

    folder = sources.local_folder(smollm2.spec)
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def test_it_prefers_the_right_name(run):
    clean = run.data.clean.sel(metric="logit_diff")
    assert 4.5 < float(clean.mean()) < 5.5
    assert float((clean > 0).mean()) >= 0.95
    assert 0.4 < float(run.data.clean.sel(metric="loss").mean()) < 0.9
    assert run.data.sizes["prompt"] == 16


def test_the_heads_that_help_and_hurt_are_those_that_were_measured(run):
    effect = run.data.effect.sel(metric="logit_diff").mean("prompt")
    measured = {"L23H3": -2.6, "L20H0": -1.9, "L29H0": 0.98}
    for name, value in measured.items():
        head = Head.parse(name)
        assert float(effect[head.layer, head.head]) == pytest.approx(value, abs=0.5), name
    table = run.heads[run.heads.metric == "logit_diff"].set_index(["layer", "head"])
    assert table.important[(23, 3)]
    assert table.important[(29, 0)]


def test_every_intervention_was_verified(run):
    check = run.manifest["intervention_check"]
    plan = json.loads((run.path / "stages/sweep/plan.json").read_text())
    assert sorted(prompt for batch in plan["batches"] for prompt in batch) == list(range(16))
    assert check["edits_verified"] == len(HEADS) * len(plan["batches"])
    assert check["plain_forward_difference"] < 1e-4
    assert run.manifest["model"]["hf_difference"] < 1e-5


def test_effects_equal_plain_hugging_face(run, twin, smollm2):
    prompts = harness.load_prompts("ioi", smollm2, n=16)
    for row in (0, 11):
        token_id = prompts.token_id[row, : prompts.length[row]]
        clean = plain.logits(twin, token_id)
        before = plain.metrics(prompts, row, clean, clean)
        for name in HEADS:
            head = Head.parse(name)
            after = plain.metrics(prompts, row, plain.logits(twin, token_id, [head], 64), clean)
            got = run.data.effect.isel(prompt=row).sel(layer=head.layer, head=head.head)
            assert float(got.sel(metric="loss")) == pytest.approx(after["loss"] - before["loss"], abs=1e-4)
            assert float(got.sel(metric="logit_diff")) == pytest.approx(
                after["logit_diff"] - before["logit_diff"], abs=1e-3
            )


def test_patterns_equal_plain_hugging_face(twin, smollm2):
    import torch

    prompts = harness.load_prompts("ioi", smollm2)
    end = prompts.length[5]
    with torch.no_grad():
        want = twin(torch.as_tensor(prompts.token_id[5:6, :end]), output_attentions=True).attentions
    got = harness.cache_attention(smollm2, prompts.take([3, 5, 7])).data.pattern[1, :, :, :end, :end].values
    np.testing.assert_allclose(got, np.stack([layer[0].numpy() for layer in want]), atol=1e-5)


def test_previous_token_and_induction_heads_found_in_patterns_carry_the_repetition(smollm2):
    """The three heads that look most at the token before, and the eight that look most at what followed last time."""
    prompts = harness.load_prompts("induction", smollm2, n=3)
    pattern = harness.cache_attention(smollm2, prompts).data.pattern.values
    length, back = 24, {"previous": 1, "induction": 23}
    second = np.arange(length + 1, 2 * length + 1)
    scores = {name: pattern[:, :, :, second, second - step].mean((0, 3)) for name, step in back.items()}

    def top(name, n):
        return [Head(*map(int, np.unravel_index(at, scores[name].shape))) for at in np.argsort(-scores[name], None)[:n]]

    previous, induction = top("previous", 3), top("induction", 8)
    assert Head(16, 0) in previous
    assert Head(18, 6) == induction[0]
    sets = {"both": [*map(str, previous + induction)]}
    got = harness.ablate_heads(smollm2, prompts, metrics=["loss"], kind="set", sets=sets).data
    assert float(got.clean.mean()) < 5
    assert float(got.set_effect.mean()) >= 5


def test_there_is_enough_english_for_smollm2(smollm2):
    prompts = harness.load_prompts("prose", smollm2, n=46)
    assert prompts.length.sum() >= 6000
    assert len(set(prompts.length)) > 20


def test_the_gradients_page_equals_plain_hugging_face_and_autograd(smollm2, twin, tmp_path):
    """The norms of the loss's gradient at the embeddings, summed over pieces and scaled, written out here."""
    text = "The unhappiest dog chased the 猫"
    out = smollm2.tokenizer(text, return_offsets_mapping=True)
    token_id = torch.tensor([out["input_ids"]])
    vectors = twin.get_input_embeddings()(token_id).detach().requires_grad_(True)
    twin(inputs_embeds=vectors, labels=token_id).loss.backward()
    norm = vectors.grad[0].double().norm(dim=-1).numpy()

    starts = [0, 3, 14, 18, 25, 29]  # where the six words begin, with their spaces
    pieces = np.array([sum(start <= max(begin, 0) for start in starts) - 1 for begin, _ in out["offset_mapping"]])
    assert len(norm) > 6  # some words have several pieces
    by_word = np.array([norm[pieces == word].sum() for word in range(6)])
    share = (by_word - by_word.min()) / (by_word.max() - by_word.min())

    prompts = harness.load_prompts("inline", smollm2, text=[text])
    n = len(norm)
    values = np.full((1, 1, n, n), np.nan)
    values[0, 0, n - 2] = norm
    made = fake_run(tmp_path, tokens=[["x"] * n])
    made = attributed(replace(made, data=prompts.dataset()), values, ["gradient"])
    (words,) = told(views.saliency(made).html)
    assert [word for word, *_ in words] == ["The", "unhappiest", "dog", "chased", "the", "猫"]
    np.testing.assert_allclose([float(score) for _, score, *_ in words], by_word, rtol=1e-3)
    np.testing.assert_allclose([float(percent) for *_, percent, _ in words], 100 * share, atol=0.51)


# --- an answer traced to its document -----------------------------------------------------------------------------

ASKED = {"name": "instruction", "text": "Answer the question from the notes."}
#: Facts that nobody can know; in each context one note holds the answer and two are about something else.
INVENTED = [
    {
        "parts": [
            ASKED,
            {"name": "bakery", "text": "Note 1: The bakery on the square sells poppy rolls before sunrise."},
            {"name": "keeper", "text": "Note 2: The lighthouse keeper of Harrowmere is a man called Bastonel."},
            {"name": "goats", "text": "Note 3: The goats of the upper farm were shorn early this year."},
        ],
        "question": "Question: What is the lighthouse keeper of Harrowmere called?\nAnswer:",
        "answer": "Bastonel",
    },
    {
        "parts": [
            ASKED,
            {"name": "keeper", "text": "Note 1: The clock tower of Dunvarrick was built by the mason Ettelhart."},
            {"name": "bakery", "text": "Note 2: Tickets for the tram can be bought from the driver."},
            {"name": "goats", "text": "Note 3: It rained for nine days before the fair."},
        ],
        "question": "Question: Which mason built the clock tower of Dunvarrick?\nAnswer:",
        "answer": "Ettelhart",
    },
]


@pytest.mark.soak
def test_the_document_that_an_answer_used_is_named_and_others_cost_little(command, twin, tmp_path):
    """The note called keeper holds the answer of both; what removing a note costs is that of plain forwards."""
    path = tmp_path / "contexts.json"
    path.write_text(json.dumps(INVENTED), encoding="utf-8")
    asked = ("prompts=context", f"prompts.path={path}", "trace.heads=none", "trace.gradient=false")
    code, out, err = command("trace_context", *asked)
    assert code == 0, err
    run = harness.open_run(out.splitlines()[-1])
    first = next(iter(traced(run)))
    assert first.text.startswith("Of 4 parts the prediction used keeper most"), first.text
    cause = run.data.part_cause
    used, others = cause.sel(part="keeper"), cause.sel(part=["bakery", "goats"])
    assert (used.mean("traced") > 2).all()  # nats for each token of the answer
    assert (abs(others.mean("traced")) < 0.2 * used.mean("traced")).all()
    # What is left is on the first token, where the model also weighs how to begin; those after it are only copied.
    assert float(abs(others[:, 1:]).max()) < 0.05
    assert float(used[:, 1:].min()) > 2
    for row in range(len(INVENTED)):
        data = run.data.isel(prompt=row)
        for part in ("keeper", "bakery"):
            want = removed(twin, data, part)
            np.testing.assert_allclose(data.part_cause.sel(taken="delete", part=part).dropna("traced"), want, atol=1e-3)


def removed(twin, data, part):
    """By how much the loss at each token of the answer grows in a plain forward without the part's tokens."""
    n = int(data.length)
    ids, mine = data.token_id.values[:n], data.token_part.values[:n].astype(str) == part
    at = data.traced_position.values[data.traced_position.values >= 0]
    whole, rest = (plain.logits(twin, some).double().log_softmax(-1) for some in (ids, ids[~mine]))
    moved = np.cumsum(~mine) - 1
    return [float(whole[p, ids[p + 1]] - rest[moved[p], ids[p + 1]]) for p in at]


def test_ablated_it_writes_the_same_with_and_without_a_cache(smollm2):
    prompts = harness.load_prompts("ioi", smollm2, n=4)
    ids = smollm2.tokens.encode("When Mary and John went to the store, John gave a drink to").token_id
    with harness.ablated(smollm2, ["L23H3"], "mean", prompts=prompts) as check:
        cached, whole = (torch.stack([*islice(next_logits(smollm2, ids, how), 4)]) for how in (True, False))
    assert check.fired == 8
    assert cached.argmax(-1).tolist() == whole.argmax(-1).tolist()
    torch.testing.assert_close(cached, whole, atol=1e-3, rtol=0)
