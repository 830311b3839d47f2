"""A Unix socket, the client's transport: one message per line, as on stdio.

Rules of this file:
- Nothing is sent before it is known whose server it is; `transports/unix.py` sees to that.
- A line over the limit is dropped as it arrives, and the next one is served.

Spec: 2026-07-28 basic/transports/stdio for the framing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..protocol.lines import TOO_LONG, LineReader
from ..transports.outgoing import Outgoing
from ..transports.unix import connect
from .sockets import SocketTransport

if TYPE_CHECKING:
    from ..policy import Limits, Timeouts
    from ..policy.transports import UnixSocketConfig

__all__ = ["UnixTransport"]


class UnixTransport(SocketTransport):
    """A server that listens on a Unix socket.

    Args:
        config: where it is, and whose it may be.
        limits, timeouts: the client's policy.
    """

    def __init__(self, config: UnixSocketConfig, *, limits: Limits, timeouts: Timeouts) -> None:
        super().__init__(f"unix:{config.path}", limits=limits, timeouts=timeouts)
        self._config = config

    async def connect(self) -> Outgoing:
        sock = connect(self._config)
        try:
            _, connection = await asyncio.get_running_loop().create_unix_connection(lambda: _Lines(self), sock=sock)
        except BaseException:  # whatever ended the attempt, its socket must not outlive it
            sock.close()
            raise
        return connection


class _Lines(Outgoing):
    """One connection. Made when the server is known."""

    def __init__(self, owner: UnixTransport) -> None:
        super().__init__(limits=owner.limits, timeouts=owner.timeouts, on_lost=owner.lost)
        self._owner = owner
        self._lines = LineReader(owner.limits.message_bytes)
        self.alive = True

    def put(self, message: bytes) -> None:
        self.write(message + b"\n")

    def data_received(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            if not self.alive:
                return
            if line is TOO_LONG:
                self._owner.too_large()
            elif isinstance(line, bytes):
                self._owner.receive(line)
