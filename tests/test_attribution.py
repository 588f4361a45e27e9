"""Attention rollout against hand-worked sums, identities and an independent loop."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from harness.attribution import effect_weighted, layer_pattern, mean_pattern, rollout
from harness.config import RequestError


def naive_rollout(pattern, residual, head_fusion, start_layer, discard_ratio):
    """The same definition written as loops over Python floats."""
    size = pattern.shape[-1]
    rolled = [[float(q == k) for k in range(size)] for q in range(size)]
    for layer in pattern[start_layer:].astype(float):
        fuse = {"mean": lambda v: sum(v) / len(v), "max": max, "min": min}[head_fusion]
        rows = [[fuse([float(head[q][k]) for head in layer]) for k in range(size)] for q in range(size)]
        entries = sorted((rows[q][k], q, k) for q in range(size) for k in range(size) if rows[q][k] > 0)
        for _, q, k in entries[: int(discard_ratio * len(entries) + 1e-9)]:
            if sum(v > 0 for v in rows[q]) > 1:
                rows[q][k] = 0.0
        for q in range(size):
            total = sum(rows[q])
            rows[q] = [v / total for v in rows[q]] if total else [float(q == k) for k in range(size)]
            read = sum(float(v) for head in layer for v in head[q]) / len(layer)  # the rest is in a learnt sink
            rows[q] = [v * read for v in rows[q]] if 0 < read < 0.99 else rows[q]
            rows[q] = [residual * (q == k) + (1 - residual) * rows[q][k] for k in range(size)]
        rolled = [[sum(rows[q][m] * rolled[m][k] for m in range(size)) for k in range(size)] for q in range(size)]
    return np.array(rolled)


def causal_patterns(n_layers=3, n_heads=2, size=5, seed=0):
    weights = np.tril(np.random.default_rng(seed).gamma(0.4, size=(n_layers, n_heads, size, size)) + 1e-6)
    return weights / weights.sum(-1, keepdims=True)


patterns = st.builds(
    causal_patterns, st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(0, 2**32 - 1)
)
options = st.fixed_dictionaries(
    {
        "residual": st.floats(0, 1),
        "head_fusion": st.sampled_from(["mean", "max", "min"]),
        "discard_ratio": st.floats(0, 0.99),
    }
)


def test_hand_worked_example():
    # Two layers, one head, two tokens, residual 1/2.
    # A_0 = [[1, 0], [1, 0]]      mixed: [[1, 0], [1/2, 1/2]]
    # A_1 = [[1, 0], [1/2, 1/2]]  mixed: [[1, 0], [1/4, 3/4]]
    # R = mixed_1 mixed_0: second row = 1/4 [1, 0] + 3/4 [1/2, 1/2] = [5/8, 3/8]
    pattern = np.array([[[[1.0, 0.0], [1.0, 0.0]]], [[[1.0, 0.0], [0.5, 0.5]]]])
    np.testing.assert_allclose(rollout(pattern), [[1, 0], [5 / 8, 3 / 8]])
    # Only the second layer: its mixed matrix alone.
    np.testing.assert_allclose(rollout(pattern, start_layer=1), [[1, 0], [1 / 4, 3 / 4]])


def test_hand_worked_discard():
    # Allowed entries, smallest first: 0.1 0.2 0.3 0.6 0.8 1.0 (six; zeros do not count).
    # A ratio of 0.4 drops int(2.4) = 2: row 2 loses 0.1 and row 1 loses 0.2; row 2 becomes [0, 1/3, 2/3].
    # A ratio of 0.9 reaches five, but the last entry of each row stays: 1.0, 0.8 and 0.6.
    fused = np.array([[1.0, 0, 0], [0.2, 0.8, 0], [0.1, 0.3, 0.6]])
    small = rollout(fused[None, None], residual=0, discard_ratio=0.4)
    np.testing.assert_allclose(small, [[1, 0, 0], [0, 1, 0], [0, 1 / 3, 2 / 3]])
    np.testing.assert_allclose(rollout(fused[None, None], residual=0, discard_ratio=0.9), np.eye(3))


def test_identity_patterns_roll_out_to_the_identity():
    eye = np.broadcast_to(np.eye(4), (3, 2, 4, 4)).copy()
    for fusion in ("mean", "max", "min"):
        np.testing.assert_allclose(rollout(eye, head_fusion=fusion, discard_ratio=0.5), np.eye(4))


def test_all_residual_is_the_identity():
    np.testing.assert_allclose(rollout(causal_patterns(), residual=1.0), np.eye(5))


def test_uniform_attention_without_a_residual_stays_uniform():
    np.testing.assert_allclose(rollout(np.full((3, 2, 4, 4), 0.25), residual=0.0), np.full((4, 4), 0.25))


def test_padding_keeps_to_itself_and_changes_nothing_else():
    pattern = causal_patterns()
    padded = np.zeros((3, 2, 7, 7))
    padded[..., :5, :5] = pattern
    rolled = rollout(padded, discard_ratio=0.3)
    np.testing.assert_allclose(rolled[:5, :5], rollout(pattern, discard_ratio=0.3))
    np.testing.assert_allclose(rolled[5:, 5:], np.eye(2))


@given(patterns, options)
def test_rows_sum_to_one_and_nothing_looks_ahead(pattern, option):
    rolled = rollout(pattern, **option)
    np.testing.assert_allclose(rolled.sum(-1), 1)
    assert (rolled >= 0).all()
    assert not np.triu(rolled, 1).any()


@given(patterns, options, st.integers(0, 3))
def test_equals_the_naive_loop(pattern, option, start):
    start = min(start, len(pattern) - 1)
    np.testing.assert_allclose(
        rollout(pattern, start_layer=start, **option), naive_rollout(pattern, start_layer=start, **option), atol=1e-12
    )


@given(hnp.arrays(np.float16, (2, 2, 3, 3), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])), st.floats(0, 0.99))
def test_ties_zeros_and_half_precision_equal_the_naive_loop(pattern, ratio):
    np.testing.assert_allclose(
        rollout(pattern, discard_ratio=ratio), naive_rollout(pattern, 0.5, "mean", 0, ratio), atol=1e-12
    )


def test_xarray_in_any_order_of_axes():
    pattern = causal_patterns()
    array = xr.DataArray(pattern, dims=("layer", "head", "query", "key")).transpose("head", "key", "layer", "query")
    np.testing.assert_array_equal(rollout(array), rollout(pattern))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"residual": 1.5}, "attribution.rollout.residual=1.5: choose a share from 0 to 1"),
        ({"head_fusion": "sum"}, "attribution.rollout.head_fusion=sum: choose one of mean, max, min"),
        ({"start_layer": 3}, "attribution.rollout.start_layer=3: the model has layers 0-2"),
        ({"discard_ratio": 1}, "attribution.rollout.discard_ratio=1: choose a share from 0 up to, not including, 1"),
    ],
)
def test_refuses_options_outside_their_range(option, message):
    with pytest.raises(RequestError, match="^" + message.replace(".", r"\.") + "$"):
        rollout(causal_patterns(), **option)


def test_refuses_another_shape():
    with pytest.raises(ValueError, match=r"got shape \(2, 5, 5\)"):
        rollout(causal_patterns()[0])


def test_means_over_heads_and_layers():
    pattern = causal_patterns()
    np.testing.assert_allclose(mean_pattern(pattern), pattern.reshape(6, 5, 5).mean(0))
    np.testing.assert_allclose(layer_pattern(pattern), pattern[2].mean(0))
    np.testing.assert_allclose(layer_pattern(pattern, layer=0), pattern[0].mean(0))


def test_rollout_of_a_learnt_sink_loses_its_share():
    """Two tokens, rows that leave a half and a quarter to the sink: R = ½I + ½A, once and twice."""
    sinking = np.array([[0.5, 0.0], [0.25, 0.5]])
    once = np.array([[0.75, 0.0], [0.125, 0.75]])
    np.testing.assert_allclose(rollout(sinking[None, None]), once)
    np.testing.assert_allclose(rollout(np.stack([sinking[None]] * 2)), once @ once)
    weighted = effect_weighted(sinking[None, None], np.ones((1, 1)))
    np.testing.assert_allclose(weighted, once)


def test_rollout_of_rows_rounded_in_half_precision_still_sums_to_one():
    pattern = causal_patterns().astype(np.float16)
    np.testing.assert_allclose(rollout(pattern).sum(-1), 1, atol=1e-12)
