"""A protected server on a live listener, the tokens of its issuer, and an authorization server that can be asked."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

from garrison import Context, SecurityPolicy, Server, Timeouts
from garrison.auth import WwwAuthenticate
from garrison.auth.client.authentication import ClientSecret
from garrison.auth.resource import IntrospectionVerifier
from garrison.auth.resource.server import ResourceServer
from garrison.policy.transports import WebSocketConfig
from garrison.safe import Fetched
from garrison.server.access import Access
from tests.auth.resource import issuer as paper
from tests.auth.resource.issuer import ENDPOINT, ISSUER, RESOURCE, Key, Web, page, verifier

from .everywhere import uvicorn_serving
from .mcp import call, modern, modern_fields
from .raw_http import Response, changed, connected, exchange, request, serving, standard
from .websocket import WebSocketWire

METADATA = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"
WELL_KNOWN = "/.well-known/oauth-protected-resource/mcp"
FACES = ("http", "asgi", "websocket", "asgi-websocket")
"""Where a protected server can be asked: requests, and the handshake of a WebSocket, at its own listener and behind
uvicorn."""


def token(private: Key | None = None, algorithm: str = "ES256", **changes: Any) -> str:
    """A token of the issuer that is good now, with claims changed."""
    now = time.time()
    return paper.token(private, algorithm, **{"iat": now - 10, "exp": now + 3600, **changes})


def bearer(scope: str = "notes:read", subject: str = "alice", **changes: Any) -> str:
    """An Authorization value with these scopes."""
    return "Bearer " + token(scope=scope, sub=subject, **changes)


ALICE, BOB, ADMIN = bearer(), bearer(subject="bob"), bearer("notes:read admin", "root")


def protection(fetch: Web | None = None, **options: Any) -> ResourceServer:
    """A `ResourceServer` of the issuer; what a test does not say is the default."""
    verifiers = options.pop("verifiers", None) or [verifier(fetch, tenant_claim=options.pop("tenant_claim", None))]
    return ResourceServer(RESOURCE, *verifiers, **options)


def guarded(auth: ResourceServer | None = None, ran: list[str] | None = None, **options: Any) -> Server:
    """The server that tests attack. `ran` gets the name of each handler that runs."""
    ran = [] if ran is None else ran
    options.setdefault("policy", SecurityPolicy(timeouts=Timeouts(shutdown=0.2)))
    server = Server("guarded", auth=auth or protection(scopes_supported=("notes:read",)), **options)

    @server.tool(public=True)
    def whoami(ctx: Context) -> dict[str, Any]:
        ran.append("whoami")
        p = ctx.principal
        return {"issuer": p.issuer, "subject": p.subject, "client": p.client_id, "tenant": p.tenant}

    @server.tool(scopes=["notes:read"])
    def read(text: str = "x") -> str:
        ran.append("read")
        return text

    @server.tool(scopes=["admin"])
    def admin_reset() -> str:
        ran.append("admin_reset")
        return "done"

    @server.tool(scopes=["admin", "notes:write"], without_scopes="list")
    def purge() -> str:
        ran.append("purge")
        return "done"

    @server.tool(scopes=["admin"], without_scopes="hide")
    def secret_tool(number: int) -> str:
        ran.append("secret_tool")
        return "done"

    @server.tool()
    def undeclared() -> str:
        ran.append("undeclared")
        return "done"

    def own(access: Access) -> bool:
        return access.arguments is None or access.arguments.get("owner") == access.principal.subject

    @server.tool(authorize=own)
    def private(owner: str) -> str:
        ran.append("private")
        return owner

    @server.resource("note://{owner}/{id}", authorize=own)
    def note(owner: str, id: str) -> str:
        ran.append("note")
        return id

    @server.resource("note://public", public=True)
    def board() -> str:
        ran.append("board")
        return "board"

    @server.resource("note://admins", scopes=["admin"], without_scopes="hide")
    def admins() -> str:
        ran.append("admins")
        return "admins"

    @server.prompt(scopes=["admin"], without_scopes="hide")
    def plan() -> str:
        ran.append("plan")
        return "plan"

    return server


def message(
    port: int, body: dict[str, Any], authorization: str | None, *, target: str = "/mcp", **fields: str | None
) -> bytes:
    """The bytes of a modern POST."""
    lines = changed(modern_fields(port, body, None), **fields)
    if authorization is not None:
        lines.append(("Authorization", authorization))
    return request(json.dumps(body).encode(), lines, target=target)


async def ask(
    port: int, method: str, params: dict[str, Any] | None = None, *, as_: str | None = ALICE, **fields: str | None
) -> Response:
    """One modern request."""
    return await exchange(port, message(port, modern(method, params), as_, target="/mcp", **fields))


async def use(port: int, tool: str, arguments: dict[str, Any] | None = None, *, as_: str | None = ALICE) -> Response:
    """One call of a tool."""
    return await ask(port, "tools/call", {"name": tool, "arguments": arguments or {}}, as_=as_)


class Asked(Web):
    """An authorization server that is asked about tokens (RFC 7662).

    Args:
        answers: what it says of each token; of others, that they are not active.
    """

    def __init__(self, answers: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.answers: dict[str, Any] = dict(answers or {})
        self.may_answer = asyncio.Event()
        """Taken away, it does not answer until it is set again."""
        self.may_answer.set()

    async def post(
        self, url: str, body: bytes, *, media_type: str, headers: Mapping[str, str] | None = None
    ) -> Fetched:
        said = parse_qs(body.decode())["token"][0]
        self.asked.append(said)
        await self.may_answer.wait()
        found = self.answers.get(said, {"active": False})
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Fetched) else page(found)


def active(subject: str = "alice", scope: str = "notes:read", **more: Any) -> dict[str, Any]:
    """The answer about a token that is good."""
    return {"active": True, "sub": subject, "scope": scope, "aud": RESOURCE, "exp": time.time() + 300, **more}


def asking(fetch: Asked, **options: Any) -> IntrospectionVerifier:
    """A verifier that asks it, and remembers nothing but where it is told to."""
    client = ClientSecret("mcp", "a-secret-of-this-server")
    return IntrospectionVerifier(
        ISSUER, RESOURCE, **{"client": client, "endpoint": ENDPOINT, "cache": 0.0, "fetch": fetch, **options}
    )


@asynccontextmanager
async def facing(face: str, server: Server, **options: Any) -> AsyncIterator[int]:
    """The server at one of `FACES`; gives the port. `options` are those of `Server.http` and `Server.asgi`."""
    if face.endswith("websocket"):
        options = {"websocket": WebSocketConfig(), **options}
    if face == "session":
        face = "http"
    if face.startswith("asgi"):
        host = {"ws": "websockets-sansio"} if face.endswith("websocket") else {}
        async with uvicorn_serving(server.asgi(**options), **host) as port:
            yield port
    else:
        async with serving(server, token=None, **options) as running:
            yield running.port


def handshake(port: int, authorization: str | None = None, target: str = "/mcp", **fields: str | None) -> bytes:
    """The bytes of a WebSocket handshake."""
    lines = [
        ("Host", f"127.0.0.1:{port}"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "mcp"),
    ]
    lines = changed(lines, **fields) + ([("Authorization", authorization)] if authorization is not None else [])
    return request(b"", lines, method="GET", target=target, length=False)


def knocking(face: str, port: int, authorization: str | None, *, target: str = "/mcp", **fields: str | None) -> bytes:
    """The bytes of what is let in or not: a call of `whoami`, or a handshake."""
    if face.endswith("websocket"):
        return handshake(port, authorization, target, **fields)
    return message(port, call("whoami"), authorization, target=target, **fields)


async def knock(
    face: str, port: int, authorization: str | None, *, target: str = "/mcp", **fields: str | None
) -> Response:
    """What is answered to it: 200 or 101 where it is let in."""
    async with connected(port) as wire:
        await wire.send(knocking(face, port, authorization, target=target, **fields))
        head = await wire.head()
        if head.get("transfer-encoding") == "chunked":
            while data := await wire.chunk():
                head.body += data
        elif head.status != 101:
            head.body = await wire.reader.readexactly(int(head.get("content-length") or 0))
        return head


class Line:
    """A caller at one of `FACES`, or `session`: HTTP with a handshake."""

    def __init__(self, face: str, port: int, authorization: str | None) -> None:
        self.face, self.port, self.authorization = face, port, authorization
        self.session: str | None = None
        self.socket: WebSocketWire | None = None
        self.last: Response | None = None
        """The last answer over HTTP."""
        self._ids = itertools.count(1)

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request; its result or its error."""
        if self.socket is not None:
            answer = await self.socket.ask(modern(method, params, next(self._ids)))
        else:
            if self.face == "session":
                body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params or {}}
                data = session_post(self.port, body, self.authorization, self.session)
            else:
                data = message(self.port, modern(method, params, next(self._ids)), self.authorization)
            self.last = await exchange(self.port, data)
            self.session = self.last.get("mcp-session-id") or self.session
            answer = self.last.json
        return answer.get("result") or answer["error"]

    async def use(self, tool: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call of a tool."""
        return await self.ask("tools/call", {"name": tool, "arguments": arguments or {}})


def session_post(port: int, body: Any, authorization: str | None, session: str | None, **fields: str | None) -> bytes:
    """The bytes of a POST of a session."""
    lines = standard(port, None)
    if session is not None:
        lines += [("Mcp-Session-Id", session), ("MCP-Protocol-Version", "2025-11-25")]
    if authorization is not None:
        lines.append(("Authorization", authorization))
    return request(json.dumps(body).encode(), changed(lines, **fields))


@asynccontextmanager
async def speaking(face: str, port: int, authorization: str | None) -> AsyncIterator[Line]:
    """A caller who was let in. `session` is one at the port of `http` or `asgi`."""
    line = Line(face, port, authorization)
    async with AsyncExitStack() as stack:
        if face.endswith("websocket"):
            wire = await stack.enter_async_context(connected(port))
            await wire.send(handshake(port, authorization))
            assert (await wire.head()).status == 101
            line.socket = WebSocketWire(wire.reader, wire.writer)
        elif face == "session":
            who = {"name": "test", "version": "1"}
            params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": who}
            await line.ask("initialize", params)
        yield line


def let_in(answer: Response) -> bool:
    """Whether what is asked was answered, and not who asks was refused."""
    return answer.status in (200, 101)


def challenge(answer: Response) -> WwwAuthenticate:
    """The one challenge of an answer."""
    given = answer.get("www-authenticate")
    assert given is not None, answer
    (found,) = WwwAuthenticate.parse(given)
    return found


def subject(answer: Response) -> str:
    """As whom a caller of `whoami` is known."""
    return answer.json["result"]["structuredContent"]["subject"]


__all__ = [
    "ADMIN",
    "ALICE",
    "BOB",
    "FACES",
    "ISSUER",
    "METADATA",
    "RESOURCE",
    "WELL_KNOWN",
    "Asked",
    "Line",
    "active",
    "ask",
    "asking",
    "bearer",
    "challenge",
    "facing",
    "guarded",
    "handshake",
    "knock",
    "knocking",
    "let_in",
    "message",
    "protection",
    "session_post",
    "speaking",
    "subject",
    "token",
    "use",
]
