"""Peers of the demo that send bytes of their own making, as an attacker does.

Rules of this file:
- Nothing here goes through Garrison's client: what is sent is what stands here, byte for byte.
- What came is put in few words: the HTTP status, then the JSON-RPC error's code, `isError`, `asks` or `result`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Answer", "HttpPeer", "Post", "StdioPeer", "meta", "outcome", "request"]

_PATIENCE = 10.0
_MOST = 4 * 1024 * 1024


def meta(*capabilities: str) -> dict[str, object]:
    """The `_meta` of a modern request from a client with these capabilities."""
    return {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "demo", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {name: cast("object", {}) for name in capabilities},
    }


def request(method: str, params: Mapping[str, object], *, id: int = 1) -> bytes:
    """A request as JSON."""
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


def outcome(message: Mapping[str, object]) -> str:
    """A response in one word."""
    error = message.get("error")
    if isinstance(error, dict):
        return str(cast("dict[str, object]", error).get("code"))
    result = message.get("result")
    if not isinstance(result, dict):
        return "no response"
    members = cast("dict[str, object]", result)
    if members.get("resultType") == "input_required":
        return "asks"
    return "isError" if members.get("isError") else "result"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back on one HTTP connection."""

    status: int
    headers: Mapping[str, str]
    message: Mapping[str, object]
    """The JSON-RPC message of the body; empty if there is none."""
    count: int
    """How many responses came."""

    def __str__(self) -> str:
        return f"{self.status} {outcome(self.message)}" if self.message else str(self.status)


@dataclass(frozen=True, slots=True)
class Post:
    """One POST.

    `headers` change the honest ones: a name without a value is left out. `declared` is a Content-Length that is not the
    body's.
    """

    body: bytes
    headers: Mapping[str, str | None] = field(default_factory=lambda: dict[str, str | None]())
    declared: int | None = None


class HttpPeer:
    """Speaks HTTP to a listener on 127.0.0.1, one connection for each request.

    Args:
        port, path, token: the listener's.
    """

    def __init__(self, port: int, path: str, token: str) -> None:
        self.port = port
        self._path = path
        self._token = token

    async def post(self, post: Post) -> Answer:
        """Send a POST and read what comes until the server closes."""
        headers: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Content-Length": str(len(post.body) if post.declared is None else post.declared),
            "Connection": "close",
        }
        headers.update(post.headers)
        lines = [f"POST {self._path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items() if v is not None)]
        return await self.send("\r\n".join([*lines, "", ""]).encode() + post.body)

    async def send(self, data: bytes) -> Answer:
        """Send bytes and read what comes until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(_PATIENCE):
                writer.write(data)
                return _answer(await _everything(reader))
        finally:
            writer.close()


async def _everything(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    try:
        while part := await reader.read(_MOST):
            parts.append(part)
    except ConnectionResetError:
        pass  # the server did not wait for the rest of a request that it refused
    return b"".join(parts)


def _answer(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/1.1 "):
        raise EOFError("the server closed the connection without an answer")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _joined(body)
    if headers.get("content-type", "").startswith("text/event-stream"):
        events = [line[5:] for line in body.splitlines() if line.startswith(b"data:") and line[5:].strip()]
        body = events[-1] if events else b""
    body = body.partition(b"HTTP/1.1 ")[0]
    message: object = json.loads(body) if body.strip() else None
    return Answer(
        int(first.split(" ")[1]),
        headers,
        cast("dict[str, object]", message) if isinstance(message, dict) else {},
        data.count(b"HTTP/1.1 "),
    )


def _joined(body: bytes) -> bytes:
    """The data of a chunked body."""
    parts: list[bytes] = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if length == 0:
            break
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)


class StdioPeer:
    """Starts a server and writes lines to it.

    Args:
        argv, env: how to start it.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._argv = argv
        self._env = env

    async def __aenter__(self) -> StdioPeer:
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=pipe, stdout=pipe, stderr=null, env=self._env, limit=_MOST
        )
        if process.stdin is None or process.stdout is None:
            raise EOFError("the server was started without pipes")
        self._process, self._writer, self._reader = process, process.stdin, process.stdout
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.close()
        try:
            await asyncio.wait_for(self._process.wait(), _PATIENCE)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def send(self, line: bytes, answers: int = 1) -> list[object]:
        """Write a line, and read as many lines as there should be answers. What is not JSON comes back as bytes."""
        async with asyncio.timeout(_PATIENCE):
            self._writer.write(line + b"\n")
            await self._writer.drain()
            return [_parsed(await self._reader.readline()) for _ in range(answers)]

    async def ask(self, line: bytes) -> str:
        """Write a line and put its answer in one word."""
        (message,) = await self.send(line)
        return outcome(cast("dict[str, object]", message)) if isinstance(message, dict) else f"no JSON: {message!r}"


def _parsed(line: bytes) -> object:
    if not line:
        raise EOFError("the server closed its output")
    try:
        return json.loads(line)
    except ValueError:
        return line
