"""What is looked at in a result, and what only looks like it."""

from __future__ import annotations

from typing import cast

from garrison import Client, Context, ResourceContents, Server, ToolOutput
from garrison.types import ResourceLink, TextContent, TextResourceContents

HIDDEN, SEEN = "a\u202eb", "a<U+202E>b"


async def test_every_text_of_a_result_is_looked_at_its_addresses_and_meta_too() -> None:
    server = Server("looks")

    @server.tool()
    def everything() -> ToolOutput:
        link = ResourceLink(uri=f"file:///{HIDDEN}", name=HIDDEN, description=HIDDEN)
        return ToolOutput([TextContent(HIDDEN), link], meta={"example.com/by": HIDDEN})

    async with Client(server) as client:
        result = await client.call_tool("everything")
    text, link = result.content
    assert isinstance(text, TextContent) and text.text == SEEN
    assert isinstance(link, ResourceLink)
    assert (link.uri, link.name, link.description) == (f"file:///{SEEN}", SEEN, SEEN)
    meta = cast("dict[str, object]", result.meta)
    assert meta["example.com/by"] == SEEN and meta["garrison/sanitised"] is True


async def test_a_member_called_blob_or_data_is_no_binary_content() -> None:
    server = Server("looks")
    asked: list[object] = []

    @server.tool()
    async def ask(ctx: Context) -> ToolOutput:
        properties = {"blob": {"type": "string"}, "data": {"type": "string"}}
        await ctx.elicit("Which?", {"type": "object", "properties": properties})
        return ToolOutput([TextContent("done")], meta={"blob": "no base64!", "data": HIDDEN})

    @server.resource("memo://one")
    def memo() -> object:
        return ResourceContents.json("memo://one", {"blob": "no base64!"})

    def answer(question: object) -> dict[str, object]:
        asked.append(question)
        return {"action": "decline"}

    async with Client(server, on_elicit=answer) as client:
        result = await client.call_tool("ask")
        (contents,) = (await client.read_resource("memo://one")).contents
        assert isinstance(contents, TextResourceContents) and contents.text == '{"blob":"no base64!"}'
    meta = cast("dict[str, object]", result.meta)
    assert asked and not result.is_error and (meta["blob"], meta["data"]) == ("no base64!", SEEN)
