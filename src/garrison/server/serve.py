"""Running a server on a transport until it ends.

Rules of this file:
- What a transport does not need is not imported: a server on stdio loads no HTTP.
- Settings are held against each other before a socket is opened (`policy/listening.py`), and every relaxation is
  recorded when the server starts.
- A listener without other authentication asks for a bearer token, printed once with the URL.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, Protocol

from .. import events
from ..errors import ConfigurationError
from ..policy.listening import check_listening, check_parts, is_loopback
from ..policy.principal import LOCAL, Principal

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable, Coroutine, Mapping

    from ..policy.tls import TlsServerConfig
    from ..policy.transports import UnixSocketConfig, WebSocketConfig
    from ..transports.flood import Place
    from ..transports.http.exchange import Application
    from ..transports.peer import Peer
    from ..transports.stdio import StdioShell
    from ..transports.tls import Rotation
    from ..transports.unix import BoundSocket, UnixShell
    from .app import Server
    from .core import Core
    from .duplex import DuplexConnection

__all__ = [
    "HttpServing",
    "UnixServing",
    "duplex",
    "record_relaxations",
    "resolve_token",
    "run_http",
    "run_stdio",
    "run_unix",
    "stdio_shell",
]

_MIN_TOKEN: Final = 16


def record_relaxations(server: Server) -> None:
    """Write every relaxation of a server and its tools down, with its reason."""
    for name, reason in server.policy.relaxations.items():
        events.record("policy.relaxed", f"{name}: {reason}")
    for tool in server.registry.tools.values():
        if tool.policy.raw_text:
            events.record("policy.relaxed", f"dangerously_raw_text of tool {tool.name!r}: {tool.policy.raw_text}")


def run_stdio(server: Server) -> None:
    """Serve one client on standard input and output."""
    from ..transports.stdio import reserve

    async def main() -> None:
        await core.start()
        try:
            await shell.run()
        finally:
            await core.close()

    core = server.core()
    record_relaxations(server)
    reading, writing = reserve()
    shell = stdio_shell(core, reading, writing)
    try:
        if core.wants_loop or shell.run_plain():
            import asyncio

            asyncio.run(main())
    finally:
        os.close(reading)
        os.close(writing)


def stdio_shell(core: Core, reading: int, writing: int) -> StdioShell:
    """The shell that serves one client on two descriptors, with its connection to the server."""
    from ..transports.stdio import StdioShell

    shell = StdioShell(reading, writing, core.policy.limits, core.policy.timeouts)
    shell.connect(lambda shell: duplex(core, shell, LOCAL))
    return shell


class Shell(Protocol):
    """What carries the messages of one connection, as its server sees it."""

    @property
    def congested(self) -> bool:
        """True while the client does not take what is sent."""
        ...

    def send(self, message: bytes) -> None:
        """Send one message."""
        ...

    async def drain(self) -> None:
        """Return when the client has taken what waits."""
        ...

    def resume(self) -> None:
        """There is room for further requests."""
        ...

    def malformed(self) -> None:
        """A message broke the protocol."""
        ...


def duplex(
    core: Core, shell: Shell, principal: Principal, message_bytes: int | None = None, *, address: str = ""
) -> DuplexConnection:
    """The server's side of a connection on which both speak at any time; the rest as for `DuplexConnection`."""
    from .duplex import DuplexConnection

    return DuplexConnection(
        core,
        shell.send,
        principal=principal,
        drain=shell.drain,
        resumed=shell.resume,
        congested=lambda: shell.congested,
        malformed=shell.malformed,
        message_bytes=message_bytes,
        address=address,
    )


def given_token(token: str | None) -> str | None:
    """The token that was chosen for a listener: the argument's, else that of `GARRISON_TOKEN`.

    Raises:
        ConfigurationError: it is too short or has characters a header cannot carry.
    """
    given = token or os.environ.get("GARRISON_TOKEN") or None
    if given is not None and (len(given) < _MIN_TOKEN or not all("!" <= c <= "~" for c in given)):
        raise ConfigurationError(f"token: at least {_MIN_TOKEN} visible ASCII characters")
    return given


def resolve_token(server: Server, token: str | None, *, certificates: bool = False) -> tuple[str | None, bool]:
    """The listener's token, and whether it was made here.

    Args:
        server, token: whose, and the one that was chosen.
        certificates: clients show certificates, so that nothing else is asked for.

    Raises:
        ConfigurationError: a token that is too short or has characters a header cannot carry, or is given to a server
            that is protected by `auth`.
    """
    if server.auth is not None:
        if token is not None:
            raise ConfigurationError(
                "token= (--token) and Server(auth=...) are two ways to say who may ask: leave the token out"
            )
        return None, False
    given = given_token(token)
    if given is not None:
        return given, False
    if certificates or server.policy.dangerously_allow_unauthenticated:
        return None, False
    import secrets

    return secrets.token_urlsafe(32), True


class HttpServing:
    """An HTTP listener and the server behind it, while they run. See `Server.run_http` for the arguments."""

    def __init__(
        self,
        server: Server,
        host: str,
        port: int,
        *,
        token: str | None = None,
        path: str = "/mcp",
        tls: TlsServerConfig | None = None,
        websocket: WebSocketConfig | None = None,
        http: bool = True,
        unix: UnixSocketConfig | None = None,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ConfigurationError(f"port={port}: 0 to 65535")
        if not http and websocket is None:
            raise ConfigurationError("http=False serves nothing without websocket=")
        from .site import check_site

        check_site(server, path)
        known = server.auth is not None or given_token(token) is not None
        check_listening(server.policy, host, tls=tls, token=known, unix=unix is not None)
        check_parts(websocket, unix)
        self.server = server
        self.port = port
        self.path = path
        self.http = http
        self.websocket = websocket
        self.unix = unix
        self._host = host
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._socket: BoundSocket | None = None
        self.token, self.token_is_new = resolve_token(
            server, token, certificates=tls is not None and tls.client_ca is not None
        )

    @property
    def url(self) -> str:
        """The endpoint's URL. On a Unix socket it is `http://localhost`, reached through that socket."""
        return self._url("https" if self._tls is not None else "http")

    @property
    def websocket_url(self) -> str:
        """The endpoint's URL for WebSocket."""
        return self._url("wss" if self._tls is not None else "ws")

    def _url(self, scheme: str) -> str:
        if self.unix is not None:
            return f"{scheme}://localhost{self.path}"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self.port}{self.path}"

    async def start(self) -> None:
        """Start serving.

        Raises:
            ConfigurationError: the settings do not fit, or a file cannot be used.
            OSError: the address cannot be had.
        """
        import asyncio

        from ..transports.http.edge import HttpListener
        from .site import HttpSite

        policy = self.server.policy
        tls, identity = self._secured()
        self._site = HttpSite(
            self.server,
            path=self.path,
            token=self.token,
            loop=asyncio.get_running_loop(),
            websocket=self.websocket,
            http=self.http,
            identity=identity,
        )
        self.core = self._site.core
        record_relaxations(self.server)  # by now the server's audit hears it
        self.legacy = self._site.legacy
        sockets = self._sockets or await self._bound()
        self.listener = HttpListener(
            self._application,
            policy.limits,
            policy.timeouts,
            self.core.floods,
            tls=tls,
            look_every=self._tls.reload if self._tls is not None else 0.0,
            shared=self._is_shared,
            admit=None if self._socket is None else self._socket.admit,
        )
        try:
            await self.core.start()
            self.port = await self.listener.start(sockets)
        except BaseException:  # whatever the lifespan raises, nothing stays bound
            if self._socket is not None:
                self._socket.close()
            for sock in sockets:
                sock.close()
            await self.core.close()
            raise

    def _secured(self) -> tuple[Rotation | None, Callable[[Mapping[str, object]], str | None] | None]:
        if self._tls is None:
            return None, None
        from ..transports.tls import Rotation, certificate_name

        return Rotation(self._tls), certificate_name if self._tls.client_ca is not None else None

    def check_files(self) -> None:
        """Read the files of TLS, to see that they can be used.

        Raises:
            ConfigurationError: they cannot.
        """
        self._secured()

    def bind(self) -> list[socket.socket]:
        """Bind now, to start later, in this process or another.

        Raises:
            ConfigurationError, OSError: as for `start`.
        """
        import asyncio

        from ..transports.listener import BACKLOG

        self._sockets = asyncio.run(self._bound())
        for sock in self._sockets:
            sock.listen(BACKLOG)  # who connects before the first worker is there waits
        if self.unix is None:
            self.port = self._sockets[0].getsockname()[1]
        return self._sockets

    def unbind(self) -> None:
        """Close what `bind` has bound."""
        for sock in self._sockets:
            sock.close()
        if self._socket is not None:
            self._socket.close()

    async def _bound(self) -> list[socket.socket]:
        if self.unix is not None:
            from ..transports.unix import bind

            self._socket = bind(self.unix, unsafe_reason=self.server.policy.dangerously_allow_unsafe_socket_path)
            return [self._socket.socket]
        from ..transports.listener import bound

        return await bound(self._host, self.port)

    def _application(self, port: int) -> Application:
        """What is served: under loopback names where it was bound, and under the name of a Unix socket."""
        if self.unix is not None:
            return self._site.application(None, local=True)
        plain = self._tls is None
        safe = is_loopback(self._host) or self._host in self.server.policy.allow_insecure_http_hosts
        return self._site.application(port, secure=not plain, public=plain and not safe)

    def _is_shared(self, address: str) -> bool:
        return self._site.gate.shared(address)

    async def __aenter__(self) -> HttpServing:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let what runs end, then stop."""
        if self._socket is not None:
            self._socket.remove()
        self.listener.stop()
        await self.core.close()
        self._site.close_sessions()
        await self.listener.close(min(1.0, self.server.policy.timeouts.shutdown))
        if self._socket is not None:
            self._socket.close()


class UnixServing:
    """A Unix socket with the framing of stdio and the server behind it, while they run."""

    def __init__(self, server: Server, config: UnixSocketConfig) -> None:
        self.server = server
        self.config = config

    @property
    def url(self) -> str:
        """What a client names to reach it."""
        return f"unix:{self.config.path}"

    async def start(self) -> None:
        """Start serving.

        Raises:
            ConfigurationError: the socket cannot lie there.
            OSError: the address cannot be had.
        """
        from ..policy.transports import limits_for
        from ..transports.listener import Listener
        from ..transports.unix import bind

        policy = self.server.policy
        self._socket = bind(self.config, unsafe_reason=policy.dangerously_allow_unsafe_socket_path)
        self.core = self.server.core()
        record_relaxations(self.server)
        limits = limits_for(policy.limits, self.config)
        self.listener = Listener(limits, policy.timeouts, self.core.floods, admit=self._socket.admit)
        self.listener.arrive = self._arrive
        try:
            await self.core.start()
            await self.listener.listen([self._socket.socket])
            await self.listener.serve()
        except BaseException:  # whatever the lifespan raises, nothing stays bound
            self._socket.close()
            await self.core.close()
            raise

    def _arrive(self, peer: Peer, place: Place) -> UnixShell:
        from ..transports.unix import UnixShell

        place.let_in()  # the kernel has said who it is
        most = self.listener.limits.message_bytes
        principal = Principal(f"uid:{peer.uid}", owner=peer.uid == os.geteuid(), local=True)
        return UnixShell(self.listener, place, lambda shell: duplex(self.core, shell, principal, most, address="unix"))

    async def __aenter__(self) -> UnixServing:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let what runs end, then stop."""
        self._socket.remove()
        self.listener.stop()
        await self.core.close()
        await self.listener.close(min(1.0, self.server.policy.timeouts.shutdown))
        self._socket.close()


def run_http(
    server: Server,
    host: str,
    port: int,
    *,
    token: str | None = None,
    path: str = "/mcp",
    tls: TlsServerConfig | None = None,
    websocket: WebSocketConfig | None = None,
    http: bool = True,
    unix: UnixSocketConfig | None = None,
    workers: int = 1,
    announce: Callable[[HttpServing], None] | None = None,
) -> None:
    """Serve HTTP until interrupted; `announce` is called once the listener is open."""
    from .workers import check_workers, serve_with_workers

    check_workers(server, workers)
    serving = HttpServing(
        server, host, port, token=token, path=path, tls=tls, websocket=websocket, http=http, unix=unix
    )

    announce = announce or announce_on_stderr
    if workers > 1:
        serving.check_files()
        sockets = serving.bind()
        announce(serving)
        try:
            serve_with_workers(
                workers,
                sockets,
                lambda number: _run_worker(server, serving, number),
                server.policy.timeouts.shutdown,
            )
        finally:
            serving.unbind()
        return

    async def start() -> None:
        await serving.start()
        announce(serving)

    _run_until_signal(start, serving.close)


def _run_worker(server: Server, serving: HttpServing, number: int) -> None:
    """Serve as one of several processes, each with a file of its own where the audit has files."""
    from .recording import open_sink

    open_sink(server.audit, f"w{number}")
    try:
        _run_until_signal(serving.start, serving.close)
    finally:
        if server.audit is not None:
            server.audit.close()


def run_unix(
    server: Server, config: UnixSocketConfig, *, announce: Callable[[UnixServing], None] | None = None
) -> None:
    """Serve a Unix socket until interrupted; `announce` is called once it is open."""
    serving = UnixServing(server, config)

    async def start() -> None:
        await serving.start()
        if announce is not None:
            announce(serving)
        else:
            print(f"Serving MCP at {serving.url}", file=sys.stderr, flush=True)  # noqa: T201 - the launching terminal

    _run_until_signal(start, serving.close)


def _run_until_signal(
    start: Callable[[], Coroutine[object, object, None]], close: Callable[[], Coroutine[object, object, None]]
) -> None:
    import asyncio
    import signal

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                loop.add_signal_handler(number, stop.set)
            except (NotImplementedError, RuntimeError, ValueError):
                continue  # not the main thread, or not this platform
        await start()
        try:
            await stop.wait()
        finally:
            await close()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes uvloop's loop, where it is installed; None for asyncio's own."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


def announce_on_stderr(serving: HttpServing) -> None:
    """Say where the server is, and the token if it was made here."""
    if serving.http:
        print(f"Serving MCP at {serving.url}", file=sys.stderr)  # noqa: T201 - the launching terminal is the reader
    if serving.websocket is not None:
        print(f"Serving MCP at {serving.websocket_url}", file=sys.stderr)  # noqa: T201
    if serving.token_is_new:
        print(f"Token: {serving.token}", file=sys.stderr, flush=True)  # noqa: T201 - shown once, as notebooks do
