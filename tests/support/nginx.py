"""nginx as a process of the test: one file with `server` blocks, as a user would put it into `conf.d`.

Rules of this file:
- Workers run as `www-data` where the test runs as root, as Debian's do; else as the test's user.
- Everything it writes lies in one folder, which its workers can reach.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["WORKER", "nginx"]

WORKER = "www-data" if os.geteuid() == 0 else ""
"""The user of the workers; empty: the test's own."""
STARTING = 10.0
"""Seconds for it to listen."""
_MAIN = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    include {folder}/site.conf;
}}
"""


@contextmanager
def nginx(folder: Path, site: str, port: int, *, user: str = WORKER) -> Iterator[Path]:
    """nginx with these `server` blocks, of which one listens on the port. Gives the path of its error log.

    Args:
        folder: an empty one for its files; every folder above it can be entered by everybody.
        user: what its directive `user` says: a user, and a group if another than the user's own.
    """
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        pytest.fail(
            "nginx is missing: apt-get install -y --no-install-recommends nginx-light "
            '(or leave these tests out: pytest -m "not peer")'
        )
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user=f"user {user};" if user else ""))
    log = folder / "error.log"
    # -e: what it has to say before it has read the configuration
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(log)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + STARTING
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        pytest.fail(f"nginx did not start: {log.read_text()}")
                    time.sleep(0.02)
            yield log
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
