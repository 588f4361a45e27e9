"""Escape user text for pages and pictures: always text, never markup, and every character visible."""

import html
import json
import unicodedata

import regex

#: Joiners that make one sign of their neighbours: between emoji, and between letters of scripts that join.
_JOINED = regex.compile(
    r"(?<=[\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f])\u200d(?=\p{Extended_Pictographic})|"
    r"(?V1)(?<=[[\p{Arabic}\p{Syriac}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Oriya}\p{Tamil}\p{Telugu}"
    r"\p{Kannada}\p{Malayalam}\p{Sinhala}\p{Khmer}]&&[\p{L}\p{M}]])[\u200c\u200d](?=[\p{L}\p{M}])"
)
_SIGNS = {"\n": "↵", "\t": "⇥"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, bidi marks, zero-width signs, lone surrogates …


def visible(text: str) -> str:
    """Spell out invisible characters: NUL as ⟨U+0000⟩, a newline as ↵, only blanks as ␣. Joiners within an emoji or a
    word of a joining script stay, since their effect is visible."""
    joiners = {match.start() for match in _JOINED.finditer(str(text))}
    shown = "".join(letter if at in joiners else _sign(letter) for at, letter in enumerate(str(text)))
    return shown if shown.strip() else "␣" * max(len(shown), 1)


def _sign(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    hidden = unicodedata.category(character) in _HIDDEN
    return f"⟨U+{ord(character):04X}⟩" if hidden else character


def short(text: str, limit: int = 14) -> str:
    """Trim and cut a text for a label; the cut is marked by an ellipsis."""
    trimmed = text.strip() or text
    return trimmed if len(trimmed) <= limit else trimmed[: limit - 1] + "…"


def markup(text: object) -> str:
    """Escape any value as HTML text or attribute value."""
    return html.escape(visible(str(text)), quote=True)


def json_block(value: object) -> str:
    """Write JSON that is safe inside a <script> element: ASCII only, no ``<``, ``>`` or ``&``."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
