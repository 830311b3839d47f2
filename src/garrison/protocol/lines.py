"""Newline framing for stdio: bytes in, lines out, never more memory than the limit and one chunk.

Rules of this file:
- A line ends with LF; one CR before it belongs to the ending. Empty lines are skipped.
- What was searched is not searched again: a chunk is split once, and only its unfinished tail is kept.
- A line over the limit becomes one `TOO_LONG` as soon as the limit is passed. Its bytes are dropped as they arrive,
  and the next line is served as if nothing had happened.
- The result does not depend on how the bytes were cut into chunks.
"""

from __future__ import annotations

from typing import Final, final

__all__ = ["TOO_LONG", "LineReader", "TooLong"]


@final
class TooLong:
    """Stands in the list of lines where a line passed the limit. There is one instance, `TOO_LONG`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "TOO_LONG"


TOO_LONG: Final = TooLong()
"""The marker for a dropped line; compare with `is`."""


@final
class LineReader:
    """Cuts a stream of bytes into lines.

    Args:
        limit: most bytes of one line, its ending not counted (`Limits.message_bytes`).

    Spec: 2026-07-28 basic/transports/stdio.
    """

    __slots__ = ("_limit", "_skipping", "_tail")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tail = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes | TooLong]:
        """The lines that this chunk completes, without their endings, in order; `TOO_LONG` for each dropped one."""
        lines: list[bytes | TooLong] = []
        pieces = chunk.split(b"\n")
        rest = pieces.pop()
        if pieces:
            joined = bool(self._tail)
            if self._skipping:
                self._skipping = False
                del pieces[0]
            elif joined:
                pieces[0] = bytes(self._tail + pieces[0])
                self._tail.clear()
            if joined or b"\r" in chunk:
                pieces = [piece[:-1] if piece.endswith(b"\r") else piece for piece in pieces]
            if joined or len(chunk) > self._limit:
                limit = self._limit
                lines = [piece if len(piece) <= limit else TOO_LONG for piece in pieces if piece]
            else:
                lines = list(filter(None, pieces))
        if rest and not self._skipping:
            self._keep(rest, lines)
        return lines

    def close(self) -> bytes | None:
        """The last line, if the stream ended without a line ending; the reader is empty afterwards."""
        line = bytes(self._tail).removesuffix(b"\r")
        self._tail.clear()
        self._skipping = False
        return line or None

    def _keep(self, rest: bytes, lines: list[bytes | TooLong]) -> None:
        size = len(self._tail) + len(rest)
        # One byte over the limit may still be the CR of the line's ending.
        if size <= self._limit or (size == self._limit + 1 and rest.endswith(b"\r")):
            self._tail += rest
        else:
            self._tail.clear()
            self._skipping = True
            lines.append(TOO_LONG)
