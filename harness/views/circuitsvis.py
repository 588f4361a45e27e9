"""CircuitsVis offline: one copy of its script for a page, and the components that are safe with user text.

CircuitsVis escapes nothing, and most of its components write tokens as HTML. `COMPONENTS` draw them on a canvas (as
text) and are the only ones our pages call; the page's policy would refuse a script in a token all the same. The package
itself is never imported: that would import torch, and its Python side requests an outside web site before it draws.
"""

import importlib.util
from functools import cache
from pathlib import Path

COMPONENTS = ("AttentionPattern",)


@cache
def bundle() -> str:
    """Return the package's script, safe inside one <script> element.

    Raises ModuleNotFoundError when circuitsvis is not installed.
    """
    spec = importlib.util.find_spec("circuitsvis")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("circuitsvis is not installed: pip install circuitsvis")
    text = (Path(spec.origin).parent / "dist" / "cdn" / "iife.js").read_text(encoding="utf-8")
    code = text.partition("//# sourceMappingURL=")[0]
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
