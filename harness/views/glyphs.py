"""Fonts that can draw the text of a figure, and a warning that names the letters no font here has."""

import warnings
from functools import cache

from matplotlib import font_manager

_PREFERRED = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Arial Unicode MS", "Hiragino Sans")


class MissingGlyphs(UserWarning):
    """A figure shows boxes for letters that none of the installed fonts has."""


def families(text: str) -> list[str]:
    """Font families in the order to try them, enough for every letter of ``text`` where possible.

    Warns with `MissingGlyphs` about letters that no installed font has.
    """
    missing = {letter for letter in text if letter.isprintable() and not letter.isspace()}
    chosen = ["DejaVu Sans"]
    missing -= _letters("DejaVu Sans")
    for family in _candidates() if missing else ():
        found = {letter for letter in missing if letter in _letters(family)}
        if found:
            chosen.append(family)
            missing -= found
        if not missing:
            break
    if missing:
        _warn_about(missing)
    return chosen


def _warn_about(missing: set[str]) -> None:
    shown = "".join(sorted(missing)[:20])
    warnings.warn(f"no installed font draws {shown!r}: figures show boxes for them", MissingGlyphs, stacklevel=3)


@cache
def _candidates() -> tuple[str, ...]:
    """Installed families, the likely ones first; not the "last resort" fonts, which draw a box for everything."""
    installed = [name for name in _files() if not name.startswith(("Last Resort", "DejaVu Sans Display"))]
    return tuple(sorted(installed, key=lambda name: (_PREFERRED.index(name) if name in _PREFERRED else 99, name)))


@cache
def _files() -> dict[str, str]:
    return {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}


@cache
def _letters(family: str) -> frozenset[str]:
    return frozenset(map(chr, font_manager.get_font(_files()[family]).get_charmap()))
