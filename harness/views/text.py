"""User text on its way into a page or a picture: always text, never markup, and every character visible."""

import html
import json
import unicodedata

_SIGNS = {"\n": "↵", "\t": "⇥"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, bidi marks, zero-width signs, lone surrogates …


def visible(text: str) -> str:
    """The text with what cannot be seen spelled out: NUL as ⟨U+0000⟩, a newline as ↵, only blanks as ␣."""
    shown = "".join(map(_sign, str(text)))
    return shown if shown.strip() else "␣" * max(len(shown), 1)


def _sign(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    hidden = unicodedata.category(character) in _HIDDEN
    return f"⟨U+{ord(character):04X}⟩" if hidden else character


def short(text: str, limit: int = 14) -> str:
    """Trimmed and cut for a label; the cut is shown."""
    trimmed = text.strip() or text
    return trimmed if len(trimmed) <= limit else trimmed[: limit - 1] + "…"


def markup(text: object) -> str:
    """Any value as HTML text or attribute value."""
    return html.escape(visible(str(text)), quote=True)


def json_block(value: object) -> str:
    """JSON that can stand inside a <script> element: ASCII only, no ``<``, ``>`` or ``&``."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
