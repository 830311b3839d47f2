"""asyncio.Protocol server without ASGI.  CEIL_PARSER: httptools | py (bytes.find on a keep-alive POST).  CEIL_LOOP: uvloop | asyncio."""

import asyncio
import os
from _common import args
from _ceil import handle

transport, port, mode, ntools = args()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Tools(asyncio.Protocol):
    __slots__ = ("t", "p", "body", "h")

    def connection_made(self, t):
        self.t = t
        self.p = httptools.HttpRequestParser(self)
        self.body = []
        self.h = {}

    def on_header(self, k, v):
        self.h[k.lower()] = v

    def on_body(self, b):
        self.body.append(b)

    def on_message_complete(self):
        b = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        self.body = []
        self.h = {}
        out = handle(b)
        self.t.write(HEAD % len(out) + out)

    def data_received(self, d):
        self.p.feed_data(d)


class Py(asyncio.Protocol):
    __slots__ = ("t", "buf")

    def connection_made(self, t):
        self.t = t
        self.buf = b""

    def data_received(self, d):
        if self.buf:
            self.buf += d
            d = self.buf
        while d:
            i = d.find(b"\r\n\r\n")
            if i < 0:
                break
            h = {}
            lines = d[:i].split(b"\r\n")
            for ln in lines[1:]:
                k, _, v = ln.partition(b":")
                h[k.lower()] = v.strip()
            n = int(h.get(b"content-length", 0))
            if len(d) < i + 4 + n:
                break
            out = handle(d[i + 4 : i + 4 + n])
            self.t.write(HEAD % len(out) + out)
            d = d[i + 4 + n :]
        self.buf = bytearray(d) if d else b""


async def main():
    s = await asyncio.get_running_loop().create_server(
        Py if os.environ.get("CEIL_PARSER") == "py" else Tools, "127.0.0.1", port
    )
    await s.serve_forever()


if os.environ.get("CEIL_PARSER") != "py":
    import httptools
if os.environ.get("CEIL_LOOP", "uvloop") == "uvloop":
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
