"""One call that takes its time: a task, and a clock until the answer is there.

Rules of this file:
- Every request gets exactly one answer, or none if its peer took it back.
- A call that ends at its first step costs no timer. One that waits gets one: the handler's deadline, which stands still
  while a client is asked.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Protocol

from ..errors import McpError
from ..protocol.envelope import encode_result
from .disclosure import disclose, encode_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .call import Call

__all__ = ["Deliver", "Running"]


class Deliver(Protocol):
    """Takes the answer to a call."""

    def __call__(self, status: int, body: bytes, error: McpError | None = None) -> None: ...


if sys.version_info >= (3, 12):

    def _start(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
else:

    def _start(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return loop.create_task(coroutine)


class Running:
    """One call that takes its time."""

    __slots__ = (
        "_coroutine",
        "_deliver",
        "_left",
        "_loop",
        "_on_end",
        "_pauses",
        "_started",
        "_timer",
        "call",
        "ended",
        "task",
    )

    def __init__(self, call: Call, deliver: Deliver, coroutine: Coroutine[object, object, bytes]) -> None:
        self.call = call
        self._deliver = deliver
        self._coroutine = coroutine
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0.0
        self._started = 0.0
        self._pauses = 0
        self._on_end: Callable[[], None] | None = None
        self.ended = False
        self.task: asyncio.Task[None] | None = None

    def refuse(self, error: McpError) -> None:
        """Answer with this error instead of running."""
        self._coroutine.close()
        disclose(error, self.call.method, self.call)
        self._answer(error.http_status, encode_failure(self.call.id, error, self.call.revision), error)

    def start(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[], None]) -> None:
        """Run until the first wait. If the call is not over then, start its clock.

        Args:
            loop: the running loop.
            on_end: called when a call that had to wait is over, however it ended.
        """
        self._loop = loop
        if self.ended:  # taken back before it could start
            self._coroutine.close()
            on_end()
            return
        task = _start(loop, self._run())
        if self.ended:
            return
        self.task = task
        self._on_end = on_end
        self._left = self.call.timeout or 0.0
        task.add_done_callback(self._settle)
        self._go_on()

    async def _run(self) -> None:
        call = self.call
        try:
            failure: McpError | None = None
            status, body = 200, encode_result(call.id, await self._coroutine)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                if not self.ended:
                    self._stop()
                    self._end()
                raise
            # Not cancelled: the handler let the cancellation of something of its own through.
            failure = disclose(exc, call.method, call)
            status, body = failure.http_status, encode_failure(call.id, failure, call.revision)
        except BaseException as exc:  # noqa: BLE001 - nothing a handler does may end the loop that serves the others
            failure = disclose(exc, call.method, call)
            status, body = failure.http_status, encode_failure(call.id, failure, call.revision)
        if not self.ended:
            self._answer(status, body, failure)

    def _answer(self, status: int, body: bytes, error: McpError | None = None) -> None:
        self._stop()
        try:
            self._deliver(status, body, error)
        finally:
            self._end()  # after the answer: what is told here takes an unanswered call for one that was taken back

    def _settle(self, task: asyncio.Task[None]) -> None:
        """The task is over. One that was cancelled before its first step has not said so itself."""
        if not self.ended:
            self._coroutine.close()
            self._stop()
            self._end()

    def pause(self) -> None:
        """Stop the clock, until it was let run on as often as it was stopped."""
        self._pauses += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left -= self._loop.time() - self._started

    def resume(self) -> None:
        """Let the clock run on."""
        self._pauses -= 1
        self._go_on()

    def _go_on(self) -> None:
        if self._left > 0 and self._timer is None and not self._pauses and not self.ended:
            self._started = self._loop.time()
            self._timer = self._loop.call_later(self._left, self._expire)

    def cancel(self) -> None:
        """End the call without an answer."""
        if self.task is not None:
            if not self.ended:
                self.task.cancel()
        else:
            self._stop()

    def _expire(self) -> None:
        """The time is up: answer now, whatever the handler does with its cancellation."""
        self._timer = None
        call, task = self.call, self.task
        error = disclose(TimeoutError(), call.method, call)
        self._answer(error.http_status, encode_failure(call.id, error, call.revision), error)
        if task is not None:
            task.cancel()

    def _stop(self) -> None:
        self.ended = True
        self.call.running = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        if self._on_end is not None:
            self._on_end()
