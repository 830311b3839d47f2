"""A protected server and its authorization server, in a thread of their own, and a person who signs in there."""

from __future__ import annotations

import asyncio
import contextlib
import html
import io
import re
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urljoin

from garrison import Context, SecurityPolicy, Server, Timeouts, WebSocketConfig
from garrison.auth.resource import JwtVerifier
from garrison.auth.resource.server import ResourceServer
from garrison.server.serve import HttpServing
from garrison.testing import DevAuthorizationServer, DevClient, User
from tests.support.ports import free_port

CLIENT = DevClient("desktop", redirect_uris=["http://127.0.0.1/callback"], name="A desktop program")
SECRET = "the-secret-of-a-confidential-client"
CONFIDENTIAL = DevClient("office", redirect_uris=["http://127.0.0.1/callback"], secret=SECRET)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


def _opened(url: str, form: dict[str, str] | None = None, **headers: str) -> tuple[Any, bytes]:
    """An answer and its body, of whatever status; no redirect is followed."""
    data = None if form is None else urlencode(form).encode()
    request = urllib.request.Request(url, data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(request, timeout=10) as answer:
            return answer, answer.read()
    except urllib.error.HTTPError as answer:
        return answer, answer.read()


def consented(url: str, user: str = "alice", *, deny: bool = False) -> str:
    """Be a person at the consent page: the address that it leads to, with the answer."""
    page, body = _opened(url)
    text = body.decode()
    names = r'<input type="hidden" name="([^"]*)" value="([^"]*)"'
    fields = {html.unescape(name): html.unescape(value) for name, value in re.findall(names, text)}
    action = re.search(r'<form method="post" action="([^"]*)"', text)
    assert action, text
    fields |= {"deny": "1"} if deny else {"user": user}
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    sent, _ = _opened(urljoin(url, html.unescape(action[1])), fields, Cookie=cookie)
    return sent.headers["Location"]


def delivered(address: str) -> None:
    """Open the address of the last page, as a browser does."""
    _opened(address)


@dataclass
class Place:
    """Both servers."""

    authorization: DevAuthorizationServer
    serving: HttpServing
    loop: asyncio.AbstractEventLoop
    pages: list[str]

    @property
    def url(self) -> str:
        return self.serving.url

    def person(self, user: str = "alice", *, deny: bool = False) -> Callable[[str], Any]:
        """What opens a page in place of a browser: somebody is there and answers."""

        async def opened(url: str) -> bool:
            self.pages.append(url)
            address = await asyncio.to_thread(consented, url, user, deny=deny)
            await asyncio.to_thread(delivered, address)
            return True

        return opened


@asynccontextmanager
async def protected(options: dict[str, Any], rules: dict[str, Any]) -> AsyncGenerator[Place]:
    given: dict[str, Any] = {
        "users": [User("alice", scopes=["notes:read", "notes:write"]), User("bob")],
        "clients": [CLIENT, CONFIDENTIAL],
    }
    async with DevAuthorizationServer(**{**given, **options}) as authorization:
        port = free_port()
        resource = f"http://127.0.0.1:{port}/mcp"
        issuer = authorization.issuer
        auth = ResourceServer(resource, JwtVerifier(issuer, resource), scopes_supported=["notes:read"], **rules)
        serving = HttpServing(notes(auth), "127.0.0.1", port, websocket=WebSocketConfig())
        await serving.start()
        try:
            yield Place(authorization, serving, asyncio.get_running_loop(), [])
        finally:
            await serving.close()


def notes(auth: ResourceServer) -> Server:
    server = Server("notes", auth=auth, policy=SecurityPolicy(timeouts=Timeouts(shutdown=0.1)))

    @server.tool(public=True)
    def me(ctx: Context) -> str:
        return ctx.principal.subject

    @server.tool(scopes=["notes:write"])
    def write(text: str) -> str:
        return f"wrote {text}"

    return server


@contextmanager
def place(rules: dict[str, Any] | None = None, **options: Any) -> Generator[Place]:
    """Both servers, until the block ends."""
    ready: list[Place] = []
    failed: list[BaseException] = []
    there, end = threading.Event(), threading.Event()

    async def serve() -> None:
        async with protected(options, rules or {}) as made:
            ready.append(made)
            there.set()
            await asyncio.to_thread(end.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as exc:
            failed.append(exc)
            there.set()

    thread = threading.Thread(target=run, daemon=True)
    with contextlib.redirect_stderr(io.StringIO()):  # the notice of the development server
        thread.start()
        there.wait(20)
    try:
        if failed or not ready:
            raise RuntimeError("the servers did not start") from (failed[0] if failed else None)
        yield ready[0]
    finally:
        end.set()
        thread.join(10)


@contextmanager
def served_alone(server: Server) -> Generator[str]:
    """A server on a thread of its own: its URL."""
    urls: list[str] = []
    there, end = threading.Event(), threading.Event()

    async def serve() -> None:
        serving = HttpServing(server, "127.0.0.1", 0)
        await serving.start()
        urls.append(serving.url)
        there.set()
        await asyncio.to_thread(end.wait)
        await serving.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    there.wait(20)
    try:
        yield urls[0]
    finally:
        end.set()
        thread.join(10)
