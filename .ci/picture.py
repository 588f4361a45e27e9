"""Draw docs/report.png: the first screen of the default study's report, in the machine's Chromium.

    make picture                     the newest run in results/study
    make picture DIR=results/study/…

The report is drawn anew from the run, with the scripts and the style of this tree, whose hash goes into the picture:
``tests/test_picture.py`` compares it.
"""

import io
import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from harness import open_run, views
from harness.benchmark.browser import Browser, find_browser
from harness.config import RequestError
from harness.views.page import version

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "report.png"
WIDTH, HEIGHT = 1440, 900


def main(arguments: list[str]) -> int:
    """Draw the picture of a run; return the exit code."""
    try:
        run = Path(arguments[0]) if arguments else newest()
        PICTURE.write_bytes(marked(screenshot(run)))
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    print(PICTURE)
    return 0


def newest() -> Path:
    """Return the newest complete run in results/study."""
    made = sorted(path.parent for path in (ROOT / "results" / "study").glob("*/manifest.json"))
    complete = [path for path in made if json.loads((path / "manifest.json").read_text())["status"] == "complete"]
    if not complete:
        raise RequestError("DIR", "", "there is no complete run in results/study: make one with make run")
    return complete[-1]


def screenshot(run: Path) -> bytes:
    """Return the first screen of the run's report as PNG."""
    program = find_browser()
    if program is None:
        raise RequestError("CHROMIUM", "", "there is no browser: install chromium, or set CHROMIUM to its path")
    with tempfile.TemporaryDirectory() as folder, closing(Browser(program)) as browser:
        report = Path(folder) / "report.html"
        views.write_report(open_run(run), report)
        browser.open(report, WIDTH, HEIGHT)
        browser.wait(
            "document.querySelectorAll('.ranking svg').length > 0 && !!document.querySelector('canvas.inspected')"
        )
        return browser.page.screenshot()


def marked(content: bytes) -> bytes:
    """Return the picture with the version of the page in it."""
    mark, made = PngInfo(), io.BytesIO()
    mark.add_text("page", version())
    Image.open(io.BytesIO(content)).convert("RGB").save(made, "PNG", optimize=True, pnginfo=mark)
    return made.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
