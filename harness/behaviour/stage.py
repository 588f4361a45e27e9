"""The stage that writes: it continues prompts, clean and without each set of heads; one unit is a few prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from harness.behaviour.text_table import TextTable
from harness.behaviour.writer import Writer
from harness.config import RunSpec
from harness.execute import Part
from harness.execute.cost import Trial, at_most
from harness.hooks import Head
from harness.models import Model
from harness.models.generation import spelled
from harness.prompts import Prompts
from harness.sweep.interventions import named_sets, with_random
from harness.words import joined

Arrays = dict[str, np.ndarray]
#: Prompts of a unit, at most.
_TOGETHER = 8
_WRITERS = ["clean", "ablated"]


@dataclass(frozen=True)
class TextStage:
    """The stage that continues prompts without each of these sets of heads, an empty one of which is the clean model.

    `random` maps the name of a random set to that of the set beside which it was drawn. Raises `RequestError` for what
    the model cannot write, and for an ablation that these prompts do not allow.
    """

    writer: Writer
    sets: Mapping[str, tuple[Head, ...]]
    random: Mapping[str, str]
    singly: bool = False
    name: str = "texts"

    def __post_init__(self) -> None:
        self.writer.check_request([*self.sets.values()])

    @property
    def model(self) -> Model:
        return self.writer.model

    @property
    def prompts(self) -> Prompts:
        return self.writer.prompts

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        return {
            "batches": self.writer.batches(_TOGETHER),
            "sets": {name: [*map(str, heads)] for name, heads in self.sets.items()},
        }

    def cost(self, trial: Trial) -> str:
        texts = 1 + len(self.sets) + len(self._single)
        forwards = len(self.prompts) * texts * self.writer.max_new_tokens
        done = f"{texts} texts of {self.writer.max_new_tokens} tokens"
        return at_most(len(self.prompts), done, forwards, trial(self.model, self.prompts))

    @cached_property
    def _single(self) -> list[Head]:
        """The heads that are also ablated alone: those of the sets that were not drawn."""
        named = [heads for name, heads in self.sets.items() if name not in self.random]
        return [*dict.fromkeys(head for heads in named for head in heads)] if self.singly else []

    def compute(self, plan: Mapping[str, Any], unit: int) -> Arrays:
        """Write after the prompts of a unit; every array has the prompt first, then the set."""
        numbers, before = plan["batches"][unit], self.writer.check.fired
        texts = self.writer.write(numbers, [*self.sets.values(), *((head,) for head in self._single)])
        n = len(self.sets)
        arrays = {name: each if name == "clean" else each[:, :n] for name, each in vars(texts).items()}
        fired = np.array(self.writer.check.fired - before)
        return {**arrays, "single": texts.parts_at[:, n:], "number": np.array(numbers), "fired": fired}

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Join all units as labelled arrays, with the texts that the new tokens spell."""
        order = np.concatenate([unit["number"] for unit in units]).argsort()
        names = [name for name in units[0] if name not in ("fired", "number")]
        whole = {name: np.concatenate([unit[name] for unit in units])[order] for name in names}
        checks = {"edits_verified": sum(int(unit["fired"]) for unit in units), **self.model.inside}
        made: dict[str, Any] = {
            "clean_text": (("prompt",), _strings(self._spelled(whole["clean"]))),
            "ablated_text": (
                ("prompt", "set"),
                _strings([self._spelled(whole["ablated"][:, at]) for at in range(len(self.sets))], transpose=True),
                checks,
            ),
            "read_text": (("prompt",), _strings(self._read_texts)),
            "clean_new_id": (("prompt", "new_position"), whole["clean"]),
            "ablated_new_id": (("prompt", "set", "new_position"), whole["ablated"]),
            "parts_at": (("prompt", "set"), whole["parts_at"], {"units": "new tokens that are the same"}),
            "parting_token": (("prompt", "set", "writer"), _strings(self._parting_tokens(whole))),
            "parting_probability": (("prompt", "set", "writer", "reader"), whole["probability"].astype(np.float32)),
            "set_heads": (("set",), _strings([";".join(heads) for heads in plan["sets"].values()])),
            "drawn_beside": (("set",), _strings([self.random.get(name, "") for name in self.sets])),
        }
        if self.singly:
            first = [[self._first_head(row, name) for name in self.sets] for row in whole["single"]]
            made["first_head"] = (("prompt", "set"), _strings(first))
        return xr.Dataset(made, {"set": [*self.sets], "writer": _WRITERS, "reader": _WRITERS})

    def _first_head(self, parts_at: Float[np.ndarray, " single"], name: str) -> str:
        """Return the head of a set whose ablation alone changes a text soonest; empty where none does, and for a random
        set."""
        heads = [] if name in self.random else self.sets[name]
        known = [(parts_at[self._single.index(head)], at) for at, head in enumerate(heads)]
        soonest = min((each for each in known if not np.isnan(each[0])), default=None)
        return "" if soonest is None else str(heads[soonest[1]])

    @property
    def _read_texts(self) -> list[str]:
        """The texts that are continued; of an encoder-decoder the sources."""
        source = self.prompts.source
        return [*self.prompts.text] if source is None else [*map(joined, source.word_text)]

    def _spelled(self, ids: np.ndarray) -> list[str]:
        """Return each prompt with these new tokens as text."""
        read = self.writer.reads
        return [
            spelled(self.model, self.prompts.text[number], read[number], new[new >= 0].tolist())
            for number, new in enumerate(ids)
        ]

    def _parting_tokens(self, whole: Mapping[str, np.ndarray]) -> list[list[list[str]]]:
        """Return each text's token where the two part, [prompt, set, writer]; empty where they do not."""

        def tokens(number: int, at: int) -> list[str]:
            place = whole["parts_at"][number, at]
            if np.isnan(place):
                return ["", ""]
            both = whole["clean"][number], whole["ablated"][number, at]
            return [self._character(number, ids[ids >= 0].tolist(), int(place)) for ids in both]

        return [[tokens(number, at) for at in range(len(self.sets))] for number in range(len(self.prompts))]

    def _character(self, number: int, new: list[int], place: int) -> str:
        """Return the text of a new token, with those after it that spell a character together with it."""
        if new[place] in self.model.tokens.special_ids:
            return self.model.tokens.string(new[place])
        after = [self.writer.reads[number][-1], *new[:place]]
        for end in range(place + 1, len(new) + 1):
            text, _ = self.model.tokens.spelled(new[place:end], after=after)
            if not text.endswith("\ufffd"):
                return text
        return self.model.tokens.string(new[place])


def _strings(values: Any, transpose: bool = False) -> np.ndarray:
    array = np.array(values, dtype=np.dtypes.StringDType())
    return array.T if transpose else array


def part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Return the stage that writes texts, and their table."""
    among = model.heads(list(spec.heads) if spec.sets else "all")
    sets = named_sets(model, spec.sets) if spec.sets else {}
    if not sets:
        heads = model.heads(list(spec.heads))
        sets = {name_of(heads): heads}
    seed = spec.seed if spec.text.sample else None
    writer = Writer(
        model, prompts, spec.ablation, prompts, spec.text.max_new_tokens, seed, spec.text.temperature,
        key="text.max_new_tokens",
    )  # fmt: skip
    every = with_random(sets, among, spec.n_random_sets, spec.seed)
    drawn = dict(zip(list(every)[len(sets) :], np.repeat(list(sets), spec.n_random_sets).tolist(), strict=True))
    return Part([TextStage(writer, every, drawn, spec.text.singly)], [TextTable()])


def name_of(heads: Sequence[Head]) -> str:
    """Name a set by its heads."""
    named = [str(head) for head in heads]
    return ", ".join(named[:6]) + (f" and {len(named) - 6} more" if len(named) > 6 else "") or "no heads"
