"""How a file of an audit log ends: what a writer has to know to go on with it.

Rules of this file:
- Only the first line and the last ones are read, however long the file is.
- What follows the last line end was never acknowledged: a program was killed or a disk was full. Complete lines that do
  not fit together are another matter. Nothing is appended to them.
"""

from __future__ import annotations

import os
from hmac import compare_digest
from typing import TYPE_CHECKING, Final, NamedTuple

from .chain import HASH_CHARS, linked, mac_of
from .contract import AuditFailed
from .record import MAX_LINE, Mark, Record, RecordError, read_line

if TYPE_CHECKING:
    from .chain import AuditKey
    from .record import Line

__all__ = ["Ending", "read_ending"]

_STEP: Final = 64 * 1024


class Ending(NamedTuple):
    """The two ends of a file."""

    begun: Mark
    last: Record | Mark
    hash: bytes
    """Of the last record."""
    size: int
    """Bytes up to the last line end."""
    torn: bytes
    """What is after it."""


class _Broken(Exception):
    """The lines were not written by an audit log, or were changed."""


def read_ending(descriptor: int, path: str, key: AuditKey | None) -> Ending | None:
    """Read the ends of a file.

    Args:
        descriptor: of the file.
        path: what errors call it.
        key: where the file is of this key, the marks at both ends are verified.

    Returns:
        None where there is no complete line in it.

    Raises:
        AuditFailed: the lines at its ends were not written by an audit log, or were changed.
        OSError: it cannot be read.
    """
    size = os.fstat(descriptor).st_size
    head, ended, _ = os.pread(descriptor, _STEP, 0).partition(b"\n")
    if not ended and size <= _STEP:
        return None
    try:
        return _ending(descriptor, size, head + b"\n", key)
    except (_Broken, RecordError, ValueError):
        raise AuditFailed(
            f"{path} was not written by an audit log, or was changed: look with `garrison audit verify`, then move it "
            "away"
        ) from None


def _ending(descriptor: int, size: int, head: bytes, key: AuditKey | None) -> Ending:
    first = read_line(head)
    begun = first.entry
    if not isinstance(begun, Mark) or begun.log != "begun":
        raise _Broken
    start = bytes.fromhex(begun.previous)
    _verify(first, start, begun, key)
    whole, torn = _last_lines(descriptor, size)
    before, _, last = whole.rpartition(b"\n")
    line = read_line(last + b"\n")
    _verify(line, start if line.entry.seq == begun.seq else _hash_of(before), begun, key)
    return Ending(begun, line.entry, line.hash, size - len(torn), torn)


def _last_lines(descriptor: int, size: int) -> tuple[bytes, bytes]:
    """The end of a file, with two complete lines at least where there are two; and what is after the last line end."""
    tail = b""
    while len(tail) < size:
        more = min(_STEP, size - len(tail))
        tail = os.pread(descriptor, more, size - len(tail) - more) + tail
        whole, _, torn = tail.rpartition(b"\n")
        if whole.count(b"\n") >= 2:
            return whole, torn
        if len(tail) > 3 * MAX_LINE:
            raise _Broken
    whole, _, torn = tail.rpartition(b"\n")
    return whole, torn


def _hash_of(before: bytes) -> bytes:
    """The hash that stands at the end of the last of these lines."""
    return bytes.fromhex(before[-HASH_CHARS - 2 : -2].decode("ascii", "replace"))


def _verify(line: Line, before: bytes, begun: Mark, key: AuditKey | None) -> None:
    if linked(before, line.body)[1] != line.hash:
        raise _Broken
    if key is None or key.id != begun.key or not isinstance(line.entry, Mark):
        return
    if not compare_digest(mac_of(key.for_file(begun.id), before, line.signed), line.entry.mac):
        raise _Broken
