"""Running one program: started through the supervisor, fed, read up to a number of bytes, and ended in time.

Rules of this file:
- One helper process is kept for all commands (`supervisor.serve`), started with the first of them and ended with this
  process. Everything between fork and exec happens there, where there are no threads, and costs no start of Python.
- A helper serves the process, user and groups that started it. After a fork, or a change of user, there is a new one.
- What came of a program is gone when `run_process` returns or raises, whatever the reason; the control connection is
  the leash, and breaks with this process too.
- Never more than the caps is kept. Standard output that is full ends the program; of standard error, the end is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from ..errors import ConfigurationError, GarrisonError

__all__ = [
    "Channels",
    "CommandFailed",
    "Outcome",
    "Plan",
    "check_platform",
    "missing",
    "run_process",
    "supervise",
    "to_the_end",
]

_GRACE: Final = 0.3
_ENDING: Final = 3.0
"""Seconds that the end of an ended tree is waited for."""
_DRAIN: Final = 0.5
"""Seconds that the last output of an ended program is waited for."""
_ANSWER: Final = 4096

# The safe folder as a package of its own: the helper loads two files and none of the rest.
_HELPER: Final = (
    "import sys, types; package = types.ModuleType('garrison_safe'); package.__path__ = [sys.argv[1]]; "
    "sys.modules['garrison_safe'] = package; from garrison_safe.supervisor import serve; serve(int(sys.argv[2]))"
)


class CommandFailed(GarrisonError):
    """The program could not be started, or its supervisor was lost. What went wrong is for the log."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is started, and how."""

    program: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: str
    limits: Mapping[str, int]
    """By the names of `resource`: "RLIMIT_CORE"."""
    sandbox: Mapping[str, object] | None
    """Arguments of `landlock.confine`."""
    grace: float = _GRACE
    """Seconds between SIGTERM and SIGKILL."""
    bounds: Mapping[str, int] | None = None
    """Of the whole tree: `processes`, and bytes of `memory`. Linux."""
    folder: str | None = None
    """A folder that is removed when all is over."""
    report: bool = False
    """Whether the supervisor says that the program has started."""

    def encoded(self) -> bytes:
        """With its length before it, as the supervisor reads it."""
        body = json.dumps({name: _plain(getattr(self, name)) for name in self.__slots__}).encode()
        return struct.pack("!I", len(body)) + body


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went."""

    status: int
    """The exit status; the negated signal where one ended it."""
    stdout: bytes
    stderr: bytes
    truncated: bool
    timed_out: bool


def check_platform() -> None:
    """Raise `ConfigurationError` where programs cannot be held."""
    if lack := missing():
        raise ConfigurationError(f"SafeCommand needs {lack}")


def missing() -> str:
    """What this system lacks to hold programs; empty where it has all."""
    if not hasattr(socket, "send_fds"):
        return "a POSIX system: it passes file descriptors over Unix sockets"
    if sys.platform == "linux" and not os.path.exists("/proc/self/stat"):
        return "/proc, to find every process that a program leaves"
    if not sys.executable or getattr(sys, "frozen", False):
        return "the Python interpreter that runs this program (sys.executable)"
    return ""


def supervise(channels: Channels) -> None:
    """Have a new supervisor at the other ends of these channels, which are closed here. It waits for a plan.

    Raises:
        CommandFailed: there is none to be had.
    """
    try:
        _helper.start(channels.theirs)
    except OSError as exc:
        channels.close()
        raise CommandFailed(f"the helper process: {exc.strerror}") from exc
    except BaseException:
        channels.close()
        raise
    finally:
        channels.close_theirs()


async def to_the_end(work: Coroutine[object, object, None]) -> None:
    """Do this whole, and be cancelled after it. For descriptors that are handed to the loop: half way, they have two
    owners, and what the second one closes may be somebody else's by then.
    """
    task = asyncio.ensure_future(work)
    stopped: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as exc:
            stopped = exc
    if stopped is not None:
        if not task.cancelled():
            task.exception()  # marks it as seen
        raise stopped
    task.result()


async def run_process(plan: Plan, stdin: bytes, *, timeout: float, max_output: int, max_errors: int) -> Outcome:
    """Run a program until it, its time or its room for output ends; then nothing of it is left.

    Args:
        plan: what to run.
        stdin: its input; empty for none.
        timeout: seconds in all.
        max_output, max_errors: bytes kept of standard output and standard error.

    Raises:
        CommandFailed: it did not start.
    """
    ends = Channels(feeding=bool(stdin))
    supervise(ends)
    run = _Run(ends)
    timed_out = False
    try:
        await to_the_end(run.open(stdin, max_output, max_errors))
        try:
            async with asyncio.timeout(timeout):
                await run.talk(plan.encoded())
        except TimeoutError:
            timed_out = True
        await run.end()
    finally:
        await run.close()
    return run.outcome(timed_out)


class Channels:
    """The four channels of a program: control, input, output, errors. Ours and theirs."""

    def __init__(self, *, feeding: bool) -> None:
        self.stdin: int | None = None
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            try:
                self.control, control = socket.socketpair()
                ours.callback(self.control.close)
                theirs.callback(control.close)
                self.control.setblocking(False)
                if feeding:
                    stdin, self.stdin = os.pipe()
                    ours.callback(os.close, self.stdin)
                else:
                    stdin = os.open(os.devnull, os.O_RDONLY)
                theirs.callback(os.close, stdin)
                self.stdout, stdout = os.pipe()
                ours.callback(os.close, self.stdout)
                theirs.callback(os.close, stdout)
                self.stderr, stderr = os.pipe()
                ours.callback(os.close, self.stderr)
                theirs.callback(os.close, stderr)
            except OSError as exc:
                raise CommandFailed(f"channels: {exc.strerror}") from exc
            self.theirs = (control.fileno(), stdin, stdout, stderr)
            self.close = ours.pop_all().close
            self.close_theirs = theirs.pop_all().close


class _Run:
    """One command under way."""

    def __init__(self, ends: Channels) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends = ends
        self._answer = bytearray()
        self._answered = False
        self._transports: list[asyncio.BaseTransport] = []
        self._source = _Source()
        self._output = _Output(0, self._order)
        self._errors = _Errors(0)

    async def open(self, stdin: bytes, max_output: int, max_errors: int) -> None:
        """Connect the streams to the loop. What it did not take over, it closes."""
        self._output = _Output(max_output, self._order)
        self._errors = _Errors(max_errors)
        ends = self._ends
        waiting = [os.fdopen(ends.stderr, "rb", 0), os.fdopen(ends.stdout, "rb", 0)]
        if ends.stdin is not None:
            waiting.insert(0, os.fdopen(ends.stdin, "wb", 0))
        try:
            for reader in (self._output, self._errors):
                transport, _ = await self._loop.connect_read_pipe(lambda reader=reader: reader, waiting.pop())
                self._transports.append(transport)
            if waiting:
                sink, _ = await self._loop.connect_write_pipe(lambda: self._source, waiting.pop())
                sink.write(stdin)
                sink.write_eof()
        finally:
            for file in waiting:
                file.close()

    async def talk(self, request: bytes) -> None:
        """Give the order; return when the program has ended and its output is read."""
        with contextlib.suppress(OSError):  # the supervisor is lost: the answer is missing too, and that is told
            await self._loop.sock_sendall(self._ends.control, request)
        await self._listen()

    async def end(self) -> None:
        """Order the end, and wait for it; after the program's own end there is nothing to wait for but its output."""
        self._order()
        try:
            async with asyncio.timeout(_ENDING):
                await self._listen()
            async with asyncio.timeout(_DRAIN):
                await asyncio.gather(self._output.read, self._errors.read)
        except TimeoutError:
            pass  # it hangs in the kernel, or somebody outside the tree holds the pipe

    async def close(self) -> None:
        """Give everything back. Where it was cut short, the tree is ended first."""
        self._order()
        try:
            if not self._answered:
                async with asyncio.timeout(_ENDING):
                    await self._listen()
        except TimeoutError:
            pass
        finally:
            self._source.drop()
            for transport in self._transports:
                transport.close()
            self._ends.control.close()

    def outcome(self, timed_out: bool) -> Outcome:
        """What came of it."""
        try:
            answer: object = json.loads(self._answer)
        except ValueError:
            answer = None
        said = cast("dict[str, object]", answer) if isinstance(answer, dict) else {}
        status = said.get("status")
        if not isinstance(status, int) and not timed_out:
            raise CommandFailed(str(said.get("failed") or "its supervisor was lost"))
        return Outcome(
            status if isinstance(status, int) else -9,
            bytes(self._output.data),
            bytes(self._errors.data),
            self._output.full,
            timed_out,
        )

    async def _listen(self) -> None:
        while not self._answered:
            try:
                piece = await self._loop.sock_recv(self._ends.control, _ANSWER)
            except ConnectionError:
                piece = b""
            self._answer += piece
            self._answered = not piece

    def _order(self) -> None:
        """Tell the supervisor to end all of it."""
        with contextlib.suppress(OSError):
            self._ends.control.shutdown(socket.SHUT_WR)


class _Output(asyncio.Protocol):
    """Keeps the beginning; calls when there is more."""

    def __init__(self, most: int, on_full: Callable[[], None]) -> None:
        self.data = bytearray()
        self.full = False
        self.read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._most = most
        self._on_full = on_full
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        room = self._most - len(self.data)
        self.data += data[:room]
        if len(data) > room and not self.full:
            self.full = True
            self._on_full()
            if self._transport is not None:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.read.done():
            self.read.set_result(None)


class _Source(asyncio.BaseProtocol):
    """The program's input."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def drop(self) -> None:
        """Forget what nobody read."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None


class _Errors(asyncio.Protocol):
    """Keeps the end."""

    def __init__(self, most: int) -> None:
        self.data = bytearray()
        self.read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._most = most

    def data_received(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > self._most:
            del self.data[: len(self.data) - self._most]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.read.done():
            self.read.set_result(None)


class _Helper:
    """The process that starts supervisors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._door: socket.socket | None = None
        self._pid = 0
        self._for: tuple[object, ...] = ()

    def start(self, descriptors: Sequence[int]) -> None:
        """Give a supervisor these descriptors."""
        with self._lock:
            for _ in range(2):
                door = self._open()
                try:
                    socket.send_fds(door, [b"+"], descriptors, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    raise CommandFailed("too many commands are being started") from None
                except OSError:
                    self._forget()
                else:
                    return
            raise CommandFailed("the helper process does not run")

    def after_fork(self) -> None:
        """In a forked process: the helper belongs to the parent."""
        self._lock = threading.Lock()
        if self._door is not None:
            self._door.close()
        self._door, self._pid = None, 0

    def _open(self) -> socket.socket:
        whom = (os.getpid(), os.getresuid(), os.getresgid(), os.getgroups()) if hasattr(os, "getresuid") else ()
        if self._door is not None and whom != self._for:
            self._forget()
        if self._door is None:
            self._door = self._launch()
            self._for = whom
        return self._door

    def _launch(self) -> socket.socket:
        near, far = socket.socketpair()
        here = os.path.dirname(os.path.abspath(__file__))
        door = 3
        opened = [(os.POSIX_SPAWN_OPEN, place, os.devnull, os.O_RDWR, 0) for place in range(3)]
        # Compiled once where this process may keep what it compiles: a third of the helper's start.
        kept = ["-B"] if sys.dont_write_bytecode else ["-X", f"pycache_prefix={sys.pycache_prefix or ''}"]
        arguments = [sys.executable, "-I", "-S", *kept, "-c", _HELPER, here, str(door)]
        with far:
            # A descriptor that is its own copy would stay closed on exec.
            far_door = os.dup(far.fileno()) if far.fileno() == door else far.fileno()
            try:
                self._pid = os.posix_spawn(
                    sys.executable, arguments, {}, file_actions=[(os.POSIX_SPAWN_DUP2, far_door, door), *opened]
                )
            except OSError as exc:
                near.close()
                raise CommandFailed(f"the helper process: {exc.strerror}") from exc
            finally:
                if far_door != far.fileno():
                    os.close(far_door)
        return near

    def _forget(self) -> None:
        if self._door is not None:
            self._door.close()
        if self._pid:
            with contextlib.suppress(OSError):
                os.waitpid(self._pid, os.WNOHANG)
        self._door, self._pid = None, 0


_helper: Final = _Helper()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helper.after_fork)


def _plain(value: object) -> object:
    return dict(cast("Mapping[str, object]", value)) if isinstance(value, Mapping) else value
