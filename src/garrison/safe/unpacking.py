"""Bytes that come out of compressed ones, in pieces of a bounded size, each counted before it is given on.

Rules of this file:
- A stream ends where its format says, whole and with the right check sum. Further streams may follow it, as the formats
  allow, up to `_STREAMS`; what is neither a stream nor zeros is refused.
- Memory: one piece, and what the format needs: 32 KiB for gzip, 4 MiB for bzip2, at most `_XZ_MEMORY` for xz.

RFC 1951, RFC 1952.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, Final, Protocol

from .archive_rules import CHUNK, Meter, refused

__all__ = ["compression", "inflated", "stored", "unpacked"]

_MAGIC: Final = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_READ: Final = 16 * 1024
_STREAMS: Final = 10_000
_XZ_MEMORY: Final = 72 * 1024 * 1024
"""Enough for what `xz -9` makes."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """`zlib.decompressobj` with the ways of the other two."""

    def __init__(self, wbits: int) -> None:
        self._raw = zlib.decompressobj(wbits)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._raw.eof

    @property
    def needs_input(self) -> bool:
        return not self._full and not self._raw.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._raw.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        made = self._raw.decompress(self._raw.unconsumed_tail + data, max_length)
        self._full = len(made) == max_length
        return made


def _gzip() -> _Decompressor:
    return _Zlib(31)


def _bzip2() -> _Decompressor:
    try:
        from bz2 import BZ2Decompressor
    except ImportError:
        raise refused("this Python was built without bzip2") from None
    return BZ2Decompressor()


def _xz() -> _Decompressor:
    try:
        from lzma import FORMAT_XZ, LZMADecompressor, LZMAError
    except ImportError:
        raise refused("this Python was built without xz") from None

    class Xz:
        """Its errors are those of the others."""

        def __init__(self) -> None:
            self._raw = LZMADecompressor(FORMAT_XZ, memlimit=_XZ_MEMORY)

        @property
        def eof(self) -> bool:
            return self._raw.eof

        @property
        def needs_input(self) -> bool:
            return self._raw.needs_input

        @property
        def unused_data(self) -> bytes:
            return self._raw.unused_data

        def decompress(self, data: bytes, max_length: int) -> bytes:
            try:
                return self._raw.decompress(data, max_length)
            except LZMAError as exc:
                raise ValueError(*exc.args) from None

    return Xz()


_MAKERS: Final[dict[str, Callable[[], _Decompressor]]] = {"gzip": _gzip, "bzip2": _bzip2, "xz": _xz}


def compression(head: bytes) -> str | None:
    """`gzip`, `bzip2` or `xz`, by the first bytes; None for anything else."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def unpacked(file: BinaryIO, kind: str | None, meter: Meter) -> Iterator[bytes]:
    """The content of a file from its beginning, in pieces of at most `CHUNK` bytes.

    Args:
        file: where the packed bytes are.
        kind: as `compression` says; None for bytes that are not packed.
        meter: counts both sides.

    Raises:
        ArchiveRefused: the bytes are damaged, or the meter says so.
    """
    file.seek(0)
    pieces = _pieces(file, None, meter)
    if kind is None:
        for piece in pieces:
            meter.make(len(piece))
            yield piece
        return
    make, waiting = _MAKERS[kind], b""
    for _ in range(_STREAMS):
        waiting = yield from _stream(make(), waiting, pieces, meter)
        while not waiting.strip(b"\0"):
            waiting = next(pieces, b"")
            if not waiting:
                return
    raise refused(f"more than {_STREAMS} compressed streams")


def inflated(file: BinaryIO, count: int, meter: Meter) -> Iterator[bytes]:
    """What comes of `count` bytes of DEFLATE at the file's position, which are one whole stream.

    Raises:
        ArchiveRefused: they are not, or the meter says so.
    """
    pieces = _pieces(file, count, meter)
    rest = yield from _stream(_Zlib(-15), b"", pieces, meter)
    if rest or next(pieces, b""):
        raise refused("there are bytes behind the end of a member")


def stored(file: BinaryIO, count: int, meter: Meter) -> Iterator[bytes]:
    """`count` bytes as they are. Raises `ArchiveRefused`."""
    left = count
    for piece in _pieces(file, count, meter):
        left -= len(piece)
        meter.make(len(piece))
        yield piece
    if left:
        raise refused("it ends too early")


def _pieces(file: BinaryIO, count: int | None, meter: Meter) -> Iterator[bytes]:
    """Packed bytes up to the end of the file, or so many of them."""
    while count is None or count > 0:
        piece = file.read(_READ if count is None else min(_READ, count))
        if not piece:
            return
        meter.take(len(piece))
        if count is not None:
            count -= len(piece)
        yield piece


def _stream(one: _Decompressor, data: bytes, pieces: Iterator[bytes], meter: Meter) -> Generator[bytes, None, bytes]:
    """One compressed stream; returns what follows it among the bytes that were read."""
    try:
        while not one.eof:
            if one.needs_input and not data:
                data = next(pieces, b"")
                if not data:
                    raise refused("it ends too early")
            made = one.decompress(data, CHUNK)
            data = b""
            if made:
                meter.make(len(made))
                yield made
    except (zlib.error, OSError, EOFError, ValueError):
        raise refused("its compressed bytes are damaged, or need too much memory") from None
    return one.unused_data
