"""A host, with servers that say what a test wants, over every transport by which it meets one.

    evil = Offer([tool("read_mail")])
    async with hosted("http", {"mail": evil}) as scene:
        answer = await scene.host.call("mail.read_mail")
        evil.tools[0]["description"] = "another"
        await evil.announce()

Rules of this file:
- `scene.approver` says yes to everything but what `deny` names, and keeps every question.
- `scene.events` keeps every security event, `Offer.calls` every call that arrived.
- `scene.given()` is all that a model is given before it says anything, by every adapter; `scene.says()` is a model that
  calls a tool.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from garrison import events
from garrison.host import (
    Host,
    LocalServer,
    MemoryState,
    OtherServer,
    RemoteServer,
    Verdict,
    anthropic_tools,
    generic_tools,
    openai_tools,
)
from garrison.host.names import model_name
from tests.attacks.hostile import answer, serving_script

__all__ = ["HOSTED", "Approver", "Offer", "Scene", "hosted", "text", "tool"]

Json = dict[str, Any]
HOSTED: tuple[str, ...] = ("stdio", "http")
"""The transports on which hostile servers meet a host."""


def tool(name: str, description: str = "Does it.", **more: Any) -> Json:
    """A definition."""
    return {"name": name, "description": description, "inputSchema": {"type": "object"}, **more}


def text(said: str, **more: Any) -> Json:
    """A result of one text."""
    return {"content": [{"type": "text", "text": said}], **more}


class Offer:
    """What one server offers and answers; everything may be changed while it is served.

    Args:
        tools: as the server lists them.
        results: by tool: a result, or a function from the arguments to one (awaitable or not); others
            answer "ok".
        instructions: what it says in `server/discover`.
        methods: results of other methods, likewise, from the whole message.
        info: what it calls itself.
        script: gets each message first, with a function that says anything at all; what it returns true of is answered.
    """

    def __init__(
        self,
        tools: Sequence[Json] = (),
        results: Mapping[str, Any] | None = None,
        *,
        instructions: str | None = None,
        methods: Mapping[str, Any] | None = None,
        info: Json | None = None,
        script: Callable[[Json, Callable[[Any], None]], Awaitable[bool]] | None = None,
    ) -> None:
        self.tools = list(tools)
        self.results = dict(results or {})
        self.methods = dict(methods or {})
        self.instructions = instructions
        self.info = info
        self.script = script
        self.calls: list[tuple[str, Json]] = []
        self.seen: list[str] = []
        """Every method that was asked for."""
        self.messages: list[Json] = []
        """Every message."""
        self._listeners: list[tuple[Json, Callable[[Any], None]]] = []

    async def announce(self, method: str = "notifications/tools/list_changed") -> None:
        """Says that the tools have changed, to whoever listens."""
        for request, say in self._listeners:
            meta = {"io.modelcontextprotocol/subscriptionId": request["id"]}
            say({"jsonrpc": "2.0", "method": method, "params": {"_meta": meta}})
        await asyncio.sleep(0.05)

    async def handle(self, message: Json, say: Callable[[Any], None]) -> None:
        """Answers one message."""
        method, fresh = message.get("method", ""), {"ttlMs": 0, "cacheScope": "private"}
        self.seen.append(method)
        self.messages.append(message)
        if self.script is not None and await self.script(message, say):
            return
        if "id" not in message:
            return
        if method in self.methods:
            found = await _value(self.methods[method], message)
            say(found if "jsonrpc" in found else answer(message, found))
        elif method == "server/discover":
            found = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": True}}, **fresh}
            if self.instructions is not None:
                found["instructions"] = self.instructions
            if self.info is not None:
                found["_meta"] = {"io.modelcontextprotocol/serverInfo": self.info}
            say(answer(message, found))
        elif method == "tools/list":
            say(answer(message, {"tools": self.tools, **fresh}))
        elif method == "tools/call":
            params = message["params"]
            self.calls.append((params["name"], params.get("arguments", {})))
            found = await _value(self.results.get(params["name"], text("ok")), params.get("arguments", {}))
            say(found if "jsonrpc" in found else answer(message, found))
        elif method == "subscriptions/listen":
            await self._listen(message, say)
        else:
            say({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}})

    async def _listen(self, message: Json, say: Callable[[Any], None]) -> None:
        meta = {"io.modelcontextprotocol/subscriptionId": message["id"]}
        accepted = {"_meta": meta, "notifications": {"toolsListChanged": True}}
        say({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": accepted})
        self._listeners.append((message, say))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


async def _value(found: Any, given: Any) -> Json:
    value: Any = found(given) if callable(found) else found
    return await value if isinstance(value, Awaitable) else value


class Approver:
    """Says yes but to what `deny` names: kinds of questions, exposed names of tools, or a function of the question."""

    def __init__(self, *deny: Any, verdict: Verdict | None = None) -> None:
        self.deny = list(deny)
        self.verdict = verdict
        self.questions: list[Any] = []

    def __call__(self, question: Any) -> Verdict | bool:
        self.questions.append(question)
        for no in self.deny:
            if no(question) if callable(no) else no in (question.kind, getattr(question, "tool", None)):
                return False
        return self.verdict if self.verdict is not None and question.kind == "call" else True

    def of(self, kind: str) -> list[Any]:
        """The questions of one kind."""
        return [question for question in self.questions if question.kind == kind]


class Scene:
    """A host and what was seen of it."""

    def __init__(
        self, host: Host, approver: Approver, heard: list[events.Event], servers: Mapping[str, object]
    ) -> None:
        self.host = host
        self.approver = approver
        self.events = heard
        self.servers = servers
        """What the host was given: for another host of the same servers."""

    def told(self, name: str) -> list[events.Event]:
        """The events of this name."""
        return [event for event in self.events if event.name == name]

    @property
    def refusals(self) -> list[tuple[str, str]]:
        """What was refused, in order: the event and what it is about."""
        return [(event.name, event.target) for event in self.events if event.decision == "refused"]

    @property
    def names(self) -> list[str]:
        """The names that a model is shown."""
        return [each.name for each in self.host.tools()]

    def given(self) -> str:
        """All that a model is given before it says anything, as JSON."""
        adapters = (openai_tools(self.host), openai_tools(self.host, api="responses"), anthropic_tools(self.host))
        definitions = [each.definitions() for each in (*adapters, generic_tools(self.host))]
        return json.dumps([self.host.instructions(), *definitions], ensure_ascii=False)

    async def says(self, name: str, **arguments: Any) -> str:
        """What a model is told that calls a tool by an exposed name."""
        found: Any = await generic_tools(self.host).call({"id": "1", "name": model_name(name), "arguments": arguments})
        return found["content"]


@asynccontextmanager
async def hosted(
    kind: str,
    offers: Mapping[str, Any],
    *,
    approver: Approver | None = None,
    state: Any = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> AsyncIterator[Scene]:
    """A host that has started.

    Args:
        kind: of `HOSTED`, or another of `tests.attacks.catalogue.CLIENT`.
        offers: by alias; also anything that a host takes, as it is.
        approver: says yes to all by default.
        state: of the host; in memory by default.
        settings: further settings of a server, by alias.
        options: further arguments of `Host`.
    """
    approver = approver or Approver()
    heard: list[events.Event] = []
    stop = events.listen(heard.append)
    try:
        async with AsyncExitStack() as stack:
            servers: dict[str, object] = {}
            for alias, offer in offers.items():
                if not isinstance(offer, Offer):
                    servers[alias] = offer
                    continue
                target = await stack.enter_async_context(serving_script(kind, offer.handle))
                more = dict((settings or {}).get(alias, {}))
                if isinstance(target, list):
                    servers[alias] = LocalServer(target, **{"sandbox": "off", **more})
                elif isinstance(target, str):
                    servers[alias] = RemoteServer(target, **more)
                else:
                    servers[alias] = OtherServer(target, **more)
            host = Host(servers, approve=approver, state=state or MemoryState(), **options)
            async with host:
                yield Scene(host, approver, heard, servers)
    finally:
        stop()
