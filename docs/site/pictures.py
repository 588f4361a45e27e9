"""Pictures of the site, made when it is built, each by the line of code or the command that stands beside it.

`ENTRIES` are those of the gallery, `PRESETS` those of the page of presets. The runs are small, on the models that need
the least: what they show is the form.
"""

import contextlib
import io
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

FOLDER = "pictures"
#: A context in segments, as a command reads it.
CONTEXT = """[{"parts": [{"name": "store", "text": "Mary went to the store and gave a drink to John."},
            {"name": "garden", "text": "The dog chased the cat."}],
  "question": "Mary gave a drink to", "answer": " John"}]
"""

#: What the lines of a section stand on.
SETUP = {
    "Attention in a text": """
import harness

model = harness.load_model("minilm")
seen = harness.look(model, "The dog chased the cat", "It ran away")
""",
    "Effects of ablation": """
import harness

model = harness.load_model("planted")  # a circuit set by hand: L0H4, and L1H4 that reads what it writes
prompts = harness.load_prompts("induction", model, n=6, length=8)
options = {"metrics": ["loss"]}
effects = harness.ablate_heads(model, prompts, **options)
""",
    "Reports and runs": "",
}


@dataclass(frozen=True)
class Entry:
    """One picture: its section, its file, its heading, and the line that makes it.

    A line of Python gives a view, whose figure is shown and whose page is linked, or a table. Commands (one a line)
    make a run, the last of them the one whose `figure` is shown, and whose report stands in a frame of `frame` pixels.
    """

    section: str
    name: str
    title: str
    line: str
    figure: str = ""
    frame: int = 0


_ATTENTION, _EFFECTS, _RUNS = SETUP
STUDY = "study experiment=planted prompts.n=8 stats.resamples=999"
ENTRIES = (
    Entry(_ATTENTION, "head", "One head", 'seen.head("L5H1")'),
    Entry(_ATTENTION, "grid", "Every head of a layer", "seen.grid(layer=5)"),
    Entry(_ATTENTION, "lines", "Head view: the tokens twice, a line for each weight", 'seen.lines(head="L5H1")'),
    Entry(_ATTENTION, "model", "Model view: every head of every layer", "seen.all_heads()"),
    Entry(_ATTENTION, "scores", "Scores before the softmax", 'seen.scores("L5H1")'),
    Entry(_ATTENTION, "values", "Weights times the norms of values", 'seen.values("L5H1")'),
    Entry(_ATTENTION, "qk", "Query times key, dimension by dimension", 'seen.qk("chased", "dog", "L5H1")'),
    Entry(_ATTENTION, "rollout", "Attention rollout", "seen.rollout()"),
    Entry(_ATTENTION, "saliency", "The text coloured by its gradient", "seen.saliency()"),
    Entry(_ATTENTION, "follow", "From one word to others, in every head", 'seen.follow("chased", ["dog", "cat"])'),
    Entry(_EFFECTS, "map", "Map of single heads", "effects.plot()"),
    Entry(
        *(_EFFECTS, "layers", "Layers and MLPs"),
        'harness.ablate_heads(model, prompts, kind=["layer", "mlp"], **options).plot()',
    ),
    Entry(
        *(_EFFECTS, "positions", "One head, one position at a time"),
        'harness.ablate_heads(model, prompts, positions="each", heads=["L0H4", "L1H4"], **options).plot()',
    ),
    Entry(
        *(_EFFECTS, "maps", "Residual stream, attention and MLP, one position at a time"),
        'harness.ablate_heads(model, prompts, kind=["resid", "attn", "mlp"], positions="each", **options).plot()',
    ),
    Entry(
        *(_EFFECTS, "sets", "Named sets"),
        'harness.ablate_heads(model, prompts, kind="set", sets={"circuit": ["L0H4", "L1H4"], "other": ["L0H0"]}, '
        "**options).plot()",
    ),
    Entry(
        *(_EFFECTS, "pruning", "Pruning, beside random orders"),
        'harness.ablate_heads(model, prompts, kind="cumulative", **options).plot()',
    ),
    Entry(
        *(_EFFECTS, "activations", "Query, key, value or pattern of each head"),
        'harness.ablate_heads(model, prompts, {"name": "zero", "of": ["q", "k", "v", "pattern"]}, **options).plot()',
    ),
    Entry(*(_EFFECTS, "pairs", "Pairs"), 'harness.ablate_heads(model, prompts, kind="pairs", **options).plot()'),
    Entry(
        *(_EFFECTS, "methods", "Attribution methods against a measured cause"),
        'harness.compare_attributions(model, prompts, ["rollout", "attention_mean", "norms"], ["knockout"]).plot()',
    ),
    Entry(
        *(_EFFECTS, "texts", "What the model writes without heads"),
        'harness.compare_texts(model, " da ko mi da ko", {"circuit": ["L0H4", "L1H4"], "other": "L0H0"}, '
        "max_new_tokens=2)",
    ),
    Entry(_RUNS, "report", "The report, and the strongest heads prompt by prompt", STUDY, "strongest_loss", 800),
    Entry(_RUNS, "roles", "Roles of heads", STUDY, "roles"),
    Entry(
        *(_RUNS, "segments", "A context coloured by cause, and what each segment gets"),
        "trace_context model=random prompts.path=context.json",
        *("parts", 700),
    ),
    Entry(
        *(_RUNS, "changes", "What a change of the model changed"),
        "compare_models model=planted prompts=induction prompts.n=2 compare.model.dtype=bfloat16 roles.n=2 "
        "roles.length=6 roles.draws=40 stats.resamples=999",
        "change_loss",
    ),
    Entry(
        *(_RUNS, "runs", "Many runs side by side"),
        "ablate_heads model=random prompts.n=6 metrics=[loss] stats.resamples=999 -m ablation=zero,mean\n"
        "collect runs='results/ablate_heads/*'",
        *("maps", 500),
    ),
)
#: The presets that are run here, by what, and the figure that shows the answer. The others take the larger model.
PRESETS = {
    "layers": ("study experiment=layers", "rollout"),
    "mean_vs_head": ("study experiment=mean_vs_head model=minilm", "rollout"),
    "planted": (STUDY, "effect_loss"),
}


class Page(NamedTuple):
    """A page in Markdown, and the files that it shows, by their names on the site."""

    text: str
    files: dict[str, bytes]


@dataclass(frozen=True)
class Made:
    """What a line gave: a figure as SVG, a page, a table as HTML, and the answer to a preset's question."""

    figure: bytes = b""
    page: str = ""
    table: str = ""
    answer: str = ""


# --- running the lines ------------------------------------------------------------------------------------------


@cache
def place() -> Path:
    """A folder for the runs of one build, with the file that a command reads."""
    folder = Path(tempfile.mkdtemp())
    (folder / "context.json").write_text(CONTEXT, encoding="utf-8")
    return folder


def clean_up() -> None:
    """Remove the runs of this build."""
    shutil.rmtree(place())
    place.cache_clear()
    run.cache_clear()


@cache
def run(line: str) -> Path:
    """Run one command as it is typed, in the folder of this build, and return the run's directory.

    It draws nothing: figures take most of a small run's time, and of each run one is shown.
    """
    from harness.command.launch import launch

    runner, *words = shlex.split(line)
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(place()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch("harness.study.record.draw"),
    ):
        code = launch(runner, words)
    if code:
        raise SystemExit(f"{line}: {err.getvalue()}")
    return place() / out.getvalue().splitlines()[-1]


def made_by_command(lines: str, figure: str, with_page: bool) -> Made:
    """Run commands, and return a figure of the last one's run, its report and its answer."""
    import harness
    from harness.findings.questions import question_of
    from harness.views.figures import LOOKS, _drawings
    from harness.views.figures.base import written
    from harness.views.report import report

    folder = [run(line) for line in lines.splitlines()][-1]
    if not (folder / "spec.yaml").exists():  # of many runs, whose page and figures `collect` writes
        return Made((folder / "figures" / f"{figure}.svg").read_bytes(), (folder / "report.html").read_text("utf-8"))
    saved = harness.open_run(folder)
    question = question_of(saved)
    answer = question.answer(saved).text if question else ""
    page = report(saved, drawn=()) if with_page else ""
    draw = next(draw for name, _, _, draw in _drawings(saved, LOOKS["screen"]) if name == figure)
    return Made(written(draw(), "svg"), page, answer=answer)


def made_by_python(line: str, names: dict[str, Any]) -> Made:
    """Evaluate a line of Python, and return the figure and the page of its view, or its table."""
    from harness.views.figures.base import written

    value = eval(line, names)
    if not hasattr(value, "figure"):
        return Made(table=value._repr_html_())
    return Made(written(value.figure(), "svg"), value.html if value.draws else "")


def gallery_made() -> Iterator[tuple[Entry, Made]]:
    """Run the lines of the gallery, section by section."""
    names: dict[str, dict[str, Any]] = {section: {} for section in SETUP}
    for section, setup in SETUP.items():
        exec(setup, names[section])
    for entry in ENTRIES:
        if entry.figure:
            yield entry, made_by_command(entry.line, entry.figure, entry.frame > 0)
        else:
            yield entry, made_by_python(entry.line, names[entry.section])


# --- pages ------------------------------------------------------------------------------------------------------


def gallery() -> Page:
    """Every picture that the harness makes, each beside the line that makes it."""
    parts = [
        "# Gallery",
        "Every picture, each by the line beneath its heading, which was run when this page was built, on models that "
        "need seconds. `planted` has two heads set by hand and `random` random weights: numbers there mean nothing of "
        'their own. A view shows itself in a notebook; `.save("head.svg")`, .png, .pdf or .html writes it.',
    ]
    files, section = {}, ""
    for entry, made in gallery_made():
        if entry.section != section:
            section = entry.section
            parts += [f"## {section}", before(section)]
        parts += [f"### {entry.title}", fenced(as_typed(entry), "sh" if entry.figure else "python")]
        parts += shown(entry, made)
        files |= files_of(entry.name, made)
    return Page("\n\n".join(parts), files)


def before(section: str) -> str:
    """What the lines of a section stand on: Python, or the file that a command reads."""
    return fenced(SETUP[section], "python") if SETUP[section] else "`context.json` is\n\n" + fenced(CONTEXT, "json")


def shown(entry: Entry, made: Made) -> Iterator[str]:
    """Yield what stands beneath a line: its table, its figure, its page in a frame or as a link."""
    if made.table:
        yield made.table
    if made.figure:
        yield image(entry.name, entry.title)
    if made.page and entry.frame:
        frame = f'<iframe src="{FOLDER}/{entry.name}.html" loading="lazy" height="{entry.frame}" title="{entry.title}">'
        yield f"{frame}</iframe>"
    if made.page:
        yield f"[Open the page]({FOLDER}/{entry.name}.html)"


def image(name: str, title: str) -> str:
    return f"![{title}]({FOLDER}/{name}.svg){{ .picture }}"


def as_typed(entry: Entry) -> str:
    """The line of an entry as a reader types it."""
    lines = entry.line.splitlines()
    return "\n".join(f"python -m experiments.{line}" for line in lines) if entry.figure else entry.line


def fenced(text: str, language: str) -> str:
    return f"```{language}\n{text.strip()}\n```"


def files_of(name: str, made: Made) -> dict[str, bytes]:
    files = {f"{FOLDER}/{name}.svg": made.figure, f"{FOLDER}/{name}.html": made.page.encode()}
    return {path: content for path, content in files.items() if content}


def preset_pictures() -> dict[str, Made]:
    """Run the presets that take seconds, and return what they show, by the preset's name."""
    return {name: made_by_command(line, figure, with_page=False) for name, (line, figure) in PRESETS.items()}
