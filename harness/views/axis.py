"""One prompt's tokens or words as an axis: labels, and arrays brought to it, special tokens kept or left out.

Every view that shows a prompt can show it in tokens or in words; both come from here.
"""

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
    """The places on an axis of one prompt.

    `place` says which place each position belongs to; `special`, `sentence` and `text` are of each place. Only the
    places that are `kept` are shown. `text` has the white space before a word, `labels` have not.
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
        """The places that are shown, by number."""
        return np.flatnonzero(self.kept).tolist()

    @property
    def labels(self) -> list[str]:
        """What is written at each place that is shown: a word without the space before it, a token as it is."""
        texts = [self.text[at] for at in self.shown]
        return texts if self.level == "token" else [text.strip() or text for text in texts]

    def scores(self, scores: Float[np.ndarray, "*batch position"], how: str = "sum") -> Float[np.ndarray, "*batch _"]:
        """Scores of positions as scores of the places that are shown; see `words.merge_scores`."""
        return words.merge_scores(scores, self.place, how)[..., self.kept]

    def positions(self, at: int) -> list[int]:
        """The positions that belong to a place, which is counted among those that are shown."""
        return np.flatnonzero(self.place == self.shown[at]).tolist()


_READ = ("token", "word", "word_text", "special", "sentence")


def axis(run: "Run", prompt: int, level: str = "token", special: str = "keep", source: bool = False) -> Axis:
    """The axis of a prompt, or of the `source` text that an encoder-decoder reads.

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


def brought(
    pattern: Float[np.ndarray, "*batch query key"], queries: Axis, keys: Axis
) -> Float[np.ndarray, "*batch kept_query kept_key"]:
    """A pattern over two axes: joined to words first (keys summed, queries averaged), then special tokens left out and
    rows renormalised."""
    merged = words.merge_pattern(pattern, queries.place, keys.place)
    if queries.kept.all() and keys.kept.all():
        return merged
    return words.without(merged, ~queries.kept, ~keys.kept)


def told(pattern: Float[np.ndarray, "*batch query key"], queries: Axis, keys: Axis) -> str:
    """What was done to a pattern to bring it to two axes, for under a table or a picture; nothing if nothing was."""
    said: list[str] = []
    if keys.level == "word":
        said.append("Words: weights summed over a word’s key tokens and averaged over its query tokens.")
    if not keys.kept.all():
        merged = words.merge_pattern(pattern, queries.place, keys.place)
        share = words.share_on(merged, ~queries.kept, ~keys.kept)
        left = f"on average {100 * share:.0f} % of the attention was on them"
        said.append(f"Special tokens left out and rows renormalised: {left}.")
    return " ".join(said)


def place_of(axis: Axis, wanted: str | int, key: str) -> int:
    """Which of the shown places a request means: its number, or its text where that stands there once."""
    n, labels = len(axis), [label.strip() for label in axis.labels]
    if isinstance(wanted, int | np.integer):
        if not 0 <= wanted < n:
            raise RequestError(key, wanted, f"the prompt has {axis.level}s 0-{n - 1}")
        return int(wanted)
    found = _same(labels, wanted.strip()) or _same([label.casefold() for label in labels], wanted.strip().casefold())
    if not found:
        raise RequestError(key, repr(wanted), f"it is not a {axis.level} of this prompt; there are: {_list(labels)}")
    if len(found) > 1:
        numbers = " and ".join(map(str, found))
        raise RequestError(key, repr(wanted), f"it stands at {numbers} (counted from 0): give the number")
    return found[0]


def _same(labels: Sequence[str], wanted: str) -> list[int]:
    return [at for at, label in enumerate(labels) if label == wanted]


def _list(labels: Sequence[str]) -> str:
    shown = list(dict.fromkeys(labels))[:12]
    return ", ".join(shown) + (", …" if len(set(labels)) > len(shown) else "")
