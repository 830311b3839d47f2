"""Programs for commands to run: Python scripts of a few lines, and a look at which processes are left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from garrison.safe.command import SafeCommand

__all__ = ["PYTHON", "alive", "command", "program", "running", "until"]

PYTHON = os.path.realpath(sys.executable)


def program(folder: Path, body: str, name: str = "tool") -> Path:
    """An executable script with this body, which has `os`, `sys` and `time`."""
    path = folder / name
    path.write_text(f"#!{PYTHON} -IS\nimport os, sys, time\n{textwrap.dedent(body)}")
    path.chmod(0o755)
    return path


def command(folder: Path, body: str, arguments: tuple[str, ...] = (), **options: Any) -> SafeCommand:
    """A `SafeCommand` for such a script, with one operation, `go`."""
    return SafeCommand(program(folder, body), {"go": list(arguments)}, **options)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def running(word: str) -> list[int]:
    """The processes with this word in their command lines."""
    found: list[int] = []
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.01)
