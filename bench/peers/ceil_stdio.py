"""stdio ceilings.  CEIL_STDIO: sync (readline loop on raw fds) | asyncio (connect_read_pipe, one loop) | threads"""

import os
import sys
from _ceil import handle

KIND = os.environ.get("CEIL_STDIO", "sync")
if KIND == "sync":
    buf = b""
    while True:
        d = os.read(0, 1 << 18)
        if not d:
            break
        if buf:
            d = buf + d
        *lines, buf = d.split(b"\n")
        out = []
        for ln in lines:
            r = handle(ln)
            if r:
                out.append(r)
        if out:
            out.append(b"")
            o = b"\n".join(out)
            while o:
                n = os.write(1, o)
                o = o[n:] if n < len(o) else b""
else:
    import asyncio

    class P(asyncio.Protocol):
        buf = b""

        def data_received(self, d):
            if self.buf:
                d = self.buf + d
            *lines, self.buf = d.split(b"\n")
            out = [r for r in map(handle, lines) if r]
            if out:
                out.append(b"")
                wt.write(b"\n".join(out))

        def connection_lost(self, e):
            done.set()

    async def main():
        global wt, done
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        wt, _ = await loop.connect_write_pipe(
            asyncio.BaseProtocol if False else asyncio.Protocol, os.fdopen(1, "wb", 0)
        )
        await loop.connect_read_pipe(P, os.fdopen(0, "rb", 0))
        await done.wait()

    if KIND == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
