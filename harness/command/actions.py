"""What each runner does with its spec. What is slow to import is imported inside, after the checks that need it not."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_type_hints

from harness import config
from harness.command.terminal import progress, tell
from harness.config import Place, RequestError, RunSpec

if TYPE_CHECKING:
    from harness.results.objects import Folder

SHOWN = 20  #: Moved values on the terminal; all are in reproduction.json.


def run_stages(runner: str, spec: RunSpec, where: Place, named: frozenset[str]) -> "Folder | None":
    """Run the stages of a runner, print a summary, and return the run's directory; ``None`` for a dry run.

    `named` are the keys of the command line: a run is resumed with its saved spec where they name nothing of a spec
    but where to compute.
    """
    from harness import study
    from harness.results.objects import folder_at

    if where.resume and resumes_saved(named):
        saved = study.saved_spec(folder_at(where.resume))
        spec = replace(saved, execute=spec.execute) if "execute" in named else saved
    folder = study.run(runner, spec, where, progress(), tell)
    if folder is not None:
        _summarize(folder)
    return folder


def resumes_saved(named: frozenset[str]) -> bool:
    """Whether a command line that resumes a run leaves all settings to the run's own spec."""
    return named <= {"resume", "store", "dry_run", "execute"}


def _summarize(folder: "Folder") -> None:
    """Print the answer to the question, or the strongest heads, on standard error."""
    from harness.findings.questions import question_of
    from harness.results import open_run
    from harness.views.terminal import changed_texts, strongest, task_scores

    run = open_run(folder)
    question = question_of(run)
    summary = (
        (strongest(run) or changed_texts(run) or task_scores(run))
        if question is None
        else f"{question.asks}\n{question.answer(run).text}"
    )
    if summary:
        tell(summary)


def look(spec: config.LookSpec) -> "Folder":
    """Write the page of what every head attends to, and return its path."""
    from harness.interactive.make_look import look
    from harness.models import load_model
    from harness.results import store
    from harness.results.objects import folder_at

    model = load_model(spec.model)
    page = look(model, spec.text, spec.pair, target=spec.target, level=spec.level).grid(spec.layer)
    path = folder_at(spec.store) / "look" / f"{time.strftime('%Y%m%d-%H%M%S')}.html"
    store.write_text(path, page.html)
    return path


def bake(spec: config.BakeSpec) -> "Folder":
    """Write a checkpoint with heads ablated, and return its folder."""
    from harness.behaviour.bake import bake
    from harness.models import load_model
    from harness.prompts import load_prompts

    model = load_model(spec.model)
    model.heads(list(spec.heads))
    prompts = load_prompts(spec.prompts, model) if isinstance(spec.ablation, config.MeanAblation) else None
    baked = bake(model, list(spec.heads), spec.ablation, spec.to, prompts=prompts)
    check, n = baked.provenance["check"], len(baked.provenance["heads"])
    tell(
        f"{n} head{'' if n == 1 else 's'}: {baked.provenance['baseline']}; loaded again, the largest difference from "
        f"the ablated model is {check['largest_difference']:.1e} (largest value {check['largest_value']:.3g})"
    )
    return baked.folder


def list_runs(spec: config.ListSpec) -> None:
    """Print the table of runs on standard output, and deleted runs on standard error."""
    from harness.results.runs import delete, format_table, runs

    for name, size in delete(spec):
        tell(f"deleted {name} ({size})")
    print("\n".join(format_table(runs(spec), time.time())), flush=True)


def render(spec: config.RenderSpec) -> "Folder":
    """Draw views of a run into its directory, and return that."""
    from harness.results import open_run, verify

    run = open_run(spec.run)
    verify(spec.run)
    from harness.views.draw import draw_for_paper, draw_views  # a slow import, after the checks of the run

    if spec.figures == "paper":
        draw_for_paper(run, spec.show, spec.views)
    else:
        draw_views(run, spec.views, spec.show)
    return run.path


def reproduce(spec: config.ReproduceSpec) -> "Folder":
    """Reproduce a run and return the new directory; exit with code 1 if a value moved."""
    from harness.study.reproduce import reproduce

    result = reproduce(spec.run, spec.store, progress(), tell, spec.resume)
    for line in result.environment:
        tell(f"environment: {line}")
    for moved in result.moved[:SHOWN]:
        tell(f"moved: {moved}")
    if len(result.moved) > SHOWN:
        tell(f"… and {len(result.moved) - SHOWN} more, in {result.run / 'reproduction.json'}")
    tell(f"{result.compared - len(result.moved)} of {result.compared} values hold within {result.tolerance:g}")
    if not result.holds:
        print(result.run, flush=True)
        sys.exit(1)
    return result.run


def again(spec: config.AgainSpec) -> "Folder | None":
    """Run a saved spec with changes as a new run that names its parent, and return its directory."""
    from harness.results.objects import folder_at
    from harness.study.again import with_changes

    changed = with_changes(folder_at(spec.run), spec.changes)
    settings = config.parse(RunSpec, changed.settings)
    from harness.command.checks import check_run

    check_run(changed.runner, settings)
    from harness import study

    lines = [f"{key}: {before} → {after}" for key, (before, after) in changed.changed.items()]

    def tell_changes_first(line: str) -> None:
        """Tell the changes before the first line of the run: a request that is refused is one line."""
        while lines:
            tell(lines.pop(0))
        tell(line)

    where = Place(store=spec.store, dry_run=spec.dry_run)
    folder = study.run(changed.runner, settings, where, progress(), tell_changes_first, parent=spec.run)
    if folder is not None:
        _summarize(folder)
    return folder


def arranged_changes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put the settings of a run among `changes`; a section that nothing names is none, and a seed of none in a section
    follows the run's."""
    own = {key: value for key, value in values.items() if key in get_type_hints(config.AgainSpec)}
    if not isinstance(own.get("changes") or {}, Mapping):
        return own  # the spec refuses it
    named = {**{key: values[key] for key in values if key not in own}, "seed": values.get("seed")}
    changes = {key: value for key, value in named.items() if value is not None}
    for key, value in changes.items():
        if isinstance(value, Mapping) and value.get("seed", 0) is None:
            changes[key] = {name: each for name, each in value.items() if name != "seed"}
    return {**own, "changes": {**(own.get("changes") or {}), **changes}}


def collect(spec: config.CollectSpec) -> "Folder":
    """Write the table and the page of saved runs, and return their directory."""
    from harness.compare.many_runs import open_runs
    from harness.results.objects import folder_at
    from harness.views.many_runs_page import write_collected

    runs = open_runs(spec.runs)
    folder = folder_at(spec.store) / "collect" / time.strftime("%Y%m%d-%H%M%S")
    return write_collected(runs, folder, spec.metric, spec.by, spec.top_k)


def check_reproduced(values: Mapping[str, Any]) -> None:
    """Raise `RequestError` for settings of the run itself: the saved spec is reproduced."""
    for key, value in values.items():
        if key not in get_type_hints(RunSpec):
            continue
        while isinstance(value, Mapping) and value:  # seed=1, and prompts.seed=1 as it was written
            inner, value = next(iter(value.items()))
            key = f"{key}.{inner}"
        remedy = (
            f"a run is reproduced with its saved settings, so leave this out; for another run: study {key}={value} …"
        )
        raise RequestError(key, value, remedy)


def benchmark(spec: config.BenchmarkSpec) -> "Folder":
    """Run the benchmark and return the JSON file of its rounds."""
    if spec.page is None:
        from harness.prompts import check_prompts

        check_prompts(spec.prompts)
    from harness.benchmark import answer_times, benchmark, edge_times, map_times, page_times
    from harness.results import store
    from harness.results.objects import folder_at

    if spec.page is not None:
        results = page_times.measure(spec.page, spec.rounds, tell)
    else:
        kinds = {"sweep": benchmark, "maps": map_times.time_maps, "edges": edge_times.time_edges}
        kinds |= {"look": answer_times.time_looks, "refusals": answer_times.time_refusals}
        results = kinds[spec.what](spec, tell)
    path = folder_at(spec.store) / "benchmark" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    store.write_text(path, json.dumps(results, indent=1))
    return path
