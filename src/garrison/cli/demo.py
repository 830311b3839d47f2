"""`garrison demo`: a real server and a real client talk, then servers are attacked; every answer becomes a row.

Rules of this file:
- No network beyond this machine's loopback, no arguments needed. The one file that is left is the demo's audit log.
- The stdio server is a process of its own; the HTTP server listens on a free port, with a token made for the run.
- The exit status is 0 only when every row holds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shlex
import sys
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import events
from ..audit.contract import AuditFailed
from ..audit.log import AuditLog
from ..client import Client
from ..errors import ConfigurationError
from ..server.serve import HttpServing
from .demo_app_attacks import attack_application, attack_log
from .demo_attacks import attack_http, attack_size, attack_stdio
from .demo_raw import HttpPeer
from .demo_server import pages, server
from .demo_talk import ERAS, talk
from .failures import USAGE
from .style import bold, dim, emit_json, green, red, safe, table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from .demo_rows import Row

__all__ = ["demo", "open_log", "play"]


def demo(options: Namespace) -> int:
    """Play everything and print the rows.

    Returns:
        0 when every row holds, 1 otherwise; 2 where the audit log cannot be written.
    """
    if options.auth:
        from .demo_auth import demo_auth

        return demo_auth(options)
    if options.host:
        from .demo_host import demo_host

        return demo_host(options)
    logging.getLogger("garrison").addHandler(logging.NullHandler())  # refusals are what is wanted here
    began = time.monotonic()
    log = open_log(options.audit)
    try:
        with log or nullcontext():
            rows = asyncio.run(play(fast=options.fast, log=log))
    except (ConfigurationError, AuditFailed) as exc:
        print(f"garrison: {safe(str(exc))}", file=sys.stderr)
        return USAGE
    if log is not None:
        rows += asyncio.run(attack_log(log.path))
    seconds = time.monotonic() - began
    wrong = [row for row in rows if not row.ok]
    if options.json:
        emit_json(
            {
                "ok": not wrong,
                "seconds": round(seconds, 2),
                "audit": None if log is None else log.path,
                "rows": [
                    {
                        "what": row.what.strip(),
                        "transport": row.transport,
                        "era": row.era,
                        "expected": row.expected,
                        "got": row.got,
                        "ok": row.ok,
                    }
                    for row in rows
                ],
            }
        )
    else:
        _show(rows, seconds, None if log is None else log.path)
    return 1 if wrong else 0


def open_log(path: str | None) -> AuditLog | None:
    """The audit log, at a path or in a new folder; none where the platform has no safe place for one."""
    if os.name != "posix" and path is None:
        return None
    return AuditLog(path or os.path.join(tempfile.mkdtemp(prefix="garrison-demo-"), "audit.log"), fsync="never")


def _show(rows: Sequence[Row], seconds: float, log: str | None) -> None:
    cells = [[row.what, row.transport, row.era, row.expected, row.got, "ok" if row.ok else "NO"] for row in rows]
    table("What a client and an attacker got", ("what", "transport", "era", "expected", "got", ""), cells)
    if log is not None:
        print(f"The audit log: garrison audit verify {shlex.quote(log)}")
    wrong = sum(not row.ok for row in rows)
    if wrong:
        print(red(f"{wrong} of {len(rows)} rows are not as expected", sys.stdout))
    else:
        print(green(f"All {len(rows)} rows are as expected", sys.stdout), dim(f"({seconds:.1f} s)", sys.stdout))


def _command() -> tuple[list[str], dict[str, str]]:
    """How the demo's stdio server is started."""
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SYSTEMROOT") if name in os.environ}
    return [sys.executable, "-P", "-m", "garrison", "run", "garrison.cli.demo_server:server"], environment


async def play(*, fast: bool, log: AuditLog | None = None) -> list[Row]:
    """Every row, in order.

    Args:
        fast: fewer steps of progress, and no line of 17 MiB.
        log: gets what is refused and served.
    """
    steps = 3 if fast else 20
    argv, environment = _command()
    size = None if fast else asyncio.create_task(attack_size(argv, environment))  # which is waiting more than working
    rows: list[Row] = []
    for era in ERAS:
        _tell(f"talking over stdio, {ERAS[era]}")
        rows += await talk("stdio", era, partial(Client, argv, env=environment), steps=steps)
    serving = HttpServing(server, "127.0.0.1", 0, token=secrets.token_urlsafe(32))
    unheard = events.listen(log.write) if log is not None else lambda: None
    await serving.start()
    try:
        for era in ERAS:
            _tell(f"talking over HTTP, {ERAS[era]}")
            rows += await talk("http", era, partial(Client, serving.url, token=serving.token), steps=steps)
        _tell("attacking over HTTP")
        page = next(name for name, text in pages().items() if "server" in text)
        rows += await attack_http(HttpPeer(serving.port, serving.path, serving.token or ""), page)
    finally:
        await serving.close()
        unheard()
    _tell("attacking an application")
    with tempfile.TemporaryDirectory() as folder:
        rows += await attack_application(Path(folder), log)
    _tell("attacking over stdio")
    rows += await attack_stdio(argv, environment)
    return rows if size is None else [*rows, *await size]


def _tell(text: str) -> None:
    """Say on a terminal what is under way."""
    if sys.stderr.isatty():
        print(bold(f"- {text}", sys.stderr), file=sys.stderr, flush=True)
