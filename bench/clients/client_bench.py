"""Client-side cost per call.  client_bench.py SDK TRANSPORT TARGET SECS
SDK: garrison | mcp2 | mcp1 | fastmcp | raw | httpx | httpx2 | aiohttp      TRANSPORT: memory | stdio | http
TARGET: a URL, or for stdio a command line. The server should be a ceiling, on another core, so that only the client counts."""

import asyncio
import json
import os
import resource
import shlex
import sys
import time
from contextlib import AsyncExitStack

SDK, TR, TARGET, SECS = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
t_imp = time.perf_counter()


async def connect(st):
    if SDK == "garrison":
        from garrison import Client

        if TR == "memory":
            from garrison import Server

            t = Server("m")
            t.tool(inline=True)(add)  # the client is measured, not the hop to a thread
        elif TR == "stdio":
            t = shlex.split(TARGET)
        else:
            t = TARGET
        c = await st.enter_async_context(Client(t, token=os.environ.get("BENCH_TOKEN") if TR == "http" else None))
        return lambda: c.call_tool("add", {"a": 19, "b": 23}), lambda r: r.structured_content["result"] == 42
    if SDK == "mcp2":
        from mcp import Client

        if TR == "memory":
            from mcp.server import MCPServer

            s = MCPServer("m", log_level="WARNING")
            s.tool()(add)
            t = s
        elif TR == "stdio":
            from mcp.client.stdio import StdioServerParameters

            c = shlex.split(TARGET)
            t = StdioServerParameters(command=c[0], args=c[1:])
        else:
            t = TARGET
        c = await st.enter_async_context(Client(t))
        return lambda: c.call_tool("add", {"a": 19, "b": 23}), lambda r: r.structured_content["result"] == 42
    if SDK == "mcp1":
        from mcp import ClientSession

        if TR == "memory":
            from mcp.server.fastmcp import FastMCP
            from mcp.shared.memory import create_connected_server_and_client_session as cc

            s = FastMCP("m", log_level="WARNING")
            s.tool()(add)
            c = await st.enter_async_context(cc(s._mcp_server))
        else:
            if TR == "stdio":
                from mcp.client.stdio import stdio_client, StdioServerParameters

                a = shlex.split(TARGET)
                rw = await st.enter_async_context(stdio_client(StdioServerParameters(command=a[0], args=a[1:])))
            else:
                from mcp.client.streamable_http import streamable_http_client

                rw = await st.enter_async_context(streamable_http_client(TARGET))
            c = await st.enter_async_context(ClientSession(rw[0], rw[1]))
            await c.initialize()
        return lambda: c.call_tool("add", {"a": 19, "b": 23}), lambda r: r.structuredContent["result"] == 42
    if SDK == "fastmcp":
        from fastmcp import Client, FastMCP

        if TR == "memory":
            t = FastMCP("m")
            t.tool(add)
        elif TR == "stdio":
            from fastmcp.client.transports import StdioTransport

            c = shlex.split(TARGET)
            t = StdioTransport(command=c[0], args=c[1:])
        else:
            t = TARGET
        c = await st.enter_async_context(Client(t))
        return lambda: c.call_tool("add", {"a": 19, "b": 23}), lambda r: r.structured_content["result"] == 42
    META = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "b", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    H = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "add",
    }
    n = 0

    def msg():
        nonlocal n
        n += 1
        return {
            "jsonrpc": "2.0",
            "id": n,
            "method": "tools/call",
            "params": {"name": "add", "arguments": {"a": 19, "b": 23}, "_meta": META},
        }

    if SDK in ("httpx", "httpx2"):
        x = __import__(SDK)
        c = await st.enter_async_context(x.AsyncClient())

        async def call():
            r = await c.post(TARGET, content=json.dumps(msg()), headers=H)
            return r.json()
    elif SDK == "aiohttp":
        import aiohttp

        c = await st.enter_async_context(aiohttp.ClientSession())

        async def call():
            async with c.post(TARGET, data=json.dumps(msg()).encode(), headers=H) as r:
                return json.loads(await r.read())
    elif TR == "http":
        import msgspec
        import httptools

        enc, dec = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
        host, port = TARGET.split("/")[2].split(":")
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: {host}:{port}\r\n"
            + "".join(f"{k}: {v}\r\n" for k, v in H.items())
            + "Content-Length: "
        ).encode()
        pool = []

        class P(asyncio.Protocol):
            def connection_made(self, t):
                self.t, self.p, self.b = t, httptools.HttpResponseParser(self), []

            def on_body(self, b):
                self.b.append(b)

            def on_message_complete(self):
                b, self.b = b"".join(self.b), []
                pool.append(self)
                self.f.set_result(b)

            def data_received(self, d):
                self.p.feed_data(d)

        loop = asyncio.get_running_loop()

        async def call():
            p = pool.pop() if pool else (await loop.create_connection(P, host, int(port)))[1]
            p.f = loop.create_future()
            b = enc(msg())
            p.t.write(b"%b%d\r\n\r\n%b" % (head, len(b), b))
            return dec(await p.f)
    else:
        import msgspec

        enc, dec = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
        pr = await asyncio.create_subprocess_exec(*shlex.split(TARGET), stdin=-1, stdout=-1)
        loop, wait = asyncio.get_running_loop(), {}

        async def reader():
            while ln := await pr.stdout.readline():
                r = dec(ln)
                wait.pop(r["id"]).set_result(r)

        rt = loop.create_task(reader())

        async def call():
            m = msg()
            f = wait[m["id"]] = loop.create_future()
            pr.stdin.write(enc(m) + b"\n")
            return await f

        async def bye():
            pr.stdin.close()
            await pr.wait()
            rt.cancel()

        st.push_async_callback(bye)
    return call, lambda r: r["result"]["structuredContent"]["result"] == 42


def add(a: int, b: int) -> int:
    "Add."
    return a + b


async def main():
    out = {"sdk": SDK, "transport": TR}
    async with AsyncExitStack() as st:
        t = time.perf_counter()
        call, ok = await connect(st)
        assert ok(await call())
        out["connect_first_ms"] = round((time.perf_counter() - t) * 1e3, 1)
        for _ in range(50):
            await call()
        for conc in (1, 16):
            end, n = time.perf_counter() + SECS, 0
            t, c = time.perf_counter(), time.process_time()

            async def w():
                nonlocal n
                while time.perf_counter() < end:
                    assert ok(await call())
                    n += 1

            await asyncio.gather(*[w() for _ in range(conc)])
            dt = time.perf_counter() - t
            out[f"c{conc}_calls_s"] = round(n / dt, 1)
            out[f"c{conc}_cpu_us"] = round((time.process_time() - c) / n * 1e6, 1)
        out["rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    print(json.dumps(out))


asyncio.run(main())
