"""What a `SafeRoot` gives and raises: `FileInfo`, `SafeFile`, `PathRefused`.

Rules of this file:
- Whoever asks for what is refused reads the same words as for what is not there. Why it was refused is told to
  `events` alone.
- What lies below the root for all to see may be named: a directory, a file that is too large, a name that is taken.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from .. import events
from ..errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

__all__ = ["NO_SUCH_FILE", "FileInfo", "PathRefused", "Rule", "SafeFile", "refused"]

NO_SUCH_FILE: Final = "no such file or directory"


class PathRefused(ToolError):
    """There is no such file, or it is not one that may be had; the text is for the model and does not say which."""

    missing = True


class Rule(NamedTuple):
    """Why something is refused."""

    words: str
    setting: str = ""
    """What would let it pass."""


def refused(rule: Rule, where: str, said: str = NO_SUCH_FILE) -> PathRefused:
    """Tell of a refusal, and make its error.

    Args:
        rule: why.
        where: the root, as who runs the program knows it.
        said: what the caller reads.
    """
    events.record("path.refused", f"{rule.words}, below {where}", setting=rule.setting)
    return PathRefused(said)


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file or directory below a root."""

    path: str
    """From the root on, with `/` between names."""
    is_dir: bool
    size: int
    """Bytes of a file; 0 for a directory."""
    modified: float
    """When its content changed last, in seconds since 1970."""

    @property
    def name(self) -> str:
        """The last name of the path."""
        return self.path.rpartition("/")[2]


class _Capped(io.FileIO):
    """Reads no byte behind the first `most`."""

    def __init__(self, descriptor: int, most: int, too_large: Callable[[], PathRefused]) -> None:
        super().__init__(descriptor, "rb")
        self._most = most
        self._too_large = too_large

    def readinto(self, buffer: Buffer, /) -> int:
        got = super().readinto(buffer)
        self._check()
        return got

    def readall(self) -> bytes:
        parts: list[bytes] = []
        while part := super().read(io.DEFAULT_BUFFER_SIZE):
            self._check()
            parts.append(part)
        return b"".join(parts)

    def _check(self) -> None:
        if self.tell() > self._most:
            raise self._too_large()


class SafeFile(io.BufferedReader):
    """An open file below a root: a binary file for reading, and a context manager.

    Reading behind `SafeRoot.max_bytes`, of a file that grows, raises `PathRefused`.
    """

    info: FileInfo
    """As it was when it was opened."""

    @classmethod
    def of(cls, descriptor: int, info: FileInfo, most: int, too_large: Callable[[], PathRefused]) -> SafeFile:
        """Takes the descriptor over."""
        try:
            raw = _Capped(descriptor, most, too_large)
        except BaseException:
            os.close(descriptor)
            raise
        file = cls(raw)
        file.info = info
        return file
