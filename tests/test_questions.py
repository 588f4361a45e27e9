"""Every preset that asks a question runs and answers it in a sentence with an interval, which follows the data and is
computed again from them by the reader in `test_sentences`."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from drawing import drawn
from fakes import fake_run
from test_sentences import Saved, changed, read, refused
from thinned import most

import harness
from harness import config
from harness.attribution.context import parts_table
from harness.config import RequestError, StatsSpec
from harness.findings import findings, questions
from harness.findings.format import signed
from harness.findings.questions import QUESTIONS
from harness.findings.questions.bias import attention_for_length, per_token
from harness.findings.questions.layers import beyond_distance
from harness.findings.questions.long_sentence import distance, slopes
from harness.findings.questions.mean_vs_head import hidden_top, other_top
from harness.findings.questions.prune import can_go
from harness.findings.questions.qkv import HeadParts
from harness.findings.questions.word_order import place_change
from harness.hooks import Head

#: What a preset needs on a model of three layers with four heads.
TINY = {
    "layers": ("model.shape=bert",),
    "syntax": ("model.shape=bert", "roles.draws=40", "roles.n=2", "roles.length=6"),
    "qkv": ("cache.heads=[L1H2]", "show.heads=[L1H2]"),
    "qkv_ja": ("cache.heads=[L1H2]", "show.heads=[L1H2]"),
    "induction": ("prompts.n=6", "roles.draws=40", "roles.n=2", "roles.length=6", "model=planted"),
    "ioi": ("prompts.n=4",),
    "lost": ("prompts.n=8", "sets={induction: [L0H1, L2H3]}", "n_random_sets=4"),
    "prune": ("prompts.n=3", "sweep.max_heads=3", "sweep.n_random_orders=2"),
    "rag": ("heads=[L1]", "trace.targets=2"),
    "bias": ("trace.targets=2",),
    "rollout": ("attribution.targets=1",),
    "rollout_ja": ("attribution.targets=1",),
    "sinks": ("attribution.targets=1",),
    "edges": ("prompts.n=8", "edges.top_k=6"),
    "patching_maps": ("prompts.n=2",),
}
#: Variables of effects and scores, which other data have otherwise.
BENT = (
    *("effect", "set_effect", "cumulative_effect", "part_cause", "agreement", "role_score", "attribution"),
    *("resid_effect", "attn_effect", "mlp_effect"),
)
#: Presets of different runners, prompts and stages; the others run in the soak.
VARIED = ("bias", "induction", "lost", "prune", "qkv", "rollout_ja")
PRESETS = sorted(
    path.stem
    for path in (config.conf_dir() / "experiment").glob("*.yaml")
    if not path.stem.startswith("reproduce_") and path.stem != "planted"
)


def asked_of(preset):
    """The question of a preset, which one in Japanese takes from the English one."""
    values = yaml.safe_load((config.conf_dir() / "experiment" / f"{preset}.yaml").read_text(encoding="utf-8"))
    return values.get("question") or asked_of(preset.removesuffix("_ja"))


def test_every_question_has_a_preset_of_its_name_and_every_preset_a_question():
    assert {asked_of(preset) for preset in PRESETS} == set(QUESTIONS)
    assert set(QUESTIONS) <= set(PRESETS)
    assert {"subwords_ja", "word_order_ja", "rollout_ja", "qkv_ja"} <= set(PRESETS)


def otherwise(run):
    """The run with other data: all layers but the first look less far back, effects and scores are bent."""
    data = run.data.load().copy(deep=True)
    for name in ("pattern", "other_pattern"):
        if name in data:
            bent = data[name].values * np.linspace(1, 3, data[name].shape[-1])
            total = bent.sum(-1, keepdims=True)
            data[name].values[:, 1:] = (bent / np.where(total > 0, total, 1))[:, 1:]
    for name in BENT:
        if name in data:
            values = data[name].values
            data[name].values[:] = np.where(
                np.isfinite(values), values * np.linspace(0.3, 0.9, values.shape[-1]), values
            )
    spec = parse_stats(run)
    parts = parts_table(data, spec) if "part_cause" in data else run.parts
    edges = run.edges.assign(effect_mean=run.edges["effect_mean"] / 2, ci_low=run.edges["ci_low"] - 1)
    return replace(run, data=data, parts=parts, edges=edges)


def parse_stats(run):
    return config.parse(StatsSpec, run.spec["stats"])


@pytest.mark.parametrize("figures", [False, pytest.param(True, marks=pytest.mark.soak)])
@pytest.mark.parametrize("preset", most(sorted(PRESETS, key=lambda preset: preset not in VARIED), len(VARIED)))
def test_a_preset_runs_on_a_tiny_model_and_answers_its_question(command, preset, figures):
    with drawn(figures=figures):
        code, out, err = command(
            "study", f"experiment={preset}", "model=random", "stats.resamples=300", *TINY.get(preset, ())
        )
    assert code == 0, err
    run = harness.open_run(out.splitlines()[-1])
    question = questions.question_of(run)
    found = question.answer(run)
    assert question is QUESTIONS[asked_of(preset)]
    assert f"{question.asks}\n{found.text}" in err
    assert "\n" not in found.text
    assert "nan" not in found.text
    saved = Saved(run)
    assert read(saved, found.text) == asked_of(preset)
    assert not [other for other in changed(found.text) if not refused(saved, other)], found.text
    for finding in findings(run):
        read(saved, finding.text)
    if found.source != "question":
        assert f"{found.value:.3f}" != "nan"
        assert found.low <= found.value <= found.high
        assert "interval" in found.text
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert question.asks in page
    other = question.answer(otherwise(run))
    assert other.text != found.text
    assert "nan" not in other.text


def test_a_study_that_is_asked_does_what_the_answer_needs_and_no_more(command):
    _, out, _ = command("study", "experiment=mean_vs_head", "model=random", "stats.resamples=300")
    run = harness.open_run(out.splitlines()[-1])
    assert "pattern" in run.data
    assert not {"effect", "attribution", "part_cause", "rollout"} & set(run.data)


def test_a_question_that_a_runner_cannot_answer(command):
    code, _, err = command("cache_attention", "experiment=ioi", "model=random")
    assert code == 2
    assert err.startswith("question=ioi: cache_attention does not measure what it is answered from (sweep)")
    code, _, err = command("study", "question=ioo", "model=random")
    assert (code, err.partition("?")[0]) == (2, "question=ioo: did you mean 'ioi'")
    with pytest.raises(RequestError, match="question=x: known: subwords"):
        questions.known("x")


# --- numbers by hand --------------------------------------------------------------------------------------------


def even(n):
    return np.broadcast_to(np.tri(n) / np.tri(n).sum(-1, keepdims=True), (1, 2, n, n)).copy()


def test_even_attention_gives_every_piece_its_share(tmp_path):
    run = fake_run(tmp_path, lengths=[8, 8], n_prompts=2)
    word = np.array([0, 1, 1, 2, 3, 3, 3, 4])
    pattern = np.broadcast_to(np.tri(8) / np.tri(8).sum(-1, keepdims=True), run.data["pattern"].shape)
    data = run.data.assign(
        word=(("prompt", "position"), np.stack([word, word])), pattern=(run.data["pattern"].dims, pattern.copy())
    )
    found = questions.QUESTIONS["subwords"].answer(replace(run, data=data))
    assert found.value == pytest.approx(0, abs=1e-12)
    assert "4 words" in found.text
    pattern = pattern.copy()
    pattern[..., 3:, 2] += pattern[..., 3:, 1]  # all that the first piece of the first word had
    pattern[..., 3:, 1] = 0
    data["pattern"] = (run.data["pattern"].dims, pattern)
    found = questions.QUESTIONS["subwords"].answer(replace(run, data=data))
    assert found.value == pytest.approx((1 - 1 / 2 + 0) / 2)


def test_the_distance_is_how_far_away_what_is_looked_at_stands():
    pattern = np.zeros((1, 1, 4, 4))
    pattern[0, 0, [0, 1, 2, 3], [0, 0, 1, 1]] = 1
    nothing = np.zeros(4, bool)
    assert distance(pattern, nothing)[0, 0] == pytest.approx((0 + 1 + 1 + 2) / 4)
    first = np.array([True, False, False, False])
    assert distance(pattern, first)[0, 0] == pytest.approx((1 + 2) / 2)  # the second token looks at the first alone


def test_slopes_average_to_the_least_squares_slope():
    rng = np.random.default_rng(0)
    length, values = rng.integers(5, 60, 12).astype(float), rng.normal(size=(12, 2, 3))
    fitted = np.polyfit(length, values.reshape(12, -1), 1)[0].reshape(2, 3)
    np.testing.assert_allclose(slopes(values, length).mean(axis=0), fitted, rtol=1e-9)


def test_a_head_that_goes_by_the_place_does_not_change():
    one, other = np.zeros((1, 2, 3, 3)), np.zeros((1, 2, 3, 3))
    one[:, :, [0, 1, 2], [0, 0, 1]] = other[:, 0, [0, 1, 2], [0, 0, 1]] = 1
    other[:, 1, [0, 1, 2], [0, 1, 1]] = 1
    np.testing.assert_allclose(place_change(one, other), [[0, 0.5]])


def test_where_words_meet_beyond_their_distance():
    pattern = np.zeros((1, 2, 4, 4))
    pattern[0, :, [1, 2, 3], [0, 1, 2]] = 0.9  # the word before, always
    pattern[0, 1, 2, 1] = 0.9
    pattern[0, 1, [1, 3], [0, 2]] = 0.1  # only from the third to the second
    np.testing.assert_allclose(beyond_distance(pattern, 2, 1), [[0, 0.8]], atol=1e-12)


def test_what_the_mean_over_heads_hides():
    rows = np.array([[[0.9, 0.1, 0.0]], [[0.0, 0.45, 0.55]]])[None]
    np.testing.assert_allclose(other_top(rows), [[0, 1]])  # the mean is 0.45, 0.275, 0.275
    assert hidden_top(rows) == 0
    assert hidden_top(np.array([[[0.6, 0.4, 0]], [[0, 0.4, 0.6]]])[None]) == 1


def test_how_many_heads_can_go():
    worse = np.array([[[0.0, 0.1, 0.4, 0.2], [0.0, 0.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(can_go(worse, 0.3), [[2, 4]])


def pruned(tmp_path, worse):
    """A run of three prompts and an order beside two random ones, that loses so much [order, prompt, step]."""
    import xarray as xr

    run, dims = fake_run(tmp_path, n_prompts=3, metrics=("loss",)), ("metric", "order", "prompt", "step")
    run.data["clean"].values[:] = 1.0
    effect = xr.DataArray(worse[None], dims=dims, attrs={"first": "least_needed"})
    coords = {"order": ["effect", "random 1", "random 2"]}
    return replace(run, data=run.data.assign(cumulative_effect=effect).assign_coords(coords))


def test_heads_that_a_prompt_bears_to_the_end_make_a_floor(tmp_path):
    worse = np.full((3, 3, 4), 0.5)
    worse[0] = [[0, 0, 0.5, 0], [0, 0, 0, 0.5], [-1, 0.09, 0, 0.2]]
    ask = questions.QUESTIONS["prune"].answer
    found = ask(pruned(tmp_path, worse))
    assert found.value == pytest.approx((2 + 3 + 3) / 3)
    assert found.text.startswith("The least needed first (by effect), 2.67")
    assert "; 0 of 3 prompts bear all of them. In 2 random orders it is 0: 2.67" in found.text
    assert found.text.endswith("The order was chosen by these same prompts; others may bear fewer.")
    worse[0, 0] = -0.1
    found = ask(pruned(tmp_path, worse))
    assert found.value == pytest.approx((4 + 3 + 3) / 3)
    assert "at least 3.33" in found.text
    assert "; 1 of 3 prompts bears all of them." in found.text


def test_the_head_that_looks_at_the_name_is_told_beside_the_one_that_matters(tmp_path):
    run = fake_run(tmp_path, n_prompts=2, lengths=[8, 8])
    pattern = np.zeros_like(run.data["pattern"].values)
    pattern[..., 0] = 1  # all rest on the first token …
    pattern[:, 2, 0, 7, [0, 1]] = [0.25, 0.75]  # … but this head, which looks at Mary,
    pattern[:, 1, 2, 7, [0, 3]] = [0.5, 0.5]  # and the one with the largest effect, at John
    names = {name: ("prompt", [said, said]) for name, said in (("answer", " Mary"), ("distractor", " John"))}
    data = run.data.assign(pattern=(run.data["pattern"].dims, pattern), **names)
    effect = data["effect"].sel(metric="logit_diff", layer=2, head=0).mean().item()
    text = questions.QUESTIONS["ioi"].answer(replace(run, data=data)).text
    assert text.startswith("L1H2: ablating it changes logit_diff by ")
    assert "the right name with 0 of its attention, at the wrong one with 0.500 (difference −0.500" in text
    assert f"L2H0 looks at the right name most (0.750): ablating it changes logit_diff by {signed(effect)}" in text
    pattern[:, 1, 2, 7, [0, 1, 3]] = [0, 0.8, 0.2]
    text = (
        questions.QUESTIONS["ioi"]
        .answer(replace(run, data=data.assign(pattern=(run.data["pattern"].dims, pattern))))
        .text
    )
    assert text.endswith("No head looks at the right name more (0.800).")


@pytest.mark.parametrize(("head", "written"), [(0, [0, 1]), (1, [0, 1]), (2, [1, 0]), (3, [1, 0])])
def test_a_head_taken_apart_has_the_values_of_its_group(tmp_path, head, written):
    """Heads 0 and 1 read a value that is nothing at the first token, heads 2 and 3 one that is so at the second."""
    import xarray as xr

    run = fake_run(tmp_path, n_prompts=1, lengths=[2], n_layers=1, n_heads=4)
    v = np.array([[[0.0], [1.0]], [[1.0], [0.0]]])[None, None]
    parts = {
        "v": xr.DataArray(v, dims=("prompt", "layer", "kv_head", "position", "d_head")),
        "z": xr.DataArray(np.full((1, 1, 4, 2, 1), 0.5), dims=("prompt", "layer", "head", "position", "d_head")),
        "scores": xr.zeros_like(run.data["pattern"], dtype=float),
        "pattern": xr.full_like(run.data["pattern"], 0.5, dtype=float),
    }
    coords = {"kv_head": [0, 1]}
    apart = HeadParts(replace(run, data=run.data.assign(parts).assign_coords(coords)), 0, Head(0, head))
    assert apart.written.tolist() == written
    assert apart.sum_error == apart.softmax_error == 0


def test_a_kind_of_word_counts_by_its_tokens(tmp_path):
    import xarray as xr

    data = xr.Dataset(
        {
            "part_cause": (("prompt", "traced", "taken", "part"), np.array([[[[6.0, 1.0]]], [[[2.0, np.nan]]]])),
            "part_tokens": (("prompt", "part"), np.array([[3.0, 1.0], [2.0, 0.0]])),
            "part_attention": (
                ("prompt", "traced", "layer", "head", "part"),
                np.array([[0.5, 0.5], [1.0, np.nan]]).reshape(2, 1, 1, 1, 2),
            ),
        },
        {"part": ["a", "b"], "taken": ["knockout"]},
    )
    run = replace(fake_run(tmp_path), data=data)
    np.testing.assert_allclose(per_token(run, "a"), [2, 1])
    assert np.isnan(per_token(run, "b")[1])
    assert attention_for_length(run, "a") == pytest.approx((0.5 / 0.75 + 1) / 2)


@pytest.mark.soak
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_answers_on_the_embedded_models(command, preset):
    code, out, err = command("study", f"experiment={preset}")
    assert code == 0, err
    run = harness.open_run(out.splitlines()[-1])
    found = questions.question_of(run).answer(run)
    assert found.low <= found.value <= found.high
    assert run.manifest["model"]["name"] in ("smollm2", "minilm")
