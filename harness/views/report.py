"""The report: one HTML file about one run, the answer first."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.findings import Finding, effects, findings, in_words
from harness.findings.changes import other_name
from harness.findings.questions import question_of
from harness.results.objects import Folder, folder_at
from harness.views.figures import Picture, pictures
from harness.views.page import page
from harness.views.payload import payload
from harness.views.sections import Section, sections
from harness.views.selection import choose, first_head, shown_prompts
from harness.views.text import markup

if TYPE_CHECKING:
    from harness.results import Run

#: Sections that show one prompt, in their order.
LOOKING = ("head", "headview", "modelview", "rollout", "sources")


def write_report(run: "Run", path: str | Folder, drawn: Sequence[Picture] | None = None) -> Folder:
    """Write the run's report to ``path`` as one file that opens anywhere, offline; returns the path.

    ``drawn`` are the run's figures, if they were drawn before.
    """
    path = folder_at(path)
    path.write_text(report(run, drawn), encoding="utf-8")
    return path


def report(run: "Run", drawn: Sequence[Picture] | None = None) -> str:
    """Return the report's HTML."""
    kept, prompt = choose(run), shown_prompts(run)[0]
    shown = sections(run, pictures(run) if drawn is None else drawn, kept.left_out)
    data = payload(run, kept, prompt=prompt, head=first_head(run))
    body = f"{_header(run)}\n<main id='main'>\n{_laid_out(shown)}\n</main>\n{_footer(run)}"
    return page(_title(run), body, data, circuitsvis="pattern" in run.data)


def _laid_out(shown: list[Section]) -> str:
    """Join the sections, with the table of contents after the first; those of one prompt share a bar of controls."""
    looking = [section for section in shown if section.anchor in LOOKING]
    links = " ".join(f'<a href="#{section.anchor}">{section.title}</a>' for section in shown)
    parts = [str(section) for section in shown if section not in looking]
    parts.insert(1, f'<nav class="contents" aria-label="Contents">{links}</nav>')
    if looking:
        bar = '<div class="drawn lookbar" id="draw-controls" role="region" aria-label="What is looked at"></div>'
        before = sum(section not in looking for section in shown[: shown.index(looking[0])])
        parts.insert(before + 1, f'<div class="looking">{bar}{"".join(map(str, looking))}</div>')
    return "".join(parts)


def _header(run: "Run") -> str:
    answer, others = _answer(run)
    question = question_of(run)
    asks = "" if question is None else f'<p class="question">{markup(question.asks)}</p>'
    items = "".join(f"<li>{markup(finding.text)}</li>" for finding in answer)
    listed = f'<h2 class="skip">Findings</h2><ul class="findings">{items}</ul>' if items else ""
    return (
        '<a class="skip" href="#main">Skip to the figures</a>'
        f'<header><p class="eyebrow">attention-harness</p><h1>{markup(_title(run))}</h1>'
        f'<p class="lead">{markup(in_words(run))}</p>{asks}{listed}{_more(others)}</header>'
    )


def _answer(run: "Run") -> tuple[list[Finding], list[Finding]]:
    """Return the answer to the question, or the findings of the leading metric; and all others."""
    every, question = findings(run), question_of(run)
    if question is not None:
        return [question.answer(run)], every
    compared = "clean_change" in run.data
    parts = (effects.helpers, effects.hurters, effects.counts) if "effect" in run.data and not compared else ()
    first = {finding.text for part in parts if (finding := part(run, run.lead_metric))}
    answer = [finding for finding in every if finding.text in first] or every[: 6 if compared else 3]
    return answer, [finding for finding in every if finding not in answer]


def _more(others: list[Finding]) -> str:
    if not others:
        return ""
    items = "".join(f"<li>{markup(finding.text)}</li>" for finding in others)
    summary = f"<summary>{len(others)} more findings</summary>"
    return f'<details class="more">{summary}<ul class="findings">{items}</ul></details>'


def _footer(run: "Run") -> str:
    origin = "Computed in memory"
    if run.is_saved:
        origin = f"Made from the run directory {markup(run.path.name)}, which holds every number here: open it with "
        origin += "harness.open_run(DIR)"
    return f"<footer>{origin}. This page loads nothing from the network.</footer>"


def _title(run: "Run") -> str:
    model, prompts = (str((run.spec.get(key) or {}).get("name", "unnamed")) for key in ("model", "prompts"))
    if "clean_change" in run.data:
        return f"{model} and {other_name(run)} on {prompts}: what changed"
    if "effect" not in run.data and "role_given" in run.data:
        return f"{model} on {prompts}: what attention heads do"
    traced_only = "part_cause" in run.data and "pattern" not in run.data
    what = "which part was used" if traced_only else "attention patterns"
    what = "effects of ablating attention heads" if "clean" in run.data else what
    return f"{model} on {prompts}: {what}"
