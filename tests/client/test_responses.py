"""What a client makes of answers that are not what they should be, in every revision, and how it waits for others."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from garrison import Client, Limits, SecurityPolicy, Timeouts, events
from garrison import types as t
from garrison.auth.client.held import SignedIn
from garrison.client.cache import Cache
from garrison.client.catalogue import Catalogue
from garrison.client.http import _pause
from garrison.client.icons import MAX_BYTES, IconImage, check_icon, fetch_icon, read_icon
from garrison.client.words import remote_error, said, said_lines
from garrison.errors import ClientError, ConnectionLost, HttpError, OutputInvalid, ProtocolViolation
from garrison.protocol import revisions
from garrison.safe.fetch import SafeFetch
from tests.client.fakes import EVENTS, Request, chunk, discovery, http_server, respond
from tests.client.fakes import result as result_of

Json = dict[str, Any]
Handler = Callable[[Json], Any]

MODERN = revisions.VERSIONS[0]


class InMemory:
    """A server in this process that says what a function returns for each request: the members of a result."""

    def __init__(self, handle: Handler, version: str = MODERN) -> None:
        self._handle = handle
        self._version = version
        self.on_message: Callable[[bytes], None] = lambda _: None

    async def connect_memory(self) -> InMemory:
        return self

    def send(self, data: bytes) -> None:
        message = json.loads(data)
        method = message.get("method", "")
        if "id" not in message or not method:
            return
        if method == "server/discover" and self._version != MODERN:
            said: Json = {"error": {"code": -32601, "message": "no"}}
        else:
            value = self._handle(message)
            if isinstance(value, dict):
                value = {**({"resultType": "complete"} if self._version == MODERN else {}), **value}
            said = {"result": value}
        self.say({"jsonrpc": "2.0", "id": message["id"], **said})

    def say(self, message: Json) -> None:
        asyncio.get_running_loop().call_soon(self.on_message, json.dumps(message).encode())

    async def close(self) -> None:
        pass


def tool(name: str, **more: Any) -> Json:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


# Wrong types in every member


_CACHED: Json = {"ttlMs": 0, "cacheScope": "private"}
_TOOL = tool(
    "a",
    title="t",
    description="d",
    outputSchema={"type": "object"},
    annotations={"title": "x", "readOnlyHint": True},
    icons=[{"src": "https://x", "mimeType": "image/png", "sizes": ["any"], "theme": "dark"}],
    _meta={"a": 1},
)
_CONTENT: list[Json] = [
    {"type": "text", "text": "x", "annotations": {"audience": ["user"], "priority": 1}},
    {"type": "image", "data": "AAAA", "mimeType": "image/png"},
    {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"},
    {"type": "resource_link", "uri": "a://b", "name": "z"},
    {"type": "resource", "resource": {"uri": "a:b", "text": "t"}},
]
GOOD: dict[str, Json] = {
    "tools/list": {"tools": [_TOOL], "nextCursor": None, "_meta": {}, **_CACHED},
    "resources/list": {"resources": [{"uri": "a://b", "name": "n", "size": 3}], **_CACHED},
    "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "a://{b}", "name": "n"}], **_CACHED},
    "prompts/list": {"prompts": [{"name": "p", "arguments": [{"name": "x", "required": True}]}], **_CACHED},
    "tools/call": {"content": _CONTENT, "structuredContent": {"a": 1}, "isError": False},
    "resources/read": {"contents": [{"uri": "a:b", "text": "x"}, {"uri": "a:b", "blob": "AAAA"}], **_CACHED},
    "prompts/get": {"description": "d", "messages": [{"role": "user", "content": {"type": "text", "text": "x"}}]},
    "completion/complete": {"completion": {"values": ["a"], "total": 1, "hasMore": False}},
    "server/discover": {
        "supportedVersions": [MODERN],
        "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}},
        "instructions": "i",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "a", "version": "1"}},
        **_CACHED,
    },
    "initialize": {
        "protocolVersion": "",
        "capabilities": {"tools": {"listChanged": True}, "logging": {}},
        "serverInfo": {"name": "a", "version": "1"},
    },
}
BAD: list[Any] = [
    None,
    1,
    -1.5,
    True,
    "x",
    "\u202e\x1b[31mEVIL\n",
    [],
    {},
    [[]],
    [None],
    {"a": None},
    10**30,
    "A" * 3000,
]


async def _tools(client: Client) -> object:
    await client.list_tools()
    return [found async for found in client.tools()]


ASK: dict[str, Callable[[Client], Awaitable[object]]] = {
    "tools/list": _tools,
    "resources/list": lambda client: client.list_resources(),
    "resources/templates/list": lambda client: client.list_resource_templates(),
    "prompts/list": lambda client: client.list_prompts(),
    "tools/call": lambda client: client.call_tool("a"),
    "resources/read": lambda client: client.read_resource("a:b"),
    "prompts/get": lambda client: client.get_prompt("p"),
    "completion/complete": lambda client: client.complete(t.PromptReference(name="p"), "a", "b"),
    "server/discover": lambda client: client.discover(),
}


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    members: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        yield from places(member, (*path, name))


def replaced(value: Any, path: Sequence[str | int], new: object) -> Any:
    if not path:
        return new
    whole = copy.deepcopy(value)
    place = whole
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = new
    return whole


async def _survives(work: Awaitable[object]) -> bool:
    """True where there was a result; what there is else is an error of a client, fit to be shown."""
    try:
        async with asyncio.timeout(5):
            await work
    except ClientError as error:
        assert str(error).isprintable(), repr(str(error))
        return False
    return True


@pytest.mark.parametrize("version", revisions.VERSIONS)
async def test_whatever_type_a_member_has_there_is_a_result_or_an_error_of_a_client(version: str) -> None:
    answers: dict[str, Any] = {}

    def handle(message: Json) -> object:
        value = answers.get(message["method"], GOOD[message["method"]])
        if isinstance(value, dict) and value.get("protocolVersion") == "":
            value = {**value, "protocolVersion": version}
        return value

    good = bad = 0
    async with Client(InMemory(handle, version), versions=[version], cache=False) as client:
        for method, ask in ASK.items():
            for path in places(GOOD[method]):
                for wrong in BAD:
                    answers[method] = replaced(GOOD[method], path, wrong)
                    if await _survives(ask(client)):
                        good += 1
                    else:
                        bad += 1
            del answers[method]
            await ask(client)
    assert good > 500 and bad > 500
    met = "server/discover" if version == MODERN else "initialize"
    for path in places(GOOD[met]):
        for wrong in BAD:
            answers[met] = replaced(GOOD[met], path, wrong)
            await _survives(_meet(InMemory(handle, version), version))
    del answers[met]
    assert await _survives(_meet(InMemory(handle, version), version))


async def _meet(server: InMemory, version: str) -> None:
    async with Client(server, versions=[version], timeout=0.2) as client:
        await client.call_tool("a")


# Definitions that are none


async def test_one_malformed_definition_does_not_hide_the_others(caplog: pytest.LogCaptureFixture) -> None:
    listed: list[object] = [tool("a"), {"name": "no schema"}, 7, None, tool("b", annotations="\x1bx"), tool("c")]
    heard: list[events.Event] = []
    stop = events.listen(heard.append)
    try:
        async with Client(InMemory(lambda _: {**GOOD["server/discover"], "tools": listed})) as client:
            assert [found.name async for found in client.tools()] == ["a", "c"]
            assert client.dropped == {"definition": 4}
            assert [event.name for event in heard] == ["response.refused"]
            warning = next(record.message for record in caplog.records if record.name == "garrison.client")
            assert "4 of 6" in warning and warning.isprintable()
            listed = [tool("d")]
            assert [found.name async for found in client.tools()] == ["d"]
            assert client.dropped == {"definition": 4}
            for no_page in ({"tools": "x"}, {"tools": None}, {}, {"tools": [tool("a"), 7], "nextCursor": 7}):
                broken = no_page
                async with Client(InMemory(lambda message, broken=broken: _discover_or(message, broken))) as other:
                    with pytest.raises(ProtocolViolation):
                        await other.list_tools()
    finally:
        stop()


def _discover_or(message: Json, value: Json) -> Json:
    return GOOD["server/discover"] if message["method"] == "server/discover" else {**_CACHED, **value}


@pytest.mark.parametrize("bytes_of", [65_536, 65_537])
async def test_a_definition_may_be_as_large_as_its_limit(bytes_of: int) -> None:
    plain = len(json.dumps(tool("a", description=""), separators=(",", ":")))
    listed = [tool("a", description="x" * (bytes_of - plain)), tool("b", description="x" * 60_000)]
    async with Client(InMemory(lambda message: _discover_or(message, {"tools": listed}))) as client:
        if bytes_of > 65_536:
            with pytest.raises(ProtocolViolation, match=r"Limits\.definition_bytes"):
                await client.list_tools()
        else:
            assert len((await client.list_tools()).tools) == 2
    relaxed = SecurityPolicy(limits=Limits(definition_bytes=70_000))
    async with Client(InMemory(lambda message: _discover_or(message, {"tools": listed})), policy=relaxed) as client:
        assert len((await client.list_tools()).tools) == 2


async def test_a_refused_page_is_not_kept() -> None:
    asked = 0

    def handle(message: Json) -> Json:
        nonlocal asked
        asked += message["method"] == "tools/list"
        return _discover_or(message, {"tools": [tool("a", description="x" * 70_000)], "ttlMs": 60_000})

    async with Client(InMemory(handle)) as client:
        for _ in range(2):
            with pytest.raises(ProtocolViolation):
                await client.list_tools()
    assert asked == 2


# What is known of tools


def _page(*tools: Json) -> t.ListToolsResult:
    return t.convert({"resultType": "complete", "tools": list(tools), **_CACHED}, t.ListToolsResult)


def _result(**members: Any) -> t.CallToolResult:
    return t.convert({"resultType": "complete", "content": [], **members}, t.CallToolResult)


def test_a_schema_holds_until_the_tools_are_listed_again() -> None:
    strict = tool("a", outputSchema={"type": "object", "required": ["n"]})
    catalogue = Catalogue(most=10)
    catalogue.learn(_page(strict), mirrored=False)
    catalogue.learnt(catalogue.changes)
    for _ in range(2):
        catalogue.forget()
        assert not catalogue.knows("a") and catalogue.knew_output("a")
        with pytest.raises(OutputInvalid):
            catalogue.check("a", _result(structuredContent={}))
    catalogue.give_up()
    with pytest.raises(OutputInvalid):
        catalogue.check("a", _result(structuredContent={}))
    catalogue.forget()
    catalogue.learn(_page(tool("b")), mirrored=False)
    catalogue.learnt(catalogue.changes)  # it is gone, and so is what was known of it
    assert not catalogue.knew_output("a")
    catalogue.check("a", _result(structuredContent={}))


# What is kept


def _kept(scope: str) -> t.ListToolsResult:
    value = {"resultType": "complete", "tools": [], "ttlMs": 60_000, "cacheScope": scope}
    return t.convert(value, t.ListToolsResult)


def test_only_what_is_public_stays_when_somebody_else_signs_in() -> None:
    cache = Cache()
    before = cache.generation
    for scope in ("public", "private"):
        cache.put(("tools/list", scope), _kept(scope), size=10, now=0, generation=before)
    cache.leave()
    assert cache.get(("tools/list", "public"), 1) is not None
    assert cache.get(("tools/list", "private"), 1) is None
    cache.put(
        ("tools/list", "late"), _kept("private"), size=10, now=1, generation=before
    )  # asked before, answered after
    assert cache.get(("tools/list", "late"), 1) is None
    cache.put(("tools/list", "new"), _kept("private"), size=10, now=1, generation=cache.generation)
    assert cache.get(("tools/list", "new"), 1) is not None


@pytest.mark.attack("ATK-245")
async def test_an_answer_that_comes_after_somebody_else_has_signed_in_is_not_kept() -> None:
    account = "anna"
    asked, go = asyncio.Event(), asyncio.Event()

    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        mine = account
        if request.headers.get("authorization") != f"Bearer {mine}":
            writer.write(respond(b"", status="401 Unauthorized"))
            return None
        if request.method == "tools/list":
            if mine == "anna" and len(fake.requests) > 4:
                asked.set()
                await go.wait()
            return result_of(request, {"tools": [tool(mine)], "ttlMs": 60_000, "cacheScope": "private"})
        return result_of(request, {"content": []})

    async def sign_in(status: int, headers: object) -> str:
        return f"Bearer {account}"

    async with http_server(serve) as fake, Client(fake.url, challenge=sign_in) as client:
        await client.call_tool("work")
        await client.call_tool("work")
        late = asyncio.ensure_future(client.list_tools())
        await asked.wait()
        account = "bert"
        await client.call_tool("work")
        go.set()
        assert [found.name for found in (await late).tools] == ["anna"]  # it was anna who asked
        assert [found.name for found in (await client.list_tools()).tools] == ["bert"]


@pytest.mark.attack("ATK-245")
async def test_signing_out_and_in_again_drops_what_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    account: str | None = "anna"
    asked: list[object] = []

    def who(_: Client) -> SignedIn | None:
        return SignedIn("https://as.example", "https://example.com", "c", account, None, None) if account else None

    def handle(message: Json) -> Json:
        asked.append(message["method"])
        return _discover_or(message, {"tools": [tool(str(account))], "ttlMs": 60_000})

    monkeypatch.setattr(Client, "whoami", property(who))
    async with Client(InMemory(handle)) as client:
        for account, times in (("anna", 1), ("anna", 1), (None, 2), ("bert", 3), ("bert", 3), ("anna", 4)):
            assert [found.name for found in (await client.list_tools()).tools] == [str(account)]
            assert asked.count("tools/list") == times
        account = None
        version = client.tools_version
        await client.sign_out()
        assert client.tools_version != version  # at once, not with the next request


# Words


def test_words_are_shown_and_cut() -> None:
    assert said("plain") == "plain"
    assert said("a\nb\r\nc\x1b[0m\u202e") == "a␊b␊c␛[0m<U+202E>"
    assert said("x" * 1000, 10) == "xxxxxxxxxx... [990 more characters]"
    assert said_lines("a\nb\x00") == "a\nb␀"
    error = remote_error(5, "a\nb", {"c": "\x1b"})
    assert (str(error), error.code, error.message, error.data) == ("a␊b (5)", 5, "a\nb", {"c": "\x1b"})


# Pauses before a stream is opened again


def test_a_server_s_own_time_is_honoured_within_bounds() -> None:
    for retry, idle, least in ((500, 0, 0.5), (0, 0, 0.1), (1, 0, 0.1), (None, 0, 1.0), (None, 5, 32.0), (0, 5, 3.2)):
        found = {_pause(retry, idle) for _ in range(50)}
        assert least <= min(found) and max(found) <= least * 1.11
        assert len(found) > 5  # clients do not come all at once
    assert _pause(999_999_999, 0) < 67 and _pause(60_000, 9) < 67


@pytest.mark.parametrize("bad", ["x" * 1025, "a\u200bb"])
async def test_an_event_id_that_is_no_header_ends_the_resumption(bad: str) -> None:
    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.verb != "POST":
            gets.append(request)
            writer.write(respond(b"", status="405 No"))
        elif request.method == "initialize":
            info = {"name": "x", "version": "1"}
            body = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            return {"jsonrpc": "2.0", "id": request.message["id"], "result": body}
        elif "id" not in request.message:
            writer.write(respond(b"", status="202 Accepted"))
        else:
            writer.write(EVENTS + chunk(b"id: " + bad.encode() + b"\nretry: 1\ndata:\n\n") + b"0\r\n\r\n")
        return None

    gets: list[Request] = []
    async with http_server(serve) as fake, Client(fake.url, era="legacy") as client:
        before = len(gets)
        with pytest.raises(ProtocolViolation, match="event id"):
            await client.call_tool("work", timeout=3)
        assert len(gets) == before


async def test_a_subscription_that_breaks_at_once_again_and_again_is_made_anew_ever_more_rarely() -> None:
    opened: list[float] = []

    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        opened.append(time.monotonic())
        meta = {"io.modelcontextprotocol/subscriptionId": request.message["id"]}
        params = {"notifications": {"toolsListChanged": True}, "_meta": meta}
        said = {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params}
        writer.write(EVENTS + chunk(b"data: " + json.dumps(said).encode() + b"\n\n"))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()
        return None

    async with http_server(serve) as fake, Client(fake.url) as client:
        async with client.subscribe(tools=True) as changes:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(4):
                    async for _ in changes:
                        pass
    assert 2 <= len(opened) <= 5  # at a pause of 0.25 to 0.5 s that does not grow there would be 8 and more


async def test_a_refusal_that_asks_for_patience_is_heard_for_a_short_time_only() -> None:
    """`Retry-After` of more than 5 s is a refusal, and so is the fourth in a row."""
    after = "3600"
    calls = 0

    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        nonlocal calls
        if request.method == "server/discover":
            return discovery(request)
        calls += 1
        writer.write(respond(b"", status="503 Busy", extra=f"Retry-After: {after}\r\n"))
        return None

    async with http_server(serve) as fake, Client(fake.url) as client:
        for after, times in (
            ("3600", 1),
            ("99999999999", 1),
            ("-1", 1),
            ("Wed, 21 Oct 2099 07:28:00 GMT", 1),
            ("0", 4),
        ):
            calls = 0
            with pytest.raises(HttpError):
                await client.call_tool("work")
            assert calls == times, after


# Time of a listing


async def test_a_listing_s_time_is_shared_by_its_pages_and_each_has_its_own_at_most() -> None:
    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        page = int(request.params.get("cursor", "0"))
        await asyncio.sleep(pauses[page])
        more = {"nextCursor": str(page + 1)} if page + 1 < len(pauses) else {}
        return result_of(request, {"tools": [tool(str(page))], **more, **_CACHED})

    policy = SecurityPolicy(timeouts=Timeouts(listing=0.6, request=0.4))
    async with http_server(serve) as fake, Client(fake.url, policy=policy) as client:
        pauses = [0.1, 0.1, 0.1]
        assert len([found async for found in client.tools()]) == 3
        pauses = [0.3, 0.25, 0.3]
        with pytest.raises(ClientError, match=r"Timeouts\.listing"):
            _ = [found async for found in client.tools()]
        pauses = [0.0, 5.0]
        with pytest.raises(ClientError, match="timeout="):
            _ = [found async for found in client.tools()]
        await client.list_tools()


# Icons


def _png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + width.to_bytes(4) + height.to_bytes(4) + bytes(9)


def _jpeg(width: int, height: int) -> bytes:
    frame = b"\xff\xc0\x00\x11\x08" + height.to_bytes(2) + width.to_bytes(2) + bytes(10)
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(9) + b"\xff\xff" + frame[1:]


def _webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF" + (22).to_bytes(4, "little") + b"WEBP" + kind + (10).to_bytes(4, "little") + body.ljust(10, b"\0")


IMAGES: list[Any] = [
    ("image/png", _png),
    ("image/jpeg", _jpeg),
    (
        "image/webp",
        lambda w, h: _webp(b"VP8X", bytes(4) + (w - 1).to_bytes(3, "little") + (h - 1).to_bytes(3, "little")),
    ),
    ("image/webp", lambda w, h: _webp(b"VP8L", b"\x2f" + ((w - 1) | (h - 1) << 14).to_bytes(4, "little"))),
    (
        "image/webp",
        lambda w, h: _webp(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + w.to_bytes(2, "little") + h.to_bytes(2, "little")),
    ),
]


@pytest.mark.parametrize(("kind", "make"), IMAGES)
def test_the_size_of_an_image_is_read_from_its_head(kind: str, make: Any) -> None:
    image = make(1024, 7)
    assert read_icon(image) == IconImage(kind, 1024, 7, image)
    for width, height in ((1025, 7), (7, 1025), (16_000, 16_000)):
        with pytest.raises(ProtocolViolation, match="pixels"):
            read_icon(make(width, height))
    for cut in range(len(image)):  # what is cut off is refused, or has its head already; it never fails otherwise
        try:
            read_icon(image[:cut])
        except ProtocolViolation:
            continue
    with pytest.raises(ProtocolViolation, match="bytes"):
        read_icon(image + bytes(MAX_BYTES))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xda\x00\x02", b"GIF89a" + bytes(50), b"<svg>", bytes(99)]
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        read_icon(data)


@pytest.mark.attack("ATK-236")
async def test_an_icon_is_fetched_without_credentials_and_no_redirect_is_followed() -> None:
    asked: list[bytes] = []
    answer = respond(_png(16, 16), kind="image/png", extra="Set-Cookie: a=b\r\n")

    class Fake(SafeFetch):
        """Stands where TLS and the Internet would be, and keeps the rest."""

        async def get(self, url: str, **options: Any) -> Any:
            asked.append(url.encode())
            assert options == {"redirects": 0}
            return await super().get(f"http://127.0.0.1:{fake.port}/icon.png", **options)

    async def serve(request: Request, writer: asyncio.StreamWriter) -> None:
        assert not {"authorization", "cookie"} & request.headers.keys()
        writer.write(answer)

    icon = t.Icon(src="https://example.com/icon.png")
    async with http_server(serve) as fake:
        fetch = Fake(private_hosts=[f"127.0.0.1:{fake.port}"])
        for _ in range(2):
            image = await fetch_icon(icon, "https://example.com/mcp", fetch=fetch)
            assert (image.media_type, image.width, image.height) == ("image/png", 16, 16)
        answer = respond(b"", status="302 Away", extra=f"Location: http://127.0.0.1:{fake.port}/other.png\r\n")
        with pytest.raises(ProtocolViolation, match="302"):
            await fetch_icon(icon, "https://example.com/mcp", fetch=fetch)
        answer = respond(b"<svg/>", kind="image/png")
        with pytest.raises(ProtocolViolation, match="neither PNG"):
            await fetch_icon(icon, "https://example.com/mcp", fetch=fetch)
    assert asked == [b"https://example.com/icon.png"] * 4
    assert [request.target for request in fake.requests] == ["/icon.png"] * 4
    assert check_icon(icon, "https://example.com/mcp") == icon.src


async def test_a_server_that_ends_gives_each_waiter_an_error_of_its_own() -> None:
    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        writer.transport.abort()
        return None

    async with http_server(serve) as fake, Client(fake.url) as client:
        outcomes = await asyncio.gather(*(client.call_tool("x") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(outcome, ConnectionLost) for outcome in outcomes)
        assert len(set(map(id, outcomes))) == 20
