"""Where an audit log lies: one folder, one writer, the file that is written and those before it.

Rules of this file:
- The folder is opened once and checked: only this user, or root, may change what is in it. Files are named below that
  descriptor, are regular, never symbolic links, and are made with mode 0600.
- One process writes. The lock is an open file beside the log and ends with the process.
- A file that is full is renamed to `NAME.000001`, `.000002` and so on, in one step.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from contextlib import suppress
from typing import Final, final

from ..errors import ConfigurationError, InsecureConfigurationError
from .contract import AuditFailed

__all__ = ["Place", "files_of"]

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
# Windows does not have them.
_SAFELY: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


@final
class Place:
    """The folder of a log, locked for one writer.

    Args:
        path: the file that is written, absolute. Its folder is made with mode 0700 where there is none.

    Raises:
        InsecureConfigurationError: others can change the folder, or a file is not a regular one of this user.
        AuditFailed: another process writes this log, or the system says no.
    """

    __slots__ = ("_folder", "_lock", "_name", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        above, self._name = os.path.split(path)
        self._lock = -1
        try:
            os.makedirs(above, mode=0o700, exist_ok=True)
            self._folder = os.open(above, _FOLDER)
        except OSError as exc:
            raise AuditFailed(f"{above}: {exc.strerror}") from None
        try:
            self._check_folder(above)
            self._lock = self._file(f"{self._name}.lock", os.O_RDWR | os.O_CREAT)
            self._take(self._lock)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process write the log."""
        for descriptor in (self._lock, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._folder = -1

    def current(self) -> int | None:
        """A descriptor of the file that is written, to append to; None where there is none."""
        try:
            return self._file(self._name, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None

    def create(self) -> int:
        """The same, of a file that is new: what of it there is, is empty."""
        descriptor = self._file(self._name, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        os.fchmod(descriptor, 0o600)  # a umask may have taken the owner's bits
        os.ftruncate(descriptor, 0)
        os.fsync(self._folder)
        return descriptor

    def is_current(self, descriptor: int) -> bool:
        """Whether the name still leads to this file."""
        try:
            found = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        mine = os.fstat(descriptor)
        return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)

    def put_away(self, number: int) -> None:
        """Rename the file that is written to the one of this number."""
        there = f"{self._name}.{number:06d}"
        if os.path.lexists(f"{self.path}.{number:06d}"):
            raise AuditFailed(f"{there} is there already; move the log away")
        os.rename(self._name, there, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder)

    def numbers(self) -> list[int]:
        """Those of the files before, the oldest first."""
        return sorted(_numbers(os.listdir(self._folder), self._name))

    def earlier(self, number: int) -> int:
        """A descriptor of one of the files before, to read."""
        return self._file(f"{self._name}.{number:06d}", os.O_RDONLY)

    def remove(self, number: int) -> None:
        """Delete one of the files before."""
        with suppress(FileNotFoundError):
            os.unlink(f"{self._name}.{number:06d}", dir_fd=self._folder)

    def _file(self, name: str, flags: int) -> int:
        path = os.path.join(os.path.dirname(self.path), name)
        try:
            descriptor = os.open(name, flags | _SAFELY, 0o600, dir_fd=self._folder)
        except OSError:
            if os.path.islink(path):
                raise InsecureConfigurationError(f"{path} is a symbolic link; name the file that it leads to") from None
            raise
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise InsecureConfigurationError(f"{path} is not a regular file; an audit log is one")
            if found.st_uid != os.geteuid():
                raise InsecureConfigurationError(f"{path} belongs to another user (uid {found.st_uid}); move it away")
            if found.st_mode & _OTHERS_WRITE:
                raise InsecureConfigurationError(
                    f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: others can change it; chmod go-w it"
                )
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check_folder(self, path: str) -> None:
        found = os.fstat(self._folder)
        if found.st_uid not in (0, os.geteuid()):
            raise InsecureConfigurationError(
                f"{path} belongs to another user (uid {found.st_uid}), who can change the audit log; choose another"
            )
        if found.st_mode & _OTHERS_WRITE:
            raise InsecureConfigurationError(
                f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: others can change the audit log in it; "
                "chmod go-w it, or choose another folder"
            )

    def _take(self, descriptor: int) -> None:
        if sys.platform == "win32":
            raise ConfigurationError("AuditLog needs POSIX file modes and locks; use another sink on this platform")
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AuditFailed(f"{self.path}: another process writes this audit log; give each its own") from None


def files_of(path: str) -> list[str]:
    """The files of a log, the oldest first and the one that is written last. Those that are not there are left out.

    Args:
        path: the file that is written; or one of those before, which stands for itself alone.
    """
    folder, name = os.path.split(os.path.abspath(path))
    try:
        numbers = sorted(_numbers(os.listdir(folder), name))
    except OSError:
        numbers = []
    paths = [os.path.join(folder, f"{name}.{number:06d}") for number in numbers]
    last = os.path.join(folder, name)
    return [*paths, last] if os.path.exists(last) else paths


def _numbers(names: list[str], name: str) -> list[int]:
    numbered = re.compile(re.escape(name) + r"\.([0-9]{6,9})")
    return [int(found[1]) for each in names if (found := numbered.fullmatch(each))]
