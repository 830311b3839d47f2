"""An MCP endpoint that wants tokens of a development authorization server, and a browser that says yes."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from garrison import Client, SecurityPolicy, Timeouts
from garrison.auth.client.settings import AuthSettings, OAuth
from garrison.auth.store import CredentialStore, MemoryStore
from garrison.auth.tokens import CredentialKey
from garrison.testing import DevAuthorizationServer, DevClient

from .fakes import FakeHttp, Request, http_server, modern, respond, text

POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=0.5, connect=5, request=5))
CLIENT = DevClient("desktop", redirect_uris=["http://127.0.0.1/callback"])


def claims_of(token: str) -> dict[str, Any]:
    """What stands in an access token; its signature is for others to check."""
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@dataclass
class Protected:
    """An MCP endpoint at `/mcp`. Tests change its members while it runs."""

    issuers: list[str]
    fake: FakeHttp = field(init=False)
    scopes: list[str] = field(default_factory=list)
    """`scopes_supported`."""
    need: dict[str, list[str]] = field(default_factory=dict)
    """The scopes that a method needs."""
    refused: set[str] = field(default_factory=set)
    """Tokens that are taken no more."""
    refuse_all: bool = False
    resource: str = ""
    scheme: str = "Bearer"
    metadata: dict[str, object] = field(default_factory=dict)
    verdict: Callable[[Request], bytes | None] | None = None
    """Answers a request in place of all else."""

    @property
    def url(self) -> str:
        return self.fake.url

    @property
    def here(self) -> str:
        return self.resource or self.fake.url

    @property
    def calls(self) -> list[Request]:
        """The requests to the endpoint itself."""
        return [each for each in self.fake.requests if each.target == "/mcp"]

    @property
    def tokens(self) -> list[str]:
        """The tokens that came, in order and without repetition."""
        found = (each.headers.get("authorization", "").partition(" ")[2] for each in self.calls)
        return list(dict.fromkeys(token for token in found if token))

    def challenge(self, status: str, error: str = "", scope: str = "", extra: str = "") -> bytes:
        base = self.resource if self.resource.endswith("/mcp") else self.url
        where = base.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")
        parts = [f'resource_metadata="{where}"']
        parts += [f'error="{error}"'] if error else []
        parts += [f'scope="{scope}"'] if scope else []
        return respond({}, status=status, extra=f"WWW-Authenticate: {self.scheme} {', '.join(parts)}\r\n{extra}")

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> object:
        if "/.well-known/oauth-protected-resource" in request.target:
            return {
                "resource": self.here,
                "authorization_servers": self.issuers,
                **({"scopes_supported": self.scopes} if self.scopes else {}),
                **self.metadata,
            }
        said = self.judge(request)
        if said is not None:
            writer.write(said)
            return None
        handlers = {"tools/list": lambda _: {"tools": []}, "tools/call": lambda _: text("ok")}
        return await modern(handlers)(request, writer)

    def judge(self, request: Request) -> bytes | None:
        if self.verdict is not None:
            said = self.verdict(request)
            if said is not None:
                return said
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        need = self.need.get(request.method, [])
        if scheme != self.scheme or token in self.refused or self.refuse_all:
            return self.challenge("401 Unauthorized", "invalid_token" if token else "", " ".join(need))
        claims = claims_of(token)
        if claims["aud"] != self.here or claims["iss"] not in self.issuers or claims["exp"] <= time.time():
            return self.challenge("401 Unauthorized", "invalid_token")
        if not set(need) <= set(claims.get("scope", "").split()):
            return self.challenge("403 Forbidden", "insufficient_scope", " ".join(need))
        return None


@asynccontextmanager
async def protected(*issuers: str) -> AsyncIterator[Protected]:
    """A protected endpoint that names these authorization servers."""
    scene = Protected(list(issuers))
    async with http_server(scene.answer) as scene.fake:
        yield scene


async def fetched(url: str) -> tuple[int, dict[str, str]]:
    """Status and headers of a GET, as a browser would send it."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    writer.close()
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return int(first.split(" ")[1]), headers


@dataclass
class Person:
    """A browser and somebody who signs in at once."""

    pages: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    """Is waited for before the answer."""

    async def __call__(self, url: str) -> bool:
        self.pages.append(url)
        if self.gate is not None:
            await self.gate.wait()
        _, headers = await fetched(url)
        if "location" in headers:
            await fetched(headers["location"])
        return True


def kept(store: CredentialStore, kind: str) -> list[CredentialKey]:
    """The keys of a kind that a store has."""
    every = store.keys()
    return [key for key in every if key.kind == kind]


def signing_in(person: Person, **options: Any) -> OAuth:
    """`OAuth` of a registered client, whose tokens stay in memory."""
    given: dict[str, Any] = {"client_id": "desktop", "store": MemoryStore(), "browser": person, "timeout": 5}
    return OAuth(**{**given, **options})


@asynccontextmanager
async def scene(**options: Any) -> AsyncIterator[tuple[DevAuthorizationServer, Protected, Person]]:
    """An authorization server that agrees at once, a server that wants its tokens, and a person."""
    given: dict[str, Any] = {"auto_approve": "alice", "clients": [CLIENT]}
    async with DevAuthorizationServer(**{**given, **options}) as authorization:
        async with protected(authorization.issuer) as server:
            yield authorization, server, Person()


def connected(server: Protected, auth: AuthSettings, **options: Any) -> Client:
    """A client of a protected server."""
    return Client(server.url, auth=auth, **{"policy": POLICY, "era": "modern", **options})


def forms(authorization: DevAuthorizationServer, endpoint: str = "token") -> list[dict[str, str]]:
    """The forms that came to an endpoint of the authorization server."""
    return [dict(parse_qsl(request.body.decode())) for request in authorization.asked(endpoint)]


async def said(client: Client) -> str:
    """What a tool says."""
    content = (await client.call_tool("x")).content[0]
    return str(getattr(content, "text", content))
