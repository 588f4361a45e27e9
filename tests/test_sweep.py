"""The engine against plain Hugging Face forwards, and what it promises about the model it runs."""

import copy
from dataclasses import replace

import numpy as np
import plain
import pytest
import torch

import harness
from harness import ablation, hooks
from harness.ablation import Check, Intervention, InterventionFailed, applied
from harness.config import RequestError
from harness.hooks import Head, Site
from harness.metrics import METRICS
from harness.models import Inputs
from harness.sweep import SweepStage, engine, groups

pytestmark = pytest.mark.usefixtures("padded")

ALL = ("loss", "logit_diff", "kl", "accuracy", "prob")
TEXTS = ("When Mary and John went to the store", "a drink", "Then the garden, and a flower to the office")


def plain_twin(model):
    """The same random weights as a plain Hugging Face model, never touched by TransformerLens."""
    return plain.twin(model.spec.shape, model.spec.seed)


def by_head(effects):
    return effects.transpose("metric", "prompt", "layer", "head").values.reshape(*effects.shape[:2], -1)


def test_every_effect_equals_plain_hugging_face_with_unequal_lengths(family):
    prompts = harness.load_prompts("ioi", family, n=5)
    assert len(set(prompts.length)) > 1
    clean, ablated = plain.ablated(family, prompts, [(head,) for head in family.heads()], ALL)
    got = harness.ablate_heads(family, prompts, metrics=ALL).data
    np.testing.assert_allclose(got.clean.values, clean, atol=1e-4)
    np.testing.assert_allclose(by_head(got.ablated), ablated, atol=1e-4)
    np.testing.assert_allclose(by_head(got.effect), ablated - clean[:, :, None], atol=1e-4)
    assert np.abs(by_head(got.effect)[0]).max() > 0.01


def test_every_effect_equals_plain_hugging_face_with_many_targets(family):
    prompts = harness.load_prompts("inline", family, text=TEXTS)
    names = ("loss", "kl", "prob")
    clean, ablated = plain.ablated(family, prompts, [(head,) for head in family.heads()], names)
    got = harness.ablate_heads(family, prompts, metrics=names).data
    np.testing.assert_allclose(by_head(got.ablated), ablated, atol=1e-4)
    np.testing.assert_allclose(got.clean.values, clean, atol=1e-4)


def test_prompts_of_unequal_lengths_share_a_batch_here(tiny):
    """Or no test of this file would see padding."""
    prompts = harness.load_prompts("inline", tiny(), text=TEXTS)
    (batch,) = SweepStage(tiny(), prompts, groups(tiny()), (METRICS["loss"],)).plan()["batches"]
    assert len(set(prompts.length[batch])) == len(TEXTS)


def test_one_prompt_alone_gives_what_it_gives_among_others(family):
    together = harness.ablate_heads(family, harness.load_prompts("inline", family, text=TEXTS), metrics=["loss"]).data
    for row, text in enumerate(TEXTS):
        alone = harness.ablate_heads(family, harness.load_prompts("inline", family, text=[text]), metrics=["loss"]).data
        np.testing.assert_allclose(alone.effect.values[:, 0], together.effect.values[:, row], atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 5, 12, 100])
def test_the_size_of_a_chunk_changes_nothing(tiny, chunk):
    model = tiny("mistral")
    prompts = harness.load_prompts("ioi", model, n=3)
    stage = SweepStage(model, prompts, groups(model), (METRICS["loss"],))
    plan = stage.plan()
    whole = stage.compute(plan, 0)["ablated"]
    np.testing.assert_allclose(stage.compute(plan | {"chunks": [chunk]}, 0)["ablated"], whole, atol=1e-6)


@pytest.mark.covering(1)
@pytest.mark.parametrize("shape", ["llama", "bert_classifier", "t5"])
@pytest.mark.parametrize("positions", ["all", "target"])
def test_rows_of_several_prompts_run_in_groups_and_the_numbers_stay(tiny, shape, positions):
    model = tiny(shape)
    more = {
        "t5": {"target": ["a drink", "the store to", "Mary"]},
        "bert_classifier": {"answer": ["neutral", "negative", "neutral"]},
    }
    prompts = harness.load_prompts("inline", model, text=TEXTS, **more.get(shape, {}))
    made, _ = ablation.build("resample", model, prompts)
    heads = ["decoder", "cross"] if shape == "t5" else "all"
    stage = SweepStage(model, prompts, groups(model, heads), (METRICS["loss"], METRICS["kl"]), made, positions)
    plan = stage.plan()
    assert len(plan["batches"]) == 1
    whole, cut = (stage.compute(plan | {"rows": [rows]}, 0) for rows in (3, 1))
    assert cut.keys() == whole.keys()
    for name in whole.keys() - {"off", "fired"}:
        np.testing.assert_allclose(cut[name], whole[name], atol=1e-5)


@pytest.mark.parametrize("shape", ["gpt2", "neox", "llama", "gemma3", "bert", "t5"])
def test_the_last_block_runs_where_it_is_read_and_the_numbers_stay(tiny, shape, monkeypatch):
    model = tiny(shape)
    more = {"target": ["a drink", "the store to"]} if shape == "t5" else {}
    prompts = harness.load_prompts("inline", model, text=[TEXTS[0], TEXTS[2]], **more)
    prompts = replace(prompts, correct=np.where(np.arange(prompts.correct.shape[1]) == 1, prompts.correct, -1))
    assert prompts.target.sum() == 2
    rows, last = [], hooks.beside_keys_and_values(model.bridge)[-1]
    handle = last.register_forward_hook(lambda _, args, out: rows.append(out.count_nonzero(dim=-1).bool().sum()))
    try:
        narrow = harness.ablate_heads(model, prompts, metrics=["loss", "kl"], ablation="mean", direct=False).data
        seen, rows[:] = sum(map(int, rows)), []
        monkeypatch.setattr("harness.sweep.last_block._WORTH", 0)
        whole = harness.ablate_heads(model, prompts, metrics=["loss", "kl"], ablation="mean", direct=False).data
    finally:
        handle.remove()
    assert seen < 0.5 * sum(map(int, rows))
    np.testing.assert_allclose(narrow.effect, whole.effect, atol=1e-6)


def test_what_else_stands_in_the_last_block_is_left_whole(tiny):
    """Falcon-H1 has a Mamba beside its attention: its linear layers feed what runs along the text."""
    bridge = tiny("llama").bridge
    last, known, mixer = hooks.blocks(bridge)[-1], hooks.beside_keys_and_values(bridge), torch.nn.Module()
    mixer.in_proj = torch.nn.Module()
    mixer.in_proj.original_component = torch.nn.Linear(2, 2)
    last.add_module("mamba", mixer)
    try:
        assert hooks.beside_keys_and_values(bridge) == known != []
    finally:
        del last._modules["mamba"]


def test_a_function_that_mixes_positions_reads_the_whole_last_block(tiny):
    """Each position's z becomes the mean over all: no position may be missing, also in the last block."""
    model = tiny("llama")
    prompts, head = harness.load_prompts("ioi", model, n=1), model.heads()[-1]

    def smeared(z, head):
        return z.mean(dim=1, keepdim=True)

    got = harness.ablate_heads(model, prompts, smeared, ["loss"], [head]).data
    twin, token_id = plain_twin(model), prompts.token_id[0]
    new = plain.z(twin, token_id, model.shape.d_head)
    new = new.mean(dim=1, keepdim=True).expand_as(new)
    after = plain.logits(twin, token_id, [head], model.shape.d_head, new)
    assert float(got.ablated[0, 0, head.layer, head.head]) == pytest.approx(
        plain.metrics(prompts, 0, after, after)["loss"], abs=1e-5
    )


def test_sets_and_layers_are_ablated_together(family):
    prompts = harness.load_prompts("ioi", family, n=3)
    sets = {"two": ["L0H1", "L2H3"], "one": ["L1H2"], "layer": ["L1"]}
    got = harness.ablate_heads(family, prompts, metrics=["loss"], kind="set", sets=sets).data
    _, ablated = plain.ablated(family, prompts, [family.heads(heads) for heads in sets.values()], ["loss"])
    np.testing.assert_allclose(got.set_effect.values + got.clean.values[:, :, None], ablated, atol=1e-4)
    layers = harness.ablate_heads(family, prompts, metrics=["loss"], kind="layer").data
    np.testing.assert_allclose(layers.layer_effect.sel(layer=1), got.set_effect.sel(set="layer"), atol=1e-6)


def test_a_whole_layer_zeroed_is_its_attention_removed(tiny):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=2)
    twin = plain_twin(model)
    got = harness.ablate_heads(model, prompts, metrics=["loss"], kind="layer", heads=["L1"]).data
    attention = twin.model.layers[1].self_attn
    removed = attention.register_forward_hook(lambda _, args, out: (torch.zeros_like(out[0]), *out[1:]))
    afters = [plain.logits(twin, prompts.token_id[row, : prompts.length[row]]) for row in range(2)]
    removed.remove()
    for row, after in enumerate(afters):
        loss = plain.metrics(prompts, row, after, after)["loss"]
        assert float(got.layer_effect.sel(layer=1)[0, row] + got.clean[0, row]) == pytest.approx(loss, abs=1e-4)


def test_without_an_ablation_the_numbers_are_the_clean_runs_bit_for_bit(family):
    prompts = harness.load_prompts("ioi", family, n=5)
    got = harness.ablate_heads(family, prompts, ablation=lambda z, head: z, metrics=ALL).data
    assert (got.effect.values == 0).all()


def test_one_metric_and_one_head_may_stand_without_a_list(tiny):
    model = tiny()
    prompts = harness.load_prompts("ioi", model, n=1)
    one = harness.ablate_heads(model, prompts, metrics="kl", heads=Head(1, 2)).data
    listed = harness.ablate_heads(model, prompts, metrics=["kl"], heads=(name for name in ["L1H2"])).data
    np.testing.assert_array_equal(one.effect, listed.effect)
    assert one.effect.attrs["edits_verified"] == 2  # the head, and the random edit its distance is held against


def test_heads_not_asked_for_are_empty(tiny):
    model = tiny()
    got = harness.ablate_heads(model, harness.load_prompts("ioi", model, n=2), heads=["L0H1", "L2"]).data
    known = np.isfinite(got.effect.sel(metric="loss").isel(prompt=0).values)
    assert known.tolist() == [[False, True, False, False], [False] * 4, [True] * 4]


def hooked(module):
    """How many torch hooks a module has."""
    return len(module._forward_pre_hooks), len(module._forward_hooks)


def test_the_model_is_never_left_changed(family):
    prompts = harness.load_prompts("ioi", family, n=2)
    token_id = torch.as_tensor(prompts.token_id[:1, : prompts.length[0]])
    state = copy.deepcopy(family.bridge.original_model.state_dict())
    handles = [hooked(module) for module in family.bridge.modules()]
    before = family.forward(Inputs(token_id, torch.ones_like(token_id)))
    harness.ablate_heads(family, prompts)

    def failing(z, head):
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        harness.ablate_heads(family, prompts, ablation=failing)
    with pytest.raises(RuntimeError, match=r"expand|shape|size"):
        harness.ablate_heads(family, prompts, ablation=lambda z, head: z[..., :-1])
    assert torch.equal(family.forward(Inputs(token_id, torch.ones_like(token_id))), before)
    after = family.bridge.original_model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert not any(point.fwd_hooks for point in family.bridge.hook_dict.values())
    assert not any("forward" in vars(module) for module in hooks.blocks(family.bridge))
    assert [hooked(module) for module in family.bridge.modules()] == handles


def test_every_edit_is_verified_at_the_output_projection(tiny):
    model = tiny()
    stage = SweepStage(model, harness.load_prompts("ioi", model, n=2), groups(model), (METRICS["loss"],))
    stage.compute(stage.plan(), 0)
    assert stage.check.fired == len(model.heads())
    assert len(stage.check.spot_checks) == 2


def out_of_place(_, args):
    return (args[0] + 1e-6,)


def in_place(_, args):
    args[0].add_(1e-6)


@pytest.mark.parametrize("tamper", [out_of_place, in_place])
def test_an_edit_that_does_not_reach_the_output_projection_is_an_error(tiny, tamper):
    model = tiny("gpt2")
    prompts = harness.load_prompts("ioi", model, n=1)
    projection = model.bridge.blocks[1].attn.o.original_component
    handle = projection.register_forward_pre_hook(tamper, prepend=True)
    try:
        with pytest.raises(InterventionFailed, match="L1: W_O received a z that is off the intended one"):
            harness.ablate_heads(model, prompts, heads=["L1H0"])
    finally:
        handle.remove()


def test_an_edit_that_never_fires_is_an_error():
    with pytest.raises(InterventionFailed, match="hook_z did not fire"):
        Check().meet(Site(0), torch.zeros(1), 1)


def test_applied_is_the_plain_way_and_undoes_itself(tiny):
    model = tiny("gpt2")
    prompts = harness.load_prompts("inline", model, text=["the store"])
    token_id = torch.as_tensor(prompts.token_id)
    mask = torch.ones_like(token_id)
    before = model.forward(Inputs(token_id, mask))
    with applied(model, Intervention((Head(0, 1), Head(2, 0)))) as check:
        inside = model.forward(Inputs(token_id, mask))
    assert check.fired == 2
    assert torch.equal(model.forward(Inputs(token_id, mask)), before)
    want = plain.logits(plain_twin(model), prompts.token_id[0], [Head(0, 1), Head(2, 0)], model.shape.d_head)
    torch.testing.assert_close(inside[0], want, atol=1e-4, rtol=0)


def test_nan_from_a_model_is_an_error_and_never_averaged(tiny):
    model = tiny()
    prompts = harness.load_prompts("ioi", model, n=1)
    with pytest.raises(RequestError, match="on prompt [0-9]+ is (nan|inf)"):
        harness.ablate_heads(model, prompts, ablation=lambda z, head: torch.full_like(z, float("inf")), heads=["L0H0"])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"ablation": "zeros"}, "ablation=zeros: did you mean 'zero'"),
        ({"heads": ["L3H0"]}, "L3H0 is outside random: it has layers 0-2"),
        ({"kind": "pair"}, "sweep.kind=pair: did you mean .pairs.. known: single, layer, mlp, set, complement"),
        ({"kind": "set"}, "name at least one set"),
        ({"method": "exat"}, "did you mean 'exact'.* fast, screen"),
    ],
)
def test_what_cannot_be_asked_is_refused(tiny, asked, says):
    with pytest.raises(RequestError, match=says):
        harness.ablate_heads(tiny(), harness.load_prompts("ioi", tiny(), n=1), **asked)


def test_the_engine_reads_logits_as_the_model_gives_them(family):
    prompts = harness.load_prompts("inline", family, text=TEXTS)
    clean = engine.run_clean(family, prompts, [METRICS["kl"]])
    with torch.no_grad():
        whole = family.forward(clean.inputs)[clean.targets.row, clean.targets.position]
    torch.testing.assert_close(clean.logits, whole, atol=1e-5, rtol=0)


def test_interventions_are_values(tiny):
    assert Intervention((Head(5, 1),)) == Intervention((Head(5, 1),), ablation.zeros)
    assert Intervention((Head(5, 1), Head(3, 0))).first_block(tiny().shape) == 3


def rows_in_blocks(model, chunk):
    """How many rows of each block's attention are computed while interventions run; blocks that do not run are out."""
    prompts, rows = harness.load_prompts("inline", model, text=["the store", "a drink"]), {}
    clean = engine.run_clean(model, prompts, [METRICS["loss"]])

    def count(layer):
        return lambda _, args: rows.update({layer: len(args[0])})

    handles = [
        hooks.output_projection(model.bridge, Site(layer)).register_forward_pre_hook(count(layer))
        for layer in range(model.shape.n_layers)
    ]
    try:
        engine.run_ablated(model, clean, [Intervention((Head(*each),)) for each in chunk], Check())
    finally:
        for handle in handles:
            handle.remove()
    return rows


@pytest.mark.parametrize("shape", ["gpt2", "llama", "neox"])
def test_run_ablated_lets_rows_join_at_their_own_block(tiny, shape):
    """Two prompts; rows that join too early give the same numbers at a higher cost."""
    assert rows_in_blocks(tiny(shape), [(0, 0), (1, 0), (1, 1), (2, 0)]) == {0: 2, 1: 6, 2: 8}
    assert rows_in_blocks(tiny(shape), [(1, 3), (2, 0)]) == {1: 2, 2: 4}
    assert rows_in_blocks(tiny(shape), [(2, 1), (2, 2), (2, 3)]) == {2: 6}
