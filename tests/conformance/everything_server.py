"""The server that the official conformance suite is run against: `python -m tests.conformance.everything_server`.

Rules of this file:
- It uses what any user can import, in the way the guide shows; nothing here reaches into the library.
- Names and texts are the ones that the suite expects.
- A tool that changes what is listed leaves the listing as it was.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from garrison import Context, MissingCapability, ResourceContents, SecurityPolicy, Server, ToolError, types

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
PAUSE = 0.05

server = Server(
    "garrison-everything",
    "1.0.0",
    instructions="One of everything, for the conformance suite.",
    policy=SecurityPolicy.conformance(),
)


# Tools that answer at once


@server.tool()
async def test_simple_text() -> types.TextContent:
    """Answer with a text."""
    return types.TextContent("This is a simple text response for testing.")


@server.tool()
async def test_image_content() -> types.ImageContent:
    """Answer with an image."""
    return types.ImageContent(data=PNG, mime_type="image/png")


@server.tool()
async def test_audio_content() -> types.AudioContent:
    """Answer with a sound."""
    return types.AudioContent(data=WAV, mime_type="audio/wav")


@server.tool()
async def test_embedded_resource() -> types.EmbeddedResource:
    """Answer with a resource."""
    return types.EmbeddedResource(
        resource=ResourceContents.text("test://embedded-resource", "This is an embedded resource content.")
    )


@server.tool()
async def test_multiple_content_types() -> list[types.TextContent | types.ImageContent | types.EmbeddedResource]:
    """Answer with a text, an image and a resource."""
    return [
        types.TextContent("Multiple content types test:"),
        types.ImageContent(data=PNG, mime_type="image/png"),
        types.EmbeddedResource(
            resource=ResourceContents.json("test://mixed-content-resource", {"test": "data", "value": 123})
        ),
    ]


@server.tool()
async def test_error_handling() -> str:
    """Fail in a way that the model should read."""
    raise ToolError("This tool intentionally returns an error for testing")


@server.tool()
async def test_x_mcp_header(region: Annotated[str, Meta(extra_json_schema={"x-mcp-header": "Region"})] = "") -> str:
    """Repeat an argument that also travels as an HTTP header."""
    return f"region: {region}"


@server.tool(
    input_schema={
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    }
)
async def json_schema_2020_12_tool(
    name: str = "",
    address: dict[str, str] | None = None,
    contactMethod: Literal["phone", "email"] | None = None,
    phone: str | None = None,
    email: str | None = None,
) -> str:
    """Take arguments whose schema uses what is new in JSON Schema 2020-12."""
    return f"{name}: {phone or email}"


# Tools that say something on the way


@server.tool()
async def test_tool_with_logging(ctx: Context) -> str:
    """Log at the start, in the middle and at the end."""
    await ctx.info("Tool execution started")
    await asyncio.sleep(PAUSE)
    await ctx.info("Tool processing data")
    await asyncio.sleep(PAUSE)
    await ctx.info("Tool execution completed")
    return "Tool with logging executed successfully"


@server.tool()
async def test_logging_tool(ctx: Context) -> str:
    """Log at every level that a client may have asked for."""
    await ctx.debug("Looking around")
    await ctx.info("Logging")
    await ctx.error("Nothing is wrong")
    return "Logged"


@server.tool()
async def test_tool_with_progress(ctx: Context) -> str:
    """Tell how far the work is."""
    await ctx.progress(0, 100)
    await asyncio.sleep(PAUSE)
    await ctx.progress(50, 100)
    await asyncio.sleep(PAUSE)
    await ctx.progress(100, 100)
    return "Tool with progress executed successfully"


@server.tool()
async def test_reconnection(ctx: Context) -> str:
    """Close the response's stream before the result, which the client then comes back for."""
    await ctx.info("Closing the stream")
    ctx.close_stream()
    await asyncio.sleep(0.2)
    await ctx.info("The stream was closed")
    return "Reconnection test completed"


@server.tool()
async def test_trigger_tool_change() -> str:
    """Change the list of tools and change it back."""

    async def passing() -> str:
        """Be there for a moment."""
        return "gone"

    server.add_tool(passing, "test_passing_tool")
    server.remove_tool("test_passing_tool")
    return "The tools have changed"


@server.tool()
async def test_trigger_prompt_change() -> str:
    """Change the list of prompts and change it back."""

    async def passing() -> str:
        """Be there for a moment."""
        return "gone"

    server.add_prompt(passing, "test_passing_prompt")
    server.remove_prompt("test_passing_prompt")
    return "The prompts have changed"


# Tools that ask back


class Enums:
    """The five shapes of a choice in a form."""

    OPTIONS = ("option1", "option2", "option3")
    TITLED = tuple({"const": f"value{n}", "title": f"{word} option"} for n, word in enumerate(("First", "Second"), 1))

    SCHEMA: dict[str, object] = {
        "type": "object",
        "properties": {
            "untitledSingle": {"type": "string", "enum": [*OPTIONS]},
            "titledSingle": {"type": "string", "oneOf": [*TITLED]},
            "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option one", "Option two"]},
            "untitledMulti": {"type": "array", "items": {"type": "string", "enum": [*OPTIONS]}},
            "titledMulti": {"type": "array", "items": {"anyOf": [*TITLED]}},
        },
    }


@dataclass
class Person:
    """Who the user is."""

    username: str
    email: str


@dataclass
class Defaults:
    """A form that is filled in already."""

    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Literal["active", "inactive", "pending"] = "active"
    verified: bool = True


@dataclass
class Name:
    """A name."""

    name: str


@dataclass
class Confirmation:
    """A yes or a no."""

    ok: bool


@dataclass
class Colour:
    """A colour."""

    color: str


@dataclass
class Subject:
    """What a prompt is about."""

    context: str


@server.tool()
async def test_sampling(prompt: str, ctx: Context) -> str:
    """Ask the client's model."""
    answer = await ctx.sample(prompt, max_tokens=100)
    return f"LLM response: {spoken(answer.content)}"


@server.tool()
async def test_elicitation(message: str, ctx: Context) -> str:
    """Ask the user who they are."""
    answer = await ctx.elicit(message, Person)
    return f"User response: {answer}"


@server.tool()
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    """Ask the user with a form that has defaults."""
    return f"Elicitation completed: {await ctx.elicit('Please review the form', Defaults)}"


@server.tool()
async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    """Ask the user to choose, in every way there is."""
    return f"Elicitation completed: {await ctx.elicit('Please choose', Enums.SCHEMA)}"


@server.tool()
async def test_streaming_elicitation(ctx: Context) -> str:
    """Ask the user while there is a stream."""
    await ctx.progress(0, 1)
    answer = await ctx.elicit("Go on?", Confirmation)
    return f"The user said {answer.action}"


@server.tool()
async def test_missing_capability(ctx: Context) -> str:
    """Need sampling, without using it."""
    if not ctx.client_supports("sampling"):
        raise MissingCapability({"sampling": {}})
    return "Sampling is there"


@server.tool()
async def test_input_required_result_elicitation(ctx: Context) -> str:
    """Greet the user by name."""
    answer = await ctx.elicit("What is your name?", Name, key="user_name")
    return f"Hello, {answer.content.name if answer.content else 'stranger'}!"


@server.tool()
async def test_input_required_result_sampling(ctx: Context) -> str:
    """Ask the client's model about France."""
    answer = await ctx.sample("What is the capital of France?", max_tokens=100, key="capital_question")
    return f"The model says: {spoken(answer.content)}"


@server.tool()
async def test_input_required_result_list_roots(ctx: Context) -> str:
    """List the client's roots."""
    return f"Roots: {[root.uri for root in await ctx.list_roots(key='client_roots')]}"


@server.tool()
async def test_input_required_result_request_state(ctx: Context) -> str:
    """Ask for a confirmation."""
    answer = await ctx.elicit("Please confirm", Confirmation, key="confirm")
    return f"state-ok: {answer.action}"


@server.tool()
async def test_input_required_result_multiple_inputs(ctx: Context) -> str:
    """Ask the user, the model and the client at once."""
    name, greeting, roots = await asyncio.gather(
        ctx.elicit("What is your name?", Name, key="user_name"),
        ctx.sample("Write a greeting", max_tokens=50, key="greeting"),
        ctx.list_roots(key="client_roots"),
    )
    return f"{spoken(greeting.content)} {name.content} ({len(roots)} roots)"


@server.tool()
async def test_input_required_result_multi_round(ctx: Context) -> str:
    """Ask one thing after the other."""
    name = await ctx.elicit("Step 1: what is your name?", Name, key="step1")
    colour = await ctx.elicit("Step 2: what is your favourite colour?", Colour, key="step2")
    return f"{name.content} likes {colour.content}"


@server.tool()
async def test_input_required_result_tampered_state(ctx: Context) -> str:
    """Ask for a confirmation, with a state that cannot be changed on the way."""
    answer = await ctx.elicit("Please confirm", Confirmation, key="confirm")
    return f"The user said {answer.action}"


@server.tool()
async def test_input_required_result_capabilities(ctx: Context) -> str:
    """Ask only what the client can be asked."""
    if ctx.client_supports("elicitation", "form"):
        return f"The user said {(await ctx.elicit('Please confirm', Confirmation, key='confirm')).action}"
    if ctx.client_supports("sampling"):
        return f"The model says: {spoken((await ctx.sample('Say hello', max_tokens=50, key='hello')).content)}"
    return "There is nobody to ask"


def spoken(content: object) -> str:
    """The text of what a model said."""
    return content.text if isinstance(content, types.TextContent) else "(no text)"


# Resources


@server.resource("test://static-text", mime_type="text/plain")
async def static_text() -> str:
    """A text that never changes."""
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
async def static_binary() -> bytes:
    """An image that never changes."""
    return base64.b64decode(PNG)


@server.resource("test://watched-resource", mime_type="text/plain")
async def watched_resource() -> str:
    """A text to subscribe to."""
    return "Watch me"


@server.resource("test://template/{id}/data", mime_type="application/json")
async def template_data(id: str) -> dict[str, object]:
    """Data of one id."""
    return {"id": id, "templateTest": True, "data": f"Data for ID: {id}"}


# Prompts


@server.prompt()
async def test_simple_prompt() -> str:
    """A prompt without arguments."""
    return "This is a simple prompt for testing."


@server.prompt()
async def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    """A prompt with two arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.completion("test_prompt_with_arguments", "arg1")
async def complete_arg1(value: str) -> list[str]:
    """Words that begin like this."""
    return [word for word in ("test", "testing", "tester") if word.startswith(value)]


@server.prompt()
async def test_prompt_with_embedded_resource(resourceUri: str) -> list[types.PromptMessage]:
    """A prompt that carries a resource."""
    contents = ResourceContents.text(resourceUri, "Embedded resource content for testing.")
    return [
        types.PromptMessage(role="user", content=types.EmbeddedResource(resource=contents)),
        types.PromptMessage(role="user", content=types.TextContent("Please process the embedded resource above.")),
    ]


@server.prompt()
async def test_prompt_with_image() -> list[types.PromptMessage]:
    """A prompt that carries an image."""
    return [
        types.PromptMessage(role="user", content=types.ImageContent(data=PNG, mime_type="image/png")),
        types.PromptMessage(role="user", content=types.TextContent("Please analyze the image above.")),
    ]


@server.prompt()
async def test_input_required_result_prompt(ctx: Context) -> str:
    """A prompt that asks the user what it is about."""
    answer = await ctx.elicit("What should the prompt be about?", Subject, key="user_context")
    return f"Use this context: {answer.content.context if answer.content else 'none'}"


def main() -> None:
    """Serve on loopback, on the port that is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=3001)
    server.run_http("127.0.0.1", parser.parse_args().port)


if __name__ == "__main__":
    main()
