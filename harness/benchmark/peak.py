"""Measure the memory that work takes beyond what was used before."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

_EVERY = 0.02  # seconds


@dataclass
class Peak:
    """GB beyond what was used before; set once the work is done."""

    gb: float = 0.0


@contextmanager
def watched(device: str) -> Iterator[Peak]:
    """Measure the peak memory inside the context: on an accelerator by torch's statistics, else by sampling the process
    from a thread."""
    peak = Peak()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.gb = (torch.cuda.max_memory_allocated(device) - before) / 1e9
        return
    done, process = threading.Event(), psutil.Process()
    before = process.memory_info().rss

    def look() -> None:
        while not done.wait(_EVERY):
            peak.gb = max(peak.gb, (process.memory_info().rss - before) / 1e9)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
