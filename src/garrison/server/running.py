"""Running calls: the answer now, or a task with a clock until it is there.

Rules of this file:
- Every request gets exactly one answer, or none if its peer took it back.
- A call that ends without waiting costs no task and no timer. One that waits gets both, and the timer is the handler's
  deadline; it stands still while a client is asked.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from ..errors import InternalError, McpError
from ..protocol.envelope import encode_result
from .disclosure import disclose, encode_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .call import Call
    from .desk import Desk

__all__ = ["Runner", "Running"]

if sys.version_info >= (3, 12):

    def _start(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
else:

    def _start(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return loop.create_task(coroutine)


class Running:
    """One call that takes its time."""

    __slots__ = ("_call", "_deliver", "_expired", "_left", "_loop", "_on_end", "_started", "_timer", "ended", "task")

    def __init__(self, call: Call, deliver: Callable[[int, bytes], None], loop: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._deliver = deliver
        self._loop = loop
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0.0
        self._started = 0.0
        self._on_end: Callable[[], None] | None = None
        self.ended = False
        self.task: asyncio.Task[None] | None = None

    async def run(self, coroutine: Coroutine[object, object, bytes]) -> None:
        """Wait for the result and deliver the answer."""
        call = self._call
        try:
            status, body = 200, encode_result(call.id, await coroutine)
        except asyncio.CancelledError:
            if not self._expired:
                self._stop()
                self._end()
                raise
            error: McpError = disclose(TimeoutError(), call.method)
            status, body = error.http_status, encode_failure(call.id, error, call.revision)
        except BaseException as exc:  # noqa: BLE001 - nothing a handler does may end the loop that serves the others
            error = exc if type(exc) is not InternalError and isinstance(exc, McpError) else disclose(exc, call.method)
            status, body = error.http_status, encode_failure(call.id, error, call.revision)
        self._stop()
        try:
            self._deliver(status, body)
        finally:
            self._end()  # after the answer: what is told here takes an unanswered call for one that was taken back

    def watch(self, on_end: Callable[[], None]) -> None:
        """Start the clock; `on_end` is called when the call is over, however it ended."""
        self._on_end = on_end
        self._left = self._call.timeout or 0.0
        self.resume()

    def pause(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left -= self._loop.time() - self._started

    def resume(self) -> None:
        """Let the clock run on."""
        if self._left > 0 and self._timer is None and not self.ended:
            self._started = self._loop.time()
            self._timer = self._loop.call_later(self._left, self._expire)

    def cancel(self) -> None:
        """End the call without an answer."""
        if self.task is not None and not self.ended:
            self.task.cancel()

    def _expire(self) -> None:
        self._timer = None
        self._expired = True
        self.cancel()

    def _stop(self) -> None:
        self.ended = True
        self._call.running = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        if self._on_end is not None:
            self._on_end()


class Runner:
    """Takes calls to the desk and their answers back."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._running: set[Running] = set()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tie the runner to a running loop."""
        self._loop = loop

    def begin(
        self, call: Call, deliver: Callable[[int, bytes], None], on_end: Callable[[], None] | None = None
    ) -> Running | None:
        """Have a call done.

        Args:
            call: the request.
            deliver: called once with HTTP status and encoded response, now or later; never if the call is cancelled.
            on_end: called when a call that was not done at once is over, answered or not.

        Returns:
            The running call, or None if it is done.
        """
        try:
            outcome = self._desk.dispatch(call)
            if isinstance(outcome, bytes):
                deliver(200, encode_result(call.id, outcome))
                return None
        except BaseException as exc:  # noqa: BLE001 - nothing a handler does may end the loop that serves the others
            error = disclose(exc, call.method)
            deliver(error.http_status, encode_failure(call.id, error, call.revision))
            return None
        running = call.running = Running(call, deliver, self._loop)
        task = _start(self._loop, running.run(outcome))
        if running.ended:
            return None
        running.task = task
        self._running.add(running)

        def ended() -> None:
            self._running.discard(running)
            if on_end is not None:
                on_end()

        running.watch(ended)
        return running

    async def close(self, grace: float) -> None:
        """Give what runs `grace` seconds to end, then cancel it."""
        tasks = [running.task for running in self._running if running.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for running in tuple(self._running):
            running.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)
