"""The table of runners: each one's name, what it does in a line, its spec, and the keys that it reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness import config
from harness.command import actions

#: Keys of a run that every runner of stages reads.
_RUN = ("model", "prompts", "execute", "show", "published", "seed", "question")
_ROLLOUT = "attribution.rollout"
_SWEEP = ("ablation", "metrics", "heads", "sweep", "stats")
_SETS = ("sets", "n_random_sets")


@dataclass(frozen=True)
class Runner:
    """A runner: what it does in a line, its spec, its action, and the keys that it reads (``section.key`` for
    one of a section; empty: all of the spec).

    The action of a runner of stages (whose spec is `RunSpec`) is called with the runner's name, the spec, its `Place`
    and the keys of the command line; that of any other with its spec. It returns the path that is printed last, if
    there is one. `check_values` refuses values before they are parsed,
    `arrange` puts them where the spec has them.
    """

    line: str
    spec: type
    act: Callable[..., Any]
    reads: tuple[str, ...] = ()
    check_values: Callable[[Mapping[str, Any]], None] = config.check_names
    arrange: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict

    def reads_key(self, key: str) -> bool:
        """Whether the runner reads a key, one inside it, or the section that it is in."""
        return not self.reads or any(
            f"{key}.".startswith(f"{each}.") or each.startswith(f"{key}.") for each in self.reads
        )

    @property
    def makes_run(self) -> bool:
        """Whether it runs stages into a run directory."""
        return self.spec is config.RunSpec


def _stages(line: str, *reads: str) -> Runner:
    return Runner(line, config.RunSpec, actions.run_stages, (*_RUN, *reads))


#: Runners by name, in the order in which they are listed.
RUNNERS: dict[str, Runner] = {
    "study": _stages(
        "Measure attention patterns, an ablation of every head and rollout, in one report",
        *_SWEEP, *_SETS, "edges", "cache", "attribution", "roles",
    ),
    "cache_attention": _stages("Cache the attention patterns of every head, and rollout", "cache", _ROLLOUT),
    "ablate_heads": _stages("Ablate heads and measure their effects", *_SWEEP, *_SETS, "edges", "roles"),
    "explain_heads": _stages(
        "Make a card of each important or named head: what it reads and writes, and what later heads do about it",
        *_SWEEP, "edges", "cache", _ROLLOUT,
    ),
    "compare_attributions": _stages(
        "Compare attribution methods with measured causes", "cache", "attribution", "stats"
    ),
    "profile_heads": _stages(
        "Score the roles of every head, and ablate the heads of a role together",
        *_SWEEP, "n_random_sets", "cache", _ROLLOUT, "roles",
    ),
    "compare_models": _stages(
        "Compare two models on the same prompts: patterns, effects and roles",
        *_SWEEP, "cache", _ROLLOUT, "roles", "compare",
    ),
    "trace_context": _stages(
        "Trace an answer to the segments of a long context", "heads", "trace", _ROLLOUT, "stats"
    ),
    "generate": _stages(
        "Continue prompts with heads ablated, beside the clean model's text", "ablation", "heads", *_SETS, "texts"
    ),
    "evaluate": _stages(
        "Run tasks of lm-evaluation-harness on the clean model and with heads ablated",
        *("ablation", "heads", *_SETS, "stats", "tasks", "tasks_path", "tasks_limit"),
    ),
    "look": Runner("Show what every head attends to in a sentence, as one page", config.LookSpec, actions.look),
    "bake": Runner("Save a checkpoint with heads ablated in its weights", config.BakeSpec, actions.bake),
    "list": Runner("List the runs of a store, or delete runs by name", config.ListSpec, actions.list_runs),
    "render": Runner("Draw a saved run again, without a model", config.RenderSpec, actions.render),
    "reproduce": Runner(
        "Run a saved spec again and compare, value by value",
        config.ReproduceSpec,
        actions.reproduce,
        check_values=actions.check_reproduced,
    ),
    "again": Runner(
        "Run a saved spec with other settings (ablation=mean seed=1), as a new run",
        config.AgainSpec,
        actions.again,
        arrange=actions.arranged_changes,
    ),
    "collect": Runner(
        "Set saved runs side by side, as one table and one page", config.CollectSpec, actions.collect
    ),
    "benchmark": Runner(
        "Time sweeps beside loops of whole forwards, or how soon a report opens",
        config.BenchmarkSpec,
        actions.benchmark,
    ),
}  # fmt: skip
