"""The attribution methods that need only arrays, against identities, hand-worked sums and networkx."""

from contextlib import nullcontext

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness import attribution
from harness.attribution import alti, norms, uniform_rollout
from harness.attribution.example import example_of
from harness.attribution.flow import ROUNDING
from harness.attribution.ov_contributions import Stream, _contributions
from harness.config import RequestError
from harness.hooks import Site


def patterns(layers=3, heads=2, size=5, seed=0, causal=True):
    """Uneven attention, [layer, head, query, key]; rows sum to 1."""
    weights = np.random.default_rng(seed).gamma(0.5, size=(layers, heads, size, size)) + 1e-3
    weights = np.tril(weights) if causal else weights
    return weights / weights.sum(-1, keepdims=True)


seeds = st.integers(0, 10_000)


@settings(deadline=None)
@given(seeds, st.booleans())
def test_flow_of_one_layer_is_rollout(seed, causal):
    pattern = patterns(layers=1, seed=seed, causal=causal)
    np.testing.assert_allclose(attribution.flow(pattern), attribution.rollout(pattern), atol=ROUNDING)


def test_flow_leaves_out_what_a_learnt_sink_takes():
    pattern = patterns(layers=1, seed=0, causal=True) * np.linspace(0.2, 0.9, 5)[:, None]
    np.testing.assert_allclose(attribution.flow(pattern), attribution.rollout(pattern), atol=ROUNDING)


def test_identity_patterns_give_the_identity():
    identity = np.broadcast_to(np.eye(4), (3, 2, 4, 4))
    for method in (attribution.rollout, attribution.flow, attribution.uniform_normalised):
        np.testing.assert_allclose(method(identity), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(attribution.effect_weighted(identity, np.ones((3, 2))), np.eye(4))


@settings(deadline=None)
@given(seeds, st.booleans())
def test_flow_equals_networkx(seed, causal):
    pattern = patterns(layers=2, size=4, seed=seed, causal=causal)
    graph = networkx.DiGraph()
    for layer, step in enumerate(0.5 * np.eye(4) + 0.5 * pattern.mean(1)):
        for query, key in np.argwhere(step > 0):
            graph.add_edge((layer + 1, query), (layer, key), capacity=step[query, key])
    graph.add_nodes_from((0, key) for key in range(4))
    want = [[networkx.maximum_flow_value(graph, (2, query), (0, key)) for key in range(4)] for query in range(4)]
    np.testing.assert_allclose(attribution.flow(pattern), want, atol=8 * ROUNDING)


def test_flow_of_some_queries_is_those_rows():
    pattern = patterns()
    np.testing.assert_array_equal(attribution.flow(pattern, queries=[4, 1]), attribution.flow(pattern)[[4, 1]])


def test_flow_through_a_bottleneck():
    """Token 0 reaches query 2 only through positions that pass on 0.5 + 0.25 and 0.125 of their capacity.

    Layer 0: 1 draws on 0 with 0.5 (mixed 0.25), 2 on 0 with 0.25 (mixed 0.125). Layer 1: 2 draws on 1 with 1 (mixed
    0.5) and keeps 0.5. So 0.25 comes through 1 and 0.125 through 2 itself.
    """
    first = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.25, 0, 0.75]])
    second = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    assert attribution.flow(np.stack([first, second])[:, None])[2, 0] == pytest.approx(0.375)


def test_uniform_attention_is_even_under_every_normalisation():
    even = uniform_rollout.uniform_pattern(patterns())
    np.testing.assert_allclose(even[0, 0, 3], [0.25, 0.25, 0.25, 0.25, 0])
    np.testing.assert_allclose(attribution.uniform_normalised(even), np.tril(np.ones((5, 5))))


def test_uniform_normalised_by_hand():
    """One layer: rollout is 0.5 I + 0.5 A, and of even attention 0.5 I + 0.5 / (i + 1)."""
    pattern = patterns(layers=1)
    rows, even = 0.5 * np.eye(5) + 0.5 * pattern[0].mean(0), np.tril(0.5 / np.arange(1, 6)[:, None] * np.ones((5, 5)))
    want = np.tril(rows / (even + 0.5 * np.eye(5) + np.triu(np.ones((5, 5)), 1)))
    np.testing.assert_allclose(attribution.uniform_normalised(pattern), want)


def test_effect_weights_choose_among_the_heads():
    pattern = patterns(heads=3)
    alone = attribution.effect_weighted(pattern, np.tile([0.0, 2.0, -1.0], (3, 1)))
    np.testing.assert_allclose(alone, attribution.rollout(pattern[:, [1]]))
    np.testing.assert_allclose(attribution.effect_weighted(pattern, np.ones((3, 3))), attribution.rollout(pattern))
    np.testing.assert_allclose(attribution.effect_weighted(pattern, -np.ones((3, 3))), np.eye(5))
    np.testing.assert_allclose(alone.sum(1), 1)


def test_what_effect_weights_leave_out_is_reported():
    assert attribution.negative_share(np.array([[3.0, -1.0]])) == 0.25
    assert attribution.negative_share(np.zeros((2, 2))) == 0


def test_effects_of_other_heads_are_refused():
    with pytest.raises(RequestError, match="one finite number for each of the 3 layers × 2 heads"):
        attribution.effect_weighted(patterns(), np.ones((3, 4)))


@pytest.mark.parametrize("method", [attribution.flow, attribution.uniform_normalised, attribution.rollout])
def test_a_residual_that_is_no_share_is_refused(method):
    with pytest.raises(RequestError, match="^attribution.rollout.residual=1.5: choose a share from 0 to 1$"):
        method(patterns(), residual=1.5)


def test_a_random_order_depends_on_its_seed_alone():
    first = attribution.random_scores(50, [0, 3])
    np.testing.assert_array_equal(first, attribution.random_scores(50, [0, 3]))
    assert (first != attribution.random_scores(50, [0, 4])).any()


# --- norms and ALTI ---------------------------------------------------------------------------------------------


def test_value_weighted_norms_by_hand():
    """Two heads that look at the same token and bring opposite vectors bring nothing: 0.5 (3, 4) − 0.5 (3, 4)."""
    pattern = np.array([[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.5, 0.5]]])
    carried = np.array([[[3.0, 4.0], [-3.0, -4.0]], [[0.0, 2.0], [0.0, 0.0]]])
    np.testing.assert_allclose(attribution.value_weighted_norms(pattern, carried), [[0, 0], [0, 1]])
    np.testing.assert_allclose(norms.terms(pattern, carried)[1, 1], [0, 1])


def test_alti_by_hand():
    """y = (3, 1): ‖y‖₁ = 4. The item (3, 0) is 1 away: 3. (0, 1) is 3 away: 1. (0, −1) is 5 away: none."""
    items = np.array([[[3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]])
    np.testing.assert_allclose(alti.contributions(items, np.array([[3.0, 1.0]])), [[0.75, 0.25, 0]])


@pytest.mark.parametrize(
    ("size", "off", "accepted"), [(1e4, 9.0, True), (1e4, 11.0, False), (0.1, 9e-4, True), (0.1, 2e-3, False)]
)
def test_terms_may_miss_the_stream_by_a_thousandth_of_its_largest_entry_or_of_1(tiny, size, off, accepted):
    model = tiny("llama")
    example = example_of(model, harness.load_prompts("inline", model, text=["a drink"]))
    before = torch.tensor([[[size, 0.0]]])
    stream = Stream(before, before + torch.tensor([off, 0.0]), torch.zeros(2))
    nothing = (np.ones((1, 1, 1)), np.zeros((1, 1, 2)))
    with nullcontext() if accepted else pytest.raises(RequestError, match=r"at L0 they are off by .*; leave out alti"):
        assert _contributions(example, Site(0), stream, 0, *nothing).shape == (1, 1)


def test_alti_of_nothing_near_is_even():
    items = np.array([[[-1.0], [-2.0]]])
    np.testing.assert_allclose(alti.contributions(items, np.array([[1.0]])), [[0.5, 0.5]])


def test_gradient_weighted_by_hand():
    """Layer 0: Ā = mean(max(0, .5·2), max(0, .5·−4)) = 0.5 from 1 to 0. Layer 1: 1 to 0 with 0.25.

    R = I; after layer 0 R[1] = (0.5, 1); after layer 1 R[1] += 0.25 R[0] = (0.75, 1).
    """
    pattern, gradient = np.zeros((2, 2, 2, 2)), np.zeros((2, 2, 2, 2))
    pattern[:, :, 1, 0], gradient[0, :, 1, 0], gradient[1, :, 1, 0] = 0.5, [2, -4], [1, 0]
    np.testing.assert_allclose(attribution.gradient_weighted(pattern, gradient)[1], [0.75, 1])


# --- an encoder-decoder as one graph ------------------------------------------------------------------------------


def naive_encoder_decoder_rollout(own, encoder, cross):
    """The same recursion for two blocks of columns: what of the source, and what of the written, is in each token."""
    mixed = [0.5 * np.eye(one.shape[-1]) + 0.5 * one.mean(0) for one in encoder]
    source = np.linalg.multi_dot(mixed[::-1]) if len(mixed) > 1 else mixed[0]
    of_source, of_written = np.zeros(cross.shape[2:]), np.eye(own.shape[-1])
    for layer, across in zip(own, cross, strict=True):
        step = 0.5 * np.eye(own.shape[-1]) + 0.5 * layer.mean(0)
        of_source, of_written = step @ of_source, step @ of_written
        of_source, of_written = 0.5 * of_source + 0.5 * across.mean(0) @ source, 0.5 * of_written
    return np.hstack([of_source, of_written])


def test_rollout_of_an_encoder_decoder_follows_both_texts():
    own, encoder = patterns(2, 2, 4, seed=1), patterns(3, 2, 6, seed=2, causal=False)
    cross = np.random.default_rng(3).dirichlet(np.ones(6), size=(2, 2, 4))
    whole = attribution.joint(own, encoder, cross)
    assert whole.shape == (7, 2, 10, 10)
    np.testing.assert_allclose(whole.sum(-1), 1)
    want = naive_encoder_decoder_rollout(own, encoder, cross)
    np.testing.assert_allclose(attribution.rollout(whole)[6:], want)
    assert attribution.joint(own) is own


def test_a_cross_step_can_keep_what_the_residual_carries():
    nodes = attribution.Nodes(2, 1)
    placed = nodes.place(np.array([[0.2, 0.3]]), "cross", own=np.array([0.5]))
    np.testing.assert_allclose(placed, [[1, 0, 0], [0, 1, 0], [0.2, 0.3, 0.5]])
    idle = nodes.place(np.array([[0.2, 0.3]]), "cross", idle=0.0)
    np.testing.assert_allclose(idle, [[0, 0, 0], [0, 0, 0], [0.2, 0.3, 0]])
