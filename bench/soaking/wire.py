"""Requests as bytes, and the sockets that carry them, for peers that do not use Garrison's client.

Rules of this file:
- Nothing of Garrison is used, so that what hostile peers and the probe send does not depend on what is tested.
- Peers come from addresses of their own (127.0.0.0/8), because limits count per address.
"""

import base64
import json
import os
import socket
import ssl
import struct

VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "soak", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def call(name, arguments, number=1):
    """The bytes of one `tools/call` of the newest revision."""
    params = {"name": name, "arguments": arguments, "_meta": META}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return json.dumps(message, separators=(",", ":")).encode()


def post(host, body, *, name="add", token=None, path="/mcp", length=None):
    """An HTTP request with this body. `length` replaces what it says of its size."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {VERSION}\r\n"
        f"Mcp-Method: tools/call\r\nMcp-Name: {name}\r\n{authorization}"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body


def upgrade(host, token, path="/mcp"):
    """A WebSocket handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mcp\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()


def frame(payload, first=0x81):
    """One masked frame; the mask is zero, which a server may not tell from any other."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0xFE)) + struct.pack(">H", size)
    else:
        head = bytes((first, 0xFF)) + struct.pack(">Q", size)
    return head + bytes(4) + payload


def http_answer(data):
    """Where a whole HTTP answer with a length ends in `data`; 0 if it is not complete. -1: it is a stream."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = data[:end].lower()
    if b"text/event-stream" in head:
        return -1
    at = head.find(b"content-length:")
    length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    whole = end + 4 + length
    return whole if len(data) >= whole else 0


def frame_answer(data):
    """Where a whole unmasked frame ends in `data`; 0 if it is not complete."""
    if len(data) < 2:
        return 0
    length, start = data[1] & 0x7F, 2
    if length == 126:
        start, length = 4, int.from_bytes(data[2:4], "big") if len(data) >= 4 else 1 << 62
    elif length == 127:
        start, length = 10, int.from_bytes(data[2:10], "big") if len(data) >= 10 else 1 << 62
    return start + length if len(data) >= start + length else 0


def line_answer(data):
    """Where a whole line ends in `data`; 0 if it is not complete."""
    return data.find(b"\n") + 1


def reset_on_close(sock):
    """Have `close` send a RST in place of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Line:
    """One connection of a well-behaved peer that blocks: `ask` sends a call and returns its answer.

    Args:
        kind: http, https, websocket, wss, unix, or http-unix.
        at: the addresses of the server, as it printed them.
        source: the address to come from.
        timeout: seconds until an answer is given up (`TimeoutError`).
    """

    def __init__(self, kind, at, source="127.0.0.1", timeout=10.0):
        self.kind = kind
        self._at = at
        self._data = b""
        secure = kind in ("https", "wss")
        if kind in ("unix", "http-unix"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout)
            sock.connect(at[kind])
            self._host = "localhost"
        else:
            port = at["https" if secure else "http"]
            sock = socket.create_connection(("127.0.0.1", port), timeout, (source, 0))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._host = f"127.0.0.1:{port}"
        if secure:
            sock = ssl.create_default_context(cafile=at["ca"]).wrap_socket(sock, server_hostname="127.0.0.1")
        self.sock = sock
        self._whole = line_answer if kind == "unix" else frame_answer if self._framed else http_answer
        if self._framed:
            sock.sendall(upgrade(self._host, at["token"]))
            while b"\r\n\r\n" not in self._data:
                self._more()
            head, _, self._data = self._data.partition(b"\r\n\r\n")
            if b" 101 " not in head[:16]:
                raise ConnectionError(head[:200].decode("latin-1"))

    @property
    def _framed(self):
        return self.kind in ("websocket", "wss")

    def _more(self):
        data = self.sock.recv(1 << 18)
        if not data:
            raise ConnectionError("closed")
        self._data += data

    def request(self, name, arguments, number):
        """The bytes that `ask` sends."""
        message = call(name, arguments, number)
        if self.kind == "unix":
            return message + b"\n"
        if self._framed:
            return frame(message)
        return post(self._host, message, name=name, token=self._at["token"])

    def ask(self, name, arguments, number=1):
        """Call a tool and return the bytes of the answer."""
        self.sock.sendall(self.request(name, arguments, number))
        wanted = b'"id":%d,' % number
        while True:
            end = self._whole(self._data)
            while not end:
                self._more()
                end = self._whole(self._data)
            answer, self._data = self._data[:end], self._data[end:]
            if wanted in answer or b'"id":%d}' % number in answer:
                return answer

    def close(self):
        self.sock.close()
