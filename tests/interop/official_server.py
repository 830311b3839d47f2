"""A server of the official Python SDK, for our client: `official_server.py stdio` or `official_server.py http PORT`."""

from __future__ import annotations

import sys

import mcp_types as types
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from pydantic import BaseModel

server = MCPServer("theirs", instructions="Ask me anything.", log_level="WARNING")
QUESTION = "What is your name?"


class Name(BaseModel):
    """What the user is called."""

    name: str


@server.tool()
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def fail() -> str:
    """Fail."""
    raise ValueError("This went wrong")


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Count, and tell every number."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to, f"number {number}")
    return f"counted to {to}"


@server.tool()
async def greet(ctx: Context) -> str | types.InputRequiredResult:
    """Greet the user, whose name has to be asked for: by a request, or by a result in the newest revision."""
    if ctx.protocol_version != "2026-07-28":
        answer = await ctx.elicit(QUESTION, Name)
        return f"Hello, {answer.data.name if answer.action == 'accept' else 'stranger'}!"
    given = (ctx.input_responses or {}).get("who")
    if isinstance(given, types.ElicitResult):
        return f"Hello, {(given.content or {}).get('name', 'stranger')}!"
    params = types.ElicitRequestFormParams(message=QUESTION, requested_schema=Name.model_json_schema())
    return types.InputRequiredResult(input_requests={"who": types.ElicitRequest(params=params)}, request_state="1")


@server.resource("test://text", mime_type="text/plain")
def text() -> str:
    """A text."""
    return "a text"


@server.resource("test://squares/{number}", mime_type="text/plain")
def square(number: str) -> str:
    """The square of a number."""
    return str(int(number) ** 2)


@server.prompt()
def review(language: str) -> str:
    """Ask for a review of code."""
    return f"Review this {language} code"


@server.completion()
async def languages(
    ref: types.PromptReference | types.ResourceTemplateReference,
    argument: types.CompletionArgument,
    context: types.CompletionContext | None,
) -> types.Completion:
    """Languages that begin like this."""
    return types.Completion(values=[name for name in ("python", "pascal", "rust") if name.startswith(argument.value)])


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run()
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
