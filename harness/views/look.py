"""Look at one prompt: every view of its attention from one object, with no model and no torch.

`harness.look` makes it of a model and a text, of a saved run, or of cached activations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from harness import views, words
from harness.attribution.rollout import rollout
from harness.config import RequestError
from harness.hooks import Head
from harness.views.activations import qk_table, score_weights, value_weights
from harness.views.axis import Axis, axis, place_of
from harness.views.figures.patterns import heatmap, heatmaps, lines, products
from harness.views.figures.view import figure_view
from harness.views.figures.words import draw_follow, draw_saliency
from harness.views.follow import follow, follow_table
from harness.views.notebook import View
from harness.views.pattern_table import Weights, strongest_keys, table, weights
from harness.views.saliency import saliency
from harness.views.selection import needs_patterns

if TYPE_CHECKING:
    from harness.results import Run


@dataclass(frozen=True)
class Look:
    """One prompt of `run` and how it is labelled: by ``token``, or by ``word`` where the script has no spaces.

    >>> seen = harness.look("smollm2", "The quick brown fox")          # doctest: +SKIP
    >>> seen.head("L5H1").save("head.svg")                            # doctest: +SKIP
    """

    run: "Run"
    prompt: int = 0
    level: str = "token"
    #: Gradient saliency by position, computed where the model is.
    gradient: Callable[[], Float[np.ndarray, " position"]] | None = None

    def head(self, head: Head | str = "mean") -> View:
        """The heatmap of a head (``"L5H1"`` or ``(5, 1)``), of the mean of a layer (``"L5"``) or of a range of layers
        (``"L5-L9"``), or of the mean of all (``"mean"``)."""
        pattern = self._weights(head)
        return figure_view(pattern.title, lambda: heatmap(pattern))

    def grid(self, layer: int | None = None) -> View:
        """Every head of a layer, or of all layers, a small heatmap each. A click opens it."""
        heads, at = self._heads(layer), (self.run, self.prompt)
        columns = len({head.head for head in heads}) if layer is None else min(8, len(heads))
        html = views.model_view(*at) if layer is None else views.layer_view(*at, layer)
        return html.with_figure(lambda: heatmaps([self._weights(head) for head in heads], columns))

    def all_heads(self) -> View:
        """Model view: every head of every layer."""
        return self.grid()

    def lines(self, layer: int | None = None, head: Head | str | None = None) -> View:
        """Head view: the tokens twice, a line for each weight. The figure shows the head, or the layer's mean."""
        html = views.head_view(self.run, self.prompt, layer, head)
        of = head if head is not None else "mean" if layer is None else f"L{layer}"
        return html.with_figure(lambda: lines(self._weights(of)))

    def values(self, head: Head | str) -> View:
        """The heatmap of a head's weights times the norms of the values: how much is moved from each token."""
        moved = value_weights(self.run, self.prompt, head, self.level)
        return figure_view(moved.title, lambda: heatmap(moved))

    def scores(self, head: Head | str) -> View:
        """The heatmap of the inputs of a head's softmax, by token; grey where the mask lets a query read no key."""
        score = score_weights(self.run, self.prompt, head)
        return figure_view(score.title, lambda: heatmap(score))

    def qk(self, query: str | int, key: str | int, head: Head | str) -> View:
        """A head's query and key vectors for two tokens, and their product dimension by dimension."""
        table = self.qk_table(query, key, head)
        return figure_view(table.attrs["title"], lambda: products(table), table.attrs["note"])

    def qk_table(self, query: str | int, key: str | int, head: Head | str) -> pd.DataFrame:
        """The same in numbers, a row for each dimension."""
        return qk_table(self.run, self.prompt, head, query, key)

    def rollout(self, **options: Any) -> View:
        """The heatmap of attention rollout; `options` are those of `harness.attribution.rollout`, such as
        ``start_layer=2, discard_ratio=0.1``."""
        needs_patterns(self.run)
        rolled = rollout(self.run.pattern(self.prompt).values.astype(float), **options)
        merged = rolled if self.level == "token" else words.merge_pattern(rolled, self._axis.place)
        shown = " ".join(f"{name}={value}" for name, value in options.items())
        pattern = Weights(merged, self._axis, self._axis, f"Attention rollout {shown}".strip(), "")
        return figure_view(pattern.title, lambda: heatmap(pattern))

    def saliency(self, **options: Any) -> View:
        """The text coloured by the gradient's norm at each token, subwords joined; the attributions of a run that has
        them. `options` are those of `harness.views.saliency`."""
        scores = {} if self.gradient is None or options else {"scores": {self.prompt: self.gradient()}}
        wanted = {"prompts": self.prompt, **scores, **options}
        return saliency(self.run, **wanted).with_figure(lambda: draw_saliency(self.run, **wanted))

    def follow(self, query: str | int, keys: str | int | Sequence[str | int]) -> View:
        """How much of one word's attention is on others, in every head: which layer ties them."""
        page = follow(self.run, self.prompt, query, keys)
        return page.with_figure(lambda: draw_follow(self.run, self.prompt, query, keys))

    def follow_table(self, query: str | int, keys: str | int | Sequence[str | int]) -> pd.DataFrame:
        """The same in numbers, a row for each key and head."""
        return follow_table(self.run, self.prompt, query, keys)

    def table(self, head: Head | str = "mean") -> pd.DataFrame:
        """The weights in numbers [query, key]; rows sum to 1."""
        return table(self.run, self.prompt, head, self.level)

    def strongest(self, token: str | int, head: Head | str = "mean", n: int = 5) -> pd.DataFrame:
        """The `n` keys that one token attends to most."""
        every = strongest_keys(self.run, self.prompt, head, n, self.level)
        at = place_of(self._axis, token, "token")
        return every.loc[every["query_at"] == at].reset_index(drop=True)

    @cached_property
    def _axis(self) -> Axis:
        return axis(self.run, self.prompt, self.level)

    def _weights(self, of: Head | str) -> Weights:
        return weights(self.run, self.prompt, of, self.level)

    def _heads(self, layer: int | None) -> list[Head]:
        heads = [head for head in self.run.all_heads if layer in (None, head.layer)]
        if not heads:
            raise RequestError("layer", layer, f"the layers are 0-{max(head.layer for head in self.run.all_heads)}")
        return heads

    def __repr__(self) -> str:
        n = int(self.run.data["length"].values[self.prompt])
        return f"Look({self.run.text(self.prompt)[:60]!r}, {n} tokens, {len(self.run.all_heads)} heads)"

    def _repr_html_(self) -> str:
        return self.grid()._repr_html_()
