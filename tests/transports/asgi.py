"""The server that the tests of the ASGI face ask, and requests handed to it as a host hands them over."""

from __future__ import annotations

import asyncio
from typing import Any

from garrison import Context, Server
from tests.transports.hosts import META, TOKEN, call, policy

__all__ = ["MODERN", "TOUCH", "ask", "make", "scope"]

MODERN: dict[str, Any] = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "touch"}
TOUCH = call("touch", meta=META)


def make(calls: list[str], **settings: Any) -> Server:
    server = Server("test", policy=policy(**settings), http_sse=True)

    @server.tool(inline=True)
    def touch(padding: str = "") -> str:
        calls.append("touch")
        return "done"

    @server.tool()
    async def wait(seconds: float) -> str:
        calls.append("begun")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            calls.append("cancelled")
            raise
        calls.append("ended")
        return "waited"

    @server.tool()
    async def count(ctx: Context, to: int) -> str:
        for number in range(to):
            await ctx.progress(number, to)
        return "counted"

    @server.tool()
    async def flood(ctx: Context, size: int, times: int = 1_000_000, patient: bool = True) -> str:
        calls.append("flooding")
        try:
            for number in range(times):
                sent = ctx.progress(number, message="x" * size)
                if patient:
                    await sent
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            calls.append("cancelled")
            raise
        return "flooded"

    return server


async def ask(app: Any, scope: dict[str, Any], body: bytes = TOUCH) -> int:
    """The status an ASGI application gives to a request of a host server that is not there."""
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]


def scope(host: str, server: tuple[str, int | None] | None, **more: Any) -> dict[str, Any]:
    fields = {
        "host": host,
        "authorization": f"Bearer {TOKEN}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        **{name.replace("_", "-"): value for name, value in MODERN.items()},
    }
    return {
        "type": "http",
        "http_version": "2",
        "method": "POST",
        "path": "/mcp",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        "server": server,
        **more,
    }
