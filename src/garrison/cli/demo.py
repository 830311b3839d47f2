"""`garrison demo`: a real server and a real client talk, then the server is attacked; every answer becomes a row.

Rules of this file:
- No network beyond this machine's loopback, no files, no arguments needed.
- The stdio server is a process of its own; the HTTP server listens on a free port, with a token made for the run.
- The exit status is 0 only when every row holds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from ..client import Client
from ..server.serve import HttpServing
from .demo_attacks import attack_http, attack_stdio
from .demo_raw import HttpPeer
from .demo_server import pages, server
from .demo_talk import ERAS, talk
from .style import bold, dim, emit_json, green, red, table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from .demo_rows import Row

__all__ = ["demo", "play"]


def demo(options: Namespace) -> int:
    """Play everything and print the rows.

    Returns:
        0 when every row holds, 1 otherwise.
    """
    if options.auth:
        from .demo_auth import demo_auth

        return demo_auth(options)
    logging.getLogger("garrison").addHandler(logging.NullHandler())  # refusals are what is wanted here
    began = time.monotonic()
    rows = asyncio.run(play(fast=options.fast))
    seconds = time.monotonic() - began
    wrong = [row for row in rows if not row.ok]
    if options.json:
        emit_json(
            {
                "ok": not wrong,
                "seconds": round(seconds, 2),
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
        _show(rows, seconds)
    return 1 if wrong else 0


def _show(rows: Sequence[Row], seconds: float) -> None:
    cells = [[row.what, row.transport, row.era, row.expected, row.got, "ok" if row.ok else "NO"] for row in rows]
    table("What a client and an attacker got", ("what", "transport", "era", "expected", "got", ""), cells)
    wrong = sum(not row.ok for row in rows)
    if wrong:
        print(red(f"{wrong} of {len(rows)} rows are not as expected", sys.stdout))
    else:
        print(green(f"All {len(rows)} rows are as expected", sys.stdout), dim(f"({seconds:.1f} s)", sys.stdout))


def _command() -> tuple[list[str], dict[str, str]]:
    """How the demo's stdio server is started."""
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SYSTEMROOT") if name in os.environ}
    return [sys.executable, "-P", "-m", "garrison", "run", "garrison.cli.demo_server:server"], environment


async def play(*, fast: bool) -> list[Row]:
    """Every row, in order.

    Args:
        fast: fewer steps of progress, and no line of 17 MiB.
    """
    steps = 3 if fast else 20
    argv, environment = _command()
    rows: list[Row] = []
    for era in ERAS:
        _tell(f"talking over stdio, {ERAS[era]}")
        rows += await talk("stdio", era, partial(Client, argv, env=environment), steps=steps)
    serving = HttpServing(server, "127.0.0.1", 0, token=secrets.token_urlsafe(32))
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
    _tell("attacking over stdio")
    rows += await attack_stdio(argv, environment, large=not fast)
    return rows


def _tell(text: str) -> None:
    """Say on a terminal what is under way."""
    if sys.stderr.isatty():
        print(bold(f"- {text}", sys.stderr), file=sys.stderr, flush=True)
