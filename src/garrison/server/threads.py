"""Worker threads for synchronous handlers.

Rules of this file:
- A bounded number of threads, started when needed; a call waits its turn in the order it came.
- Each call carries the caller's context variables.
- Results go back to the event loop in batches: one wake-up serves all that ended meanwhile.
- A thread cannot be stopped. When its request ends early, its result is dropped and it goes on to the next call.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Workers"]

_Job = tuple["Callable[[], object]", "asyncio.Future[object]", contextvars.Context]


class Workers:
    """A pool of threads that belongs to one event loop.

    Args:
        size: most threads at once.
        loop: where results are delivered.
    """

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self._size = size
        self._loop = loop
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[object], object, BaseException | None]] = deque()
        self._woken = False
        self._threads = 0
        self._busy = 0
        self._closed = False

    def run(self, fn: Callable[[], object]) -> asyncio.Future[object]:
        """Run `fn` in a thread; the future has its result or exception."""
        future: asyncio.Future[object] = self._loop.create_future()
        self._jobs.put((fn, future, contextvars.copy_context()))
        self._busy += 1  # touched on the loop's thread only
        if self._busy > self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._work, name=f"garrison-worker-{self._threads}", daemon=True).start()
        return future

    def close(self) -> None:
        """End the threads that wait. A running function ends when it ends."""
        self._closed = True
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            fn, future, context = job
            result: object = None
            error: BaseException | None = None
            if not future.cancelled():
                try:
                    result = context.run(fn)
                except BaseException as exc:  # noqa: BLE001 - whatever a handler raises belongs to its own request
                    error = exc
            self._done.append((future, result, error))
            del job, fn, future, context, result, error
            if not self._woken:
                self._woken = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:
                    return  # the loop is closed: nobody waits any more

    def _deliver(self) -> None:
        self._woken = False
        done = self._done
        while done:
            future, result, error = done.popleft()
            self._busy -= 1
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            elif isinstance(error, StopIteration):
                future.set_exception(RuntimeError("handler raised StopIteration"))
            else:
                future.set_exception(error)
