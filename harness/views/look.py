"""Look at one prompt: every view of its attention from one object, with no model and no torch.

`harness.look` makes it of a model and a text, of a saved run, or of cached activations.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from harness import views, words
from harness.attribution.rollout import rollout
from harness.config import RequestError, near
from harness.hooks import Head
from harness.results.objects import Folder
from harness.views.activations import qk_table, score_weights, value_weights
from harness.views.axis import Axis, axis, place_of
from harness.views.figures.patterns import heatmap, heatmaps, lines, products
from harness.views.figures.titles import headed
from harness.views.figures.view import figure_view
from harness.views.figures.words import draw_follow, draw_saliency
from harness.views.follow import follow, follow_table
from harness.views.notebook import View
from harness.views.pattern_table import ROLLOUT, Weights, strongest_keys, table, weights
from harness.views.saliency import saliency
from harness.views.selection import checked_head, credited, needs_patterns, titled
from harness.views.text import visible
from harness.views.token_colours import GRADIENT, at_word

if TYPE_CHECKING:
    from harness.results import Run

_ROLLOUT = (
    "How much of each token reaches a position through all layers, where the residual stream counts as attention to "
    "the token itself; rows sum to 1."
)


@dataclass(frozen=True)
class Gradient:
    """The norm of the gradient at each token's embedding, of what a model predicts in one text.

    `norm` computes it [position]: the mean over all predictions, or of the one made at a position. `of` is the number
    whose gradient it is and `about` a sentence on it; `predicts_at` are the positions where predictions are made, none
    for a model that makes one vector of a text.
    """

    norm: Callable[[int | None], Float[np.ndarray, " position"]]
    of: str
    about: str
    predicts_at: tuple[int, ...]

    def __call__(self, at: int | None = None) -> Float[np.ndarray, " position"]:
        return self.norm(at)

    def name(self, run: "Run", prompt: int, at: int | None) -> str:
        """Say what the colours are: the gradient of which number, and of which predictions."""
        n = len(self.predicts_at)
        which = f"prediction at {at_word(run, prompt, at)}" if at is not None else f"mean over {n} predictions"
        return f"the norm of the gradient of {self.of}" + (f", {which}" if at is not None or n > 1 else "")


@dataclass(frozen=True)
class Look:
    """One prompt of `run` and how it is labelled: by ``token``, or by ``word`` where the script has no spaces.

    Each method that returns a `View` shows itself in a notebook, gives its matplotlib ``figure()``, and is saved by
    ``save("head.svg")`` (or .png, .pdf, .html). A head is written ``"L5H1"`` or ``(5, 1)``, of an encoder-decoder
    ``"cross.L5H1"``; where a mean makes sense ``"L5"``, ``"L5-L9"`` and ``"mean"`` are means of heads. A token is
    named by its text, or by its number where the text has it twice: numbers count from 0, the special tokens with them,
    words in `follow`, tokens in `qk` and in ``saliency(query=…)``, and in `strongest` what `level` is.

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
    gradient: Gradient | None = None

    def head(self, head: Head | str | int = "mean", number: int | None = None) -> View:
        """The heatmap of a head (``"L5H1"``, ``(5, 1)``, or layer and head as ``5, 1``), of the mean of a layer
        (``"L5"``) or of a range of layers (``"L5-L9"``), or of the mean of all (``"mean"``).

        >>> import harness
        >>> harness.look("planted", " da ko da").head("L0")
        View(Mean of 6 heads (L0) · da ko da)
        """
        if number is not None:
            if not isinstance(head, int):
                raise RequestError(
                    "head", f"{head}, {number}", 'write "L5H1", or layer and head as numbers: head(5, 1)'
                )
            head = Head(head, number)
        return self._heatmap(self._weights(head))

    def grid(self, layer: int | str | None = None) -> View:
        """Every head of a layer (``5`` or ``"L5"``), or of all layers, a small heatmap each. A click opens it.

        >>> import harness
        >>> harness.look("planted", " da ko da").grid(layer=1)
        View(Every head of layer 1 · da ko da)
        """
        layer = _layer(layer)
        heads, at = self._heads(layer), (self.run, self.prompt)
        columns = len({head.head for head in heads}) if layer is None else min(8, len(heads))
        html = views.model_view(*at, self.level) if layer is None else views.layer_view(*at, layer, self.level)
        title = "Every head" + ("" if layer is None else f" of layer {layer}")
        tokens = "Tokens: " + " | ".join(visible(label).strip() for label in self._axis.labels)
        draw = partial(self._headed, title, lambda: heatmaps([self._weights(head) for head in heads], columns), tokens)
        return html.with_figure(draw)

    def all_heads(self) -> View:
        """Model view: every head of every layer.

        >>> import harness
        >>> harness.look("planted", " da ko da").all_heads()
        View(Every head · da ko da)
        """
        return self.grid()

    def lines(self, layer: int | str | None = None, head: Head | str | int | None = None) -> View:
        """Head view: the tokens twice, a line for each weight.

        The page opens with the head, or with the one that its title names first, and switches the others of the layer
        on and off; the figure shows the head, or the mean of the layer's, as its title says.

        >>> import harness
        >>> harness.look("planted", " da ko da").lines(layer=1)
        View(Lines of L1 (first L1H0) · da ko da)
        """
        layer = _layer(layer)
        if head is not None:
            head = Head(layer, head) if isinstance(head, int) and layer is not None else head
            layer = self._layer_of(head, layer)
        html = views.head_view(self.run, self.prompt, layer, head, self.level)
        of = self._weights(head if head is not None else "mean" if layer is None else f"L{layer}")
        return html.with_figure(partial(self._headed, of.title, lambda: lines(replace(of, title=""))))

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
        title, untitled = table.attrs["title"], table.copy()
        untitled.attrs["title"] = ""
        page = figure_view(self._titled(title), lambda: products(untitled), f"{note} {table.attrs['note'] or total}")
        return page.with_figure(partial(self._headed, title, lambda: products(untitled)))

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
        _check_options("rollout", options, rollout, "pattern")
        rolled = rollout(self.run.pattern(self.prompt).values.astype(float), **options)
        merged = rolled if self.level == "token" else words.merge_pattern(rolled, self._axis.place)
        shown = " ".join(f"{name}={value}" for name, value in options.items())
        title = f"Attention rollout {shown}".strip()
        return self._heatmap(Weights(merged, self._axis, self._axis, title, _ROLLOUT, ROLLOUT))

    def saliency(self, method: str | None = None, **options: Any) -> View:
        """The text coloured by the L2 norm of a gradient at each token's embedding, subwords joined.

        The gradient is, for a decoder, that of the loss, which is minus the log-probability of the token that follows,
        mean over all predictions in the text (nothing follows the last token: its score is 0); for a masked-LM encoder
        that of the loss of each token while it is masked, mean over all of them; for a classifier that of the label's
        loss; for an encoder without such a head (minilm) that of the text's vector, of its length along its own
        direction. ``query="cat"`` (or a token's number) takes the prediction made at that token alone.

        With ``head="L5H1"`` the colours are attention weights, with ``scores=…`` your own. A saved run shows its
        attributions, the gradient first, or that of `method`, and where it has none the mean attention. The other
        `options` are those of `harness.views.saliency`: ``merge``, ``scale``, ``special``, ``name``.

        >>> import harness
        >>> harness.look("random", "a drink").saliency(merge="max")
        View(Text coloured by the norm of the gradient of the loss, mean over 2 predictions)
        """
        _check_options("saliency", options, saliency, "run", "about")
        wanted = {"prompts": self.prompt, "method": method, **options}
        if self.gradient is not None and options.get("head") is None and options.get("scores") is None:
            wanted |= {"method": None, **self._gradient_scores(self.gradient, method, options)}
        return saliency(self.run, **wanted).with_figure(lambda: draw_saliency(self.run, **wanted))

    def _gradient_scores(self, gradient: Gradient, method: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the gradient as the scores of a saliency view, with their name and caption."""
        if method not in (None, *GRADIENT):
            remedy = (
                "a look at a text computes gradient; harness.compare_attributions(model, prompts) has other methods"
            )
            raise RequestError("method", method, remedy)
        query, at = options.get("query"), None
        if query is not None:
            if not gradient.predicts_at:
                raise RequestError("query", query, f"{gradient.of} is of all tokens: leave query out")
            at = place_of(axis(self.run, self.prompt), query, "query")
            if at not in gradient.predicts_at:
                known = ", ".join(map(str, gradient.predicts_at))
                raise RequestError("query", query, f"predictions are made at tokens {known}")
        name = options.get("name") or gradient.name(self.run, self.prompt, at)
        return {"scores": {self.prompt: gradient(at)}, "name": name, "about": gradient.about, "query": None}

    def follow(self, query: str | int, keys: str | int | Sequence[str | int]) -> View:
        """How much of one word's attention is on others, in every head, and by layer in the column ``mean`` beside the
        heads: which layer ties them.

        Words are named by their text, or by their number from 0, which counts words and special tokens.

        >>> import harness
        >>> harness.look("planted", " da ko li").follow("li", ["da", "ko"])
        View(From “li” to “da” and “ko”, in every head)
        """
        page = follow(self.run, self.prompt, query, keys)
        title = page.title
        return page.with_figure(partial(self._headed, title, lambda: draw_follow(self.run, self.prompt, query, keys)))

    def follow_table(self, query: str | int, keys: str | int | Sequence[str | int]) -> pd.DataFrame:
        """The same in numbers, a row for each key and head; ``attrs["by_layer"]`` has for each key the mean over the
        heads by layer, largest in the layer that ties the two.

        >>> import harness
        >>> table = harness.look("planted", " da ko li").follow_table("li", "ko")
        >>> table.nlargest(1, "weight")["head"].item()
        'L0H4'
        >>> by_layer = table.attrs["by_layer"]["ko"]
        >>> max(by_layer, key=by_layer.get)
        0
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
        """The `n` keys that one token attends to most. The token is named by its text or its number from 0, which
        counts tokens, or words where ``level="word"``.

        >>> import harness
        >>> harness.look("planted", " da ko li").strongest("li", "L0H4", n=1)["key"].item().strip()
        'ko'
        """
        every = strongest_keys(self.run, self.prompt, head, n, self.level)
        at = place_of(self._axis, token, "token")
        return every.loc[every["query_at"] == at].reset_index(drop=True)

    def save(self, path: str | Folder) -> Folder:
        """Save what the object shows in a notebook, every head of every layer: the same as ``grid().save(path)``.

        >>> import harness
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     harness.look("planted", " da ko da").save(f"{folder}/look.html").name
        'look.html'
        """
        return self.grid().save(path)

    @cached_property
    def _axis(self) -> Axis:
        return axis(self.run, self.prompt, self.level)

    def _heatmap(self, of: Weights) -> View:
        untitled = replace(of, title="")  # the page has the title above the figure, a file inside it
        page = figure_view(self._titled(of.title), lambda: heatmap(untitled), of.note)
        return page.with_figure(partial(self._headed, of.title, lambda: heatmap(untitled)))

    def _headed(self, what: str, draw: Callable[[], Any], note: str = "") -> Any:
        """Draw a figure for a file: with its title, the text and the model."""
        return headed(draw(), credited(what, self.run, self.prompt), note)

    def _titled(self, what: str) -> str:
        return titled(what, self.run, self.prompt)

    def _layer_of(self, head: Head | str | int, layer: int | None) -> int | None:
        """Return the head's layer, or `layer` for a head that is none. Raises `RequestError` if they are not one."""
        if isinstance(head, int) or head == "mean":
            return layer
        named = checked_head(self.run, head)
        if layer is not None and named.layer != layer:
            raise RequestError("head", head, f"it is not in layer {layer}: leave out one of the two")
        return named.layer

    def _weights(self, of: Head | str | int) -> Weights:
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


def _layer(layer: int | str | None) -> int | None:
    """Return a layer's number; it is written ``5`` or ``"L5"``."""
    if not isinstance(layer, str):
        return layer
    number = layer.strip().upper().removeprefix("L")
    if not number.isdecimal():
        raise RequestError("layer", layer, 'write a number, or its name: layer=5 or layer="L5"')
    return int(number)


def _check_options(view: str, options: Mapping[str, Any], function: Callable[..., Any], *own: str) -> None:
    """Raise `RequestError` for an option that the function behind a view does not take; `own` are not for callers."""
    known = [name for name in inspect.signature(function).parameters if name not in own]
    for name, value in options.items():
        if name not in known:
            raise RequestError(f"{view}.{name}", value, f"there is no such option; {near(name, known)}")
