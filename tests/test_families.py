"""Every decoder family that transformers builds small, against plain Hugging Face forwards; `docs/families.md` keeps
what came out. ``HARNESS_WRITE=1`` writes that page anew."""

import dataclasses
import os
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import families
import numpy as np
import pytest
import torch
import transformers
from paths import NORMED, Paths

import harness
from harness import hooks, study
from harness.attribution.methods import METHODS
from harness.config import Place, RequestError, RunSpec, parse
from harness.hooks import Site, fused_attention
from harness.sweep import attention_kernel
from harness.sweep.attention_kernel import why_eager

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
TEXTS = ("When Mary and John went to the store, John gave a drink to", "Then Tom and Anna sat down, and Tom spoke to")
ANSWERS, DISTRACTORS = (" Mary", " Anna"), (" John", " Tom")
KNOCKED_OUT = (0, 3, 17)  # the first token, a name, and the one at which the answer is predicted
EXACT = 1e-4

#: What the families that do not load are refused with: a part of the line.
REFUSED = {
    "biogpt": "Could not determine supported architecture",
    "deepseek_v2": "hook_z carries",
    "deepseek_v3": "hook_z carries",
    "doge": "Could not determine supported architecture",
    "falcon_new": "split_with_sizes",
    "gpt1": "the hooked model's logits differ from the plain model's",
    "helium": "Could not determine supported architecture",
    "jamba": "has no hook point blocks.0.attn.hook_k",
    "lfm2": "has no hook point blocks.0.attn.hook_k",
    "mamba": "no attention heads",
    "minimax": "Could not determine supported architecture",
    "persimmon": "Could not determine supported architecture",
    "phimoe": "Could not determine supported architecture",
    "qwen3_next": "has no hook point blocks.0.attn.hook_k",
    "recurrent_gemma": "no attention heads",
    "rwkv": "no attention heads",
}
#: What does not hold of a family that loads, beside the default: no knockout of one head, no ALTI.
NO_HEAD_KNOCKOUT = {"bitnet"}
#: Direct effects are not split by token: z is no sum over tokens.
NO_SOURCES = {"bitnet"}
NO_ALTI = {
    *("bitnet", "codegen", "cohere", "cohere2", "exaone4", "falcon", "falcon_h1", "gemma2", "gemma3", "glm4"),
    *("gpt_neox", "gptj", "olmo2", "olmo3", "phi"),
}
#: Families without edges, and the reason; and those whose MLPs receive none.
NO_EDGES = {"bitnet": "is not its pattern times its values", "falcon_h1": "has a recurrent mixer"}
NO_MLP_EDGES = {"gpt_oss", "granitemoe", "mixtral", "olmoe", "opt", "qwen2_moe", "qwen3_moe"}
#: Families whose attention the kernel does not compute, and the operation by which their own code reads the scores.
NO_KERNEL = {
    "bloom": "not a product of rows and heads",
    "falcon_alibi": "view",
    "gemma2": "tanh",
    "gpt_oss": "cat",
    "xglm": "not a product of rows and heads",
}
#: W_O has no bias, and the config cannot give it one.
NO_BAKED_MEAN = {
    *("codegen", "exaone4", "glm", "glm4", "gptj", "mistral", "mixtral", "mpt", "phi3", "qwen2", "qwen2_moe"),
    "stablelm",
}
#: One family of each way in which they differ, but for those of the fixture `family`; the others are in the soak.
UNLIKE = (
    *("bitnet", "bloom", "cohere", "falcon", "falcon_h1", "gpt_bigcode", "gpt_neo", "gpt_oss", "granite"),
    *("mistral", "olmo", "olmo2", "opt", "qwen3_moe"),
)
#: Of these, the most unlike: for what hardly depends on the family.
MOST_UNLIKE = ("bloom", "falcon", "falcon_h1", "gpt_oss", "granite", "olmo2")
STUDIED = [name for name in families.FAMILIES if name not in REFUSED]


class Case:
    """A family on disk and in memory: its folder, its hooked model, the plain reference, the prompts."""

    def __init__(self, family, folder):
        self.family, self.folder = family, folder
        self.plain = families.Plain(family, families.folder(family, folder).eval())
        self.model = harness.load_model("path", path=str(folder))
        self.prompts = harness.load_prompts("inline", self.model, text=TEXTS, answer=ANSWERS, distractor=DISTRACTORS)


@pytest.fixture(scope="module", params=STUDIED)
def case(request, tmp_path_factory):
    """Each family in turn: all tests of one run before the next is made."""
    return Case(request.param, tmp_path_factory.mktemp("families") / request.param)


def rows(prompts):
    """Each prompt's tokens, answer and distractor."""
    for row, length in enumerate(prompts.length):
        yield prompts.token_id[row, :length], int(prompts.answer[row].item()), int(prompts.distractor[row].item())


@pytest.mark.always(UNLIKE)
def test_effects_of_a_family_are_those_of_plain_forwards(case):
    """Total effects of all heads, and direct ones: that path patched in the plain model with all else frozen. By the
    token that a head read from they sum to the whole."""
    model, plain, prompts = case.model, case.plain, case.prompts
    split = case.family not in NO_SOURCES
    got = harness.ablate_heads(model, prompts, metrics=["logit_diff"], source_direct=split).data
    total, direct = np.zeros(got.effect.shape[1:]), np.zeros(got.effect.shape[1:])
    for row, (token_id, answer, distractor) in enumerate(rows(prompts)):
        lead = lambda logits: float(logits[answer] - logits[distractor])  # noqa: B023, E731
        clean = lead(plain.logits(token_id))
        for layer, head in np.ndindex(total.shape[1:]):
            total[row, layer, head] = lead(plain.without(token_id, layer, head)) - clean
            direct[row, layer, head] = lead(plain.direct(token_id, layer, head)) - clean
    np.testing.assert_allclose(got.effect.values[0], total, atol=EXACT)
    np.testing.assert_allclose(got.direct.values[0], direct, atol=EXACT)
    assert np.abs(direct).max() > 100 * EXACT
    if split:
        if case.family == "gemma2":  # before its soft cap
            with uncapped(plain.model):
                for row, (token_id, answer, distractor) in enumerate(rows(prompts)):
                    clean = plain.logits(token_id)
                    for layer, head in np.ndindex(direct.shape[1:]):
                        moved = plain.direct(token_id, layer, head) - clean
                        direct[row, layer, head] = moved[answer] - moved[distractor]
        np.testing.assert_allclose(got.source_direct.values[0].sum(-1), direct, atol=EXACT)
        return
    with pytest.raises(RequestError, match="sweep.source_direct=true"):
        harness.ablate_heads(model, prompts, metrics=["logit_diff"], source_direct=True)


@pytest.mark.always((*UNLIKE, "falcon_alibi", "gemma2", "gemma3", "xglm"))
def test_effects_of_a_family_by_the_kernel_of_attention(case, monkeypatch):
    """Padded prompts, longer than the windows: those of the model's own attention, which other tests hold against
    plain forwards. A family that the kernel does not fit is known by its own code."""
    monkeypatch.setattr(attention_kernel, "MIN_TOKENS", 2)
    reason = why_eager(case.model)
    assert (NO_KERNEL.get(case.family, "") in reason) if case.family in NO_KERNEL else not reason, reason
    if case.family in NO_KERNEL:
        return
    used, kernel = [], fused_attention.scaled_dot_product_attention
    count = lambda *args, **how: used.append(how) or kernel(*args, **how)  # noqa: E731
    monkeypatch.setattr(fused_attention, "scaled_dot_product_attention", count)
    ablate = partial(harness.ablate_heads, case.model, case.prompts, metrics=["logit_diff"], heads=["L0H1", "L1H2"])
    own = ablate(attention="eager").data
    assert not used
    made = ablate().data
    assert used
    for name in ("effect", "direct"):
        np.testing.assert_allclose(made[name], own[name], atol=EXACT)


@pytest.mark.always(UNLIKE)
def test_the_account_of_an_effect_in_a_family_is_that_of_plain_forwards(case):
    """What each later head and MLP adds: in the plain model that module alone writes what it writes without the head.
    The change of the final norm's scale, and of a soft cap, is what is left of the effect."""
    model, plain, prompts = case.model, case.plain, case.prompts
    got = harness.ablate_heads(model, prompts, metrics=["logit_diff"], heads=["L0H1"], account=True).data
    account = got.account.sel(metric="logit_diff", layer=0, head=1)
    np.testing.assert_allclose(account.sum("component"), got.effect.sel(layer=0, head=1)[0], atol=EXACT)
    direct = got.direct.sel(metric="logit_diff", layer=0, head=1)
    for row, (token_id, answer, distractor) in enumerate(rows(prompts)):
        lead = lambda logits: float(logits[answer] - logits[distractor])  # noqa: B023, E731
        mine = dict(zip(account.component.values, account.values[row].astype(float), strict=True))
        if case.family == "falcon_h1":
            mine = {name.replace(".rest", ".mlp"): value for name, value in mine.items()}
        with uncapped(plain.model):
            parts = {name: lead(logits) for name, logits in plain.account(token_id, 0, 1).items()}
            total = lead(plain.without(token_id, 0, 1)) - lead(plain.logits(token_id))
        clean = parts.pop("clean")
        want = {name: value - clean for name, value in parts.items()}
        for name in [name for name in want if name.startswith("norm:")]:
            want[name] -= sum(want.get(f"{name[5:]}H{head}", 0.0) for head in range(4))
        if "norm:L0" in want:  # the norm after the ablated head itself
            want["norm:L0"] -= mine["direct"]
        if case.family != "gemma2":
            np.testing.assert_allclose(mine["direct"], direct[row], atol=EXACT)
        want["direct"] = mine["direct"]
        want |= {f"L0H{head}": 0.0 for head in range(4)}
        want["norm:final"] = total - sum(want.values())
        if case.family == "gemma2":
            want["softcap"] = lead(plain.without(token_id, 0, 1)) - lead(plain.logits(token_id)) - total
        assert mine.keys() == want.keys()
        np.testing.assert_allclose([mine[name] for name in want], [*want.values()], atol=EXACT)
        assert max(abs(want[f"L1H{head}"]) for head in range(4)) > 10 * EXACT


@pytest.mark.always(UNLIKE)
def test_the_edges_of_a_family_are_path_patched_in_plain_forwards(case):
    """A head's output as one input of a later head, or an MLP, reads it, with the MLPs between frozen or recomputed."""
    with_mlp = case.family not in NO_MLP_EDGES
    into = ["q", "k", "v", "qkv", *(["mlp"] if with_mlp else [])]
    request = {"metrics": ["logit_diff"], "heads": ["L0H1"], "kind": "edges"}
    if case.family in NO_EDGES:
        with pytest.raises(RequestError, match=f"sweep.kind=edges: .*{NO_EDGES[case.family]}"):
            harness.ablate_heads(case.model, case.prompts, **request)
        return
    if not with_mlp:
        with pytest.raises(RequestError, match=r"edges.into=mlp: .* set edges.into=\[q,k,v\]"):
            harness.ablate_heads(case.model, case.prompts, **request)
    largest = 0.0
    for mlps in ("frozen", "recomputed"):
        edges = {"mlps": mlps, "into": into, "receivers": ["L0H0", "L1H2"]}
        got = harness.ablate_heads(case.model, case.prompts, edges=edges, **request).data
        for row, (token_id, answer, distractor) in enumerate(rows(case.prompts)):
            paths = Paths(case.plain, token_id)
            for at, (receiver, name) in enumerate(zip(got.receiver.values, got["into"].values, strict=True)):
                to = (int(receiver[1]), None if name == "mlp" else 2)
                changed = paths.edge((0, 1), to, name, mlps == "recomputed") - paths.clean_logits
                want = float(changed[answer] - changed[distractor])
                assert got.edge_effect.values[0, row, at] == pytest.approx(want, abs=EXACT), (mlps, receiver, name)
                largest = max(largest, abs(want))
    assert largest > 100 * EXACT


@pytest.mark.always(("bitnet", "bloom", "falcon", "gpt_bigcode", "gpt_oss", "granite", "olmo2", "qwen3_moe"))
def test_q_k_v_and_pattern_of_one_head_in_a_family_are_those_of_plain_forwards(case):
    """Patched from another text, at all positions or some, and scaled: one head alone reads what a projection gives
    there. The pattern is another text's where query and key are."""
    prompts = corrupted(case.prompts).take([0])
    patch = {"name": "patch", "of": ["q", "k", "v", "pattern"]}
    scale = {"name": "scale", "factor": 3, "of": "v" if case.family in NORMED else "q"}  # that norm undoes a scale
    ablate = lambda ablation, *heads: harness.ablate_heads(  # noqa: E731
        case.model, prompts, ablation, metrics=["logit_diff"], heads=list(heads)
    )
    if case.family in NO_HEAD_KNOCKOUT:
        with pytest.raises(RequestError, match="ablation.of=q,k,v,pattern: in path a head's output is not its pattern"):
            ablate(patch, (0, 1))
        return
    ways = {
        "all": ablate(patch, (0, 1), (1, 2)),
        "some": ablate({**patch, "of": ["q", "k", "v"], "positions": [2, -1]}, (1, 2)),
        "three": ablate(scale, (0, 1)),
    }
    token_id, answer, distractor = next(rows(prompts))
    paths, most = Paths(case.plain, token_id), 0.0
    other = paths.projected(prompts.counterfactual[0])
    changed = {"all": other, "some": {}, "three": {module: 3 * paths.clean[module] for module in other}}
    for module, value in other.items():
        changed["some"][module] = paths.clean[module].clone()
        changed["some"][module][:, [2, -1]] = value[:, [2, -1]]
    for way, got in ways.items():
        effect = got.data.activation_effect.isel(metric=0, prompt=0).stack(at=["activation", "layer", "head"])
        for of, layer, head in effect.dropna("at").at.values:
            logits = paths.with_inputs(layer, head, "qk" if of == "pattern" else of, changed[way]) - paths.clean_logits
            want = float(logits[answer] - logits[distractor])
            assert float(effect.sel(at=(of, layer, head))) == pytest.approx(want, abs=EXACT), (way, of, layer, head)
            most = max(most, abs(want))
    assert most > 100 * EXACT


@contextmanager
def uncapped(model):
    """Leave out the soft cap on logits (Gemma 2's)."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap is None:
        yield
        return
    model.config.final_logit_softcapping = None
    yield
    model.config.final_logit_softcapping = cap


@pytest.mark.always(MOST_UNLIKE)
def test_late_effects_of_a_family_are_those_of_plain_forwards(case):
    """Of heads at the last position: a sweep begins there, from keys and values, unless the family has a mixer."""
    model, plain, prompts = case.model, case.plain, case.prompts
    got = harness.ablate_heads(model, prompts, metrics=["logit_diff"], positions="last", heads=["L0H1", "L1H2"]).data
    for row, (token_id, answer, distractor) in enumerate(rows(prompts)):
        lead = lambda logits: float(logits[answer] - logits[distractor])  # noqa: B023, E731
        for layer, head in ((0, 1), (1, 2)):
            want = lead(plain.without(token_id, layer, head, last=True)) - lead(plain.logits(token_id))
            np.testing.assert_allclose(got.effect.sel(layer=layer, head=head).values[0, row], want, atol=EXACT)


@pytest.mark.always(("bloom", "mistral"))
def test_patching_maps_of_a_family_are_those_of_plain_forwards(case):
    """The stream of the corrupted prompt at every position makes its run, before the first block and after the last.
    At one position, stream, attention and MLP are those of a plain model with that tensor overwritten."""
    model, plain, prompts = case.model, case.plain, corrupted(case.prompts)
    mlps = ["mlp"] if all(hooks.has_mlp(model.bridge, Site(layer, part="mlp")) for layer in range(2)) else []
    how = {"ablation": "patch", "metrics": ["logit_diff"]}
    whole = harness.ablate_heads(model, prompts, kind="resid", **how).data
    each = harness.ablate_heads(model, prompts, kind=["resid", "attn", *mlps], positions="each", **how).data
    most = 0.0
    for row, (token_id, answer, distractor) in enumerate(rows(prompts)):
        lead = lambda logits: float(logits[answer] - logits[distractor])  # noqa: B023, E731
        other = prompts.counterfactual[row][: len(token_id)]
        streams, clean = plain.streams(other), lead(plain.logits(token_id))
        np.testing.assert_allclose(whole.clean[0, row], clean, atol=EXACT)
        np.testing.assert_allclose(whole.corrupted[0, row], lead(plain.logits(other)), atol=EXACT)
        for depth in (0, 1, len(streams) - 1):
            want = lead(plain.with_stream(token_id, depth, streams[depth])) - clean
            np.testing.assert_allclose(whole.resid_effect[0, row, depth], want, atol=EXACT)
        for depth, position in ((0, 1), (1, 3), (1, len(token_id) - 1), (len(streams) - 1, len(token_id) - 1)):
            want = lead(plain.with_stream(token_id, depth, streams[depth], position)) - clean
            np.testing.assert_allclose(each.resid_effect[0, row, depth, position], want, atol=EXACT)
            most = max(most, abs(want))
        for layer, position in ((0, 3), (1, len(token_id) - 1)):
            want = lead(plain.with_output(token_id, other, plain.outputs[layer], position)) - clean
            np.testing.assert_allclose(each.attn_effect[0, row, layer, position], want, atol=EXACT)
            if mlps:
                last = plain_twin(plain, model, layer)
                want = lead(plain.with_output(token_id, other, last, position)) - clean
                np.testing.assert_allclose(each.mlp_effect[0, row, layer, position], want, atol=EXACT)
        assert np.isnan(each.resid_effect[0, row, :, len(token_id) :]).all()
    np.testing.assert_allclose(
        whole.resid_effect[0, :, [0, -1]].T, [whole.corrupted[0] - whole.clean[0]] * 2, atol=EXACT
    )
    assert most > 100 * EXACT


def corrupted(prompts):
    """The prompts with counterfactuals of their own length: all tokens but the first in reverse order."""
    other = prompts.token_id.copy()
    for row, length in enumerate(prompts.length):
        other[row, 1:length] = other[row, 1:length][::-1]
    return dataclasses.replace(prompts, counterfactual=other)


def plain_twin(plain, model, layer):
    """The module of the plain model that is the last of a layer's MLP, known by its weights."""
    weight = hooks.mlp_output(model.bridge, Site(layer, part="mlp")).weight
    same = (m for m in plain.model.modules() if getattr(getattr(m, "weight", None), "shape", None) == weight.shape)
    return next(module for module in same if torch.equal(module.weight, weight))


@pytest.mark.always(MOST_UNLIKE)
def test_scores_of_a_family_make_its_pattern(case):
    """softmax(scores), with what a learnt sink takes of each row, is the pattern."""
    model, prompts = case.model, case.prompts
    got = harness.cache_attention(model, prompts, also=["scores"]).data
    assert ("sink" in got) == (case.family == "gpt_oss")
    for row, length in enumerate(prompts.length):
        scores, pattern = (got[name].values[row, ..., :length, :length] for name in ("scores", "pattern"))
        assert np.isneginf(scores[..., *np.triu_indices(length, 1)]).all()
        assert np.isfinite(scores[..., range(length), range(length)]).all()
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        taken = got["sink"].values[row, ..., :length] if "sink" in got else np.zeros(pattern.shape[:-1])
        np.testing.assert_allclose(
            pattern, (1 - taken)[..., None] * weights / weights.sum(-1, keepdims=True), atol=1e-5
        )
        np.testing.assert_allclose(pattern.sum(-1) + taken, 1, atol=1e-5)


@pytest.mark.always(MOST_UNLIKE)
def test_knockouts_of_a_family_are_those_of_plain_forwards(case):
    """A token that no other reads, in all heads and in one: the plain model's own softmax without it."""
    model, plain, prompts = case.model, case.plain, case.prompts
    causes = ["knockout", *([] if case.family in NO_HEAD_KNOCKOUT else ["knockout_L0H2"])]
    got = harness.compare_attributions(model, prompts.take([0]), methods=["random"], causes=causes).data
    token_id, answer, _ = next(rows(prompts))
    loss = lambda logits: -float(logits.log_softmax(-1)[answer])  # noqa: E731
    clean = loss(plain.logits(token_id))
    for number, only in enumerate([None, (0, 2)][: len(causes)]):
        want = [loss(plain.knocked_out(token_id, at, only)) - clean for at in KNOCKED_OUT]
        np.testing.assert_allclose(got.cause.values[0, number, 0, list(KNOCKED_OUT)], want, atol=EXACT)
    if case.family in NO_HEAD_KNOCKOUT:
        with pytest.raises(RequestError, match="attribution.causes=knockout_L0H2: in path a head's output is not its"):
            harness.compare_attributions(model, prompts.take([0]), causes=["knockout_L0H2"])


@pytest.mark.always(tuple(name for name in MOST_UNLIKE if name != "falcon_h1"))  # its mixer makes the methods slow
def test_all_methods_of_a_family_are_those_it_allows(case):
    model, prompts = case.model, case.prompts
    got = harness.compare_attributions(model, prompts.take([1]), methods="all", causes="knockout", fractions=[]).data
    left_out = {"norms", "rollout_gradient"} if case.family in NO_HEAD_KNOCKOUT else set()
    left_out |= {"alti"} if case.family in NO_ALTI else set()
    assert set(METHODS) - set(got.attribution_method.values.tolist()) == left_out
    assert all(f'"{name}": ' in got.attribution.attrs["left_out"] for name in left_out)
    assert np.isfinite(got.attribution.sel({"attribution_method": "rollout"}).values[0, 0, : prompts.length[1]]).all()


@pytest.mark.always(("bloom", "falcon", "qwen3_moe"))
def test_a_checkpoint_of_a_family_is_the_plain_model_with_hooks(case, tmp_path):
    """Zeroed, and with a pooled mean where W_O can have a bias: saved, loaded by transformers, and compared."""
    model, plain, prompts = case.model, case.plain, case.prompts
    pooled, heads = {"name": "mean", "means": "pooled"}, [(0, 1), (1, 2)]
    baked = {"zero": harness.bake(model, heads, "zero", tmp_path / "zero")}
    if case.family in NO_BAKED_MEAN:
        with pytest.raises(RequestError, match=r"^ablation=mean: W_O has no bias in \w+ForCausalLM, and its config"):
            harness.bake(model, heads, pooled, tmp_path / "mean", prompts=prompts)
        assert not (tmp_path / "mean").exists()
    else:
        baked["mean"] = harness.bake(model, heads, pooled, tmp_path / "mean", prompts=prompts)
    for name, each in baked.items():
        made = transformers.AutoModelForCausalLM.from_pretrained(each.folder, attn_implementation="eager").eval()
        means = plain.means([token_id for token_id, _, _ in rows(prompts)]) if name == "mean" else None
        for token_id, _, _ in rows(prompts):
            want = plain.logits(token_id, [plain.replacing(layer, head, means) for layer, head in heads])
            with torch.no_grad():
                got = made(torch.as_tensor(token_id)[None]).logits[0, -1].double()
            torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
            assert (want - plain.logits(token_id)).abs().max() > 1e-3


@pytest.mark.always(("bloom", "gpt_oss"))
def test_a_study_of_a_family_comes_to_its_end(case, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.study.record.draw", lambda run: None)
    asked = {
        "model": {"source": "path", "name": "path", "path": str(case.folder)},
        "prompts": {"name": "ioi", "n": 2},
        "stats": {"resamples": 99},
        "roles": {"draws": 20},
    }
    run = harness.open_run(study.run("study", parse(RunSpec, asked), Place(str(tmp_path)), lambda *_: None))
    assert run.manifest["status"] == "complete"
    assert np.isfinite(run.data["effect"]).all()


def test_a_norm_that_gives_fp32_is_refused_in_half_precision_with_the_dtype_to_set(tmp_path):
    families.folder("olmo", tmp_path)
    with pytest.raises(RequestError, match="does not run this architecture .* in bfloat16; try model.dtype=float32"):
        harness.load_model("path", path=str(tmp_path), dtype="bfloat16")


@pytest.mark.parametrize("family", list(REFUSED))
def test_a_family_that_is_not_hooked_is_refused_in_one_line(family, tmp_path):
    families.folder(family, tmp_path)
    with pytest.raises(RequestError, match="^model=path: ") as refused:
        harness.load_model("path", path=str(tmp_path))
    assert REFUSED[family] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_page_of_families_is_of_today():
    """The page's tables are what the tests above hold."""
    if os.environ.get("HARNESS_WRITE"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/families.md is not of today: HARNESS_WRITE=1 writes it"


def page():
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    tried = {name.removesuffix("Config").lower() for name, _ in families.FAMILIES.values()}
    never = sorted(name for name, cls in KNOWN.items() if not any(cls.lower().startswith(one) for one in tried))
    lines = [
        "# Decoder families",
        "",
        "What `tests/test_families.py` holds of each family, on a tiny model with random weights, against plain",
        "Hugging Face forwards to 1e-4: effects of all heads, direct effects (path patched in the plain model, norms",
        "frozen), their sum by the token they were read from (`sweep.source_direct`), the account of an effect by what",
        "each later head and MLP writes (`sweep.account`; right in all of these), patching maps of the residual",
        "stream, each attention and each MLP, softmax(scores) = pattern,",
        "knockout of a token in all heads and in one, and a study to its end; to 1e-5: a baked checkpoint, zeroed and",
        "with a pooled mean.",
        "",
        "| family | config | total | direct | by source | scores | knockout | of one head | ALTI | baked zero | "
        "baked mean | kernel |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in STUDIED:
        alone, alti = ("refused" if name in some else "right" for some in (NO_HEAD_KNOCKOUT, NO_ALTI))
        alti = "refused" if alti == "refused" else "given"
        mean = "refused" if name in NO_BAKED_MEAN else "right"
        split = "refused" if name in NO_SOURCES else "right"
        cells = [
            f"`{families.FAMILIES[name][0]}`",
            "right",
            "right",
            split,
            "right",
            "right",
            alone,
            alti,
            "right",
            mean,
            "eager" if name in NO_KERNEL else "sdpa",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "BitNet normalises z before W_O, so that a head's output is not its pattern times its values: methods that",
        "need that (norms, ALTI, rollout_gradient, knockout of one head, direct effects by source) are refused.",
        "Gemma 2 has a soft cap on its logits: by source, direct effects sum to the direct effect before the cap.",
        "Encoder-decoders are refused by source; encoders have no direct effects. By source they are those of",
        "zero-ablation, on metrics that are linear in the logits (`logit_diff`, `logit`); on the others they are NaN.",
        "ALTI needs attention and MLP in turn, and nothing between W_O and the stream: parallel blocks and norms of",
        "writes have no ALTI.",
        "A mean is baked into the bias of W_O: it is refused where the family has none and no config key gives it one.",
        "gpt-oss has a learnt sink in its softmax: rows of patterns sum to 1 with its share, the variable `sink`.",
        "`kernel`: what computes attention in a sweep of long prompts (`sweep.attention=auto`) after a probe: torch's",
        "scaled-dot-product attention, or the model's own code. That is kept for Gemma 2's soft cap on scores, for",
        "gpt-oss's sink, and where rows and heads share an axis (BLOOM, Falcon with ALiBi, XGLM).",
        "",
        "## Refused, in one line",
        "",
        "| family | config | because |",
        "|---|---|---|",
        *(f"| {name} | `{families.FAMILIES[name][0]}` | {because(name)} |" for name in REFUSED),
        "",
        "## Never tried as decoders",
        "",
        ", ".join(f"`{name}`" for name in never) + ".",
        "",
    ]
    return "\n".join(lines)


def because(family):
    reason = REFUSED[family]
    reasons = {
        "Could not determine": "TransformerLens has no bridge for it",
        "hook_z": "TransformerLens's z has another shape than values (latent attention)",
        "split_with_sizes": "TransformerLens cannot split its joined QKV matrix",
        "the hooked model's": "TransformerLens does not compute what the plain model computes",
        "has no hook": "not every layer has attention",
        "no attention": "it has no attention heads that TransformerLens knows",
    }
    return next(text for start, text in reasons.items() if reason.startswith(start))
