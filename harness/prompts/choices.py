"""Completions of the items of a choice, padded: a row for each, whose log-probabilities are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from harness.models import Model
from harness.prompts.padding import Prompts, pad
from harness.prompts.prompt import Prompt


@dataclass(frozen=True)
class Choices:
    """The completions of the items of a choice: a row for each, in the order of the items.

    `rows` are prompts with the completion's tokens scored, `owner` is the item of each, `right` whether it is the right
    one, `text` the completion, `n_bytes` its length in UTF-8; `merges` marks completions that the tokenizer would merge
    with the context's last token.
    """

    rows: Prompts
    owner: Int[np.ndarray, " row"]
    right: Bool[np.ndarray, " row"]
    text: tuple[str, ...]
    merges: Bool[np.ndarray, " row"]

    @classmethod
    def of(cls, name: str, made: Sequence[Prompt], model: Model) -> "Choices":
        """Pad the completions of some items. Raises `RequestError` as `pad` does."""
        rows = [choice for item in made for choice in item.choices]
        known = [row.completion for row in rows if row.completion is not None]
        return cls(
            rows=pad(name, rows, model),
            owner=np.repeat(np.arange(len(made)), [len(item.choices) for item in made]),
            right=np.array([each.right for each in known]),
            text=tuple(each.text for each in known),
            merges=np.array([each.merges for each in known]),
        )

    @property
    def n_bytes(self) -> Int[np.ndarray, " row"]:
        return np.array([len(text.encode()) for text in self.text])

    @property
    def number(self) -> Int[np.ndarray, " row"]:
        """The number of each row among those of its item."""
        return np.arange(len(self.owner)) - np.searchsorted(self.owner, self.owner)

    def take(self, items: Int[np.ndarray, " item"]) -> "Choices":
        """Return the completions of these items."""
        chosen = [np.flatnonzero(self.owner == item) for item in items]
        rows = np.concatenate(chosen)
        return Choices(
            rows=self.rows.take(rows),
            owner=np.repeat(np.arange(len(chosen)), [len(each) for each in chosen]),
            right=self.right[rows],
            text=tuple(self.text[row] for row in rows),
            merges=self.merges[rows],
        )

    def variables(self) -> dict[str, Any]:
        """Return the texts of all completions and which is right, as arrays of a dataset."""
        text = np.full((int(self.owner.max()) + 1, int(self.number.max()) + 1), "", dtype=np.dtypes.StringDType())
        text[self.owner, self.number] = self.text
        return {
            "choice_text": (("prompt", "choice"), text),
            "right_choice": (("prompt",), self.number[self.right]),
        }


def pad_items(name: str, made: Sequence[Prompt], model: Model) -> Prompts:
    """Pad items of a choice: each is the prompt with its right completion, and has the rows of all."""
    return replace(pad(name, made, model), choices=Choices.of(name, made, model))
