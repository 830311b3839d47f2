"""Files that decide who may do what: read only where nobody else could have written, or seen, what is in them.

Rules of this file:
- A file is opened once, and what is checked is what was opened: it cannot be exchanged between the look and the read.
- It belongs to this process's user or to root, as does what `sshd` and `sudo` read. Windows has no such modes; there
  the folder's own rights have to do.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError, InsecureConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["opened", "read_guarded"]

_MOST: Final = 1024 * 1024
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH
_SECRET: Final = stat.S_IRWXG | stat.S_IRWXO


def read_guarded(path: str, *, secret: bool = False) -> bytes:
    """The bytes of a file that only its owner, this user or root, can change.

    Args:
        path: the file; a link to one will do.
        secret: its group and others must not be able to read it either.

    Raises:
        ConfigurationError: it cannot be read, is no file, or is larger than 1 MiB.
        InsecureConfigurationError: others can change it, or read what is secret.
    """
    with opened(path, path, secret=secret) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise ConfigurationError(f"{path}: larger than {_MOST // 1024} KiB")
    return data


@contextmanager
def opened(path: str | os.PathLike[str], name: str, *, secret: bool = False, public: bool = False) -> Generator[int]:
    """A descriptor of a file, checked.

    Args:
        path: the file.
        name: what errors call it.
        secret: its group and others must not be able to read it.
        public: what is in it is signed by somebody else, as a certificate is: a group may keep it up to date.

    Raises:
        ConfigurationError, InsecureConfigurationError: as for `read_guarded`.
    """
    try:
        # Not blocking: the path may be that of a pipe, which is refused below.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{name}: {getattr(exc, 'strerror', None) or exc}") from None
    try:
        _check(name, os.fstat(descriptor), secret, public)
        yield descriptor
    finally:
        os.close(descriptor)


def _check(name: str, found: os.stat_result, secret: bool, public: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise InsecureConfigurationError(f"{name} is not a regular file")
    if os.name != "posix":
        return
    mode = stat.S_IMODE(found.st_mode)
    if not public and found.st_uid not in (0, os.geteuid()):
        raise InsecureConfigurationError(
            f"{name} belongs to another user (uid {found.st_uid}), who can change it; chown it"
        )
    if secret and mode & _SECRET:
        raise InsecureConfigurationError(f"{name} has mode {mode:04o}: its group or others can read it; chmod 600 it")
    if not public and mode & _WRITABLE:
        raise InsecureConfigurationError(
            f"{name} has mode {mode:04o}: its group or others can change it; chmod go-w it"
        )
    if mode & stat.S_IWOTH:
        raise InsecureConfigurationError(f"{name} has mode {mode:04o}: anybody can change it; chmod o-w it")
