"""Views in a notebook: each in a sandboxed frame of its own, with one copy of the scripts for all of them.

The first view of a kernel puts the scripts (CircuitsVis is half a megabyte) into the notebook's page; every frame
requests them by message, and runs only scripts whose hash its own policy names. Where outputs are isolated from each
other (Colab), and outside notebooks, each view has its own copy.
"""

import hashlib
import html
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from harness.config import RequestError
from harness.results.objects import Folder, folder_at
from harness.views.page import asset, code_of, library
from harness.views.text import json_block

#: The cell of this kernel whose output holds the scripts, by their key; it holds them again when run again.
_held_by: dict[str, object] = {}


@dataclass(frozen=True)
class View:
    """A page that shows itself in a notebook, offline and in a sandbox.

    `html` is self-contained; `asking` is the same page without its scripts, which it requests from the notebook (empty
    for a page without scripts).
    """

    html: str = field(repr=False)
    height: int = 860
    asking: str = field(default="", repr=False)
    #: Draws the same as a matplotlib figure, where there is one.
    draw: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        return shown(self)

    def with_figure(self, draw: Callable[[], Any]) -> "View":
        """The same view with a figure of its own."""
        return replace(self, draw=draw)

    def figure(self) -> Any:
        """The view as a matplotlib figure. Raises `RequestError` where there is none."""
        if self.draw is None:
            raise RequestError("figure", "none", "this view is a page only: save it as .html")
        return self.draw()

    def save(self, path: str | Folder) -> Folder:
        """Write the page to a file, or the figure where the name ends in .svg, .png or .pdf; returns its path."""
        path, suffix = folder_at(path), str(path).rpartition(".")[2].lower()
        if suffix in ("svg", "png", "pdf"):
            from harness.views.figures.base import written

            path.write_bytes(written(self.figure(), suffix))
        elif suffix in ("html", "htm"):
            path.write_text(self.html, encoding="utf-8")
        else:
            raise RequestError("path", path, "end the name in .html, .svg, .png or .pdf")
        return path


def shown(view: View) -> str:
    """Return the markup that a notebook shows."""
    shell = _shell()
    if shell is None or not view.asking:
        return _frame(view.html, view.height)
    cell = shell.get_parent().get("metadata", {}).get("cellId", shell.execution_count)
    kit = f"kits[{json.dumps(_key())}] = {_scripts()};" if _held_by.setdefault(_key(), cell) == cell else ""
    return _frame(view.asking, view.height) + f"<script>{asset('share.js').replace('/* kits */', kit)}</script>"


def asking() -> str:
    """Return the script of a page that requests its scripts from the notebook."""
    return asset("ask.js").replace("$key", _key())


def _frame(page: str, height: int) -> str:
    inside = html.escape(page, quote=True)
    style = f"width:100%;height:{height}px;border:0;color-scheme:light dark"
    return f'<iframe sandbox="allow-scripts" title="attention-harness" style="{style}" srcdoc="{inside}"></iframe>'


def _shell() -> Any:
    """Return the notebook's kernel, if its outputs share a page."""
    if "google.colab" in sys.modules or "IPython" not in sys.modules:
        return None
    shell = sys.modules["IPython"].get_ipython()
    return shell if hasattr(shell, "kernel") else None


@cache
def _scripts() -> str:
    return json_block({"code": code_of(), "circuitsvis": library()})


@cache
def _key() -> str:
    """Return the key of the scripts' version: one notebook may hold outputs of several."""
    return hashlib.sha256(_scripts().encode()).hexdigest()[:12]
