"""A folder of one person's own: files that are read only where nobody else could have written them, replaced whole.

Rules of this file:
- The folder is opened once for each piece of work, not through a symbolic link, and what is checked is what was opened.
  Its files are named below that descriptor, so that the path cannot be exchanged in between.
- A file is replaced by another of the same folder, which is on the disk before it takes the name. A program that is
  killed, or a disk that is full, leaves the old one.
- Modes do not depend on the umask. Windows has no such modes, and no such descriptors: there only `lock` is at work,
  in a folder that Windows keeps for the person.
- A lock is held by an open file and ends with it, so that nobody has to clear up after a program that was killed. The
  file stays: who removed it while another waits for it would make two locks of one.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, final

from ...events import record
from .contract import StoreError

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Folder", "data_folder", "refused"]

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_PAUSE: Final = 0.02

# Windows does not have them.
_SAFELY: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _SAFELY


def refused(text: str) -> StoreError:
    """The error for what is not safe to use or was changed, written down as a security event."""
    record("credentials.refused", text)
    return StoreError(text)


def data_folder() -> str:
    """Where this platform has the data of one person's programs: the part of it that is Garrison's.

    `$XDG_DATA_HOME/garrison`, else `~/.local/share/garrison`; macOS `~/Library/Application Support/garrison`; Windows
    `%LOCALAPPDATA%\\garrison`. A variable that is no absolute path does not count, as the XDG specification has it.
    """
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        named, default = "", os.path.join(home, "Library", "Application Support")
    elif sys.platform == "win32":
        named, default = os.environ.get("LOCALAPPDATA", ""), os.path.join(home, "AppData", "Local")
    else:
        named, default = os.environ.get("XDG_DATA_HOME", ""), os.path.join(home, ".local", "share")
    return os.path.join(named if os.path.isabs(named) else default, "garrison")


@final
class Folder:
    """A folder, made with mode 0700 when something is first written to it.

    Args:
        path: absolute.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self, name: str, most: int) -> bytes | None:
        """The bytes of a file, or None where there is none.

        Raises:
            StoreError: it is larger than `most`, or others could have written or seen it.
        """
        folder = self._found()
        if folder is None:
            return None
        with _closing(folder), self._failing(name):
            try:
                descriptor = os.open(name, os.O_RDONLY | _SAFELY, dir_fd=folder)
            except FileNotFoundError:
                return None
            with _closing(descriptor):
                self._check(name, os.fstat(descriptor))
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    data = file.read(most + 1)
        if len(data) > most:
            raise refused(f"{self._at(name)}: larger than {most // 1024} KiB; move it away and log in again")
        return data

    def replace(self, name: str, data: bytes) -> None:
        """Put these bytes in the place of a file. Call it with a lock: two at once would take one another's.

        Raises:
            StoreError: it could not be written, or the folder is not safe. The old file is still there.
        """
        new = f"{name}.new"
        with _closing(self._made()) as folder, self._failing(name):
            with suppress(FileNotFoundError):  # of a program that was killed
                os.unlink(new, dir_fd=folder)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY, 0o600, dir_fd=folder)
            try:
                with _closing(descriptor):
                    _write(descriptor, data)
                os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(new, dir_fd=folder)
                raise
            os.fsync(folder)

    @contextmanager
    def lock(self, name: str, patience: float) -> Generator[None]:
        """Held by one thread of one process at a time.

        Args:
            name: of the file that is the lock.
            patience: seconds to wait.

        Raises:
            StoreError: another held it all that time, or the folder is not safe.
        """
        with _closing(self._lock_file(name)) as descriptor:
            with self._failing(name):
                end = time.monotonic() + patience
                while not _try_lock(descriptor):
                    if time.monotonic() >= end:
                        raise StoreError(f"{self._at(name)}: another program has held this lock for {patience:g} s")
                    time.sleep(_PAUSE)
            yield

    def _lock_file(self, name: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | _SAFELY
        if os.name != "posix":
            with self._failing(name):
                os.makedirs(self.path, exist_ok=True)
                return os.open(self._at(name), flags, 0o600)
        with _closing(self._made()) as folder, self._failing(name):
            descriptor = os.open(name, flags, 0o600, dir_fd=folder)
            try:
                self._check(name, os.fstat(descriptor))
            except StoreError:
                os.close(descriptor)
                raise
            return descriptor

    def _at(self, name: str) -> str:
        return os.path.join(self.path, name)

    @contextmanager
    def _failing(self, name: str) -> Generator[None]:
        """Makes a `StoreError` of what the system says, and of a file that is a link."""
        try:
            yield
        except OSError as error:
            if stat.S_ISLNK(_kind(self._at(name))):
                raise refused(f"{self._at(name)} is a symbolic link; remove it") from None
            raise _failed(self._at(name), error) from None

    def _found(self) -> int | None:
        """A descriptor of the folder, checked, or None where it is not there."""
        try:
            descriptor = os.open(self.path, _FOLDER)
        except FileNotFoundError:
            return None
        except OSError as error:
            if stat.S_ISLNK(_kind(self.path)):
                raise refused(f"{self.path} is a symbolic link; name the folder that it leads to") from None
            raise _failed(self.path, error) from None
        try:
            self._check_folder(os.fstat(descriptor))
        except StoreError:
            os.close(descriptor)
            raise
        return descriptor

    def _made(self) -> int:
        """The same, of a folder that is made where there is none."""
        descriptor = self._found()
        if descriptor is None:
            try:
                _make(self.path)
            except OSError as error:
                raise _failed(self.path, error) from None
            descriptor = self._found()
        if descriptor is None:
            raise StoreError(f"{self.path}: removed while it was made")
        return descriptor

    def _check_folder(self, found: os.stat_result) -> None:
        if found.st_uid != os.geteuid():
            raise refused(f"{self.path} belongs to another user (uid {found.st_uid}); choose a folder of your own")
        if found.st_mode & _OTHERS_WRITE:
            mode = stat.S_IMODE(found.st_mode)
            raise refused(f"{self.path} has mode {mode:04o}: others can change what is in it; chmod 700 it")

    def _check(self, name: str, found: os.stat_result) -> None:
        path = self._at(name)
        if not stat.S_ISREG(found.st_mode):
            raise refused(f"{path} is not a regular file; move it away")
        if found.st_uid != os.geteuid():
            raise refused(f"{path} belongs to another user (uid {found.st_uid}); move it away")
        if found.st_mode & _OTHERS:
            mode = stat.S_IMODE(found.st_mode)
            raise refused(f"{path} has mode {mode:04o}: others can read or change it; chmod 600 it if it is yours")


def _failed(path: str, error: OSError) -> StoreError:
    return StoreError(f"{path}: {error.strerror or type(error).__name__}")


@contextmanager
def _closing(descriptor: int) -> Generator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _kind(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _make(path: str) -> None:
    above = os.path.dirname(path)
    if above != path and not os.path.isdir(above):
        _make(above)
    with suppress(FileExistsError):  # of another program, a moment ago; it is checked when it is opened
        os.mkdir(path, 0o700)


def _write(descriptor: int, data: bytes) -> None:
    os.fchmod(descriptor, 0o600)  # a umask may have taken the owner's bits
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _try_lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
