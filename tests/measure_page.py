"""How large the report of a large run is, and how soon it can be used: python tests/measure_page.py [run]

270 heads × 8 prompts × 128 tokens in headless Chromium with the network off; give a run directory to measure that.
"""

import sys
import tempfile
import time
from pathlib import Path

from browser import Browser, find_browser
from fakes import fake_run

from harness import views
from harness.results import open_run

DRAWN = "document.querySelectorAll('.three canvas').length > 0 && !!document.querySelector('.circuitsvis canvas')"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if sys.argv[1:]:
            run = open_run(sys.argv[1])
        else:
            run = fake_run(folder, n_prompts=8, n_layers=30, n_heads=9, lengths=[128] * 8)
        began = time.monotonic()
        page = views.write_report(run, folder / "report.html")
        print(f"written in {time.monotonic() - began:.1f} s, {page.stat().st_size / 1e6:.1f} MB")
        program = find_browser()
        assert program, "no browser found: install chromium, or set CHROMIUM to its path"
        browser = Browser(program, folder / "profile")
        try:
            for _ in range(3):
                began = time.monotonic()
                browser.open(page)
                ready = time.monotonic() - began
                browser.wait(DRAWN)
                drawn = time.monotonic() - began
                began = time.monotonic()
                browser.click(".map button")
                browser.wait("document.getElementById('picked').textContent.startsWith('L0H0')")
                opened = time.monotonic() - began
                print(f"ready after {ready:.2f} s, all drawn {drawn:.2f} s, a head opened {opened:.2f} s")
        finally:
            browser.close()


if __name__ == "__main__":
    main()
