"""Questions, each answered from a saved run in a sentence with its interval.

One question to a file: a function from the run to a `Finding`. To add one: that file, its line in `QUESTIONS`, and a
preset in ``conf/experiment`` with ``question: NAME``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.config import RequestError, near
from harness.findings import Finding
from harness.findings.questions.bias import bias
from harness.findings.questions.edges import edges
from harness.findings.questions.induction import induction
from harness.findings.questions.ioi import ioi
from harness.findings.questions.layers import layers
from harness.findings.questions.long_sentence import long_sentence
from harness.findings.questions.lost import lost
from harness.findings.questions.masked_vs_causal import masked_vs_causal
from harness.findings.questions.mean_vs_head import mean_vs_head
from harness.findings.questions.patching_maps import patching_maps
from harness.findings.questions.prune import prune
from harness.findings.questions.qkv import qkv
from harness.findings.questions.quick import quick
from harness.findings.questions.rag import rag
from harness.findings.questions.rollout import rollout
from harness.findings.questions.sinks import sinks
from harness.findings.questions.subwords import subwords
from harness.findings.questions.syntax import syntax
from harness.findings.questions.word_order import word_order

if TYPE_CHECKING:
    from harness.results import Run


@dataclass(frozen=True)
class Question:
    """The text of a question, the parts of a study (`harness.study.request.PARTS`) it needs, and its answer."""

    asks: str
    needs: tuple[str, ...]
    answer: Callable[["Run"], Finding]


QUESTIONS: dict[str, Question] = {
    "subwords": Question("How does attention spread over the pieces of a split word?", ("patterns",), subwords),
    "long_sentence": Question("Which heads reach far as the sentence grows?", ("patterns",), long_sentence),
    "word_order": Question("Which heads change when words are swapped?", ("patterns",), word_order),
    "masked_vs_causal": Question("What does attention to later tokens change?", ("patterns",), masked_vs_causal),
    "mean_vs_head": Question("What does the mean over heads hide?", ("patterns",), mean_vs_head),
    "rollout": Question(
        "Does rollout agree better with the cause than the mean of attention?",
        ("patterns", "rollout", "attribution"),
        rollout,
    ),
    "syntax": Question("Which heads follow a syntactic relation?", ("patterns", "roles"), syntax),
    "qkv": Question("How does a head come from scores to what it writes?", ("patterns",), qkv),
    "layers": Question("In which layer do words attend to each other?", ("patterns",), layers),
    "sinks": Question("What is the attention on a sink worth?", ("patterns", "attribution"), sinks),
    "induction": Question(
        "Do the heads that look like induction heads matter?", ("patterns", "sweep", "roles"), induction
    ),
    "ioi": Question("Which head moves the name?", ("patterns", "sweep", "rollout"), ioi),
    "quick": Question("Which heads stand out at a quick look?", ("patterns", "sweep", "rollout"), quick),
    "prune": Question("How many heads can go?", ("sweep",), prune),
    "lost": Question("What can the model no longer do without these heads?", ("sweep",), lost),
    "edges": Question("Which heads feed which later heads and MLPs?", ("sweep",), edges),
    "patching_maps": Question("In which layer, at which token is the answer?", ("sweep",), patching_maps),
    "bias": Question("Which kind of word does the prediction depend on?", ("trace",), bias),
    "rag": Question("Which document did the answer use?", ("trace",), rag),
}


def known(name: str) -> Question:
    """Return the question of this name. Raises `RequestError` for an unknown one."""
    if name not in QUESTIONS:
        raise RequestError("question", name, near(name, tuple(QUESTIONS)))
    return QUESTIONS[name]


def question_of(run: "Run") -> Question | None:
    """Return the question of the run's spec, if it has a known one."""
    return QUESTIONS.get(str(run.spec.get("question")))
