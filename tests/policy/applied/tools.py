"""`ToolOptions`: what is said about a tool, seen by whoever lists and calls it over HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from garrison import Rate, Rates, SecurityPolicy, Server, Timeouts
from garrison.protocol.types import Icon, ToolAnnotations
from garrison.server.options import ToolOptions
from tests.support.mcp import Json, call, modern, post
from tests.support.protected import use
from tests.support.raw_http import exchange, serving

from .auth import issued, resource_server
from .case import case
from .rates import ONCE

POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=0.2))
ASKED = {"elicitation": {}}


class Shop:
    """A served tool `act`, and what it did."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.ran: list[object] = []

    async def listed(self) -> Json:
        """Its definition."""
        answer = await exchange(self.port, post(self.port, modern("tools/list")))
        (tool,) = answer.json["result"]["tools"]
        return tool

    async def status(self, arguments: Json | None = None, **more: Any) -> int:
        return (await exchange(self.port, post(self.port, call("act", arguments, **more)))).status

    async def said(self, arguments: Json | None = None, **more: Any) -> object:
        """What a call gets: the text of its result, or the code of its error."""
        return told((await exchange(self.port, post(self.port, call("act", arguments, **more)))).json)


def told(answer: Any) -> object:
    if "error" in answer:
        return answer["error"]["code"]
    result = answer["result"]
    return result["content"][0]["text"].partition(" (error id")[0] if "content" in result else result["resultType"]


@asynccontextmanager
async def shop(option: str, value: object, act: Callable[..., object], /, **more: Any) -> AsyncIterator[Shop]:
    """A server of this tool; an option that is None is not given."""
    server = Server("s", policy=more.pop("policy", POLICY))
    given: Any = {**more, **({} if value is None else {option: value})}
    async with serving(server) as running:
        made = Shop(running.port)
        server.add_tool(act, "act", **given)
        yield made


def said() -> str:
    """What it does."""
    return "done"


def number(n: int) -> int:
    return n


def listing_case(name: str, wire: str, default: object, value: object, seen: object) -> None:
    """What the definition says."""

    @case(ToolOptions, name, default=default, changed=(value, seen))
    async def observe(value: object) -> object:
        async with shop(name, value, said) as at:
            return (await at.listed()).get(wire)


ICON = {"src": "https://example.com/i.png"}
TABLE = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 3}}, "required": ["n"]}
listing_case("title", "title", None, "Title", "Title")
listing_case("description", "description", "What it does.", "Other words", "Other words")
listing_case("annotations", "annotations", None, ToolAnnotations(read_only_hint=True), {"readOnlyHint": True})
listing_case("icons", "icons", None, [Icon(src=ICON["src"])], [ICON])
listing_case("meta", "_meta", None, {"example.com/a": 1}, {"example.com/a": 1})


def calling_case(
    name: str,
    act: Callable[..., object],
    arguments: Json,
    default: object,
    value: object,
    seen: object,
    **more: Any,
) -> None:
    """What a call gets."""

    @case(ToolOptions, name, default=default, changed=(value, seen))
    async def observe(value: object) -> object:
        async with shop(name, value, act, **more) as at:
            return await at.said(arguments)


TOO_LARGE = "Invalid arguments for tool 'act': n: must be at most 3"
NO_NUMBER = "Invalid arguments for tool 'act': n: must be an integer"
calling_case("input_schema", number, {"n": 5}, "5", TABLE, TOO_LARGE)
calling_case("output_schema", number, {"n": 5}, "5", TABLE, "Internal error")
calling_case("coerce", number, {"n": "5"}, NO_NUMBER, True, "5")
calling_case("destructive", said, {}, "done", True, -32021)
calling_case("confirm", said, {}, "done", True, -32021)
calling_case("confirm", said, {}, -32021, False, "done", destructive=True)


@case(ToolOptions, "structured_output", default={"result": 5}, changed=(False, None))
async def structured_output(value: bool | None) -> object:
    async with shop("structured_output", value, number) as at:
        answer = await exchange(at.port, post(at.port, call("act", {"n": 5})))
        return answer.json["result"].get("structuredContent")


@case(ToolOptions, "timeout", default="done", changed=(0.05, -32603))
async def timeout(value: float | None) -> object:
    async def slow() -> str:
        await asyncio.sleep(0.3)
        return "done"

    async with shop("timeout", value, slow) as at:
        return await at.said()


@case(ToolOptions, "inline", default="false", changed=(True, "true"))
async def inline(value: bool | None) -> object:
    """Whether a plain function runs on the thread of the event loop."""
    here = threading.get_ident()
    async with shop("inline", value, lambda: threading.get_ident() == here, structured_output=False) as at:
        return await at.said()


@case(ToolOptions, "confirm", first=(True, "act"), changed=("Sell the house?", "Sell the house?"))
async def words_of_a_question(value: object) -> object:
    """Which of the two words the question has."""
    async with shop("confirm", value, said) as at:
        answer = await exchange(at.port, post(at.port, call("act", capabilities=ASKED)))
    (question,) = answer.json["result"]["inputRequests"].values()
    message = question["params"]["message"]
    return "Sell the house?" if "Sell the house?" in message else "act" if "act" in message else message


@case(ToolOptions, "idempotent_by", default=(["bread", "bread"], "2"), changed=("key", (["bread"], "1")))
async def idempotent_by(value: str | None) -> object:
    """What was done by two calls that are equal, and what the second of them got."""

    def buy(what: str, key: str) -> int:
        at.ran.append(what)
        return len(at.ran)

    async with shop("idempotent_by", value, buy) as at:
        arguments = {"what": "bread", "key": "k1"}
        await at.said(arguments)
        again = await at.said(arguments)
        return at.ran, again


@case(ToolOptions, "rate", default=[200, 200], changed=(ONCE, [200, 429]))
async def rate(value: Rate | None) -> object:
    async with shop("rate", value, said) as at:
        return [await at.status(), await at.status()]


@case(ToolOptions, "cost", default=[200, 200], changed=(2, [200, 429]))
async def cost(value: int | None) -> object:
    policy = SecurityPolicy(rates=Rates(principal=Rate(0.001, burst=2)), timeouts=Timeouts(shutdown=0.2))
    async with shop("cost", value, said, policy=policy) as at:
        return [await at.status(), await at.status()]


@case(ToolOptions, "concurrency", default=[200, 200], changed=(1, [200, 429]))
async def concurrency(value: int | None) -> object:
    """Two calls at once."""

    async def slow() -> str:
        await asyncio.sleep(0.3)
        return "done"

    async with shop("concurrency", value, slow) as at:
        return sorted(await asyncio.gather(at.status(), at.status(id=2)))


def text_case(name: str, text: str, default: str, value: object, seen: str) -> None:
    """A text that leaves."""

    @case(ToolOptions, name, default=default, changed=(value, seen))
    async def observe(value: object) -> object:
        async with shop(name, value, lambda: text, structured_output=False) as at:
            return await at.said()


HIDDEN, IMAGE = "a\u202eb", "![x](https://evil.example/?q=1)"
text_case("dangerously_raw_text", HIDDEN, "a<U+202E>b", "a test", HIDDEN)
text_case("inert_markdown", IMAGE, IMAGE, True, "![x]\\(https:(//)evil.example/?q=1)")


# Who may


async def allowed(name: str, value: object, claims: dict[str, str], **more: Any) -> object:
    """What a token with these claims gets at a protected server."""
    server = Server("s", policy=POLICY, auth=resource_server())
    given: Any = {**more, **({} if value is None else {name: value})}
    server.add_tool(said, "act", **given)
    async with serving(server, token=None) as running:
        return told((await use(running.port, "act", as_=issued(**claims))).json)


@case(ToolOptions, "scopes", default=-32602, changed=(["read"], "done"))
async def scopes(value: list[str] | None) -> object:
    return await allowed("scopes", value, {"scope": "read"})


@case(ToolOptions, "scopes", first=(["read"], "done"), changed=(["write"], 403))
async def other_scopes(value: list[str]) -> object:
    return await allowed("scopes", value, {"scope": "read"})


@case(ToolOptions, "public", default=-32602, changed=(True, "done"))
async def public(value: bool | None) -> object:
    return await allowed("public", value, {})


@case(ToolOptions, "authorize", default="done", changed=(lambda access: False, -32602))
async def authorize(value: Any) -> object:
    return await allowed("authorize", value, {"scope": "read"}, scopes=["read"])


@case(ToolOptions, "without_scopes", default=403, changed=("hide", -32602))
async def without_scopes(value: Any) -> object:
    return await allowed("without_scopes", value, {}, scopes=["read"])
