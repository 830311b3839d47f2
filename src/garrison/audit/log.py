"""The audit log in a file: one record for each event, in the kernel's hands when `write` returns.

Rules of this file:
- One `os.write` for each record. What is in memory is moved on after it, so memory never knows of more than the disk.
- Whatever fails, the file is given up and the event is counted as lost. The next event opens it again as a program does
  that starts: a torn line is cut off, the chain goes on, and a mark says how much was lost. No other state is kept.
- What was acknowledged and is not there any more is not passed over: the log stays shut until somebody has looked.
- A thread does what is due without an event: to make records durable, sign them and write counts. It never holds up a
  writer while the disk works.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from errno import ENOENT, ENOSPC
from hashlib import sha256
from math import isfinite
from secrets import token_bytes, token_hex
from typing import TYPE_CHECKING, Final, Literal, Self, final

from ..errors import ConfigurationError, GarrisonError, InsecureConfigurationError
from ..policy.secret import Secret
from .chain import NO_HASH, AuditKey, linked, with_mac
from .contract import AuditFailed
from .ending import read_ending
from .flood import Flood
from .place import Place
from .record import Mark, Recorder, encode, stamp

if TYPE_CHECKING:
    from ..events import Event
    from .ending import Ending

__all__ = ["AuditLog"]

_MIB: Final = 1024 * 1024
_FORMAT: Final = 1
_TICK: Final = 1.0
_ALWAYS: Final = frozenset({"call.begun", "call.ended"})
"""What was done is always written; what was refused, in a flood, is counted."""

_forks = 0
"""How many forks lie between this process and the one that loaded this file."""


def _forked() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@final
class AuditLog:
    """A file of audit records, chained and signed; a sink. Its methods may be called from any thread.

    Args:
        path: the file. Its folder belongs to this user, or to root, and others cannot write in it; it is made with
            mode 0700 where there is none. A full file is put beside it as `path.000001`, `.000002` and so on.
        key: signs the log and keys the digests of arguments: an `AuditKey`, 32 random bytes, or a `Secret` with them
            as text. With None, changes are found only where who made them did not compute the hashes anew, and
            digests can be compared within one run.
        fsync: when records are made durable: `always`, before `write` returns; `interval`, every `interval` seconds;
            `never`, when the system likes. A program that is killed loses nothing with any of them; a machine may.
        interval: seconds.
        max_bytes: of a file, before the next one is begun.
        keep: full files that are kept, the newest; None for all.
        rate: identical events (of the same name and peer) that are written in a second, before they are counted
            instead. Calls that were begun are always written.
        fields: tool -> names of arguments whose values are written as they are, where they are text, numbers or
            booleans.
        checkpoint_records, checkpoint_seconds: at most so many records, and so many seconds, pass until what is there
            is signed.

    Raises:
        ConfigurationError: a value is not of its form.

    The file is opened by `open`, or by the first event.
    """

    __slots__ = (
        *("_begun", "_closed", "_descriptor", "_ending", "_every", "_fields", "_file_key", "_flood", "_forks"),
        *("_fsync", "_hash", "_interval", "_keep", "_key", "_lock", "_lost", "_max", "_minder", "_number", "_path"),
        *("_place", "_recorder", "_seconds", "_seq", "_signed_at", "_since", "_size"),
        *("_synced_at", "_unsynced", "_whole", "_why", "__weakref__"),
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: AuditKey | Secret | bytes | None = None,
        fsync: Literal["always", "interval", "never"] = "interval",
        interval: float = 1.0,
        max_bytes: int = 64 * _MIB,
        keep: int | None = 10,
        rate: int = 100,
        fields: Mapping[str, Iterable[str]] | None = None,
        checkpoint_records: int = 1000,
        checkpoint_seconds: float = 60.0,
    ) -> None:
        if os.name != "posix":
            raise ConfigurationError("AuditLog needs POSIX file modes and locks; use another sink on this platform")
        if fsync not in ("always", "interval", "never"):
            raise ConfigurationError("AuditLog.fsync: always, interval or never")
        for name, seconds in (("interval", interval), ("checkpoint_seconds", checkpoint_seconds)):
            if not (isfinite(seconds) and 0.01 <= seconds <= 86_400):
                raise ConfigurationError(f"AuditLog.{name}: seconds, from 0.01 to 86400")
        for name, number, least in (
            ("max_bytes", max_bytes, 4096),
            ("keep", 0 if keep is None else keep, 0),
            ("rate", rate, 1),
            ("checkpoint_records", checkpoint_records, 1),
        ):
            if type(number) is not int or number < least:
                raise ConfigurationError(f"AuditLog.{name}: a whole number, {least} or more")
        self._path = self._whole = os.path.abspath(path)
        self._key = key if key is None or isinstance(key, AuditKey) else AuditKey(key)
        self._recorder = Recorder(token_bytes(32) if self._key is None else self._key.for_arguments(), fields)
        self._fsync = fsync
        self._interval = interval
        self._max = max_bytes
        self._keep = keep
        self._every = checkpoint_records
        self._seconds = checkpoint_seconds
        self._flood = Flood(rate)
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._minder: threading.Thread | None = None
        self._closed = False
        self._forks = _forks
        self._place: Place | None = None
        self._descriptor = -1
        self._file_key: bytes | None = None
        self._size = 0
        self._number = 0
        """Of the file; 0 until one was opened."""
        self._begun = 0
        """The number of the file's first record."""
        self._seq = 0
        """Of the next record."""
        self._hash = NO_HASH
        """Of the last one."""
        self._since = 0
        """Records since the last mark with a `mac`."""
        self._signed_at = self._synced_at = 0.0
        self._unsynced = False
        self._lost = 0
        self._why = ""
        """What made the file be given up."""

    def __repr__(self) -> str:
        return f"AuditLog({self._path!r}, key={self._key!r}, fsync={self._fsync!r})"

    def __reduce__(self) -> str:
        raise TypeError("an AuditLog holds a file and a key and is not pickled")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def path(self) -> str:
        """The file that is written."""
        return self._path

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last record. Kept elsewhere, they show later that nothing was cut off before it."""
        with self._lock:
            return self._seq - 1, self._hash.hex()

    def open(self, part: str = "") -> None:
        """Open the file now, to fail before the first event.

        Args:
            part: for one of several processes that were forked from one: its file is `path.part`.

        Raises:
            AuditFailed: another process writes it, it was changed, or the system says no.
            InsecureConfigurationError: others can change the file or its folder.
            ConfigurationError: the part is not a name of letters, digits and underscores.
        """
        self._check_process()
        with self._lock:
            if part and self._place is None:
                if not (part.isidentifier() and part.isascii()):
                    raise ConfigurationError("AuditLog.open: a part is letters, digits and underscores")
                self._path = f"{self._whole}.{part}"
            try:
                self._ready()
            except OSError as exc:
                raise self._failed(exc) from None

    def write(self, event: Event) -> None:
        """Record an event. When this returns, the kernel has it; with `fsync="always"`, the disk.

        Raises:
            AuditFailed: it could not be recorded, and is counted as lost. The next event tries again.
        """
        if self._forks != _forks:
            self._check_process()
        with self._lock:
            try:
                if self._descriptor < 0:
                    self._ready()
                now = time.monotonic()
                self._write_counts(now)
                if event.name not in _ALWAYS and not self._flood.admit(event.name, event.decision, event.peer):
                    return
                self._make_room()
                record = self._recorder.record(event, self._seq)
                self._append(encode(record))
                if self._fsync == "always":
                    self._flush()
            except (OSError, AuditFailed, InsecureConfigurationError) as exc:
                raise self._failed(exc, lost=1) from None

    def sync(self) -> None:
        """Make durable what was written.

        Raises:
            AuditFailed: the disk does not take it.
        """
        self._check_process()
        with self._lock:
            if self._descriptor < 0:
                if self._why:
                    raise AuditFailed(f"{self._path}: {self._why}")
                return
            try:
                self._flush()
            except OSError as exc:
                raise self._failed(exc) from None

    def close(self) -> None:
        """Write what is counted and the closing mark, and let go of the file. A second call does nothing.

        Raises:
            AuditFailed: the closing mark could not be written. The file is let go of.
        """
        if self._place is not None and self._forks != _forks:
            return  # it belongs to the process before the fork
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._ending.set()
            try:
                if self._descriptor >= 0:
                    self._write_counts(time.monotonic(), end=True)
                    self._sign(self._new_mark("closed"))
                    os.fsync(self._descriptor)
            except OSError as exc:
                raise self._failed(exc) from None
            finally:
                self._give_up()
                if self._place is not None:
                    self._place.close()
        minder = self._minder
        if minder is not None and minder is not threading.current_thread():
            minder.join(timeout=5.0)

    def _check_process(self) -> None:
        """Without the lock, which a thread of the process before the fork may have held."""
        if self._place is not None and self._forks != _forks:
            raise AuditFailed(f"{self._path}: opened before a fork; open it in each process, with a part of its own")

    # With the lock held

    def _ready(self) -> None:
        if self._closed:
            raise AuditFailed(f"{self._path}: the audit log is closed")
        if self._place is None:
            self._place = Place(self._path)
            self._forks = _forks
        if self._descriptor < 0:
            try:
                self._continue(self._place)
            except BaseException:
                self._give_up()
                if not self._number:  # nothing was written yet, so that another may
                    self._place.close()
                    self._place = None
                raise
        if self._minder is None:
            atexit.register(_close, weakref.ref(self))
            self._minder = threading.Thread(target=self._mind, name="garrison-audit", daemon=True)
            self._minder.start()

    def _continue(self, place: Place) -> None:
        """Go on where the file ends, or begin one."""
        descriptor = place.current()
        ending = None
        if descriptor is not None:
            self._descriptor = descriptor
            ending = read_ending(descriptor, self._path, self._key)
        if ending is None:
            numbers = place.numbers()
            if self._number == 0 and numbers:
                self._number, self._seq, self._hash = self._end_of(place, numbers[-1])
            # A file that was written and is not there any more is one that a verifier has to miss.
            self._begin(place, min([*numbers, self._number or 1]))
            if self._lost or self._why:
                mark = self._new_mark("opened")
                mark.unclean, mark.lost, mark.text = True, self._lost, self._why
                self._sign(mark)
        else:
            self._adopt(place, ending)
        self._lost, self._why = 0, ""

    def _adopt(self, place: Place, ending: Ending) -> None:
        begun, last = ending.begun, ending.last
        if self._number and (self._seq, self._hash) != (last.seq + 1, ending.hash):
            raise AuditFailed(
                f"{self._path} does not end with what was written: look with `garrison audit verify`, then move it away"
            )
        if ending.torn:
            os.ftruncate(self._descriptor, ending.size)
        self._number, self._begun = begun.file, begun.seq
        self._seq, self._hash, self._size = last.seq + 1, ending.hash, ending.size
        self._file_key = None if self._key is None else self._key.for_file(begun.id)
        kind = last.log if isinstance(last, Mark) else ""
        if kind == "rotated" or begun.key != ("" if self._key is None else self._key.id):
            self._next_file(place)
        mark = self._new_mark("opened")
        mark.unclean = kind not in ("closed", "rotated")
        if ending.torn:
            mark.torn = len(ending.torn)
            mark.torn_sha256 = sha256(ending.torn).hexdigest()
        mark.lost, mark.text = self._lost, self._why
        self._sign(mark)

    def _end_of(self, place: Place, number: int) -> tuple[int, int, bytes]:
        """Number, next record and hash at the end of a file that is full."""
        descriptor = place.earlier(number)
        try:
            ending = read_ending(descriptor, f"{self._path}.{number:06d}", self._key)
        finally:
            os.close(descriptor)
        return (number, 0, NO_HASH) if ending is None else (number, ending.last.seq + 1, ending.hash)

    def _begin(self, place: Place, first: int) -> None:
        """Begin a file after the one of `_number`."""
        self._give_up()
        self._descriptor = place.create()
        self._size, self._begun = 0, self._seq
        mark = self._new_mark("begun")
        mark.format, mark.file, mark.first = _FORMAT, self._number + 1, first
        mark.id = token_hex(16)
        mark.previous = self._hash.hex()
        if self._key is not None:
            mark.key, mark.every = self._key.id, self._every
            self._file_key = self._key.for_file(mark.id)
        self._sign(mark)
        self._number += 1

    def _next_file(self, place: Place) -> None:
        if self._fsync != "never":
            self._flush()
        place.put_away(self._number)
        numbers = place.numbers()
        if self._keep is not None:
            for number in numbers[: max(0, len(numbers) - self._keep)]:
                place.remove(number)
            numbers = place.numbers()
        self._begin(place, numbers[0] if numbers else self._number + 1)

    def _make_room(self) -> None:
        """Before a record: a file that is full is put away, and what is there is signed when it is time."""
        if self._size >= self._max and self._seq - self._begun > 1 and self._place is not None:
            self._sign(self._new_mark("rotated"))
            self._next_file(self._place)
        elif self._since >= self._every and self._key is not None:
            self._sign(self._new_mark("checkpoint"))

    def _write_counts(self, now: float, *, end: bool = False) -> None:
        repeated = self._flood.ended(now, end=end)
        while repeated:
            each = repeated[-1]
            mark = self._new_mark("repeated")
            mark.event, mark.decision, mark.peer = map(self._recorder.clean, each[:3])
            mark.count = each.more
            try:
                self._sign(mark)
            except OSError:
                self._flood.back(repeated)
                raise
            repeated.pop()

    def _new_mark(self, kind: str) -> Mark:
        return Mark(self._seq, stamp(time.time()), kind, records=self._seq - self._begun)

    def _sign(self, mark: Mark) -> None:
        body = encode(mark)
        if self._file_key is not None:
            body = with_mac(self._file_key, self._hash, body)
        self._append(body)
        self._since = 0
        self._signed_at = time.monotonic()

    def _append(self, body: bytes) -> None:
        line, digest = linked(self._hash, body)
        if os.write(self._descriptor, line) != len(line):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        self._hash = digest
        self._size += len(line)
        self._seq += 1
        self._since += 1
        self._unsynced = True

    def _flush(self) -> None:
        os.fsync(self._descriptor)
        self._unsynced = False
        self._synced_at = time.monotonic()

    def _give_up(self) -> None:
        """Close the file. Whoever needs it next opens it anew."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    def _failed(self, exc: GarrisonError | OSError, lost: int = 0) -> AuditFailed:
        self._give_up()
        self._lost += lost
        if isinstance(exc, OSError):
            self._why = exc.strerror or type(exc).__name__
            return AuditFailed(f"{self._path}: {self._why}")
        return exc if isinstance(exc, AuditFailed) else AuditFailed(str(exc))

    # The thread

    def _mind(self) -> None:
        while not self._ending.wait(min(self._interval, _TICK)):
            copy = -1
            with self._lock:
                if self._closed:
                    return
                try:
                    copy = self._tick()
                except (OSError, AuditFailed) as exc:
                    self._failed(exc)
            if copy >= 0:
                self._flush_copy(copy)

    def _tick(self) -> int:
        """What is due; a descriptor to flush, or -1."""
        place = self._place
        if self._descriptor < 0 or place is None:
            return -1
        if not place.is_current(self._descriptor):
            raise OSError(ENOENT, "the file was moved or removed while it was written")
        now = time.monotonic()
        self._write_counts(now)
        if self._file_key is not None and self._since and now - self._signed_at >= self._seconds:
            self._sign(self._new_mark("checkpoint"))
        if self._fsync == "interval" and self._unsynced and now - self._synced_at >= self._interval:
            self._unsynced, self._synced_at = False, now
            return os.dup(self._descriptor)
        return -1

    def _flush_copy(self, copy: int) -> None:
        try:
            os.fsync(copy)
        except OSError as exc:
            with self._lock:
                self._failed(exc)
        finally:
            os.close(copy)


def _close(log: weakref.ref[AuditLog]) -> None:
    """End a log that nobody closed, with its mark, when the program does."""
    found = log()
    if found is not None:
        with suppress(AuditFailed):
            found.close()
