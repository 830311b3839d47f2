"""What stands in an audit log: one line of JSON for each event, and marks of the log's own between them.

Rules of this file:
- A line begins with `seq`, `time` and `event`, or `log` for a mark, and ends with `hash`. Members come in the order of
  the classes here; empty ones are left out. No event can make a mark.
- A line is printable: what is not, and what turns the direction of text, is written as a JSON escape, so that it is
  shown and not obeyed, and reads back unchanged.
- Values of arguments are not written. There is a keyed digest of all of them, and the plain values of those that the
  application lists. Every text is cut to a length, and what looks like a credential is masked.
- What is read is held to the same form, or refused with a reason.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from ..errors import ConfigurationError
from .chain import HASH_CHARS

if TYPE_CHECKING:
    from ..events import Event

__all__ = ["MAX_LINE", "WIDTH", "Line", "Mark", "Record", "RecordError", "Recorder", "encode", "read_line", "stamp"]

WIDTH: Final = 500
"""Characters of one text at most."""
MAX_LINE: Final = 512 * 1024
"""Bytes of a line at most, as it is read. None that is written comes near."""
_MOST_FIELDS: Final = 32
_WINDOW: Final = 4096
_MARGIN: Final = 512
"""Characters before a cut that are not shown: a key that was cut in two looks like none."""
_CREDENTIAL: Final = re.compile(
    r"pass(word|wd|phrase|code)|secret|token|api_?key|authorization|cookie|credential|private_?key|signature|"
    r"verifier|assertion|request_?state|^(auth|jwt|otp|pin|pwd|key|code|state)$"
)
_YEAR_10000: Final = 253_402_300_800
_PREFIX: Final = "blake2b:"
_NUMBERS: Final = frozenset(map(str, range(10_000)))
"""Most ids of requests: they need no look."""
_MOST_REMEMBERED: Final = 1000

Scalar = str | int | float | bool | None


class Record(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One event, as it is written. Texts are those of `Event`, bounded and redacted."""

    seq: int
    """Its number. There are no gaps, in one file and from file to file."""
    time: str
    """RFC 3339, UTC, with microseconds."""
    event: str
    decision: str = ""
    outcome: str = ""
    server: str = ""
    principal: str = ""
    tenant: str = ""
    peer: str = ""
    method: str = ""
    target: str = ""
    request: str = ""
    arguments: str = ""
    """`blake2b:` and 64 hex digits: keyed BLAKE2b (RFC 7693) over the arguments as JSON with sorted members."""
    fields: dict[str, Scalar] | None = None
    """The arguments that the application lists for this tool."""
    error: str = ""
    setting: str = ""
    text: str = ""
    duration_ms: float = 0.0
    hash: str = ""


class Mark(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A record of the log about itself. Where the log has a key, each of them has a `mac`."""

    seq: int
    time: str
    log: str
    """`begun` is the first line of every file; `opened` follows where a file is continued; `checkpoint`; `repeated`
    stands for identical events that were counted; `rotated` and `closed` are the last of a file and of a run."""
    format: int = 0
    """Of `begun`: 1."""
    file: int = 0
    """Of `begun`: the number of the file, from 1."""
    id: str = ""
    """Of `begun`: random; the file's own key is derived from it."""
    first: int = 0
    """Of `begun`: the oldest file that was kept."""
    previous: str = ""
    """Of `begun`: the last hash of the file before."""
    key: str = ""
    """Of `begun`: `AuditKey.id`; empty without a key."""
    every: int = 0
    """Of `begun`: so many records at most from one `mac` to the next."""
    records: int = 0
    """Records of this file before this one."""
    unclean: bool = False
    """Of `opened`: the run before did not close the log."""
    torn: int = 0
    """Of `opened`: bytes of an incomplete last line that were cut off."""
    torn_sha256: str = ""
    lost: int = 0
    """Of `opened`: events that could not be written."""
    event: str = ""
    """Of `repeated`: which event, with `decision` and `peer`; and `count`, how many more there were in a second."""
    decision: str = ""
    peer: str = ""
    count: int = 0
    text: str = ""
    mac: str = ""
    hash: str = ""


class RecordError(ValueError):
    """A line that no audit log has written. The message says why, in words of its own."""


class Line(NamedTuple):
    """A line, taken apart. What it says is only as true as its hash."""

    entry: Record | Mark
    body: bytes
    """What its hash is over."""
    signed: bytes
    """What its `mac` is over."""
    hash: bytes


_encoder: Final = msgspec.json.Encoder()
_record_decoder: Final = msgspec.json.Decoder(Record)
_mark_decoder: Final = msgspec.json.Decoder(Mark)
_TIME: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
_HEAD: Final = re.compile(rf'\{{"seq":(?:0|[1-9][0-9]{{0,17}}),"time":"{_TIME}","(event|log)":"'.encode())
_HASH: Final = re.compile(rb',"hash":"([0-9a-f]{64})"\}\n')
_MAC: Final = re.compile(rb',"mac":"[0-9a-f]{64}"')
_HASH_LENGTH: Final = len(',"hash":""}\n') + HASH_CHARS
_MAC_LENGTH: Final = len(',"mac":""') + HASH_CHARS


def encode(entry: Record | Mark) -> bytes:
    """An entry as one JSON object on one line, of printable characters, without a line end.

    Raises:
        UnicodeEncodeError: a text has half of a surrogate pair, which JSON cannot carry.
    """
    data = _encoder.encode(entry)
    if data.isascii() and b"\x7f" not in data:
        return data
    return "".join(c if c.isprintable() else _escape(c) for c in data.decode()).encode()


def _escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def read_line(line: bytes) -> Line:
    """Take a line apart.

    Args:
        line: with its line end.

    Raises:
        RecordError: it is not of the form that is written here.
    """
    head, tail = _HEAD.match(line), _HASH.fullmatch(line, max(0, len(line) - _HASH_LENGTH))
    if len(line) > MAX_LINE:
        raise RecordError("longer than any record")
    if tail is None:
        raise RecordError("does not end with a hash")
    if head is None:
        raise RecordError("does not begin as a record does")
    body = line[: tail.start()] + b"}"
    signed = body
    is_mark = head[1] == b"log"
    try:
        entry = (_mark_decoder if is_mark else _record_decoder).decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RecordError("is not a record") from None
    if isinstance(entry, Mark) and entry.mac:
        begin = len(body) - 1 - _MAC_LENGTH
        if _MAC.fullmatch(body, max(0, begin), len(body) - 1) is None:
            raise RecordError("has a mac that is none")
        signed = body[:begin] + b"}"
    return Line(entry, body, signed, bytes.fromhex(tail[1].decode()))


_second: tuple[int, str] = (-1, "")


def stamp(now: float) -> str:
    """Seconds of `time.time` as RFC 3339 in UTC; the present where they are no time of this calendar."""
    global _second
    if not 0 <= now < _YEAR_10000:
        now = time.time()
    second = int(now)
    known, text = _second
    if known != second:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _second = (second, text)
    return f"{text}.{int((now - second) * 1e6):06d}Z"


class Recorder:
    """Makes records of events.

    Args:
        key: of the digests of arguments.
        fields: tool -> names of arguments whose values are written, where they are text, numbers or booleans.

    Raises:
        ConfigurationError: a listed name is one that credentials have, or a tool has more than 32.
    """

    __slots__ = ("_fields", "_fitting", "_key", "_redact")

    def __init__(self, key: bytes, fields: Mapping[str, Iterable[str]] | None = None) -> None:
        self._key = key
        self._fields = {tool: _listed(tool, names) for tool, names in (fields or {}).items()}
        self._redact: Callable[[str], str] | None = None
        self._fitting: set[tuple[str, ...]] = set()

    def record(self, event: Event, seq: int = 0) -> Record:
        """The record of an event, with this number."""
        (
            name, text, decision, outcome, server, principal, tenant, peer, method, target, request, arguments, error,
            setting, duration, when,
        ) = event  # fmt: skip
        most = (name, text, decision, outcome, server, principal, tenant, peer, method, target, error, setting)
        clean = (most in self._fitting or self._fit(most)) and (request in _NUMBERS or self._fit((request,)))
        digest, fields = "", None
        if arguments is not None:
            digest = self._digest(arguments)
            if target in self._fields:
                fields = self._values(self._fields[target], arguments)
        if not clean:
            name, text, decision, outcome, server, principal, tenant, peer, method, target, error, setting = map(
                self.clean, most
            )
            request = self.clean(request)
        return Record(
            seq, stamp(when or time.time()), name or "?", decision, outcome, server, principal, tenant, peer, method,
            target, request, digest, fields, error, setting, text,
            round(duration * 1000, 3) if 0 < duration < _YEAR_10000 else 0.0,
        )  # fmt: skip

    def _fit(self, texts: tuple[str, ...]) -> bool:
        """Whether these may be written as they are. Those of which there are few are remembered."""
        try:
            together = "\n".join(texts)
            together.encode()
        except (TypeError, UnicodeEncodeError):  # a number where a text should be; half of a surrogate pair
            return False
        if len(together) > WIDTH or (self._redact or self._redactor())(together) is not together:
            return False
        if len(texts) > 1:
            if len(self._fitting) >= _MOST_REMEMBERED:
                self._fitting.clear()
            self._fitting.add(texts)
        return True

    def clean(self, value: object) -> str:
        """A text as it may be written: bounded, redacted, and one that JSON can carry."""
        text = value if isinstance(value, str) else str(value)
        cut = len(text) > _WINDOW
        if cut:
            text = text[:_WINDOW]
        if not text.isascii():
            text = text.encode("utf-8", "backslashreplace").decode()
        text = (self._redact or self._redactor())(text)
        if cut:
            text = text[: max(0, len(text) - _MARGIN)]
        return text if len(text) <= WIDTH and not cut else text[: WIDTH - 3] + "..."

    def _redactor(self) -> Callable[[str], str]:
        from ..gate.redaction import redact  # lazy: who reads a log writes none

        self._redact = redact
        return redact

    def _digest(self, arguments: object) -> str:
        try:
            data = msgspec.json.encode(arguments, order="sorted")
        except (TypeError, ValueError, OverflowError, RecursionError):
            return self._digest_of_others(arguments)
        return _PREFIX + blake2b(data, key=self._key, digest_size=32).hexdigest()

    def _digest_of_others(self, arguments: object) -> str:
        """For what msgspec cannot write: integers above 64 bits, and halves of surrogate pairs."""
        import json

        try:
            data = json.dumps(arguments, sort_keys=True, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError):
            return ""
        return _PREFIX + blake2b(data, key=self._key, digest_size=32).hexdigest()

    def _values(self, names: tuple[str, ...], arguments: object) -> dict[str, Scalar] | None:
        if not isinstance(arguments, Mapping):
            return None
        values: dict[str, Scalar] = {}
        for name in names:
            value: object = arguments.get(name)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # narrowed from object
            if isinstance(value, str):
                values[name] = self.clean(value)
            elif isinstance(value, (bool, float)) or (isinstance(value, int) and -(2**63) <= value < 2**63):
                values[name] = value
        return values or None


def _listed(tool: str, names: Iterable[str]) -> tuple[str, ...]:
    listed = tuple(names)
    if isinstance(names, str) or len(listed) > _MOST_FIELDS:
        raise ConfigurationError(f"AuditLog.fields: for {tool!r}, a list of at most {_MOST_FIELDS} names")
    for name in listed:
        if _CREDENTIAL.search(name.lower().replace("-", "_")):
            raise ConfigurationError(f"AuditLog.fields: {name!r} of {tool!r} is named like a credential; rename it")
    return listed
