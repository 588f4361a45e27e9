"""Task sets: questions with choices, made from templates with a seed; words and facts come from no corpus.

One file per family of tasks: its cells (every combination of frame and factors) and how a cell's question is written.
`task` has what they share. All of it is text: neither a tokenizer nor a model is used.
"""

import numpy as np

from harness.config import RequestError, near
from harness.prompts.tasks.agreement import agreement, reflexive
from harness.prompts.tasks.arithmetic import arithmetic
from harness.prompts.tasks.copying import copy_name
from harness.prompts.tasks.facts import capitals, facts
from harness.prompts.tasks.needle import needle
from harness.prompts.tasks.npi import npi
from harness.prompts.tasks.task import Item as Item
from harness.prompts.tasks.task import Task as Task

#: Tasks by name.
TASKS: dict[str, Task] = {
    "agreement": agreement,
    "reflexive": reflexive,
    "npi": npi,
    "capitals": capitals,
    "facts": facts,
    "arithmetic": arithmetic,
    "copy_name": copy_name,
    "needle": needle,
}


def make_items(name: str, n: int = 100, seed: int = 0, length: int | None = None) -> list[Item]:
    """Make `n` different items of a task, the same ones for the same `n`, `seed` and `length`.

    Frames and levels of the task's factors are as even as `n` allows, and each place of the right choice is as frequent
    as the others. `length` is the number of words of filler, for the task that has filler (`needle`: 150 by default).

    Raises `RequestError` for a task that is not known, for more items than the task has cells, and for a length that is
    out of bounds or that the task does not read.

    >>> from harness.prompts.tasks import make_items
    >>> item = make_items("agreement", n=4, seed=1)[0]
    >>> sorted(item.choices), sorted(item.tags)
    (['are', 'is'], ['attractor', 'structure', 'subject', 'verb'])
    """
    if name not in TASKS:
        raise RequestError("prompts.task", name, near(name, list(TASKS)))
    task = TASKS[name]
    most = len(task.design())
    if not 1 <= n <= most:
        raise RequestError("prompts.n", n, f"{name} has 1 to {most} different items")
    return task.make(n, np.random.default_rng(seed), _length(name, task, length))


def _length(name: str, task: Task, length: int | None) -> int:
    """Return the words of filler: the task's own number unless one is set; 0 where it has no filler."""
    if task.length is None:
        if length is not None:
            readers = ", ".join(name for name, task in TASKS.items() if task.length)
            raise RequestError("prompts.length", length, f"{name} has no filler; leave it out, or use {readers}")
        return 0
    if length is None:
        return task.length.default
    if not task.length.least <= length <= task.length.most:
        limits = f"{task.length.least} to {task.length.most}"
        raise RequestError("prompts.length", length, f"{name} takes {limits} words of filler")
    return length
