"""Agreement with a subject or antecedent across an attractor: "The key to the cabinets" is followed by "is".

Subject-verb agreement after Linzen, Dupoux and Goldberg 2016 (arXiv:1611.01368), reflexive agreement after Marvin and
Linzen 2018 (arXiv:1808.09031). Number, attractor and verb are crossed, so that each choice is right as often as wrong.
"""

import re
from itertools import product
from typing import Any

import numpy as np

from harness.prompts.tasks.task import Cell, Question, Task, task_data

#: Pronouns of the three kinds of antecedent.
REFLEXIVES = {"masculine": "himself", "feminine": "herself", "plural": "themselves"}
#: Pairs of kinds that a reflexive question contrasts.
CONTRASTS = {"gender": ("masculine", "feminine"), "number": ("masculine", "plural"), "both": ("feminine", "plural")}


def verb_cells() -> list[Cell]:
    """Return frame × verb × number of the subject × whether the attractor has the same number."""
    data = task_data("agreement")
    return [
        Cell(frame, {"structure": structure, "verb": verbs[0], "subject": subject, "attractor": attractor}, verbs)
        for structure, frames in data["frames"].items()
        for frame, verbs in product(frames, data["verbs"])
        for subject, attractor in product(("singular", "plural"), ("match", "mismatch"))
    ]


def write_verb(cell: Cell, rng: np.random.Generator, length: int) -> Question:
    """Write the subject with its attractor; the choices are the two forms of a verb."""
    plurals = task_data("agreement")["plurals"]
    subject = cell.tags["subject"] == "plural"
    other = subject == (cell.tags["attractor"] == "match")
    right, wrong = reversed(cell.parts) if subject else cell.parts
    forms = [
        _plural(noun, plurals) if many else noun for noun, many in zip(_nouns(cell), (subject, other), strict=True)
    ]
    return Question(_filled(cell, forms), right, (wrong,))


def reflexive_cells() -> list[Cell]:
    """Return frame × contrast × which of its two the antecedent is × whether the attractor is the same.

    A "mismatch" differs in gender, in number or in both.
    """
    return [
        Cell(
            frame,
            {"structure": structure, "contrast": contrast, "antecedent": kinds[0], "attractor": attractor},
            kinds if attractor == "mismatch" else (kinds[0], kinds[0], kinds[1]),
        )
        for structure, frames in task_data("reflexive")["frames"].items()
        for frame, (contrast, both) in product(frames, CONTRASTS.items())
        for kinds, attractor in product((both, both[::-1]), ("match", "mismatch"))
    ]


def write_reflexive(cell: Cell, rng: np.random.Generator, length: int) -> Question:
    """Write antecedent, attractor and verb; the choices are the reflexives of the two kinds that are contrasted."""
    antecedent, attractor, *_ = cell.parts
    forms = [_person(noun, kind) for noun, kind in zip(_nouns(cell), (antecedent, attractor), strict=True)]
    return Question(_filled(cell, forms), REFLEXIVES[antecedent], (REFLEXIVES[cell.parts[-1]],))


def _nouns(cell: Cell) -> list[str]:
    return re.findall(r"{(\w+)}", cell.cluster)


def _filled(cell: Cell, forms: list[str]) -> str:
    """Put a form in the place of each noun of the frame."""
    return re.sub(r"{\w+}", "{}", cell.cluster).format(*forms)


def _plural(noun: str, irregular: dict[str, str]) -> str:
    return irregular.get(noun, f"{noun}s")


def _person(noun: str, kind: str) -> str:
    """Return the form of a masculine noun for a kind of antecedent."""
    data: dict[str, Any] = task_data("reflexive")
    if kind == "plural":
        return _plural(noun, data["plurals"])
    return data["feminine"][noun] if kind == "feminine" else noun


agreement = Task(
    "subject–verb agreement with attractors",
    "choose the form of the verb that agrees with the subject, and not with the noun beside it",
    1 / 2,
    verb_cells,
    write_verb,
)
reflexive = Task(
    "reflexive agreement",
    "choose the reflexive that agrees with its antecedent, and not with the noun beside it",
    1 / 2,
    reflexive_cells,
    write_reflexive,
)
