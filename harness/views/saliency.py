"""The saliency page: text whose background is the score, by word or by token, without any script."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.hooks import Head
from harness.views.frame_height import saliency_height
from harness.views.notebook import View, static_view
from harness.views.number_tables import html_table
from harness.views.page import asset
from harness.views.text import markup
from harness.views.token_colours import Colours, Saliency, Scores, Text, colour, heading

if TYPE_CHECKING:
    from harness.results import Run

_SWITCH = (
    '<fieldset><legend>Show</legend><label><input type="radio" name="level" id="by-word" checked><span>Words</span>'
    '</label><label><input type="radio" name="level" id="by-token"><span>Tokens</span></label></fieldset>'
)


def saliency(
    run: "Run",
    prompts: int | Sequence[int] | None = None,
    head: Head | str | None = None,
    method: str | None = None,
    query: str | int | None = None,
    scores: Scores | None = None,
    merge: str = "sum",
    scale: str = "text",
    special: str = "drop",
    name: str = "custom scores",
    about: str = "",
) -> View:
    """Show texts coloured by one score per token, by word or by token; sentence pairs stand side by side.

    `scores`, where they are passed, are [position], a number for each token of the prompt in any unit; colours are
    shares of the scale. All parameters are those of `harness.views.token_colours.colour`, which raises `RequestError`.

    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> harness.views.saliency(run, scores=[0, 0, 1.5, 0, 0.5, 0])
    View(Text coloured by custom scores)
    """
    coloured = colour(run, prompts, head, method, query, scores, merge, scale, special, name, about)
    title = "Text coloured by " + coloured.what
    texts = "".join(_text(text) for text in coloured.texts)
    body = (
        f"<header><h1>{markup(title)}</h1><p class='define'>{markup(coloured.how)}</p></header><main class='saliency'>"
        f"<div class='controls'>{_SWITCH}{_legend(coloured)}</div>{texts}</main>"
    )
    return static_view(title, body, saliency_height(coloured), asset("saliency.css"))


def _legend(coloured: Saliency) -> str:
    signed = '<span class="chip mark" style="--share:1;--mark:var(--hurts)">below 0</span>' if coloured.signed else ""
    steps = "".join(f'<i class="mark" style="--share:{step / 4}"></i>' for step in range(5))
    return f'<p class="legend">{signed}lowest <span class="ramp">{steps}</span> highest</p>'


def _text(text: Text) -> str:
    levels = "".join(f'<div class="by-{level}">{_level(colours)}</div>' for level, colours in text.by.items())
    title = markup(heading(text)).replace("“", "“<bdi>").replace("”", "</bdi>”") if heading(text) else ""
    return f"<section>{f'<h2>{title}</h2>' if title else ''}{levels}</section>"


def _level(colours: Colours) -> str:
    """Render the text with its colours, its sentences side by side, and its numbers as a table."""
    parts = colours.axis.sentences
    spans = list(_spans(colours))
    columns = "".join(f'<p class="text" dir="auto">{"".join(spans[at] for at in part)}</p>' for part in parts)
    numbers = zip(colours.axis.labels, colours.score.tolist(), colours.share.tolist(), strict=True)
    table = html_table([colours.axis.level, "score", "share of the scale"], numbers, text={0})
    details = f"<details><summary>The numbers</summary><div class='tall' tabindex='0'>{table}</div></details>"
    return f'<div class="beside n{len(parts)}">{columns}</div>{details}'


def _spans(colours: Colours) -> Iterator[str]:
    """Yield each place as markup, the white space before it outside its colour; a line break breaks the line."""
    texts = [colours.axis.text[at] for at in colours.axis.shown]
    for text, score, share in zip(texts, colours.score, colours.share, strict=True):
        bare = text.strip() or text
        tone = "--mark:var(--hurts);" if share < 0 else "--mark:var(--helps);" if colours.share.min() < 0 else ""
        tip = f"{markup(bare)}: {score:.4g} ({abs(share):.0%} of the scale)"
        space = " " if text[:1].isspace() and text.strip() else ""
        line = "<br>" if not text.strip() and "\n" in text else ""
        style = f'class="mark" style="{tone}--share:{abs(share):.3f}"'
        yield f'{space}<span {style} data-tip="{tip}">{markup(bare)}</span>{line}'
