"""`AuditLog`: the arguments of the audit log of a live server, seen in its files."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from garrison import SecurityPolicy, Server, Timeouts
from garrison.audit import AuditKey, AuditLog
from garrison.audit import log as log_module
from tests.support.mcp import call, post
from tests.support.raw_http import TOKEN, exchange, serving
from tests.support.roomy import ROOMY_RATES

from .case import case
from .scene import folder

KEY = AuditKey(bytes(range(32)))
NUMBERS = itertools.count()
"""A log has the calls of its own server, by its name."""


class Audited:
    """A server whose calls are on record."""

    def __init__(self, port: int, place: Path) -> None:
        self.port = port
        self.place = place

    async def call(self, times: int = 1, token: str = TOKEN) -> None:
        for number in range(times):
            await exchange(self.port, post(self.port, call("echo", {"text": "x"}, number), token))

    def files(self) -> list[str]:
        return sorted(path.name for path in self.place.iterdir() if path.suffix != ".lock")

    def lines(self) -> list[Any]:
        """What is in the file that is written."""
        return [json.loads(line) for line in (self.place / "a.log").read_text().splitlines()]


@asynccontextmanager
async def audited(name: str = "a.log", **settings: Any) -> AsyncIterator[Audited]:
    """A server with an audit log of these settings."""
    with folder() as place, AuditLog(place / name, **{"fsync": "never", **settings}) as log:
        policy = SecurityPolicy(timeouts=Timeouts(shutdown=0.2), rates=ROOMY_RATES)
        server = Server(f"s{next(NUMBERS)}", policy=policy, audit=log)

        @server.tool(inline=True)
        def echo(text: str) -> str:
            return text

        async with serving(server) as running:
            yield Audited(running.port, place)


@asynccontextmanager
async def flushes() -> AsyncIterator[list[int]]:
    """How often the disk is asked, from here on. Not for two at the same time."""
    asked: list[int] = []
    usual = os.fsync

    def fsync(descriptor: int) -> None:
        asked.append(descriptor)
        usual(descriptor)

    log_module.os.fsync = fsync
    try:
        yield asked
    finally:
        log_module.os.fsync = usual


@case(AuditLog, "path", first=("a.log", ["a.log"]), changed=("b.log", ["b.log"]))
async def path(value: str) -> object:
    async with audited(value) as at:
        await at.call()
        return at.files()


@case(AuditLog, "key", default=False, changed=(KEY, True))
async def key(value: AuditKey | None) -> object:
    """Whether the log signs its own lines."""
    async with audited(key=value) as at:
        await at.call()
        return any("mac" in line for line in at.lines())


@case(AuditLog, "fsync", default=False, changed=("always", True), apart=True)
async def fsync(value: Any) -> object:
    """Whether each record is durable at once."""
    async with audited(fsync=value, interval=3600.0) as at:
        await at.call()
        async with flushes() as asked:
            await at.call(5)
            return len(asked) >= 5


@case(AuditLog, "interval", first=(3600.0, False), changed=(0.02, True), apart=True)
async def interval(value: float) -> object:
    """Whether a record is durable soon."""
    async with audited(fsync="interval", interval=value) as at, flushes() as asked:
        await at.call()
        end = time.monotonic() + (0.3 if value > 1 else 10.0)
        while not asked and time.monotonic() < end:
            await asyncio.sleep(0.01)
        return bool(asked)


@case(AuditLog, "max_bytes", default="one", changed=(4096, "more"))
async def max_bytes(value: int) -> object:
    """How many files there are after forty calls: one, or more."""
    async with audited(max_bytes=value) as at:
        await at.call(40)
        found = len(at.files())
        return "one" if found == 1 else "more"


@case(AuditLog, "keep", default=False, changed=(1, True))
async def keep(value: int | None) -> object:
    """Whether one full file is kept beside the one that is written."""
    async with audited(max_bytes=4096, keep=value) as at:
        await at.call(40)
        return len(at.files()) == 2


@case(AuditLog, "rate", default=True, changed=(1, False), apart=True)
async def rate(value: int) -> object:
    """Whether each of six refusals has a record of its own."""
    async with audited(rate=value) as at:
        await at.call(6, "t" * 20)
        return [line.get("event") for line in at.lines()].count("auth.refused") == 6


@case(AuditLog, "fields", default=None, changed=({"echo": ["text"]}, {"text": "x"}))
async def fields(value: Any) -> object:
    async with audited(fields=value) as at:
        await at.call()
        (line,) = [line for line in at.lines() if line.get("event") == "call.ended"]
        return line.get("fields")


def signed(lines: list[Any]) -> bool:
    return any(line.get("log") == "checkpoint" for line in lines)


@case(AuditLog, "checkpoint_records", default=False, changed=(2, True))
async def checkpoint_records(value: int) -> object:
    async with audited(key=KEY, checkpoint_records=value) as at:
        await at.call(5)
        return signed(at.lines())


@case(AuditLog, "checkpoint_seconds", default=False, changed=(0.05, True))
async def checkpoint_seconds(value: float) -> object:
    async with audited(key=KEY, interval=0.02, checkpoint_seconds=value) as at:
        await at.call()
        end = time.monotonic() + (0.3 if value > 1 else 10.0)
        while not signed(at.lines()) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        return signed(at.lines())
