"""The client that the official conformance suite starts: `python tests/conformance/client.py URL`.

The suite says in the environment which scenario it plays. One function plays each scenario; a scenario without one
lists the tools and calls the first. Which revision the server speaks, the client finds out by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable

from garrison import Client, types
from garrison.client import accept_defaults

Play = Callable[[Client], Awaitable[None]]


async def only_list(client: Client) -> None:
    """Look at the tools."""
    await client.list_tools()


async def call_first(client: Client) -> None:
    """Call the first tool without arguments."""
    tools = (await client.list_tools()).tools
    if tools:
        await client.call_tool(tools[0].name, {})


async def add(client: Client) -> None:
    """Call a tool with numbers."""
    await client.list_tools()
    await client.call_tool("add_numbers", {"a": 5, "b": 3})


async def answer_with_defaults(client: Client) -> None:
    """Call the tool that asks for a form."""
    await client.list_tools()
    await client.call_tool("test_client_elicitation_defaults", {})


async def reconnect(client: Client) -> None:
    """Call the tool whose result comes on another stream."""
    await client.list_tools()
    await client.call_tool("test_reconnection", {})


async def everything_once(client: Client) -> None:
    """Use each method that has a header with a name."""
    for tool in (await client.list_tools()).tools:
        await client.call_tool(tool.name, {})
    for resource in (await client.list_resources()).resources:
        await client.read_resource(resource.uri)
    for prompt in (await client.list_prompts()).prompts:
        await client.get_prompt(prompt.name)


async def calls_of_the_context(client: Client) -> None:
    """Call the tools with the arguments that the suite gives."""
    await client.list_tools()
    for call in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
        await client.call_tool(call["name"], call["arguments"])


async def call_what_is_offered(client: Client) -> None:
    """Call every tool that the client lists, which leaves out the ones with wrong headers."""
    for tool in (await client.list_tools()).tools:
        await client.call_tool(tool.name, {"region": "us-east1"})


async def several_rounds(client: Client) -> None:
    """Call the tools that ask back, and the ones that do not."""
    await client.list_tools()
    for name in ("test_mrtr_echo_state", "test_mrtr_unrelated", "test_mrtr_no_state", "test_mrtr_no_result_type"):
        await client.call_tool(name, {})


async def echo_the_schema(client: Client) -> None:
    """Send a schema back as it was received."""
    for tool in (await client.list_tools()).tools:
        if tool.name == "json_schema_2020_12_tool":
            await client.call_tool("json_schema_echo", {"schema": tool.input_schema})


PLAYS: dict[str, Play] = {
    "initialize": only_list,
    "tools_call": add,
    "elicitation-sep1034-client-defaults": answer_with_defaults,
    "sse-retry": reconnect,
    "request-metadata": only_list,
    "http-standard-headers": everything_once,
    "http-custom-headers": calls_of_the_context,
    "http-invalid-tool-headers": call_what_is_offered,
    "json-schema-ref-no-deref": only_list,
    "sep-2322-client-request-state": several_rounds,
    "json-schema-2020-12-preservation": echo_the_schema,
    "sep-2640-client-no-prefetch": only_list,
}


def confirm(params: types.ElicitFormParams | types.ElicitUrlParams) -> types.ElicitResult:
    """Say yes where the form asks for nothing but that; fill in the defaults otherwise."""
    fields = params.requested_schema.get("properties") if isinstance(params, types.ElicitFormParams) else None
    if isinstance(fields, dict) and "confirmed" in fields:
        return types.ElicitResult(action="accept", content={"confirmed": True})
    return accept_defaults(params)


def say_hello(params: types.CreateMessageParams) -> types.CreateMessageResult:
    """Stand in for a language model."""
    return types.CreateMessageResult(role="assistant", content=types.TextContent("Hello"), model="none")


async def main() -> None:
    """Play the scenario of the environment against the server of the command line."""
    scenario = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
    async with Client(
        sys.argv[-1], name="garrison-conformance", on_elicit=confirm, on_sample=say_hello, on_roots=[]
    ) as client:
        await PLAYS.get(scenario, call_first)(client)


if __name__ == "__main__":
    asyncio.run(main())
