"""A PostgreSQL of the test's own: made in a temporary folder, reached through a socket in it, ended with the tests.

Rules of this file:
- One server for each process of the tests, started by the first test that wants it. It has no TCP port.
- PostgreSQL refuses to run as root; there it runs as `postgres`, or as `nobody`.
- Each caller gets a database of its own, so that tests do not see each other's tables.
- A missing program is installed where the tests are root, and a failure elsewhere; never a skip.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import glob
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

__all__ = ["Database", "database"]

STARTING = 30.0
"""Seconds for it to take connections."""
INSTALL = ["apt-get", "install", "-y", "--no-install-recommends", "postgresql"]
_USER = "garrison"
"""The superuser of the server, as whom the tests connect."""
_numbers = itertools.count()


class Database(NamedTuple):
    """A database of the running server. Its user may do everything."""

    folder: str
    """Where the socket is."""
    name: str

    @property
    def dsn(self) -> str:
        """For psycopg and asyncpg."""
        return f"postgresql://{_USER}@/{self.name}?host={self.folder}"

    def url(self, driver: str) -> str:
        """For SQLAlchemy."""
        return f"postgresql+{driver}://{_USER}@/{self.name}?host={self.folder}"

    def run(self, text: str) -> list[tuple[Any, ...]]:
        """Run statements as the superuser, each committed; the rows of the last one."""
        import psycopg

        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(text.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []


def database(setup: str = "") -> Database:
    """A new, empty database, after these statements."""
    folder = _server()
    name = f"t{next(_numbers)}"
    Database(folder, "postgres").run(f"CREATE DATABASE {name} TEMPLATE template0")
    made = Database(folder, name)
    if setup:
        made.run(setup)
    return made


def _program(name: str) -> str:
    """The path of a program of PostgreSQL."""
    for attempt in range(2):
        newest = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4]))
        found = newest[-1] if newest else shutil.which(name)
        if found:
            return found
        if attempt == 0 and os.geteuid() == 0 and shutil.which("apt-get"):
            subprocess.run(INSTALL, capture_output=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    pytest.fail(f'PostgreSQL is missing: {" ".join(INSTALL)} (or leave these tests out: pytest -m "not peer")')


def _account() -> tuple[int, int] | None:
    """As whom it runs where the tests are root; None for the tests' own user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    pytest.fail("PostgreSQL does not run as root, and there is neither postgres nor nobody")


@functools.cache
def _server() -> str:
    """The folder of the running server's socket."""
    initdb, program = _program("initdb"), _program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))  # a socket's path is short
    account = _account()
    drop: dict[str, Any] = {}
    if account is not None:
        os.chown(folder, *account)
        drop = {"user": account[0], "group": account[1], "extra_groups": []}
    data, log = folder / "data", folder / "log"
    settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off", "max_connections": 50}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    made = subprocess.run(
        [initdb, "-D", str(data), "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
        cwd=folder,
        capture_output=True,
        text=True,
        **drop,
    )
    if made.returncode:
        pytest.fail(f"initdb: {made.stderr}")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "-D", str(data), *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_ends_with_its_parent,
            **drop,
        )
    atexit.register(_stop, process, folder)
    end = time.monotonic() + STARTING
    while True:
        try:
            Database(str(folder), "postgres").run("SELECT 1")
            return str(folder)
        except Exception:
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"PostgreSQL did not start: {log.read_text()}")
            time.sleep(0.02)


def _ends_with_its_parent() -> None:
    """On Linux the server is told to end when the process of the tests is gone, however that went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


def _stop(process: subprocess.Popen[Any], folder: Path) -> None:
    process.send_signal(signal.SIGINT)  # ends connections and then itself
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
