"""Align pieces with their text, for tokenizers and segmenters that give strings but no offsets.

They may normalise the text (NFKC), lower-case it or drop marks and white space, and hide what an unknown piece stood
for. Text and pieces are compared in a form in which that makes no difference, the strictest form first.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise

import regex

Span = tuple[int, int]
Form = Callable[[str], str]

CLUSTER = regex.compile(r"\X")


def align(text: str, pieces: Sequence[str | None]) -> list[Span] | None:
    """Return the span of each piece in the text, in order; ``None`` if they do not spell it in any form.

    A piece ``None`` is unknown: it stands for at least one character, and adjacent unknown pieces divide the text
    between the known ones evenly. A piece of which nothing is left in the form has an empty span.
    """
    forms = (_in_form(text, pieces, form) for form in (_compatible, _folded, _bare))
    return next((spans for spans in forms if spans is not None), None)


def _compatible(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def _folded(text: str) -> str:
    kept = _compatible(_compatible(text).casefold())
    return "".join(letter for letter in kept if unicodedata.category(letter) not in ("Cc", "Cf"))


def _bare(text: str) -> str:
    apart = unicodedata.normalize("NFD", _folded(text))
    return "".join(letter for letter in apart if unicodedata.category(letter) != "Mn")


def _in_form(text: str, pieces: Sequence[str | None], form: Form) -> list[Span] | None:
    letters = list(_letters(text, form))
    written = "".join(letter for letter, _ in letters)
    ranges = _ranges(written, [None if piece is None else form(piece) for piece in pieces])
    if ranges is None:
        return None
    begins = [span[0] for _, span in letters] + [len(text)]
    return [(begins[lo], letters[hi - 1][1][1] if hi > lo else begins[lo]) for lo, hi in ranges]


def _letters(text: str, form: Form) -> Iterator[tuple[str, Span]]:
    """Yield the letters of the text in a form, each with the span it comes from; where a form joins or parts the
    characters of a grapheme cluster, all of them have the span of the cluster."""
    for match in CLUSTER.finditer(text):
        changed, (start, end) = form(match[0]), match.span()
        one_by_one = [form(letter) for letter in match[0]]
        if "".join(one_by_one) == changed:
            for at, made in enumerate(one_by_one, start):
                yield from ((letter, (at, at + 1)) for letter in made)
        else:
            yield from ((letter, (start, end)) for letter in changed)


def _ranges(written: str, pieces: Sequence[str | None]) -> list[Span] | None:
    """Return the range of each piece in `written`. Known runs between unknown pieces are matched leftmost (the last one
    at the end), which succeeds wherever any alignment does."""
    ranges, at, unknown = list[Span](), 0, 0
    runs = [(known, list(run)) for known, run in groupby(pieces, key=lambda piece: piece is not None)]
    for number, (known, run) in enumerate(runs):
        if not known:
            unknown = len(run)
            continue
        whole = "".join(map(str, run))
        begin = _place(written, whole, at, unknown, last=number == len(runs) - 1)
        if begin is None:
            return None
        ranges += _shared(at, begin, unknown)
        at, unknown = begin, 0
        for piece in run:
            ranges.append((at, at + len(str(piece))))
            at += len(str(piece))
    if (unknown and len(written) - at < unknown) or (not unknown and at != len(written)):
        return None
    return ranges + _shared(at, len(written), unknown)


def _place(written: str, whole: str, at: int, unknown: int, last: bool) -> int | None:
    """Return where a run of known pieces begins after `unknown` unknown ones."""
    if not unknown:
        return at if written.startswith(whole, at) else None
    if last:
        begin = len(written) - len(whole)
        return begin if begin >= at + unknown and written.endswith(whole) else None
    begin = written.find(whole, at + unknown)
    return None if begin < 0 else begin


def _shared(start: int, end: int, n: int) -> list[Span]:
    """Divide a range evenly among `n` pieces."""
    border = [start + round(part * (end - start) / n) for part in range(n + 1)] if n else []
    return list(pairwise(border))
