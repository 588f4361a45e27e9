"""Where z is replaced: everywhere, at the last token, at the scored positions, at named ones, or at each in turn."""

from collections.abc import Iterable

import numpy as np

from harness.config import RequestError
from harness.hooks import Part
from harness.prompts import Prompts

#: For each row of a batch, the positions at which z is replaced.
Places = tuple[tuple[int, ...], ...]


def turns(asked: str | tuple[int, ...], rows: Prompts) -> list[Places | None]:
    """Where to ablate: in one go, or for ``each`` in as many as the longest row has positions. `None` is everywhere.

    A row that ends before a turn's position has nothing replaced in that turn.
    """
    lengths = rows.length.tolist()
    match asked:
        case "all":
            return [None]
        case "last":
            return [tuple((length - 1,) for length in lengths)]
        case "target":
            return [tuple(tuple(np.flatnonzero(row).tolist()) for row in rows.target)]
        case "each":
            return [tuple((at,) if at < length else () for length in lengths) for at in range(max(lengths))]
    named = [{at % length: None for at in asked} for length in lengths if isinstance(asked, tuple)]
    return [tuple(tuple(sorted(places)) for places in named)]


def check(asked: str | tuple[int, ...], prompts: Prompts, heads: Iterable[Part], causal: bool) -> None:
    """Raise `RequestError` for a position that some prompt does not have, with that prompt and its length; for heads
    that have no such positions (those of an encoder read the source, and positions are of what is written); and, in a
    `causal` model, for positions that all come after the last scored one, so that no effect could differ from 0."""
    if asked != "all" and prompts.source is not None and any(head.stack == "encoder" for head in heads):
        remedy = "positions are those of what is written; leave the encoder out: heads=[decoder,cross]"
        raise RequestError("ablation.positions", asked if isinstance(asked, str) else list(asked), remedy)
    if asked == "target" and not prompts.target.any():
        raise RequestError("ablation.positions", "target", f"{prompts.name} has no scored positions; say all or last")
    if causal and asked != "each" and _after_all_scored(asked, prompts):
        name, remedy = ("last", "target") if asked == "last" else (list(asked), "target, all or earlier ones")
        where = "every prompt's last token comes" if asked == "last" else "these come"
        raise RequestError(
            "ablation.positions",
            name,
            f"{where} after the last scored position, so that every effect would be 0; use {remedy}",
        )
    if isinstance(asked, str):
        return
    for number, length in enumerate(prompts.length.tolist()):
        outside = [at for at in asked if not -length <= at < length]
        if outside:
            raise RequestError(
                "ablation.positions",
                list(asked),
                f"position {outside[0]} is outside prompt {number} ({prompts.text[number][:30]!r}), which has {length} "
                f"tokens: 0 to {length - 1}, or -{length} to -1 from its end",
            )


def _after_all_scored(asked: str | tuple[int, ...], prompts: Prompts) -> bool:
    """Whether every replaced position comes after the last prediction that is scored, in every prompt that has one."""
    (places, *_) = turns(asked, prompts)
    if places is None or not prompts.target.any():
        return False
    last = [int(np.flatnonzero(row)[-1]) if row.any() else -1 for row in prompts.target]
    return all(at > end for some, end in zip(places, last, strict=True) for at in some)
