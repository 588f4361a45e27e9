"""Tasks and their items: questions with choices, one of which is right, drawn from a balanced design."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import yaml


@dataclass(frozen=True)
class Item:
    """A question with its choices: the model's choice is the most probable one after the context.

    A blank stands between context and choice; where the context is empty the choices are whole sentences.
    """

    context: str
    """Text before the choice, without a blank at its end."""
    choices: tuple[str, ...]
    """Different texts, without a blank at their beginning, in random order."""
    answer: int
    """Index of the right choice, from 0."""
    cluster: str
    """Frame of the item: items that share it are variants of one another, and are resampled together."""
    tags: Mapping[str, str]
    """Level of each factor of the task's design; the same factors in all items of a task."""


@dataclass(frozen=True)
class Question:
    """A context, its right choice and its wrong ones, before the choices are put in order."""

    context: str
    right: str
    wrong: tuple[str, ...]

    @property
    def key(self) -> tuple[str, frozenset[str]]:
        """What no two questions of a set share."""
        return self.context, frozenset((self.right, *self.wrong))


@dataclass(frozen=True)
class Cell:
    """One combination of a task's factors in one frame, and the parts of which its question is written."""

    cluster: str
    tags: Mapping[str, str]
    parts: Any = None


@dataclass(frozen=True)
class Length:
    """Words of filler that a task takes: what it has by default, the fewest and the most."""

    default: int
    least: int
    most: int


@dataclass(frozen=True)
class Task:
    """A set of questions of one kind, made from templates: `design` has its cells, `write` makes a cell's question."""

    title: str
    """Name in words."""
    asks: str
    """What a model must do to choose right."""
    chance: float
    """Share of right choices of a model that guesses."""
    design: Callable[[], Sequence[Cell]]
    """Every cell: the most items that the task has."""
    write: Callable[[Cell, np.random.Generator, int], Question]
    """Write the question of a cell, with so many words of filler; what a cell leaves open is drawn."""
    length: Length | None = None
    """Words of filler; None where the task has no filler."""

    def make(self, n: int, rng: np.random.Generator, length: int = 0) -> list[Item]:
        """Make `n` different items, at most one for each cell of the design."""
        questions: dict[tuple[str, frozenset[str]], tuple[Question, Cell]] = {}
        for cell in _balanced(self.design(), n, rng):
            question = self.write(cell, rng, length)
            while question.key in questions:  # where cells are alike, and their parts are drawn
                question = self.write(cell, rng, length)
            questions[question.key] = question, cell
        places = rng.permutation(n)
        return [
            _arranged(question, cell, int(place) % (1 + len(question.wrong)), rng)
            for (question, cell), place in zip(questions.values(), places, strict=True)
        ]


def _arranged(question: Question, cell: Cell, place: int, rng: np.random.Generator) -> Item:
    """Put the right choice at `place` and the wrong ones around it in random order."""
    choices = [question.wrong[at] for at in rng.permutation(len(question.wrong))]
    choices.insert(place, question.right)
    return Item(question.context, tuple(choices), place, cell.cluster, cell.tags)


def _balanced(cells: Sequence[Cell], n: int, rng: np.random.Generator) -> list[Cell]:
    """Draw `n` cells without replacement so that frames, levels of factors and pairs of these are as even as can be.

    Each draw takes, of all cells in random order, the first whose levels and pairs of levels were drawn least.
    """
    cells = [cells[at] for at in rng.permutation(len(cells))]
    columns = zip(*((cell.cluster, *cell.tags.values()) for cell in cells), strict=True)
    codes = [np.unique(column, return_inverse=True)[1] for column in columns]
    pairs = [one * len(cells) + other for one, other in combinations_with_replacement(codes, 2)]
    times_drawn, drawn = np.zeros(len(cells)), []
    for _ in range(n):
        at = int(times_drawn.argmin())
        drawn.append(cells[at])
        times_drawn += sum((pair == pair[at]).astype(int) for pair in pairs)
        times_drawn[at] = np.inf
    return drawn


def some(rng: np.random.Generator, options: Sequence[str], n: int) -> list[str]:
    """Draw `n` different options."""
    return [options[int(at)] for at in rng.permutation(len(options))[:n]]


@cache
def task_data(name: str) -> dict[str, Any]:
    """Load the words and templates of a task."""
    return yaml.safe_load(files("harness").joinpath(f"data/tasks/{name}.yaml").read_text(encoding="utf-8"))
