"""A program that is spoken with for long, started through the supervisor: what asyncio's subprocesses are, and held.

    transport = await start_held(plan, child)      # `child` is an `asyncio.SubprocessProtocol`

Rules of this file:
- The three streams are pipes between this process and the program; nothing that is said passes the supervisor.
- The control connection is the leash. It is closed with the transport and with this process, and then all that came of
  the program is ended, and its folder removed.
- `process_exited` is called once, when nothing of the program is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING, cast

from .process import Channels, CommandFailed, supervise, to_the_end

if TYPE_CHECKING:
    from .process import Plan

__all__ = ["HeldTransport", "start_held"]


async def start_held(plan: Plan, child: asyncio.SubprocessProtocol) -> HeldTransport:
    """Start a program.

    Args:
        plan: with `report`.
        child: is told what happens, as by `loop.subprocess_exec`.

    Returns:
        The program, running.

    Raises:
        CommandFailed: it did not start. Its folder is gone.
    """
    transport = HeldTransport(child)
    try:
        channels = Channels(feeding=True)
        supervise(channels)
        await transport.open(channels, plan.encoded())
    except BaseException:
        transport.close()
        if plan.folder is not None:
            with contextlib.suppress(OSError):  # once the program has put something there, the supervisor has it
                os.rmdir(plan.folder)
        raise
    return transport


class HeldTransport(asyncio.SubprocessTransport):
    """A running program: its streams, and the means to end it."""

    def __init__(self, child: asyncio.SubprocessProtocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._socket: socket.socket | None = None
        self._control: asyncio.WriteTransport | None = None
        self._pipes: dict[int, asyncio.BaseTransport] = {}
        self._said = bytearray()
        self._started: asyncio.Future[int] = self._loop.create_future()
        self._pid = 0
        self._status: int | None = None
        self._closed = False
        self.passed = ""
        """The bound that ended it: `processes` or `memory`; empty for none."""

    async def open(self, channels: Channels, plan: bytes) -> None:
        """Connect the streams, give the plan, and wait until the program has started."""
        self._socket = channels.control
        await to_the_end(self._connect(channels, plan))
        self._pid = await self._started

    async def _connect(self, channels: Channels, plan: bytes) -> None:
        loop = self._loop
        waiting = {fd: os.fdopen(each, "rb", 0) for fd, each in ((1, channels.stdout), (2, channels.stderr))}
        sink = [os.fdopen(cast("int", channels.stdin), "wb", 0)]
        try:
            for fd in (1, 2):
                transport, _ = await loop.connect_read_pipe(
                    lambda fd=fd: _Source(self, self._child, fd), waiting.pop(fd)
                )
                self._pipes[fd] = transport
            self._pipes[0], _ = await loop.connect_write_pipe(lambda: _Sink(self, self._child), sink.pop())
            self._child.connection_made(self)
            control, _ = await loop.create_unix_connection(lambda: _Control(self), sock=channels.control)
            self._control = cast("asyncio.WriteTransport", control)
            self._control.write(plan)
        finally:
            for file in (*waiting.values(), *sink):
                file.close()
            if self._control is None:
                channels.control.close()

    # What the supervisor says.

    def heard(self, data: bytes) -> None:
        """Take a part of its answers."""
        self._said += data
        *lines, rest = self._said.split(b"\n")
        self._said = bytearray(rest)
        for line in lines:
            try:
                answer = cast("dict[str, object]", json.loads(line))
            except ValueError:
                continue
            pid, status, failed = (answer.get(name) for name in ("started", "status", "failed"))
            if type(pid) is int and not self._started.done():
                self._started.set_result(pid)
            elif type(status) is int:
                self._status, self.passed = status, str(answer.get("passed", ""))
            elif failed is not None and not self._started.done():
                self._started.set_exception(CommandFailed(str(failed)))

    def lost(self) -> None:
        """Take its end: nothing of the program is left."""
        if self._started.done():
            if not self._started.cancelled() and self._started.exception() is None:
                self._child.process_exited()
        else:
            self._started.set_exception(CommandFailed("its supervisor was lost"))

    def pipe_lost(self, fd: int, exc: Exception | None) -> None:
        """Take the end of a stream."""
        self._pipes.pop(fd, None)
        self._child.pipe_connection_lost(fd, exc)

    # What asyncio's subprocesses have.

    def get_pid(self) -> int:
        return self._pid

    def get_returncode(self) -> int | None:
        """The exit status; the negated signal where one ended it."""
        return self._status

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None:
        return self._pipes.get(fd)

    def terminate(self) -> None:
        """SIGTERM for the program's process group."""
        self._order(b"t")

    def kill(self) -> None:
        """End the program and all that came of it."""
        self._order(b"k")

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Let go of the leash and the streams."""
        self._closed = True
        self._started.cancel()
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it is closed
                self._socket.shutdown(socket.SHUT_RDWR)  # for a fork of this process that has it too
        for pipe in tuple(self._pipes.values()):
            if isinstance(pipe, asyncio.WriteTransport):
                if not pipe.is_closing() or pipe.get_write_buffer_size():  # else it ends already, and does so once
                    pipe.abort()
            else:
                pipe.close()
        if self._control is not None:
            self._control.abort()

    def _order(self, order: bytes) -> None:
        if self._control is not None and not self._control.is_closing():
            self._control.write(order)


class _Control(asyncio.Protocol):
    """The supervisor's side of the leash."""

    def __init__(self, transport: HeldTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.heard(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.lost()


class _Source(asyncio.Protocol):
    """What the program writes on one descriptor."""

    def __init__(self, transport: HeldTransport, child: asyncio.SubprocessProtocol, fd: int) -> None:
        self._transport = transport
        self._child = child
        self._fd = fd

    def data_received(self, data: bytes) -> None:
        self._child.pipe_data_received(self._fd, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.pipe_lost(self._fd, exc)


class _Sink(asyncio.BaseProtocol):
    """What the program reads."""

    def __init__(self, transport: HeldTransport, child: asyncio.SubprocessProtocol) -> None:
        self._transport = transport
        self._child = child

    def pause_writing(self) -> None:
        self._child.pause_writing()

    def resume_writing(self) -> None:
        self._child.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.pipe_lost(0, exc)
