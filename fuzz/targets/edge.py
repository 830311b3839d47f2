"""The HTTP edge: the same requests and responses however the bytes are cut and whatever was learnt before; nothing is
served after a refusal; well-formed requests are those of a second reading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from fuzz.oracle import agree, choppings, hold
from fuzz.stage import LIMITS, Result, listener, talk
from garrison.transports.http import requests as reading

_FIELDS = b"Host: h\r\nContent-Type: application/json\r\n"
SEEDS = (
    b"POST /mcp HTTP/1.1\r\n" + _FIELDS + b"Content-Length: 2\r\n\r\n{}",
    (b"POST /later HTTP/1.1\r\n" + _FIELDS + b"Content-Length: 2\r\n\r\n{}") * 3,
    b"POST /mcp?a=1 HTTP/1.1\r\n" + _FIELDS + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\nGET /x HTTP/1.1\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x01a",
    b"GET / HTTP/1.1\r\n\r\nGET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nP",
    b"GET /none HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST http://other/p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n1",
    b"GET / HTTP/1.1\r\nHost: h\r\nX-No: 1\r\n\r\nGET /after HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: x\r\n\r\n",
    b"\r\nPOST / HTTP/1.1\r\nHost : h\r\n folded\r\nContent-Length: +1\r\n\r\nx",
    b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b" " * 500 + b"y" * 90 + b"\r\n\r\n",
)
WORDS = (
    b"GET / HTTP/1.1\r\n",
    b"POST /later HTTP/1.1\r\n",
    b"POST /mcp HTTP/1.1\r\n",
    b"/stream",
    b"/ws",
    b"/none",
    b"HTTP/1.0",
    b"Host: h\r\n",
    b"Content-Length: 2\r\n\r\n{}",
    b"Content-Length: 0\r\n",
    b"Content-Length: 201\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"0\r\n\r\n",
    b"2\r\n{}\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\t",
    b" ",
    b"X-No: 1\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Upgrade: h2c\r\n",
    b"TE: trailers\r\n",
    b"http://o",
    b"OPTIONS * HTTP/1.1\r\n",
    b"CONNECT h:1 HTTP/1.1\r\n",
    b"HEAD / HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)

_LINE = re.compile(rb"(GET|POST|PUT|DELETE|OPTIONS) (/[A-Za-z0-9/._~-]*)(?:\?([A-Za-z0-9=&.-]*))? HTTP/1\.1\r\n")
_FIELD = re.compile(rb"([A-Za-z0-9-]+):[ \t]*((?:[!-~]+(?:[ \t]+[!-~]+)*)?)[ \t]*\r\n")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,4})\r\n")
_NOT_PLAIN = {b"connection", b"upgrade", b"expect", b"te", b"trailer", b"x-no", b"keep-alive", b"proxy-connection"}
_LISTENER = listener(heads=False)
_PACED = listener(burst=2)


def well_formed(data: bytes) -> tuple[list[tuple[object, ...]], bool]:
    """Requests of the plainest form, as far as there are any, and whether that is all there is."""
    found: list[tuple[object, ...]] = []
    position = 0
    while position < len(data):
        line = _LINE.match(data, position)
        if line is None:
            return found, False
        begin, position = position, line.end()
        fields: dict[bytes, bytes] = {}
        while data[position : position + 2] != b"\r\n":
            field = _FIELD.match(data, position)
            if field is None or field[1].lower() in fields or field[1].lower() in _NOT_PLAIN:
                return found, False
            fields[field[1].lower()] = field[2]
            position = field.end()
        position += 2
        if position - begin > LIMITS.header_bytes or len(fields) > LIMITS.header_count:
            return found, False
        taken = _body(data, position, fields)
        if taken is None:
            return found, False
        body, position = taken
        found.append((line[1], line[2], line[3] or b"", tuple(sorted(fields.items())), body))
    return found, True


def _body(data: bytes, position: int, fields: dict[bytes, bytes]) -> tuple[bytes, int] | None:
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if coding is None:
        if length is None:
            return b"", position
        if not re.fullmatch(rb"0|[1-9][0-9]{0,3}", length) or int(length) > LIMITS.message_bytes:
            return None
        end = position + int(length)
        return None if end > len(data) else (data[position:end], end)
    body = b""
    while length is None and coding == b"chunked":
        size = _CHUNK.match(data, position)
        if size is None:
            return None
        count, begin = int(size[1], 16), size.end()
        position = begin + count + 2
        if data[position - 2 : position] != b"\r\n" or len(body) + count > LIMITS.message_bytes:
            return None
        body += data[begin : begin + count]
        if not count:
            return body, position
    return None


def check(data: bytes) -> None:
    whole = talk(_LISTENER, [data])
    requests, refused, switched, written, ended = whole
    expected, complete = well_formed(data)
    agree("well-formed requests", requests[: len(expected)], expected)
    if complete:
        agree("nothing else", whole, (expected, None, None, written, False))
    if refused is not None:
        hold(ended and b"HTTP/1.1 %d " % refused in written, "a refusal is said", written)
    if switched is None:
        final = len(re.findall(rb"HTTP/1\.1 \d\d\d ", written))
        agree("one answer each", final, len(requests) + (refused is not None))
    for number, chunks in enumerate([requests_apart(data), *choppings(data, bytewise=200)]):
        compare(f"cut {chunks}", whole, talk(_LISTENER, chunks, turns=number % 2 == 1))
    with small_pieces():
        for chunks in ([data], requests_apart(data)):
            compare(f"in small pieces {chunks}", whole, talk(_LISTENER, chunks))
    compare("paced", whole, talk(_PACED, requests_apart(data)))
    learning = listener()
    for round_ in range(2):
        for chunks in ([data], requests_apart(data)):
            compare(f"learnt, round {round_} {chunks}", whole, talk(learning, chunks))


@contextmanager
def small_pieces() -> Iterator[None]:
    """As if every input were long: the reader stops after each request that it completes."""
    before = reading._PIECE
    setattr(reading, "_PIECE", 24)  # noqa: B010 - a constant, for everybody else
    try:
        yield
    finally:
        setattr(reading, "_PIECE", before)  # noqa: B010


def compare(what: str, whole: Result, cut: Result) -> None:
    """Both saw the same; up to a head that was too large, which is noticed sooner where it comes in pieces."""
    if 431 in (whole[1], cut[1]):
        shorter = min(len(whole[0]), len(cut[0]))
        agree(f"requests, {what}", whole[0][:shorter], cut[0][:shorter])
        return
    names = ("requests", "refused", "switched", "written", "ended")
    for name, left, right in zip(names, whole, cut, strict=True):
        agree(f"{name}, {what}", left, right)


def requests_apart(data: bytes) -> list[bytes]:
    """The input cut where a request seems to begin."""
    return [piece for piece in re.split(rb"(?=(?:GET|POST) /)", data) if piece]
