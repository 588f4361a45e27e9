"""Views in a notebook: each in a sandboxed frame of its own, with one copy of the scripts for all of them.

The first view of a kernel puts the scripts (CircuitsVis is half a megabyte) into the notebook's page; every frame
requests them by message, and runs only scripts whose hash its own policy names. By message too a frame reports how high
its page is, and the notebook's page sets its height; where no script listens, a frame has the height that was estimated
from its content. Where outputs are isolated from each other (Colab), and outside notebooks, each view has its own copy.

A notebook that is not trusted shows neither: JupyterLab removes scripts and frames, and leaves the text inside a frame,
which says how to see it.
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
from harness.views.page import asset, code_of, library, page
from harness.views.text import json_block, short, visible

#: The cell of this kernel whose output holds the scripts, by their key; it holds them again when run again.
_held_by: dict[str, object] = {}
#: What is left of a frame in a notebook that is not trusted.
_UNTRUSTED = "This view of attention-harness is hidden until the notebook is trusted, or its cell is run again."


@dataclass(frozen=True)
class View:
    """A page that shows itself in a notebook, offline and in a sandbox.

    `html` is self-contained, `height` an estimate of its height in pixels. `framed` is the page as a notebook's frame
    has it (default: `html`): where it `draws` it requests its scripts from the notebook.

    >>> import harness
    >>> view = harness.look("planted", " da ko da").head("L1H4")
    >>> view
    View(L1H4 · da ko da)
    >>> [axes.get_xlabel() for axes in view.figure().axes]
    ['key (attended to)']
    """

    html: str
    height: int = 860
    framed: str = ""
    draws: bool = False
    title: str = ""
    #: Draws the same as a matplotlib figure, where there is one.
    draw: Callable[[], Any] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"View({short(visible(self.title), 100)})"

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
    if shell is None:
        return _frame(view.html, view.height)
    cell = shell.get_parent().get("metadata", {}).get("cellId", shell.execution_count)
    holds = view.draws and _held_by.setdefault(_key(), cell) == cell
    kit = f"kits[{json.dumps(_key())}] = {_scripts()};" if holds else ""
    share = asset("share.js").replace("/* kits */", kit)
    return f"{_frame(view.framed or view.html, view.height)}<script>{share}</script>"


def static_view(title: str, body: str, height: int, style: str = "") -> View:
    """Return the view of a page without scripts; in a notebook's frame it has one, which reports its height."""
    made = [page(title, body, {}, False, "view", (), style, asking) for asking in ("", asset("fit.js"))]
    return View(made[0], height, framed=made[1], title=title)


def asking() -> str:
    """Return the script of a page that requests its scripts from the notebook."""
    return asset("ask.js").replace("$key", _key())


def _frame(inner: str, height: int) -> str:
    inside = html.escape(inner, quote=True)
    style = f"width:100%;height:{height}px;border:0;color-scheme:light dark"
    opening = f'<iframe sandbox="allow-scripts" title="attention-harness" style="{style}" srcdoc="{inside}">'
    return f"{opening}{_UNTRUSTED}</iframe>"


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
