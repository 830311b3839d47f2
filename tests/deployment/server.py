"""The server that runs behind nginx in these tests."""

from __future__ import annotations

import asyncio
from typing import Annotated

from msgspec import Meta

from garrison import Context, Server

server = Server("deployed", version="1")
ended = 0


@server.tool(inline=True)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(inline=True)
def size(text: Annotated[str, Meta(max_length=5_000_000)]) -> int:
    """How many characters there are."""
    return len(text)


@server.tool(inline=True)
def repeat(text: str, times: int) -> str:
    """The text, so many times."""
    return text * times


@server.tool()
async def steps(count: int, seconds: float, ctx: Context) -> int:
    """Report progress that often, with a pause after each."""
    global ended
    try:
        for step in range(count):
            await ctx.progress(step + 1, count)
            await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        ended += 1
        raise
    return count


@server.tool(inline=True)
def cancelled() -> int:
    """How many calls of `steps` were cancelled."""
    return ended
