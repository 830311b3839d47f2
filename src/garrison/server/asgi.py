"""The ASGI face: a server as an ASGI 3 application, to run under a host server or mount in another application.

Rules of this file:
- The host's lifespan events start and end the server. Where they do not arrive, as in a mounted application, the first
  request that passes the gate starts it, and it ends with the loop; `async with app` in the outer lifespan does both
  in time.
- One task starts and ends the server, so that its lifespan is entered and left in the same task.
- Which names the listener has is the local address of the connection, as the host server tells it: loopback names with
  its port where that is a loopback address, and nothing but `SecurityPolicy.allowed_hosts` elsewhere. The Host header
  decides nothing about itself.
- A plain connection to any other address is served only where it comes from a trusted proxy, as at the edge.

ASGI 3.0, "Lifespan Protocol" 2.0.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from typing import TYPE_CHECKING, Final

from ..errors import Overloaded
from ..policy.listening import check_parts, is_loopback
from ..transports.http.asgi import AsgiShell, peer_of
from .serve import record_relaxations, resolve_token
from .site import HttpSite, check_site

if TYPE_CHECKING:
    from types import TracebackType

    from ..policy.transports import WebSocketConfig
    from ..transports.http.asgi import Receive, Scope, Send
    from ..transports.http.exchange import Application
    from .app import Server

__all__ = ["AsgiApp"]

log = logging.getLogger("garrison.http")

_PORTS: Final = 16


class _Running:
    """The server on one event loop."""

    def __init__(
        self,
        server: Server,
        path: str,
        token: str | None,
        websocket: WebSocketConfig | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.loop = loop
        self.failed = False
        self._server = server
        self._policy = server.policy
        self._site = HttpSite(server, path=path, token=token, loop=loop, websocket=websocket)
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] = loop.create_future()
        self._stop = asyncio.Event()
        self._application = functools.lru_cache(_PORTS)(self._site.application)
        self.shell = AsgiShell(server.policy.limits, server.policy.timeouts, self._site.core.floods, self._ready)

    def application(self, scope: Scope) -> Application:
        """What is served on the address that the host server says the connection came to."""
        secure = scope.get("scheme") in ("https", "wss")
        match scope.get("server"):
            case (str(host), int(port)) if is_loopback(host):
                return self._application(port, secure=secure)
            case (str(host), None):  # the path of a Unix socket
                return self._application(None, local=True, secure=secure)
            case (str(host), int()) if host in self._policy.allow_insecure_http_hosts:
                return self._application(None, secure=secure)
            case _:
                return self._application(None, secure=secure, public=not secure)

    async def start(self) -> None:
        """Return when the server runs; the first caller starts it. Raises what its lifespan raises."""
        if self._task is None:
            self._task = self.loop.create_task(self._run())
        await asyncio.shield(self._started)

    async def websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope of the kind `websocket`."""
        from .http_websocket import serve_asgi

        meter = self.shell.meter(scope, peer_of(scope))
        await serve_asgi(self._site, self.application(scope), self._ready, meter, scope, receive, send)

    async def _ready(self) -> None:
        if self._started.done() and not self.failed:
            return
        try:
            await self.start()
        except Exception as exc:  # a lifespan may raise anything; the peer learns no more than that it cannot be served
            raise Overloaded("The server did not start", hint="see the log") from exc

    async def _run(self) -> None:
        record_relaxations(self._server)
        try:
            await self._site.core.start()
        except BaseException as exc:
            self.failed = True
            log.exception("the server's lifespan failed at its start")
            self._started.set_exception(exc)
            self._started.exception()  # seen: nobody may be waiting any more
            if not isinstance(exc, Exception):
                raise
            return
        self._started.set_result(None)
        try:
            await self._stop.wait()
        finally:  # a loop that ends without having closed the server cancels this task
            await self._site.core.close()
            for socket in tuple(self._site.sockets):
                await socket.shut()
            self._site.close_sessions()
            self.shell.shut()

    async def close(self) -> None:
        """Let what runs end, then stop."""
        self._stop.set()
        if self._task is not None:
            await self._task


class AsgiApp:
    """A server as an ASGI application. Made by `Server.asgi`.

    Run it under an ASGI server, or mount it:

        mcp = server.asgi()
        app = Starlette(routes=[Mount("/tools", mcp)], lifespan=lambda app: mcp)

    Args:
        server: what to serve.
        path: the endpoint's path below where the application is mounted.
        token, websocket: see `Server.asgi`. A token made here is printed on standard error.

    Raises:
        ConfigurationError: the token is too short or has characters that a header cannot carry, or the path, or a
            name in the policy, is not of its form.
    """

    def __init__(
        self, server: Server, *, path: str = "/mcp", token: str | None = None, websocket: WebSocketConfig | None = None
    ) -> None:
        check_site(server, path)
        check_parts(websocket, hosted=True)
        self._server = server
        self.path = path
        self._websocket = websocket
        self.token, made = resolve_token(server, token)
        self._running: _Running | None = None
        if made:
            print(f"Token: {self.token}", file=sys.stderr, flush=True)  # noqa: T201 - the launching terminal is the reader

    def _here(self) -> _Running:
        """The server on the running loop: a new one where there is none, or it failed, or its loop is not this one."""
        running, loop = self._running, asyncio.get_running_loop()
        if running is None or running.failed or running.loop is not loop:
            running = self._running = _Running(self._server, self.path, self.token, self._websocket, loop)
        return running

    async def __aenter__(self) -> None:
        """Start the server. Raises what its lifespan raises."""
        await self._here().start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let what runs end, then stop the server."""
        running, self._running = self._running, None
        if running is not None:
            await running.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope of the host.

        Raises:
            ValueError: a kind of scope that is neither http, websocket nor lifespan.
        """
        kind = scope["type"]
        if kind == "http":
            running = self._here()
            await running.shell.serve(running.application(scope), scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "websocket":
            running = self._here()
            await running.websocket(scope, receive, send)
        else:
            raise ValueError(f"ASGI scope {kind!r} is not served")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = (await receive())["type"]
            if event == "lifespan.startup":
                try:
                    await self.__aenter__()
                except Exception:  # noqa: BLE001 - a lifespan may raise anything; it is in the log already
                    await send({"type": "lifespan.startup.failed", "message": "the server's lifespan failed"})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif event == "lifespan.shutdown":
                await self.__aexit__(None, None, None)
                await send({"type": "lifespan.shutdown.complete"})
                return
