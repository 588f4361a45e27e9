"""Too slow for every change: `make soak`."""

import gc
import hashlib
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import pytest

import harness
from harness import hooks, study
from harness.config import RunSpec, named_model, parse

pytestmark = pytest.mark.soak

SWEEPS = 200
#: Sweeps after which allocators have what they will ever need.
WARM = 40


def quiet(*_):
    pass


def state(model):
    """A digest of every weight and buffer, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(hooks.plain_model(model.bridge).state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


def n_hooks(model):
    modules = list(model.bridge.modules())
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules)


def test_two_hundred_sweeps_in_one_process_leave_it_as_it_was(tiny):
    """Memory flat within 5 %, no handle or hook left, weights bit-equal, and every sweep the same."""
    model, process = tiny(), psutil.Process()
    prompts = harness.load_prompts("ioi", model, n=24)
    first = harness.ablate_heads(model, prompts, metrics=["logit_diff", "kl"]).data
    before = (state(model), n_hooks(model), model.bridge.training)
    resident, handles = [], []
    for _ in range(SWEEPS):
        again = harness.ablate_heads(model, prompts, metrics=["logit_diff", "kl"]).data
        gc.collect()
        resident.append(process.memory_info().rss)
        handles.append(process.num_fds())
    np.testing.assert_array_equal(again.effect.values, first.effect.values)
    assert (state(model), n_hooks(model), model.bridge.training) == before
    assert max(handles[WARM:]) <= handles[WARM]
    drift = np.mean(resident[-20:]) / np.mean(resident[WARM : WARM + 20]) - 1
    print(f"drift of resident memory: {drift:+.2%} over {SWEEPS} sweeps")
    assert drift < 0.05


@pytest.mark.parametrize("execute", [{"name": "local", "workers": 2}, {"name": "ray", "workers": 2}])
def test_workers_on_smollm2_lose_less_than_15_percent(tmp_path, monkeypatch, execute):
    """Against one process with the same cores; a quiet machine is needed. Values: off by rounding at most, since the
    threads are divided."""
    monkeypatch.setattr("harness.study.record.draw", quiet)
    model, prompts = asdict(named_model("smollm2")), {"name": "ioi", "n": 96}
    asked = {"model": model, "prompts": prompts, "heads": ["L10", "L20"], "metrics": ["logit_diff"]}
    took, found = {}, {}
    for name, where in (("one", {"name": "local"}), ("many", execute)):
        times = []
        spec = parse(RunSpec, {**asked, "execute": where})
        place = study.Place(run=str(tmp_path / name))
        run = study.run("ablate_heads", spec, place, lambda *_, times=times: times.append(time.monotonic()))
        # from the first unit on: loading a model costs each worker the same once, however long the sweep
        took[name] = (times[-1] - times[1]) / (len(times) - 2)
        found[name] = harness.open_run(Path(run)).data.effect.values
    print(f"{execute['name']}: {took['many'] / took['one']:.2f} of the time of one process")
    np.testing.assert_allclose(found["many"], found["one"], atol=2e-5)
    assert took["many"] < 1.15 * took["one"]
