"""A needle in filler text: a sentence among many others, whose last word must be found again.

The wrong choices are the last words of three other needles (`others` is "in the text"), or stand nowhere ("absent").
"""

from itertools import product

import numpy as np

from harness.prompts.tasks.task import Cell, Length, Question, Task, some, task_data

DEPTHS = ("first third", "middle third", "last third")
#: Texts for each frame, depth and kind of wrong choice; the fillers are drawn.
REPETITIONS = 5


def cells() -> list[Cell]:
    """Return kind of needle × kind of filler × third in which the needle stands × other needles, some times each."""
    data = task_data("needle")
    return [
        Cell(f"{needle} in the {filler}", {"depth": depth, "others": others}, (needle, filler))
        for needle, filler, depth, others, _ in product(
            data["needles"], data["fillers"], DEPTHS, ("absent", "in the text"), range(REPETITIONS)
        )
    ]


def write(cell: Cell, rng: np.random.Generator, length: int) -> Question:
    """Write filler of at most `length` words with the needle in its third, and its beginning again at the end."""
    needle, filler = cell.parts
    stem, kind, which = task_data("needle")["needles"][needle]
    stems = [stem.format(word) for word in some(rng, which, 4)]
    right, *wrong = _values(kind, rng)
    text = _filler(task_data("needle")["fillers"][filler], length, rng)
    if cell.tags["others"] == "in the text":
        for other, value in zip(stems[1:], wrong, strict=True):
            text.insert(int(rng.integers(len(text) + 1)), f"{other} {value}.")
    depth = (DEPTHS.index(cell.tags["depth"]) + rng.random()) / len(DEPTHS)
    text.insert(int(depth * (len(text) + 1)), f"{stems[0]} {right}.")
    return Question(" ".join([*text, stems[0]]), right, tuple(wrong))


def _values(kind: str, rng: np.random.Generator) -> list[str]:
    """Draw four different last words: numbers of four digits, or words."""
    if kind == "number":
        return [str(1000 + int(number)) for number in rng.choice(9000, 4, replace=False)]
    return some(rng, task_data("needle")[f"{kind}s"], 4)


def _filler(parts: dict[str, list[str]], length: int, rng: np.random.Generator) -> list[str]:
    """Draw different sentences, each if it still fits into `length` words."""
    every = [f"{who} {did} {where}." for who, did, where in product(parts["who"], parts["did"], parts["where"])]
    sentences: list[str] = []
    for sentence in some(rng, every, len(every)):
        words = len(sentence.split())
        if words <= length:
            sentences.append(sentence)
            length -= words
    return sentences


needle = Task(
    "a needle in filler text",
    "find again what one sentence among unrelated ones states",
    1 / 4,
    cells,
    write,
    Length(default=150, least=20, most=1500),
)
