"""A tool that takes its time, and says how far it is."""

import asyncio

from garrison import Context, Server

server = Server("factory")


@server.tool()
async def build(parts: int, ctx: Context) -> str:
    """Put parts together, one after the other."""
    for done in range(1, parts + 1):
        await asyncio.sleep(0.05)
        await ctx.progress(done, parts, f"part {done}")
    await ctx.info(f"{parts} parts are together")
    return "It is built."


if __name__ == "__main__":
    server.run()
