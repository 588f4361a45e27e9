"""Open a saved page in headless Chromium without a network, through playwright (an optional dependency).

The browser is the machine's own: ``$CHROMIUM``, or the first Chromium or Chrome on the path.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Frame, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: Host names never resolve: a sandboxed frame that has just been made is online for a moment.
_SWITCHES = ["--disable-gpu", "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND"]


def find_browser() -> str | None:
    """Return the path of the browser's program; ``None`` without one."""
    named = os.environ.get("CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """One page in one browser.

    `requests` holds the URLs requested by the page, its frames and its workers, except ``data:``; `errors` their
    console messages. All requests fail, so one made by a frame before it is observed is among the errors. Raises
    `ImportError` without playwright, and playwright's `Error`.
    """

    context: "BrowserContext"
    page: "Page"
    _frame: "Frame"

    def __init__(self, program: str):
        from playwright.sync_api import sync_playwright

        self.errors: list[str] = []
        self.requests: list[str] = []
        self._scripts: bool | None = None
        self._driver = sync_playwright().start()
        try:
            self._program = self._driver.chromium.launch(executable_path=program, args=_SWITCHES)
            self._renew(scripts=True)
        except BaseException:
            self._driver.stop()
            raise

    def _renew(self, scripts: bool) -> None:
        """Open a new context and page, with scripts or without."""
        if self._scripts is not None:
            self.context.close()
        self._scripts = scripts
        self.context = self._program.new_context(offline=True, reduced_motion="reduce", java_script_enabled=scripts)
        self.context.on("request", lambda request: self.requests.append(request.url[:200]))
        self.context.on("console", self._record)
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.page = self.context.new_page()
        self.page.on("websocket", lambda socket: self.requests.append(socket.url[:200]))
        self._frame = self.page.main_frame

    def _record(self, message: "ConsoleMessage") -> None:
        if message.type in ("error", "warning", "assert"):
            self.errors.append(f"{message.text} ({message.location['url'][:200]})")

    def open(self, path: Path, width: int = 1280, height: int = 800, dark: bool = False, scripts: bool = True) -> None:
        """Open a file at a size and wait until it has loaded and, with scripts, is marked as ready."""
        if scripts != self._scripts:
            self._renew(scripts)
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        self.errors.clear()
        self.requests.clear()
        self.page.goto(path.resolve().as_uri())
        if scripts:
            self.wait("!!document.documentElement.dataset.ready")

    @contextmanager
    def frame(self, number: int) -> Iterator[None]:
        """Direct all calls inside the context to the page's number-th sandboxed frame."""
        frame = self.page.locator("iframe").nth(number).element_handle()
        assert frame.evaluate("(frame) => !frame.contentDocument"), f"frame {number} is not sandboxed"
        inside = frame.content_frame()
        assert inside is not None
        self._frame = inside
        try:
            yield
        finally:
            self._frame = self.page.main_frame

    def evaluate(self, code: str) -> Any:
        """Return the JSON-like value of an expression in the page; promises are awaited."""
        return self._frame.evaluate(code)

    def wait(self, code: str, seconds: float = 20) -> None:
        """Wait until the expression is true. Raises `AssertionError` after `seconds`."""
        end = time.monotonic() + seconds
        while not self.evaluate(code):  # not `wait_for_function`: it uses eval, which the page's policy forbids
            if time.monotonic() > end:
                raise AssertionError(f"not true within {seconds} s: {code}; console: {self.errors}")
            self.page.wait_for_timeout(30)

    def click(self, selector: str) -> None:
        """Click the middle of the first match with the mouse, once its position is stable."""
        self._frame.locator(selector).first.click()

    def hover(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Move the mouse to a share of the first match's width and height."""
        match = self._frame.locator(selector).first
        box = match.evaluate("(node) => { const box = node.getBoundingClientRect(); return [box.width, box.height] }")
        match.hover(position={"x": box[0] * across, "y": box[1] * down})

    def press(self, key: str) -> None:
        """Press and release a key."""
        self.page.keyboard.press(key)

    def focus(self, selector: str, number: int = 0) -> None:
        """Focus the number-th match, once there is one."""
        self._frame.locator(selector).nth(number).focus()

    def close(self) -> None:
        """Close the browser."""
        self._program.close()
        self._driver.stop()
