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
from harness.views.selection import needs_patterns, titled

if TYPE_CHECKING:
    from harness.results import Run

_GRADIENT = "the norm of the gradient"
_ROLLOUT = (
    "How much of each token reaches a position through all layers, where the residual stream counts as attention to "
    "the token itself; rows sum to 1."
)


@dataclass(frozen=True)
class Look:
    """One prompt of `run` and how it is labelled: by ``token``, or by ``word`` where the script has no spaces.

    Each method that returns a `View` shows itself in a notebook, gives its matplotlib ``figure()``, and is saved by
    ``save("head.svg")`` (or .png, .pdf, .html). A head is written ``"L5H1"`` or ``(5, 1)``, of an encoder-decoder
    ``"cross.L5H1"``; where a mean makes sense ``"L5"``, ``"L5-L9"`` and ``"mean"`` are means of heads.

    >>> import harness
    >>> seen = harness.look("planted", " da ko li da ko")
    >>> seen
    Look(' da ko li da ko', 6 tokens, 12 heads)
    >>> seen.head("L1H4")
    View(L1H4 · da ko li da ko)
    >>> round(float(seen.table("L1H4").iloc[4, 2]), 3)          # the induction head: from the second da to ko
    1.0
    """

    run: "Run"
    prompt: int = 0
    level: str = "token"
    #: Gradient saliency by position, computed where the model is.
    gradient: Callable[[], Float[np.ndarray, " position"]] | None = None

    def head(self, head: Head | str = "mean") -> View:
        """The heatmap of a head (``"L5H1"`` or ``(5, 1)``), of the mean of a layer (``"L5"``) or of a range of layers
        (``"L5-L9"``), or of the mean of all (``"mean"``).

        >>> import harness
        >>> harness.look("planted", " da ko da").head("L0")
        View(Mean of 6 heads (L0) · da ko da)
        """
        return self._heatmap(self._weights(head))

    def grid(self, layer: int | None = None) -> View:
        """Every head of a layer, or of all layers, a small heatmap each. A click opens it.

        >>> import harness
        >>> harness.look("planted", " da ko da").grid(layer=1)
        View(Every head of layer 1 · da ko da)
        """
        heads, at = self._heads(layer), (self.run, self.prompt)
        columns = len({head.head for head in heads}) if layer is None else min(8, len(heads))
        html = views.model_view(*at, self.level) if layer is None else views.layer_view(*at, layer, self.level)
        return html.with_figure(lambda: heatmaps([self._weights(head) for head in heads], columns))

    def all_heads(self) -> View:
        """Model view: every head of every layer.

        >>> import harness
        >>> harness.look("planted", " da ko da").all_heads()
        View(Every head · da ko da)
        """
        return self.grid()

    def lines(self, layer: int | None = None, head: Head | str | None = None) -> View:
        """Head view: the tokens twice, a line for each weight. The figure shows the head, or the layer's mean.

        >>> import harness
        >>> harness.look("planted", " da ko da").lines(layer=1)
        View(Lines of L1 · da ko da)
        """
        html = views.head_view(self.run, self.prompt, layer, head, self.level)
        of = head if head is not None else "mean" if layer is None else f"L{layer}"
        return html.with_figure(lambda: lines(self._weights(of)))

    def values(self, head: Head | str) -> View:
        """The heatmap of a head's weights times the norms of the values: how much is moved from each token.

        >>> import harness
        >>> harness.look("planted", " da ko da").values("L1H4")
        View(L1H4: attention × norm of the value · da ko da)
        """
        return self._heatmap(value_weights(self.run, self.prompt, head, self.level))

    def scores(self, head: Head | str) -> View:
        """The heatmap of the inputs of a head's softmax, by token; grey where the mask lets a query read no key.

        >>> import harness
        >>> harness.look("planted", " da ko da").scores("L1H4")
        View(L1H4: scores before the softmax · da ko da)
        """
        return self._heatmap(score_weights(self.run, self.prompt, head))

    def qk(self, query: str | int, key: str | int, head: Head | str) -> View:
        """A head's query and key vectors for two tokens, and their product dimension by dimension.

        >>> import harness
        >>> harness.look("planted", " da ko li").qk("li", "da", "L1H4")
        View(L1H4: li → da · da ko li)
        """
        table = self.qk_table(query, key, head)
        note = "The query’s vector, the key’s, and their product in each dimension of the head."
        total = f"Over √d_head the products add up to {table.attrs['sum']:.3g}, the score."
        return figure_view(
            self._titled(table.attrs["title"]), lambda: products(table), f"{note} {table.attrs['note'] or total}"
        )

    def qk_table(self, query: str | int, key: str | int, head: Head | str) -> pd.DataFrame:
        """The same in numbers, a row for each dimension.

        >>> import harness
        >>> list(harness.look("planted", " da ko li").qk_table("li", "da", "L1H4").columns)
        ['q', 'k', 'product']
        """
        return qk_table(self.run, self.prompt, head, query, key)

    def rollout(self, **options: Any) -> View:
        """The heatmap of attention rollout; `options` are those of `harness.attribution.rollout`, such as
        ``start_layer=2, discard_ratio=0.1``.

        >>> import harness
        >>> harness.look("planted", " da ko da").rollout(start_layer=1)
        View(Attention rollout start_layer=1 · da ko da)
        """
        needs_patterns(self.run)
        rolled = rollout(self.run.pattern(self.prompt).values.astype(float), **options)
        merged = rolled if self.level == "token" else words.merge_pattern(rolled, self._axis.place)
        shown = " ".join(f"{name}={value}" for name, value in options.items())
        return self._heatmap(Weights(merged, self._axis, self._axis, f"Attention rollout {shown}".strip(), _ROLLOUT))

    def saliency(self, **options: Any) -> View:
        """The text coloured by the gradient's norm at each token, subwords joined; the attributions of a run that has
        them. `options` are those of `harness.views.saliency`.

        >>> import harness
        >>> harness.look("random", "a drink").saliency()
        View(Text coloured by the norm of the gradient)
        """
        ours = {} if self.gradient is None or options else {"scores": {self.prompt: self.gradient()}, "name": _GRADIENT}
        wanted = {"prompts": self.prompt, **ours, **options}
        return saliency(self.run, **wanted).with_figure(lambda: draw_saliency(self.run, **wanted))

    def follow(self, query: str | int, keys: str | int | Sequence[str | int]) -> View:
        """How much of one word's attention is on others, in every head: which layer ties them.

        >>> import harness
        >>> harness.look("planted", " da ko li").follow("li", ["da", "ko"])
        View(From “li” to “da” and “ko”, in every head)
        """
        page = follow(self.run, self.prompt, query, keys)
        return page.with_figure(lambda: draw_follow(self.run, self.prompt, query, keys))

    def follow_table(self, query: str | int, keys: str | int | Sequence[str | int]) -> pd.DataFrame:
        """The same in numbers, a row for each key and head.

        >>> import harness
        >>> harness.look("planted", " da ko li").follow_table("li", "ko").nlargest(1, "weight")["head"].item()
        'L0H4'
        """
        return follow_table(self.run, self.prompt, query, keys)

    def table(self, head: Head | str = "mean") -> pd.DataFrame:
        """The weights in numbers [query, key]; rows sum to 1.

        >>> import harness
        >>> harness.look("planted", " da ko li").table("L0H4").sum(axis=1).round(3).tolist()
        [1.0, 1.0, 1.0, 1.0]
        """
        return table(self.run, self.prompt, head, self.level)

    def strongest(self, token: str | int, head: Head | str = "mean", n: int = 5) -> pd.DataFrame:
        """The `n` keys that one token attends to most.

        >>> import harness
        >>> harness.look("planted", " da ko li").strongest("li", "L0H4", n=1)["key"].item().strip()
        'ko'
        """
        every = strongest_keys(self.run, self.prompt, head, n, self.level)
        at = place_of(self._axis, token, "token")
        return every.loc[every["query_at"] == at].reset_index(drop=True)

    @cached_property
    def _axis(self) -> Axis:
        return axis(self.run, self.prompt, self.level)

    def _heatmap(self, of: Weights) -> View:
        return figure_view(self._titled(of.title), lambda: heatmap(of), of.note)

    def _titled(self, what: str) -> str:
        return titled(what, self.run, self.prompt)

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
