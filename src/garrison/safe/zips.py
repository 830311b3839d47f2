"""The members of a zip file, by one strict reading of it: what two readers could see differently is refused.

Rules of this file:
- The end record is the end of the file, the central directory lies directly before it, and there is one of each.
- Every member's local header says what the directory says. No two members share a byte.
- Stored and deflated members only. Encrypted ones, links, devices and parts on other disks are refused.
- The directory is read entry by entry; its count is held to the cap before the first one.

APPNOTE.TXT 6.3.10, sections 4.3 to 4.6.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from .archive_rules import ArchiveLimits, ArchiveMember, Meter, Names, refused
from .unpacking import inflated, stored

__all__ = ["SIGNATURES", "ZipEntry", "zip_content", "zip_entries"]

SIGNATURES: Final = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip file begins: with a member, or with its end."""

_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_COMMENT: Final = 0xFFFF
_FULL: Final = 0xFFFFFFFF
_FULL_16: Final = 0xFFFF
_ENCRYPTED: Final = 1 | 1 << 6 | 1 << 13
_DESCRIPTOR: Final = 1 << 3
_PATCH: Final = 1 << 5
_UTF8: Final = 1 << 11
_STORED, _DEFLATED = 0, 8


class ZipEntry(NamedTuple):
    """A member, and where its bytes lie."""

    member: ArchiveMember
    method: int
    crc: int
    packed: int
    size: int
    begin: int


class _Directory(NamedTuple):
    entries: int
    size: int
    begin: int


class _Central(NamedTuple):
    """What the directory says of one member."""

    flags: int
    method: int
    crc: int
    packed: int
    size: int
    mode: int
    offset: int
    name: bytes
    extra: bytes


def zip_entries(file: BinaryIO, limits: ArchiveLimits) -> list[ZipEntry]:
    """The members in the order of the directory.

    Raises:
        ArchiveRefused: it is no zip file, or breaks a rule of this file.
    """
    directory = _directory(file)
    if directory.entries > limits.members:
        raise refused(f"more than {limits.members} members", "SafeArchive.max_members")
    centrals: list[_Central] = []
    file.seek(directory.begin)
    left = directory.size
    for _ in range(directory.entries):
        central, length = _central(file, left)
        centrals.append(central)
        left -= length
    if left:
        raise refused("its directory is longer than its entries")
    names = Names(limits)
    found = [_entry(file, central, names) for central in centrals]
    end = 0
    for entry, central in sorted(zip(found, centrals, strict=True), key=lambda pair: pair[1].offset):
        if central.offset < end:
            raise refused("two members share bytes")
        end = entry.begin + entry.packed
        if end > directory.begin:
            raise refused("a member lies in the directory")
    return found


def zip_content(file: BinaryIO, entry: ZipEntry, meter: Meter) -> Iterator[bytes]:
    """The bytes of a member, counted and held against the directory's length and check sum.

    Raises:
        ArchiveRefused: they are others.
    """
    file.seek(entry.begin)
    pieces = inflated if entry.method == _DEFLATED else stored
    crc, left = 0, entry.size
    for piece in pieces(file, entry.packed, meter):
        left -= len(piece)
        if left < 0:
            raise refused("a member is longer than the directory says")
        crc = zlib.crc32(piece, crc)
        yield piece
    if left or crc != entry.crc:
        raise refused("a member is not what the directory says")


def _directory(file: BinaryIO) -> _Directory:
    size = file.seek(0, 2)
    begin = max(0, size - _END.size - _COMMENT)
    file.seek(begin)
    tail = file.read(_END.size + _COMMENT)
    whole = tail[: -_END.size + 4]  # where an end that is whole can begin
    ends = [at for at in _places(whole, b"PK\x05\x06") if at + _END.size + _END.unpack_from(tail, at)[7] == len(tail)]
    if len(ends) != 1:
        raise refused("it has no end, or more than one")
    _, disk, first, here, count, length, offset, _ = _END.unpack_from(tail, ends[0])
    at = begin + ends[0]
    found = _Directory(count, length, offset)
    found64, at64 = _directory64(file, at)
    if found64 is not None:
        for old, new, full in zip(found, found64, (_FULL_16, _FULL, _FULL), strict=True):
            if old not in (new, full):
                raise refused("its two ends differ")
        found, at = found64, at64
    elif here != count:
        raise refused("it is one part of several")
    if (disk, first) != (0, 0):
        raise refused("it is one part of several")
    if found.begin + found.size != at:
        raise refused("its directory does not lie before its end")
    return found


def _places(data: bytes, what: bytes) -> Iterator[int]:
    at = data.find(what)
    while at >= 0:
        yield at
        at = data.find(what, at + 1)


def _directory64(file: BinaryIO, end: int) -> tuple[_Directory | None, int]:
    """What the zip64 records before the end say, and where they begin."""
    at = end - _LOCATOR.size
    if at < 0:
        return None, end
    signature, disk, offset, disks = _LOCATOR.unpack(_exactly(file, at, _LOCATOR.size))
    if signature != b"PK\x06\x07":
        return None, end
    if disk or disks > 1 or offset + _END64.size > at:
        raise refused("it is one part of several")
    record = _END64.unpack(_exactly(file, offset, _END64.size))
    signature, length, _, _, disk, first, here, count, size, begin = record
    if signature != b"PK\x06\x06" or offset + 12 + length != at or disk or first or here != count:
        raise refused("its zip64 end is not of its form")
    return _Directory(count, size, begin), offset


def _central(file: BinaryIO, left: int) -> tuple[_Central, int]:
    head = file.read(_CENTRAL.size) if left >= _CENTRAL.size else b""
    if len(head) < _CENTRAL.size or not head.startswith(b"PK\x01\x02"):
        raise refused("its directory has fewer entries than it says")
    flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length = _CENTRAL.unpack(head)[3:13]
    disk, _, outer, offset = _CENTRAL.unpack(head)[13:]
    length = _CENTRAL.size + name_length + extra_length + comment_length
    if length > left:
        raise refused("its directory is shorter than its entries")
    name, extra = file.read(name_length), file.read(extra_length)
    file.seek(comment_length, 1)
    fields = _extras(extra)
    large = fields.get(1, b"")
    wide: list[int] = []
    for value in (size, packed, offset):
        if value == _FULL:
            if len(large) < 8:
                raise refused("a length is missing")
            value, large = int.from_bytes(large[:8], "little"), large[8:]
        wide.append(value)
    size, packed, offset = wide
    if disk not in (0, _FULL_16):
        raise refused("it is one part of several")
    if flags & (_ENCRYPTED | _PATCH):
        raise refused("a member is encrypted")
    if method not in (_STORED, _DEFLATED):
        raise refused("a member is packed by another method than DEFLATE")
    if method == _STORED and packed != size:
        raise refused("a member has two lengths")
    return _Central(flags, method, crc, packed, size, outer >> 16, offset, name, extra), length


def _extras(extra: bytes) -> dict[int, bytes]:
    """The extra fields by their ids. What is no field ends them: some programs pad with zeros."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if at + length > len(extra):
            raise refused("an extra field is longer than its place")
        if kind in found and kind in (1, 0x7075):
            raise refused("an extra field stands twice")
        found[kind] = extra[at : at + length]
        at += length
    return found


def _entry(file: BinaryIO, central: _Central, names: Names) -> ZipEntry:
    """The member, after its local header was held against the directory."""
    head = _exactly(file, central.offset, _LOCAL.size)
    signature, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(head)
    later = 0 if flags & _DESCRIPTOR else None
    same = (
        signature == b"PK\x03\x04"
        and file.read(name_length) == central.name
        and method == central.method
        and not (flags ^ central.flags) & (_ENCRYPTED | _DESCRIPTOR | _UTF8)
        and crc in (central.crc, later)
        and packed in (central.packed, later, _FULL)
        and size in (central.size, later, _FULL)
    )
    if not same:
        raise refused("a member's header differs from the directory")
    member = names.member(_name(central), central.size, is_dir=_is_dir(central))
    begin = central.offset + _LOCAL.size + name_length + extra_length
    return ZipEntry(member, central.method, central.crc, central.packed, central.size, begin)


def _is_dir(central: _Central) -> bool:
    """Whether it is a folder, by its name; its mode must agree, where it has one."""
    is_dir = central.name.endswith(b"/")
    kind = stat.S_IFMT(central.mode)
    if kind not in (0, stat.S_IFDIR if is_dir else stat.S_IFREG):
        raise refused("a member is neither a file nor a folder: a link or a device")
    if is_dir and central.size:
        raise refused("a folder has content")
    return is_dir


def _name(central: _Central) -> bytes:
    """Its one name, in UTF-8, whether it is marked so or not: what is no UTF-8 is refused where names are judged.

    Info-ZIP writes a name beyond ASCII twice: in an encoding of its own, and in UTF-8.
    """
    name = central.name
    unicode = _extras(central.extra).get(0x7075)
    if unicode is not None:
        if len(unicode) < 5 or unicode[0] != 1 or int.from_bytes(unicode[1:5], "little") != zlib.crc32(name):
            raise refused("a member has two names")
        if name.isascii() and unicode[5:] != name and b"?" not in name and b"#U" not in name:
            raise refused("a member has two names")
        name = unicode[5:]
    return name.removesuffix(b"/")


def _exactly(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    data = file.read(count)
    if len(data) != count:
        raise refused("it ends too early")
    return data
