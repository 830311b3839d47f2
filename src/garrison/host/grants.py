"""What somebody has allowed for more than one call: `Grants`, kept in the record `grants` of a `State`.

Rules of this file:
- A grant is for one tool of one server as it was when it was given: the server's identity, the tool's name and the
  digest of its definition are compared, and another definition ends it for good.
- It is for these very arguments, or for those of a pattern that whoever gave it wrote. An argument never becomes a
  pattern because a model wrote a `*` into it.
- It ends: after 30 days at the latest. A clock that goes back ends all of them, since nobody knows any more how old
  they are.
- Arguments are kept as a digest and a short text without what looks like a key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from secrets import token_hex
from typing import TYPE_CHECKING, Final, NamedTuple, cast, final

import msgspec

from ..errors import ConfigurationError
from ..gate.hygiene import visible
from ..gate.redaction import redact
from .patterns import ArgumentPattern
from .questions import cut, shown

if TYPE_CHECKING:
    from .questions import Always
    from .state import Record, State

__all__ = ["LONGEST", "Grant", "Grants"]

LONGEST: Final = 30 * 86_400.0
"""Seconds that a grant may hold."""
_RECORD: Final = "grants"
_SLACK: Final = 60.0
"""Seconds that a clock may be put back, as clocks are, and that pass before its time is written down again."""
_MOST: Final = 1000
_SHOWN: Final = 300

_log = logging.getLogger("garrison.host")
_sorted: Final = msgspec.json.Encoder(order="sorted")


class Grant(NamedTuple):
    """One grant, for a person."""

    id: str
    """What it is revoked by."""
    alias: str
    tool: str
    """The exposed name, `alias.tool`."""
    identity: str
    """Of the server."""
    digest: str
    """Of the tool's definition."""
    arguments: str
    """Which calls, as one line; cut where it is long."""
    granted: float
    """In seconds of `time.time`."""
    until: float


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A grant as it is written."""

    alias: str
    tool: str
    identity: str
    digest: str
    shown: str
    granted: float
    until: float
    exact: str = ""
    """The digest of the only arguments; empty where there is a pattern."""
    pattern: dict[str, object] = {}

    def covers(self, arguments: Mapping[str, object]) -> bool:
        if self.exact:
            return self.exact == _digest(arguments)
        try:
            return ArgumentPattern(self.pattern).surely(arguments)
        except ConfigurationError:
            return False


@final
class Grants:
    """Grants, as they are written now: what another process adds or revokes counts at once.

    Args:
        state: where they are kept.
        clock: seconds since 1970; steady: seconds that only go forward. Both for tests.
    """

    __slots__ = ("_clock", "_started", "_state", "_steady")

    def __init__(
        self,
        state: State,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._clock = clock
        self._steady = steady
        self._started = clock() - steady()

    def find(self, identity: str, tool: str, digest: str, arguments: Mapping[str, object]) -> Grant | None:
        """The grant by which a call needs no question.

        Args:
            identity: of the server.
            tool: the exposed name.
            digest: of the definition as it is now.
            arguments: as they would be sent.

        Raises:
            StateError: what was granted cannot be read.
        """
        record = self._state.read(_RECORD)
        kept = _kept(record)
        if not kept:
            return None
        now = self._clock()
        if self._went_back(record, now):
            with self._state.changing(_RECORD) as record:
                self._restart(record, now)
            return None
        mine = {name: each for name, each in kept.items() if each.identity == identity and each.tool == tool}
        ended = {name for name, each in mine.items() if each.digest != digest or not _holds(each, now)}
        found = next((name for name, each in mine.items() if name not in ended and each.covers(arguments)), None)
        if ended or now > _latest(record) + _SLACK:
            self._change(now, ended)
        return None if found is None else _grant(found, mine[found])

    def add(
        self,
        always: Always,
        *,
        identity: str,
        tool: str,
        digest: str,
        arguments: Mapping[str, object],
        alias: str,
    ) -> Grant | None:
        """Keep what somebody has allowed.

        Args:
            always: which calls, and how long; more than `LONGEST` is `LONGEST`.
            identity, tool, digest: what it is for.
            arguments: of the call at which it was given.
            alias: of the server, for people.

        Returns:
            The grant; None where nothing was kept, because it would hold for no time or there are too many.

        Raises:
            ConfigurationError: the pattern is none.
            StateError: it cannot be written.
        """
        if not always.seconds > 0:
            return None
        exact = _digest(arguments) if always.arguments is None else ""
        pattern = dict(always.arguments or {})
        ArgumentPattern(pattern, "Always.arguments")
        if always.arguments is None and not exact:
            return None
        now = self._clock()
        kept = _Kept(
            alias=alias,
            tool=tool,
            identity=identity,
            digest=digest,
            shown=cut(redact(visible(shown(dict(arguments) if exact else pattern))), _SHOWN),
            granted=now,
            until=now + min(always.seconds, LONGEST),
            exact=exact,
            pattern=pattern,
        )
        name = token_hex(4)
        with self._state.changing(_RECORD) as record:
            if self._went_back(record, now):
                self._restart(record, now)
            others = {
                key: each for key, each in _kept(record).items() if _holds(each, now) and not _replaced(each, kept)
            }
            if len(others) >= _MOST:
                _log.warning("%d grants are kept already: this one holds for one call", _MOST)
                return None
            _write(record, {**others, name: kept}, now)
        return _grant(name, kept)

    def listed(self) -> tuple[Grant, ...]:
        """All that hold now, the oldest first. Raises `StateError`."""
        record, now = self._state.read(_RECORD), self._clock()
        if self._went_back(record, now):
            return ()
        found = [_grant(name, each) for name, each in _kept(record).items() if _holds(each, now)]
        return tuple(sorted(found, key=lambda grant: grant.granted))

    def revoke(self, *ids: str) -> int:
        """End grants.

        Args:
            ids: which; none is all.

        Returns:
            How many there were.

        Raises:
            StateError: it cannot be written.
        """
        now = self._clock()
        with self._state.changing(_RECORD) as record:
            kept = _kept(record)
            left = {name: each for name, each in kept.items() if ids and name not in ids}
            _write(record, left, max(now, _latest(record)))
        return len(kept) - len(left)

    def end(self, identity: str, tool: str | None = None) -> int:
        """End the grants of a server, or of one of its tools by the exposed name: it is not what it was.

        Returns:
            How many there were.

        Raises:
            StateError: it cannot be written.
        """
        kept = _kept(self._state.read(_RECORD))
        ids = [name for name, each in kept.items() if each.identity == identity and tool in (None, each.tool)]
        return self.revoke(*ids) if ids else 0

    def _went_back(self, record: Record, now: float) -> bool:
        """Whether the clock is behind what was written down, or behind what has passed since this object was made."""
        return now < max(_latest(record), self._started + self._steady()) - _SLACK

    def _restart(self, record: Record, now: float) -> None:
        _log.warning("The clock went back: what was allowed for longer is asked about again")
        _write(record, {}, now)
        self._started = now - self._steady()

    def _change(self, now: float, ended: set[str]) -> None:
        with self._state.changing(_RECORD) as record:
            left = {name: each for name, each in _kept(record).items() if name not in ended}
            _write(record, left, max(now, _latest(record)))


def _kept(record: Record) -> dict[str, _Kept]:
    """The entries that can be read; what is none of ours allows nothing."""
    entries = record.get("grants")
    found: dict[str, _Kept] = {}
    for name, entry in cast("dict[str, object]", entries).items() if isinstance(entries, dict) else ():
        try:
            found[name] = msgspec.convert(entry, _Kept)
        except msgspec.ValidationError:
            _log.warning("A grant cannot be read and does not count: %s", visible(name)[:40])
    return found


def _write(record: Record, kept: Mapping[str, _Kept], now: float) -> None:
    record["grants"] = {name: msgspec.to_builtins(each) for name, each in kept.items()}
    record["seen"] = now


def _latest(record: Record) -> float:
    """The latest time at which this record was written."""
    seen = record.get("seen")
    return float(seen) if isinstance(seen, (int, float)) else 0.0


def _holds(kept: _Kept, now: float) -> bool:
    return kept.granted - _SLACK <= now < min(kept.until, kept.granted + LONGEST)


def _replaced(old: _Kept, new: _Kept) -> bool:
    """Whether the new one stands in the place of the old one: the same calls, or another definition of the tool."""
    if (old.identity, old.tool) != (new.identity, new.tool):
        return False
    return old.digest != new.digest or (old.exact, old.pattern) == (new.exact, new.pattern)


def _digest(arguments: Mapping[str, object]) -> str:
    """Of these very arguments; empty where they are no JSON."""
    try:
        return "sha256:" + sha256(_sorted.encode(dict(arguments))).hexdigest()
    except (TypeError, ValueError):
        return ""


def _grant(name: str, kept: _Kept) -> Grant:
    calls = f"only {kept.shown}" if kept.exact else kept.shown
    return Grant(name, kept.alias, kept.tool, kept.identity, kept.digest, calls, kept.granted, kept.until)
