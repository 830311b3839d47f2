"""The other side of `process`: starts one program under its limits, and ends all that came of it.

Rules of this file:
- It runs in a process of its own that never has a second thread, so that code between fork and exec is safe. It imports
  nothing of the package but `landlock`.
- `serve` forks one supervisor for every command. The supervisor is what orphans of its program are given to
  (PR_SET_CHILD_SUBREAPER), however often they fork and whatever session they make: where it has no child left, nothing
  of the command is left. Elsewhere than on Linux, what left the program's process group lives on.
- The end of the control connection, for whatever reason, ends the command; so does the program's own end, and the end
  of the process that the helper serves, even where a fork of it still holds the connection.
- Answers are JSON objects, a line each: `{"started": pid}` where the plan asks for it; then one `{"status": n}`, with
  `"passed": "processes"` or `"memory"` where a bound of the whole tree ended it, or `{"failed": "where: why"}` where
  the program never ran. Orders are single bytes: `t` is SIGTERM for the program's group, `k` the end of everything.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import resource
import select
import signal
import socket
import struct
import sys
import time

from . import landlock

TYPE_CHECKING = False  # type checkers know the name; `typing` costs more to load than the rest of this file
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, NoReturn

    # Decoded JSON, made by `process` and checked there.
    _Plan = dict[str, Any]

__all__ = ["serve"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_REPORT: Final = 3
"""The descriptor on which the child says why the program did not start; exec closes it."""
_LINUX: Final = sys.platform == "linux"
_PAUSE: Final = 0.002
_LOOK: Final = 0.25
"""Seconds between two looks at a tree that has bounds; more where looking takes long."""
_SHARE: Final = 50
"""One part in how many of this machine's time looking may take."""


def serve(door: int) -> None:
    """Start a supervisor for each byte that comes with four descriptors: control, input, output, errors.

    Args:
        door: a connected Unix socket. Its end is the end of this process.
    """
    os.closerange(3, door)
    os.closerange(door + 1, 65536)  # what other libraries left to be inherited
    with contextlib.suppress(OSError):
        os.setsid()
    gc.disable()  # nothing here makes cycles, and a collection in a forked process copies its pages
    served = _handle(os.getppid())
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
                _only(_supervise, entrance, served, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _only(work: Callable[..., None], *arguments: object) -> NoReturn:
    """The whole life of a forked process."""
    try:
        work(*arguments)
    finally:
        os._exit(0)


def _handle(pid: int) -> int | None:
    """A descriptor that is readable once this parent has ended; None where there is none to be had."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    if os.getppid() == pid:
        return handle
    os.close(handle)  # it ended meanwhile, and so does `serve`
    return None


def _supervise(entrance: socket.socket, served: int | None, control: int, *streams: int) -> None:
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
        _only(_become, plan, streams, tell, me)
    for descriptor in (*streams, tell):
        os.close(descriptor)
    answer: dict[str, object]
    try:
        answer = _Watch(connection, served, child, awake, told, plan).until_ended()
    except Exception as exc:  # noqa: BLE001 - whatever it is, what nobody watches must not live on
        _end_all(child)
        answer = {"failed": f"supervisor: {type(exc).__name__}"}
    _answer(connection, answer)
    connection.close()
    if plan["folder"] is not None:
        _remove(_path(plan["folder"]))


def _answer(connection: socket.socket, answer: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # nobody is there any more to be told
        connection.sendall(json.dumps(answer).encode() + b"\n")


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


class _Watch:
    """Over one program, from its start to its end."""

    def __init__(
        self, connection: socket.socket, served: int | None, child: int, awake: int, told: int, plan: _Plan
    ) -> None:
        self._connection = connection
        self._waiting: list[socket.socket | int] = [connection, awake, told]
        if served is not None:
            self._waiting.append(served)
        self._served = served
        self._child = child
        self._awake = awake
        self._told = told
        self._grace = float(plan["grace"])
        self._report = bool(plan["report"])
        self._bounds = _Bounds(**plan["bounds"]) if plan["bounds"] and _LINUX else None
        self._deadline = math.inf
        self._failure = b""

    def until_ended(self) -> dict[str, object]:
        """Wait for the program's end or the order to end it; end what is left; say how it went."""
        status: int | None = None
        passed = ""
        while status is None and not passed and time.monotonic() < self._deadline:
            until = self._deadline if self._bounds is None else min(self._deadline, self._bounds.next)
            patience = None if until == math.inf else max(0.0, until - time.monotonic())
            self._hear(select.select(self._waiting, (), (), patience)[0])
            _, status = _reap(self._child)
            if self._bounds is not None and status is None:
                passed = self._bounds.passed()
        ended = _end_all(self._child)
        status = ended if status is None else status
        if not self._failure and self._told in self._waiting:
            self._failure = os.read(self._told, 500)
        if self._failure:
            return {"failed": self._failure.decode("utf-8", "replace")}
        return {"status": status, "passed": passed} if passed else {"status": status}

    def _hear(self, ready: list[socket.socket | int]) -> None:
        if self._told in ready:
            piece = os.read(self._told, 500)
            self._failure += piece
            if not piece:
                self._waiting.remove(self._told)
                if self._report and not self._failure:
                    _answer(self._connection, {"started": self._child})
        if self._connection in ready:
            try:
                order = self._connection.recv(1)
            except OSError:  # its other end was closed before all that was said there was read
                order = b""
            self._obey(order)
        if self._served in ready:
            self._obey(b"")
        if self._awake in ready:
            os.read(self._awake, 512)

    def _obey(self, order: bytes) -> None:
        if order == b"k":
            self._deadline = 0.0
            return
        if not order:  # whoever gave orders is gone, or said all
            self._waiting = [each for each in self._waiting if each not in (self._connection, self._served)]
            self._deadline = min(self._deadline, time.monotonic() + self._grace)
        _signal_group(self._child, signal.SIGTERM)


class _Bounds:
    """What the whole tree may have: the system's own limits are for each process, or for all that a user runs."""

    def __init__(self, processes: int | None = None, memory: int | None = None) -> None:
        self._processes = processes
        self._memory = memory
        self.next = 0.0
        """When to look again."""

    def passed(self) -> str:
        """Which bound is passed; empty for none, and where it is not time to look."""
        begun = time.monotonic()
        if begun < self.next:
            return ""
        found = _look(os.getpid(), self._processes)
        passed = ""
        if self._processes is not None and len(found) > self._processes:
            passed = "processes"
        elif self._memory is not None and sum(map(_resident, found)) > self._memory:
            # What processes share was counted for each of them; the exact count takes longer.
            passed = "memory" if sum(map(_share, found)) > self._memory else ""
        now = time.monotonic()
        self.next = now + max(_LOOK, _SHARE * (now - begun))
        return passed


def _look(root: int, enough: int | None) -> list[int]:
    """The processes below this one, no more than one above `enough`."""
    found = [root]
    for pid in found:  # grows while it is read
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            for task in os.listdir(f"/proc/{pid}/task"):
                try:
                    found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
                except FileNotFoundError:
                    if pid == root:  # this kernel does not say
                        return [each for each, _ in _descendants(root)]
        if enough is not None and len(found) > enough + 1:
            break
    return found[1:]


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def _resident(pid: int) -> int:
    """Bytes of memory in use, what is shared with others included; 0 of a process that has ended."""
    try:
        return int(_read(f"/proc/{pid}/statm").split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _share(pid: int) -> int:
    """The same with what is shared divided by those who share it, where the system says that."""
    try:
        lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
    except OSError:
        return _resident(pid)
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:")), _resident(pid))


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


def _remove(folder: bytes) -> None:
    """Remove a folder and all in it, however deep it lies, and what stands in folders that must not be changed."""
    if os.path.islink(folder):
        return
    apart = os.urandom(8).hex().encode()
    found = [folder]
    for place in found:  # grows while it is read
        with contextlib.suppress(OSError):
            os.chmod(place, 0o700)
            for entry in list(os.scandir(place)):
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        os.chmod(entry.path, 0o700)
                        found.append(b"%b/%b-%d" % (folder, apart, len(found)))
                        os.rename(entry.path, found[-1])  # so no path grows long
                    else:
                        os.unlink(entry.path)
            if place != folder:
                os.rmdir(place)
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _descendants(root: int) -> list[tuple[int, int]]:
    """All processes below this one and their groups, by /proc. Their groups are of sessions that the tree began."""
    children: dict[int, list[tuple[int, int]]] = {}
    try:
        names = os.listdir("/proc") if _LINUX else []
    except OSError:  # no descriptor is to be had: whoever asks, asks again
        names = []
    for name in names:
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
    state, parent, group = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split(None, 3)[:3]
    return state, int(parent), int(group)


def _become(plan: _Plan, streams: tuple[int, ...], tell: int, parent: int) -> None:
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
