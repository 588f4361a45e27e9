"""Time what should answer at once: a look at a text, and the refusal of a wrong request."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness.config import BenchmarkSpec
from harness.models import load_model
from harness.prompts import load_prompts
from harness.results import manifest

#: Lengths of the texts that are looked at, in tokens.
LENGTHS = (16, 128)
#: Requests that are wrong: one for the keys, the prompts, a saved run, and a model's folder.
REFUSED = (
    "study sotre=x",
    "ablate_heads prompts=prose ablation=patch",
    "collect runs=nowhere/*",
    "again run=nowhere ablation=mean",
    "study model=path model.path=nowhere",
)


def time_looks(spec: BenchmarkSpec, say: Callable[[str], None]) -> dict[str, Any]:
    """Time the page of every head on passages of `LENGTHS` tokens, the model loaded: the first call and the median of
    the later ones, in seconds, and the page's size in MB. `say` is called with a line for each."""
    model, rows = load_model(spec.model), []
    for length in LENGTHS:
        prompts = load_prompts("prose", model, n=1, length=length)
        text = model.tokenizer.decode(prompts.token_id[0, : prompts.length[0]], skip_special_tokens=True)
        seconds, megabytes = [], 0.0
        for _ in range(max(2, spec.rounds)):
            began = time.perf_counter()
            page = harness.look(model, text).grid().html
            seconds.append(time.perf_counter() - began)
            megabytes = len(page.encode()) / 1e6
        later = statistics.median(seconds[1:])
        say(f"look, {length} tokens: first {seconds[0]:.2f} s, then {later:.2f} s; page {megabytes:.2f} MB")
        rows.append({"tokens": length, "seconds": seconds, "megabytes": megabytes})
    return {"model": model.name, **manifest.environment(), "looks": rows}


def time_refusals(spec: BenchmarkSpec, say: Callable[[str], None]) -> dict[str, Any]:
    """Time each of `REFUSED` as a process of its own, in seconds of the processor. Raises `RuntimeError` for one that
    is not refused with a line and exit code 2."""
    rows, root = [], str(Path(harness.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    with tempfile.TemporaryDirectory() as place:
        for line in REFUSED:
            runner, *words = line.split()
            command, seconds = [sys.executable, "-m", f"experiments.{runner}", *words], []
            for _ in range(spec.rounds):
                before = _children_seconds()
                done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
                seconds.append(_children_seconds() - before)
                if (done.returncode, done.stderr.count("\n")) != (2, 1):
                    raise RuntimeError(f"{line}: exit code {done.returncode}: {done.stderr}")
            say(f"{line}: refused in {statistics.median(seconds):.2f} s of processor time")
            rows.append({"request": line, "processor_seconds": seconds})
    return {**manifest.environment(), "refusals": rows}


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
