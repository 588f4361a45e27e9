"""Headless Chromium over its debugging pipe: no driver, no extra package, nothing listening on a port.

Finds ``$CHROMIUM``, or the first Chromium or Chrome on the path.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SWITCHES = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync hide-scrollbars disable-dev-shm-usage remote-debugging-pipe"
)
_FLAGS = [f"--{switch}" for switch in _SWITCHES.split(" ")]
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)
_KEYS = {"Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def find_browser() -> str | None:
    """The browser's program, or None."""
    named = os.environ.get("CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """One page in one browser. ``errors`` and ``requests`` are those of the page open now; the network is off."""

    def __init__(self, program: str, profile: Path):
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._number, self._session, self._buffer = 0, None, b""
        (child_in, self._out), (self._in, child_out) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (child_in, child_out)]  # out of the way of 3 and 4
        command = [sys.executable, "-c", _LAUNCH, *map(str, ends), program, *_FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(command, pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (child_in, child_out, *ends):
            os.close(end)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.call("Network.emulateNetworkConditions", **offline)

    def open(self, path: Path, width: int = 1280, height: int = 800, dark: bool = False, scripts: bool = True) -> None:
        """Open a file at a size and wait until it has loaded and, with scripts, said that it is ready."""
        wanted = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.errors.clear()
        self.requests.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'" + (" && !!document.documentElement.dataset.ready" * scripts))

    @contextmanager
    def frame(self, number: int) -> Iterator[None]:
        """Inside, everything is said to the page's number-th sandboxed frame, which nothing in the page can look into.

        It has a target of its own; its console and its requests are added to the page's.
        """
        outer, target, end = self._session, self._frame(number), time.monotonic() + 20
        while target not in [each["targetId"] for each in self.call("Target.getTargets", filter=[{}])["targetInfos"]]:
            assert time.monotonic() < end, f"frame {number} has no target of its own: it is not sandboxed, or not there"
            time.sleep(0.03)
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        try:
            for domain in ("Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            yield
        finally:
            self._session = outer

    def _frame(self, number: int) -> str:
        nodes = _nodes(self.call("DOM.getDocument", depth=-1)["root"])
        return [node["frameId"] for node in nodes if node["nodeName"] == "IFRAME"][number]

    def evaluate(self, code: str) -> Any:
        """The value of an expression in the page, JSON-like; promises are awaited."""
        reply = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in reply:
            raise AssertionError(reply["exceptionDetails"].get("exception", {}).get("description", reply))
        return reply["result"].get("value")

    def wait(self, code: str, seconds: float = 20) -> None:
        """Wait until the expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(code):
            if time.monotonic() > end:
                raise AssertionError(f"not true within {seconds} s: {code}; console: {self.errors}")
            time.sleep(0.03)

    def click(self, selector: str) -> None:
        """A real mouse click in the middle of the first match."""
        x, y = self._middle(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Move the mouse to a share of the first match's width and height."""
        x, y = self._middle(selector, across, down)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """Press and release a key."""
        code = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **({"text": "\r"} if key == "Enter" else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        """A picture of the window, or of the whole page."""
        reply = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **(self._area() if whole else {}))
        path.write_bytes(base64.b64decode(reply["data"]))
        return path

    def close(self) -> None:
        """End the browser this object started."""
        self._session = None
        try:
            self.call("Browser.close")
            self._process.wait(timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        for end in (self._in, self._out):
            os.close(end)

    def call(self, method: str, **parameters: object) -> dict:
        """Send one command of the DevTools protocol and return its result."""
        self._number += 1
        number, session = self._number, {"sessionId": self._session} if self._session else {}
        message = {"id": number, "method": method, "params": parameters, **session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (reply := self._read()).get("id") != number:
            self._notice(reply)
        if "error" in reply:
            raise AssertionError(f"{method}: {reply['error']}")
        return reply["result"]

    def _read(self, seconds: float = 60) -> dict:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], seconds)[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._in, 1 << 20)
            if not part:
                raise OSError("the browser has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _notice(self, event: dict) -> None:
        name, told = event.get("method"), event.get("params", {})
        if name == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"][:200])
        elif name == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"]["text"])
        elif name == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(str([part.get("value", part.get("description")) for part in told["args"]]))
        elif name == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"].get("exception", told["exceptionDetails"])))

    def focus(self, selector: str, number: int = 0) -> None:
        """Give the keyboard to the number-th match, once there is one."""
        found = f"document.querySelectorAll({json.dumps(selector)})[{number}]"
        self.wait(f"!!{found}")
        self.evaluate(f"{found}.focus()")

    def _middle(self, selector: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        self.wait(f"!!document.querySelector({json.dumps(selector)})")  # sections are drawn one after the other
        code = (
            f"(() => {{ const node = document.querySelector({json.dumps(selector)});"
            "node.scrollIntoView({ block: 'center', behavior: 'instant' }); const box = node.getBoundingClientRect();"
            f"return [box.left + box.width * {across}, box.top + box.height * {down}]; }})()"
        )
        place, before = self.evaluate(code), None
        while place != before:  # until nothing above it is still growing
            time.sleep(0.03)
            place, before = self.evaluate(code), place
        x, y = place
        return x, y

    def _area(self) -> dict:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}


def _nodes(node: dict) -> Iterator[dict]:
    yield node
    for child in node.get("children", []):
        yield from _nodes(child)
