"""What the tests of the audit log share: a key, events, and logs to break."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from garrison.audit import AuditKey, AuditLog, Verification, verify
from garrison.events import Event

KEY = AuditKey(bytes(range(32)))
OTHER_KEY = AuditKey(bytes(32))
CALL = Event(
    "call.ended",
    decision="allowed",
    outcome="ok",
    server="files",
    principal="alice",
    peer="127.0.0.1",
    method="tools/call",
    target="read",
    request="7",
    arguments={"path": "a.txt", "count": 2},
    duration=0.0015,
    time=1_790_000_000.25,
)
REFUSAL = Event("host.refused", "the Host is not served", "refused", peer="192.0.2.7", setting="allowed_hosts")


def log_at(path: Path, **settings: Any) -> AuditLog:
    """A log with the key, and without the work of a disk."""
    return AuditLog(path, **{"key": KEY, "fsync": "never", **settings})


def filled(path: Path, count: int = 8, *, close: bool = True, **settings: Any) -> None:
    """Write a log of so many events, and close it if asked."""
    log = log_at(path, **settings)
    log.open()
    for number in range(count):
        log.write(CALL._replace(request=str(number), text="word " * (number % 5)))
    if close:
        log.close()
    else:
        abandon(log)


def abandon(log: Any) -> None:
    """Leave a log as a program does that is killed."""
    log._ending.set()
    with log._lock:
        log._closed = True
        log._give_up()
        log._place.close()


def checked(path: Path, *, key: Any = KEY, **more: Any) -> Verification:
    """The verification by the key."""
    return verify(os.fspath(path), key=key, **more)


def changed(path: Path, change: Callable[[list[bytes]], None]) -> None:
    """Change the lines of a file."""
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))
