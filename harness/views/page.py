"""Build one HTML page: template, style, scripts, data, and a content security policy without network access."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from string import Template

from harness.views.circuitsvis import bundle
from harness.views.pack import pack_text
from harness.views.text import json_block, markup

_SCRIPTS = (
    *("fit", "unpack", "draw", "patterns", "scores", "controls", "tables", "save", "scales", "tabs", "search", "keys"),
    *("address", "map", "ranking", "inspector", "head", "headview", "modelview", "compare", "sources", "layouts"),
    *("charts", "app"),
)


def page(
    title: str,
    body: str,
    data: dict,
    circuitsvis: bool,
    kind: str = "report",
    scripts: Sequence[str] = _SCRIPTS,
    style: str = "",
    asking: str = "",
) -> str:
    """Return the page's HTML. ``body`` is our own markup; ``data`` holds user text and goes in as escaped JSON.

    A static page has no ``scripts``; ``style`` comes after the shared style. With ``asking``, that script replaces all
    others, and the policy allows those that it will fetch.
    """
    own = [code_of(scripts)] if scripts else []
    code = asking or "".join(own)
    run = ([code] if code else []) + ([bundle()] if circuitsvis else []) + (own if asking else [])
    return Template(asset("page.html")).substitute(
        policy=_policy(run),
        title=markup(title),
        style=asset("page.css") + asset("charts.css") + style,
        body=body,
        kind=kind,
        data=json_block(data),
        circuitsvis=_library() if circuitsvis and not asking else "",
        code=f"<script>{code}</script>" if code else "",
    )


def code_of(scripts: Sequence[str] = _SCRIPTS) -> str:
    """Join the scripts of a page to one."""
    return "(() => {\n'use strict';\n" + "\n".join(asset(f"{name}.js") for name in scripts) + "\n})();"


@cache
def version() -> str:
    """Return a hash of the template, the style and the scripts of a report: of what it looks like, without data."""
    shell = (asset(name) for name in ("page.html", "page.css", "charts.css"))
    return hashlib.sha256("\0".join((*shell, code_of())).encode()).hexdigest()


@cache
def asset(name: str) -> str:
    """Read a file in ``assets/``."""
    return (files("harness.views") / "assets" / name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Return CircuitsVis in a script element, packed to a third of its size; the page unpacks it on first use."""
    return f'<script type="application/json" id="circuitsvis">{library()}</script>'


@cache
def library() -> str:
    """Return CircuitsVis as packed text, JSON."""
    return json_block(pack_text(bundle()))


def _policy(scripts: list[str]) -> str:
    """Return the policy: only our own scripts run, named by their hash; no request of any kind is allowed."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
