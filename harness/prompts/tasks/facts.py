"""Facts that a model has from training: capitals, and common facts of ten relations."""

from itertools import product

import numpy as np

from harness.prompts.tasks.task import Cell, Question, Task, some, task_data


def capital_cells() -> list[Cell]:
    """Return country × template."""
    data = task_data("capitals")
    return [
        Cell(country, {"continent": continent, "template": str(number)}, template.format(country))
        for continent, countries in data["capitals"].items()
        for country, (number, template) in product(countries, enumerate(data["templates"]))
    ]


def write_capital(cell: Cell, rng: np.random.Generator, length: int) -> Question:
    """Write the question; of the three wrong capitals one is of the same continent, the others are of two others."""
    continents = {name: list(countries.values()) for name, countries in task_data("capitals")["capitals"].items()}
    here = continents.pop(cell.tags["continent"])
    right = task_data("capitals")["capitals"][cell.tags["continent"]][cell.cluster]
    near = some(rng, [capital for capital in here if capital != right], 1)
    far = [some(rng, continents[name], 1)[0] for name in some(rng, list(continents), 2)]
    return Question(cell.parts, right, (*near, *far))


def fact_cells() -> list[Cell]:
    """Return fact × template, in each relation."""
    return [
        Cell(
            f"{relation}: {subject}", {"relation": relation, "template": str(number)}, (template.format(subject), right)
        )
        for relation, data in task_data("facts").items()
        for (subject, right), (number, template) in product(data["facts"].items(), enumerate(data["templates"]))
    ]


def write_fact(cell: Cell, rng: np.random.Generator, length: int) -> Question:
    """Write the question; the wrong choices are right for other subjects of the relation."""
    context, right = cell.parts
    answers = dict.fromkeys(task_data("facts")[cell.tags["relation"]]["facts"].values())
    others = [other for other in answers if other != right and other not in context]
    return Question(context, right, tuple(some(rng, others, 3)))


capitals = Task("capitals", "recall the capital of a country", 1 / 4, capital_cells, write_capital)
facts = Task(
    "common facts",
    "recall a common fact: an opposite, a color, a sound, a number of legs",
    1 / 4,
    fact_cells,
    write_fact,
)
