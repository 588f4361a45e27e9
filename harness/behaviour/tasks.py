"""The stage that takes tasks of lm-evaluation-harness, with the clean model and without each set of heads."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from harness.ablation.ablation_context import ablated
from harness.behaviour.stage import name_of
from harness.config import AblationSpec, RequestError, RunSpec, StatsSpec, near
from harness.execute import Closed, Part
from harness.execute.cost import Trial, duration
from harness.hooks import Head
from harness.models import Model
from harness.models.sources import first_line
from harness.prompts import Prompts
from harness.results.schema import TABLES
from harness.stats import summarize
from harness.sweep.interventions import named_sets, with_random

#: The clean model among the names of sets.
_CLEAN = "clean"
#: Seconds in which the hub must answer.
_ANSWER_SECONDS = 5
#: How a value of an item is found: task, metric, number of the item in its task, and the digest of its prompt.
Item = tuple[str, str, int, str]


@dataclass(frozen=True)
class TaskStage:
    """The stage that runs tasks; one unit is one model, the clean one or one without a set of heads, on all tasks.

    `tasks` are lm-evaluation-harness's objects by name. `random` maps the name of a random set to that of the set
    beside which it was drawn; `prompts` are those that a mean is over.
    """

    model: Model
    prompts: Prompts
    ablation: AblationSpec
    tasks: Mapping[str, Any]
    sets: Mapping[str, tuple[Head, ...]]
    random: Mapping[str, str]
    limit: int | None = None
    seed: int = 0
    name: str = "tasks"

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        sets = {name: [*map(str, heads)] for name, heads in self.sets.items()}
        return {"batches": [[_CLEAN], *([name] for name in sets)], "sets": sets, "tasks": [*self.tasks]}

    def cost(self, trial: Trial) -> str:
        items = sum(min(len(task.eval_docs), self.limit or len(task.eval_docs)) for task in self.tasks.values())
        rows = items * (1 + len(self.sets))
        seconds = duration(rows * trial(self.model, self.prompts))
        return f"{items} items × {1 + len(self.sets)} models, {rows} answers or more: {seconds} or more"

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        """Run all tasks with one model: a value for each item and metric, and lm-evaluation-harness's own log."""
        (name,) = plan["batches"][unit]
        samples, fired = self._samples(() if unit == 0 else self.sets[name])
        found = dict(_values(samples))
        return {
            "value": np.array([*found.values()]),
            "item": _packed([*found]),
            "log": _packed({task: [_line(each) for each in some] for task, some in samples.items()}),
            "fired": np.array(fired),
        }

    def _samples(self, heads: Sequence[Head]) -> tuple[dict[str, list[dict[str, Any]]], int]:
        """Return lm-evaluation-harness's record of each item by task, and the number of verified edits."""
        from lm_eval.evaluator import evaluate

        from harness.behaviour.task_model import TaskModel

        for task in self.tasks.values():
            task.set_fewshot_seed(seed=self.seed)  # each model gets the same examples
        context = ablated(self.model, heads, self.ablation, prompts=self.prompts) if heads else nullcontext()
        loaded: Any = {"tasks": dict(self.tasks), "groups": {}}
        with _quiet(), context as check, self.model.alone():
            results: Any = evaluate(TaskModel(self.model), loaded, limit=self.limit, bootstrap_iters=0)
        return results["samples"], 0 if check is None else check.fired

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Join the values of all models, item by item. Raises `RuntimeError` if two models read other prompts."""
        items: list[Item] = [tuple(item) for item in _unpacked(units[0]["item"])]
        if any(_unpacked(unit["item"]) != _unpacked(units[0]["item"]) for unit in units):
            raise RuntimeError("two models read other prompts of the same task")
        values, names = np.stack([unit["value"] for unit in units]), [*plan["sets"]]
        task, metric, number, _ = (np.array(each) for each in zip(*items, strict=True))
        checks = {"edits_verified": sum(int(unit["fired"]) for unit in units)}
        made: dict[str, Any] = {
            "clean_score": (("item",), values[0]),
            "ablated_score": (("set", "item"), values[1:], checks),
            "item_task": (("item",), _strings(task)),
            "item_metric": (("item",), _strings(metric)),
            "item_number": (("item",), number.astype(np.int64)),
            "set_heads": (("set",), _strings([";".join(heads) for heads in plan["sets"].values()])),
            "drawn_beside": (("set",), _strings([self.random.get(name, "") for name in names])),
            "task_log": (("log",), _strings([json.dumps(_unpacked(unit["log"])) for unit in units])),
        }
        return xr.Dataset(made, {"set": names})


def _values(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[tuple[Item, float]]:
    """Yield each number of each item; metrics that are defined for a whole task alone have none."""
    for task, some in samples.items():
        for each in sorted(some, key=lambda sample: (sample["filter"], sample["doc_id"])):
            for metric in each["metrics"]:
                label = metric if each["filter"] == "none" else f"{metric},{each['filter']}"
                if isinstance(each[metric], bool | int | float | np.number):
                    yield (task, label, int(each["doc_id"]), each["prompt_hash"]), float(each[metric])


def _line(sample: Mapping[str, Any]) -> str:
    """Return a record as lm-evaluation-harness writes it."""
    from lm_eval.utils import handle_non_serializable

    return json.dumps(sample, default=handle_non_serializable, ensure_ascii=False)


def _packed(value: Any) -> np.ndarray:
    """Return a plain value as bytes: units hold numbers."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def _unpacked(array: np.ndarray) -> Any:
    return json.loads(array.tobytes().decode())


def _strings(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.dtypes.StringDType())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence advice and progress bars of lm-evaluation-harness and of the readers of its data."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, datasets.is_progress_bar_enabled()
    logger.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        with redirect_stderr(StringIO()):  # progress bars that have no switch
            yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def _hub_or_cache() -> Iterator[None]:
    """Read data from the hub, or, where that does not answer, from its cache alone: its client tries for minutes."""
    from datasets import config as data_config
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    before = constants.HF_HUB_OFFLINE, data_config.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=_ANSWER_SECONDS)
    except Exception:  # the hub's client passes on errors of its HTTP library
        constants.HF_HUB_OFFLINE = data_config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, data_config.HF_HUB_OFFLINE = before


def load_tasks(names: Sequence[str], path: str | None) -> dict[str, Any]:
    """Load tasks of lm-evaluation-harness by name, or from YAML files in a folder.

    Raises `RequestError` for an unknown name, and for a task whose files or data cannot be read.
    """
    with _quiet(), _hub_or_cache():
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=path, include_defaults=False)
        own = manager.all_tasks
        if not {*names} <= {*own}:
            manager = TaskManager(include_path=path)  # some seconds: it reads thousands of files
        loaded: dict[str, Any] = {}
        for name in names:
            if name not in manager.all_tasks:
                close = near(name, manager.all_tasks).partition("known: ")[0]
                where = f"{path} has {', '.join(own) or 'none'}" if path else "a task of your own needs tasks_path=DIR"
                raise RequestError("tasks", name, f"lm-evaluation-harness has no such task; {close}{where}")
            try:
                loaded |= manager.load([name])["tasks"]
            except Exception as error:  # readers of YAML, data and the hub raise errors of any type
                remedy = f"this task cannot be loaded ({type(error).__name__}: {first_line(error)})"
                raise RequestError("tasks", name, remedy) from error
    for task in loaded.values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
    return loaded


def part(spec: RunSpec, model: Model, prompts: Prompts) -> Part:
    """Return the stage that runs tasks, and their table. Raises `RequestError` for a model that predicts no text."""
    if model.kind not in ("decoder", "encoder_decoder"):
        remedy = "tasks score what a model writes: load a decoder or an encoder-decoder"
        raise RequestError("model", model.name, remedy)
    heads = model.heads(list(spec.heads))
    sets = named_sets(model, spec.sets) if spec.sets else {name_of(heads): heads}
    every = with_random(sets, heads if spec.sets else model.heads("all"), spec.n_random_sets, spec.seed)
    drawn = dict(zip(list(every)[len(sets) :], np.repeat(list(sets), spec.n_random_sets).tolist(), strict=True))
    tasks = load_tasks(spec.tasks, spec.tasks_path)
    stage = TaskStage(model, prompts, spec.ablation, tasks, every, drawn, spec.tasks_limit, spec.seed)
    return Part([stage], [TaskTable(spec.stats)])


@dataclass(frozen=True)
class TaskTable:
    """Write ``tasks.csv``, and lm-evaluation-harness's own log of each item beside it."""

    stats: StatsSpec

    def close(self, data: xr.Dataset) -> Closed:
        names = [_CLEAN, *map(str, data["set"].values)]
        logs = [json.loads(str(log)) for log in data["task_log"].values]
        folders = [f"lm_eval/{at:02d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}" for at, name in enumerate(names)]
        files = {
            f"{folder}/samples_{task}.jsonl": "\n".join([*lines, ""])
            for folder, log in zip(folders, logs, strict=True)
            for task, lines in log.items()
        }
        return Closed(data.drop_vars("task_log"), {"tasks": tasks_table(data, self.stats)}, files)


def tasks_table(data: xr.Dataset, stats: StatsSpec) -> pd.DataFrame:
    """Make a row for each task, metric and set: both means over items, their difference, and its interval over items.

    The interval is the bootstrap of `harness.stats.summarize` of each item's difference, so that items are paired.
    """
    columns = ("item_task", "item_metric", "drawn_beside", "set_heads", "set")
    tasks, metrics, beside, heads, sets = (np.array([*map(str, data[name].values)]) for name in columns)
    rows = []
    for task, metric in dict.fromkeys(zip(tasks, metrics, strict=True)):
        here = (tasks == task) & (metrics == metric)
        clean, without = data["clean_score"].values[here], data["ablated_score"].values[:, here]
        difference = (without - clean).T
        options = {"confidence": stats.confidence, "level": stats.level, "resamples": stats.resamples}
        spread = summarize(difference[:, :, None], higher_is_better=True, seed=stats.seed, **options)
        for number, name in enumerate(sets):
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "set": beside[number] or name,
                    "kind": "random" if beside[number] else "named",
                    "heads": heads[number],
                    "clean": clean.mean(),
                    "ablated": without[number].mean(),
                    "difference": difference[:, number].mean(),
                    "ci_low": spread["ci_low"].iloc[number],
                    "ci_high": spread["ci_high"].iloc[number],
                    "n": int(here.sum()),
                }
            )
    return pd.DataFrame(rows, columns=np.array(TABLES["tasks"].columns))
