"""Several processes that serve one address, so that more than one core works.

Rules of this file:
- The parent binds, forks and watches; it serves nothing itself. A worker that dies is replaced, but not without end.
- Every worker is the same: what one has sealed another opens (`state_key`), and nothing is remembered in between, so
  sessions of handshake revisions cannot be served this way.
- SIGTERM and SIGINT to the parent end all workers in order; a parent that dies takes them along.

Limits are of each worker.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .app import Server

__all__ = ["check_workers", "serve_with_workers"]

_DEATHS: Final = 5
"""Workers that may die within `_WINDOW` seconds before all are ended."""
_WINDOW: Final = 10.0
_GRACE: Final = 2.0
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


def check_workers(server: Server, count: int) -> None:
    """Refuse what several processes cannot do together.

    Raises:
        ConfigurationError: no shared key, no shared memory of what may be used once, sessions, or a platform that
            cannot fork. The message names the setting.
    """
    if type(count) is not int or count < 1:
        raise ConfigurationError(f"workers={count!r}: a positive number")
    if count == 1:
        return
    if not hasattr(os, "fork"):
        raise ConfigurationError("workers: this platform cannot fork; start several servers behind a proxy")
    if not server.has_state_key:
        raise ConfigurationError(
            f"workers={count}: each would seal with a key of its own; give the server a state_key of 32 bytes that all "
            "of them share"
        )
    entries = server.registry.entries()
    once = next((name for name, entry in entries if entry.once and (entry.signature.injected or entry.asks)), None)
    if once is not None and not server.has_replays:
        raise ConfigurationError(
            f"workers={count}: {once} may be answered once, and each worker would remember that for itself; give the "
            "server replays= that all of them share"
        )
    keyed = next((name for name, entry in server.registry.entries() if entry.keyed), None)
    if keyed is not None and not server.has_outcomes:
        raise ConfigurationError(
            f"workers={count}: {keyed} is done once for a key, and each worker would remember that for itself; give "
            "the server outcomes= that all of them share"
        )
    if server.legacy == "sessions":
        raise ConfigurationError(
            f'workers={count}: a session would be known to one of them only; set legacy="stateless" or "off"'
        )


def serve_with_workers(count: int, sockets: list[socket.socket], serve: Callable[[int], None], grace: float) -> None:
    """Run `serve` in `count` processes until a signal asks to stop.

    Args:
        count: how many.
        sockets: bound, and inherited by all; closed here at the end.
        serve: what each process does, given which of them it is, from 1; it ends at SIGTERM.
        grace: seconds until a worker that does not end is killed.

    Raises:
        ConfigurationError: workers die again and again.
    """
    workers: dict[int, int] = {}
    deaths: list[float] = []
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        _tell(workers, signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in _STOPS}
    try:
        while not stopping:
            while len(workers) < count and not stopping:
                # Held back until the worker is known here, and has put this process's handler off.
                signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
                try:
                    free = min(set(range(1, count + 1)).difference(workers.values()))
                    workers[_fork(serve, free)] = free
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            if stopping:
                break
            try:
                pid, _ = os.waitpid(-1, 0)
            except (InterruptedError, ChildProcessError):
                continue
            if pid not in workers:
                continue  # a child of the program's own
            del workers[pid]
            if stopping:
                break
            deaths = [at for at in deaths if time.monotonic() - at < _WINDOW] + [time.monotonic()]
            if len(deaths) > _DEATHS:
                raise ConfigurationError(f"workers: {len(deaths)} of them died within {_WINDOW:g} s; see the log")
    finally:
        _end(workers, grace + _GRACE)
        for number, handler in before.items():
            signal.signal(number, handler)
        for sock in sockets:
            sock.close()


def _fork(serve: Callable[[int], None], number: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        for each in _STOPS:
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        _die_with(parent)
        serve(number)
        status = 0
    except KeyboardInterrupt:
        status = 0
    except BaseException as exc:  # noqa: BLE001 - the worker's end, told by Python as at any other program's end
        sys.excepthook(type(exc), exc, exc.__traceback__)
    finally:
        os._exit(status)


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, where it can."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _tell(workers: dict[int, int], number: int) -> None:
    for pid in tuple(workers):
        with suppress(ProcessLookupError):  # reaped just now
            os.kill(pid, number)


def _end(workers: dict[int, int], grace: float) -> None:
    _tell(workers, signal.SIGTERM)
    until = time.monotonic() + grace
    while workers:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        workers.pop(pid, None)
        if not pid:
            if time.monotonic() > until:
                _tell(workers, signal.SIGKILL)
                until = float("inf")
            time.sleep(0.02)
