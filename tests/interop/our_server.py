"""A Garrison server for other SDKs' clients: `our_server.py stdio`, or `our_server.py http` on a free port."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from garrison import Context, Server, ToolError

server = Server("ours", "1.0.0", instructions="Ask me anything.")


@dataclass
class Name:
    """What the user is called."""

    name: str


@server.tool()
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def fail() -> str:
    """Fail."""
    raise ToolError("This went wrong")


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Count, and tell every number."""
    for number in range(1, to + 1):
        await ctx.progress(number, to, f"number {number}")
    return f"counted to {to}"


@server.tool()
async def greet(ctx: Context) -> str:
    """Greet the user, whose name has to be asked for."""
    answer = await ctx.elicit("What is your name?", Name)
    return f"Hello, {answer.content.name if answer.content else 'stranger'}!"


@server.resource("test://text", mime_type="text/plain")
async def text() -> str:
    """A text."""
    return "a text"


@server.resource("test://squares/{number}", mime_type="text/plain")
async def square(number: int) -> str:
    """The square of a number."""
    return str(number * number)


@server.prompt()
async def review(language: str) -> str:
    """Ask for a review of code."""
    return f"Review this {language} code"


@server.completion("review", "language")
async def languages(value: str) -> list[str]:
    """Languages that begin like this."""
    return [name for name in ("python", "pascal", "rust") if name.startswith(value)]


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run()
    else:
        server.run_http(port=0)
