"""Terminal output: a run as a few lines of text, and its progress bar."""

from collections.abc import Hashable, Mapping
from math import isnan
from typing import TYPE_CHECKING, Any

from harness.findings.effects import caution
from harness.findings.format import signed
from harness.findings.tasks import scored
from harness.findings.texts import written
from harness.hooks import Head
from harness.views.text import visible

if TYPE_CHECKING:
    from harness.results import Run

_BAR = 28


def strongest(run: "Run", n: int = 5) -> str:
    """Make a small table of the n heads with the largest mean effects by each metric, with their intervals, and the
    limits of the tests. Empty where no single heads were ablated."""
    tables = [line for metric in run.metrics for line in _of_metric(run, metric, n)]
    return "\n".join([*tables, *(finding.text for finding in caution(run))] if tables else tables)


def changed_texts(run: "Run", n: int = 5) -> str:
    """Make lines of what the ablated model writes: how many texts change without each set, and the first n of these.
    Empty where no texts were written."""
    if not len(run.texts):
        return ""
    rows = [row for row in run.texts.to_dict("records") if isnan(row["draw"]) and not isnan(row["parts_at"])]
    return "\n".join([*(finding.text for finding in written(run)), *map(_change, rows[:n])])


def task_scores(run: "Run") -> str:
    """Make lines of how each set's ablation changes each score; empty where no tasks were run."""
    return "\n".join(visible(finding.text) for finding in scored(run))


def _change(row: Mapping[Hashable, Any]) -> str:
    """Describe where a text parts: the token of each, with its probability by the clean and by the ablated model."""
    tokens = [
        f"“{visible(row[f'{of}_token'])}” ({row[f'{of}_token_clean']:.2f} → {row[f'{of}_token_ablated']:.2f})"
        for of in ("clean", "ablated")
    ]
    place = f"prompt {row['prompt']} without {visible(row['set'])}, new token {int(row['parts_at'])}"
    return f"  {place}: {' becomes '.join(tokens)}"


def _of_metric(run: "Run", metric: str, n: int) -> list[str]:
    heads = run.top_heads(metric, n)
    rows = [_row(run, metric, head) for head in heads]
    if not rows:
        return []
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    measured = f"{visible(metric)}{f',{run.unit(metric)}' if run.unit(metric) else ''}"
    return [f"strongest heads by {measured}:", *(f"  {line}" for line in table)]


def _row(run: "Run", metric: str, head: Head) -> list[str]:
    about = run.estimate(metric, head)
    spread = f"[{signed(about.low)}, {signed(about.high)}]" if about.low == about.low else ""
    return [str(head), signed(about.mean), spread, run.verdict(metric, head)]


def bar(stage: str, done: int, total: int, seconds: float, before: int, width: int) -> str:
    """Make one line shorter than ``width``: a stage's progress, its rate over these seconds, and the time left.

    ``before`` are the units that a resumed run had when the seconds began.
    """
    share = done / total if total else 1.0
    full = round(_BAR * share)
    text = f"{stage:<10} {'█' * full}{'░' * (_BAR - full)} {done}/{total}"
    if done > before and seconds > 0:
        rate = (done - before) / seconds
        text += f"  {rate:.1f}/s" if rate >= 1 else f"  {1 / rate:.1f} s each"
        text += f"  {_clock((total - done) / rate)} left" if done < total else f"  {_clock(seconds)}"
    return text[: max(1, width - 1)]


def _clock(seconds: float) -> str:
    """Write ``0:07``, ``12:30``, ``1:02:03``."""
    whole = round(seconds)
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
