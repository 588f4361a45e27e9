"""How large the report of a saved run is, and how soon it can be used: in headless Chromium, the network off."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import views
from harness.benchmark.browser import Browser, find_browser
from harness.config import RequestError
from harness.results import Run, manifest, open_run

#: Every view that is drawn when the page opens has something on it.
_DRAWN = "document.querySelectorAll('.three canvas').length > 0 && !!document.querySelector('.circuitsvis canvas')"
_FIRST = ".map button[data-head]"
_OPENED = f"document.getElementById('picked').textContent.startsWith(document.querySelector('{_FIRST}').dataset.head)"


@dataclass(frozen=True)
class Opening:
    """Seconds from the start until the page can be used, until all of it is drawn, and from a click on the map until
    the head is open."""

    ready: float
    drawn: float
    head: float


def measured(run: str, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Size of the report, the seconds in which it is written, and each opening, as plain values.

    Raises `RequestError` for a run without patterns and effects of heads, and where there is no browser.
    """
    saved = open_run(run)
    if not {"pattern", "effect"} <= set(saved.data):
        raise RequestError("page", run, "this run has no patterns or no effects of heads; give one of study")
    program = find_browser()
    if program is None:
        raise RequestError("page", run, "no browser was found: install chromium, or set CHROMIUM to its path")
    with tempfile.TemporaryDirectory() as scratch:
        written, report = _written(saved, Path(scratch))
        browser = Browser(program, Path(scratch) / "profile")
        try:
            openings = [_opened(browser, report) for _ in range(rounds)]
        finally:
            browser.close()
        found = {"run": run, "megabytes": report.stat().st_size / 1e6, "written_seconds": written}
    say(f"report {found['megabytes']:.1f} MB, written in {written:.1f} s")
    for name, what in (("ready", "usable after"), ("drawn", "all drawn after"), ("head", "a head opened in")):
        took = [getattr(opening, name) for opening in openings]
        say(f"{what} {statistics.median(took):.2f} s ({min(took):.2f}–{max(took):.2f})")
    return {**found, **manifest.environment(), "openings": [asdict(opening) for opening in openings]}


def _written(run: Run, folder: Path) -> tuple[float, Path]:
    began = time.monotonic()
    report = folder / "report.html"
    views.write_report(run, report)
    return time.monotonic() - began, report


def _opened(browser: Browser, report: Path) -> Opening:
    began = time.monotonic()
    browser.open(report)
    ready = time.monotonic() - began
    browser.wait(_DRAWN)
    drawn, began = time.monotonic() - began, time.monotonic()
    browser.click(_FIRST)
    browser.wait(_OPENED)
    return Opening(ready, drawn, time.monotonic() - began)
