"""Check a request as far as possible before torch is imported, and find jobs of a multirun that differ in nothing."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

from harness import config, metrics
from harness.command.actions import resumes_saved
from harness.command.runners import RUNNERS, Runner
from harness.config import FilePrompts, Place, RequestError, RunSpec
from harness.models.config_shape import check_file, check_heads, is_decoder

PLACE = tuple(get_type_hints(Place))


@dataclass(frozen=True)
class Request:
    """A checked request: its runner by name, the spec, where a run is written (if the runner makes one), and the keys
    of the command line."""

    name: str
    spec: Any
    where: Place | None
    named: frozenset[str]

    @property
    def runner(self) -> Runner:
        """The runner."""
        return RUNNERS[self.name]

    def act(self, where: Place | None = None) -> Any:
        """Carry the request out, in another place if one is passed, and return the path to print."""
        if self.where is None:
            return self.runner.act(self.spec)
        return self.runner.act(self.name, self.spec, where or self.where, self.named)


def checked(name: str, values: Mapping[str, Any], named: frozenset[str]) -> Request:
    """Return the request of these plain values. Raises `RequestError` for what is known to be wrong without torch."""
    runner = RUNNERS[name]
    runner.check_values(values)
    if not runner.makes_run:
        spec = config.parse(runner.spec, runner.arrange(values))
        for key in ("run", "resume"):
            if place := getattr(spec, key, None):
                config.check_there(key, place)
        if isinstance(spec, config.CollectSpec):
            config.run_folders(spec.runs)
        return Request(name, spec, None, named)
    known = (*get_type_hints(RunSpec), *PLACE)
    if isinstance(values.get("experiment"), Mapping):
        remedy = "a preset's keys are those of a run: begin its file with the line '# @package _global_'"
        raise RequestError("experiment", "{…}", remedy)
    for key in values:
        if key not in known:
            meant = _meant(key, values[key])
            raise RequestError(key, values[key], f"there is no such key; {meant}{config.near(key, known)}")
    where = config.parse(Place, {key: values[key] for key in PLACE if key in values})
    spec = config.parse(RunSpec, {key: value for key, value in values.items() if key not in PLACE})
    if where.resume:
        config.check_there("resume", where.resume)
    if not (where.resume and resumes_saved(named)):  # then the run's own spec counts, not the defaults here
        check_run(name, spec)
    return Request(name, spec, where, named)


def _meant(key: str, value: Any) -> str:
    """Describe what to write instead of a key that other tools have; empty for any other key."""
    several = [str(each) for each in value] if isinstance(value, list) else [str(value)]
    match key:
        case "layer" | "layers":
            ranges = [re.sub(r"\bL?(\d+)", r"L\1", each) for each in several]
            heads = ranges[0] if len(ranges) == 1 else f"[{','.join(ranges)}]"
            named = all(re.fullmatch(r"L\d+(-L\d+)?", each) for each in ranges)
            return f"layers are named among heads: heads={heads if named else 'L15-L29'}; "
        case "n":
            return f"the number of prompts is prompts.n={value}; "
        case "seeds":
            return f"for one run each: -m seed={','.join(several)}; "
        case "runs":
            return "saved runs are set side by side by collect; "
    return ""


def check_run(name: str, spec: RunSpec) -> None:
    """Raise `RequestError` for what is known to be wrong with a run's spec without torch."""
    check_file(spec.model)
    metrics.check_names(spec.metrics)
    for key, heads in (("heads", spec.heads), ("cache.heads", spec.cache.heads), ("show.heads", spec.show.heads)):
        if heads:
            check_heads(spec.model, heads, key)
    config.check_comparison(name, spec)
    config.check_text_heads(name, spec)
    config.check_tasks(name, spec)
    from harness.prompts import check_prompts  # half a second, after what needs it not
    from harness.prompts.needs import check_ablation, check_metrics

    check_prompts(spec.prompts)
    if "ablation" in RUNNERS[name].reads and spec.question is None:
        check_ablation(spec.ablation, spec.prompts)
        check_metrics(spec.metrics, spec.prompts)


# --- jobs that differ in nothing --------------------------------------------------------------------------------


def describe_repeat(request: Request, before: Request, differing: str) -> str:
    """Describe a job whose settings are another's but for seeds that nothing reads; empty where that is not known.

    `differing` are the keys of the command line in which the two differ, empty where there are none.
    """
    if request.where is None or before.where is None:
        return ""
    mine, its = (_read(each) for each in (request, before))
    if not differing:
        return "has the same settings as {}"
    if _text(mine) == _text(its):
        return f"has the same settings as {{}} but for {differing}, which nothing here reads"
    for values in (mine, its):
        values.get("stats", {}).pop("seed", None)
    if _text(mine) == _text(its):
        return f"has the same settings as {{}} but for {differing}, which only the bootstrap of the intervals reads"
    return ""


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=list)


def _read(request: Request) -> dict[str, Any]:
    """Return the plain values of a run's spec that its numbers depend on."""
    spec, reads = request.spec, request.runner.reads
    known = {key: value for key, value in asdict(spec).items() if key not in config.NOT_IN_HASH}
    values = {key: value for key, value in known.items() if request.runner.reads_key(key)}
    for section, values_in in values.items():
        if isinstance(values_in, dict) and section not in reads:
            values[section] = {key: value for key, value in values_in.items() if f"{section}.{key}" in reads}
    if "sweep" in values:
        for key in config.OF_SPEED:
            values["sweep"].pop(key)
    if isinstance(spec.prompts, FilePrompts) and spec.prompts.n is None:
        values["prompts"].pop("seed")
    if not _reads_seed(spec, reads):
        values.pop("seed")
    if "roles" not in reads or (request.name == "ablate_heads" and spec.sweep.pairs != "role"):
        values.pop("roles", None)
    return values


def _reads_seed(spec: RunSpec, reads: tuple[str, ...]) -> bool:
    """Whether anything draws with the run's own seed, as far as is known without the model."""
    if "trace" in reads:
        return True
    if "texts" in reads:
        return spec.texts.sample or spec.n_random_sets > 0
    if "sweep" not in reads:
        return False
    distance = {"kl", "embedding"} & {*spec.metrics} or (spec.metrics == ("auto",) and not is_decoder(spec.model))
    return bool(distance) or spec.sweep.method != "exact" or "cumulative" in spec.sweep.kind or spec.n_random_sets > 0
