"""Measure the size of a saved run's report and how fast it opens in headless Chromium."""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import views
from harness.benchmark.browser import Browser, find_browser
from harness.config import RequestError
from harness.results import Run, manifest, open_run

#: Whether the first screen is drawn: the map, the list, and the picked head's pattern.
_DRAWN = (
    "document.querySelectorAll('.map button').length > 0 && document.querySelectorAll('.ranking svg').length > 0"
    " && !!document.querySelector('canvas.inspected')"
)
#: The first head on the map that is not the open one. The open one's pattern is marked: another head's replaces it.
_OTHER = """(() => {
  document.querySelector('canvas.inspected').dataset.before = true;
  const open = document.getElementById('picked').textContent;
  return [...document.querySelectorAll('.map button')].map((one) => one.dataset.head).find((head) => head !== open);
})()"""
_OPENED = (
    "document.getElementById('picked').textContent === '{0}'"
    " && !!document.querySelector('canvas.inspected:not([data-before])')"
)


@dataclass(frozen=True)
class PageTimes:
    """Seconds from the start until the page is usable, until all is drawn, and from a click until a head is drawn."""

    ready: float
    drawn: float
    head: float


def measure(run: str, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the report's size, the seconds of writing it, and the times of each opening, as plain values.

    Raises `RequestError` for a directory without a run, a run without patterns and effects of heads, a browser that is
    missing or fails, and a missing playwright.
    """
    try:
        saved = open_run(run)
    except RequestError as error:
        raise RequestError("page", run, error.remedy) from None
    if not {"pattern", "effect"} <= set(saved.data):
        raise RequestError("page", run, "this run has no patterns or no effects of heads; give one of study")
    program = find_browser()
    if program is None:
        raise RequestError("page", run, "there is no browser: install chromium, or set CHROMIUM to its path")
    try:
        from playwright.sync_api import Error
    except ImportError:
        raise RequestError("page", run, "what drives a browser is missing: pip install playwright") from None
    with tempfile.TemporaryDirectory() as scratch:
        written, report = _written(saved, Path(scratch))
        try:
            with closing(Browser(program)) as browser:
                openings = [_opened(browser, report) for _ in range(rounds)]
        except (Error, OSError, AssertionError) as error:
            reason = str(error).partition("\n")[0]  # playwright adds its log
            raise RequestError("page", run, f"{program} did not show its report ({reason})") from error
        result = {"run": run, "megabytes": report.stat().st_size / 1e6, "written_seconds": written}
    say(f"report {result['megabytes']:.1f} MB, written in {written:.1f} s")
    for name, what in (("ready", "usable after"), ("drawn", "all drawn after"), ("head", "a head opened in")):
        took = [getattr(opening, name) for opening in openings]
        say(f"{what} {statistics.median(took):.2f} s ({min(took):.2f}–{max(took):.2f})")
    return {**result, **manifest.environment(), "openings": [asdict(opening) for opening in openings]}


def _written(run: Run, folder: Path) -> tuple[float, Path]:
    began = time.monotonic()
    report = folder / "report.html"
    views.write_report(run, report)
    return time.monotonic() - began, report


def _opened(browser: Browser, report: Path) -> PageTimes:
    began = time.monotonic()
    browser.open(report)
    ready = time.monotonic() - began
    browser.wait(_DRAWN)
    drawn, other = time.monotonic() - began, browser.evaluate(_OTHER)
    began = time.monotonic()
    browser.click(f'.map button[data-head="{other}"]')
    browser.wait(_OPENED.format(other))
    return PageTimes(ready, drawn, time.monotonic() - began)
