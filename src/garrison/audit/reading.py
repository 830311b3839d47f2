"""The lines of an audit log, file by file, for those who look at it.

Rules of this file:
- A line is read up to a bound; what is longer is no record. A file may be written meanwhile.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Final

from ..errors import ConfigurationError
from .place import files_of
from .record import MAX_LINE, Mark, Record, RecordError, read_line

__all__ = ["entries", "follow", "lines", "log_files"]

_PAUSE: Final = 0.2


def log_files(path: str) -> list[str]:
    """The files of a log, the oldest first.

    Raises:
        ConfigurationError: there are none.
    """
    files = files_of(path)
    if not files:
        raise ConfigurationError(f"{path}: there is no such audit log")
    return files


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines with their ends; the last one may have none. One that is too long comes in pieces without an end."""
    while line := file.readline(MAX_LINE):
        yield line


def entries(files: Iterable[str]) -> Iterator[Record | Mark]:
    """The entries of files, unverified. Lines that are none are left out.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    for path in files:
        try:
            with open(path, "rb") as file:
                for line in lines(file):
                    try:
                        yield read_line(line).entry
                    except RecordError:
                        continue
        except OSError as exc:
            raise ConfigurationError(f"{path}: {exc.strerror}") from None


def follow(
    files: list[str], last: int, wanted: Callable[[Record | Mark], bool] = lambda entry: True
) -> Iterator[Record | Mark]:
    """The last entries of a log, then those that are written from now on, without an end.

    Args:
        files: of `log_files`.
        last: so many of those that are there.
        wanted: which entries count.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    recent = deque(filter(wanted, entries(files[:-1])), maxlen=last)
    path = files[-1]
    caught_up = False
    while True:
        try:
            with open(path, "rb") as file:
                for line in _growing(file, path):
                    if line is None:
                        if not caught_up:
                            caught_up = True
                            yield from recent
                        continue
                    try:
                        entry = read_line(line).entry
                    except RecordError:
                        continue
                    if wanted(entry):
                        if caught_up:
                            yield entry
                        else:
                            recent.append(entry)
        except FileNotFoundError:  # between two files
            time.sleep(_PAUSE)
        except OSError as exc:
            raise ConfigurationError(f"{path}: {exc.strerror}") from None


def _growing(file: BinaryIO, path: str) -> Iterator[bytes | None]:
    """Complete lines, and None whenever there is no further one yet; to the end of a file that was put away."""
    mine = os.fstat(file.fileno())
    part, moved = b"", False
    while True:
        piece = file.readline(MAX_LINE)
        part += piece
        if piece.endswith(b"\n") or len(part) >= MAX_LINE:
            yield part
            part = b""
        elif not piece:
            if moved:
                return
            try:
                found = os.stat(path)
            except FileNotFoundError:
                moved = True
            else:
                moved = (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino)
            if not moved:
                yield None
                time.sleep(_PAUSE)
