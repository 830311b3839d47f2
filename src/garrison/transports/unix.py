"""Unix sockets: where one may lie, who may connect, and one message per line on each connection.

Rules of this file:
- A socket lies in a directory that nobody else can write to, below directories in which nobody else can rename. Its
  mode is right before anybody can connect.
- What lies at its path already is looked at without following links. Only a socket of this user on which nobody listens
  is removed, and at the end only the one that was made here.
- The kernel says who is at the other end. Both ends ask before a byte is read or sent.
- Lines are counted while they are read, as on stdio. One that is too long is thrown away as it comes, and is answered
  once.

unix(7); spec: 2026-07-28 basic/transports/stdio.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from .. import events
from ..errors import ConfigurationError, ConnectionFailed, InsecureConfigurationError
from ..protocol.lines import LineReader
from .duplex import DuplexShell
from .peer import Peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from ..policy import Limits
    from ..policy.transports import UnixSocketConfig
    from ..protocol.lines import TooLong
    from .conversation import Conversation
    from .flood import Place
    from .listener import Guests

__all__ = ["BoundSocket", "UnixShell", "bind", "check_peer", "check_place", "connect", "peer_uid"]

_LONGEST: Final = 107 if sys.platform == "linux" else 103
_BACKLOG: Final = 1024
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_GROUP: Final = 0o060
_PATIENCE: Final = 100
_XUCRED: Final = "=IIh"
"""Version, user id and number of groups of the BSDs' `struct xucred`; the groups follow."""


# Binding


class BoundSocket:
    """A listening Unix socket that was made here.

    Attributes:
        socket: the socket, which listens.
        path: where it is, absolute.
    """

    def __init__(self, sock: socket.socket, path: str, allowed_uids: tuple[int, ...]) -> None:
        self.socket = sock
        self.path = path
        self._allowed_uids = allowed_uids
        made = os.lstat(path)
        self._identity = made.st_dev, made.st_ino, os.getpid()

    def admit(self, sock: socket.socket) -> Peer:
        """Who has connected, if they may.

        Args:
            sock: an accepted connection of which nothing was read.

        Raises:
            PermissionError: they may not. The event `peer.refused` is recorded.
            OSError: they are gone.
        """
        return check_peer(sock, self._allowed_uids)

    def remove(self) -> None:
        """Remove it from its directory if it is still the one that was made here, by this process.

        To be called while it is open: the number of a closed one may be another's already.
        """
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino, os.getpid()) == self._identity:
                os.unlink(self.path)
        except OSError:
            pass  # somebody else has removed it
        self._identity = (0, 0, 0)

    def close(self) -> None:
        """Remove it, and close it."""
        self.remove()
        self.socket.close()


def bind(config: UnixSocketConfig, *, unsafe_reason: str = "") -> BoundSocket:
    """Make the socket of a listener.

    Args:
        config: `path`, `mode` and `group` count here. A directory that is missing is made for its owner alone; where
            the mode lets a group connect, the group may pass through it.
        unsafe_reason: why the socket may lie where others can replace or reach it
            (`SecurityPolicy.dangerously_allow_unsafe_socket_path`); empty: it may not.

    Raises:
        InsecureConfigurationError: others could replace the socket, or what is there belongs to somebody else.
        ConfigurationError: the path, mode or group cannot be had, or somebody is listening there.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError("UnixSocketConfig: this platform has no Unix sockets")
    path = _absolute(config.path)
    parent = os.path.dirname(path)
    group = None if config.group is None else _group(config.group)
    _make_directory(parent, config.mode, group)
    if not unsafe_reason:
        _check_directory(parent)
    lock = _lock(parent)
    try:
        _clear(path)
        return BoundSocket(_bind(path, config.mode, group), path, config.allowed_uids)
    finally:
        os.close(lock)


def check_place(config: UnixSocketConfig, *, unsafe_reason: str = "") -> None:
    """Raise what `bind` would, as far as it shows before anything is made."""
    parent = directory = os.path.dirname(_absolute(config.path))
    if config.group is not None:
        _group(config.group)
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if not unsafe_reason:
        _check_directory(directory, made=directory == parent)


def _absolute(path: str) -> str:
    if path.startswith("@"):
        raise InsecureConfigurationError(
            f"UnixSocketConfig.path={path!r}: an abstract socket has no owner and no mode; use a path of the file "
            f"system (./{path} for a file of this name)"
        )
    path = os.path.abspath(path)
    if len(os.fsencode(path)) > _LONGEST:
        raise ConfigurationError(f"UnixSocketConfig.path={path!r}: longer than {_LONGEST} bytes")
    return path


def _group(group: str | int) -> int:
    if isinstance(group, int):
        return group
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigurationError(f"UnixSocketConfig.group={group!r}: no such group") from None


def _make_directory(directory: str, mode: int, group: int | None) -> None:
    missing: list[str] = []
    while not os.path.lexists(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    try:
        for made in reversed(missing):
            os.mkdir(made, 0o700)
            if mode & _GROUP:
                os.chown(made, -1, -1 if group is None else group)
            os.chmod(made, 0o710 if mode & _GROUP else 0o700)
    except OSError as exc:
        raise ConfigurationError(f"UnixSocketConfig.path: cannot make {exc.filename}: {exc.strerror}") from None


def _check_directory(directory: str, *, made: bool = True) -> None:
    """Refuse a directory in which, or above which, somebody else could put another socket in our place.

    `made`: it is the socket's own; otherwise that is still to be made below it.
    """
    try:
        real = os.path.realpath(directory, strict=True)
        found = os.stat(real)
    except OSError as exc:
        raise ConfigurationError(f"UnixSocketConfig.path: {directory}: {exc.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"UnixSocketConfig.path: {directory} is not a directory")
    if made and found.st_mode & _OTHERS_WRITE:
        # A sticky directory too: whoever comes first has the name there, and clients would talk to him.
        _unsafe(real, "others can write to it; use a directory of its own below it, which is made where it is missing")
    while True:
        if found.st_uid not in (0, os.geteuid()):
            _unsafe(real, f"it belongs to another user (uid {found.st_uid})")
        if found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
            _unsafe(real, "others can write to it")
        above = os.path.dirname(real)
        if above == real:
            return
        real = above
        found = os.stat(real)


def _unsafe(directory: str, why: str) -> None:
    raise InsecureConfigurationError(
        f"UnixSocketConfig.path: {directory} is no safe place for a socket: {why} "
        "(or give a reason: SecurityPolicy.dangerously_allow_unsafe_socket_path)"
    )


def _lock(directory: str) -> int:
    """Keep other servers from clearing the same path at the same time. The lock ends with the descriptor."""
    import fcntl

    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise ConfigurationError(f"UnixSocketConfig.path: {directory}: {exc.strerror}") from None
    for _ in range(_PATIENCE):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.01)
        else:
            return descriptor
    os.close(descriptor)
    raise ConfigurationError(
        f"UnixSocketConfig.path: another program has locked {directory}; it may be starting a server there"
    )


def _clear(path: str) -> None:
    """Remove a socket of ours that nobody serves any more; refuse anything else that is there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise ConfigurationError(f"UnixSocketConfig.path: {path}: {exc.strerror}") from None
    if stat.S_ISLNK(found.st_mode):
        raise InsecureConfigurationError(f"UnixSocketConfig.path: {path} is a symbolic link; remove it")
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigurationError(f"UnixSocketConfig.path: {path} is there already and no socket")
    if found.st_uid != os.geteuid():
        raise InsecureConfigurationError(
            f"UnixSocketConfig.path: {path} belongs to another user (uid {found.st_uid}); remove it"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        found = probe.connect_ex(path)
    if found == errno.ECONNREFUSED:
        os.unlink(path)
    elif found != errno.ENOENT:
        raise ConfigurationError(f"UnixSocketConfig.path: {path} is already served")


def _bind(path: str, mode: int, group: int | None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    setting = "path"
    try:
        before = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        setting = f"group={group}"
        if group is not None:
            os.chown(path, -1, group)
        setting = "mode"
        os.chmod(path, mode)
        found = os.lstat(path)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != mode:
            raise InsecureConfigurationError(f"UnixSocketConfig.path: {path} was exchanged while it was made")
        sock.listen(_BACKLOG)
    except (OSError, ConfigurationError) as exc:
        sock.close()
        if isinstance(exc, ConfigurationError):
            raise
        if setting != "path":
            os.unlink(path)
        raise ConfigurationError(f"UnixSocketConfig.{setting}: {path}: {exc.strerror}") from None
    return sock


# The other end


def peer_uid(sock: socket.socket) -> int:
    """The user id of the process at the other end: who connected, or who began to listen.

    Raises:
        OSError: the kernel does not say.
    """
    if sys.platform == "linux":
        _, uid, _ = struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return uid
    option = getattr(socket, "LOCAL_PEERCRED", None)
    if option is None:
        raise OSError(errno.ENOTSUP, "this platform does not tell who is at the other end of a socket")
    # SOL_LOCAL is 0 there. A socket whose peer has gone gives less.
    told = sock.getsockopt(0, option, 76)
    if len(told) < struct.calcsize(_XUCRED):
        raise OSError(errno.ENOTCONN, "nobody is at the other end")
    _, uid, _ = struct.unpack_from(_XUCRED, told)
    return uid


def check_peer(sock: socket.socket, allowed_uids: tuple[int, ...] = ()) -> Peer:
    """Who has connected, if they may; see `BoundSocket.admit`."""
    uid = peer_uid(sock)
    if uid != os.geteuid() and uid not in allowed_uids:
        text = f"uid {uid} may not connect"
        events.record("peer.refused", text, peer="unix", setting="UnixSocketConfig.allowed_uids")
        raise PermissionError(errno.EPERM, text)
    return Peer("unix", uid=uid)


def connect(config: UnixSocketConfig) -> socket.socket:
    """A connection to a server, of which it is sure that an allowed user serves it. Nothing was sent.

    Args:
        config: `path`, and `allowed_uids` beside the process's own.

    Returns:
        A connected socket that does not block.

    Raises:
        ConnectionFailed: nothing is there, it is no socket, nobody serves it, or somebody else does.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ConnectionFailed("this platform has no Unix sockets")
    path = config.path
    try:
        found = os.lstat(path)
    except OSError as exc:
        raise ConnectionFailed(f"{path}: {exc.strerror}; is the server running?") from None
    if stat.S_ISLNK(found.st_mode):
        raise ConnectionFailed(f"{path} is a symbolic link; name the socket itself")
    if not stat.S_ISSOCK(found.st_mode):
        raise ConnectionFailed(f"{path} is not a socket")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
        uid = peer_uid(sock)
    except OSError as exc:
        sock.close()
        raise ConnectionFailed(f"{path}: {_why(exc)}") from None
    if uid != os.geteuid() and uid not in config.allowed_uids:
        sock.close()
        events.record("peer.refused", f"uid {uid} serves {path}", setting="UnixSocketConfig.allowed_uids")
        raise ConnectionFailed(
            f"{path} is served by another user (uid {uid}); if that is right, name it in UnixSocketConfig.allowed_uids"
        )
    return sock


def _why(exc: OSError) -> str:
    if exc.errno == errno.ECONNREFUSED:
        return "nobody serves it; is the server running?"
    if exc.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
        return "the server takes no more connections now"
    return str(exc.strerror)


# Lines


class UnixShell(DuplexShell):
    """One connection over a Unix socket, framed as stdio; a `Guest` of the listener.

    Args:
        guests, place, connect, limits, address: see `DuplexShell`.

    A client that ends its sending side is answered what it has asked, and then the connection ends.
    """

    __slots__ = ("_backlog", "_lines", "_rest")

    def __init__(
        self,
        guests: Guests,
        place: Place,
        connect: Callable[[Self], Conversation],
        *,
        limits: Limits | None = None,
        address: str = "unix",
    ) -> None:
        super().__init__(guests, place, connect, limits=limits, address=address)
        self._lines = LineReader(self._limits.message_bytes)
        self._backlog: deque[bytes | TooLong] = deque()
        self._rest = 0

    def eof_received(self) -> bool:
        if self._shut:
            return False
        last = self._lines.close()
        if last is not None:
            self._backlog.append(last)
        self._rest = 0
        self._eof = True
        self.resume()
        return not self.closing

    def _feed(self, data: bytes) -> None:
        self._backlog.extend(self._lines.feed(data))
        end = data.rfind(b"\n") + 1
        self._rest = len(data) - end if end else self._rest + len(data)

    def _begun(self) -> int:
        return self._rest

    def _step(self) -> bool:
        if not self._backlog:
            return False
        line = self._backlog.popleft()
        if isinstance(line, bytes):
            self._receive(line)
        else:
            self._messages += 1
            self._peer.too_long()
        return True

    def _encode(self, message: bytes) -> None:
        self._out.append(message)
        self._out.append(b"\n")
