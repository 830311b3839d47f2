"""uvicorn on the event loop that runs, for applications of ASGI.

Rules of this file:
- uvicorn looks every tenth of a second whether it goes on; here ten times as often, for tests end hundreds of hosts.
- Its listener sends small packets at once, as asyncio does only for sockets that say that they are TCP.
- Signals belong to whoever runs the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import uvicorn
import uvicorn.server

__all__ = ["Host"]

uvicorn.server.asyncio = SimpleNamespace(  # type: ignore[attr-defined]
    **{**vars(asyncio), "sleep": lambda seconds: asyncio.sleep(seconds / 10)}
)


class Host(uvicorn.Server):
    """An application at a port of 127.0.0.1.

    Args:
        app: what is served.
        options: those of `uvicorn.Config`.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        options = {"log_level": "critical", "ws": "none", "timeout_graceful_shutdown": 1, **options}
        super().__init__(uvicorn.Config(app, **options))
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def begin(self, port: int = 0) -> int:
        """Listen, start the application, and give the port: a free one, or the one that is asked for."""
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(128)
        self._running = asyncio.create_task(self.serve(sockets=[self._listener]))
        while not self.started and not self._running.done():
            await asyncio.sleep(0.005)
        return self._listener.getsockname()[1]

    async def end(self) -> None:
        """Stop."""
        self.should_exit = True
        try:
            await self._running
        finally:
            self._listener.close()
