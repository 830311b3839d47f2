"""A connection of whole messages, as behind stdio, WebSocket and Unix sockets: every request is answered exactly once
with its id, a notification never, and what is no message gets one error. The input is one message a line."""

from __future__ import annotations

import asyncio
import atexit
import json
from collections import Counter
from typing import Any

from fuzz.oracle import Finding, hold
from fuzz.targets.envelope import good_id, kind
from garrison import Context, Limits, SecurityPolicy, Server
from garrison.errors import McpError, ParseError
from garrison.policy.principal import LOCAL
from garrison.protocol.json import decoder
from garrison.server.core import Core
from garrison.server.duplex import DuplexConnection

_META = b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
_META += (
    b'"io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"f","version":"1"}}'
)
_HELLO = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"%b","capabilities":'
_HELLO += b'{"elicitation":{}},"clientInfo":{"name":"f","version":"1"}}}\n'
_HELLO += b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'


def _call(identifier: bytes, tool: bytes, meta: bytes = b"," + _META) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":{"name":"%b","arguments":{"n":1}%b}}\n' % (
        identifier,
        tool,
        meta,
    )


SEEDS = (
    _call(b"1", b"now") + _call(b'"1"', b"later") + _call(b"1", b"later") + _call(b"2", b"none") + b"{\n[]\n{}\nnull",
    _call(b"1", b"later") + b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}\n',
    b'{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{%b}}\n{"jsonrpc":"2.0","id":2,"method":"ping"}'
    % _META,
    b'{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},%b}}'
    % _META,
    _HELLO % b"2025-11-25"
    + _call(b"1", b"now", b"")
    + _call(b"2", b"ask", b"")
    + b'{"jsonrpc":"2.0","id":3,"method":"ping"}\n',
    _HELLO % b"2025-03-26"
    + b"["
    + _call(b"1", b"now", b"").strip()
    + b","
    + _call(b"2", b"later", b"").strip()
    + b',1,{"jsonrpc":"2.0","method":"x"}]',
    _HELLO % b"2024-11-05"
    + b'{"jsonrpc":"2.0","id":4,"method":"resources/list","params":{}}\n{"jsonrpc":"2.0","id":5,"result":{}}',
    _HELLO % b"1999-01-01"
    + _HELLO % b"2025-06-18"
    + b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}\n{"method":"x"}',
)
WORDS = (
    b"\n",
    b'"jsonrpc":"2.0"',
    b'"id":1',
    b'"id":null',
    b'"method":"ping"',
    b'"method":"tools/list"',
    b'"method":"initialize"',
    b'"method":"notifications/cancelled"',
    b'"method":"subscriptions/listen"',
    b'"requestId":1',
    b'"params":{}',
    b'"result":{}',
    b'"error":{"code":1,"message":""}',
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"now",
    b"later",
    b"ask",
    b"fail",
    b"none",
    _META,
    b'"progressToken":1',
    b"2025-03-26",
    b"2024-11-05",
)

_LIMITS = Limits(in_flight=20, sessions=3, subscriptions=4, batch=5)
_server = Server("fuzz", policy=SecurityPolicy(limits=_LIMITS))
_decode = decoder(_LIMITS)
_loop = asyncio.new_event_loop()
atexit.register(_loop.close)


@_server.tool(inline=True)
def now(n: int) -> int:
    return n


@_server.tool()
async def later(ctx: Context, n: int) -> str:
    for step in range(3):
        ctx.progress(step, total=3)
        await asyncio.sleep(0)
    return str(n)


@_server.tool()
async def fail(n: int) -> str:
    raise LookupError("inside")


@_server.tool()
async def ask(ctx: Context, n: int) -> str:
    answer = await ctx.elicit("?", {"type": "object", "properties": {"x": {"type": "string"}}})
    return str(answer)


class Expected:
    """How often each id has to be answered. None stands for an error without id."""

    def __init__(self) -> None:
        self.answers: Counter[object] = Counter()
        self.optional: set[object] = set()

    def line(self, data: bytes, connection: DuplexConnection) -> None:
        """Take what a line asks for, before it is given to the connection."""
        try:
            value = _decode(data)
        except ParseError:
            self.answers[None] += 1
            return
        batches = connection.session is not None and connection.session.revision.batches
        if isinstance(value, list) and batches and 1 <= len(value) <= _LIMITS.batch:
            for item in value:
                self.message(item)
        else:
            self.message(value)

    def message(self, value: Any) -> None:
        """Take what a message asks for."""
        what = kind(value)
        if what == "request":
            self.answers[key(value["id"])] += 1
            if value.get("params", {}).get("name") == "ask":
                self.optional.add(key(value["id"]))  # its answer waits for one that may never come
        elif what == "notification":
            if value["method"] == "notifications/cancelled":
                self.optional.add(key(value.get("params", {}).get("requestId")))
        elif what == "bad":
            is_object = isinstance(value, dict)
            if is_object and "method" in value and "id" not in value:
                return
            readable = is_object and "method" in value and good_id(value.get("id"))
            self.answers[key(value["id"]) if readable else None] += 1


def key(identifier: object) -> object:
    """An id that is not the same as one of another type."""
    return None if identifier is None else (type(identifier).__name__, str(identifier))


def said(sent: list[bytes]) -> Counter[object]:
    """How often each id was answered."""
    answers: Counter[object] = Counter()
    for data in sent:
        hold(b"\n" not in data, "a line break in a message", data)
        value = json.loads(data)
        for message in value if isinstance(value, list) else [value]:
            hold(isinstance(message, dict) and message.get("jsonrpc") == "2.0", "no message", data)
            if "method" not in message:
                hold(("result" in message) != ("error" in message), "neither result nor error", data)
                answers[key(message.get("id"))] += 1
    return answers


async def talk(lines: list[bytes]) -> tuple[Expected, list[bytes]]:
    """What is due, and what was sent."""
    core: Core = _server.core()
    await core.start()
    sent: list[bytes] = []
    expected = Expected()
    connection = DuplexConnection(core, sent.append, principal=LOCAL)
    try:
        for line in lines:
            for _ in range(100):
                if not connection.saturated:
                    break
                await asyncio.sleep(0)
            else:
                break  # all of them wait for what never comes
            expected.line(line, connection)
            connection.receive(line)
            if len(line) % 2:
                await asyncio.sleep(0)
        for _ in range(12):
            await asyncio.sleep(0)
        await connection.finish(0.0)
        for _ in range(6):
            await asyncio.sleep(0)
    finally:
        connection.close()
        for _ in range(3):
            await asyncio.sleep(0)
        await core.close()
    return expected, sent


def check(data: bytes) -> None:
    lines = [line for line in data.split(b"\n") if line][:40]
    try:
        expected, sent = _loop.run_until_complete(talk(lines))
    except McpError as error:
        raise Finding("an error came out") from error
    answers = said(sent)
    for identifier in expected.answers.keys() | answers.keys():
        due, came = expected.answers[identifier], answers[identifier]
        least = 0 if identifier in expected.optional else due
        hold(least <= came <= due, "answers to", identifier, ":", came, "of", due, sent)
