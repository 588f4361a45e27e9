"""Each metric against numpy, by hand where it can be done by hand."""

import numpy as np
import pytest
import torch

import harness
from harness.config import RequestError
from harness.metrics import METRICS, choose, title
from harness.prompts.targets import Readout, Targets

LOGITS = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0], [1.0, 1.0, 1.0]])
CLEAN = np.array([[0.0, 2.0, 0.5], [0.0, -1.0, 3.0], [2.0, 1.0, 0.0]])
CORRECT, ANSWER, DISTRACTOR = np.array([1, 0, 2]), np.array([1, 0, 2]), np.array([0, 2, 1])


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture
def read():
    tensors = (torch.tensor(array, dtype=torch.float32) for array in (LOGITS, CLEAN))
    return Readout(*tensors, *(torch.tensor(array) for array in (CORRECT, ANSWER, DISTRACTOR)))


EXPECTED = {
    "loss": -np.log(softmax(LOGITS)[np.arange(3), CORRECT]),
    "logit_diff": LOGITS[np.arange(3), ANSWER] - LOGITS[np.arange(3), DISTRACTOR],
    "logit": LOGITS[np.arange(3), CORRECT],
    "kl": (softmax(CLEAN) * np.log(softmax(CLEAN) / softmax(LOGITS))).sum(-1),
    "accuracy": np.array([1.0, 0.0, 0.0]),
    "prob": softmax(LOGITS)[np.arange(3), CORRECT],
    "label": LOGITS[np.arange(3), CORRECT],
    "embedding": 1 - (LOGITS * CLEAN).sum(-1) / np.linalg.norm(LOGITS, axis=-1) / np.linalg.norm(CLEAN, axis=-1),
}


EXPECTED |= {name: -EXPECTED["loss"] for name in METRICS if name.startswith("choice")}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_equals_numpy(name, read):
    np.testing.assert_allclose(METRICS[name].compute(read).numpy(), EXPECTED[name], atol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_says_whether_it_reads_the_clean_run_and_is_a_distance_from_it(name, read):
    metric, (logits, clean) = METRICS[name], (read.logits, read.clean)
    assert metric.distance == (name in ("kl", "embedding"))
    read.logits = clean
    at_clean = metric.compute(read)
    assert bool((at_clean.abs() < 1e-6).all()) == metric.distance
    read.logits, read.clean = logits, None
    if metric.reads_clean:
        with pytest.raises(AssertionError):
            metric.compute(read)
    else:
        metric.compute(read)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_says_whether_it_is_linear_in_the_logits(name, read):
    metric, logits, step = METRICS[name], read.logits, torch.zeros_like(read.logits)
    step[torch.arange(3), read.correct] = 3.0  # the right token comes to be the largest
    values = []
    for times in (0, 1, 2):
        read = Readout(logits + times * step, read.clean, read.correct, read.answer, read.distractor)
        values.append(metric.compute(read))
    second = (values[2] - 2 * values[1] + values[0]).abs().max()
    assert metric.linear == bool(second < 1e-5)


def test_kl_to_itself_is_exactly_zero(read):
    read.logits = read.clean
    assert METRICS["kl"].compute(read).tolist() == [0, 0, 0]


def test_a_prompt_is_the_mean_of_its_own_targets():
    index = torch.tensor([0, 0, 1])
    targets = Targets(index, index, index, index, index, index, count=torch.tensor([2, 1]))
    assert targets.mean_by_prompt(torch.tensor([[1.0, 3.0, 10.0]])).tolist() == [[2.0, 10.0]]
    parts = [targets.take([0, 2]), targets.take([1])]
    given = [
        part.mean_by_prompt(value) for part, value in zip(parts, torch.tensor([1.0, 10, 3]).split([2, 1]), strict=True)
    ]
    assert sum(given).tolist() == [2.0, 10.0]


def test_auto_takes_what_the_prompts_allow(tiny):
    model = tiny()
    assert choose(["auto"], harness.load_prompts("ioi", model, n=2)) == (METRICS["loss"], METRICS["logit_diff"])
    assert choose(["auto"], harness.load_prompts("induction", model, n=2)) == (METRICS["loss"],)


def test_a_metric_that_needs_an_answer_is_refused_without_one(tiny):
    prompts = harness.load_prompts("inline", tiny(), text=["When we went to the store"])
    with pytest.raises(
        RequestError, match=r"metrics=logit_diff: it needs prompts with answer.*possible here: loss, logit, kl"
    ):
        choose(["logit_diff"], prompts)


def test_an_unknown_metric_is_refused_with_the_nearest(tiny):
    prompts = harness.load_prompts("ioi", tiny(), n=1)
    with pytest.raises(RequestError, match="metrics=los: did you mean 'loss'"):
        choose(["los"], prompts)


def test_every_built_in_metric_has_a_name_in_words_and_a_function_keeps_its_own():
    titles = {name: title(name) for name in METRICS}
    assert titles["logit_diff"] == "logit difference"
    assert titles["kl"] == "KL divergence"
    assert all(titles.values())
    assert all("_" not in each for each in titles.values())
    assert all(metric.subject for metric in METRICS.values())
    assert title("rank_of_answer") == "rank_of_answer"
