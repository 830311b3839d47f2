"""Running a server on a transport until it ends.

Rules of this file:
- What a transport does not need is not imported: a server on stdio loads no HTTP.
- A listener without other authentication asks for a bearer token, printed once with the URL.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError, InsecureConfigurationError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..transports.stdio import StdioShell
    from .app import Server
    from .core import Core

__all__ = ["HttpServing", "resolve_token", "run_http", "run_stdio", "stdio_shell"]

log = logging.getLogger("garrison.server")

_MIN_TOKEN: Final = 16


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
    from .duplex import DuplexConnection

    shell = StdioShell(reading, writing, core.policy.limits, core.policy.timeouts)
    shell.connect(
        lambda shell: DuplexConnection(
            core,
            shell.send,
            principal="local",
            drain=shell.drain,
            resumed=shell.resume,
            congested=lambda: shell.congested,
        )
    )
    return shell


def resolve_token(server: Server, token: str | None) -> tuple[str | None, bool]:
    """The listener's token, and whether it was made here.

    Raises:
        ConfigurationError: a token that is too short or has characters a header cannot carry.
    """
    reason = server.policy.dangerously_allow_unauthenticated
    given = token or os.environ.get("GARRISON_TOKEN")
    if given is not None:
        if len(given) < _MIN_TOKEN or not all("!" <= c <= "~" for c in given):
            raise ConfigurationError(f"token: at least {_MIN_TOKEN} visible ASCII characters")
        return given, False
    if reason:
        log.warning("policy.relaxed: dangerously_allow_unauthenticated: %s", reason)
        return None, False
    import secrets

    return secrets.token_urlsafe(32), True


def check_address(host: str) -> None:
    """Refuse an address that others can reach: there is no TLS on this listener.

    Raises:
        InsecureConfigurationError: the host is neither `localhost` nor a loopback address.
    """
    if host != "localhost" and not _is_loopback(host):
        raise InsecureConfigurationError(
            f"host={host!r}: plain HTTP is served on loopback only; bind 127.0.0.1 and put a TLS proxy in front"
        )


def _is_loopback(host: str) -> bool:
    import socket

    for family, first in ((socket.AF_INET, b"\x7f"), (socket.AF_INET6, bytes(15) + b"\x01")):
        try:
            return socket.inet_pton(family, host).startswith(first)
        except OSError:
            continue
    return False


class HttpServing:
    """An HTTP listener and the server behind it, while they run.

    Args:
        server: what to serve.
        host, port: where; port 0 lets the system choose.
        token: see `Server.run_http`.
        path: the endpoint.
    """

    def __init__(self, server: Server, host: str, port: int, *, token: str | None = None, path: str = "/mcp") -> None:
        check_address(host)
        if not 0 <= port <= 65535:
            raise ConfigurationError(f"port={port}: 0 to 65535")
        self.server = server
        self._host = host
        self.port = port
        self.path = path
        self.token, self.token_is_new = resolve_token(server, token)

    @property
    def url(self) -> str:
        """The endpoint's URL."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}{self.path}"

    async def start(self) -> None:
        """Start serving.

        Raises:
            OSError: the address cannot be had.
        """
        from ..transports.http.edge import HttpListener
        from .site import HttpSite

        policy = self.server.policy
        import asyncio

        self._site = HttpSite(self.server, path=self.path, token=self.token, loop=asyncio.get_running_loop())
        self._core = self._site.core
        self.legacy = self._site.legacy
        await self._core.start()
        self.listener = HttpListener(self._site.application, policy.limits, policy.timeouts)
        try:
            self.port = await self.listener.start(self._host, self.port)
        except (OSError, ConfigurationError):
            await self._core.close()
            raise

    async def __aenter__(self) -> HttpServing:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let what runs end, then stop."""
        self.listener.stop()
        await self._core.close()
        self._site.close_sessions()
        await self.listener.close(min(1.0, self.server.policy.timeouts.shutdown))


def run_http(
    server: Server,
    host: str,
    port: int,
    *,
    token: str | None = None,
    path: str = "/mcp",
    announce: Callable[[HttpServing], None] | None = None,
) -> None:
    """Serve HTTP until interrupted; `announce` is called once the listener is open."""
    import asyncio
    import signal

    serving = HttpServing(server, host, port, token=token, path=path)

    async def main() -> None:
        await serving.start()
        (announce or announce_on_stderr)(serving)
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                loop.add_signal_handler(number, stop.set)
            except (NotImplementedError, RuntimeError, ValueError):
                continue  # not the main thread, or not this platform
        try:
            await stop.wait()
        finally:
            await serving.close()

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
    print(f"Serving MCP at {serving.url}", file=sys.stderr)  # noqa: T201 - the launching terminal is the reader
    if serving.token_is_new:
        print(f"Token: {serving.token}", file=sys.stderr, flush=True)  # noqa: T201 - shown once, as notebooks do
