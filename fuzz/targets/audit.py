"""Lines of an audit log: what is read is of the form that is written, and says what `json.loads` finds in it; what is
written of any event is one printable line; a file is gone on with from its last line, unless that was changed."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import msgspec

from fuzz.oracle import Finding, agree, chance, hold, parts
from garrison.audit.chain import AuditKey, linked, with_mac
from garrison.audit.contract import AuditFailed
from garrison.audit.ending import Ending, read_ending
from garrison.audit.record import MAX_LINE, WIDTH, Mark, Record, Recorder, RecordError, encode, read_line, stamp
from garrison.events import Event

KEY = AuditKey(bytes(32))
_HASH = "0" * 64
_AT = '"time":"2026-07-28T12:00:00.000000Z"'
SEEDS = (
    f'{{"seq":1,{_AT},"event":"call.ended","decision":"allowed","fields":{{"to":"a","n":1.5}},"hash":"{_HASH}"}}\n'.encode(),
    f'{{"seq":0,{_AT},"log":"begun","format":1,"file":1,"id":"ab","first":1,"previous":"{_HASH}","hash":"{_HASH}"}}\n'.encode(),
    f'{{"seq":0,{_AT},"log":"checkpoint","records":3,"mac":"{_HASH}","hash":"{_HASH}"}}\n'.encode(),
    f'{{"seq":12,{_AT},"event":"\\u202e\\n","duration_ms":1e3,"hash":"{_HASH}"}}\n'.encode(),
    f'{{"seq":12,{_AT},"event":"a","event":"b","text":null,"hash":"{_HASH}"}}\n'.encode(),
    b"name\ntext\x1b[2J\xe2\x80\xae\ntarget\r\n{}",
    b'{"seq":01}\n',
    b"\xff\n\xed\xa0\x80\n\x00",
)
WORDS = (
    *(b'"seq":', b'"time":', b'"event":', b'"log":', b'"hash":"', b'"mac":"', b'"previous":"', b'"fields":{', b"\n"),
    *(b"begun", b"opened", b"rotated", b"closed", _HASH.encode(), _AT.encode(), b"\\u0000", b"\xe2\x80\xae", b"null"),
)
_FORM = re.compile(
    r'\{"seq":(0|[1-9]\d{0,17}),"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","(event|log)":".*,"hash":"[0-9a-f]{64}"\}\n',
    re.ASCII | re.DOTALL,
)
_recorder = Recorder(bytes(32), {"x": ["a"]})


def check(data: bytes) -> None:
    for line in data.split(b"\n"):
        one(line + b"\n")
        one(line)
    event(data)
    file(data)


def one(line: bytes) -> None:
    """A line is refused in words of our own, or is what JSON says."""
    try:
        read = read_line(line)
    except RecordError as error:
        hold(len(str(error)) < 60, "what is said", str(error))
        return
    text = line.decode()
    hold(_FORM.fullmatch(text) and len(line) <= MAX_LINE, "the form", line)
    found: dict[str, Any] = json.loads(text)
    kind = Mark if isinstance(read.entry, Mark) else Record
    hold(("log" in found) == (kind is Mark), "the kind", line)
    for name, value in msgspec.to_builtins(read.entry).items():
        agree(name, found.pop(name), value)
    for name, value in found.items():  # what equals its default
        agree(name, value, getattr(read.entry, name))
    agree("the hash", read.hash.hex(), text[-67:-3])
    agree("what is hashed", linked(bytes(32), read.body)[0][:-67], line[:-67])
    if read.signed != read.body:
        hold(read.body.startswith(read.signed[:-1]) and len(read.body) - len(read.signed) == 73, "what is signed", line)


def event(data: bytes) -> None:
    """Whatever an event holds is one printable line, which reads back."""
    texts = [part.decode("utf-8", "surrogateescape") for part in parts(data, 5)]
    made = _recorder.record(Event(*texts, target="x", arguments={"a": texts[0], "b": texts[1]}), 7)
    line, digest = linked(bytes(32), encode(made))
    hold(line[:-1].decode().isprintable() and len(line) < MAX_LINE, "not printable", line)
    hold(len(made.text) <= WIDTH, "too long", made.text)
    made.hash = digest.hex()
    agree("again", read_line(line).entry, made)


def ending(data: bytes) -> Ending | None:
    """The end of a file of these bytes."""
    descriptor = os.memfd_create("audit")
    try:
        os.write(descriptor, data)
        return read_ending(descriptor, "a log", KEY)
    finally:
        os.close(descriptor)


def file(data: bytes) -> None:
    """A file is gone on with from its last line, whatever is torn after it; and not at all once that was changed."""
    try:
        found = ending(data)
    except AuditFailed:
        pass
    else:
        hold(found is None and b"\n" not in data, "adopted", data)
    *texts, torn = data.split(b"\n")
    begun = Mark(0, stamp(1.0), "begun", format=1, file=1, id="x", first=1, previous="0" * 64, key=KEY.id)
    whole, before = linked(bytes(32), with_mac(KEY.for_file("x"), bytes(32), encode(begun)))
    last = whole
    for number, text in enumerate(texts[:8], 1):
        made = _recorder.record(Event("x", text.decode("utf-8", "replace")), number)
        last, before = linked(before, encode(made))
        whole += last
    found = ending(whole + torn)
    if found is None:
        raise Finding("a whole file was passed over")
    agree("its end", (found.last.seq, found.hash, found.size), (min(len(texts), 8), before, len(whole)))
    agree("what is torn", found.torn, torn)
    dice = chance(data)
    at = len(whole) - 1 - dice.randrange(1, len(last))
    other = bytes([whole[at] ^ dice.randrange(1, 256)])
    try:
        ending(whole[:at] + other + whole[at + 1 :] + torn)
    except AuditFailed:
        return
    raise Finding(f"adopted with byte {at} changed to {other!r}: {whole!r}")
