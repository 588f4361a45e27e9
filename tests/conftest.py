"""What all tests share: models, the browser, commands, and what is off unless it is asked for.

Array shapes are checked with HARNESS_SHAPES=1, in one CI job: the check takes a third of an array-heavy test. Runs draw
no figures and no report (`drawing`). HARNESS_ORDER=SEED shuffles the files and the tests in each. HARNESS_QUICK=1 keeps
what an edit needs.
"""

import copy
import gc
import inspect
import os
import random
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from drawing import drawn, nothing_drawn
from filelock import FileLock
from thinned import most, quick, thin

if os.environ.get("HARNESS_SHAPES") == "1":
    from jaxtyping import install_import_hook

    install_import_hook("harness", "typecheck.check")

#: Files in the order in which workers take them: the longest first, so that none is left with one at the end.
LONGEST_FIRST = tuple(
    f"test_{name}"
    for name in (
        *("browser", "charts"),
        *("views", "contract", "requests", "sentences", "smollm2", "families", "ablation", "together"),
        *("objects", "faults", "reproduce", "results", "execute", "questions", "quick_sweeps", "kinds", "roles"),
        *("truth", "prompt_files", "compare", "stats", "hub", "causes", "faithfulness", "methods_on_models"),
    )
)

#: What `make test-quick` leaves out, by the fixture that a test uses.
MARKED_BY_FIXTURE = {
    "smollm2": "smollm2",
    **dict.fromkeys(("browser", "browser_program"), "browser"),
    **dict.fromkeys(("launch", "fresh", "fetch", "pool_of", "cluster", "cells"), "launch"),
}

gc.disable()  # until the tests are collected: what imports make stays

FAMILIES = ("gpt2", "neox", "llama", "gemma3", "mistral", "qwen3")


@pytest.fixture(scope="session")
def tiny():
    """A tiny random model of a family, built once in a session."""
    import harness

    return lambda shape="llama", **overrides: harness.load_model("random", shape=shape, **overrides)


@pytest.fixture(scope="session", autouse=True)
def shared_models():
    """Random and planted models and the embedded ones are built once in a session: nothing may change a model, and its
    load is a fifth of a tiny study. Tests that take `monkeypatch` may have patched the load: they have their own."""
    from harness.models import load

    shared = SimpleNamespace(on=True, made={}, used=set())
    build = load.boot

    def boot_once(spec, *held):
        if held:
            return build(spec, *held)
        if spec.source not in ("random", "planted", "wheel") or not shared.on:
            return build(spec)
        if spec not in shared.made:
            model = build(spec)
            shared.made[spec] = model, checksum(model)
        shared.used.add(spec)
        return shared.made[spec][0]

    load.boot = boot_once
    yield shared
    load.boot = build


@pytest.fixture(scope="session", autouse=True)
def yaml_parsed_once():
    """The same YAML text is parsed once in a session: each command reads the same sixty small configs, which takes a
    sixth of its time. What cannot be parsed is handed on, so that messages are those of the file."""
    import yaml

    parse, known = yaml.load, {}

    def load(stream, Loader):
        text = stream if isinstance(stream, str | bytes) else stream.read()
        key = text, Loader.__module__, Loader.__qualname__
        if key not in known:
            try:
                known[key] = parse(text, Loader)
            except yaml.YAMLError:
                if text is not stream:
                    stream.seek(0)
                return parse(stream, Loader)
        return copy.deepcopy(known[key])

    yaml.load = load
    yield
    yaml.load = parse


def checksum(model):
    """What changes when a weight does. Summed as float64 without a copy of the weights."""
    import torch

    return sum(weight.sum(dtype=torch.float64).item() for weight in model.bridge.parameters())


@pytest.fixture(autouse=True)
def own_models(request, shared_models):
    """No shared models where a test may have patched how they are built, and none after a test that trained them."""
    shared_models.on = "monkeypatch" not in inspect.signature(request.function).parameters
    yield
    shared_models.on = True
    for spec in shared_models.used & {*shared_models.made}:
        model, before = shared_models.made[spec]
        if checksum(model) != before:
            del shared_models.made[spec]
    shared_models.used.clear()


@pytest.fixture(scope="module")
def padded():
    """Prompts of all lengths share batches, so that padding is seen; otherwise only those of nearly one length do."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("harness.prompts.batching.PADDING", 10.0)
        yield


@pytest.fixture(params=most(FAMILIES, 4))
def family(request, tiny):
    """Each decoder family in turn; those that differ less from the others in the soak."""
    return tiny(request.param)


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2 itself, from its wheel or the weight cache."""
    import harness

    return harness.load_model("smollm2")


@pytest.fixture(scope="session")
def browser_program():
    """Chromium or Chrome; without one the tests that need it are skipped, unless HARNESS_REQUIRE_BROWSER=1."""
    from harness.benchmark.browser import find_browser

    program = find_browser()
    if program is None:
        say = pytest.fail if os.environ.get("HARNESS_REQUIRE_BROWSER") == "1" else pytest.skip
        say("no browser found: install chromium, or set CHROMIUM to its path")
    return program


@pytest.fixture(scope="module")
def browser(browser_program):
    """One browser for the tests of a file."""
    from harness.benchmark.browser import Browser

    browser = Browser(browser_program)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def only_ray():
    """A lock on the one Ray cluster of this machine: a second would be taken for the first, and joined."""
    with FileLock(Path(tempfile.gettempdir()) / "attention-harness-ray.lock"):
        yield


@pytest.fixture
def pictures():
    """The runs of this test draw their figures and their report."""
    with drawn():
        yield


@pytest.fixture(scope="session")
def launch():
    """A runner in a process of its own, forked from one that has imported torch: see `launches`."""
    from launches import Launcher

    with Launcher() as launcher:
        yield launcher


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """A runner's command line in this process: (exit code, standard output, standard error)."""
    import sys

    from harness.command import main

    def run(runner, *arguments, store=True):
        nothing_drawn()

        given = [*arguments, f"store={tmp_path / 'results'}"] if store else list(arguments)
        monkeypatch.setattr(sys, "argv", [f"experiments.{runner}", *given])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(runner)
        out, err = capfd.readouterr()
        return stop.value.code, out, err

    return run


def pytest_configure(config):
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        for fixture in {*getattr(item, "fixturenames", ())} & {*MARKED_BY_FIXTURE}:
            item.add_marker(MARKED_BY_FIXTURE[fixture])
    thin(items)
    if os.environ.get("HARNESS_QUICK") == "1":
        items[:] = quick([item for item in items if not item.get_closest_marker("soak")])
    items.sort(key=_place_in_order())


def pytest_collection_finish():
    if "harness.study" in sys.modules:
        nothing_drawn()
    gc.freeze()  # a collection looks at what tests make, not each time at all that was imported
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def _place_in_order():
    """The longest files first; with a seed, files in random order and tests in random order within each."""
    seed = os.environ.get("HARNESS_ORDER")
    if not seed:
        places = {name: place for place, name in enumerate(LONGEST_FIRST)}
        return lambda item: places.get(item.path.stem, len(places))
    return lambda item: [random.Random(f"{seed} {name}").random() for name in (item.path.name, item.nodeid)]
