"""Docstrings for the reference: examples become blocks of code, which Markdown would take for quotations."""

from itertools import groupby
from typing import Any

import griffe


def with_blocks(text: str) -> str:
    """Return a docstring whose examples, from ``>>>`` to the next empty line, are blocks of code.

    >>> print(with_blocks("Add.\\n\\n>>> 1 + 1\\n2\\n\\nMore."))
    Add.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    <BLANKLINE>
    More.
    """
    paragraphs = []
    for blank, lines in groupby(text.split("\n"), key=lambda line: not line.strip()):
        some = list(lines)
        if not blank and some[0].startswith(">>> "):
            some = ["```pycon", *some, "```"]
        paragraphs += some
    return "\n".join(paragraphs)


class Examples(griffe.Extension):
    """Rewrite every docstring as it is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = with_blocks(obj.docstring.value)
