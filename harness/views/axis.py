"""Axes of a prompt, in tokens or words: labels, and patterns projected to them, with or without special tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from harness import words
from harness.config import RequestError

if TYPE_CHECKING:
    from harness.results import Run

Level = Literal["token", "word"]
Special = Literal["keep", "drop"]
LEVELS = ("token", "word")
SPECIAL = ("keep", "drop")


@dataclass(frozen=True)
class Axis:
    """The places (tokens or words) on an axis of one prompt.

    `place` is the place of each position; `special`, `sentence` and `text` are of each place. Only `kept` places are
    shown. `text` has the white space before a word, `labels` have not.
    """

    level: str
    place: Int[np.ndarray, " position"]
    text: tuple[str, ...]
    special: Bool[np.ndarray, " place"]
    sentence: Int[np.ndarray, " place"]
    kept: Bool[np.ndarray, " place"]

    def __len__(self) -> int:
        return int(self.kept.sum())

    @property
    def shown(self) -> list[int]:
        """The numbers of the shown places."""
        return np.flatnonzero(self.kept).tolist()

    @property
    def sentences(self) -> list[Int[np.ndarray, " place"]]:
        """The shown places of each sentence."""
        sentence = self.sentence[self.kept]
        return [np.flatnonzero(sentence == number) for number in dict.fromkeys(sentence.tolist())]

    @property
    def labels(self) -> list[str]:
        """The labels of the shown places: a word without the space before it, a token as it is."""
        texts = [self.text[at] for at in self.shown]
        return texts if self.level == "token" else [text.strip() or text for text in texts]

    def scores(self, scores: Float[np.ndarray, "*batch position"], how: str = "sum") -> Float[np.ndarray, "*batch _"]:
        """Merge scores of positions to scores of the shown places; see `words.merge_scores`."""
        return words.merge_scores(scores, self.place, how)[..., self.kept]

    def positions(self, at: int) -> list[int]:
        """Return the positions of a place, which is counted among the shown ones."""
        return np.flatnonzero(self.place == self.shown[at]).tolist()


_READ = ("token", "word", "word_text", "special", "sentence")


def axis(run: "Run", prompt: int, level: str = "token", special: str = "keep", source: bool = False) -> Axis:
    """Make the axis of a prompt, or of the `source` text that an encoder-decoder reads.

    Raises `RequestError` for another `level` or `special`.
    """
    for key, value, known in (("level", level, LEVELS), ("special", special, SPECIAL)):
        if value not in known:
            raise RequestError(key, value, f"choose {' or '.join(known)}")
    prefix = "source_" if source else ""
    length = int(run.data[f"{prefix}length"].values[prompt])
    row = {name: run.data[f"{prefix}{name}"].values[prompt][:length] for name in _READ}
    word_text = [str(text) for text in row["word_text"]]
    by_token = words.labels(row["token"], row["word"], word_text)
    place = np.arange(length) if level == "token" else row["word"].astype(int)
    first = [int(np.flatnonzero(place == at)[0]) for at in range(int(place.max(initial=-1)) + 1)]
    marked = row["special"].astype(bool)[first]
    of = row["sentence"][first]
    text = by_token if level == "token" else [word_text[at] or by_token[at] for at in first]
    kept = ~marked if special == "drop" else np.ones(len(first), dtype=bool)
    return Axis(level, place, tuple(text), marked, of.astype(int), kept)


def project(
    pattern: Float[np.ndarray, "*batch query key"], queries: Axis, keys: Axis
) -> Float[np.ndarray, "*batch kept_query kept_key"]:
    """Project a pattern to two axes: merge words (keys summed, queries averaged), then drop special tokens and
    renormalise rows."""
    merged = words.merge_pattern(pattern, queries.place, keys.place)
    if queries.kept.all() and keys.kept.all():
        return merged
    return words.without(merged, ~queries.kept, ~keys.kept)


def projection_note(pattern: Float[np.ndarray, "*batch query key"], queries: Axis, keys: Axis) -> str:
    """Describe how `project` changes a pattern, for a caption; empty if it does not."""
    notes: list[str] = []
    if keys.level == "word":
        notes.append("Words: weights summed over a word’s key tokens and averaged over its query tokens.")
    if not keys.kept.all():
        merged = words.merge_pattern(pattern, queries.place, keys.place)
        share = words.share_on(merged, ~queries.kept, ~keys.kept)
        left = f"on average {100 * share:.0f} % of the attention was on them"
        notes.append(f"Special tokens left out and rows renormalised: {left}.")
    return " ".join(notes)


def place_of(axis: Axis, wanted: str | int, key: str) -> int:
    """Return the number of a shown place from its number or its text, in capitals or not. Raises `RequestError` if it
    is not unique."""
    n, labels = len(axis), [label.strip() for label in axis.labels]
    if isinstance(wanted, int | np.integer):
        if not 0 <= wanted < n:
            raise RequestError(key, wanted, f"the prompt has {axis.level}s 0-{n - 1}")
        return int(wanted)
    # Capitals do not tell one from another: with "The" and "the", either could be meant.
    matches = _same([label.casefold() for label in labels], wanted.strip().casefold())
    if not matches:
        raise RequestError(key, repr(wanted), f"it is not a {axis.level} of this prompt; there are: {_list(labels)}")
    if len(matches) > 1:
        numbers = " and ".join(map(str, matches))
        raise RequestError(key, repr(wanted), f"it is at {numbers} (counted from 0): pass the number")
    return matches[0]


def _same(labels: Sequence[str], wanted: str) -> list[int]:
    return [at for at, label in enumerate(labels) if label == wanted]


def _list(labels: Sequence[str]) -> str:
    shown = list(dict.fromkeys(labels))[:12]
    return ", ".join(shown) + (", …" if len(set(labels)) > len(shown) else "")
