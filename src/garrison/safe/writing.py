"""Changing one directory that is open: new content under an old name, and which names are too like each other.

Rules of this file:
- Everything is relative to a descriptor, takes one name, and follows no link.
- Content is written to a file of its own, which takes the name when it is whole.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final
from unicodedata import normalize

from .paths import TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["about", "folded", "names", "temporary"]

_UNSEEN: Final[dict[int, None]] = dict.fromkeys((0x200C, 0x200D, 0xFE0E, 0xFE0F))
"""What names may have and readers do not see."""


@contextmanager
def temporary(directory: int, data: bytes) -> Generator[tuple[str, int], None, None]:
    """A new file with this content, on the disk, for this user alone. It is removed again if the body fails.

    Yields:
        Its name and its descriptor. The body gives it another name.
    """
    name = TEMPORARY + secrets.token_hex(8)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        yield name, descriptor
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(descriptor)


def about(directory: int, name: str) -> os.stat_result | None:
    """What has a name, be it a link; None where nothing has it."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def names(directory: int) -> Iterator[str]:
    """The names in a directory, without those of files that are being written."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.startswith(TEMPORARY):
                yield entry.name


def folded(name: str) -> str:
    """The same for names that differ only by case, by Unicode form or by what is not seen. Unicode, D145."""
    if name.isascii():
        return name.lower()
    return normalize("NFD", normalize("NFD", name.translate(_UNSEEN)).casefold())
