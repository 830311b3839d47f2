"""A headless Chromium, driven over the DevTools protocol on two pipes.

Rules of this file:
- No port, driver program or library: messages are JSON that ends with a zero byte (`--remote-debugging-pipe`).
- One call at a time. A call blocks its thread, so a test with servers on its event loop awaits `open` and `run`.
- Every page has a browser context of its own: no cache, cookie or connection is shared.
- The browser's own guard of loopback addresses is off, for it would hide whether the server has one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Chromium", "Page", "chromium"]

Json = dict[str, Any]

STARTING = 20.0
ANSWERING = 10.0
"""Seconds for the browser to start, and for one answer."""
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--no-proxy-server",
    "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets,HttpsUpgrades,HttpsFirstBalancedMode",
    "--remote-debugging-pipe",
)


def program() -> str:
    """Where Chromium is.

    Fails the test if it is nowhere.
    """
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.fail(
        "Chromium is missing: apt-get install -y --no-install-recommends chromium "
        '(or leave these tests out: pytest -m "not peer")'
    )


class Chromium:
    """A running browser."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._writing = process.stdin.fileno()
        self._reading = process.stdout.fileno()
        self._rest = b""
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._contexts: list[str] = []

    async def open(self, url: str) -> Page:
        """A new page, once its document has loaded."""
        return await asyncio.to_thread(self._open, url)

    def call(self, method: str, params: Json | None = None, session: str | None = None) -> Json:
        """The result of one command."""
        with self._lock:
            return self._call(method, params, session)

    async def close_pages(self) -> None:
        """End all pages and their connections."""
        await asyncio.to_thread(self._close_pages)

    def _close_pages(self) -> None:
        while self._contexts:
            self.call("Target.disposeBrowserContext", {"browserContextId": self._contexts.pop()})

    def _open(self, url: str) -> Page:
        context = self.call("Target.createBrowserContext", {"disposeOnDetach": True})["browserContextId"]
        target = self.call("Target.createTarget", {"url": "about:blank", "browserContextId": context})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session)
        self._contexts.append(context)
        self.call("Page.enable", None, session)
        with self._lock:
            gone = self._call("Page.navigate", {"url": url}, session)
            if error := gone.get("errorText"):
                raise ConnectionError(f"{url}: {error}")
            self._message(lambda said: said.get("method") == "Page.loadEventFired" and said["sessionId"] == session)
        return page

    def _call(self, method: str, params: Json | None, session: str | None, seconds: float = ANSWERING) -> Json:
        number = next(self._ids)
        message: Json = {"id": number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        answer = self._message(lambda said: said.get("id") == number, seconds)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _message(self, wanted: Any, seconds: float = ANSWERING) -> Json:
        """The next message that is wanted; others are events of no interest."""
        end = time.monotonic() + seconds
        while True:
            while b"\0" not in self._rest:
                ready, _, _ = select.select([self._reading], [], [], max(0.0, end - time.monotonic()))
                chunk = os.read(self._reading, 1 << 16) if ready else None
                if chunk is None:
                    raise TimeoutError(f"Chromium did not answer within {seconds:g} s")
                if not chunk:
                    raise ConnectionError("Chromium ended")
                self._rest += chunk
            line, _, self._rest = self._rest.partition(b"\0")
            said = json.loads(line)
            if wanted(said):
                return said


class Page:
    """One page."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session

    async def run(self, script: str, **names: Any) -> Any:
        """What the body of an async function returns, with these names bound to JSON values.

        Raises:
            RuntimeError: the script threw.
        """
        return await asyncio.to_thread(self._run, script, names)

    def _run(self, script: str, names: Json) -> Any:
        expression = f"(async ({{{', '.join(names)}}}) => {{ {script} }})({json.dumps(names)})"
        answer = self._browser.call(
            "Runtime.evaluate",
            {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True},
            self._session,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", str(answer)))
        return answer["result"].get("value")


@contextmanager
def chromium(profile: Path, *names: str) -> Iterator[Chromium]:
    """A browser with an empty profile, for which these host names are 127.0.0.1 and no other name exists."""
    rules = ", ".join(
        [*(f"MAP {name} 127.0.0.1" for name in names), "EXCLUDE 127.0.0.1", "EXCLUDE 0.0.0.0", "EXCLUDE localhost"]
    )
    flags = [*_FLAGS, f"--user-data-dir={profile}", f"--host-resolver-rules={rules}, MAP * ~NOTFOUND"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # its sandbox refuses to start as root
    # The shell puts the pipes where Chromium looks for them.
    pipes = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null'
    process = subprocess.Popen(
        ["/bin/sh", "-c", pipes, program(), *flags, "about:blank"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,
    )
    browser = Chromium(process)
    try:
        with browser._lock:
            browser._call("Browser.getVersion", None, None, STARTING)
        yield browser
    finally:
        with suppress(OSError, RuntimeError):
            browser.call("Browser.close")
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its session is its own; children it left end too
        with process:
            pass  # waits for its end and closes the pipes
