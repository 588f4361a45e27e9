"""What a model writes with heads ablated, beside what it writes with all of them."""

import html
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from harness.ablation.ablation_context import ablated
from harness.ablation.from_spec import AblationRequest
from harness.ablation.head_ablation import Heads
from harness.config import RequestError
from harness.hooks import Head
from harness.models.generation import Choose, greedy, readable, sampler, spelled, written

if TYPE_CHECKING:
    from harness.models import Model
    from harness.prompts import Prompts


#: What stands in the columns about a parting where there is none.
_SAME: dict[str, Any] = {
    f"{token}_token{by}": "" if not by else np.nan
    for token in ("clean", "ablated")
    for by in ("", "_clean", "_ablated")
}


@dataclass(frozen=True)
class Texts:
    """Texts of the clean and the ablated model, a row for each text and set of heads; shows them side by side.

    Columns of `table`: ``text``, ``set``, ``clean``, ``ablated`` (both with the text before them, but of an
    encoder-decoder), ``parts_at`` (the number of the first new token that differs; NaN where none does), and there
    ``clean_token`` and ``ablated_token`` with the probability of each by the clean and by the ablated model:
    ``clean_token_clean``, ``clean_token_ablated``, ``ablated_token_clean``, ``ablated_token_ablated``. ``first_head``
    names the head of the set whose ablation alone changes the text soonest, where it was requested.
    """

    table: pd.DataFrame

    def __repr__(self) -> str:
        changed = sum(np.isfinite(at) for at in self.table["parts_at"])
        return f"Texts({len(self.table)} texts, {changed} of which change)"

    def _repr_html_(self) -> str:
        """Return the texts side by side, what is written after they part in bold."""
        rows = "".join(_row(row) for row in self.table.to_dict("records"))
        titles = "".join(f'<th align="left">{name}</th>' for name in ("without", "clean", "ablated", "parts"))
        return f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>"


def compare_texts(
    model: "Model",
    texts: str | Sequence[str],
    heads: Heads | Mapping[str, Heads],
    ablation: AblationRequest = "zero",
    *,
    prompts: "Prompts | None" = None,
    max_new_tokens: int = 20,
    seed: int | None = None,
    temperature: float = 1.0,
    singly: bool = False,
) -> Texts:
    """Continue texts by the clean model and with heads ablated, and state where and how surely the texts part.

    `heads` is one set, or several by name. Ablations and `prompts` are those of `harness.ablated`. Text is greedy;
    with a `seed` it is sampled at `temperature`, from the same seed for every model, so that texts part only where the
    models do. With `singly` each head of a set is also ablated alone, to name the one that changes the text soonest.

    Raises `RequestError` for a model that writes no text, a text that is empty or too long, and what `harness.ablated`
    refuses.

    >>> import harness
    >>> model = harness.load_model("planted")
    >>> induction = model.truth["induction"]
    >>> texts = harness.compare_texts(model, " da ko mi da ko", induction, max_new_tokens=2)
    >>> texts.table["parts_at"].tolist()
    [0]
    """
    texts = [texts] if isinstance(texts, str) else [*texts]
    if not texts:
        raise RequestError("texts", "[]", "give one or more texts")
    if temperature <= 0:
        raise RequestError("temperature", temperature, "give a number above 0; without a seed text is greedy")
    named = heads if isinstance(heads, Mapping) else {_name_of(model, heads): heads}
    sets = {str(name): some for name, some in named.items()}
    writer = _Writer(model, ablation, prompts, max_new_tokens, seed, temperature)
    rows = []
    for text in texts:
        read = readable(model, text, max_new_tokens)
        clean = writer.write(read, [])
        for name, some in sets.items():
            row = writer.compared(text, read, clean, writer.write(read, some))
            first = {"first_head": writer.first(read, clean, model.heads(some))} if singly else {}
            rows.append({"text": text, "set": name, **row, **first})
    table = pd.DataFrame(rows)
    return Texts(table.assign(parts_at=pd.to_numeric(table["parts_at"])))


@dataclass(frozen=True)
class _Writer:
    """Writes after texts, with heads ablated or none."""

    model: "Model"
    ablation: AblationRequest
    prompts: "Prompts | None"
    max_new_tokens: int
    seed: int | None
    temperature: float

    def write(self, read: Sequence[int], heads: Any) -> list[tuple[int, torch.Tensor]]:
        """Return the new tokens, each with its logits; an empty list of heads is the clean model."""
        nothing = isinstance(heads, Sequence) and not len(heads)
        context = nullcontext() if nothing else ablated(self.model, heads, self.ablation, prompts=self.prompts)
        with context, self.model.alone():
            return [*written(self.model, read, self.max_new_tokens, self._choose())]

    def _choose(self) -> Choose:
        return greedy if self.seed is None else sampler(self.seed, self.temperature, self.model.device)

    def compared(
        self, text: str, read: Sequence[int], clean: list[tuple[int, Any]], changed: list[tuple[int, Any]]
    ) -> dict[str, Any]:
        """Return the row of two texts."""
        spell = [spelled(self.model, text, read, [token for token, _ in each]) for each in (clean, changed)]
        row: dict[str, Any] = {"clean": spell[0], "ablated": spell[1], "parts_at": parting(clean, changed), **_SAME}
        if row["parts_at"] is None:
            return row
        (mine, clean_logits), (other, changed_logits) = clean[row["parts_at"]], changed[row["parts_at"]]
        by = {"clean": clean_logits.float().softmax(-1), "ablated": changed_logits.float().softmax(-1)}
        for token, name in ((mine, "clean"), (other, "ablated")):
            row[f"{name}_token"] = self.model.tokenizer.decode([token])
            row |= {f"{name}_token_{whose}": float(share[token]) for whose, share in by.items()}
        return row

    def first(self, read: Sequence[int], clean: list[tuple[int, Any]], heads: Sequence[Head]) -> str:
        """Return the head whose ablation alone changes the text soonest; empty where none does."""
        parts = [(parting(clean, self.write(read, [head])), head) for head in heads]
        known = [(at, number, head) for number, (at, head) in enumerate(parts) if at is not None]
        return str(min(known)[2]) if known else ""


def parting(first: Sequence[tuple[int, Any]], second: Sequence[tuple[int, Any]]) -> int | None:
    """Return the number of the first new token in which two texts differ; None where they are the same.

    A text that ends has its end-of-text token as the last, so one is never the beginning of the other.
    """
    differ = (at for at, ((a, _), (b, _)) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differ, None)


def _name_of(model: "Model", heads: Any) -> str:
    """Name a set by its heads."""
    nothing = isinstance(heads, Sequence) and not len(heads)
    named = [] if nothing else [str(head) for head in model.heads(heads)]
    return ", ".join(named[:6]) + (f" and {len(named) - 6} more" if len(named) > 6 else "") or "no heads"


def _row(row: Mapping[str, Any]) -> str:
    clean, changed = str(row["clean"]), str(row["ablated"])
    same = next((at for at, (a, b) in enumerate(zip(clean, changed, strict=False)) if a != b), None)
    same = min(len(clean), len(changed)) if same is None else same
    cells = [str(row["set"]), *(f"{each[:same]}\0{each[same:]}" for each in (clean, changed))]
    shown = [html.escape(cell).replace("\0", "<b>", 1) + "</b>" * ("\0" in cell) for cell in cells]
    where = "nowhere"
    if row["parts_at"] is not None and np.isfinite(row["parts_at"]):
        where = f"after {int(row['parts_at'])} tokens: {html.escape(repr(row['clean_token']))} "
        where += f"{row['clean_token_clean']:.2f} → {row['clean_token_ablated']:.2f}"
    cells = [*shown, where]
    return "<tr>" + "".join(f'<td style="text-align:left;vertical-align:top">{cell}</td>' for cell in cells) + "</tr>"
