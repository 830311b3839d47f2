"""Confining this process: Landlock for files, a seccomp filter for sockets. Linux; of the standard library alone.

Rules of this file:
- It imports nothing of the package: the supervisor of commands loads it without the rest.
- `confine` holds for the calling thread and for all that it starts, for good. It raises `OSError` if a part fails.
- Landlock says no to whatever has no rule. What it does not know in this kernel's version, the filter refuses.

Landlock: include/uapi/linux/landlock.h. Filters: include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

TYPE_CHECKING = False  # type checkers know the name; `typing` costs more to load than the rest of this file
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

__all__ = ["confine", "landlock_version", "no_new_privileges", "prctl", "supported_machine"]

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_RULE_PATH_BENEATH: Final = 1

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_IOCTL_DEV: Final = 1 << 15
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""The rights that a rule for something else than a directory may give."""
_NODES: Final = (1 << 6) | (1 << 11)
"""Making device nodes: nobody is given that."""

_KNOWN: Final = {1: (1 << 13) - 1, 2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
"""Rights by the version of Landlock that brought them."""
_TCP: Final = 0b11
"""Bind and connect, from version 4."""
_SCOPES: Final = 0b11
"""Abstract Unix sockets and signals of processes outside, from version 6."""

READ: Final = _READ_FILE | _READ_DIR
EXECUTE: Final = READ | _EXECUTE
WRITE: Final = ((1 << 16) - 1) & ~_EXECUTE & ~_NODES

_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_FILTER: Final = 2
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_ALLOW: Final = 0x7FFF0000
_ERROR: Final = 0x00050000
_KILL: Final = 0x80000000
_PID: Final = 16
_NEW_LIMIT: Final = 32
"""Where `struct seccomp_data` has the lower halves of prlimit's first and third arguments."""
_X32: Final = 0x40000000
"""System calls of x86-64 with 32-bit pointers: the same calls under other numbers."""


_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class _Machine:
    """What a filter has to know of a machine: its number for audits, and those of system calls."""

    __slots__ = ("audit", "prlimit", "socket", "truncate")

    def __init__(self, audit: int, prlimit: int, socket: int, truncate: int) -> None:
        self.audit = audit
        self.prlimit = prlimit
        self.socket = socket
        self.truncate = truncate


_IO_URING_SETUP: Final = 425
"""The same on all machines."""


_MACHINES: Final = {
    "x86_64": _Machine(0xC000003E, 302, 41, 76),
    "aarch64": _Machine(0xC00000B7, 261, 198, 45),
    "riscv64": _Machine(0xC00000F3, 261, 198, 45),
}


def supported_machine() -> bool:
    """Whether the filter is known for this machine: Linux on x86-64, ARM64 or RISC-V, as a 64-bit program."""
    return sys.platform == "linux" and os.uname().machine in _MACHINES and sys.maxsize > 2**32


def landlock_version() -> int:
    """The version of Landlock that the kernel offers; 0 where it offers none."""
    if sys.platform != "linux":
        return 0
    try:
        return _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError:
        return 0


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument; Linux. Raises `OSError`."""
    if _LIBC.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise _error()


def no_new_privileges() -> None:
    """From here on no program gains privileges by being started: set-user-ID bits and file capabilities count not."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def confine(*, read: Iterable[str], execute: Iterable[str], write: Iterable[str], network: bool) -> None:
    """Leave this process these files and directories, and all below them. `no_new_privileges` comes first.

    Args:
        read, execute, write: what may be read; read and started; read and changed.
        network: whether sockets may be made.

    Raises:
        OSError: the kernel refuses, or a path is not there.
    """
    version = landlock_version()
    if version < 1 or not supported_machine():
        raise OSError(errno.ENOSYS, "Landlock is not available")
    handled = 0
    for since, rights in _KNOWN.items():
        handled |= rights if since <= version else 0
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", 0 if network else _TCP)
    if version >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    rules = _syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for paths, rights in ((read, READ), (execute, EXECUTE), (write, WRITE)):
            for path in paths:
                _allow(rules, path, rights & handled)
        _syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0))
    finally:
        os.close(rules)
    machine = _MACHINES[os.uname().machine]
    refused = [] if network else [machine.socket, _IO_URING_SETUP]
    refused += [machine.truncate] if version < 3 else []
    _filter(machine, refused)


def _allow(rules: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        _syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(descriptor)


def _filter(machine: _Machine, refused: list[int]) -> None:
    """These system calls fail with EACCES; another machine's calls end the process."""
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, machine.audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    steps += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERROR | errno.EACCES)]
    for number in refused:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | errno.EACCES)]
    # prlimit(2) of this user's other processes would end or starve them. Its own (0), or looking (no new one), is well.
    steps += [(_EQUAL, 0, 7, machine.prlimit), (_LOAD, 0, 0, _PID), (_EQUAL, 5, 0, 0)]
    steps += [(_LOAD, 0, 0, _NEW_LIMIT), (_EQUAL, 0, 2, 0), (_LOAD, 0, 0, _NEW_LIMIT + 4), (_EQUAL, 1, 0, 0)]
    steps += [(_RETURN, 0, 0, _ERROR | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    if _LIBC.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(program), 0, 0) != 0:
        raise _error()


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _syscall(number: int, *arguments: object) -> int:
    result: int = _LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
