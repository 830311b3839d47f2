"""Who takes part in `garrison demo --auth`: a protected server, its authorization server, a person, and a thief.

Rules of this file:
- Everything is on loopback, in this process, and made for the run: keys, tokens and people.
- The person's user agent is a few lines of code that follow the consent page as a browser does: cookie, form, redirect.
  No browser is opened.
"""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, redirect_stderr
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

from .. import Context, SecurityPolicy, Server, Timeouts
from ..auth.client.settings import OAuth
from ..auth.resource import JwtVerifier
from ..auth.resource.server import ResourceServer
from ..auth.store import MemoryStore
from ..server.serve import HttpServing
from ..testing import DevAuthorizationServer, DevClient, Reply, Request, User
from ..testing.oauth.http import LoopbackHttp
from .demo_raw import HttpPeer

if TYPE_CHECKING:
    from typing import Literal

    from ..policy.principal import Principal
    from ..server.access import Access

__all__ = ["CLIENT", "Got", "Person", "Scene", "Thief", "fetched", "scene"]

CLIENT: Final = "desktop"
REDIRECT: Final = "http://127.0.0.1/callback"
SECRET: Final = "a-secret-for-this-demo"  # noqa: S105 - of a program that lives as long as the demo
_PATIENCE: Final = 10.0
_FAILURES: Final = 60
"""Wrong tokens that one address may show in a minute: more than the demo's own."""


# The world, as a browser sees it


@dataclass(frozen=True, slots=True)
class Got:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)


async def fetched(url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None) -> Got:
    """A GET, or a POST of a form. Redirects are not followed."""
    parts = urlsplit(url)
    body = b"" if form is None else urlencode(form).encode()
    lines = {"Host": parts.netloc, "Connection": "close", **(headers or {})}
    if form is not None:
        lines |= {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = "\r\n".join([f"{'GET' if form is None else 'POST'} {target} HTTP/1.1", *map(": ".join, lines.items())])
    async with asyncio.timeout(_PATIENCE):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(f"{head}\r\n\r\n".encode() + body)
            answer = await reader.read()
        finally:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return Got(int(first.split(" ")[1]), fields, body)


class _Form(HTMLParser):
    """The form of a consent page."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.hidden: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = found.get("action", "")
        elif tag == "input" and found.get("type") == "hidden":
            self.hidden[found.get("name", "")] = found.get("value", "")


class Person:
    """Somebody with a browser, who agrees.

    Args:
        name: who signs in.
    """

    def __init__(self, name: str = "alice") -> None:
        self.name = name
        self.pages = 0
        """Pages that were shown."""

    async def __call__(self, url: str) -> bool:
        """Follow an authorization to its end, as a browser: the `browser` of `OAuth`."""
        address = await self.agree(url)
        if address:
            await fetched(address)
        return True

    async def agree(self, url: str, *, cookie: bool = True) -> str:
        """Where the page leads to; empty where it does not lead on.

        Args:
            url: the authorization request.
            cookie: keep what the page sets.
        """
        page = await fetched(url)
        if "location" in page.headers:
            return page.headers["location"]
        if page.status != 200:
            return ""
        self.pages += 1
        form = _Form()
        form.feed(page.body.decode())
        kept = {"Cookie": page.headers.get("set-cookie", "").partition(";")[0]} if cookie else {}
        sent = await fetched(urljoin(url, form.action), {**form.hidden, "user": self.name}, kept)
        return sent.headers.get("location", "")


# The servers


@dataclass
class Scene:
    """Both servers, and ways to talk to them."""

    authorization: DevAuthorizationServer
    serving: HttpServing
    protection: ResourceServer
    revoked: set[str]
    """Ids of tokens that were taken back."""

    @property
    def issuer(self) -> str:
        return self.authorization.issuer

    @property
    def resource(self) -> str:
        return self.protection.resource

    @property
    def peer(self) -> HttpPeer:
        """Who sends bytes to the protected server."""
        return HttpPeer(self.serving.port, self.serving.path, "")

    def auth(
        self, person: Person, *, timeout: float = _PATIENCE, dpop: Literal["auto", "require", "off"] = "auto"
    ) -> OAuth:
        """How Garrison's client signs in here, with nothing kept of others."""
        return OAuth(CLIENT, store=MemoryStore(), browser=person, timeout=timeout, dpop=dpop, notice=_unheard)

    @asynccontextmanager
    async def tampered(self, change: Callable[[Request, Reply], Reply]) -> AsyncGenerator[None]:
        """Somebody between the authorization server and those who ask it, who changes its answers."""
        self.authorization.on_reply = change
        try:
            yield
        finally:
            self.authorization.on_reply = None

    @asynccontextmanager
    async def metadata(self, **changes: object) -> AsyncGenerator[None]:
        """Another metadata document of the authorization server."""
        self.authorization.metadata.update(changes)
        try:
            yield
        finally:
            self.authorization.metadata.clear()


def _unheard(text: str) -> None:
    """What a client would tell its user: here the rows do."""


class Thief:
    """A listener to which things are meant to leak, and which counts what does."""

    def __init__(self, page: Callable[[Request], Reply] | None = None) -> None:
        self.heard: list[Request] = []
        self.origin = ""
        self._page = page
        self._http = LoopbackHttp(self._answer, "127.0.0.1")

    async def _answer(self, request: Request) -> Reply:
        self.heard.append(request)
        return Reply(404) if self._page is None else self._page(request)

    async def __aenter__(self) -> Thief:
        self.origin = await self._http.start(0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _own(access: Access) -> bool:
    """The policy function of a note: its owner reads it, and nobody else knows of it."""
    return access.arguments is None or access.arguments.get("owner") == access.principal.subject


def notes(protection: ResourceServer) -> Server:
    """The protected server."""
    policy = SecurityPolicy(timeouts=Timeouts(shutdown=0.2))
    server = Server("notes", auth=protection, policy=policy)

    @server.tool(public=True)
    def me(ctx: Context[object]) -> str:
        """Who asks."""
        who = ctx.principal
        return f"{who.subject} of {who.tenant}"

    @server.tool(scopes=["notes:read"])
    def read(word: str) -> str:
        """Find notes."""
        return f"no note has {word!r}"

    @server.tool(scopes=["notes:write"], without_scopes="list")
    def write(text: str) -> str:
        """Write a note."""
        return "written"

    @server.tool(scopes=["admin"], without_scopes="hide")
    def purge() -> str:
        """Delete all notes. Who may not, does not know of it."""
        return "deleted"

    @server.tool()
    def forgotten() -> str:
        """A tool whose author forgot to say who may use it."""
        return "done"

    @server.resource("note://{owner}/{id}", authorize=_own)
    def note(owner: str, id: str) -> str:
        """One note."""
        return f"note {id} of {owner}"

    return server


@asynccontextmanager
async def scene() -> AsyncGenerator[Scene]:
    """Start both servers.

    Raises:
        OSError: a port of loopback could not be had.
    """
    users = [
        User("alice", "red", ["notes:read", "notes:write"]),
        User("bob", "blue", ["notes:read"]),
    ]
    clients = [
        DevClient(CLIENT, redirect_uris=[REDIRECT], name="A program on the desktop"),
        DevClient("other-program", redirect_uris=[REDIRECT]),
        DevClient("nightly", secret=SECRET, tenant="red", name="A program of its own"),
    ]
    scopes = ["notes:read", "notes:write", "admin"]
    authorization = DevAuthorizationServer(users, clients=clients, scopes=scopes)
    with redirect_stderr(io.StringIO()):  # that it is no server for production need not be said here
        await authorization.__aenter__()
    try:
        resource = f"http://127.0.0.1:{_free_port()}/mcp"
        revoked: set[str] = set()

        def gone(principal: Principal, token_id: str | None) -> bool:
            return token_id in revoked

        protection = ResourceServer(
            resource,
            JwtVerifier(authorization.issuer, resource, require_typ=True, tenant_claim="tenant"),
            scopes_supported=["notes:read"],
            revoked=gone,
            recheck=1.0,
            failures_per_minute=_FAILURES,
        )
        serving = HttpServing(notes(protection), "127.0.0.1", urlsplit(resource).port or 0)
        await serving.start()
        try:
            yield Scene(authorization, serving, protection, revoked)
        finally:
            await serving.close()
    finally:
        await authorization.__aexit__(None, None, None)


def answer_of(address: str) -> dict[str, str]:
    """The parameters of an address that a page led to."""
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
