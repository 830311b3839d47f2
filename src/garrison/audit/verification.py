"""Whether an audit log is as it was written, and if not, from which record on.

Rules of this file:
- Every line counts: its number, its hash over the line before it, and the `mac` of marks where the key is given. The
  first that does not fit ends the look; what is after it is not to be believed either.
- What cannot be told from the file is said, not guessed: which records no key protects yet, and that an end that is
  not closed may be missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hmac import compare_digest
from typing import TYPE_CHECKING, BinaryIO, Final

from ..errors import ConfigurationError
from ..policy.secret import Secret
from .chain import HASH_CHARS, NO_HASH, AuditKey, linked, mac_of
from .reading import lines, log_files
from .record import MAX_LINE, Mark, RecordError, read_line

if TYPE_CHECKING:
    from .record import Line, Record

__all__ = ["Problem", "Verification", "verify"]

_NUMBERED: Final = re.compile(r"\.[0-9]{6,9}\Z")


@dataclass(frozen=True, slots=True)
class Problem:
    """The first thing that is wrong."""

    file: str
    line: int
    """In that file, from 1."""
    record: int
    """The number of the record that is wrong or missing: everything before it is as it was written."""
    what: str

    def __str__(self) -> str:
        return f"record {self.record}: {self.what} ({self.file}, line {self.line})"


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found. The names of these fields are those of `garrison audit verify --json`."""

    files: tuple[str, ...]
    problem: Problem | None
    records: int
    """Those that are as they were written."""
    first: int | None
    """The number of the first of them."""
    last: int | None
    began_at: str
    ended_at: str
    """Times of the first and the last of them."""
    head: str
    """The hash of the last of them."""
    keyed: bool
    """The log has a key."""
    verified: bool
    """And the key was given, and fits."""
    unprotected: int
    """Of the last records, those after the last `mac`: who can write the file could have changed them."""
    adopted: int
    """Records that were in the same case when a run began after one that was killed."""
    closed: bool
    """The last record says that the log was closed: nothing is missing after it."""
    torn: int
    """Bytes of an incomplete last line. It was never acknowledged, if it was not changed."""
    lost: int
    """Events that could not be written, as the log says itself."""

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return self.problem is None


class _Wrong(Exception):
    def __init__(self, what: str, record: int | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.record = record


def verify(
    path: str | os.PathLike[str],
    *,
    key: AuditKey | Secret | bytes | Iterable[AuditKey] | None = None,
    closed: bool = False,
    head: str | None = None,
) -> Verification:
    """Look through a log, from its oldest file on.

    Args:
        path: the file that is written; those before it are found beside it. Or one of those, by itself.
        key: of the log; several where it was changed in between. With a key, a file of no key is wrong.
        closed: the log has to end with its closing mark.
        head: a hash that was kept elsewhere, which has to be in the log: nothing up to it was cut off.

    Raises:
        ConfigurationError: there is no log, it cannot be read, or a key is not of its form.
    """
    path = os.fspath(path)
    files = log_files(path)
    walk = _Walk(_keys(key), head, alone=_NUMBERED.search(path) is not None)
    problem: Problem | None = None
    for file in files:
        try:
            with open(file, "rb") as opened:
                problem = walk.file(file, opened, last=file == files[-1])
        except OSError as exc:
            raise ConfigurationError(f"{file}: {exc.strerror}") from None
        if problem is not None:
            break
    return walk.result(tuple(files), problem or walk.at_end(files[-1], closed=closed))


def _keys(key: AuditKey | Secret | bytes | Iterable[AuditKey] | None) -> dict[str, AuditKey] | None:
    if key is None:
        return None
    if isinstance(key, (Secret, bytes)):
        key = AuditKey(key)
    return {each.id: each for each in ([key] if isinstance(key, AuditKey) else key)}


class _Walk:
    """One way through all files."""

    def __init__(self, keys: dict[str, AuditKey] | None, head: str | None, *, alone: bool) -> None:
        self._keys = keys
        self._alone = alone
        """One file of several: what was before it is not asked for."""
        self._oldest = 0
        """The number of the first file."""
        self._head = head
        self._seen_head = head is None
        self._begun: Mark | None = None
        self._key: bytes | None = None
        """Of the file."""
        self._next: int | None = None
        """The number of the record that is due."""
        self._hash = NO_HASH
        self._records = self._since = self._adopted = self._torn = self._lost = 0
        self._first: int | None = None
        self._began_at = self._ended_at = ""
        self._last = ""
        """The kind of the last mark, where it is the last record."""
        self._keyed = False
        self._lines = 0

    def file(self, path: str, file: BinaryIO, *, last: bool) -> Problem | None:
        """Look through one file."""
        self._lines, self._torn = 0, 0
        before, self._begun = self._begun, None
        for line in lines(file):
            self._lines += 1
            try:
                if last and not line.endswith(b"\n") and len(line) < MAX_LINE:
                    self._torn = len(line)
                    return None
                self._line(line, before)
            except RecordError as exc:
                return self._problem(path, str(exc), None)
            except _Wrong as exc:
                return self._problem(path, exc.what, exc.record)
        if self._begun is None and not last:
            return self._problem(path, "the file is empty", None)
        return None

    def at_end(self, path: str, *, closed: bool) -> Problem | None:
        """What is wrong where nothing else is."""
        begun = self._begun
        if begun is not None and not self._alone and begun.first < self._oldest:
            record = max(0, (self._first or 0) - 1)
            return Problem(path, 1, record, f"missing: files {begun.first} to {self._oldest - 1}")
        self._lines += 1
        if closed and (self._last != "closed" or self._torn):
            return self._problem(path, "missing: the log was not closed, or its end was cut off", None)
        if not self._seen_head:
            return self._problem(path, "no record has the hash that was given: the end was cut off", None)
        return None

    def result(self, files: tuple[str, ...], problem: Problem | None) -> Verification:
        """All that was found."""
        return Verification(
            files=files,
            problem=problem,
            records=self._records,
            first=self._first,
            last=None if self._next is None or not self._records else self._next - 1,
            began_at=self._began_at,
            ended_at=self._ended_at,
            head=self._hash.hex() if self._records else "",
            keyed=self._keyed,
            verified=self._keyed and self._keys is not None,
            unprotected=self._since if self._keyed else self._records,
            adopted=self._adopted,
            closed=self._last == "closed" and not self._torn,
            torn=self._torn,
            lost=self._lost,
        )

    def _problem(self, path: str, what: str, record: int | None) -> Problem:
        due = self._next if self._next is not None else 0
        return Problem(path, self._lines, due if record is None else record, what)

    def _line(self, line: bytes, before: Mark | None) -> None:
        read = read_line(line)
        entry = read.entry
        if self._begun is None:
            self._file_begins(entry, before)
        elif self._next is not None and entry.seq != self._next:
            raise _Wrong(_out_of_order(entry.seq, self._next))
        if linked(self._hash, read.body)[1] != read.hash:
            raise _Wrong("changed: its hash does not fit")
        if isinstance(entry, Mark):
            if entry.log == "begun" and self._lines > 1:
                raise _Wrong("a file begins in the middle of another")
            self._mark(entry, read)
        else:
            self._last = ""
            self._since += 1
            every = 0 if self._begun is None else self._begun.every
            if every and self._since > every:
                raise _Wrong(f"not signed: after {every} records there has to be a checkpoint")
        self._take(entry.seq, entry.time, read.hash)

    def _take(self, seq: int, time: str, digest: bytes) -> None:
        if self._first is None:
            self._first, self._began_at = seq, time
        self._records += 1
        self._next, self._hash, self._ended_at = seq + 1, digest, time
        self._seen_head = self._seen_head or digest.hex() == self._head

    def _file_begins(self, entry: Record | Mark, before: Mark | None) -> None:
        """The first line of a file: what it is, and what it follows."""
        if not isinstance(entry, Mark) or entry.log != "begun" or len(entry.previous) != HASH_CHARS:
            raise _Wrong("missing: the file does not begin as one does")
        if before is not None and entry.file != before.file + 1:
            raise _Wrong(f"missing: after file {before.file} comes file {entry.file}")
        if self._next is not None and entry.seq != self._next:
            raise _Wrong(_out_of_order(entry.seq, self._next))
        if self._next is None:
            try:
                self._hash = bytes.fromhex(entry.previous)
            except ValueError:
                raise _Wrong("changed: it follows no hash", entry.seq) from None
            self._next, self._oldest = entry.seq, entry.file
            if entry.file == 1 and (entry.seq != 0 or self._hash != NO_HASH):
                raise _Wrong("missing: file 1 has to begin with record 0", 0)
        elif entry.previous != self._hash.hex():
            raise _Wrong("the file does not follow the one before it")
        self._begun = entry
        self._keyed = bool(entry.key)
        self._key = None
        if self._keys is not None:
            if not entry.key:
                raise _Wrong("not signed: this file has no key")
            key = self._keys.get(entry.key)
            if key is None:
                raise _Wrong(f"signed with another key than the one given (id {entry.key})")
            self._key = key.for_file(entry.id)

    def _mark(self, mark: Mark, read: Line) -> None:
        if self._key is not None and not compare_digest(mac_of(self._key, self._hash, read.signed), mark.mac):
            raise _Wrong("not signed with the key: it, or records since the last signature, were made by somebody else")
        if mark.log == "opened" and mark.unclean:
            self._adopted += self._since
        self._lost += mark.lost
        self._since = 0
        self._last = mark.log


def _out_of_order(found: int, due: int) -> str:
    if found > due:
        return f"missing: in its place stands record {found}"
    return f"missing: in its place stands record {found} again"
