"""Heads put together from known lines: connections, one after the other, see what they would have seen had every head
been parsed. The input is what each of them sends, with a NUL between."""

from __future__ import annotations

from fuzz.oracle import hold
from fuzz.stage import listener, talk
from fuzz.targets.edge import WORDS as _WORDS
from fuzz.targets.edge import compare
from garrison.transports.http.heads import KnownHeads

_ONE = b"POST /mcp HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nContent-Length: 2\r\n\r\n{}"
SEEDS = (
    b"\0".join([_ONE] * 3),
    _ONE + b"\0" + _ONE.replace(b"Accept: */*", b"X: 1") + b"\0" + _ONE.replace(b"/mcp", b"/later") + b"\0" + _ONE * 2,
    _ONE + b"\0" + _ONE.replace(b"2\r\n\r\n{}", b"3\r\n\r\n{}x") + b"\0" + _ONE + b"x",
    _ONE + b"\0" + _ONE.replace(b"Accept: */*", b"Transfer-Encoding: chunked") + b"\0" + _ONE.replace(b"{}", b"{"),
    _ONE + b"\0" + _ONE.replace(b"Accept: */*", b"Host: i") + b"\0" + _ONE.replace(b"Accept: */*\r\n", b"X-No: 1\r\n"),
    _ONE
    + b"\0"
    + _ONE.replace(b"Accept:", b"accept :")
    + b"\0"
    + _ONE.replace(b"Accept: */*\r\n", b"Accept: a\r\n b\r\n"),
    _ONE.replace(b"Accept: */*", b"Connection: keep-alive")
    + b"\0"
    + _ONE.replace(b"Accept: */*", b"Connection: close"),
)
WORDS = (b"\0", *_WORDS)
_PARSED = listener(heads=False)


def check(data: bytes) -> None:
    learning = listener()
    hold(type(learning.heads) is KnownHeads, "nothing is learnt")
    for chunk in data.split(b"\0")[:12]:
        compare(repr(chunk), talk(_PARSED, [chunk]), talk(learning, [chunk]))
