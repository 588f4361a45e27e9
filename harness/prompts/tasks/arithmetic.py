"""One-step arithmetic: "3 + 4 =" is followed by "7"; in digits and in words.

The right number is the smallest, second, third or largest of the four choices equally often, so that its rank among
them tells nothing.
"""

from itertools import product

import numpy as np

from harness.prompts.tasks.task import Cell, Question, Task, task_data

#: Questions for each template, size and rank: fewer than there are pairs of numbers.
REPETITIONS = 5
#: The largest distance of a wrong choice.
FAR = 9
#: First and last of what each number is drawn from; of a subtraction the result and what is taken away. Results are 3
#: to 90, so that three choices fit below and above, and each can be spelled.
RANGES = {
    ("addition", "small"): ((2, 9), (2, 9)),
    ("addition", "large"): ((11, 40), (11, 40)),
    ("subtraction", "small"): ((3, 9), (2, 9)),
    ("subtraction", "large"): ((11, 40), (11, 40)),
    ("multiplication", "small"): ((2, 9), (2, 9)),
    ("multiplication", "large"): ((10, 15), (2, 6)),
}


def cells() -> list[Cell]:
    """Return template × size of the numbers × rank of the right number among the choices, some times each."""
    return [
        Cell(template, {"operation": operation, "written": _written(template), "size": size, "rank": str(rank)})
        for operation, templates in task_data("arithmetic")["templates"].items()
        for template, size, rank, _ in product(templates, ("small", "large"), range(4), range(REPETITIONS))
    ]


def write(cell: Cell, rng: np.random.Generator, length: int) -> Question:
    """Draw two numbers; the wrong choices are at most nine away from the result."""
    a, b, right = _numbers(cell.tags["operation"], cell.tags["size"], rng)
    rank = int(cell.tags["rank"])
    below = 1 + rng.permutation(min(right, FAR))[:rank]
    above = 1 + rng.permutation(FAR)[: 3 - rank]
    name = spell if cell.tags["written"] == "words" else str
    wrong = [name(right - int(by)) for by in below] + [name(right + int(by)) for by in above]
    return Question(cell.cluster.format(a=a, b=b, A=spell(a), B=spell(b)), name(right), tuple(wrong))


def spell(number: int) -> str:
    """Return a number from 0 to 99 in words."""
    data = task_data("arithmetic")
    if number < 20:
        return data["small"][number]
    ten, one = divmod(number, 10)
    return data["tens"][ten - 2] + (f"-{data['small'][one]}" if one else "")


def _written(template: str) -> str:
    return "words" if "{A}" in template else "digits"


def _numbers(operation: str, size: str, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw the two numbers of a question; return them with the result."""
    first, second = (int(rng.integers(low, high, endpoint=True)) for low, high in RANGES[operation, size])
    if operation == "subtraction":
        return first + second, second, first
    return first, second, first + second if operation == "addition" else first * second


arithmetic = Task("one-step arithmetic", "add, subtract or multiply two numbers", 1 / 4, cells, write)
