"""A headless Chromium, driven through its debugging pipe: no port, no network, no other package.

with Browser() as browser:
    with browser.page(path, width=400, dark=True) as page:
        page.value("document.title")
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
ANSWER_WITHIN_S = 60
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-extensions",
         "--hide-scrollbars", "--remote-debugging-pipe")  # fmt: skip
# The browser reads its orders from descriptor 3 and answers on 4.
_WIRED = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """Owns the process and its profile, a temporary folder."""

    def __enter__(self) -> "Browser":
        assert PROGRAM is not None, "no chromium; tests that need it are skipped"
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        orders, self._orders = map(_high, os.pipe())
        self._answers, answers = map(_high, os.pipe())
        command = [sys.executable, "-c", _WIRED, str(orders), str(answers), PROGRAM, *FLAGS,
                   f"--user-data-dir={self._profile.name}", "about:blank"]  # fmt: skip
        self._process = subprocess.Popen(
            command, pass_fds=(orders, answers), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "HOME": self._profile.name},
        )  # fmt: skip
        os.close(orders)
        os.close(answers)
        self._received = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(ANSWER_WITHIN_S)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._orders)
        os.close(self._answers)
        self._profile.cleanup()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to one order; events that come before it are kept."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        os.write(self._orders, json.dumps(order | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            message = self._next_message(method)
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message.get("result", {})
            self.events.append(message)

    def wait_for(self, event: str, session: str) -> None:
        """Returns once the event has come since events were last cleared."""
        while not any(seen.get("method") == event and seen.get("sessionId") == session for seen in self.events):
            self.events.append(self._next_message(event))

    @contextmanager
    def page(
        self, path: Path, *, width: int, height: int = 900, dark: bool = False, media: str = ""
    ) -> Iterator["Page"]:
        """The file in a window of so many CSS pixels, loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        self.call("Emulation.setDeviceMetricsOverride", session, width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        self.call("Emulation.setEmulatedMedia", session, media=media, features=[scheme])
        self.events.clear()
        self.call("Page.navigate", session, url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired", session)
        try:
            yield Page(self, session)
        finally:
            self.call("Target.closeTarget", targetId=target)

    def _next_message(self, waiting_for: str) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"chromium was silent for {ANSWER_WITHIN_S} s after {waiting_for}"
            more = os.read(self._answers, 1 << 20)
            assert more, f"chromium ended after {waiting_for}"
            self._received += more
        text, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


class Page:
    """One loaded page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def value(self, expression: str) -> Any:
        """What a JavaScript expression evaluates to, as JSON."""
        answer = self._browser.call(
            "Runtime.evaluate", self._session, expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def troubles(self) -> list[str]:
        """Exceptions, console errors and log entries so far."""
        found = []
        for event in self._browser.events:
            if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                found.append(json.dumps(event["params"]))
        return found

    def requests(self) -> list[str]:
        """Addresses asked for so far, those of inlined data left out."""
        asked = [event["params"]["request"]["url"] for event in self._browser.events
                 if event.get("method") == "Network.requestWillBeSent"]  # fmt: skip
        return [address for address in asked if not address.startswith("data:")]

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        answer = self._browser.call("Page.captureScreenshot", self._session, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self, path: Path) -> None:
        """As printed on A4."""
        answer = self._browser.call("Page.printToPDF", self._session, paperWidth=8.27, paperHeight=11.69,
                                    printBackground=False, preferCSSPageSize=True)  # fmt: skip
        path.write_bytes(base64.b64decode(answer["data"]))


def _high(descriptor: int) -> int:
    """The same pipe on a descriptor of at least 10, so that it cannot be in the way of 3 and 4."""
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return high
