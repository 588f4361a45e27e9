"""The account of an effect: who makes up for a planted head, what is refused, and that other ways give the same."""

import numpy as np
import pytest
from thinned import seeds

import harness
from harness.config import RequestError
from harness.findings.account import account_finding, account_of


@pytest.mark.parametrize("seed", seeds(20, first=2))
def test_the_account_and_the_edges_name_the_planted_backup(seed):
    """All that the induction head writes is taken back by the backup, and by no other; it hears of it by its query."""
    model = harness.load_model("planted", seed=seed, variant="backup")
    prompts = harness.load_prompts("induction", model, n=8)
    (induction,), (backup,), (previous,) = (model.truth[role] for role in ("induction", "backup", "previous_token"))
    got = harness.ablate_heads(model, prompts, metrics=["logit"], account=True)
    parts = account_of(got, "logit", induction)
    assert parts["direct"].mean() < -10
    np.testing.assert_allclose(parts[str(backup)], -parts["direct"], atol=1e-3)
    others = [values for name, values in parts.items() if name not in ("direct", str(backup))]
    assert np.abs(others).max() < 1e-3
    said = account_finding(got, "logit", induction, parts).text
    assert f"that others take back (most by {backup}: +" in said

    every = {"into": ["q", "k", "v", "mlp"], "top_k": 10_000}
    table = harness.ablate_heads(model, prompts, metrics=["logit"], kind="edges", edges=every).edges
    # A receiver's own norm is recomputed: without one write it scales what the others wrote by 2 % more.
    matter = table[table["effect_mean"].abs() > 0.05 * float(got.data["clean"].mean())]
    want = {(str(previous), str(induction), "k"), (str(induction), str(backup), "q")}
    assert {*zip(matter["sender"], matter["receiver"], matter["into"], strict=True)} == want


@pytest.mark.parametrize(
    "keys", [{"positions": "last"}, {"ablation": {"name": "resample", "draws": 2}}, {"memory": 1e-4}]
)
def test_an_account_follows_positions_and_draws_and_chunks(tiny, keys):
    model = tiny("llama")
    prompts = harness.load_prompts("ioi", model, n=4)
    got = harness.ablate_heads(model, prompts, metrics=["loss", "logit_diff"], account=True, **keys).data
    account = got.account.sel(metric="logit_diff")
    np.testing.assert_allclose(account.sum("component"), got.effect.sel(metric="logit_diff"), atol=1e-4)
    np.testing.assert_allclose(account.sel(component="direct"), got.direct.sel(metric="logit_diff"), atol=1e-4)
    assert float(abs(account.drop_sel(component="direct")).max()) > 1e-3
    assert got.account.sel(metric="loss").isnull().all()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            {"metrics": ["loss"]},
            "sweep.account=true: loss: not linear in the logits; add logit_diff or logit to metrics",
        ),
        ({"metrics": ["logit_diff", "kl"], "positions": "each"}, "sweep.account=true: at each position in turn"),
        ({"metrics": ["logit_diff"], "method": "screen"}, "sweep.account=True: sweep.method=screen does not read it"),
    ],
)
def test_an_account_that_is_none_is_refused(tiny, keys, says):
    prompts = harness.load_prompts("ioi", tiny(), n=2)
    with pytest.raises(RequestError, match=says):
        harness.ablate_heads(tiny(), prompts, account=True, **keys)
