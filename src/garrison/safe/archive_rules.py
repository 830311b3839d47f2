"""What holds of every archive, whatever its format: how much may come out of it, and what its members may be called.

Rules of this file:
- Bytes are counted as they are made. What a header says is compared with it and never relied on.
- A name is one that a `SafePath` may have. Two members that one file system could take for the same file are refused,
  and so is a file that another member needs as a folder.
"""

from __future__ import annotations

import unicodedata
from typing import Final, NamedTuple

from .. import events
from ..errors import ToolError
from .paths import broken_rule

__all__ = ["CHUNK", "ArchiveLimits", "ArchiveMember", "ArchiveRefused", "Meter", "Names", "refused"]

CHUNK: Final = 64 * 1024
"""Bytes that are unpacked at a time."""
_FREE: Final = 1024 * 1024
"""Bytes that may come out whatever the ratio: small files of zeros are no bomb."""


class ArchiveRefused(ToolError):
    """The archive is not unpacked. The message says which rule it breaks, and repeats nothing of it."""


class ArchiveLimits(NamedTuple):
    """Most of each, for one pass over an archive."""

    members: int
    bytes: int
    member_bytes: int
    ratio: int
    depth: int


class ArchiveMember(NamedTuple):
    """A file or folder in an archive."""

    path: str
    """Below the archive's root, with `/` between its parts."""
    size: int
    """Bytes of a file, as the archive says; 0 of a folder."""
    is_dir: bool


def refused(rule: str, setting: str = "") -> ArchiveRefused:
    """The error for an archive, after its security event."""
    events.record("archive.refused", rule, setting=setting)
    return ArchiveRefused(f"The archive was refused: {rule}" + (f" ({setting})" if setting else ""))


class Meter:
    """Counts one pass over an archive: packed bytes in, unpacked bytes out. `whose` caps they are, for the message."""

    __slots__ = ("_limits", "_made", "_taken", "_whose")

    def __init__(self, limits: ArchiveLimits, whose: str) -> None:
        self._limits = limits
        self._whose = whose
        self._taken = self._made = 0

    def take(self, count: int) -> None:
        """So many packed bytes were read."""
        self._taken += count

    def make(self, count: int) -> None:
        """So many bytes came of them. Raises `ArchiveRefused`."""
        self._made += count
        limits = self._limits
        if self._made > limits.bytes:
            raise refused(f"more than {limits.bytes} bytes come out of it", f"{self._whose}.max_bytes")
        if self._made > _FREE and self._made > limits.ratio * self._taken:
            raise refused(f"more than {limits.ratio} bytes come out of one", f"{self._whose}.max_ratio")


class Names:
    """Judges the names of one archive, in its order."""

    __slots__ = ("_count", "_limits", "_seen")

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._count = 0
        self._seen: dict[str, tuple[str, bool]] = {}
        """Folded path -> its spelling, and whether it is a folder."""

    def member(self, name: bytes, size: int, *, is_dir: bool) -> ArchiveMember:
        """A member of this name. Raises `ArchiveRefused`."""
        limits = self._limits
        self._count += 1
        if self._count > limits.members:
            raise refused(f"more than {limits.members} members", "SafeArchive.max_members")
        if size > limits.member_bytes:
            raise refused(f"a member of more than {limits.member_bytes} bytes", "SafeArchive.max_member_bytes")
        try:
            path = name.decode()
        except UnicodeDecodeError:
            raise refused("a member's name is not UTF-8") from None
        rule = broken_rule(path)
        if rule:
            raise refused(f"in a member's name, {rule}")
        self._hold_apart(path.split("/"), is_dir=is_dir)
        return ArchiveMember(path, 0 if is_dir else size, is_dir)

    def _hold_apart(self, parts: list[str], *, is_dir: bool) -> None:
        if len(parts) > self._limits.depth:
            raise refused(f"a member more than {self._limits.depth} folders deep", "SafeArchive.max_depth")
        spelling = ""
        for number, part in enumerate(parts, 1):
            spelling = f"{spelling}/{part}" if spelling else part
            folder = is_dir or number < len(parts)
            known = self._seen.setdefault(_folded(spelling), (spelling, folder))
            if known[0] != spelling:
                raise refused("two members' names differ by case or by the form of their characters alone")
            if known[1] != folder:
                raise refused("a member is both a file and a folder")
            if known[1] is False and number == len(parts) and not self._first(spelling):
                raise refused("two members have the same name")

    def _first(self, spelling: str) -> bool:
        """Whether a file's name is new. Files are kept beside folders, under a key that no path has."""
        key = f"/{spelling}"
        if key in self._seen:
            return False
        self._seen[key] = (spelling, False)
        return True


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text).casefold())
