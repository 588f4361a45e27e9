"""Positions of replaced z: all, the last, the scored, listed ones, or each in turn."""

from collections.abc import Iterable, Sequence

import numpy as np

from harness.config import RequestError
from harness.hooks import Part
from harness.prompts import Prompts

#: The positions of replaced z for each row of a batch.
Places = tuple[tuple[int, ...], ...]


def turns(where: str | tuple[int, ...], rows: Prompts, begins: Sequence[int] | None = None) -> list[Places | None]:
    """Return the positions of each forward: one, or for ``each`` one per position of the longest row; ``None`` is all.

    A row that ends before a turn's position, or whose replacement `begins` after it, has nothing replaced in that turn.
    """
    lengths = rows.length.tolist()
    match where:
        case "all":
            return [None]
        case "last":
            return [tuple((length - 1,) for length in lengths)]
        case "target":
            return [tuple(tuple(np.flatnonzero(row).tolist()) for row in rows.target)]
        case "each":
            ends = list(zip(begins or [0] * len(lengths), lengths, strict=True))
            return [tuple((at,) if start <= at < end else () for start, end in ends) for at in range(max(lengths))]
    named = [{at % length: None for at in where} for length in lengths if isinstance(where, tuple)]
    return [tuple(tuple(sorted(places)) for places in named)]


def check(where: str | tuple[int, ...], prompts: Prompts, heads: Iterable[Part], causal: bool) -> None:
    """Check positions against prompts and heads.

    Raises `RequestError` for a position outside some prompt; for heads of an encoder, whose positions are the source's;
    and, in a `causal` model, for positions that all come after the last scored one, where every effect is 0.
    """
    if where != "all" and prompts.source is not None and any(head.stack == "encoder" for head in heads):
        remedy = "positions are those of what is written; leave the encoder out: heads=[decoder,cross]"
        raise RequestError("ablation.positions", where if isinstance(where, str) else list(where), remedy)
    if where == "target" and not prompts.target.any():
        raise RequestError("ablation.positions", "target", f"{prompts.name} has no scored positions; use all or last")
    if causal and where != "each" and _after_all_scored(where, prompts):
        name, remedy = ("last", "target") if where == "last" else (list(where), "target, all or earlier ones")
        which = "every prompt's last token comes" if where == "last" else "these come"
        raise RequestError(
            "ablation.positions",
            name,
            f"{which} after the last scored position, so that every effect would be 0; use {remedy}",
        )
    if isinstance(where, str):
        return
    for number, length in enumerate(prompts.length.tolist()):
        outside = [at for at in where if not -length <= at < length]
        if outside:
            raise RequestError(
                "ablation.positions",
                list(where),
                f"position {outside[0]} is outside prompt {number} ({prompts.text[number][:30]!r}), which has {length} "
                f"tokens: 0 to {length - 1}, or -{length} to -1 from its end",
            )


def _after_all_scored(where: str | tuple[int, ...], prompts: Prompts) -> bool:
    """Whether every replaced position comes after the last scored prediction, in every prompt that has one."""
    (places, *_) = turns(where, prompts)
    if places is None or not prompts.target.any():
        return False
    last = [int(np.flatnonzero(row)[-1]) if row.any() else -1 for row in prompts.target]
    return all(at > end for some, end in zip(places, last, strict=True) for at in some)
