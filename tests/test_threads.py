"""One model in more than one thread: what one thread hooks must not reach what another runs."""

import threading
import traceback

import numpy as np
import pytest
import torch
from thinned import most

import harness
from harness import config
from harness.attribution.context.stage import TraceStage
from harness.prompts import Prompts
from harness.roles.stage import RolesStage

TEXT = "John gave a drink to Mary"


def loaded(model, **keys) -> Prompts:
    target = {"target": ["a drink"]} if model.kind == "encoder_decoder" else {}
    return harness.load_prompts("inline", model, text=[TEXT], **target, **keys)


#: What a second thread does, as numbers.
DOES = {
    "cache_attention": lambda model, prompts: harness.cache_attention(model, prompts).data.pattern.values,
    "ablate_heads": lambda model, prompts: harness.ablate_heads(model, prompts, heads=["L1H1"]).data.effect.values,
    "screen": lambda model, prompts: (
        harness.ablate_heads(model, prompts, method="screen", verify_top_k=1).data.estimate.values
    ),
    "compare_attributions": lambda model, prompts: (
        harness.compare_attributions(model, prompts, methods=["gradient"], causes=["delete"]).data.attribution.values
    ),
    "load_prompts": lambda model, prompts: loaded(model, generate=2).token_id,
    "forward": lambda model, prompts: model.bridge(torch.as_tensor(prompts.token_id)).detach().numpy(),
    "run_with_cache": lambda model, prompts: model.bridge.run_with_cache(TEXT)[0].detach().numpy(),
    "generate": lambda model, prompts: np.array(
        model.bridge.generate(TEXT, max_new_tokens=2, do_sample=False, verbose=False)
    ),
    "hf_generate": lambda model, prompts: np.array(model.bridge.hf_generate(TEXT, max_new_tokens=2, do_sample=False)),
}


@pytest.mark.parametrize("does", DOES)
def test_a_second_thread_gets_the_numbers_that_it_gets_alone(tiny, does):
    """It begins while the first has all heads of layer 0 replaced, which goes on only once it has had time to run."""
    model = tiny()
    prompts = loaded(model)
    inside, done, got = threading.Event(), threading.Event(), []

    def slow(z, head):
        if not inside.is_set():
            inside.set()
            done.wait(0.2)
        return torch.zeros_like(z)

    def second():
        inside.wait()
        try:
            got.append(DOES[does](model, prompts))
        except Exception as error:  # what went wrong there is what the test is about
            got.append(error)
        done.set()

    want, alone = DOES[does](model, prompts), harness.ablate_heads(model, prompts, heads=["L0"], metrics=["loss"]).data
    thread = threading.Thread(target=second)
    thread.start()
    first = harness.ablate_heads(model, prompts, ablation=slow, heads=["L0"], metrics=["loss"]).data
    thread.join()
    assert not isinstance(got[0], Exception), got[0]
    np.testing.assert_array_equal(got[0], want)
    np.testing.assert_allclose(first.effect.values, alone.effect.values, atol=1e-6)


@pytest.mark.parametrize("shape", most(["llama", "t5", "bert"], 2))
def test_whatever_hooks_a_model_holds_its_lock(tiny, monkeypatch, shape):
    model = tiny(shape)
    free: set[str] = set()

    def watched(name):
        register = getattr(torch.nn.Module, name)

        def registering(module, *args, **kwargs):
            if not model.bridge.lock.held:
                free.add([each.name for each in traceback.extract_stack() if "/harness/" in each.filename][-1])
            return register(module, *args, **kwargs)

        monkeypatch.setattr(torch.nn.Module, name, registering)

    watched("register_forward_hook")
    watched("register_forward_pre_hook")
    prompts = loaded(model)
    heads = ["cross.L0H1"] if shape == "t5" else ["L0H1"]
    harness.cache_attention(model, prompts, also=["z", "resid"])
    harness.ablate_heads(model, prompts, heads=heads, ablation="mean")
    harness.ablate_heads(model, prompts, heads=heads, method="screen")
    harness.compare_attributions(model, prompts, methods=["norms", "integrated_gradients"], ig_steps=2)
    stages = [RolesStage(model, prompts, config.RolesSpec(draws=20), config.StatsSpec())]
    if shape != "t5":
        named = loaded(model, words={"name": ["John", "Mary"]})
        stages.append(TraceStage(model, named, config.TraceSpec(heads="used"), model.heads(heads)))
    for stage in stages:
        plan = stage.plan()
        for unit in range(len(plan["batches"])):
            stage.compute(plan, unit)
    assert not free
