"""Heads that were parsed before are not parsed again.

Rules of this file:
- llhttp judges every field line once. A head made only of lines that it accepted, and that the gate let pass, is put
  together from them; it is looked at by the gate like any other.
- Only heads without a second meaning qualify: one line per field, a content length, no transfer coding, no expectation,
  no upgrade; and none with a proof that is good for one request. Everything else, and every line that is new, goes to
  the parser.
- A whole head that was put together once is kept as well, so that a client that repeats itself costs one look-up.
  Kept heads are shared by requests: nobody changes them after the gate, but for the peer whose request it is now.
- The memory is bounded and belongs to one listener. When it is full it is forgotten.

RFC 9112 section 5: a field line means the same whatever stands beside it.
"""

from __future__ import annotations

import re
from typing import Final

from .exchange import Head

__all__ = ["KnownHeads"]

_MOST: Final = 1024
_WHOLE: Final = 256
_LONGEST: Final = 2048
"""Bytes of a line that is kept: an access token is one."""
_START: Final = re.compile(rb"[A-Z]+ /[!-~]* HTTP/1\.1")
_PLAIN: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer", b"dpop"})


def _says(line: bytes, name: bytes, value: bytes) -> bool:
    said, _, rest = line.partition(b":")
    return said.lower() == name and rest.strip(b" \t") == value


class KnownHeads:
    """The lines that were accepted.

    Args:
        count, size: most fields, and bytes, of a head.
    """

    __slots__ = ("_count", "_fields", "_size", "_starts", "_whole")

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size
        self._starts: dict[bytes, tuple[bytes, bytes, bytes]] = {}
        self._fields: dict[bytes, tuple[bytes, bytes]] = {}
        self._whole: dict[bytes, tuple[Head, int]] = {}

    def __reduce__(self) -> str:
        raise TypeError("KnownHeads hold credentials and are not pickled")

    def match(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and body of a request that is all of `data`, if every line of its head is known."""
        end = data.find(b"\r\n\r\n", 0, self._size)
        if end < 0:
            return None
        block = data[:end]
        known = self._whole.get(block)
        if known is None:
            known = self._assemble(block)
            if known is None:
                return None
        head, length = known
        if length != len(data) - end - 4:
            return None
        return head, data[end + 4 :]

    def _assemble(self, block: bytes) -> tuple[Head, int] | None:
        lines = block.split(b"\r\n")
        start = self._starts.get(lines.pop(0))
        if start is None:
            return None
        try:
            fields = dict(map(self._fields.__getitem__, lines))
            length = int(fields[b"content-length"])
        except KeyError:
            return None
        if len(fields) != len(lines) or len(lines) > self._count:
            return None
        if len(self._whole) >= _WHOLE:
            self._whole.clear()
        head = Head()
        head.method, head.path, head.query = start
        head.fields = fields
        self._whole[block] = known = (head, length)
        return known

    def learn(self, data: bytes, head: Head) -> None:
        """Remember the lines of a head that was parsed out of the beginning of `data` and passed the gate."""
        end = data.find(b"\r\n\r\n", 0, self._size)
        fields = head.fields
        if end < 0 or b"content-length" not in fields or not fields.keys().isdisjoint(_PLAIN):
            return
        if fields.get(b"connection", b"keep-alive").lower() != b"keep-alive":
            return
        lines = data[:end].split(b"\r\n")
        start = lines.pop(0)
        if len(lines) != len(fields) or len(start) > _LONGEST or not _START.fullmatch(start):
            return
        # One line per field and no folding, so the parser's fields are these lines in this order. Looked at again all
        # the same: a line that were remembered with another's value would open the gate to it.
        pairs = list(zip(lines, fields.items(), strict=True))
        if not all(_says(line, name, value) for line, (name, value) in pairs):
            return
        if len(self._fields) + len(lines) > _MOST or len(self._starts) >= _MOST:
            self._fields.clear()
            self._starts.clear()
            self._whole.clear()
        for line, field in pairs:
            if len(line) <= _LONGEST:
                self._fields[line] = field
        self._starts[start] = (head.method, head.path, head.query)
