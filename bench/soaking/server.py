"""The server of the soak: one process that serves every transport at once, with the default limits.

    python -m soaking.server FOLDER SESSION_IDLE [leak|descriptors|stuck|crash]

It prints its addresses as one line of JSON, and serves until SIGTERM. Its tool `stats` says how it is. The last argument
makes it go wrong on purpose, which shows that the soak notices. `SESSION_IDLE` is `Timeouts.session_idle`: the default is
half an hour, in which no session would be seen to end. Rates are above the load, for all clients are one principal.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from garrison import Context, SecurityPolicy, Server, Timeouts
from garrison.policy.rates import Rate, Rates
from garrison.policy.tls import TlsServerConfig
from garrison.policy.transports import UnixSocketConfig, WebSocketConfig

NEWS = "soak://news"
RATES = Rates(principal=Rate(1e6, burst=1_000_000))
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Lag:
    """How late the loop comes to what is due: what every peer waits for, whatever else its machine does."""

    def __init__(self):
        self.late = []

    async def run(self):
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.02
            await asyncio.sleep(0.02)
            self.late.append(max(0.0, loop.time() - due))

    def take(self):
        """Microseconds, 99th percentile since the last look."""
        late, self.late = sorted(self.late), []
        return round(late[int(0.99 * (len(late) - 1))] * 1e6) if late else 0


def make(session_idle, broken):
    """The server, the list of what serves it, and its lag."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    server = Server("soak", policy=SecurityPolicy(timeouts=Timeouts(session_idle=session_idle), rates=RATES))
    serving, kept, lag = [], [], Lag()

    @server.tool(inline=True)
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        if broken == "leak":
            kept.append(bytearray(16 * 1024))
        elif broken == "descriptors":
            kept.append(os.dup(0))
        return a + b

    @server.tool(inline=True)
    def echo(text: Annotated[str, Meta(max_length=1_000_000)]) -> str:
        """Echo text."""
        return text

    @server.tool()
    async def slow(seconds: float) -> str:
        """Take a while."""
        if broken == "stuck" and seconds > 0.029:
            await asyncio.sleep(60)
        await asyncio.sleep(min(seconds, 5.0))
        return "done"

    @server.tool()
    def threaded(x: int) -> int:
        """Run in a worker thread."""
        return x

    @server.tool()
    async def steps(count: int, ctx: Context) -> str:
        """Report progress."""
        for step in range(count):
            await ctx.progress(step + 1, count)
        return "done"

    @server.tool()
    async def ask(ctx: Context) -> str:
        """Ask the user."""
        answer = await ctx.elicit("Your name?", {"type": "object", "properties": {"name": {"type": "string"}}})
        return answer.action

    @server.tool()
    async def chatter(count: int, size: int, patient: bool, ctx: Context) -> str:
        """Say a lot; with `patient`, no faster than is listened."""
        for step in range(count):
            sent = ctx.progress(step + 1, count, "x" * size)
            if patient:
                await sent
            elif step % 8 == 0:
                await asyncio.sleep(0)
        return "done"

    @server.resource(NEWS)
    def news() -> str:
        """What is new."""
        return "nothing"

    @server.tool(inline=True)
    def touch() -> str:
        """Tell who subscribed that there is news."""
        server.resource_updated(NEWS)
        return "told"

    @server.tool(inline=True)
    def stats(trim: bool) -> dict[str, int]:
        """How the server is. With `trim`, memory that is free and kept by the allocator is given back first."""
        if broken == "crash" and time.monotonic() - began > 6:
            os._exit(3)
        if trim and give_back is not None:
            give_back(0)
        cores = [each.core for each in serving]
        return {
            "rss_kib": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE // 1024,
            "descriptors": len(os.listdir("/proc/self/fd")) - 1,
            "tasks": len(asyncio.all_tasks()),
            "connections": sum(len(each.listener.guests) for each in serving),
            "places": sum(core.floods.count for core in cores),
            "newcomers": sum(len(core.floods.newcomers) for core in cores),
            "handshakes": sum(len(each.listener.handshakes) for each in serving),
            "running": sum(len(core.runner._running) for core in cores),
            "subscribers": sum(len(core.hub._listeners) for core in cores),
            "sessions": sum(len(each.legacy.store) for each in serving if getattr(each, "legacy", None) is not None),
            "lag_p99_us": lag.take(),
            "trimmed": int(trim),
            "cpu_ms": round(time.process_time() * 1000),
        }

    began = time.monotonic()
    return server, serving, lag


async def main(folder, session_idle, broken=""):
    """Serve until SIGTERM."""
    server, serving, lag = make(session_idle, broken)
    token = (folder / "token").read_text()
    tls = TlsServerConfig(certificate=folder / "server.pem", key=folder / "server.key")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        plain = await enter(server.http(port=0, token=token, websocket=WebSocketConfig()))
        secure = await enter(server.http(port=0, token=token, websocket=WebSocketConfig(), tls=tls))
        local = await enter(server.http(token=token, unix=UnixSocketConfig(str(folder / "http.sock"))))
        lines = await enter(server.unix(str(folder / "lines.sock")))
        serving += [plain, secure, local, lines]
        watching = asyncio.create_task(lag.run())
        at = {"http": plain.port, "https": secure.port, "http-unix": local.unix.path, "unix": lines.config.path}
        print(json.dumps({**at, "token": token, "ca": str(folder / "ca.pem"), "pid": os.getpid()}), flush=True)
        await stop.wait()
        watching.cancel()


def run():
    from garrison.server.serve import _loop_factory  # the loop that `run_http` would take

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main(Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]))


if __name__ == "__main__":
    run()
