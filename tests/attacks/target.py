"""The server that the attacks are played against: what its tools did is in `ran`."""

from __future__ import annotations

import asyncio

from garrison import Context, Limits, McpError, SecurityPolicy, Server, Timeouts

__all__ = ["CODES", "Target"]

CODES: list[object] = [-32050, -32002, -32042, -32000, -32768, 1.5, "x", True, 10**40, 7, -31999, -32602]
"""Error codes that `fail` raises: all but the last three are no codes for an application to use."""


class Target:
    """A server under the default policy, and the log of what its tools were called to do.

    Args:
        limits: other limits.
        timeouts: other time-outs; shutting down is quick unless they say otherwise.
    """

    def __init__(self, limits: Limits | None = None, **timeouts: float) -> None:
        self.ran: list[str] = []
        policy = SecurityPolicy(limits=limits or Limits(), timeouts=Timeouts(**{"shutdown": 0.2, **timeouts}))
        self.server = server = Server("target", policy=policy)

        @server.tool(inline=True)
        def echo(text: str) -> str:
            self.ran.append(f"echo {text}")
            return text

        @server.tool(inline=True)
        def admin_reset() -> str:
            self.ran.append("admin_reset")
            return "reset"

        @server.tool(inline=True)
        def scale(x: float) -> float:
            self.ran.append(f"scale {x}")
            return x

        @server.tool(inline=True)
        def exact(number: int) -> str:
            self.ran.append(f"exact {number}")
            return str(number)

        @server.tool()
        async def slow(seconds: float, name: str = "slow") -> str:
            self.ran.append(f"slow {name}")
            await asyncio.sleep(seconds)
            return name

        @server.tool()
        async def ask(ctx: Context) -> str:
            self.ran.append("ask")
            return (await ctx.elicit_url("sign in", "https://example.com/sign-in")).action

        @server.tool()
        async def talk(ctx: Context, name: str) -> str:
            await ctx.debug(f"{name} debug")
            await asyncio.sleep(0.02)
            await ctx.error(f"{name} error")
            return name

        @server.tool(inline=True)
        def fail(number: int) -> str:
            raise McpError("chosen", code=CODES[number], data={"n": number})  # type: ignore[arg-type]
