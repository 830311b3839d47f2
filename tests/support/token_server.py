"""A token endpoint on loopback that answers as it is told, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from garrison.auth import AuthorizationServerMetadata
from garrison.safe import SafeFetch

BEARER: dict[str, Any] = {"access_token": "token-1", "token_type": "Bearer", "expires_in": 3600}


@dataclass
class Posted:
    """One request."""

    path: str
    headers: dict[str, str]
    form: dict[str, str]
    raw: bytes


@dataclass
class Answer:
    """One response. A body that is no bytes is sent as JSON."""

    body: Any = field(default_factory=lambda: dict(BEARER))
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    media_type: str = "application/json"

    def encode(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        fields = {"Content-Type": self.media_type, "Content-Length": str(len(body)), **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {self.status} X\r\n{lines}\r\n".encode() + body


class TokenServer:
    """What `token_server` gives: set `answer`, look at `posted`."""

    def __init__(self) -> None:
        self.answer: Callable[[Posted], Answer] = lambda posted: Answer()
        self.posted: list[Posted] = []
        self.port = 0

    @property
    def issuer(self) -> str:
        """Its identifier."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def fetch(self) -> SafeFetch:
        """A fetcher that may ask it."""
        return SafeFetch(private_hosts=[f"127.0.0.1:{self.port}"], timeout=5.0, max_bytes=256 * 1024)

    def metadata(self, **changed: Any) -> AuthorizationServerMetadata:
        """What it would say of itself."""
        given: dict[str, Any] = {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/token",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "token_endpoint_auth_methods_supported": (
                "none",
                "client_secret_basic",
                "client_secret_post",
                "private_key_jwt",
            ),
        }
        return AuthorizationServerMetadata(**{**given, **changed})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            request, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            form = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body)))
            self.posted.append(Posted(request.split(" ")[1], headers, form, head.encode("latin-1") + body))
            writer.write(self.answer(self.posted[-1]).encode())
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def token_server() -> AsyncIterator[TokenServer]:
    """A running one."""
    made = TokenServer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
