"""What a command writes on standard error: lines, and the progress of stages."""

import shutil
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

_FORMAT_WARNING = warnings.formatwarning


def tell(line: str) -> None:
    """Print one line on standard error."""
    print(line, file=sys.stderr, flush=True)


def format_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
    """Format a warning of this package as one line, others with their line of code."""
    if category.__module__.startswith("harness."):
        return f"{message}\n"
    return _FORMAT_WARNING(message, category, *where, **more)


def progress() -> Callable[[str, int, int], None]:
    """Return a function that prints a stage's progress on standard error: on a terminal a bar with rate and time left,
    elsewhere a line with the time so far."""
    start, seen = time.monotonic(), dict[str, tuple[float, int]]()

    def show(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        since, before = seen.setdefault(stage, (now, done))
        if not sys.stderr.isatty():
            tell(f"{stage} {done}/{total}  {now - start:.0f} s")
            return
        from harness.views.terminal import bar

        line = bar(stage, done, total, now - since, before, shutil.get_terminal_size().columns)
        print(f"\r\x1b[K{line}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show
