#!/usr/bin/env python3
"""What the application layer costs a call: validation, hygiene, rates and audit on the live path of a listener.

    uv run python bench/application.py [--rounds 15] [--calls 4000] [--json FILE]

The way of measuring is that of `controls.py`: one connection, no socket, rounds with a control and without it in turn,
the median of their differences. "Without" is the same listener with the control's function replaced by one that does
nothing. The limits are those of `peer.py`: above the load, and on.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE), str(HERE.parent)]

from controls import TOKEN, Bench, arrive, both, put
from peer import ABOVE_THE_LOAD, RATES_ABOVE
from soaking.wire import call, post

from garrison import SecurityPolicy, Server
from garrison.audit import AuditLog
from garrison.gate.admission import Admission
from garrison.server.outgoing import Outgoing
from garrison.server.serve import HttpServing

WORDS = "some words of plain text, " * 40
LINES = "a line of a file, with 'quotes' and a tab\t\n" * 240
SEVERAL = "une phrase été naïve — 日本語のテキスト — текст — "


def make(**options):
    server = Server("application", policy=SecurityPolicy(limits=ABOVE_THE_LOAD, rates=RATES_ABOVE), **options)

    @server.tool(inline=True)
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool(inline=True)
    def echo(text: str) -> str:
        return text

    @server.tool(inline=True)
    def rows(text: str) -> dict[str, str]:
        return {"name": text, "city": "somewhere", "note": "a few words"}

    return server


def caller(serving, name, arguments):
    """One call of a tool, as a function."""
    data = post(f"127.0.0.1:{serving.port}", call(name, arguments), name=name, token=TOKEN)
    guest, sink = arrive(serving)

    def once():
        guest.data_received(data)

    once()
    if b"200 OK" not in sink.last[:20]:
        raise RuntimeError(sink.last)
    return once


def unlooked():
    """Text leaves as it is."""
    same = lambda self, value, notes: value
    return both(
        lambda: put(Outgoing, "is_plain", lambda self, text, encoded: True),
        lambda: put(Outgoing, "block", same),
        lambda: put(Outgoing, "structured", same),
    )()


@contextlib.contextmanager
def unbound(signature):
    """Arguments go to the handler as they came."""
    before, signature.bind = signature.bind, dict
    try:
        yield
    finally:
        signature.bind = before


def unlimited():
    return put(Admission, "take", lambda self, *_, **__: None)


async def controls(bench):
    server = make()
    async with HttpServing(server, "127.0.0.1", 0, token=TOKEN) as serving:
        add = caller(serving, "add", {"a": 19, "b": 23})
        signature = server.registry.tools["add"].signature
        unchecked = lambda: unbound(signature)
        await bench.pair("arguments against the schema: two integers", add, unchecked)
        await bench.pair("rates: one principal", add, unlimited)
        await bench.pair("all of these", add, both(unchecked, unlimited))
        for name, text in (
            ("60 characters", WORDS[:60]),
            ("1 KB of ASCII", WORDS[:1000]),
            ("10 KB of ASCII with line breaks", LINES[:10_000]),
            ("60 characters, several scripts", SEVERAL[:60]),
            ("1 KB, several scripts", (SEVERAL * 30)[:1000]),
        ):
            await bench.pair(f"hygiene and size: {name}", caller(serving, "echo", {"text": text}), unlooked)
        await bench.pair("hygiene and size: a structured result", caller(serving, "rows", {"text": "x"}), unlooked)


async def audited(bench, folder):
    """A call with its record, beside one of a server that keeps none."""
    async with HttpServing(make(), "127.0.0.1", 0, token=TOKEN) as plain:
        bare = caller(plain, "add", {"a": 19, "b": 23})
        for name, options in (
            ("written, synced each second", {}),
            ("written, with a key, synced each second", {"key": b"k" * 32}),
            ("written, never synced", {"fsync": "never"}),
        ):
            # Records are heard by the whole process, so the plain server is timed while nobody listens.
            log = AuditLog(folder / f"{name.replace(' ', '-')}.jsonl", **options)
            server = make(audit=log)
            async with HttpServing(server, "127.0.0.1", 0, token=TOKEN) as serving:
                full = caller(serving, "add", {"a": 19, "b": 23})
                await bench.pair(f"audit: {name}", full, deaf, bare)
            log.close()


def deaf():
    from garrison import events

    return put(events, "_listeners", ())


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    bench = Bench(max(7, args.rounds), args.calls)
    logging.getLogger("garrison.security").addHandler(logging.NullHandler())
    logging.getLogger("garrison.security").propagate = False
    await controls(bench)
    with tempfile.TemporaryDirectory() as folder:
        await audited(bench, Path(folder))
    print("\n| control | us per call | middle half | of a call that takes |\n|---|---|---|---|")
    for name, whole, middle, low, high in bench.rows:
        print(f"| {name} | {middle:+.2f} | {low:+.2f} to {high:+.2f} | {whole:.1f} |")
    if args.json:
        keys = ("control", "call_us", "us", "low", "high")
        Path(args.json).write_text(json.dumps([dict(zip(keys, row, strict=True)) for row in bench.rows], indent=1))


if __name__ == "__main__":
    asyncio.run(main())
