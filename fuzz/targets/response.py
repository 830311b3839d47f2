"""HTTP responses in the client: one end for every request, the same however the bytes are cut, and never other than as
`ClientError`; well-formed responses are those of a second reading."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fuzz.oracle import Finding, agree, choppings, hold
from garrison.errors import ClientError, ProtocolViolation
from garrison.policy import Limits
from garrison.transports.http.pool import Connection

SEEDS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: close\r\nX: " + b"y" * 300 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x01a",
)
WORDS = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 404 No\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Type: text/event-stream\r\n",
    b"0\r\n\r\n",
    b"1\r\na\r\n",
    b"Upgrade: x\r\n",
)
LIMITS = Limits(header_bytes=512, header_count=6)
LARGEST = 40


class Pool:
    """Counts what the connection gives back."""

    def __init__(self) -> None:
        self.released = 0
        self.ended = 0

    def release(self, connection: Connection) -> None:
        self.released += 1

    def gone(self, connection: Connection) -> None:
        self.ended += 1


class Transport:
    """A socket that is not there."""

    def __init__(self) -> None:
        self.closed = False

    def write(self, data: bytes) -> None:
        hold(not self.closed, "written after the end")

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_extra_info(self, name: str) -> None:
        return None


class Handler:
    """Records one response, and refuses what is larger than `LARGEST`, as the real one does."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.end = ""
        self.untouched = False
        self.heads = 0
        self.too_large = False

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.heads += 1
        self.status, self.headers = status, dict(headers)
        hold(status >= 200 and not self.end, "head", status)
        longest = max((len(value) for value in headers.values()), default=0)
        hold(longest <= LIMITS.header_bytes and len(headers) <= LIMITS.header_count, "limits", longest, len(headers))

    def data(self, chunk: bytes) -> None:
        hold(self.heads == 1 and not self.end, "body without head")
        self.body += chunk
        if len(self.body) > LARGEST:
            raise ProtocolViolation("larger than allowed")

    def done(self) -> None:
        hold(self.heads == 1 and not self.end, "done", self.heads, self.end)
        self.end = "done"

    def failed(self, error: ClientError, *, untouched: bool) -> None:
        hold(isinstance(error, ClientError) and not self.end, "failed", error, self.end)
        self.end, self.untouched = "failed", untouched
        self.too_large = "head of the response is too large" in str(error)


def read(chunks: list[bytes]) -> tuple[Handler, bool, Pool]:
    """The response, whether it ended before the connection did, and what the pool got."""
    pool, transport, handler = Pool(), Transport(), Handler()
    stand_in: Any = pool
    carrier: Any = transport
    connection = Connection(stand_in, LIMITS)
    connection.connection_made(carrier)
    hold(connection.send(b"request", handler), "not sent")
    for chunk in chunks:
        if transport.closed:
            break
        connection.data_received(chunk)
    early = bool(handler.end)
    connection.connection_lost(None)
    hold(handler.end, "no end")
    hold(not handler.untouched, "a first use is never untouched")
    return handler, early, pool


def well_formed(data: bytes) -> tuple[int, dict[str, str], bytes] | None:
    """Status, fields and body of the plainest form of a response, or None."""
    match = re.fullmatch(
        rb"HTTP/1\.1 (2\d\d|4\d\d|5\d\d) [A-Za-z ]*\r\n((?:[A-Za-z-]+: [a-zA-Z0-9/; =]*\r\n)*)\r\n(.*)", data, re.DOTALL
    )
    if match is None:
        return None
    lines = [line.split(": ", 1) for line in match[2].decode().split("\r\n")[:-1]]
    fields = {name.lower(): value.strip(" ") for name, value in lines}
    if (
        len(fields) != len(lines)
        or len(lines) > 6
        or set(fields) & {"transfer-encoding", "content-encoding", "upgrade"}
    ):
        return None
    if match[1] == b"204" or not re.fullmatch("[0-9]{1,4}", fields.get("content-length", "")):
        return None
    if int(fields["content-length"]) != len(match[3]) or len(match[3]) > LARGEST or len(data) > 400:
        return None
    return int(match[1]), fields, match[3]


def check(data: bytes) -> None:
    whole, early, pool = read([data])
    expected = well_formed(data)
    if expected is not None:
        agree("response", (whole.end, whole.status, whole.headers, whole.body), ("done", *expected))
    if "content-encoding" in whole.headers and whole.headers["content-encoding"].strip().lower() not in (
        "",
        "identity",
    ):
        raise Finding("a compressed body")
    for chunks in choppings(data):
        cut, cut_early, cut_pool = read(chunks)
        if whole.end == "failed" and cut.end == "done" and cut_early:
            continue  # what followed the response came later, when nobody listened any more
        if whole.too_large or cut.too_large:
            continue  # this is noticed sooner where the head comes in pieces
        agree("end", (whole.end, early), (cut.end, cut_early))
        if whole.end == "done":
            agree("cut", (whole.status, whole.headers, whole.body), (cut.status, cut.headers, cut.body))
            if pool.released:
                agree("kept", pool.released, cut_pool.released)
