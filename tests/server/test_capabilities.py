"""Capabilities: what is advertised is answered, and what is not advertised is not there, on either side."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison import Client, Context, InputDeclined, Server
from garrison.protocol.types import ListChangedCapability, ResourcesCapability, ServerCapabilities
from tests.support.everywhere import KINDS as DOORS
from tests.support.everywhere import META, door
from tests.support.mcp import MODERN, REVISIONS, peer, until

NOTHING = ServerCapabilities()
PARTS = ("tools", "resources", "prompts", "completions", "logging")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "tools/list": ("tools", {}),
    "tools/call": ("tools", {"name": "act", "arguments": {}}),
    "resources/list": ("resources", {}),
    "resources/templates/list": ("resources", {}),
    "resources/read": ("resources", {"uri": "note://one"}),
    "resources/subscribe": ("resources", {"uri": "note://one"}),
    "resources/unsubscribe": ("resources", {"uri": "note://one"}),
    "prompts/list": ("prompts", {}),
    "prompts/get": ("prompts", {"name": "ask", "arguments": {"style": "x"}}),
    "completion/complete": (
        "completions",
        {"ref": {"type": "ref/prompt", "name": "ask"}, "argument": {"name": "style", "value": "x"}},
    ),
    "logging/setLevel": ("logging", {"level": "debug"}),
}
ONLY_OLD = {"resources/subscribe", "resources/unsubscribe", "logging/setLevel"}


def make(registered: frozenset[str] = frozenset(PARTS), ran: list[str] | None = None, **options: Any) -> Server:
    """A server where these are registered."""
    ran = [] if ran is None else ran
    server = Server("parts", **options)
    if "tools" in registered:

        @server.tool()
        async def act(ctx: Context) -> str:
            ran.append("act")
            await ctx.log("error", "said")
            return "done"

    if "resources" in registered:

        @server.resource("note://one")
        def one() -> str:
            ran.append("one")
            return "x"

    if "templates" in registered:

        @server.resource("note://{name}/x")
        def family(name: str) -> str:
            ran.append("family")
            return "x"

    if "prompts" in registered:

        @server.prompt()
        def ask(style: str) -> str:
            ran.append("ask")
            return "x"

    if "completions" in registered:

        def suggest(value: str) -> list[str]:
            ran.append("suggest")
            return [value]

        server.completion("ask", "style")(suggest)
    return server


def with_parts(names: Any) -> ServerCapabilities:
    capabilities = NOTHING
    for name in names:
        capabilities = getattr(capabilities, f"with_{name}")()
    return capabilities


def text(method: str, params: dict[str, Any]) -> str:
    inside = json.dumps({**params, "_meta": {}})[:-3] + "{" + META + "}}"
    return f'{{"jsonrpc":"2.0","id":1,"method":{json.dumps(method)},"params":{inside}}}'


async def advertised(p: Any) -> dict[str, Any]:
    return p.initialized["capabilities"] if not p.modern else (await p.result("server/discover"))["capabilities"]


def test_capabilities_are_put_together_one_by_one() -> None:
    assert with_parts(PARTS) == ServerCapabilities(
        tools=ListChangedCapability(list_changed=True),
        resources=ResourcesCapability(subscribe=True, list_changed=True),
        prompts=ListChangedCapability(list_changed=True),
        completions={},
        logging={},
    )
    assert NOTHING.with_tools().resources is None
    assert ServerCapabilities() == NOTHING


@pytest.mark.parametrize("transport", DOORS)
async def test_what_is_left_out_is_not_found_over_any_transport(transport: str) -> None:
    ran: list[str] = []
    for offered in (*((part,) for part in PARTS), ()):
        async with door(transport, make(ran=ran, capabilities=with_parts(offered))) as at:
            for method, (part, params) in METHODS.items():
                if method in ONLY_OLD and at.modern:
                    continue
                ran.clear()
                word = (await at.verdict(text(method, params))).word
                if part not in offered:
                    assert word == "-32601", (method, offered)
                    assert ran == []
                elif part != "completions":  # on a duplex connection the next request may be answered first
                    assert word == "answered" or (not at.http and word == "silent"), (method, offered)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_what_is_left_out_is_not_found_in_any_revision(revision: str) -> None:
    ran: list[str] = []
    for offered in (("tools",), ("resources", "logging"), ("prompts", "completions"), ()):
        async with peer(make(ran=ran, capabilities=with_parts(offered)), revision) as p:
            shown = set(await advertised(p))
            assert shown == set(offered) - ({"completions"} if revision == "2024-11-05" else set())
            for method, (part, params) in METHODS.items():
                if method in ONLY_OLD and p.modern:
                    continue
                ran.clear()
                response = await p.once(method, params)
                if part in offered:
                    assert "result" in response, (method, offered)
                else:
                    assert response["error"]["code"] == -32601, (method, offered)
                    assert response["error"]["message"] == "Method not found"
                    assert ran == []


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_method_that_is_left_out_is_like_one_that_nobody_knows(revision: str) -> None:
    async with peer(make(capabilities=NOTHING.with_tools()), revision) as p:
        unknown = await p.once("no/such_method", {}, id=1)
        for method, (part, params) in METHODS.items():
            if part != "tools":
                assert await p.once(method, params, id=1) == unknown


everything = st.frozensets(st.sampled_from([*PARTS, "templates"]))


@settings(max_examples=60, deadline=None)
@given(everything, st.none() | st.frozensets(st.sampled_from(PARTS)), st.sampled_from(REVISIONS))
async def test_what_is_advertised_is_answered_and_nothing_else_is(
    registered: frozenset[str], offered: frozenset[str] | None, revision: str
) -> None:
    server = make(registered, capabilities=None if offered is None else with_parts(offered))
    async with peer(server, revision) as p:
        shown = set(await advertised(p))
        there = {
            "tools": "tools" in registered,
            "resources": bool({"resources", "templates"} & registered),
            "prompts": "prompts" in registered,
            "completions": "completions" in registered,
            "logging": True,
        }
        expected = {name for name, is_there in there.items() if is_there and (offered is None or name in offered)}
        if revision == "2024-11-05":
            assert shown == expected - {"completions"}  # it could not be said then
        else:
            assert shown == expected
        for method, (part, params) in METHODS.items():
            if method in ONLY_OLD and p.modern:
                continue
            response = await p.once(method, params)
            found = response.get("error", {}).get("code") != -32601
            assert found == (part in expected), (method, response)


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("logs", [True, False])
async def test_log_messages_are_sent_only_where_logging_is_offered(revision: str, logs: bool) -> None:
    offered = NOTHING.with_tools().with_logging() if logs else NOTHING.with_tools()
    async with peer(make(capabilities=offered), revision) as p:
        level = {"io.modelcontextprotocol/logLevel": "debug"} if p.modern else {}
        result = await p.result("tools/call", {"name": "act", "arguments": {}}, **level)
        assert result["content"][0]["text"] == "done"
        assert [method for method, _ in p.notifications] == (["notifications/message"] if logs else [])


@pytest.mark.parametrize("revision", REVISIONS)
async def test_parts_of_a_capability_are_offered_one_by_one(revision: str) -> None:
    """`subscribe` and `listChanged` are offered where they are, and nothing of them is done where they are not."""
    flags = [True, False, None]
    for subscribe, changes in itertools.product(flags, flags):
        limit = ServerCapabilities(
            tools=ListChangedCapability(list_changed=changes),
            resources=ResourcesCapability(subscribe=subscribe, list_changed=changes),
        )
        server = make(capabilities=limit)
        async with peer(server, revision) as p:
            shown = await advertised(p)
            assert shown["tools"] == ({"listChanged": True} if changes else {})
            told = {"subscribe": True} if subscribe else {}
            assert shown["resources"] == {**told, **({"listChanged": True} if changes else {})}
            if p.modern:
                wanted = {"toolsListChanged": True, "resourcesListChanged": True, "promptsListChanged": True}
                filters = {"notifications": {**wanted, "resourceSubscriptions": ["note://one"]}}
                p.start(p.message("subscriptions/listen", filters, "listen", {}))
                await until(lambda p=p: p.notifications)
                honoured = {"toolsListChanged": True, "resourcesListChanged": True} if changes else {}
                if subscribe:
                    honoured["resourceSubscriptions"] = ["note://one"]  # type: ignore[assignment]  # a filter has both
                assert p.notifications.pop(0)[1]["notifications"] == honoured
            else:
                for method in ("resources/subscribe", "resources/unsubscribe", "resources/subscribe"):
                    response = await p.once(method, {"uri": "note://one"})
                    assert ("result" in response) == bool(subscribe)
                    assert subscribe or response["error"]["code"] == -32601
            server.resource_updated("note://one")
            server.add_tool(lambda: "x", "more")
            server.remove_resource("note://one")  # the last one
            server.remove_prompt("ask")
            await asyncio.sleep(0.01)
            methods = {method.removeprefix("notifications/") for method, _ in p.notifications}
            expected = {"tools/list_changed", "resources/list_changed"} if changes else set[str]()
            assert methods == expected | ({"resources/updated"} if subscribe else set())


@pytest.mark.parametrize("revision", REVISIONS)
async def test_what_comes_and_goes_is_offered_while_it_is_there(revision: str) -> None:
    server = make(frozenset())
    async with peer(server, revision) as p:
        for _ in range(2):
            assert (await p.error("tools/list"))["code"] == -32601
            server.add_tool(lambda: "x", "act")
            assert [tool["name"] for tool in (await p.result("tools/list"))["tools"]] == ["act"]
            server.remove_tool("act")
        reference = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "who", "value": ""}}

        @server.prompt()
        def greet(who: str) -> str:
            return who

        assert (await p.error("completion/complete", reference))["code"] == -32601

        @server.completion("greet", "who")
        def people(value: str) -> list[str]:
            return ["you"]

        assert (await p.result("completion/complete", reference))["completion"]["values"] == ["you"]


async def test_completions_name_only_what_is_offered() -> None:
    """A prompt that is not offered is not completed either, nor anything under the other kind's name."""
    ran: list[str] = []
    for offered, word in (("completions",), "unknown"), (("completions", "prompts"), "ok"):
        async with peer(make(ran=ran, capabilities=with_parts(offered))) as p:
            params = METHODS["completion/complete"][1]
            response = await p.once("completion/complete", params)
            assert ("result" in response) == (word == "ok")
            for ref in (
                {"type": "ref/resource", "uri": "ask"},
                {"type": "ref/prompt", "name": "nobody"},
                {"type": "ref/prompt", "uri": "ask"},
                {"type": "ref/other", "name": "ask"},
                {"type": ["ref/prompt"], "name": "ask"},
                {"type": {}, "name": "ask"},
                {"name": "ask"},
            ):
                assert (await p.error("completion/complete", {**params, "ref": ref}))["code"] == -32602, ref
    assert ran == ["suggest"]


@pytest.mark.parametrize("revision", REVISIONS[1:])
@pytest.mark.parametrize("transport", ["memory", "stdio", "http"])
async def test_a_second_handshake_changes_nothing(revision: str, transport: str) -> None:
    """A client cannot declare more, become somebody else or change its revision within a session."""
    server = make()

    @server.tool()
    async def supports(ctx: Context) -> list[str]:
        return sorted(ctx.client_capabilities)

    async with peer(server, revision, transport) as p:
        larger = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"sampling": {}, "elicitation": {}, "roots": {}},
            "clientInfo": {"name": "other", "version": "2"},
        }
        assert (await p.error("initialize", larger))["code"] == -32600
        assert (await p.tool("supports"))["content"][0]["text"] in ("[]", "")
        assert "result" in await p.once("tools/list")


MESSAGE = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "x"}}
ASKS: dict[str, tuple[str, Any]] = {
    "elicit": ("elicitation", lambda ctx: ctx.elicit("sure", {"type": "object", "properties": {}})),
    "sample": ("sampling", lambda ctx: ctx.sample("hello", max_tokens=5)),
    "roots": ("roots", lambda ctx: ctx.list_roots()),
}


@pytest.mark.attack("ATK-099")
@pytest.mark.parametrize("revision", [MODERN, "2025-11-25", "2025-06-18"])
@pytest.mark.parametrize("question", ASKS)
async def test_a_server_does_not_ask_what_was_not_declared(revision: str, question: str) -> None:
    capability, ask = ASKS[question]
    server = Server("asks")

    @server.tool()
    async def use(ctx: Context) -> str:
        await ask(ctx)
        return "asked"

    answers = {
        "elicitation/create": lambda _: {"action": "accept", "content": {}},
        "sampling/createMessage": lambda _: MESSAGE,
        "roots/list": lambda _: {"roots": []},
    }
    others = {name: {} for name, _ in ASKS.values() if name != capability}
    async with peer(server, revision, capabilities=others, answers=answers) as p:
        error = await p.error("tools/call", {"name": "use", "arguments": {}})
        assert error["code"] == (-32021 if revision == MODERN else -32602)
        assert list(error["data"]["requiredCapabilities"]) == [capability]
        assert p.asked == []
    async with peer(server, revision, capabilities={capability: {}}, answers=answers) as p:
        assert (await p.tool("use"))["content"][0]["text"] == "asked"
        assert len(p.asked) == 1


FORM = {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}
SAMPLE = {"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}], "maxTokens": 5}
TOOLS = [{"name": "t", "inputSchema": {"type": "object"}}]
URL = {"mode": "url", "message": "?", "url": "https://example.com/", "elicitationId": "e"}


@pytest.mark.parametrize(
    ("version", "method", "params", "code"),
    [
        ("2025-11-25", "sampling/createMessage", {**SAMPLE, "tools": TOOLS}, -32602),
        ("2025-11-25", "sampling/createMessage", {**SAMPLE, "toolChoice": {"mode": "auto"}}, -32602),
        ("2025-11-25", "sampling/createMessage", SAMPLE, None),
        ("2025-11-25", "elicitation/create", URL, None),
        ("2025-06-18", "elicitation/create", URL, -32602),
        ("2025-06-18", "elicitation/create", FORM, None),
        ("2025-03-26", "elicitation/create", FORM, -32601),
        ("2024-11-05", "elicitation/create", FORM, -32601),
        ("2024-11-05", "sampling/createMessage", SAMPLE, None),
        ("2024-11-05", "roots/list", {}, -32601),
        ("2024-11-05", "tasks/cancel", {}, -32601),
    ],
)
async def test_a_client_with_a_handler_refuses_what_it_did_not_declare(
    version: str, method: str, params: dict[str, Any], code: int | None
) -> None:
    """A part of a capability, or one that its revision does not have, is refused though a handler is there."""
    heard: list[object] = []
    answers: list[dict[str, Any]] = []
    ended = asyncio.Event()

    def answer(question: object) -> dict[str, Any]:
        heard.append(question)
        return MESSAGE if method.startswith("sampling") else {"action": "decline"}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.readline():
            message = json.loads(data)
            reply = {"jsonrpc": "2.0", "id": message.get("id")}
            if message.get("method") == "initialize":
                about = {"serverInfo": {"name": "raw", "version": "1"}, "capabilities": {"tools": {}}}
                reply["result"] = {"protocolVersion": version, **about}
            elif message.get("method") == "tools/call":
                question = {"jsonrpc": "2.0", "id": "q", "method": method, "params": params}
                writer.write(json.dumps(question).encode() + b"\n")
                answers.append(json.loads(await reader.readline()))
                reply["result"] = {"content": []}
            elif "id" in message:
                reply["result"] = {"tools": []}
            else:
                continue
            writer.write(json.dumps(reply).encode() + b"\n")
        writer.close()
        await writer.wait_closed()
        ended.set()

    with tempfile.TemporaryDirectory() as folder:
        async with await asyncio.start_unix_server(serve, f"{folder}/s") as listener:
            async with Client(f"unix:{folder}/s", versions=[version], on_sample=answer, on_elicit=answer) as client:
                await client.call_tool("use", {})
            await ended.wait()
            listener.close()
    assert answers[0]["id"] == "q"
    assert answers[0].get("error", {}).get("code") == code
    assert len(heard) == (code is None)


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
@pytest.mark.parametrize("question", ASKS)
async def test_a_client_that_did_not_declare_it_refuses_a_question(version: str, question: str) -> None:
    """A client without a handler declares nothing; a server that asks all the same gets no answer."""
    capability, ask = ASKS[question]
    server = Server("asks")
    seen: list[dict[str, object]] = []

    @server.tool()
    async def use(ctx: Context) -> str:
        seen.append(dict(ctx.client_capabilities))
        ctx.client_capabilities[capability] = {}  # a server that does not care
        await ask(ctx)
        return "asked"

    async with Client(server, versions=[version]) as client:
        if version == MODERN:
            with pytest.raises(InputDeclined):
                await client.call_tool("use", {})
        else:
            assert (await client.call_tool("use", {})).is_error
    assert capability not in seen[0]
