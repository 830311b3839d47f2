"""What a command may touch: `Sandbox`, held by Landlock or by bubblewrap.

Rules of this file:
- It fails closed: a sandbox that cannot be had here is an error when it is made, never a command without one.
- A command has the system's programs and libraries to read; everything else is listed. Lists are resolved when the
  sandbox is made, and what stands in them exists.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from ..errors import ConfigurationError

__all__ = ["Sandbox"]

_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Programs and libraries: read and started."""
_COMMON: Final = (
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/alternatives", "/etc/ssl/certs", "/etc/pki"),
    *("/etc/ssl/openssl.cnf", "/etc/crypto-policies"),
    *("/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"),
)
"""What programs read that have no secret in it."""
_NAMES: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/gai.conf")
"""What programs read to find others, where there is a network."""
_MEMORY: Final = str(64 * 1024 * 1024)
"""Bytes that a command in bubblewrap may keep in its /tmp."""
_BUBBLEWRAP: Final = "/usr/bin/bwrap"
_PATH = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Programs and libraries of the system may be read and started; beside them only what stands here.

    Args:
        read: files and folders that may be read.
        write: files and folders that may be read and changed.
        execute: files and folders that may be read and started; those of the system and the program itself are.
        network: whether sockets may be made. Without, none of any kind.
        by: "landlock" needs Linux 5.13 and no privileges; "bubblewrap" needs its program and user namespaces, and gives
            namespaces of its own for processes, users and files.

    Raises:
        ConfigurationError: a path is not there, or this sandbox cannot be had here.
    """

    read: Sequence[_PATH] = ()
    write: Sequence[_PATH] = ()
    execute: Sequence[_PATH] = ()
    network: bool = False
    by: Literal["landlock", "bubblewrap"] = "landlock"
    _paths: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        available = _AVAILABLE.get(self.by)
        if available is None:
            raise ConfigurationError('Sandbox.by is "landlock" or "bubblewrap"')
        if type(self.network) is not bool:
            raise ConfigurationError("Sandbox.network is True or False")
        paths = {name: _resolved(name, getattr(self, name)) for name in ("read", "write", "execute")}
        object.__setattr__(self, "_paths", paths)
        available()

    @staticmethod
    def lacking(by: str = "landlock") -> str:
        """Why it cannot be had here; empty where it can."""
        try:
            _AVAILABLE[by]()
        except ConfigurationError as exc:
            return str(exc)
        return ""

    def described(self) -> str:
        """In one line, what may be touched."""
        parts = ["has the network" if self.network else "has no network", "reads and starts programs of the system"]
        verbs = {"read": "reads", "execute": "reads and starts", "write": "changes"}
        parts += [f"{verb} {', '.join(self._paths[name])}" for name, verb in verbs.items() if self._paths[name]]
        return f"{self.by}: {'; '.join(parts)}"

    def landlock(self, program: str, *, writable: Sequence[str] = ()) -> dict[str, object] | None:
        """Arguments of `landlock.confine` for a program; None where bubblewrap holds it.

        Args:
            program: its whole path.
            writable: folders that it may change beside those of `write`.
        """
        if self.by != "landlock":
            return None
        names = _NAMES if self.network else ()
        return {
            "read": [*_there(_COMMON), *_there(names), *self._paths["read"]],
            "execute": [*_there(_SYSTEM), program, *self._paths["execute"]],
            "write": ["/dev/null", *self._paths["write"], *writable],
            "network": self.network,
        }

    def wrapped(
        self, program: str, argv: tuple[str, ...], cwd: str, *, writable: Sequence[str] = ()
    ) -> tuple[str, tuple[str, ...]]:
        """The program and arguments to start in place of these. `writable` is as of `landlock`."""
        if self.by != "bubblewrap":
            return program, argv
        words = ["bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
        words += ["--share-net"] if self.network else []
        for path in _there(_SYSTEM):
            words += ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind", path, path]
        words += ["--proc", "/proc", "--dev", "/dev", "--size", _MEMORY, "--tmpfs", "/tmp"]  # noqa: S108 - one of its own, in memory
        shown = [*_there(_COMMON[:-4]), *(_there(_NAMES) if self.network else ())]
        shown += [*self._paths["read"], *self._paths["execute"]]
        if not _is_of_system(program):
            shown.append(program)
        for path in sorted(path for path in set(shown) if not any(path.startswith(f"{each}/") for each in shown)):
            words += ["--ro-bind", path, path]
        for path in (*self._paths["write"], *writable):
            words += ["--bind", path, path]
        named = argv[0] if _is_of_system(argv[0]) else program  # some programs act by the name they are called with
        words += ["--dir", cwd, "--remount-ro", "/", "--chdir", cwd, "--", named, *argv[1:]]
        return _BUBBLEWRAP, tuple(words)


def _resolved(name: str, paths: object) -> tuple[str, ...]:
    if not isinstance(paths, Sequence) or isinstance(paths, str | bytes):
        raise ConfigurationError(f"Sandbox.{name} is a list of paths")
    found: list[str] = []
    for path in paths:  # pyright: ignore[reportUnknownVariableType] - judged by what realpath says of each
        try:
            found.append(os.path.realpath(os.fspath(path), strict=True))  # pyright: ignore[reportUnknownArgumentType] - the same
        except (OSError, TypeError, ValueError):
            raise ConfigurationError(f"Sandbox.{name}: {path!r} is no file or folder here") from None
    return tuple(dict.fromkeys(found))


def _is_of_system(path: str) -> bool:
    return path.startswith(tuple(f"{folder}/" for folder in _SYSTEM))


def _there(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]


def _check_landlock() -> None:
    from . import landlock

    if not landlock.supported_machine():
        raise ConfigurationError("Sandbox: Landlock needs Linux on x86-64, ARM64 or RISC-V")
    if landlock.landlock_version() < 1:
        raise ConfigurationError("Sandbox: this kernel has no Landlock (Linux 5.13; lsm=landlock,... at boot)")


def _check_bubblewrap() -> None:
    """Try it: whether namespaces are to be had is known only then."""
    import subprocess

    if sys.platform != "linux" or not os.access(_BUBBLEWRAP, os.X_OK):
        raise ConfigurationError(f"Sandbox: {_BUBBLEWRAP} is missing (apt-get install bubblewrap)")
    if os.stat(_BUBBLEWRAP).st_mode & stat.S_ISUID:
        raise ConfigurationError(f"Sandbox: {_BUBBLEWRAP} is set-user-ID; commands gain no privileges")
    trial = [_BUBBLEWRAP, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--", "/usr/bin/true"]
    try:
        done = subprocess.run(trial, env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        raise ConfigurationError("Sandbox: bubblewrap does not run here") from None
    if done.returncode:
        raise ConfigurationError("Sandbox: bubblewrap cannot make its namespaces here (user namespaces are off)")


_AVAILABLE: Final = {"landlock": _check_landlock, "bubblewrap": _check_bubblewrap}
