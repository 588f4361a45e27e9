"""Metrics: from logits to one number per prompt.

The scored positions of all rows ("targets") are concatenated, so prompts may score different numbers of positions. A
metric gives one value per target; its value on a prompt is the mean over the prompt's targets. To add one, write a
function of a `harness.prompts.targets.Readout` and name it in `METRICS`, or pass the function itself as a metric.

>>> import harness
>>> harness.metrics.METRICS["loss"].units
'nats per target token'
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Literal, get_args

from jaxtyping import Float

from harness.config import RequestError, near

if TYPE_CHECKING:
    from torch import Tensor

    from harness.prompts import Prompts
    from harness.prompts.targets import Readout, Targets
else:  # torch takes seconds to import, and the names of the metrics do not need it
    Tensor = Readout = Targets = Any

Need = Literal["answer", "distractor", "choices"]
Per = Literal["sum", "token", "byte"]
Output = Literal["distribution", "labels", "vector"]
#: Outputs that a metric can read, by kind of model; all others give a distribution over a vocabulary.
_GIVES: dict[str, tuple[Output, ...]] = {"embedding": ("vector",), "classifier": ("distribution", "labels")}
_GIVER: dict[Output, str] = {
    "distribution": "a model with a vocabulary",
    "labels": "a classifier",
    "vector": "a model that gives one vector per text",
}


Function = Callable[[Readout], Float[Tensor, " target"]]
#: From one value per target to one per prompt.
Reduction = Callable[[Float[Tensor, "*rows target"], Targets], Float[Tensor, "*rows prompt"]]


@dataclass(frozen=True)
class Meaning:
    """How to read a metric: its unit, its better direction (`None`: unknown), and whether it is a distance from the
    clean run, which is never negative."""

    units: str
    higher_is_better: bool | None
    distance: bool = False


@dataclass(frozen=True)
class Metric:
    """One number per prompt: its name in the arrays, its function, unit and better direction, and what prompts need.

    `distance` marks a distance from the clean run, which is never negative; `reads_clean` a metric that reads the clean
    logits; `linear` one that is linear in the logits. `of` is the output it reads: a distribution (over a vocabulary,
    or over labels), one over labels, or one vector per text. `title` is its name in words, on an axis; `subject` starts
    a sentence on what moves. `reduce` makes one number per prompt of the values at its targets; by default their mean.
    """

    name: str
    compute: Function
    units: str
    higher_is_better: bool | None
    needs: tuple[Need, ...] = ()
    distance: bool = False
    of: Output = "distribution"
    reads_clean: bool = False
    linear: bool = False
    title: str = ""
    subject: str = ""
    reduce: Reduction | None = None

    @property
    def meaning(self) -> Meaning:
        return Meaning(self.units, self.higher_is_better, self.distance)


def loss(read: Readout) -> Float[Tensor, " target"]:
    """Negative log-probability of the right token, nats."""
    return -read.at(read.log_prob, read.correct)


def logit_diff(read: Readout) -> Float[Tensor, " target"]:
    """Logit of the answer minus logit of the distractor."""
    logits = read.logits.float()
    return read.at(logits, read.answer) - read.at(logits, read.distractor)


def logit(read: Readout) -> Float[Tensor, " target"]:
    """Logit of the right token."""
    return read.at(read.logits.float(), read.correct)


def kl(read: Readout) -> Float[Tensor, " target"]:
    """KL(clean ‖ ablated) of the next-token distributions, nats."""
    assert read.clean is not None
    clean = read.clean.float().log_softmax(dim=-1)
    return (clean.exp() * (clean - read.log_prob)).sum(dim=-1).clamp(min=0)


def accuracy(read: Readout) -> Float[Tensor, " target"]:
    """1 where the right token has the largest logit of all, else 0."""
    return (read.logits.argmax(dim=-1) == read.correct).float()


def prob(read: Readout) -> Float[Tensor, " target"]:
    """Probability of the right token."""
    return read.at(read.log_prob, read.correct).exp()


def label(read: Readout) -> Float[Tensor, " target"]:
    """Logit of the right label."""
    return logit(read)


def embedding(read: Readout) -> Float[Tensor, " target"]:
    """Cosine distance of the text's vector to its clean one: 1 − cos = ½‖u − v‖² of the unit vectors, from 0 to 2."""
    assert read.clean is not None
    unit, clean = (vector / vector.norm(dim=-1, keepdim=True) for vector in (read.logits.double(), read.clean.double()))
    return ((unit - clean) ** 2).sum(-1).div(2).float()


def log_prob(read: Readout) -> Float[Tensor, " target"]:
    """Log-probability of the right token, nats."""
    return -loss(read)


def choice_margin(
    value: Float[Tensor, "*rows target"], targets: Targets, per: Per = "sum"
) -> Float[Tensor, "*rows prompt"]:
    """Log-probability of the right completion minus that of the best wrong one, in nats, from that of each token.

    `per` divides each by its number of tokens or of UTF-8 bytes. 0 for prompts whose completions are in other batches.
    """
    of = targets.completions
    assert of is not None
    score = targets.sum_by_completion(value)
    score = score if per == "sum" else score / (of.n_tokens if per == "token" else of.n_bytes)
    best = score.new_full((*score.shape[:-1], targets.n_prompts), -inf)
    best = best.scatter_reduce(-1, of.prompt[~of.right].expand_as(score[..., ~of.right]), score[..., ~of.right], "amax")
    return score[..., of.right] - best


def choice_accuracy(
    value: Float[Tensor, "*rows target"], targets: Targets, per: Per = "sum"
) -> Float[Tensor, "*rows prompt"]:
    """1 where the right completion is more likely than every other, else 0."""
    return (choice_margin(value, targets, per) > 0).to(value.dtype)


def _choice_metrics() -> Iterator[Metric]:
    """Yield the metrics of a choice between completions, by sum, per token and per byte of their log-probabilities."""
    for per in get_args(Per):
        suffix, over = ("", "") if per == "sum" else (f"_per_{per}", f" per {per}")
        yield Metric(
            *(f"choice_margin{suffix}", log_prob, f"nats{over}"),
            higher_is_better=True,
            needs=("choices",),
            title=f"choice margin{over}",
            subject=f"the right choice’s lead{over}",
            reduce=partial(choice_margin, per=per),
        )
        yield Metric(
            *(f"choice_accuracy{suffix}", log_prob, "share of items"),
            higher_is_better=True,
            needs=("choices",),
            title=f"choice accuracy{over}",
            subject=f"the share of right choices{over}",
            reduce=partial(choice_accuracy, per=per),
        )


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("loss", loss, "nats per target token", higher_is_better=False, title="loss", subject="the loss"),
        Metric(
            *("logit_diff", logit_diff, "logits"),
            higher_is_better=True,
            needs=("answer", "distractor"),
            linear=True,
            title="logit difference",
            subject="the right answer’s lead",
        ),
        Metric(
            *("logit", logit, "logits"),
            higher_is_better=True,
            linear=True,
            title="logit of the right token",
            subject="the logit of the right token",
        ),
        Metric(
            *("kl", kl, "nats per target token"),
            higher_is_better=False,
            distance=True,
            reads_clean=True,
            title="KL divergence",
            subject="the prediction",
        ),
        Metric(
            *("accuracy", accuracy, "share of targets"), higher_is_better=True, title="accuracy", subject="accuracy"
        ),
        Metric(
            *("prob", prob, "probability"),
            higher_is_better=True,
            title="probability of the right token",
            subject="the probability of the right token",
        ),
        Metric(
            *("label", label, "logits"),
            higher_is_better=True,
            of="labels",
            linear=True,
            title="logit of the label",
            subject="the logit of the label",
        ),
        Metric(
            *("embedding", embedding, "cosine distance"),
            higher_is_better=False,
            distance=True,
            of="vector",
            reads_clean=True,
            title="embedding",
            subject="the embedding",
        ),
        *_choice_metrics(),
    )
}


#: The log-probability of a token, which the choice between completions is made of.
LOG_PROB = Metric("log_prob", log_prob, "nats", higher_is_better=True)


def title(name: str) -> str:
    """Return a metric's name in words, for axes and captions; that of a function as it is."""
    return METRICS[name].title if name in METRICS else name


def of_function(function: Function) -> Metric:
    """Return a function of a `Readout` as a metric with the function's name, unit and better direction unknown; it is
    no distance and may read the clean logits. The function gives one number per target, [target]; a function without a
    name is refused when it is used: `choose` raises `RequestError`.

    >>> import harness
    >>> def margin(read):
    ...     return read.at(read.logits, read.correct) - read.logits.amax(-1)
    >>> metric = harness.metrics.of_function(margin)
    >>> metric.name, metric.units, metric.higher_is_better
    ('margin', 'as the function gives', None)
    """
    name = getattr(function, "__name__", "")
    return Metric(name, function, "as the function gives", higher_is_better=None, reads_clean=True)


def leading(names: Sequence[str]) -> str:
    """Return the metric that is shown first and that orders heads: `logit_diff` if it is measured, else the first."""
    return "logit_diff" if "logit_diff" in names else names[0]


def lead(metrics: Sequence[Metric]) -> Metric:
    """Return the `leading` one of these metrics."""
    return next(metric for metric in metrics if metric.name == leading([each.name for each in metrics]))


def described(metrics: Iterable[Metric]) -> str:
    """Return the `Meaning` of each metric as JSON, for an array's attributes; `meaning` reads it."""
    return json.dumps({metric.name: asdict(metric.meaning) for metric in metrics})


def meaning(name: str, attrs: Mapping[str, Any]) -> Meaning:
    """Return how to read a metric, from its array's attributes or else from the built-in metric."""
    recorded = json.loads(attrs.get("metrics", "{}"))
    if name in recorded:
        return Meaning(**recorded[name])
    return METRICS[name].meaning if name in METRICS else Meaning("", None)


def choose(names: str | Function | Iterable[str | Function], prompts: "Prompts") -> tuple[Metric, ...]:
    """Return the metrics of a request, checked against the prompts and the model's kind.

    ``auto`` is `loss`, and `logit_diff` where it is possible; `label` too for a classifier, `embedding` alone for a
    model that gives one vector per text, and `choice_margin` and `choice_accuracy` for a choice between completions. A
    metric may also be a function of a `Readout` that gives one number for each target (`of_function`); it reads token 0
    where the prompts have no answer or distractor.

    Raises `RequestError` for an unknown metric, for one that the model or the prompts do not allow, and for a function
    that has no name or that of another metric.
    """
    wanted = (names,) if isinstance(names, str) or callable(names) else tuple(dict.fromkeys(names))
    possible = [name for name, metric in METRICS.items() if not _lacking(metric, prompts)]
    if wanted == ("auto",) and prompts.has_choices:
        return METRICS["choice_margin"], METRICS["choice_accuracy"]
    if wanted == ("auto",):
        return tuple(METRICS[name] for name in ("loss", "logit_diff", "label", "embedding") if name in possible)
    if not wanted:
        raise RequestError("metrics", "[]", near("", possible))
    metrics = tuple(_known(one) if isinstance(one, str) else of_function(one) for one in wanted)
    _check_functions([metric for metric, one in zip(metrics, wanted, strict=True) if not isinstance(one, str)])
    for metric in metrics:
        if lacking := _lacking(metric, prompts) if metric.name in METRICS else "":
            raise RequestError("metrics", metric.name, f"it needs {lacking}; possible here: {', '.join(possible)}")
    return metrics


def _known(name: str) -> Metric:
    if name not in METRICS:
        raise RequestError("metrics", name, near(name, tuple(METRICS)))
    return METRICS[name]


def check_names(names: Sequence[str]) -> None:
    """Raise `RequestError` for a name that no metric has, whatever the model and the prompts."""
    for name in names:
        if name not in (*METRICS, "auto"):
            raise RequestError("metrics", name, near(name, (*METRICS, "auto")))


def _lacking(metric: Metric, prompts: "Prompts") -> str:
    """Describe what a metric needs and does not get; empty if nothing."""
    if metric.of not in _GIVES.get(prompts.kind, ("distribution",)):
        return _GIVER[metric.of]
    missing = [need for need in metric.needs if not getattr(prompts, f"has_{need}")]
    return f"prompts with {missing[0]}, and {prompts.name} has none" if missing else ""


def _check_functions(metrics: Sequence[Metric]) -> None:
    """Raise `RequestError` for functions whose names are not identifiers or not unique."""
    taken = set(METRICS)
    for metric in metrics:
        if not metric.name.isidentifier():
            remedy = "a function is named by its __name__: write it with def"
            raise RequestError("metrics", metric.name or metric.compute, remedy)
        if metric.name in taken:
            raise RequestError(
                "metrics", metric.name, "this name is taken by another metric; give the function another"
            )
        taken.add(metric.name)
