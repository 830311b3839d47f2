"""Archives of others: zip, tar, and tar in gzip, bzip2 or xz; looked into, read, or unpacked below a `SafeRoot`.

    with SafeRoot("inbox", write=True) as inbox:
        SafeArchive(data).extract(inbox)

Rules of this file:
- What comes out is files and folders below the place that was named, and no more of it than the caps say.
- Nothing is written before the whole archive was read once and found to be in order.
- An archive inside an archive is bytes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final, final

from ..errors import ConfigurationError, ToolError
from .archive_rules import ArchiveLimits, ArchiveMember, ArchiveRefused, Meter, refused
from .tars import is_tar, tar_members
from .unpacking import compression, unpacked
from .zips import SIGNATURES, zip_content, zip_entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .root import SafeRoot

__all__ = ["ArchiveMember", "ArchiveRefused", "SafeArchive", "decompress"]

_MIB: Final = 1024 * 1024
_HEAD: Final = 512


@final
class SafeArchive:
    """An archive of somebody else.

    Args:
        source: its bytes, or a file that can be sought, open for reading; it stays open.
        max_members: most files and folders.
        max_bytes: most bytes that come out of it in one pass; of a tar file its headers count too.
        max_member_bytes: most bytes of one file.
        max_ratio: most bytes that come out of one byte, past the first MiB.
        max_depth: most names in a path.

    Raises:
        ConfigurationError: a cap is not a positive integer.

    Its methods raise `ArchiveRefused` for what is no archive of these kinds, is damaged, or breaks a rule or a cap.
    """

    __slots__ = ("_file", "_limits")

    def __init__(
        self,
        source: bytes | BinaryIO,
        *,
        max_members: int = 1000,
        max_bytes: int = 64 * _MIB,
        max_member_bytes: int = 16 * _MIB,
        max_ratio: int = 100,
        max_depth: int = 16,
    ) -> None:
        self._limits = _limits(
            "SafeArchive",
            max_members=max_members,
            max_bytes=max_bytes,
            max_member_bytes=max_member_bytes,
            max_ratio=max_ratio,
            max_depth=max_depth,
        )
        self._file = io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source

    def members(self) -> tuple[ArchiveMember, ...]:
        """The files and folders, in the archive's order. Of a zip file, sizes are what its directory says."""
        return tuple(member for member, _ in self._walk())

    def read(self, path: str) -> bytes:
        """The bytes of one file.

        Raises:
            ToolError: there is no such file.
        """
        for member, content in self._walk():
            if member.path == path and not member.is_dir:
                return b"".join(content)
        raise ToolError("The archive has no such file")

    def read_all(self) -> dict[str, bytes]:
        """The bytes of every file, by path."""
        return {member.path: b"".join(content) for member, content in self._walk() if not member.is_dir}

    def extract(self, root: SafeRoot, below: str = "", *, overwrite: bool = False) -> tuple[str, ...]:
        """Write every file and folder below a root, which is made with `write=True`.

        Args:
            root: where to.
            below: a folder of the root; made where it is missing.
            overwrite: replace files that are there already.

        Returns:
            The paths of the files, below the root.

        Raises:
            ToolError: a file is there already; nothing was written.
            PathRefused: the root refuses a path, or a file that is too large for it. What came before it was written.
        """
        within = f"{below}/" if below else ""
        for member, content in self._walk():
            for _ in content:
                pass
            if not (overwrite or member.is_dir) and root.exists(within + member.path):
                raise ToolError("A file of the archive is there already")
        written: list[str] = []
        if below:
            root.mkdir(below, parents=True, exist_ok=True)
        for member, content in self._walk():
            path = within + member.path
            folder = path if member.is_dir else path.rpartition("/")[0]
            if folder:
                root.mkdir(folder, parents=True, exist_ok=True)
            if not member.is_dir:
                root.write_bytes(path, b"".join(content))
                written.append(path)
        return tuple(written)

    def _walk(self) -> Iterator[tuple[ArchiveMember, Iterator[bytes]]]:
        """One pass: each member with its content, to be read before the next one."""
        file, limits = self._file, self._limits
        meter = Meter(limits, "SafeArchive")
        file.seek(0)
        head = file.read(_HEAD)
        if head.startswith(SIGNATURES):
            for entry in zip_entries(file, limits):
                yield entry.member, zip_content(file, entry, meter)
            return
        kind = compression(head)
        if kind is None and not is_tar(head):
            raise refused("it is neither zip nor tar, nor tar in gzip, bzip2 or xz")
        yield from tar_members(unpacked(file, kind, meter), limits)


def decompress(data: bytes, *, max_bytes: int = 16 * _MIB, max_ratio: int = 100) -> bytes:
    """What a file in gzip, bzip2 or xz holds. Its name and time, where it has them, are not looked at.

    Args:
        data: the whole file.
        max_bytes: most bytes that come out.
        max_ratio: most bytes that come out of one byte, past the first MiB.

    Raises:
        ArchiveRefused: it is none, is damaged, or breaks a cap.
        ConfigurationError: a cap is not a positive integer.
    """
    limits = _limits("decompress", max_bytes=max_bytes, max_ratio=max_ratio)
    kind = compression(data[:_HEAD])
    if kind is None:
        raise refused("it is neither gzip, bzip2 nor xz")
    return b"".join(unpacked(io.BytesIO(data), kind, Meter(limits, "decompress")))


def _limits(
    whose: str,
    *,
    max_bytes: int,
    max_ratio: int,
    max_members: int = 1,
    max_member_bytes: int = 1,
    max_depth: int = 1,
) -> ArchiveLimits:
    found = ArchiveLimits(max_members, max_bytes, max_member_bytes, max_ratio, max_depth)
    for name, value in zip(("members", "bytes", "member_bytes", "ratio", "depth"), found, strict=True):
        if type(value) is not int or value < 1:
            raise ConfigurationError(f"{whose}.max_{name} must be a positive integer")
    return found
