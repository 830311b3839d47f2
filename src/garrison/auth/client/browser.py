"""Showing a person the page to sign in on: with the desktop's browser, or by printing its address.

Rules of this file:
- An address is judged before any opener sees it: https, or http on loopback, of characters that no shell, no desktop
  entry and no terminal reads as anything else.
- What opens it is a program at a fixed place, given one argument and a small environment: no shell, no search path, no
  `BROWSER`.
- The address that is printed is the whole one, and nothing is read from a standard input that is no terminal: on stdio
  it belongs to the protocol.

Spec: 2026-07-28 security best practices, "Malicious Authorization URLs"; RFC 8252 section 8.12.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from ..urls import check_url
from .words import refused

if TYPE_CHECKING:
    import subprocess

__all__ = ["Browser", "Headless", "check_address", "headless", "open_browser"]

Browser = Callable[[str], "Awaitable[bool | str] | bool | str"]
"""Shows a person the page at an address. It is true where the page was opened, false where it cannot be, or the address
that the page led to at last, where it is known by other means than the listener. It must not block."""

MAX_ADDRESS: Final = 8 * 1024
"""Characters of an address that is opened."""

_SAFE: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@&=+,%]++")
_PATIENCE: Final = 3.0
"""Seconds in which an opener says that it failed; one that runs longer is the browser itself."""
_PROGRAMS: Final = (
    ("/usr/bin/xdg-open",),
    ("/usr/bin/gio", "open"),
    ("/usr/bin/wslview",),
)
_ENVIRONMENT: Final = (
    # Where the screen, the desktop and the person's own settings are, and nothing that names a program.
    "DBUS_SESSION_BUS_ADDRESS",
    "DESKTOP_SESSION",
    "DISPLAY",
    "HOME",
    "KDE_FULL_SESSION",
    "KDE_SESSION_VERSION",
    "LANG",
    "LOGNAME",
    "USER",
    "WAYLAND_DISPLAY",
    "WSL_INTEROP",
    "XAUTHORITY",
    "XDG_CONFIG_HOME",
    "XDG_CURRENT_DESKTOP",
    "XDG_DATA_DIRS",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_TYPE",
)
_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/snap/bin"


def check_address(url: str) -> None:
    """Refuse an address that no browser should be sent to.

    Raises:
        AuthorizationFailed: it is not https or loopback, has user information or a fragment, is longer than 8 KiB, or
            has characters that some program takes for more than a part of an address.
    """
    try:
        check_url(url, "the page to sign in on")
    except ValueError as exc:
        raise refused(str(exc)) from None
    if len(url) > MAX_ADDRESS or not _SAFE.fullmatch(url):
        raise refused(
            f"the page to sign in on has an address of more than {MAX_ADDRESS} characters, or with quotes, brackets, "
            "'$', ';' or the like, and was not opened"
        )


async def open_browser(url: str) -> bool:
    """Open a page in the desktop's browser.

    Returns:
        False where there is no desktop or no program that opens pages.

    Raises:
        AuthorizationFailed: as `check_address`.
    """
    check_address(url)
    return await asyncio.to_thread(_open, url)


def _open(url: str) -> bool:
    if sys.platform == "win32":
        try:
            os.startfile(url)  # noqa: S606 - opens by the scheme, which was checked; nothing is parsed as a command
        except OSError:
            return False
        return True
    return any(_launched((*program, url)) for program in _programs())


def _programs() -> tuple[tuple[str, ...], ...]:
    """What opens pages on this system, in order."""
    if sys.platform == "darwin":
        return (("/usr/bin/open",),)
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_INTEROP")):
        return ()  # what would open then is a browser inside this very terminal
    return tuple(program for program in _PROGRAMS if Path(program[0]).is_file())


def _launched(command: tuple[str, ...]) -> bool:
    """Start a program that goes its own way. False if it says at once that it failed."""
    import subprocess

    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**environment, "PATH": _PATH},
            cwd="/",
            start_new_session=True,
        )
    except OSError:
        return False
    return _status(process) in (None, 0)


def _status(process: subprocess.Popen[bytes]) -> int | None:
    """How it ended within the patience; None if it runs on. Whenever it ends, it leaves no zombie."""
    import subprocess
    import threading

    try:
        return process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        threading.Thread(target=process.wait, daemon=True).start()
        return None


class Headless:
    """A `Browser` for where there is no desktop: it prints the address, and takes the one that the page led to.

    The person opens the address wherever they have a browser. Where that is another machine, the last page cannot be
    reached there, and its address, which holds the answer, is pasted here. Where it is this one, nothing is.

    Args:
        out: where the address is printed; standard error, if None.
        prompt: reads the pasted address; it runs in a thread of its own and may block. None reads a line of standard
            input if that is a terminal, and nothing otherwise.
    """

    def __init__(self, *, out: TextIO | None = None, prompt: Callable[[], str] | None = None) -> None:
        self._out = out
        self._prompt = prompt

    async def __call__(self, url: str) -> bool | str:
        check_address(url)
        out = self._out or sys.stderr
        prompt = self._prompt or (_line if sys.stdin is not None and sys.stdin.isatty() else None)
        text = f"Open this page to sign in:\n\n{url}\n\n"
        if prompt is not None:
            text += "If its last page cannot be shown, paste the address of that page here, and press Enter:\n"
        out.write(text)
        out.flush()
        return True if prompt is None else (await _in_thread(prompt)).strip() or True


headless: Final = Headless()
"""`Headless` with standard error and the terminal."""


def _line() -> str:
    return sys.stdin.readline(MAX_ADDRESS)


async def _in_thread(ask: Callable[[], str]) -> str:
    """What a blocking function gives. Its thread does not hold up the end of the program, as one of a pool would."""
    import threading

    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def tell(text: str, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(text)
        else:
            answer.set_exception(error)

    def run() -> None:
        text, error = "", None
        try:
            text = ask()
        except (OSError, ValueError, EOFError):
            pass  # a terminal that went away has nothing to say
        except Exception as exc:  # noqa: BLE001 - the prompt's own, which belongs to the task that waits for it
            error = exc
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, text, error)

    threading.Thread(target=run, daemon=True).start()
    return await answer
