"""Opening a path below a directory that is open, in one step that no change of the tree can lead outside.

Rules of this file:
- Where Linux has `openat2`, the kernel resolves the path and keeps it below the directory. Elsewhere it is walked, name
  by name, each opened in the directory before it and never followed.
- Nothing is looked at by name and then opened by name: what was opened is what is judged.
- Both ways raise `OSError`, and mean the same by it: ELOOP is a link that is not followed, EXDEV a way out of the
  directory or onto another mount, EAGAIN a tree that would not hold still.
- The path holds no `..` and no NUL; that was judged before.

`openat2`: openat2(2), Linux 5.6.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from typing import Final

from ..errors import ConfigurationError

__all__ = ["ABOUT", "LIST", "READ", "Opener", "opener"]

Opener = Callable[[int, bytes, int], int]
"""From an open directory, a path below it and flags to a descriptor, which is the caller's to close."""


def _flags(*names: str) -> int:
    """Those of them that this system has."""
    found = 0
    for name in names:
        found |= getattr(os, name, 0)
    return found


READ: Final = _flags("O_RDONLY", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC")
"""To read. A FIFO does not make it wait, and a terminal does not become the program's own."""
LIST: Final = READ | _flags("O_DIRECTORY")
"""To list a directory."""
ABOUT: Final = _flags("O_PATH", "O_CLOEXEC") if hasattr(os, "O_PATH") else READ
"""To look at, whatever it is; on Linux without opening it, so that it may also be what cannot be read."""

_PASS: Final = _flags("O_DIRECTORY", "O_NOFOLLOW") | ABOUT
"""To go through a directory."""
_NOFOLLOW: Final = _flags("O_NOFOLLOW")
_LINKS: Final = 40
"""Links that are followed for one path, as Linux does."""
_TRIES: Final = 64

_OPENAT2: Final = 437
_MACHINES: Final = frozenset({"x86_64", "aarch64"})
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08


def opener(root: int, *, follow: bool) -> Opener:
    """The way of this system to open what is below directories.

    Args:
        root: the directory that it will be used with, and is tried with.
        follow: links are followed where they stay below the directory. Otherwise none is.

    Raises:
        ConfigurationError: the system opens nothing relative to a directory. Windows does not.
    """
    if os.open not in os.supports_dir_fd:
        raise ConfigurationError("SafeRoot needs a system that opens files relative to a directory: Linux or macOS")
    return kernel(root, follow=follow) or Walk(root, follow=follow)


def kernel(root: int, *, follow: bool) -> Opener | None:
    """Opens by `openat2`. None where the kernel, or what confines this process, does not have it."""
    if sys.platform != "linux" or os.uname().machine not in _MACHINES:
        return None
    try:
        import ctypes
    except ImportError:  # a Python that was built without it
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    call = libc.syscall
    call.restype = ctypes.c_long
    call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    resolve = _BENEATH | _NO_MAGICLINKS | _NO_XDEV | (0 if follow else _NO_SYMLINKS)
    hows = {flags: _how(flags, resolve) for flags in (READ, LIST, ABOUT)}
    audit, get_errno = sys.audit, ctypes.get_errno

    def open_beneath(root: int, path: bytes, flags: int) -> int:
        audit("open", path, None, flags)
        number = 0
        for _ in range(_TRIES):
            descriptor = call(_OPENAT2, root, path, hows[flags], 24)
            if descriptor >= 0:
                return descriptor
            number = get_errno()
            if number not in (errno.EINTR, errno.EAGAIN):
                break
        raise OSError(number, os.strerror(number))

    try:
        os.close(open_beneath(root, b".", ABOUT))
    except OSError:
        return None
    return open_beneath


def _how(flags: int, resolve: int) -> bytes:
    """`struct open_how`: flags, mode, resolve."""
    return b"".join(value.to_bytes(8, sys.byteorder) for value in (flags, 0, resolve))


class Walk:
    """Opens name by name.

    Args:
        root: the directory that it will be used with; what is on other mounts is refused.
        follow: as `opener` has it.
    """

    def __init__(self, root: int, *, follow: bool) -> None:
        self._follow = follow
        self._mount_of = _mount if _has_mounts(root) else _device
        self._mount = self._mount_of(root)

    def __call__(self, root: int, path: bytes, flags: int) -> int:
        names = path.split(b"/")[::-1]  # what is still to be gone, the next one last
        held: list[
            int
        ] = []  # gone through; `..` of a link goes back to the one before, whatever has become of the tree
        links = 0
        try:
            while names:
                name = names.pop()
                if name in (b"", b"."):
                    continue
                if name == b"..":
                    if not held:
                        raise OSError(errno.EXDEV, "out of the root")
                    os.close(held.pop())
                    continue
                here = held[-1] if held else root
                found = self._step(here, name, _PASS if names else flags)
                if isinstance(found, int):
                    if not names:
                        return found
                    held.append(found)
                    continue
                links += 1
                if links > _LINKS or not self._follow:
                    raise OSError(errno.ELOOP, "a symbolic link")
                if found.startswith(b"/"):
                    raise OSError(errno.EXDEV, "out of the root")
                names += found.split(b"/")[::-1]
            return os.open(b".", flags, dir_fd=held[-1] if held else root)
        finally:
            for each in held:
                os.close(each)

    def _step(self, here: int, name: bytes, flags: int) -> int | bytes:
        """Open one name. A descriptor, or where a link leads."""
        try:
            descriptor = os.open(name, flags | _NOFOLLOW, dir_fd=here)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR):
                return _target(here, name, exc)
            raise
        try:
            if flags == ABOUT and stat.S_ISLNK(os.fstat(descriptor).st_mode):
                target = _target(here, name, OSError(errno.EAGAIN, "no link any more"))
            elif self._mount_of(descriptor) == self._mount:
                return descriptor
            else:
                raise OSError(errno.EXDEV, "another mount")
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return target


def _target(here: int, name: bytes, otherwise: OSError) -> bytes:
    """Where a link leads; raises the error given where there is none."""
    try:
        return os.readlink(name, dir_fd=here)
    except OSError:
        raise otherwise from None


def _has_mounts(root: int) -> bool:
    try:
        return _mount(root) >= 0
    except OSError:
        return False


def _mount(descriptor: int) -> int:
    """The number of the mount it is on; -1 where the system does not tell. Tells two mounts of one device apart."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as lines:
        for line in lines:
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
    return -1


def _device(descriptor: int) -> int:
    return os.fstat(descriptor).st_dev
