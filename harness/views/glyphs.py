"""Find fonts that can draw the text of a figure, and warn of letters that no font has.

Matplotlib keeps a list of fonts on disk and reads it at every start. Where it lacks a letter, the system's folders are
read anew: fonts that were installed since are used at once, in a notebook that was open meanwhile too, and the list on
disk is made anew if it is older than they are. Where no font of the system has Japanese letters, IPAexGothic is taken
from the package matplotlib-fontja (the extra ``ja``) by its path: importing that package would change the fonts of
every figure in the process.
"""

import os
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager

_PREFERRED = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Arial Unicode MS", "Hiragino Sans")


class MissingGlyphs(UserWarning):
    """A figure shows boxes for letters that none of the installed fonts has."""


def families(text: str) -> list[str]:
    """Return font families in the order to try them, enough for every letter of ``text`` where possible.

    Warns with `MissingGlyphs` about letters that no installed font has.
    """
    missing = {letter for letter in text if letter.isprintable() and not letter.isspace()}
    chosen = ["DejaVu Sans"]
    missing -= _letters("DejaVu Sans")
    for family in _candidates() if missing else ():
        covered = {letter for letter in missing if letter in _letters(family)}
        if covered:
            chosen.append(family)
            missing -= covered
        if not missing:
            break
    if missing:
        _warn_about(missing)
    return chosen


def _warn_about(missing: set[str]) -> None:
    shown = "".join(sorted(missing)[:20])
    japanese = any(map(_is_japanese, missing))
    remedy = (
        "; for a font that has them: pip install matplotlib-fontja" if japanese else "; install a font that has them"
    )
    message = f"no installed font draws {shown!r}: figures show boxes for them{remedy}"
    warnings.warn(message, MissingGlyphs, stacklevel=3)


def _is_japanese(letter: str) -> bool:
    """Whether a letter is kana, kanji, or a full-width form."""
    return "\u3000" <= letter <= "\u30ff" or "\u4e00" <= letter <= "\u9fff" or "\uff00" <= letter <= "\uffef"


def _candidates() -> Iterator[str]:
    """Yield installed families, the likely ones first, without "last resort" fonts, which draw a box for everything.

    Then those that were installed since matplotlib made its list, and the font that comes in a package.
    """
    yield from _sorted(_known())
    yield from _sorted(_new())
    yield from _packaged()


def _sorted(names: Iterable[str]) -> list[str]:
    usable = {name for name in names if not name.startswith(("Last Resort", "DejaVu Sans Display"))}
    return sorted(usable, key=lambda name: (_PREFERRED.index(name) if name in _PREFERRED else 99, name))


def _known() -> tuple[str, ...]:
    """Return the families in matplotlib's list whose file still exists."""
    return tuple({entry.name for entry in font_manager.fontManager.ttflist if os.path.isfile(entry.fname)})


def _new() -> tuple[str, ...]:
    """Add the system's fonts that matplotlib's list lacks, and return their families; the list on disk is made anew if
    it is older than one of them."""
    listed = {entry.fname for entry in font_manager.fontManager.ttflist}
    _forget_installed()
    paths = [path for path in font_manager.findSystemFonts() if path not in listed]
    names = [name for path in paths for name in _added(path)]
    if names and _is_older(_list_path(), paths):
        font_manager.json_dump(font_manager.FontManager(), str(_list_path()))
    return tuple(names)


def _forget_installed() -> None:
    """Let matplotlib ask the system again which fonts it has."""
    installed: Any = getattr(font_manager, "_get_fontconfig_fonts", None)  # private: of another version it may be gone
    if installed is not None:
        installed.cache_clear()


def _list_path() -> Path:
    """Return the path of matplotlib's list of fonts on disk."""
    return Path(mpl.get_cachedir(), f"fontlist-v{font_manager.FontManager.__version__}.json")


def _is_older(path: Path, others: Iterable[str]) -> bool:
    """Whether a file is older than one of the others, or is not there.

    A package manager keeps the time at which a font was made; the time of its entry is when it was installed.
    """
    if not path.is_file():
        return True
    times = (os.stat(other) for other in others if os.path.isfile(other))
    return any(max(each.st_mtime, each.st_ctime) > path.stat().st_mtime for each in times)


@cache
def _packaged() -> tuple[str, ...]:
    """Return IPAexGothic, where the package that carries it is installed."""
    package = find_spec("matplotlib_fontja")
    path = Path(package.origin).parent / "fonts" / "ipaexg.ttf" if package and package.origin else None
    return _added(str(path)) if path is not None and path.is_file() else ()


@cache
def _added(path: str) -> tuple[str, ...]:
    """Add a font file to matplotlib's list and return its families; none if it cannot be read."""
    before = len(font_manager.fontManager.ttflist)
    try:
        font_manager.fontManager.addfont(path)
    except (OSError, RuntimeError):
        return ()
    return tuple({entry.name for entry in font_manager.fontManager.ttflist[before:]})


def _letters(family: str) -> frozenset[str]:
    paths = (entry.fname for entry in font_manager.fontManager.ttflist if entry.name == family)
    return _letters_of(next(filter(os.path.isfile, paths)))


@cache
def _letters_of(path: str) -> frozenset[str]:
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
