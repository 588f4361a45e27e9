"""Negative polarity: "No student has ever failed the test" beside "One student has ever failed the test".

Minimal pairs of whole sentences, with an empty context: they differ in what licenses the negative polarity item, in one
word, or in the order of words where the licensor stands inside a relative clause (after Jumelet and Hupkes 2018,
arXiv:1808.10627, and BLiMP, arXiv:1912.00582; all sentences are written here).
"""

from itertools import product

import numpy as np

from harness.prompts.tasks.task import Cell, Question, Task, task_data

#: For each licensor, the right and the wrong sentence of a subject, its plural, a relative clause and a predicate.
LICENSORS = {
    "no": ("No {one} has {rest}.", "One {one} has {rest}."),
    "none": ("None of the {many} have {rest}.", "Some of the {many} have {rest}."),
    "few": ("Few {many} have {rest}.", "All {many} have {rest}."),
    "not": ("The {one} has not {rest}.", "The {one} has now {rest}."),
    "scope": ("No {one} that the {clause} has {rest}.", "The {one} that no {clause} has {rest}."),
}


def cells() -> list[Cell]:
    """Return frame × licensor; each frame has one negative polarity item."""
    return [
        Cell(f"{frame[0]} … {frame[2]}", {"item": item, "licensor": licensor}, frame)
        for item, frames in task_data("npi")["frames"].items()
        for frame, licensor in product(frames, LICENSORS)
    ]


def write(cell: Cell, rng: np.random.Generator, length: int) -> Question:
    """Write the sentence with its licensor and the one without."""
    one, clause, rest = cell.parts
    many = task_data("npi")["plurals"].get(one, f"{one}s")
    right, wrong = (
        text.format(one=one, many=many, clause=clause, rest=rest) for text in LICENSORS[cell.tags["licensor"]]
    )
    return Question("", right, (wrong,))


npi = Task(
    "negative polarity",
    "prefer the sentence in which ever, any, yet or at all is licensed by a negation",
    1 / 2,
    cells,
    write,
)
