"""`garrison audit verify|tail|report FILE`: an audit log for people.

Rules of this file:
- What is in a log came from peers: on a terminal it is shown and not obeyed.
- The key comes from a file or the environment, never from the command line, which others can read.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from ..audit.chain import AuditKey
from ..audit.reading import entries, follow, log_files
from ..audit.record import Mark, Record, encode, stamp
from ..audit.summary import Report, report
from ..audit.verification import Verification, verify
from ..errors import ConfigurationError
from ..policy.secret import Secret
from .failures import OK, USAGE
from .style import bold, dim, emit, emit_json, green, red, safe, table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

__all__ = ["audit"]

_CHANGED: Final = 1
_KEY_VARIABLE: Final = "GARRISON_AUDIT_KEY"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TOP: Final = 10


def audit(options: Namespace) -> int:
    """`garrison audit ACTION FILE`"""
    try:
        return {"verify": _verify, "tail": _tail, "report": _report}[options.action](options)
    except ConfigurationError as exc:
        print(f"garrison: {safe(str(exc))}", file=sys.stderr)
        return USAGE


# verify


def _keys(options: Namespace) -> list[AuditKey] | None:
    if options.key:
        return [AuditKey.read(path) for path in options.key]
    text = os.environ.get(_KEY_VARIABLE)
    return [AuditKey(Secret(text))] if text else None


def _verify(options: Namespace) -> int:
    found = verify(options.file, key=_keys(options), closed=options.closed, head=options.head)
    if options.json:
        emit_json({"ok": found.ok, **asdict(found)})
    else:
        word = red("BROKEN", sys.stdout) if found.problem is not None else green("ok", sys.stdout)
        print(word)
        for heading, text in _worded(found):
            emit(f"{heading:<7} {text}")
    return OK if found.ok else _CHANGED


def _worded(found: Verification) -> Iterator[tuple[str, str]]:
    if found.problem is not None:
        yield "at", str(found.problem)
    last = "" if found.last is None else f", {found.first} to {found.last}, {found.began_at} to {found.ended_at}"
    files = "1 file" if len(found.files) == 1 else f"{len(found.files)} files"
    yield "good", f"{found.records} records in {files}{last}"
    yield "head", found.head
    yield "key", _about_key(found)
    yield "end", _about_end(found)
    if found.adopted:
        yield "note", f"{found.adopted} records were not signed yet when a run was killed"
    if found.lost:
        yield "note", f"{found.lost} events could not be written, as the log says itself"


def _about_key(found: Verification) -> str:
    if not found.keyed:
        return "none: hashes show a change only to those who keep the head elsewhere"
    if not found.verified:
        return "not looked at: give it with --key, or in GARRISON_AUDIT_KEY"
    return "fits" + (f"; the last {found.unprotected} records are not signed yet" if found.unprotected else "")


def _about_end(found: Verification) -> str:
    if found.problem is not None:
        return "not looked at"
    if found.closed:
        return "closed"
    torn = f", and {found.torn} bytes of a torn line follow" if found.torn else ""
    return f"open: what came after record {found.last} could be missing{torn}"


# tail


def _tail(options: Namespace) -> int:
    if options.lines < 0:
        raise ConfigurationError("--lines must not be negative")
    since = "" if options.since is None else _since(options.since)
    files = log_files(options.file)
    wanted = _Wanted(options.event, options.principal, since)
    show = _show_json if options.json else _show
    if not options.follow:
        for entry in deque(filter(wanted, entries(files)), maxlen=options.lines):
            show(entry)
        return OK
    for entry in follow(files, options.lines, wanted):
        show(entry)
        sys.stdout.flush()
    return OK


class _Wanted:
    """Which entries are shown."""

    def __init__(self, event: str | None, principal: str | None, since: str) -> None:
        self._event = event
        self._principal = principal
        self._since = since

    def __call__(self, entry: Record | Mark) -> bool:
        if entry.time < self._since:
            return False
        if self._event is not None and not fnmatchcase(entry.event, self._event):
            return False
        if self._principal is None:
            return True
        return isinstance(entry, Record) and fnmatchcase(entry.principal, self._principal)


def _since(text: str) -> str:
    """As a record has it."""
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isascii() and number.isdigit() and len(number) < 10:
        return stamp(max(0.0, time.time() - int(number) * _UNITS[unit]))
    from datetime import UTC, datetime

    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError("--since: 10m, 2h, 3d, or a time as 2026-07-28T12:00") from None
    return stamp((when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp())


def _show_json(entry: Record | Mark) -> None:
    emit(encode(entry).decode())


def _show(entry: Record | Mark) -> None:
    """One line: when, what, how, who, and what about it."""
    out = sys.stdout
    when = dim(entry.time[:23], out)
    if isinstance(entry, Mark):
        said = (f"{entry.count} more of {entry.event} {entry.peer}", f"{entry.lost} lost", f"{entry.torn} bytes torn")
        about = [words for words, shown in zip(said, (entry.count, entry.lost, entry.torn), strict=True) if shown]
        text = _one_line(", ".join(filter(None, (*about, entry.text))))
        print(f"{when} {dim(entry.log.ljust(22), out)} {text}".rstrip())
        return
    paint = red if entry.decision in ("refused", "failed") or entry.outcome == "error" else green
    how = paint((entry.outcome or entry.decision or "-").ljust(9), out)
    who = " ".join(filter(None, (entry.principal, entry.peer)))
    what = " ".join(filter(None, (entry.method, entry.target)))
    took = f"{entry.duration_ms:g} ms" if entry.duration_ms else ""
    about = (what, who and f"by {who}", took, entry.text, entry.error, entry.setting and f"({entry.setting})")
    rest = "  ".join(_one_line(text) for text in about if text)
    print(f"{when} {bold(_one_line(entry.event).ljust(22), out)} {how} {rest}".rstrip())


def _one_line(text: str) -> str:
    return " ".join(safe(text).split())


# report


def _report(options: Namespace) -> int:
    found = report(options.file)
    if options.json:
        emit_json(found.as_dict())
        return OK
    files = "1 file" if found.files == 1 else f"{found.files} files"
    emit(f"{found.records} records in {files}, {found.first} to {found.last}")
    for title, headings, rows in _tables(found):
        if rows:
            print()
            table(title, headings, rows)
    for count, words in (
        (found.counted, "events were counted instead of written"),
        (found.lost, "events could not be written"),
        (found.unclean, "runs ended without closing the log"),
    ):
        if count:
            print(f"\n{count} {words}")
    print("\nNot verified: `garrison audit verify` does that.")
    return OK


def _tables(found: Report) -> Iterator[tuple[str, tuple[str, ...], list[list[str]]]]:
    for title, heading, counts in (
        ("Events", "event", found.events),
        ("Decisions", "decision", found.decisions),
        ("Calls", "tool and outcome", found.tools),
        ("Who", "principal", found.principals),
        ("Tenants", "tenant", found.tenants),
        ("Refused most", "what", found.refusals),
    ):
        yield title, (heading, "count"), [[kind, str(count)] for kind, count in counts.top(_TOP)]
    if found.latency.count:
        times = found.latency.as_dict()
        yield "Durations of calls, in ms", tuple(times), [[f"{value:g}" for value in times.values()]]
