"""The server's end of stdio: one message per line on standard input and output.

Rules of this file:
- The protocol takes file descriptors 0 and 1 for itself. What a handler prints, and what its child processes write to
  standard output, goes to standard error; what they read from standard input is empty.
- Lines are counted while they are read. A line that is too long is thrown away as it comes, and answered once.
- As long as nothing has to wait, no event loop is loaded: the shell reads, serves and writes. With the first request
  that waits it moves onto a loop, for good.
- What is read together is served together and written with one system call.
- Reading stops while the connection is saturated or the client does not take what is written, and for as long as the
  meter says after too many messages. Too many malformed ones end the connection, once they are answered.

Spec: 2026-07-28 basic/transports/stdio.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from .. import events
from ..protocol.lines import LineReader
from .flood import UNIT, Meter

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable

    from ..policy import Limits, Timeouts
    from ..protocol.lines import TooLong
    from .conversation import Conversation

__all__ = ["StdioShell", "reserve"]

_CHUNK: Final = 256 * 1024


def reserve() -> tuple[int, int]:
    """Take standard input and output for the protocol.

    Returns:
        Descriptors to read from and to write to. 0 is the null device from now on, and 1 is standard error.
    """
    sys.stdout.flush()
    reading, writing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return reading, writing


class StdioShell:
    """Moves lines between two descriptors and a peer.

    Args:
        reading, writing: as `reserve` gives them.
    """

    def __init__(self, reading: int, writing: int, limits: Limits, timeouts: Timeouts) -> None:
        self._reading = reading
        self._writing = writing
        self._timeouts = timeouts
        self._lines = LineReader(limits.message_bytes)
        self._backlog: deque[bytes | TooLong] = deque()
        self._out: list[bytes] = []
        self._rest = bytearray()
        self._stall: asyncio.TimerHandle | None = None
        self._meter = Meter(limits)
        self._uncharged = 0
        """Bytes that were read and are not charged yet."""
        self._pause: asyncio.TimerHandle | None = None
        self._collecting = False
        self._watching = False
        self._ended = False
        self._room: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._asked = False
        self._pollable = False
        self._interruptible = False
        os.set_blocking(reading, True)
        os.set_blocking(writing, True)

    def connect(self, connect: Callable[[StdioShell], Conversation]) -> Conversation:
        """Set the peer."""
        self._peer = connect(self)
        return self._peer

    def run_plain(self) -> bool:
        """Serve without an event loop.

        Returns:
            True as soon as one is needed, False when input has ended or a signal asked to stop.
        """
        import signal

        def stop(number: int, frame: object) -> None:
            self._ended = True
            if self._interruptible:
                raise KeyboardInterrupt

        before: dict[signal.Signals, object] = {}
        for name in (signal.SIGTERM, signal.SIGINT):
            try:
                before[name] = signal.signal(name, stop)
            except ValueError:
                continue  # not the main thread
        peer, backlog, lines = self._peer, self._backlog, self._lines
        pause = 0.0
        try:
            while not peer.wants_loop:
                self._interruptible = True  # before the look: a signal after it must not wait for input
                if self._ended:
                    return False
                if pause:
                    time.sleep(pause)
                data = os.read(self._reading, _CHUNK)
                self._interruptible = False
                if data:
                    read = lines.feed(data)
                    pause = self._charge(len(data), len(read))
                    backlog.extend(read)
                else:
                    self._ended = True
                    last = lines.close()
                    if last is not None:
                        backlog.append(last)
                self._collecting = True
                while backlog and not peer.wants_loop:
                    self._serve(backlog.popleft())
                self._collecting = False
                self._flush()
            return True
        except (KeyboardInterrupt, OSError):
            return False
        finally:
            self._interruptible = False
            for name, handler in before.items():
                signal.signal(name, handler)  # pyright: ignore[reportArgumentType] - what signal() itself returned

    async def run(self) -> None:
        """Serve on the running event loop until input ends or a signal asks to stop."""
        import asyncio
        import signal
        import threading

        self._loop = asyncio.get_running_loop()
        self._stop = self._loop.create_future()
        try:
            os.set_blocking(self._reading, False)
            self._loop.add_reader(self._reading, self._readable)
            self._watching = True
        except (PermissionError, NotImplementedError, OSError):
            # A file, or a platform whose loop watches no pipes: a thread reads instead.
            os.set_blocking(self._reading, True)
            self._go = threading.Semaphore(0)
            self._thread = threading.Thread(target=self._read_in_thread, name="garrison-stdin", daemon=True)
            self._thread.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._loop.add_signal_handler(number, self._end)
            except (NotImplementedError, RuntimeError, ValueError):
                continue  # not the main thread, or not this platform
        self._pollable = self._can_poll_output()
        self._hold(self._charge(0, 0))
        self.resume()
        try:
            await self._stop
            await self._peer.finish(self._timeouts.shutdown)
            self._flush()
            if self._room is not None:
                await asyncio.wait([self._room], timeout=self._timeouts.shutdown)
        finally:
            self._peer.close()
            self._watch(False)
            for timer in (self._stall, self._pause):
                if timer is not None:
                    timer.cancel()
            if self._pollable:
                self._loop.remove_writer(self._writing)
                os.set_blocking(self._writing, True)

    def _can_poll_output(self) -> bool:
        """True for a pipe or socket, which is ours to make non-blocking; a terminal is shared with others."""
        import stat

        mode = os.fstat(self._writing).st_mode
        if sys.platform == "win32" or not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            return False
        os.set_blocking(self._writing, False)
        return True

    # Reading

    def _watch(self, on: bool) -> None:
        if self._thread is not None:
            if on and not self._asked:
                self._asked = True
                self._go.release()
        elif on != self._watching:
            self._watching = on
            if on:
                self._loop.add_reader(self._reading, self._readable)
            else:
                self._loop.remove_reader(self._reading)

    def _readable(self) -> None:
        try:
            data = os.read(self._reading, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._take(data)

    def _read_in_thread(self) -> None:
        while self._go.acquire():
            try:
                data = os.read(self._reading, _CHUNK)
            except OSError:
                data = b""
            try:
                self._loop.call_soon_threadsafe(self._take, data)
            except RuntimeError:
                return
            if not data:
                return

    def _charge(self, size: int, count: int) -> float:
        """Seconds for which nothing more should be read, after so many bytes and messages."""
        size += self._uncharged
        self._uncharged = size % UNIT  # what small pieces leave of it counts with the next
        return self._meter.take(time.monotonic(), size, count)

    def _hold(self, seconds: float) -> None:
        """Read nothing more for so long."""
        if seconds:
            self._pause = self._loop.call_later(seconds, self._go_on)

    def _take(self, data: bytes) -> None:
        self._asked = False
        if data:
            lines = self._lines.feed(data)
            self._hold(self._charge(len(data), len(lines)))
            self._backlog.extend(lines)
        else:
            self._ended = True
            last = self._lines.close()
            if last is not None:
                self._backlog.append(last)
        self.resume()

    def _go_on(self) -> None:
        self._pause = None
        self.resume()

    def malformed(self) -> None:
        """A message broke the protocol. One too many, and nothing that comes after it is served."""
        if self._meter.malformed(time.monotonic()):
            events.record("limit.reached", "too many malformed messages", setting="Limits.malformed_per_minute")
            self._backlog.clear()
            self._end()

    def resume(self) -> None:
        """Serve what was read, as far as there is room."""
        peer, backlog = self._peer, self._backlog
        self._collecting = True
        while backlog and not peer.saturated and self._room is None:
            self._serve(backlog.popleft())
        self._collecting = False
        self._flush()
        if self._ended:
            self._watch(False)
            if not backlog:
                self._end()
        else:
            self._watch(not backlog and self._room is None and self._pause is None)

    def _serve(self, line: bytes | TooLong) -> None:
        if isinstance(line, bytes):
            self._peer.receive(line)
        else:
            self._peer.too_long()

    def _end(self) -> None:
        self._ended = True
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(None)

    # Writing

    def send(self, message: bytes) -> None:
        """Write one message."""
        self._out.append(message)
        if not self._collecting:
            self._flush()

    @property
    def congested(self) -> bool:
        """True while the client does not take what is written."""
        return self._room is not None

    async def drain(self) -> None:
        """Return when the client has taken what waits."""
        if self._room is not None:
            import asyncio

            await asyncio.shield(self._room)

    def _flush(self) -> None:
        if not self._out:
            return
        self._out.append(b"")
        data = b"\n".join(self._out)
        self._out.clear()
        if self._rest:
            self._rest += data
            return
        written = self._write(data)
        if written < len(data):
            self._rest += memoryview(data)[written:]
            self._room = self._loop.create_future()
            self._loop.add_writer(self._writing, self._writable)
            self._stall = self._loop.call_later(self._timeouts.write_stall, self._stalled)

    def _write(self, data: bytes | bytearray) -> int:
        """How many bytes the client took; all of them where it is gone, since nobody will."""
        view = memoryview(data)
        done = 0
        try:
            while done < len(data):
                done += os.write(self._writing, view[done:])
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._end()
            return len(data)
        finally:
            view.release()
        return done

    def _writable(self) -> None:
        written = self._write(self._rest)
        del self._rest[:written]
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._rest:
            self._stall = self._loop.call_later(self._timeouts.write_stall, self._stalled)
            return
        self._loop.remove_writer(self._writing)
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
        self._peer.relieved()
        self.resume()

    def _stalled(self) -> None:
        """The client has taken nothing for `Timeouts.write_stall`."""
        self._rest.clear()
        self._loop.remove_writer(self._writing)
        self._end()
