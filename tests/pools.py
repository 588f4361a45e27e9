"""Workers and stages for tests of how units are spread: stages that need no model, and workers on a simulated clock."""

import heapq
import os
import signal
import time
from pathlib import Path

import numpy as np
import xarray as xr

from harness.config import RequestError
from harness.execute.protocols import make_unit
from harness.execute.spread import TurnResult
from harness.sweep.labels import gathered


class Numbers:
    """A stage of `n` units, each its own number squared. What `harm` says befalls a unit: ``kill`` its worker every
    time, ``once`` the first time (a file in `marks` remembers), ``raise``, ``refuse``, ``slow``, ``company``."""

    name = "numbers"

    def __init__(self, n, harm=None, marks=None):
        self.n, self.harm, self.marks = n, harm or {}, marks

    def plan(self, done=None):
        return {"batches": [[number] for number in range(self.n)]}

    def compute(self, plan, unit):
        if unit in self.harm:
            getattr(self, f"_{self.harm[unit]}")(unit)
        if self.marks:
            (Path(self.marks) / f"made-{unit}-{os.getpid()}-{time.monotonic_ns()}").touch()
        return {"value": np.array(plan["batches"][unit]) ** 2}

    def _kill(self, unit):
        os.kill(os.getpid(), signal.SIGKILL)

    def _once(self, unit):
        mark = Path(self.marks) / f"{unit}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def _raise(self, unit):
        raise ZeroDivisionError("lightning")

    def _refuse(self, unit):
        raise RequestError("heads", "L9H9", "no such head")

    def _slow(self, unit):
        time.sleep(0.5)

    def _company(self, unit):
        """Until another worker has made something."""
        for _ in range(1200):
            if any(mark.name.split("-")[2] != str(os.getpid()) for mark in Path(self.marks).glob("made-*")):
                break
            time.sleep(0.05)

    def assemble(self, plan, units):
        return xr.Dataset({"value": ("prompt", np.concatenate([unit["value"] for unit in units]))})


class Sums(Numbers):
    """A chain: each unit is the sum of those before it, and one."""

    name = "sums"
    compute = None

    def follow(self, plan, before):
        return {"value": np.array([1 + sum(int(unit["value"].sum()) for unit in before)])}


def keyed():
    """What a worker says its environment holds."""
    raise RequestError("key", os.environ.get("HARNESS_TEST_KEY", ""), "this it has")


def numbers(*given):
    """What a worker builds."""
    return [Numbers(*given), Sums(5)]


def unbuildable():
    raise RequestError("model", "x", "there is none")


def stillborn():
    os.kill(os.getpid(), signal.SIGKILL)


class Simulated:
    """Workers on a simulated clock: `seconds` is how long each unit takes, `joins` when each worker has loaded its
    model, `dies` when some of them die. No time passes here."""

    def __init__(self, seconds, joins, dies=None):
        self.seconds, self.joins, self.dies = seconds, joins, dies or {}
        self.now, self._events, self._free, self._doing = 0.0, [], [], {}
        self.given = []
        for worker, when in enumerate(joins):
            heapq.heappush(self._events, (when, worker, "joins", None))
        for worker, when in self.dies.items():
            heapq.heappush(self._events, (when, worker, "dies", None))

    @property
    def size(self):
        return len(self.joins)

    def start_workers(self, units):
        pass

    def free(self):
        return self._free.pop(0) if self._free else None

    def submit(self, worker, stage, unit):
        self.given.append((worker, unit))
        self._doing[worker] = unit
        heapq.heappush(self._events, (self.now + self.seconds[unit], worker, "ends", unit))

    def wait(self):
        self.now, worker, what, unit = heapq.heappop(self._events)
        if what == "joins":
            self._free.append(worker)
        elif what == "dies":
            self._free = [each for each in self._free if each != worker]
            if self._doing.pop(worker, None) is not None:
                return [TurnResult(worker, died=True)]
        elif self._doing.get(worker) == unit:
            del self._doing[worker]
            self._free.append(worker)
            return [TurnResult(worker, self.seconds[unit])]
        return []

    def stop(self):
        pass


class Many:
    """A stage of as many prompts and heads as a sweep may have, in units of 8 prompts, without a model."""

    name = "many"

    def __init__(self, n_prompts, n_heads):
        self.n_prompts, self.n_heads = n_prompts, n_heads

    def plan(self, done=None):
        return {"batches": [list(range(at, at + 8)) for at in range(0, self.n_prompts, 8)]}

    def value(self, prompt, head):
        return (prompt * 31 + head * 17) % 1009 / 1009

    def compute(self, plan, unit):
        prompts = np.array(plan["batches"][unit])[:, None]
        ablated = self.value(prompts, np.arange(self.n_heads))[None]
        return {"clean": np.zeros((1, 8)), "ablated": ablated[..., None]}

    def assemble(self, plan, units):
        ablated = gathered(plan["batches"], [unit["ablated"] for unit in units])
        return xr.Dataset({"effect": (("metric", "prompt", "head"), ablated[..., 0])})


class Writing(Simulated):
    """Workers that write their units, at once."""

    def __init__(self, stage, folder):
        super().__init__([1.0] * len(stage.plan()["batches"]), [0.0] * 8)
        self.stage, self.folder = stage, folder

    def submit(self, worker, stage, unit):
        super().submit(worker, stage, unit)
        make_unit(self.stage, self.folder, self.folder.plan(), unit)
