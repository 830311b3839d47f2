"""A server that runs as a child process, spoken to over its standard streams.

Rules of this file:
- How the program is started and held is the `Starter`'s. `PlainStarter` is the one that every system has.
- Lines from standard output are framed and capped by `LineReader`; standard error is taken up to a rate, kept in a
  small ring and never parsed. Both are always read, so that no program waits for this process.
- Ending is: close standard input, wait, SIGTERM to the group, wait, SIGKILL to all of it.
- Every start has its own `_Child`, so that nothing late from an old process reaches the new one.

Spec: 2026-07-28 basic/transports/stdio.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Final, Protocol, cast

from ..errors import ConnectionFailed, ConnectionLost
from ..protocol.lines import LineReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..policy import Limits, Timeouts
    from ..protocol.lines import TooLong

__all__ = ["INHERITED", "PlainStarter", "Starter", "StdioProcess"]

INHERITED: Final = (
    ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
    if sys.platform != "win32"
    else (
        "APPDATA",
        "HOMEDRIVE",
        "HOMEPATH",
        "LOCALAPPDATA",
        "PATH",
        "PATHEXT",
        "PROCESSOR_ARCHITECTURE",
        "PROGRAMFILES",
        "SYSTEMDRIVE",
        "SYSTEMROOT",
        "TEMP",
        "TMP",
        "USERNAME",
        "USERPROFILE",
    )
)
"""Environment variables a child inherits; everything else is given to it."""

_STDERR_KEPT: Final = 64 * 1024
_WINDOW: Final = 60.0
"""Seconds for which the cap on standard error holds."""
_DRAIN: Final = 0.5
"""Seconds that the last output of an ended process is waited for."""
_LAST: Final = 1.0
"""Seconds that the end of a killed process is waited for."""


class Starter(Protocol):
    """Starts a program, any number of times."""

    async def start(self, child: asyncio.SubprocessProtocol) -> asyncio.SubprocessTransport:
        """Starts it. Raises `ConnectionFailed`."""
        ...

    def signal(self, transport: asyncio.SubprocessTransport, name: str) -> None:
        """Sends SIGTERM to its group, or SIGKILL to all that came of it."""
        ...

    def ending(self, transport: asyncio.SubprocessTransport) -> str:
        """Says how it ended."""
        ...

    def over(self, transport: asyncio.SubprocessTransport) -> None:
        """Gives back what this start had; called once, when it is ended."""
        ...


class PlainStarter:
    """Starts a program from a list of arguments, in a process group of its own, with nothing open but its streams.

    Args:
        argv: program and arguments.
        env: all of its environment.
        cwd: the directory to start in; this process's own by default.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str | os.PathLike[str] | None = None
    ) -> None:
        self._argv = tuple(argv)
        self._env = dict(env)
        self._cwd = cwd

    async def start(self, child: asyncio.SubprocessProtocol) -> asyncio.SubprocessTransport:
        """Starts it.

        Raises:
            ConnectionFailed: it could not be started.
        """
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: child,
                *self._argv,
                env=self._env,
                cwd=self._cwd,
                start_new_session=sys.platform != "win32",
            )
        except (OSError, ValueError) as exc:
            reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
            raise ConnectionFailed(f"{self._argv[0]}: {reason}") from exc
        return transport

    def signal(self, transport: asyncio.SubprocessTransport, name: str) -> None:
        """Sends a signal to its group."""
        import signal  # lazy: only an ending process needs it

        try:
            if sys.platform != "win32":
                os.killpg(transport.get_pid(), getattr(signal, name))
            else:
                transport.terminate()
        except (ProcessLookupError, PermissionError):
            pass

    def ending(self, transport: asyncio.SubprocessTransport) -> str:
        """Says how it ended."""
        return f"The server process ended (exit code {transport.get_returncode()})"

    def over(self, transport: asyncio.SubprocessTransport) -> None:
        """There is nothing to be given back."""


class StdioProcess:
    """Starts the program, and again after it ended.

    Args:
        starter: starts it.
        limits, timeouts: `message_bytes`, `outbound_bytes`, `shutdown` apply.
        stderr: bytes of standard error that are taken a minute.
        on_line: gets each line of standard output, or the marker of one that was too long.
        on_lost: is called once for each start, when the process or its output ended without `aclose`.
        on_stderr: gets what the process writes on standard error, as it comes.
        on_flood: is called when standard error passes its rate, once a minute at most.
    """

    def __init__(
        self,
        starter: Starter,
        *,
        limits: Limits,
        timeouts: Timeouts,
        stderr: int,
        on_line: Callable[[bytes | TooLong], None],
        on_lost: Callable[[ConnectionLost], None],
        on_stderr: Callable[[bytes], None] | None = None,
        on_flood: Callable[[], None] | None = None,
    ) -> None:
        self.starter = starter
        self.limits = limits
        self.timeouts = timeouts
        self.on_line = on_line
        self.on_lost = on_lost
        self.on_stderr = on_stderr
        self.on_flood = on_flood
        self.dropped = 0
        """Bytes of standard error that came above the rate."""
        self._child: _Child | None = None
        self._closed = False
        self._stderr = bytearray()
        self._rate = stderr
        self._taken = 0
        self._window = -_WINDOW

    @property
    def running(self) -> bool:
        """True while the process takes messages."""
        return self._child is not None and self._child.alive

    @property
    def stderr(self) -> str:
        """The last 64 KiB of standard error, of all starts: untrusted text."""
        return self._stderr.decode("utf-8", "replace")

    async def start(self) -> None:
        """Starts the program, unless it runs.

        Raises:
            ConnectionFailed: it could not be started.
        """
        if self.running:
            return
        if self._child is not None:
            await self._child.end(0.0)
        self._child, child = None, _Child(self)
        try:
            await self.starter.start(child)
        except BaseException:
            child.give_up()
            raise
        if self._closed:
            await child.end(0.0)
            raise ConnectionLost("The client closed the connection")
        self._child = child

    def write(self, line: bytes) -> asyncio.Future[None] | None:
        """Writes one message. Returns what to wait for before writing more, or None when there is room.

        Raises:
            ConnectionLost: the process does not run.
        """
        if self._child is None or not self._child.alive:
            raise ConnectionLost("The server process is not running")
        return self._child.write(line)

    async def aclose(self) -> None:
        """Ends the process for good, within about twice `Timeouts.shutdown`."""
        self._closed = True
        child = self._child
        if child is not None:
            await child.end(self.timeouts.shutdown)

    def keep_stderr(self, data: bytes) -> None:
        """Takes a part of standard error, as far as its rate allows."""
        now = asyncio.get_running_loop().time()
        if now - self._window >= _WINDOW:
            self._window, self._taken = now, 0
        room = self._rate - self._taken
        self._taken += len(data)
        if len(data) > room:
            self.dropped += len(data) - max(0, room)
            if room >= 0 and self.on_flood is not None:  # from here on there is less than no room
                self.on_flood()
            data = data[: max(0, room)]
        if not data:
            return
        self._stderr += data
        if len(self._stderr) > _STDERR_KEPT:
            del self._stderr[:-_STDERR_KEPT]
        if self.on_stderr is not None:
            try:
                self.on_stderr(data)
            except Exception:  # a user's callback must not break the connection that it only listens to
                import logging  # lazy: only what goes wrong needs it

                logging.getLogger("garrison.client").exception("on_stderr= failed")


class _Child(asyncio.SubprocessProtocol):
    """One run of the program."""

    def __init__(self, owner: StdioProcess) -> None:
        loop = asyncio.get_running_loop()
        self._owner = owner
        self._lines = LineReader(owner.limits.message_bytes)
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._room: asyncio.Future[None] | None = None
        self._exited: asyncio.Future[None] = loop.create_future()
        self._ending = False
        self._outputs = {1, 2}
        self._timer: asyncio.TimerHandle | None = None
        self.alive = True

    def write(self, line: bytes) -> asyncio.Future[None] | None:
        if self._stdin is not None and not self._stdin.is_closing():  # where it is, the end is about to be told
            self._stdin.write(line + b"\n")
        # Shielded: the one future serves every writer, and one that gives up must not end the others' wait.
        return asyncio.shield(self._room) if self._room is not None else None

    def give_up(self) -> None:
        """Nobody is told any more of what becomes of it."""
        self._ending = True
        self._over("The client closed the connection")

    async def end(self, patience: float) -> None:
        """Closes the input, waits, and takes stronger means until the process is gone."""
        self.give_up()
        transport = self._transport
        if transport is None:
            return
        if self._stdin is not None:
            self._stdin.close()
        try:
            for signal in (None, "SIGTERM", "SIGKILL"):
                if signal is not None:
                    self._signal(signal)
                if await self._gone_within(patience if signal != "SIGKILL" else _LAST):
                    break
        finally:
            # Once more, for children that the server started and left behind.
            self._signal("SIGKILL")
            transport.close()
            if self._transport is not None:  # nobody else has ended it meanwhile
                self._transport = None
                self._owner.starter.over(transport)

    async def _gone_within(self, seconds: float) -> bool:
        if not self._exited.done() and seconds > 0:
            await asyncio.wait((self._exited,), timeout=seconds)
        return self._exited.done()

    def _signal(self, name: str) -> None:
        if self._transport is not None:
            self._owner.starter.signal(self._transport, name)

    def _over(self, reason: str) -> None:
        """Once, when no more messages can pass."""
        if not self.alive:
            return
        self.alive = False
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        if not self._ending:
            self._owner.on_lost(ConnectionLost(reason))

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)
        stdin = self._transport.get_pipe_transport(0)
        self._stdin = cast("asyncio.WriteTransport", stdin)
        self._stdin.set_write_buffer_limits(high=self._owner.limits.outbound_bytes)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._owner.keep_stderr(data)
        elif self.alive:
            deliver = self._owner.on_line
            for line in self._lines.feed(data):
                deliver(line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._outputs.discard(fd)
        if fd == 1:
            rest = self._lines.close() if self.alive else None
            if rest is not None:
                self._owner.on_line(rest)
            self._over_soon("The server process closed its output")
        elif fd == 0:
            self.resume_writing()
            if self._timer is None:
                self._over_soon("The server process stopped reading")
        elif self._exited.done():
            self._over_soon(self._how_it_ended())

    def process_exited(self) -> None:
        if not self._exited.done():
            self._exited.set_result(None)
        self._over_soon(self._how_it_ended())

    def _how_it_ended(self) -> str:
        return "" if self._transport is None else self._owner.starter.ending(self._transport)

    def _over_soon(self, reason: str) -> None:
        """At once where all is known; else shortly: the last output may still be in a pipe, or a better reason come."""
        if not self.alive:
            return
        if self._exited.done():
            reason = self._how_it_ended()
            if not self._outputs:
                self._over(reason)
                return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_DRAIN, self._over, reason)

    def pause_writing(self) -> None:
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
