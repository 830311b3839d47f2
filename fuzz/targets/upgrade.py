"""WebSocket handshakes: refused with `BadRequest`, or answered as the `websockets` library would. The input is the
fields of the request, one a line."""

from __future__ import annotations

import re

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from fuzz.oracle import agree, hold
from garrison.errors import BadRequest
from garrison.policy.transports import WebSocketConfig
from garrison.transports.http.exchange import Head
from garrison.transports.websocket import accept

_GOOD = (
    b"Host: h\nUpgrade: websocket\nConnection: keep-alive, Upgrade\nSec-WebSocket-Version: 13\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Protocol: other, mcp\n"
)
SEEDS = (
    _GOOD,
    _GOOD + b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits=12",
    _GOOD + b'Sec-WebSocket-Extensions: x, permessage-deflate; server_max_window_bits="15"; server_no_context_takeover',
    _GOOD.replace(b"13", b"8"),
    _GOOD.replace(b"Q==", b"R=="),
    _GOOD.replace(b"mcp", b"mcp2"),
    _GOOD.replace(b"Q==", b""),
    _GOOD.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    _GOOD + b"Content-Length: 1",
)
WORDS = (
    b"\n",
    b"Sec-WebSocket-Key: ",
    b"Sec-WebSocket-Extensions: ",
    b"permessage-deflate",
    b"; client_max_window_bits=",
    b"=15",
    b"; server_max_window_bits=",
    b"; server_no_context_takeover",
    b"; client_no_context_takeover",
    b"mcp",
    b",",
    b"Upgrade",
)
_LIST = re.compile(rb"(?:[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*,)*[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*")
_TEXT = b"\t" + bytes(range(32, 127))
_PLAIN, _DEFLATE = WebSocketConfig(), WebSocketConfig(compression=True)


def check(data: bytes) -> None:
    head = Head()
    head.method, head.path = b"GET", b"/mcp"
    for line in data.split(b"\n")[:20]:
        name, colon, value = line.partition(b":")
        if colon and name.isascii() and not (name + value).translate(None, _TEXT):
            head.add(name, value)
    for config in (_PLAIN, _DEFLATE):
        try:
            taken = accept(head, config)
        except BadRequest as error:
            hold(error.status in (400, 426) and len(error.message) < 200, "refusal", error)
            continue
        answered(head, taken, compression=config.compression)


def answered(head: Head, fields: bytes, *, compression: bool) -> None:
    """The library takes the handshake too, and says the same."""
    if head.repeated is not None:
        return  # the edge refuses such a head
    ours = dict(line.split(": ", 1) for line in fields.decode("ascii").split("\r\n")[:-1])
    protocol = ServerProtocol(
        subprotocols=[Subprotocol("mcp")],
        extensions=[ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)],
    )
    request = Request(
        "/mcp", Headers([(name.decode("ascii"), value.decode("ascii")) for name, value in head.fields.items()])
    )
    theirs = protocol.accept(request)
    if theirs.status_code != 101:
        # It reads whole lists; here only what is asked for has to be in one.
        lists = [head.fields.get(name, b"") for name in (b"connection", b"sec-websocket-protocol")]
        good = all(_LIST.fullmatch(value) for value in lists) and b"sec-websocket-extensions" not in head.fields
        hold(not good, "the library refuses", theirs.body, head.fields)
        return
    agree("accept", ours["sec-websocket-accept"], theirs.headers["Sec-WebSocket-Accept"])
    agree("subprotocol", ours["sec-websocket-protocol"], theirs.headers["Sec-WebSocket-Protocol"])
    agreed = ours.get("sec-websocket-extensions")
    if agreed is not None:
        hold(compression, "compression was not asked for")
        hold(
            b"permessage-deflate" in head.fields[b"sec-websocket-extensions"].lower(), "it was not offered", head.fields
        )
