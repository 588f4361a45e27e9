"""The reference: the docstring of every public name states what it must, and its example runs.

`STATED` says for each name which of shapes, units, errors and source apply; each has an example.
"""

import doctest
import inspect
import re
import sys
from importlib import import_module, util
from pathlib import Path

import pytest
from drawing import nothing_drawn

import harness
from harness.models import Model
from harness.views.look import Look
from harness.views.notebook import View

ROOT = Path(__file__).parents[1]

#: What the docstring of a name states beside its example. Shapes: its arrays' axes, in brackets. Units: of its numbers.
#: Errors: what it raises, and when. Source: the paper of the method. A name with none is data, or a room of functions.
STATED = {
    "Head": "errors",
    "RequestError": "",
    "load_model": "errors",
    "load_prompts": "shapes errors",
    "cache_attention": "shapes units errors",
    "ablate_heads": "shapes units errors",
    "compare_attributions": "shapes errors",
    "compare_texts": "errors",
    "ablated": "errors",
    "bake": "errors",
    "zero": "errors source",
    "mean": "errors source",
    "resample": "errors source",
    "patch": "errors source",
    "scale": "units errors",
    "open_run": "errors",
    "open_runs": "errors",
    "look": "errors",
    # What they return.
    "Effects": "",
    "Patterns": "",
    "Attributions": "",
    "Texts": "",
    "Baked": "",
    "Run": "",
    "Runs": "shapes units errors",
    "Look": "",
    # Functions on arrays and runs.
    "attribution.rollout": "shapes units errors source",
    "attribution.flow": "shapes units errors source",
    "attribution.value_weighted_norms": "shapes units errors source",
    "words.merge_pattern": "shapes units errors source",
    "words.merge_scores": "shapes units errors",
    "stats.summarize": "shapes units errors source",
    "stats.power": "units",
    "stats.rank_correlation": "shapes units errors source",
    "findings.findings": "units",
    "metrics.of_function": "shapes units errors",
    # Views.
    "views.attention": "units errors",
    "views.effects": "units errors",
    "views.figure_view": "",
    "views.follow": "units errors",
    "views.follow_figure": "units errors",
    "views.follow_table": "units errors",
    "views.head_card": "units errors",
    "views.head_view": "units errors source",
    "views.layer_view": "errors",
    "views.model_view": "units errors source",
    "views.rollout": "units errors source",
    "views.saliency": "shapes units errors",
    "views.saliency_figure": "errors",
    "views.strongest_keys": "units errors",
    "views.table": "units errors",
    "views.write_figures": "",
    "views.write_report": "",
}

#: How a docstring states it; shapes may also stand in the signature, which the reference shows.
EVIDENCE = {
    "shapes": r"\[(\w+|…|\.\.\.)(, (\w+|…))*\]|(Float|Int|Shaped)\[\w+, '[*\w ]+'\]",
    "units": r"\b(nats|logits|units?|shares? of|[01] to 1|sums? to 1|multiplied by a factor)\b",
    "errors": r"\b[Rr]aises?\b[^.]*\b(RequestError|ValueError|\w+(Mismatch|Failed))\b|Raises:\n\s+\w+Error:",
    "source": r"\b(19|20)\d\d\b",
}


def reference():
    """The names of the reference page, as a user writes them, and the objects."""
    path, before = ROOT / "docs/site/pages.py", list(sys.path)
    spec = util.spec_from_file_location("site_pages_of_reference", path)
    pages = util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    sys.path[:] = before
    found = {}
    for line in pages.reference().splitlines():
        if line.startswith("::: "):
            full = line.removeprefix("::: ")
            module, _, name = full.rpartition(".")
            room = full.split(".")[1]
            value = getattr(import_module(module), name)
            own = inspect.isclass(value) or (name in harness.__all__ and getattr(harness, name) is value)
            found[name if own else f"{room}.{name}"] = value
    return found


NAMES = reference()


def lacking(value, stated):
    """What a docstring does not state: of `stated`, and an example that is run."""
    text = inspect.getdoc(value) or ""
    shown = text if inspect.isclass(value) else f"{inspect.signature(value)}\n{text}"
    lacks = [what for what in stated.split() if not re.search(EVIDENCE[what], shown if what == "shapes" else text)]
    examples = doctest.DocTestParser().get_examples(text)
    runs = examples and not any(each.options.get(doctest.SKIP) for each in examples)
    return lacks if runs else [*lacks, "example"]


def test_the_table_has_every_public_name():
    assert {*STATED} == {*NAMES}
    assert {*harness.__all__} == {name for name in NAMES if name in harness.__all__} | {*harness._ROOMS}


def test_every_public_docstring_states_shapes_units_errors_source_and_has_an_example():
    lacks = {name: lacking(value, STATED[name]) for name, value in NAMES.items()}
    lacks |= {room: lacking_example(room) for room in harness._ROOMS}
    assert {name: what for name, what in lacks.items() if what} == {}
    counted = {what: sum(what in stated.split() for stated in STATED.values()) for what in EVIDENCE}
    assert counted == {"shapes": 14, "units": 26, "errors": 40, "source": 13}


def lacking_example(room):
    return [] if doctest.DocTestParser().get_examples(getattr(harness, room).__doc__) else ["example"]


@pytest.mark.parametrize(
    ("text", "stated", "lacks"),
    [
        ("Return it.", "errors", ["errors", "example"]),
        ("Return it, in nats. Raises `RequestError`.\n\n>>> 1\n1", "units errors", []),
        ("Return it.\n\n>>> 1  # doctest: +SKIP\n1", "", ["example"]),
        ("Give [query, key] (A & B 2020).\n\n>>> 1\n1", "shapes source units", ["units"]),
    ],
)
def test_what_a_docstring_lacks_is_named(text, stated, lacks):
    def function():
        pass

    function.__doc__ = text
    assert lacking(function, stated) == lacks


# --- the examples run -------------------------------------------------------------------------------------------


def examples():
    """The examples of the reference, of the rooms, of each method of `Look`, and of what else a reader meets there."""
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=True)
    objects = {"harness": harness, **NAMES, **{room: getattr(harness, room) for room in harness._ROOMS}}
    objects |= {"View": View, "Model.generate": Model.generate}
    objects |= {f"Look.{name}": each for name, each in vars(Look).items() if inspect.isfunction(each)}
    return {name: example for name, each in objects.items() for example in finder.find(each, name) if example.examples}


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_docstrings_example_runs(name):
    nothing_drawn()  # a run that is saved draws its report, which no example reads
    result = doctest.DocTestRunner().run(EXAMPLES[name])
    assert result.attempted > 0
    assert result.failed == 0


def test_every_public_method_of_look_has_an_example():
    views = {f"Look.{name}" for name, each in vars(Look).items() if inspect.isfunction(each) and name[0] != "_"}
    assert len(views) == 15
    assert views <= {*EXAMPLES}
