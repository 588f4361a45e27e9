"""How prompts show themselves: one line, and a table of the first texts for a notebook."""

import html
from typing import TYPE_CHECKING

from harness import words

if TYPE_CHECKING:
    from harness.prompts.padding import Prompts

#: Texts in a table, and characters of each.
_ROWS, _LETTERS = 5, 200


def describe(prompts: "Prompts") -> str:
    """Describe prompts in a line: how many, how long, in how many clusters, and what is known of each."""
    n, lengths, n_clusters = len(prompts), prompts.length, len(set(prompts.cluster))
    shortest, longest = int(lengths.min()), int(lengths.max())
    tokens = f"{longest} tokens" if shortest == longest else f"{shortest}–{longest} tokens"
    known = {
        "answers": prompts.has_answer,
        "distractors": prompts.has_distractor,
        "counterfactuals": prompts.counterfactual.size > 0 and bool((prompts.counterfactual >= 0).any()),
        "sources": prompts.source is not None,
    }
    names = [name for name, there in known.items() if there]
    clusters = f", {n_clusters} cluster{'s' * (n_clusters != 1)}" if n_clusters < n else ""
    with_ = f", with {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}" if names else ""
    return f"Prompts({prompts.name[:60]}: {n} prompt{'s' * (n != 1)} of {tokens}{clusters}{with_})"


def as_table(prompts: "Prompts") -> str:
    """Return the first texts as HTML, a mark between tokens, with their answers; all text is escaped."""
    answers = {"answer": prompts.answer_text, "distractor": prompts.distractor_text}
    shown = {name: texts for name, texts in answers.items() if any(texts)}
    heads = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("", "tokens", *shown))
    rows = ""
    for at in range(min(len(prompts), _ROWS)):
        cells = [str(at), _tokens(prompts, at), *(_escaped(texts[at]) for texts in shown.values())]
        rows += "<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells) + "</tr>"
    more = f"<p>and {len(prompts) - _ROWS} more</p>" if len(prompts) > _ROWS else ""
    return f"<p><b>{_escaped(describe(prompts))}</b></p><table><tr>{heads}</tr>{rows}</table>{more}"


def _tokens(prompts: "Prompts", at: int) -> str:
    """Return the tokens of a prompt as text, cut where it is long; of an encoder-decoder the source's too."""
    sides = [prompts] if prompts.source is None else [prompts.source, prompts]
    texts = []
    for side in sides:
        end = int(side.length[at])
        text = "|".join(words.labels(side.token[at][:end], side.word[at][:end], side.word_text[at][:end]))
        texts.append(text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…")
    return " → ".join(map(_escaped, texts))


def _escaped(text: str) -> str:
    """Escape text for HTML; what cannot be seen is spelt out, as ⟨U+0000⟩."""
    return html.escape("".join(sign if sign.isprintable() else f"⟨U+{ord(sign):04X}⟩" for sign in str(text)))
