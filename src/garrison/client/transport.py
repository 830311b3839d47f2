"""What a client needs of a transport, and the transports that are one channel in both directions.

Rules of this file:
- A transport carries bytes; it does not read messages. `Link` correlates, times and decodes.
- `send` writes at once where it can and then returns None; only where it must wait it returns something to await.
- Every `Call` ends once: `Receiver` hears an answer in `receive`, or `fail` for it, or `lost` for all of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from .. import events
from ..errors import ConnectionLost
from ..protocol.lines import TOO_LONG
from ..transports.stdio_client import StdioProcess
from .starting import starter_for
from .words import said, said_lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..errors import ClientError
    from ..policy import Limits, Timeouts
    from ..protocol.envelope import Notification
    from ..protocol.lines import TooLong
    from ..protocol.types import ProgressParams
    from .launching import Launch

__all__ = ["Call", "ClientTransport", "MemoryChannel", "MemoryTransport", "OneChannel", "Receiver", "StdioTransport"]


_STDERR: Final = 64 * 1024
_SAID: Final = 300
"""Characters of standard error that stand in an error."""


class Call:
    """One request under way."""

    __slots__ = (
        "body",
        "deadline",
        "future",
        "handle",
        "headers",
        "id",
        "latest",
        "method",
        "name",
        "on_event",
        "on_progress",
        "safe",
        "size",
        "stream",
        "timeout",
    )

    def __init__(
        self,
        id: int,
        method: str,
        body: bytes,
        future: asyncio.Future[dict[str, object]],
        *,
        timeout: float,
        name: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        safe: bool = False,
        stream: bool = False,
        on_progress: Callable[[ProgressParams], object] | None = None,
        on_event: Callable[[Notification], None] | None = None,
    ) -> None:
        self.id = id
        self.method = method
        self.body = body
        self.future = future
        self.timeout = timeout
        """Seconds without a sign of life; infinite for a subscription."""
        self.deadline = 0.0
        """Loop time at which the call is given up."""
        self.latest = 0.0
        """Loop time past which no sign of life moves the deadline."""
        self.name = name
        """What the HTTP header `Mcp-Name` repeats."""
        self.headers = headers
        """Further HTTP headers, values encoded already."""
        self.safe = safe
        """True when sending it twice changes nothing."""
        self.stream = stream
        """True for a subscription: its response is open-ended."""
        self.on_progress = on_progress
        self.on_event = on_event
        self.handle: object = None
        """The transport's own note about this call."""
        self.size = 0
        """Bytes of the answer."""


class Receiver(Protocol):
    """The other end of a transport: hears everything that arrives."""

    def receive(self, data: bytes, call: Call | None) -> None:
        """One message. `call` is given when it came on the stream of that call alone."""
        ...

    def too_large(self) -> None:
        """A message over the limit was dropped on the shared channel."""
        ...

    def refused(self, call: Call, status: int, body: bytes) -> None:
        """An HTTP error status answered this call."""
        ...

    def fail(self, call: Call, error: ClientError) -> None:
        """This call will get no answer."""
        ...

    def lost(self, error: ConnectionLost) -> None:
        """No call under way will get an answer."""
        ...


class ClientTransport(Protocol):
    """One way to reach one server."""

    @property
    def http(self) -> bool:
        """True where the header rules of Streamable HTTP apply."""
        ...

    @property
    def session(self) -> str | None:
        """The session that the server made, if any (2025 revisions over HTTP)."""
        ...

    @property
    def credential(self) -> int:
        """Another number whenever another credential is sent than before."""
        ...

    @property
    def down(self) -> bool:
        """True when the connection ended and `open` would make a new one."""
        ...

    def attach(self, receiver: Receiver) -> None:
        """Says who hears. Called once, before `open`."""
        ...

    async def open(self) -> None:
        """Makes ready to send. Raises `ConnectionFailed`."""
        ...

    def agree(self, version: str, *, modern: bool) -> None:
        """Tells the revision that is spoken from now on."""
        ...

    def greeted(self, call: Call) -> None:
        """Tells that this `initialize` was answered well. Raises `ProtocolViolation`."""
        ...

    def listen(self) -> Awaitable[None] | None:
        """Tells that the handshake is over. What is returned ends when what the server says unasked can be heard."""
        ...

    def send(self, call: Call) -> Awaitable[None] | None:
        """Sends a request."""
        ...

    def post(self, message: bytes) -> Awaitable[None] | None:
        """Sends a notification, or the answer to a server's request."""
        ...

    def cancel(self, call: Call) -> bool:
        """Stops waiting for a call. False when the server must be told by a notification."""
        ...

    async def aclose(self) -> None:
        """Ends everything. May be called twice."""
        ...


class MemoryChannel(Protocol):
    """A channel to a server in this process, as its `connect_memory` returns it."""

    on_message: Callable[[bytes], None]

    def send(self, data: bytes) -> None:
        """Gives the server one message."""
        ...

    async def close(self) -> None:
        """Ends the connection."""
        ...


class OneChannel:
    """Base of transports that are one channel in both directions, where a revision or a handshake changes nothing."""

    http = False
    session: str | None = None
    credential = 0

    def agree(self, version: str, *, modern: bool) -> None:
        pass

    def greeted(self, call: Call) -> None:
        pass

    def listen(self) -> Awaitable[None] | None:
        return None

    def cancel(self, call: Call) -> bool:
        return False


class MemoryTransport(OneChannel):
    """A server in this process."""

    down = False

    def __init__(self, connect: Callable[[], Awaitable[MemoryChannel]]) -> None:
        self._connect = connect
        self._channel: MemoryChannel | None = None
        self._receiver: Receiver | None = None

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def open(self) -> None:
        self._channel = await self._connect()
        self._channel.on_message = self._arrived

    def send(self, call: Call) -> Awaitable[None] | None:
        return self.post(call.body)

    def post(self, message: bytes) -> Awaitable[None] | None:
        if self._channel is None:
            raise ConnectionLost("The connection is closed")
        self._channel.send(message)
        return None

    async def aclose(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _arrived(self, message: bytes) -> None:
        if self._receiver is not None and self._channel is not None:
            self._receiver.receive(message, None)


class StdioTransport(OneChannel):
    """A server started as a child process. See `StdioProcess` and `Launch`."""

    restart_window = 600.0
    """Seconds within which `Conversation` starts it only so many times."""

    def __init__(
        self,
        launch: Launch,
        *,
        limits: Limits,
        timeouts: Timeouts,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> None:
        self.process = StdioProcess(
            starter_for(launch, timeouts),
            limits=limits,
            timeouts=timeouts,
            stderr=launch.stderr,
            on_line=self._line,
            on_lost=self._lost,
            on_stderr=on_stderr,
            on_flood=self._flooded,
        )
        self.name = launch.name
        self._launch = launch
        self._receiver: Receiver | None = None
        self._starts = 0

    @property
    def down(self) -> bool:
        return not self.process.running

    @property
    def stderr(self) -> str:
        """The last 64 KiB of standard error, of all starts, with hidden characters written out."""
        return said_lines(self.process.stderr, _STDERR)

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def open(self) -> None:
        if not self.process.running:
            await self.process.start()
            self._starts += 1
            if self._starts > 1:
                self._record("server.restarted", "was started again", decision="noted")

    def send(self, call: Call) -> Awaitable[None] | None:
        return self.process.write(call.body)

    def post(self, message: bytes) -> Awaitable[None] | None:
        return self.process.write(message)

    async def aclose(self) -> None:
        await self.process.aclose()

    def _line(self, line: bytes | TooLong) -> None:
        if self._receiver is None:
            return
        if line is TOO_LONG:
            self._receiver.too_large()
        elif isinstance(line, bytes):
            self._receiver.receive(line, None)

    def _lost(self, error: ConnectionLost) -> None:
        lines = self.process.stderr[-_SAID:].splitlines()
        wrote = "\n".join(line for line in lines if line.strip())
        if self._receiver is not None:
            # Its own words are the best hint at what is wrong with it.
            self._receiver.lost(ConnectionLost(f"{error}; it wrote: {said(wrote, _SAID)}") if wrote else error)

    def _flooded(self) -> None:
        self._record("launch.limited", "writes too much on standard error: the rest is dropped", "Launch.stderr")

    def _record(self, name: str, what: str, setting: str = "", decision: str = "") -> None:
        launch = self._launch
        about = events.Event(name, server=launch.name, target=launch.command[0])
        text = f"{launch.name or launch.command[0]} {what}"
        events.record(name, text, setting=setting, decision=decision, about=about)
