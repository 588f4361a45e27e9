"""What a model writes with heads ablated, beside what it writes with all of them."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.ablation.ablation_context import spec_of
from harness.ablation.from_spec import AblationRequest
from harness.ablation.head_ablation import Heads
from harness.behaviour.stage import TextStage, name_of
from harness.behaviour.text_table import texts_table
from harness.behaviour.writer import Writer
from harness.config import RequestError
from harness.execute import run_in_memory
from harness.models.generation import check_writes
from harness.prompts import Prompts, load_prompts
from harness.words import common_start

if TYPE_CHECKING:
    from harness.models import Model


@dataclass(frozen=True)
class Texts:
    """Texts of the clean and the ablated model, a row for each text and set of heads; shows them side by side.

    Columns of `table`: ``prompt`` (the text's number), ``text``, ``set``, ``heads`` (joined by ``;``), ``clean``,
    ``ablated`` (both with the text before them, but of an encoder-decoder), ``parts_at`` (the number of the first new
    token that differs; NaN where none does), and there ``clean_token`` and ``ablated_token`` with the probability of
    each by the clean and by the ablated model: ``clean_token_clean``, ``clean_token_ablated``, ``ablated_token_clean``,
    ``ablated_token_ablated``. ``first_head`` names the head of the set whose ablation alone changes the text soonest,
    where it was requested.

    >>> import harness
    >>> model = harness.load_model("planted")
    >>> harness.compare_texts(model, " da ko mi da ko", model.truth["induction"], max_new_tokens=2)
    Texts(1 texts, 1 of which change)
    """

    table: pd.DataFrame

    def __repr__(self) -> str:
        changed = int(np.isfinite(self.table["parts_at"]).sum())
        return f"Texts({len(self.table)} texts, {changed} of which change)"

    def _repr_html_(self) -> str:
        """Return the texts side by side, what is written after they part in bold."""
        rows = "".join(_row(row) for row in self.table.to_dict("records"))
        titles = "".join(f'<th align="left">{name}</th>' for name in ("without", "clean", "ablated", "parts"))
        return f"<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>"


def compare_texts(
    model: "Model",
    texts: "str | Sequence[str] | Prompts",
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

    `texts` are texts, or prompts (``load_prompts([text], model, chat=True)`` for messages in a chat template). `heads`
    is one set, or several by name. Ablations are those of `harness.ablated`, a mean over `prompts`, by default those
    that are continued; positions may be ``last`` or numbers from a text's end too, and there z may come from a donor
    (``resample``, ``patch``). Text is greedy; with a `seed` it is sampled at `temperature`, from the same seed for
    every model, so that texts part only where the models do. With `singly` each head of a set is also ablated alone, to
    name the one that changes the text soonest.

    Raises `RequestError` for a model that writes no text, a text that is empty or too long, and what `harness.ablated`
    refuses.

    >>> import harness
    >>> model = harness.load_model("planted")
    >>> induction = model.truth["induction"]
    >>> texts = harness.compare_texts(model, " da ko mi da ko", induction, max_new_tokens=2)
    >>> texts.table["parts_at"].tolist()
    [0.0]
    """
    check_writes(model)
    if isinstance(texts, Prompts):
        prompts = prompts or texts
    else:
        listed = [texts] if isinstance(texts, str) else [*texts]
        if not listed:
            raise RequestError("texts", "[]", "give one or more texts")
        texts = load_prompts(listed, model, scored=False)
    if temperature <= 0:
        raise RequestError("temperature", temperature, "give a number above 0; without a seed text is greedy")
    spec = spec_of(ablation)
    named = {"": heads} if not isinstance(heads, Mapping) else heads
    sets = {str(name): () if _empty(some) else model.heads(some) for name, some in named.items()}
    sets = {name or name_of(some): some for name, some in sets.items()}
    writer = Writer(model, texts, spec, prompts, max_new_tokens, seed, temperature)
    stage = TextStage(writer, sets, {}, singly)
    table = texts_table(texts.dataset().merge(run_in_memory(stage)))
    return Texts(table.drop(columns=["draw"] if singly else ["draw", "first_head"]))


def _empty(heads: Any) -> bool:
    return isinstance(heads, Sequence) and not len(heads)


def _row(row: Mapping[str, Any]) -> str:
    clean, changed = str(row["clean"]), str(row["ablated"])
    same = common_start(clean, changed)
    cells = [str(row["set"]), *(f"{each[:same]}\0{each[same:]}" for each in (clean, changed))]
    shown = [html.escape(cell).replace("\0", "<b>", 1) + "</b>" * ("\0" in cell) for cell in cells]
    where = "nowhere"
    if np.isfinite(row["parts_at"]):
        where = f"after {int(row['parts_at'])} tokens: {html.escape(repr(row['clean_token']))} "
        where += f"{row['clean_token_clean']:.2f} → {row['clean_token_ablated']:.2f}"
    cells = [*shown, where]
    return "<tr>" + "".join(f'<td style="text-align:left;vertical-align:top">{cell}</td>' for cell in cells) + "</tr>"
