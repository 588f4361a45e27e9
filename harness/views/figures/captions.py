"""The caption and the numbers of each figure, to lie beside its files in a paper."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.findings import in_words
from harness.hooks import Head
from harness.results.objects import Folder
from harness.results.run import Claim
from harness.views.charts import charts
from harness.views.charts.describe import in_full, measured, number, plain_name
from harness.views.charts.rows import Rows, rows_of
from harness.views.figures.base import letter
from harness.views.figures.effects import STRONGEST, legend, mean_effects
from harness.views.figures.patterns import Matrix, labels_of, opening_patterns
from harness.views.figures.rollout import rollout_panels
from harness.views.selection import shown_prompts
from harness.views.text import visible
from harness.views.token_colours import colour

if TYPE_CHECKING:
    from harness.results import Run

_SHADE = "Queries down, keys across; the shade is the square root of the weight, from 0 to 1."


@dataclass(frozen=True)
class Caption:
    """What lies beside a figure: the name of its files, its caption, and its numbers in rows, titles first."""

    name: str
    text: str
    rows: Rows

    def write(self, folder: Folder) -> list[Folder]:
        """Write ``NAME.txt`` and ``NAME.csv``; returns their paths."""
        content = io.StringIO()
        csv.writer(content, lineterminator="\n").writerows(self.rows)
        files = {f"{self.name}.txt": f"{self.text}\n", f"{self.name}.csv": content.getvalue()}
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        return [folder / name for name in files]


def captions(run: "Run") -> list[Caption]:
    """Return the caption and the numbers of every figure of the run; a chart's are those of the page."""
    return [
        *_effects(run),
        *_patterns(run),
        *(Caption(each["name"], each["caption"], rows_of(each)) for each in charts(run)),
    ]


def saliency_caption(run: "Run", level: str = "word", **options: Any) -> Caption:
    """Return the caption and the scores of the figure of coloured text; ``options`` as in `harness.views.saliency`."""
    shown = colour(run, **options)
    rows: Rows = [["prompt", "at", level, "score"]]
    for text in shown.texts:
        colours = text.by[level]
        scores = zip(colours.axis.labels, colours.score, strict=True)
        rows += [[text.prompt, at, visible(label), number(float(score))] for at, (label, score) in enumerate(scores)]
    return Caption("saliency", _caption(run, f"Text coloured by {shown.what}. {shown.how}"), rows)


def _effects(run: "Run") -> Iterator[Caption]:
    """Describe the maps of effects and the strongest heads."""
    for metric in run.metrics:
        n, name, what = run.data.sizes["prompt"], plain_name(metric), measured(run, metric)
        text = f"Mean effect on {what}, of ablating each head, over {n} prompts: {legend(run, metric)}."
        yield Caption(f"effect_{name}", _caption(run, text), _map_rows(run, metric))
        heads = run.top_heads(metric, STRONGEST)
        kind = run.estimate(metric, heads[0]).kind if heads else ""
        text = (
            f"The {len(heads)} heads with the largest mean effects on {what}: a dot for each of {n} prompts, the mean "
        )
        text += f"and its {kind}{'; dashed: the direct effect' if 'direct' in run.data else ''}"
        doubt = f"; hollow: not shown ({run.rule(metric)})" if run.tested(metric) else ""
        yield Caption(f"strongest_{name}", _caption(run, f"{text}{doubt}."), _strongest_rows(run, metric, heads))


def _map_rows(run: "Run", metric: str) -> Rows:
    rows: Rows = [["name", "mean effect", "low", "high", "direct", "max-T p", "important"]]
    rows += [_head_row(run, metric, head) for head in run.ablated_heads]
    for stack in run.layers:
        whole = mean_effects(run, metric, stack)
        for label in [str(row) for row in whole["row"].values if not str(row).isdigit()]:
            values = whole.sel(row=label).values
            rows += [
                [f"{stack + '.' if stack else ''}L{at} {label}", number(value), *[None] * 5]
                for at, value in enumerate(values)
            ]
    return rows


def _strongest_rows(run: "Run", metric: str, heads: Sequence[Head]) -> Rows:
    titles = ["name", "mean effect", "low", "high", "direct", "max-T p", "important"]
    prompts = [f"prompt {at}" for at in range(run.data.sizes["prompt"])]
    return [
        [*titles, *prompts],
        *([*_head_row(run, metric, head), *map(number, run.effect(metric, head))] for head in heads),
    ]


def _head_row(run: "Run", metric: str, head: Head) -> list:
    about, claim = run.estimate(metric, head), run.claims(metric).get(head, Claim())
    values = (about.mean, about.low, about.high, claim.direct, claim.p_adjusted, claim.important)
    return [str(head), *map(number, values)]


def _patterns(run: "Run") -> Iterator[Caption]:
    """Describe rollout and patterns, on the prompt that is shown first."""
    if "pattern" not in run.data:
        return
    prompt = shown_prompts(run)[0]
    on = f"on “{run.text(prompt).strip()}” (prompt {prompt})"
    shown = rollout_panels(run, prompt)
    names = "; ".join(f"({letter(at)}) {each.name}" for at, each in enumerate(shown))
    yield Caption("rollout", _caption(run, f"{names}, {on}. {_SHADE}"), _weights_rows(shown))
    alone, every = opening_patterns(run)
    matrices = [Matrix(each.title, each.values, *labels_of(each)) for each in every]
    for one, each in zip(every[:alone], matrices, strict=False):
        text = f"Attention pattern of {each.name} {on}. {_SHADE} {one.note}"
        yield Caption(f"pattern_{plain_name(each.name)}", _caption(run, text), _weights_rows([each]))
    if every:
        most = f"the {len(every)} heads with the largest effects on {in_full(run.lead_metric)}"
        yield Caption(
            "patterns",
            _caption(run, f"Attention patterns of {most}, {on}. {_SHADE} {every[0].note}"),
            _weights_rows(matrices),
        )


def _weights_rows(shown: Iterable[Matrix]) -> Rows:
    titles = ["panel", "query_at", "query", "key_at", "key", "weight"]
    return [titles] + [
        [each.name, at, query, to, key, number(float(each.values[at, to]))]
        for each in shown
        for at, query in enumerate(each.queries)
        for to, key in enumerate(each.keys)
    ]


def _caption(run: "Run", text: str) -> str:
    """Return the caption: what is drawn, and of which run."""
    return visible(" ".join(f"{text} {in_words(run)}".split()))
