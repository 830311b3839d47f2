"""The other side of `process`: starts one program under its limits, and ends all that came of it.

Rules of this file:
- It runs in a process of its own that never has a second thread, so that code between fork and exec is safe. It imports
  nothing of the package but `landlock`.
- `serve` forks one supervisor for every command. The supervisor is what orphans of its program are given to
  (PR_SET_CHILD_SUBREAPER), however often they fork and whatever session they make: where it has no child left, nothing
  of the command is left. Elsewhere than on Linux, what left the program's process group lives on.
- The end of the control connection, for whatever reason, ends the command; so does the program's own end.
- Answers are one JSON object: `{"status": n}`, or `{"failed": "where: why"}` where the program never ran.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

from . import landlock

__all__ = ["serve"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_REPORT: Final = 3
"""The descriptor on which the child says why the program did not start; exec closes it."""
_LINUX: Final = sys.platform == "linux"
_PAUSE: Final = 0.002

# Decoded JSON, made by `process` and checked there.
_Plan = dict[str, Any]


def serve(door: int) -> None:
    """Start a supervisor for each byte that comes with four descriptors: control, input, output, errors.

    Args:
        door: a connected Unix socket. Its end is the end of this process.
    """
    os.closerange(3, door)
    os.closerange(door + 1, 65536)  # what other libraries left to be inherited
    with contextlib.suppress(OSError):
        os.setsid()
    gc.disable()  # nothing here lives long, and a collection in a forked process copies its pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps supervisors
    entrance = socket.socket(fileno=door)
    while True:
        said, descriptors, _, _ = socket.recv_fds(entrance, 1, 4)
        if not said:
            return
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        with contextlib.suppress(OSError):  # no process to be had: the caller reads the end of its connection
            if len(descriptors) == 4 and os.fork() == 0:
                _only(_supervise, entrance, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _only(work: Callable[..., None], *arguments: object) -> NoReturn:
    """The whole life of a forked process."""
    try:
        work(*arguments)
    finally:
        os._exit(0)


def _supervise(entrance: socket.socket, control: int, stdin: int, stdout: int, stderr: int) -> None:
    entrance.close()
    connection = socket.socket(fileno=control)
    plan: _Plan = json.loads(_read_frame(connection))
    if _LINUX:
        landlock.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(awake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    told, tell = os.pipe()
    me = os.getpid()
    child = os.fork()
    if child == 0:
        _only(_become, plan, (stdin, stdout, stderr), tell, me)
    for descriptor in (stdin, stdout, stderr, tell):
        os.close(descriptor)
    answer = _watch(connection, child, awake, told, float(plan["grace"]))
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(answer).encode())


def _read_frame(connection: socket.socket) -> bytes:
    head = _read_exactly(connection, 4)
    return _read_exactly(connection, struct.unpack("!I", head)[0])


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            os._exit(0)  # the caller is gone before anything was started
        parts += part
    return bytes(parts)


def _watch(connection: socket.socket, child: int, awake: int, told: int, grace: float) -> dict[str, object]:
    """Wait for the program's end or the order to end it; end what is left; say how it went."""
    waiting: list[socket.socket | int] = [connection, awake, told]
    failure = b""
    status: int | None = None
    deadline: float | None = None
    while status is None:
        patience = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(waiting, (), (), patience)
        if told in ready:
            piece = os.read(told, 500)
            failure += piece
            if not piece:
                waiting.remove(told)
        if connection in ready:  # nothing is said there any more: this is its end
            waiting.remove(connection)
            deadline = time.monotonic() + grace
            _signal_group(child, signal.SIGTERM)
        if awake in ready:
            os.read(awake, 512)
        _, status = _reap(child)
        if status is None and deadline is not None and time.monotonic() >= deadline:
            break
    ended = _end_all(child)
    status = ended if status is None else status
    if not failure and told in waiting:
        failure = os.read(told, 500)
    return {"failed": failure.decode("utf-8", "replace")} if failure else {"status": status}


def _reap(child: int) -> tuple[bool, int | None]:
    """Take what has ended. Whether any process is left, and the status of the child if it was among them."""
    status: int | None = None
    while True:
        try:
            pid, code = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False, status
        if pid == 0:
            return True, status
        if pid == child:
            status = os.waitstatus_to_exitcode(code)


def _end_all(child: int) -> int | None:
    """Kill until nothing is left. The status of the child if it ends here."""
    found: int | None = None
    pause = _PAUSE
    while True:
        left, status = _reap(child)
        found = status if status is not None else found
        if not left:
            return found
        if not _LINUX:
            _signal_group(child, signal.SIGKILL)
        # What is stopped starts nothing more; what it started before is found the next time round. A group is
        # signalled at one stroke, so that nothing gets away by forking and ending faster than it is looked for.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            found_now = _descendants(os.getpid())
            for group in {group for _, group in found_now} - {os.getpgrp()}:
                _signal_group(group, number)
            for pid, _ in found_now:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        time.sleep(pause)
        pause = min(2 * pause, 0.1)  # what sleeps in the kernel ends when it wakes


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _descendants(root: int) -> list[tuple[int, int]]:
    """All processes below this one and their groups, by /proc. Their groups are of sessions that the tree began."""
    children: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc") if _LINUX else ():
        if name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended
                _, parent, group = _stat(name)
                children.setdefault(parent, []).append((int(name), group))
    found = list(children.get(root, ()))
    for pid, _ in found:  # grows while it is read
        found += children.get(pid, ())
    return found


def _stat(pid: str) -> tuple[bytes, int, int]:
    """State, parent and group of a process: proc(5), /proc/pid/stat."""
    descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    try:
        state, parent, group = os.read(descriptor, 512).rpartition(b")")[2].split(None, 3)[:3]
    finally:
        os.close(descriptor)
    return state, int(parent), int(group)


def _become(plan: _Plan, streams: tuple[int, int, int], tell: int, parent: int) -> None:
    """In the child: put everything in its place, then be the program."""
    where = "session"
    try:
        os.setsid()
        where = "streams"
        for place, descriptor in enumerate(streams):
            os.dup2(descriptor, place)
        if tell != _REPORT:
            os.dup2(tell, _REPORT, inheritable=False)
            tell = _REPORT
        where = "signals"
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o077)
        if _LINUX:
            where = "privileges"
            landlock.no_new_privileges()
            landlock.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                return
        where = "folder"
        os.chdir(_path(plan["cwd"]))
        where = "sandbox"
        if plan["sandbox"] is not None:
            landlock.confine(**plan["sandbox"])
        where = "arguments"
        argv = [argument.encode("utf-8") for argument in plan["argv"]]
        env = {name.encode(): value.encode("utf-8", "surrogateescape") for name, value in plan["env"].items()}
        where = "limits"
        for name, most in plan["limits"].items():
            _limit(getattr(resource, name), most)
        where = "program"
        os.execve(_path(plan["program"]), argv, env)  # noqa: S606 - one program, no shell: what this file is for
    except Exception as exc:  # noqa: BLE001 - whatever it is, the program does not start, and the caller is told
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
        os.write(tell, f"{where}: {why}".encode())


def _path(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _limit(kind: int, most: int) -> None:
    """Set a limit, never above what this process may have itself."""
    _, hard = resource.getrlimit(kind)
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (value, value))
