"""A protected server, the certified authorization server that it trusts, and a person at the pages of that one.

    with house() as at:
        async with served(at.url, ResourceServer(at.url, at.issuer)), Client(at.url, auth=signing_in(person)) as client:
            ...

Rules of this file:
- The port of the protected server is chosen first: its URL is the identifier of the resource, which both others know.
- The person is a browser at real pages. Nothing of the flow is skipped.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from garrison import Client, Context, SecurityPolicy, Server, Timeouts, WebSocketConfig
from garrison.auth import (
    ClientSecret,
    CredentialKey,
    CredentialStore,
    IntrospectionVerifier,
    MemoryStore,
    OAuth,
    ResourceServer,
)
from garrison.auth.jws import read_compact
from garrison.types import CallToolResult
from tests.support.chromium import Chromium
from tests.support.chromium_oauth import sign_in
from tests.support.oauth_provider import CLIENTS, REDIRECT, Provider, oauth_provider
from tests.support.ports import free_port

DOCUMENT = "https://client.example/oauth/client.json"
POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=0.5, connect=5, request=20))
_DOCUMENTS = {
    DOCUMENT: {
        "client_id": DOCUMENT,
        "client_name": "A program with a document",
        "application_type": "native",
        "token_endpoint_auth_method": "none",
        "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    }
}
_ASKER = {
    "client_id": "notes-server",
    "client_secret": "the secret: of the server",
    "redirect_uris": [],
    "grant_types": [],
    "response_types": [],
}
"""The protected server itself, where it asks about tokens."""


@dataclass(frozen=True)
class House:
    """An authorization server, and the URLs of two resources that it gives tokens for."""

    provider: Provider
    url: str
    """Of a resource whose tokens are JWTs."""
    opaque: str
    """Of one whose tokens say nothing."""

    @property
    def issuer(self) -> str:
        return self.provider.issuer


@contextmanager
def house(**options: Any) -> Iterator[House]:
    """The authorization server; `options` are those of `oauth_provider`."""
    url, opaque = (f"http://127.0.0.1:{free_port()}/mcp" for _ in range(2))
    given: dict[str, Any] = {"clients": (*CLIENTS, _ASKER), "documents": _DOCUMENTS, **options}
    with oauth_provider(resources={url: "read write", opaque: "read write"}, opaque=[opaque], **given) as provider:
        yield House(provider, url, opaque)


def introspecting(at: House, **options: Any) -> IntrospectionVerifier:
    """Asks the authorization server about tokens of the opaque resource."""
    client = ClientSecret("notes-server", "the secret: of the server")
    return IntrospectionVerifier(at.issuer, at.opaque, client=client, **options)


def notes(auth: ResourceServer) -> Server:
    """A server with a tool for everybody, one for readers and one for writers."""
    server = Server("notes", auth=auth, policy=SecurityPolicy(timeouts=Timeouts(shutdown=0.2)))

    @server.tool(public=True)
    def whoami(ctx: Context) -> list[str]:
        who = ctx.principal
        return [who.issuer, who.subject, who.client_id or "", " ".join(sorted(who.scopes))]

    @server.tool(scopes=["read"])
    def read() -> str:
        return "what is written"

    @server.tool(scopes=["write"])
    def write() -> str:
        return "written"

    return server


@asynccontextmanager
async def served(url: str, auth: ResourceServer) -> AsyncIterator[None]:
    """The server at its URL, over HTTP and WebSocket."""
    async with notes(auth).http(port=urlsplit(url).port or 0, websocket=WebSocketConfig()):
        yield


@dataclass
class Person:
    """`browser=` of `OAuth`: somebody who signs in at the pages of the authorization server."""

    chromium: Chromium
    deny: bool = False
    pages: list[str] = field(default_factory=list)
    """The addresses that were opened."""

    async def __call__(self, url: str) -> bool:
        self.pages.append(url)
        await sign_in(self.chromium, url, self.asked("redirect_uri"), user="alice", deny=self.deny)
        return True

    def asked(self, name: str, page: int = -1) -> str:
        """A parameter of a page; empty where it has none."""
        return parse_qs(urlsplit(self.pages[page]).query).get(name, [""])[0]


def signing_in(person: Person, **options: Any) -> OAuth:
    """`OAuth` of the registered client, whose tokens stay in memory."""
    return OAuth(**{"client_id": "desktop", "store": MemoryStore(), "browser": person, "timeout": 20, **options})


async def called(client: Client, tool: str) -> Any:
    """What a tool returns."""
    result: CallToolResult = await client.call_tool(tool, raise_on_error=True)
    assert isinstance(result.structured_content, dict)
    return result.structured_content["result"]


async def listed(client: Client) -> list[str]:
    """The names of the tools that this caller is shown."""
    return [tool.name for tool in (await client.list_tools()).tools]


def entries(store: CredentialStore, kind: str) -> list[CredentialKey]:
    """The names of what a store has: `token`, `client` or `key`."""
    every = store.keys()
    return [name for name in every if name.kind == kind]


def token_in(store: CredentialStore) -> dict[str, Any]:
    """The one token that a store has, as it is kept."""
    (name,) = entries(store, "token")
    return json.loads(store.load(name) or b"")


def claims(store: CredentialStore) -> dict[str, Any]:
    """What stands in the JWT that a store has."""
    return dict(read_compact(token_in(store)["access_token"], 8192)[1])


async def eventually(holds: Callable[[], bool], seconds: float = 2.0) -> bool:
    """Whether something becomes true: what another process says of itself comes a moment later."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        await asyncio.sleep(0.01)
    return holds()
