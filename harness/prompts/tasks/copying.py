"""Copying a name from a list: "Anna has the key. Ben has the map. … The map belongs to" is followed by "Ben"."""

from itertools import product

import numpy as np

from harness.prompts.tasks.task import Cell, Question, Task, some, task_data
from harness.words import ioi_data

PLACES = ("first", "second", "third", "fourth")
#: Lists for each frame and place; names and things are drawn.
REPETITIONS = 8


def cells() -> list[Cell]:
    """Return relation × style × place of the right person in the list, some times each."""
    data = task_data("copying")
    return [
        Cell(f"{relation}, {style}", {"style": style, "place": place}, data["relations"][relation])
        for relation, style, place, _ in product(data["relations"], data["styles"], PLACES, range(REPETITIONS))
    ]


def write(cell: Cell, rng: np.random.Generator, length: int) -> Question:
    """Draw four people and four things; the choices are the four people."""
    statement, ending, things = cell.parts
    before, between, last, after = task_data("copying")["styles"][cell.tags["style"]]
    names = some(rng, ioi_data()["names"], len(PLACES))
    held = some(rng, things, len(PLACES))
    *all_but_one, one = (statement.format(name=name, thing=thing) for name, thing in zip(names, held, strict=True))
    place = PLACES.index(cell.tags["place"])
    context = before + between.join(all_but_one) + last + one + after + ending.format(thing=held[place])
    return Question(context, names.pop(place), tuple(names))


copy_name = Task(
    "copying a name from a list",
    "find who in a list of four people has the thing that is named again",
    1 / 4,
    cells,
    write,
)
