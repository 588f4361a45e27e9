"""Copying a name from a list: "Anna, Ben, Clara, David came. Once more: Anna, Ben," is followed by "Clara"."""

from itertools import product

import numpy as np

from harness.prompts.tasks.task import Cell, Question, Task, some, task_data
from harness.words import ioi_data

#: Places of the copied name: each has a name before it, which the second list repeats.
PLACES = ("second", "third", "fourth")
#: Lists for each frame and place, whose names are drawn.
REPETITIONS = 10


def cells() -> list[Cell]:
    """Return frame × separator × place of the copied name, some times each."""
    data = task_data("copying")
    return [
        Cell(f"{frame}, {separator}", {"separator": separator, "place": place}, data["frames"][frame])
        for frame, separator, place, _ in product(data["frames"], data["separators"], PLACES, range(REPETITIONS))
    ]


def write(cell: Cell, rng: np.random.Generator, length: int) -> Question:
    """Draw four people, list them, and list them again up to the copied name; the choices are the four."""
    first, again = cell.parts
    between, ending = task_data("copying")["separators"][cell.tags["separator"]]
    names = some(rng, ioi_data()["names"], 1 + len(PLACES))
    place = 1 + PLACES.index(cell.tags["place"])
    repeated = between.join(names[:place]) + between.rstrip()
    return Question(first.format(names=between.join(names)) + ending + again + repeated, names.pop(place), tuple(names))


copy_name = Task(
    "copying a name from a list",
    "go on with a list of four names that is repeated",
    1 / 4,
    cells,
    write,
)
