"""A server on standard input and output, for tests to start: `python stdio_server.py [LIMITS as JSON]`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time

from garrison import Context, Limits, SecurityPolicy, Server, Timeouts

options = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
policy = SecurityPolicy(
    limits=Limits(**options.get("limits", {})), timeouts=Timeouts(**{"shutdown": 0.3, **options.get("timeouts", {})})
)
server = Server("stdio", policy=policy)


@server.tool(inline=True)
def echo(text: str) -> str:
    return text


@server.tool()
async def slow(seconds: float) -> str:
    print("slow began", file=sys.stderr, flush=True)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        print("slow cancelled", file=sys.stderr, flush=True)
        raise
    return "slow"


@server.tool()
def noisy() -> str:
    print("STRAY print")
    sys.stdout.write("STRAY write\n")
    sys.stdout.flush()
    os.write(1, b"STRAY descriptor\n")
    subprocess.run([sys.executable, "-c", "print('STRAY child'); import sys; sys.stdin.read()"], check=True)
    return "noisy"


@server.tool(inline=True)
def noisy_inline() -> str:
    print("STRAY inline", flush=True)
    return "noisy"


@server.tool()
def blocking(seconds: float) -> str:
    time.sleep(seconds)
    return "blocking"


@server.tool()
async def talk(ctx: Context, count: int, size: int) -> str:
    for number in range(count):
        await ctx.progress(number + 1, message="x" * size)
    return "talk"


@server.tool(inline=True)
def memory() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


if __name__ == "__main__":
    server.run()
