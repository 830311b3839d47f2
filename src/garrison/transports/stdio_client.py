"""A server started as a child process, spoken to over its standard streams.

Rules of this file:
- The program is started from a list of arguments, never through a shell, in a process group of its own, without any
  file descriptor but its three streams, and with only the named part of this process's environment.
- Lines from standard output are framed and capped by `LineReader`; standard error is kept in a small ring and never
  parsed.
- Ending is: close standard input, wait, SIGTERM to the group, wait, SIGKILL to the group.
- Every start has its own `_Child`, so that nothing late from an old process reaches the new one.

Spec: 2026-07-28 basic/transports/stdio.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Final, cast

from ..errors import ConfigurationError, ConnectionFailed, ConnectionLost
from ..protocol.lines import LineReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..policy import Limits, Timeouts
    from ..protocol.lines import TooLong

__all__ = ["INHERITED", "StdioProcess"]

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
"""Environment variables a child inherits; everything else is given by `env`."""

_STDERR_KEPT: Final = 64 * 1024
_DRAIN: Final = 0.5
"""Seconds that the last output of an ended process is waited for."""


class StdioProcess:
    """Starts the program, and again after it ended.

    Args:
        argv: program and arguments.
        env: environment variables beside `INHERITED`.
        cwd: the directory to start in; this process's own by default.
        limits, timeouts: `message_bytes`, `outbound_bytes`, `shutdown` apply.
        on_line: gets each line of standard output, or the marker of one that was too long.
        on_lost: is called once for each start, when the process or its output ended without `aclose`.
        on_stderr: gets what the process writes on standard error, as it comes.

    Raises:
        ConfigurationError: `argv` is not a list of strings.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        limits: Limits,
        timeouts: Timeouts,
        on_line: Callable[[bytes | TooLong], None],
        on_lost: Callable[[ConnectionLost], None],
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> None:
        # Callers without a type checker pass anything; a lone string would be taken apart into characters.
        items = cast("Sequence[object]", argv)
        if isinstance(argv, str) or not items or not all(type(part) is str and "\0" not in part for part in items):
            raise ConfigurationError("a local server is given as a list of strings: the program and its arguments")
        self._argv = tuple(argv)
        self._env = {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(env or {})
        self._cwd = cwd
        self.limits = limits
        self.timeouts = timeouts
        self.on_line = on_line
        self.on_lost = on_lost
        self.on_stderr = on_stderr
        self._child: _Child | None = None
        self._stderr = bytearray()

    @property
    def running(self) -> bool:
        """True while the process takes messages."""
        return self._child is not None and self._child.alive

    @property
    def stderr(self) -> str:
        """The last 64 KiB of standard error, of all starts."""
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
        loop = asyncio.get_running_loop()
        try:
            _, self._child = await loop.subprocess_exec(
                lambda: _Child(self),
                *self._argv,
                env=self._env,
                cwd=self._cwd,
                start_new_session=sys.platform != "win32",
            )
        except (OSError, ValueError) as exc:
            reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
            raise ConnectionFailed(f"{self._argv[0]}: {reason}") from exc

    def write(self, line: bytes) -> asyncio.Future[None] | None:
        """Writes one message. Returns what to wait for before writing more, or None when there is room.

        Raises:
            ConnectionLost: the process does not run.
        """
        if self._child is None or not self._child.alive:
            raise ConnectionLost("The server process is not running")
        return self._child.write(line)

    async def aclose(self) -> None:
        """Ends the process, within about twice `Timeouts.shutdown`."""
        child = self._child
        if child is not None:
            await child.end(self.timeouts.shutdown)

    def keep_stderr(self, data: bytes) -> None:
        """Adds to the ring."""
        self._stderr += data
        if len(self._stderr) > _STDERR_KEPT:
            del self._stderr[:-_STDERR_KEPT]
        if self.on_stderr is not None:
            self.on_stderr(data)


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
        self._timer: asyncio.TimerHandle | None = None
        self.alive = True

    def write(self, line: bytes) -> asyncio.Future[None] | None:
        if self._stdin is not None:
            self._stdin.write(line + b"\n")
        # Shielded: the one future serves every writer, and one that gives up must not end the others' wait.
        return asyncio.shield(self._room) if self._room is not None else None

    async def end(self, patience: float) -> None:
        """Closes the input, waits, and takes stronger means until the process is gone."""
        self._ending = True
        self._over("The client closed the connection")
        transport = self._transport
        if transport is None:
            return
        if self._stdin is not None:
            self._stdin.close()
        try:
            for signal in (None, "SIGTERM", "SIGKILL"):
                if signal is not None:
                    self._signal(signal)
                if await self._gone_within(patience if signal != "SIGKILL" else 1.0):
                    break
        finally:
            if not self._exited.done():
                self._signal("SIGKILL")
            # Children that the server started and left behind belong to its group.
            self._signal("SIGKILL", group_only=True)
            transport.close()

    async def _gone_within(self, seconds: float) -> bool:
        if not self._exited.done() and seconds > 0:
            await asyncio.wait((self._exited,), timeout=seconds)
        return self._exited.done()

    def _signal(self, name: str, *, group_only: bool = False) -> None:
        import signal  # lazy: only an ending process needs it

        transport = self._transport
        if transport is None:
            return
        try:
            if sys.platform != "win32":
                os.killpg(transport.get_pid(), getattr(signal, name))
            elif not group_only:
                transport.terminate()
        except (ProcessLookupError, PermissionError):
            pass

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
        if fd == 1:
            rest = self._lines.close() if self.alive else None
            if rest is not None:
                self._owner.on_line(rest)
            self._over("The server process closed its output")
        elif fd == 0:
            self.resume_writing()
            if self._timer is None and self.alive:
                # What the server wrote before it stopped reading may still be in the pipe.
                self._timer = asyncio.get_running_loop().call_later(
                    _DRAIN, self._over, "The server process stopped reading"
                )

    def process_exited(self) -> None:
        if not self._exited.done():
            self._exited.set_result(None)
        code = self._transport.get_returncode() if self._transport is not None else None
        # A grandchild may hold the pipe open, so its end is not waited for without bound.
        if self.alive:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(
                _DRAIN, self._over, f"The server process ended (exit code {code})"
            )

    def pause_writing(self) -> None:
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
