"""Valkey or Redis as a process of the test, on a Unix socket of its own.

Rules of this file:
- A real server; where there is none and the test runs as root, the system's packages are asked for one.
- Nothing is stored on disk, and what is written lies in one folder.
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["RedisServer", "redis_server"]

STARTING = 10.0
"""Seconds for it to listen."""
_PROGRAMS = ("valkey-server", "redis-server")


class RedisServer:
    """A server that can be ended and started again on the same socket.

    Args:
        folder: for its socket and log. Short: a path of a socket has about a hundred characters.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = str(folder / "store.sock")
        self.url = f"unix://{self.socket}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = self._folder / "store.log"
        command = [_program(), "--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no"]
        command += ["--dir", str(self._folder), "--logfile", str(log), "--daemonize", "no"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = time.monotonic() + STARTING
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"{command[0]} did not start: {log.read_text() if log.exists() else ''}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once; what it held is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    def command(self, *words: str) -> bytes:
        """Send one command, and give the first bytes of the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(self.socket)
            connection.sendall(
                b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words)
            )
            return connection.recv(1 << 20)

    def _answers(self) -> bool:
        try:
            return self.command("PING") == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A running server."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@functools.cache
def _program() -> str:
    found = _installed()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        for package in _PROGRAMS:
            subprocess.run(
                ["apt-get", "install", "-y", "--no-install-recommends", package],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                timeout=300,
                check=False,
            )
            if (found := _installed()) is not None:
                break
    if found is None:
        pytest.fail(
            "valkey-server or redis-server is missing: apt-get install -y --no-install-recommends redis-server "
            '(or leave these tests out: pytest -m "not peer")'
        )
    return found


def _installed() -> str | None:
    return next((program for name in _PROGRAMS if (program := shutil.which(name)) is not None), None)
