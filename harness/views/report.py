"""The report: one HTML file about one run. The answer first, in tabs, with the picked head beside them.

Without scripts the tabs are sections, one below the other, and pictures stand for what is drawn.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.findings import Finding, effects, findings, headline, in_words
from harness.findings.changes import other_name
from harness.findings.format import count, named
from harness.findings.headline import Headline
from harness.findings.questions import question_of
from harness.results.objects import Folder, folder_at
from harness.views.figures import Picture, pictures
from harness.views.page import page
from harness.views.payload import payload
from harness.views.sections import Section, sections
from harness.views.selection import choose, first_head, shown_prompts
from harness.views.text import markup, short, visible

if TYPE_CHECKING:
    from harness.results import Run

#: The tab of each section; one that is not here has a tab of its own.
_TABS = {
    "map": "overview",
    "strongest": "overview",
    "methods": "attribution",
    "sources": "attribution",
    "rollout": "rollout",
    "modelview": "patterns",
    "headview": "patterns",
    "head": "patterns",
    "prompts": "numbers",
}
#: The titles of tabs, in their order.
_TITLES = {
    "overview": "Overview",
    "cards": "Head cards",
    "changed": "Changes",
    "parts": "Segments",
    "texts": "Texts",
    "tasks": "Tasks",
    "activations": "Activations",
    "layers": "Layers",
    "maps": "Patching maps",
    "positions": "Positions",
    "sets": "Sets",
    "pruning": "Pruning",
    "pairs": "Pairs",
    "edges": "Edges",
    "roles": "Roles",
    "attribution": "Methods vs cause",
    "rollout": "Rollout",
    "patterns": "Model view",
    "numbers": "Numbers",
    "how": "How it was run",
}
#: What a run without effects of single heads opens on: the first of these tabs that it has.
_OWN = (
    "changed",
    "parts",
    "texts",
    "tasks",
    "activations",
    "layers",
    "maps",
    "positions",
    "sets",
    "pruning",
    "pairs",
    "edges",
    "attribution",
    "roles",
    "patterns",
)


def write_report(run: "Run", path: str | Folder, drawn: Sequence[Picture] | None = None) -> Folder:
    """Write the run's report to ``path`` as one file that opens anywhere, offline; returns the path.

    ``drawn`` are the run's figures, if they were drawn before.

    >>> import tempfile
    >>> import harness
    >>> run = harness.look("planted", " da ko li da ko").run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = harness.views.write_report(run, f"{folder}/report.html", drawn=[])
    ...     page.read_text(encoding="utf-8")[:15]
    '<!doctype html>'
    """
    path = folder_at(path)
    path.write_text(report(run, drawn), encoding="utf-8")
    return path


def report(run: "Run", drawn: Sequence[Picture] | None = None) -> str:
    """Return the report's HTML."""
    kept, prompt = choose(run), shown_prompts(run)[0]
    shown = sections(run, pictures(run) if drawn is None else drawn, kept.left_out)
    data = payload(run, kept, prompt=prompt, head=first_head(run))
    tabs = _tabs(shown)
    first, *others = tabs
    panels = "".join(f'<div data-tab="{tab}" id="tab-{tab}">{_joined(each)}</div>' for tab, each in others)
    top, more = _headline(run)
    opening = f'<div data-tab="{first[0]}" id="tab-{first[0]}">{_joined(first[1])}{more}</div>'
    inspected = bool({"effect", "pattern"} & set(run.data)) and "head" in run.data.coords
    aside = '<aside class="drawn" id="draw-inspector" aria-label="The picked head"></aside>' if inspected else ""
    body = (
        f"{_bar(run, [tab for tab, _ in tabs])}\n{top}\n<div class='layout{' inspected' if inspected else ''}'>\n"
        f"<main id='main'>{opening}{panels}</main>\n{aside}</div>\n{_footer(run)}"
    )
    return page(_title(run), body, data, circuitsvis="pattern" in run.data)


def _tabs(shown: Sequence[Section]) -> list[tuple[str, list[Section]]]:
    """Put the sections into tabs; the first is the overview, or the run's own kind of result."""
    by_tab: dict[str, list[Section]] = {}
    for section in shown:
        by_tab.setdefault(_TABS.get(section.anchor, section.anchor), []).append(section)
    if "attribution" in by_tab and "rollout" in by_tab:  # rollout is one of the methods
        by_tab["attribution"] += by_tab.pop("rollout")
    own = next((tab for tab in _OWN if tab in by_tab), None)
    if "overview" not in by_tab and own is not None:
        by_tab["overview"] = by_tab.pop(own)
    elif "changed" in by_tab:
        by_tab["overview"] = by_tab.pop("changed") + by_tab["overview"]
    return [(tab, by_tab[tab]) for tab in _TITLES if tab in by_tab]


def _joined(shown: Iterable[Section]) -> str:
    return "".join(map(str, shown))


def _bar(run: "Run", tabs: Sequence[str]) -> str:
    links = "".join(f'<a href="#tab-{tab}">{_TITLES[tab]}</a>' for tab in tabs)
    return (
        '<a class="skip" href="#main">Skip to the results</a>'
        '<header class="bar"><span class="brand">attention-harness</span>'
        f'<span class="what">{markup(_what(run))}</span>'
        f'<nav class="tabs" aria-label="Parts of the report">{links}</nav>'
        '<div class="drawn tools-bar" id="draw-tools"></div></header>'
    )


def _what(run: "Run") -> str:
    """Name model, prompts and ablation, in the bar."""
    model = named(run.spec.get("model"))
    parts = [f"{model} and {other_name(run)}" if "clean_change" in run.data else model]
    parts += _data(run)
    parts += (
        [f"{named(run.spec.get('ablation'))}-ablation"]
        if {"clean", "clean_text", "clean_score"} & set(run.data) and run.spec.get("ablation")
        else []
    )
    return " · ".join(short(visible(part), 40) for part in parts)


def _data(run: "Run") -> list[str]:
    """Name what was run on: the prompts, or the tasks (beside which prompts are only what a mean is taken over)."""
    if "clean_score" in run.data:
        return [", ".join(map(str, np.unique(run.data["item_task"].values))), count(run.data.sizes["item"], "item")]
    return [named(run.spec.get("prompts")), count(run.data.sizes["prompt"], "prompt")]


def _headline(run: "Run") -> tuple[str, str]:
    """Return the answer with its figures, and all other findings, folded."""
    every, question = findings(run), question_of(run)
    answer, used = _answer(run, every)
    asks = "" if question is None else f'<p class="question">{markup(question.asks)}</p>'
    example = "" if "clean_score" in run.data else f"{_example(run)}{_how_read(run)}"
    detail = f"{markup(answer.detail)} " if answer.detail else ""
    size = " class='long'" if len(answer.text) > 90 else ""
    large = "".join(
        f'<div class="figure-number {each.side}"><b>{markup(each.number)}</b><span>{markup(each.label)}</span></div>'
        for each in headline.figures(run)
    )
    others = [finding for finding in every if finding.text not in used]
    top = (
        f"<div class='headline' data-tab='overview'>{asks}<h1{size}>{markup(answer.text)}</h1>"
        f"<div class='lead'>{detail}{example}</div>"
        f"{f'<div class=figures>{large}</div>' if large else ''}</div>"
    )
    return top, _more(others)


def _answer(run: "Run", every: Sequence[Finding]) -> tuple[Headline, set[str]]:
    """Return the headline, and the texts of the findings that it states."""
    question = question_of(run)
    if question is not None:
        answer = question.answer(run)
        return headline.of_finding(answer), {answer.text}
    if "effect" in run.data and "clean_change" not in run.data:
        cautions = {finding.text for finding in effects.caution(run)} if effects.nothing_can_be_shown(run) else set()
        return headline.of_effects(run), cautions
    if not every:
        return Headline(in_words(run), ""), set()
    return headline.of_finding(every[0]), {every[0].text}


def _example(run: "Run") -> str:
    """Quote the prompt that is shown first, with the right answer in bold."""
    row = run.data.isel(prompt=shown_prompts(run)[0])
    text = run.text(shown_prompts(run)[0]).strip()
    shown = f"<q>{markup(text if len(text) <= 100 else f'…{text[-99:]}')}</q>"
    answer, wrong = (str(row[name].values).strip()[:30] if name in row else "" for name in ("answer", "distractor"))
    if not answer:
        return shown
    return f"{shown} → <b>{markup(answer)}</b>{f', not {markup(wrong)}' if wrong else ''}."


def _how_read(run: "Run") -> str:
    """Describe, folded, how the texts became tokens: it moves effects by as much as a head does."""
    first = shown_prompts(run)[0]
    tokens = " ".join(f"<bdi>{markup(token)}</bdi>" for token in run.token_labels(first)[:60])
    model = run.manifest.get("model") or {}
    bos = model.get("bos")
    policy = f"Beginning-of-text token: {markup(bos)}. " if bos else ""
    special = int(run.data["special"].values[first][: int(run.data["length"].values[first])].sum())
    rest = f"Special tokens: {special}. {_merges(run)}{markup(in_words(run))}"
    return (
        f"<details class='how-read'><summary>How the text was read</summary><p>{policy}{rest}</p>"
        f"<p class='tokens'>{tokens}</p></details>"
    )


def _merges(run: "Run") -> str:
    """Count the items whose completion the tokenizer would merge with their context, where there are items."""
    items = run.manifest.get("choices")
    if not items:
        return ""
    merged = count(items["items_merged_with_context"], "item")
    return f"The tokenizer would merge a completion with its context in {merged} of {items['items']}. "


def _more(others: Sequence[Finding]) -> str:
    if not others:
        return ""
    items = "".join(f"<li>{markup(finding.text)}</li>" for finding in others)
    summary = f"<summary>{count(len(others), 'more finding')}</summary>"
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
    if "clean_text" in run.data:
        return f"{model} on {prompts}: texts with heads ablated"
    if "clean_score" in run.data:
        return f"{model}: tasks with heads ablated"
    traced_only = "part_cause" in run.data and "pattern" not in run.data
    what = "which part was used" if traced_only else "attention patterns"
    what = "effects of ablating attention heads" if "clean" in run.data else what
    what = "edges between heads and MLPs" if "edge_effect" in run.data and "effect" not in run.data else what
    return f"{model} on {prompts}: {what}"
