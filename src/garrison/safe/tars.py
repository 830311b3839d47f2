"""The members of a tar file, by one strict reading of it as it streams by.

Rules of this file:
- Files and folders. Links, devices, FIFOs, sparse files and parts of several volumes are refused.
- A length has one source: what a pax record says of it must be what the header says.
- Long names come from pax records or GNU's, each bounded; global records may say nothing about a member.
- The end is there, and behind it nothing but zeros.

POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .archive_rules import ArchiveLimits, ArchiveMember, Names, refused

__all__ = ["is_tar", "tar_members"]

_BLOCK: Final = 512
_ZEROS: Final = bytes(_BLOCK)
_RECORDS: Final = 64 * 1024
"""Most bytes of the records before one member."""
_FILES: Final = (b"0", b"\0", b"7")
_OCTAL: Final = re.compile(rb" *([0-7]+)[ \0]*")
_RECORD: Final = re.compile(rb"([1-9][0-9]{0,6}) ([^=\n]{1,256})=")
_SAID_OF_MEMBERS: Final = re.compile(r"path|size|linkpath|hdrcharset|GNU\.sparse\..*")
"""What a record may say that changes what a member is. Times and owners are nothing here."""


class _Stream:
    """Bytes that come in pieces, taken as they are needed."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held: bytes = b""

    def pieces(self, count: int) -> Iterator[bytes]:
        """The next `count` bytes. Raises `ArchiveRefused` where there are fewer."""
        while count:
            if not self._held:
                self._held = next(self._pieces, b"")
                if not self._held:
                    raise refused("it ends too early")
            piece, self._held = self._held[:count], self._held[count:]
            count -= len(piece)
            yield piece

    def take(self, count: int) -> bytes:
        """The next `count` bytes, at once."""
        return b"".join(self.pieces(count))

    def hold_zeros(self) -> None:
        """Read to the end; raises `ArchiveRefused` unless there is nothing but zeros."""
        while not self._held.strip(b"\0"):
            self._held = next(self._pieces, b"")
            if not self._held:
                return
        raise refused("there are bytes behind its end")


def is_tar(block: bytes) -> bool:
    """Whether a file that begins with this block is a tar file: by its check sum."""
    return len(block) == _BLOCK and (block == _ZEROS or _sum_fits(block))


def tar_members(pieces: Iterator[bytes], limits: ArchiveLimits) -> Iterator[tuple[ArchiveMember, Iterator[bytes]]]:
    """Each member with its content, which is skipped where it is not read before the next one.

    Raises:
        ArchiveRefused: it is no tar file, or breaks a rule of this file.
    """
    stream, names = _Stream(pieces), Names(limits)
    while (found := _next(stream)) is not None:
        header, name = found
        size, kind = _number(header[124:136]), header[156:157]
        is_dir = kind == b"5"
        if not is_dir and kind not in _FILES:
            raise refused("a member is neither a file nor a folder: a link, a device or in pieces")
        if is_dir and size:
            raise refused("a folder has content")
        name = name.removesuffix(b"/") if is_dir else name
        content = stream.pieces(size)
        if name.startswith(b"./"):  # as `tar -c .` writes them
            name = name[2:]
        if not (is_dir and name in (b"", b".")):
            yield names.member(name, size, is_dir=is_dir), content
        for _ in content:
            pass
        stream.take(-size % _BLOCK)
    stream.hold_zeros()


def _next(stream: _Stream) -> tuple[bytes, bytes] | None:
    """The header of the next member and its name; None at the end."""
    long_name: bytes | None = None
    records: dict[str, bytes] = {}
    seen = 0
    while (header := stream.take(_BLOCK)) != _ZEROS:
        if not _sum_fits(header):
            raise refused("a header is damaged")
        kind, size = header[156:157], _number(header[124:136])
        if kind not in (b"x", b"g", b"L"):
            return header, _name(header, size, long_name, records)
        seen += size + _BLOCK
        if seen > _RECORDS:
            raise refused(f"more than {_RECORDS} bytes about one member")
        data = stream.take(size + -size % _BLOCK)[:size]
        if kind == b"L":
            if long_name is not None:
                raise refused("a member has two names")
            long_name = data.removesuffix(b"\0")
        else:
            found = _records(data)
            if any(map(_SAID_OF_MEMBERS.fullmatch, found)) and (kind == b"g" or records):
                raise refused("a record about all members, or a second one about the same")
            records |= found if kind == b"x" else {}
    if long_name is not None or records:
        raise refused("it ends too early")
    return None


def _name(header: bytes, size: int, long_name: bytes | None, records: dict[str, bytes]) -> bytes:
    """The one name of a member."""
    if any(key == "hdrcharset" or key.startswith("GNU.sparse.") for key in records):
        raise refused("a member in pieces, or in another encoding")
    if records.get("size", b"%d" % size) != b"%d" % size:
        raise refused("a member has two lengths")
    if long_name is not None and "path" in records:
        raise refused("a member has two names")
    if "path" in records:
        return records["path"]
    if long_name is not None:
        return long_name
    name, _, padding = header[:100].partition(b"\0")
    if padding.strip(b"\0"):
        raise refused("a member has two names")
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _records(data: bytes) -> dict[str, bytes]:
    """Pax records by their keys: `length key=value` and a line break."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        match = _RECORD.match(data, at)
        end = at + int(match[1]) if match is not None else 0
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise refused("a pax record is not of its form")
        key = match[2].decode("latin-1")
        if key in found:
            raise refused("a pax record stands twice")
        found[key] = data[match.end() : end - 1]
        at = end
    return found


def _number(field: bytes) -> int:
    """A number in octal digits, or in GNU's base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise refused("a number in a header is not of its form")
    return int(match[1], 8)


def _sum_fits(block: bytes) -> bool:
    match = _OCTAL.fullmatch(block[148:156])
    return match is not None and int(match[1], 8) == sum(block[:148]) + 8 * 32 + sum(block[156:])
