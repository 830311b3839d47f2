"""Turns for what peers sent ahead or faster than they may, so that those who did not are not kept waiting.

Rules of this file:
- One `Turns` belongs to one running server; the connections of all its listeners wait here.
- A turn is short: of all that waits, as much as fits into `SPAN` is served between two looks of the loop at who else
  has come. Who comes with one request at a time, within its rate, never waits here.
- First come, first served; each that still has something to do goes to the end of the line.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["SPAN", "Turns"]

SPAN: Final = 0.0005
"""Seconds; a message that takes longer has its turn by itself."""


@final
class Turns:
    """The line of those who wait for their turn."""

    __slots__ = ("_clock", "_line")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._line: deque[Callable[[], None]] = deque()

    def wait(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """Have `call` called on the loop when its turn has come. It cannot be taken back."""
        self._line.append(call)
        if len(self._line) == 1:
            loop.call_soon(self._serve, loop)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        line, clock = self._line, self._clock
        end = clock() + SPAN
        try:
            for _ in range(len(line)):
                try:
                    line[0]()
                finally:
                    line.popleft()
                if clock() >= end:
                    break
        finally:  # whoever fails, fails alone
            if line:
                loop.call_soon(self._serve, loop)
