"""The server that pages try to reach, and what pages do to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import garrison.events
from garrison import Context, SecurityPolicy, Server, Timeouts
from garrison.server.serve import HttpServing
from tests.support.chromium import Chromium
from tests.support.mcp import call, modern_fields

TOKEN = "a-token-for-pages-of-this-test"

POST = """
try {
  const response = await fetch(url, {method: "POST", headers, body: JSON.stringify(message)});
  return {status: response.status, body: await response.text(), session: response.headers.get("mcp-session-id")};
} catch (error) {
  return {error: error.name};
}
"""
"""A page's POST: what it could read, or the name of its error."""


class Scene:
    """A server with a handler that counts. It asks for no token: what keeps pages out is not that they lack one."""

    def __init__(self, events: list[str], *, token: bool = False, **policy: Any) -> None:
        self.ran: list[str] = []
        self._events = events
        if not token:
            policy["dangerously_allow_unauthenticated"] = "the test is whether the other checks hold"
        server = Server("scene", policy=SecurityPolicy(timeouts=Timeouts(shutdown=0.2), **policy), http_sse=True)

        @server.tool(inline=True)
        def hit(word: str) -> str:
            """Count."""
            self.ran.append(word)
            return f"heard {word}"

        @server.tool()
        async def count(ctx: Context) -> str:
            """Report progress, then answer."""
            for step in range(3):
                await ctx.progress(step + 1, 3)
            return "counted"

        self.server = server

    @asynccontextmanager
    async def serve(self, browser: Chromium, **how: Any) -> AsyncIterator[HttpServing]:
        """Serve, on any port unless told; all pages end before the server does."""
        async with self.server.http(**{"port": 0, **how}) as serving:
            try:
                yield serving
            finally:
                await browser.close_pages()
                # asyncio up to 3.13 loses a connection that it accepts in the moment in which its server closes.
                await asyncio.sleep(0.1)

    @property
    def refusals(self) -> list[str]:
        """The security events of the requests that were refused, by name."""
        return [event for event in self._events if event.endswith(".refused")]


def fields(message: dict[str, Any], token: str | None = TOKEN) -> dict[str, str]:
    """The header fields of a modern message that a page sets; the browser sets the others."""
    return {n.lower(): v for n, v in modern_fields(0, message, token) if n.lower() not in ("host", "content-length")}


def hit(word: str, token: str | None = TOKEN) -> dict[str, Any]:
    """The names that `POST` needs to call the tool that counts, but for the URL."""
    message = call("hit", {"word": word})
    return {"headers": fields(message, token), "message": message}


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all security events; the log leaves some out when there are many."""
    seen: list[str] = []
    monkeypatch.setattr(garrison.events, "record", lambda event, *_, **__: seen.append(event))
    return seen
