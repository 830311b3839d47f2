"""What the tests of the HTTP listener share: a server that counts and has room, and what every refusal has."""

from __future__ import annotations

import asyncio

from garrison import Context, Limits, SecurityPolicy, Server, Timeouts
from tests.support.mcp import call, post
from tests.support.raw_http import Response, connected, exchange
from tests.support.roomy import ROOMY_RATES, roomy


class Counting:
    """A server that knows what its handlers did."""

    def __init__(self, limits: Limits | None = None, **timeouts: float) -> None:
        self.ran: list[str] = []
        self.cancelled: list[str] = []
        policy = SecurityPolicy(
            limits=roomy(limits), timeouts=Timeouts(**{"shutdown": 0.2, **timeouts}), rates=ROOMY_RATES
        )
        self.server = server = Server("edge", policy=policy)

        @server.tool(inline=True)
        def echo(text: str) -> str:
            self.ran.append(text)
            return text

        @server.tool()
        async def slow(seconds: float) -> str:
            self.ran.append("slow")
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.cancelled.append("slow")
                raise
            return "slow"

        @server.tool(inline=True)
        def dump(size: int) -> str:
            self.ran.append("dump")
            return "x" * size

        @server.tool()
        async def stream(ctx: Context, count: int, size: int) -> str:
            for number in range(count):
                ctx.progress(number + 1, message="x" * size)
                await asyncio.sleep(0)
            self.ran.append("streamed")
            return "streamed"


def said(response: Response) -> str:
    return response.json["result"]["content"][0]["text"]


async def alive(port: int) -> None:
    response = await exchange(port, post(port, call("echo", {"text": "alive"})))
    assert response.status == 200
    assert said(response) == "alive"


async def refused(port: int, data: bytes, *statuses: int) -> Response:
    """Send bytes; the one answer is a refusal and the connection ends."""
    async with connected(port) as wire:
        await wire.send(data)
        response = await wire.response()
        assert response.status in (statuses or (400,)), response
        assert b"Traceback" not in response.body
        assert response.get("x-content-type-options") == "nosniff"
        assert response.get("cache-control") == "no-store"
        assert response.get("server") is None
        assert not any(name.startswith("access-control") for name, _ in response.fields)
        assert await wire.ended() == b""
        return response
