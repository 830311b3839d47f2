"""`garrison demo --auth`: sign in at a protected server, then attack every step of it; every answer becomes a row.

Rules of this file:
- No network beyond this machine's loopback, no browser, no files, no keyring.
- The exit status is 0 only when every row holds: what should work works, and every attack is refused.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import TYPE_CHECKING

from .demo_auth_byhand import attack_grants
from .demo_auth_client import attack_client, sign_in
from .demo_auth_scene import scene
from .demo_auth_tokens import attack_tokens, flood
from .style import bold, dim, emit_json, green, red, table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from .demo_auth_rows import Tried

__all__ = ["demo_auth", "play"]


def demo_auth(options: Namespace) -> int:
    """Play everything and print the rows.

    Returns:
        0 when every row holds, 1 otherwise.
    """
    logging.getLogger("garrison").addHandler(logging.NullHandler())  # refusals are what is wanted here
    began = time.monotonic()
    rows = asyncio.run(play())
    seconds = time.monotonic() - began
    wrong = [row for row in rows if not row.ok]
    if options.json:
        emit_json({"ok": not wrong, "seconds": round(seconds, 2), "rows": [_plain(row) for row in rows]})
    else:
        _show(rows, seconds)
    return 1 if wrong else 0


def _plain(row: Tried) -> dict[str, object]:
    return {
        "part": row.part,
        "what": row.what.strip(),
        "kind": row.kind,
        "expected": row.expected,
        "got": row.got,
        "verdict": row.verdict,
        "rule": row.rule,
        "ok": row.ok,
    }


def _show(rows: Sequence[Tried], seconds: float) -> None:
    cells = [[row.part, row.what, row.got, row.verdict, row.rule] for row in rows]
    table("What was tried, and what came", ("at the", "what", "got", "", "by"), cells)
    for row in rows:
        if not row.ok:
            print(red(f"{row.what.strip()}: expected {row.expected!r}, got {row.got!r}", sys.stdout))
    wrong = sum(not row.ok for row in rows)
    if wrong:
        print(red(f"{wrong} of {len(rows)} rows are not as expected", sys.stdout))
        return
    attacks = sum(row.kind == "attack" for row in rows)
    print(
        green(f"All {attacks} attacks are refused, and {len(rows) - attacks} honest requests served", sys.stdout),
        dim(f"({seconds:.1f} s)", sys.stdout),
    )


async def play() -> list[Tried]:
    """Every row, in order."""
    rows: list[Tried] = []
    async with scene() as servers:
        for text, part in (
            ("signing in", sign_in),
            ("attacking the authorization server", attack_grants),
            ("attacking the client", attack_client),
            ("attacking the protected server", attack_tokens),
            ("guessing tokens", flood),
        ):
            if sys.stderr.isatty():
                print(bold(f"- {text}", sys.stderr), file=sys.stderr, flush=True)
            rows += await part(servers)
    return rows
