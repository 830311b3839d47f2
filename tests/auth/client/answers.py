"""What tests of discovery and registration ask: a table of answers in place of the network, and a site on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

from garrison.safe import Fetched, SafeFetch

JSON = "application/json"


def document(members: object, *, status: int = 200, kind: str = JSON) -> tuple[int, str, bytes]:
    """A JSON answer."""
    return status, kind, json.dumps(members).encode()


class Canned(SafeFetch):
    """Answers from a table, 404 for everything else, and remembers what it was asked."""

    def __init__(self, answers: Mapping[str, tuple[int, str, bytes] | Exception]) -> None:
        super().__init__()
        self.answers = dict(answers)
        self.asked: list[str] = []
        self.posted: list[tuple[str, bytes]] = []
        self.headers: list[Mapping[str, str]] = []

    async def get(self, url: str, *, headers: Any = None, same_origin: bool = False, redirects: Any = None) -> Fetched:
        self.asked.append(url)
        self.headers.append(headers or {})
        return self._answer(url)

    async def post(self, url: str, body: bytes, *, media_type: str, headers: Any = None) -> Fetched:
        self.posted.append((url, body))
        return self._answer(url)

    def _answer(self, url: str) -> Fetched:
        found = self.answers.get(url, (404, "text/plain", b"no"))
        if isinstance(found, Exception):
            raise found
        status, kind, body = found
        return Fetched(url, status, MappingProxyType({"content-type": kind}), body)


class Site:
    """A server on loopback that answers from a table of targets, and remembers what it was sent."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, bytes]] = {}
        self.locations: dict[str, str] = {}
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self.bodies.append(await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b"")
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            self.asked.append(f"{method} {target}")
            if target in self.locations:
                answer = (
                    f"HTTP/1.1 307 Moved\r\nLocation: {self.locations[target]}\r\nContent-Length: 0\r\n\r\n".encode()
                )
            else:
                status, kind, body = self.answers.get(target, (404, "text/plain", b"no"))
                start = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
                answer = start.encode() + body
            writer.write(answer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """A running `Site`."""
    made = Site()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
