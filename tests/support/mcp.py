"""Messages of every revision, and a client of bare JSON for every revision and transport."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from garrison import Server
from garrison.protocol.headers import encode_value
from garrison.server.serve import stdio_shell

from .raw_http import TOKEN, changed, connected, request, serving, standard

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
REVISIONS = (MODERN, *LEGACY)
TRANSPORTS = ("memory", "stdio", "http")
_NAMES = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

Json = dict[str, Any]
Answer = Callable[[Json], Json]


def meta(capabilities: Json | None = None, version: str = MODERN, **more: Any) -> Json:
    """The `_meta` that a modern request needs."""
    fields: Json = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": capabilities or {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    fields.update(more)
    return fields


def modern(method: str, params: Json | None = None, id: int | str = 1, **keywords: Any) -> Json:
    """A modern request."""
    return {
        "jsonrpc": "2.0",
        "id": id,
        "method": method,
        "params": {**(params or {}), "_meta": {**meta(**keywords), **(params or {}).get("_meta", {})}},
    }


def call(name: str, arguments: Json | None = None, id: int | str = 1, **keywords: Any) -> Json:
    """A modern `tools/call`."""
    return modern("tools/call", {"name": name, "arguments": arguments or {}}, id, **keywords)


def modern_fields(port: int, message: Json, token: str | None = TOKEN) -> list[tuple[str, str]]:
    """The header fields of a modern message."""
    fields = [*standard(port, token), ("MCP-Protocol-Version", MODERN), ("Mcp-Method", message["method"])]
    name = message.get("params", {}).get(_NAMES.get(message["method"], ""))
    return [*fields, ("Mcp-Name", encode_value(name))] if isinstance(name, str) else fields


def post(port: int, message: Any, token: str | None = TOKEN, **changes: str | None) -> bytes:
    """The bytes of a modern POST, with header fields changed."""
    return request(json.dumps(message).encode(), changed(modern_fields(port, message, token), **changes))


class Peer:
    """A client of bare JSON. It answers the server's questions from `answers` and keeps what the server told it."""

    def __init__(self, revision: str, capabilities: Json, answers: dict[str, Answer]) -> None:
        self.revision = revision
        self.modern = revision == MODERN
        self.capabilities = capabilities
        self.answers = answers
        self.notifications: list[tuple[str, Json]] = []
        self.asked: list[tuple[str, Json]] = []
        self.rounds = 0
        self.initialized: Json = {}
        self._ids = itertools.count(1)

    async def transmit(self, message: Json) -> Json:
        raise NotImplementedError

    def reply(self, question: Json) -> Json:
        """The response to a question of the server."""
        self.asked.append((question["method"], question["params"]))
        answer = self.answers.get(question["method"])
        head = {"jsonrpc": "2.0", "id": question["id"]}
        if answer is None:
            return {**head, "error": {"code": -32601, "message": "not answered here"}}
        return {**head, "result": answer(question["params"])}

    def message(self, method: str, params: Json | None, id: int | str | None, meta_more: Json) -> Json:
        """A request of this revision."""
        number = next(self._ids) if id is None else id
        params = dict(params or {})
        if self.modern:
            params["_meta"] = {**meta(self.capabilities), **meta_more}
        elif meta_more:
            params["_meta"] = meta_more
        return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}

    async def once(self, method: str, params: Json | None = None, id: int | str | None = None, **more: Any) -> Json:
        """One request, one response; `more` goes into `_meta`."""
        return await self.transmit(self.message(method, params, id, more))

    async def request(self, method: str, params: Json | None = None, **more: Any) -> Json:
        """The final response: questions of an `input_required` result are answered and the request repeated."""
        response = await self.once(method, params, **more)
        while response.get("result", {}).get("resultType") == "input_required":
            self.rounds += 1
            result = response["result"]
            given: Json = {}
            for key, question in result["inputRequests"].items():
                self.asked.append((question["method"], question["params"]))
                given[key] = self.answers[question["method"]](question["params"])
            again = {**(params or {}), "inputResponses": given, "requestState": result["requestState"]}
            response = await self.once(method, again, **more)
        return response

    async def result(self, method: str, params: Json | None = None, **more: Any) -> Json:
        """The result; an error fails the test."""
        response = await self.request(method, params, **more)
        assert "result" in response, response
        return response["result"]

    async def error(self, method: str, params: Json | None = None, **more: Any) -> Json:
        """The error; a result fails the test."""
        response = await self.request(method, params, **more)
        assert "error" in response, response
        return response["error"]

    async def tool(self, name: str, arguments: Json | None = None, **more: Any) -> Json:
        """The result of a tool call."""
        return await self.result("tools/call", {"name": name, "arguments": arguments or {}}, **more)

    async def open(self) -> None:
        """The handshake, where there is one."""
        if not self.modern:
            params = {
                "protocolVersion": self.revision,
                "capabilities": self.capabilities,
                "clientInfo": {"name": "test", "version": "1"},
            }
            self.initialized = (
                await self.transmit({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": params})
            )["result"]
            await self.tell({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def tell(self, message: Json) -> None:
        raise NotImplementedError


class DuplexPeer(Peer):
    """A peer on a connection where both sides speak at any time."""

    def __init__(self, revision: str, capabilities: Json, answers: dict[str, Answer]) -> None:
        super().__init__(revision, capabilities, answers)
        self.write: Callable[[bytes], None] = lambda data: None
        self.waiting: dict[object, asyncio.Future[Json]] = {}
        self.stray: list[Any] = []

    def receive(self, data: bytes) -> None:
        message = json.loads(data)
        if isinstance(message, list) or ("method" not in message and message.get("id") not in self.waiting):
            self.stray.append(message)
        elif "method" not in message:
            self.waiting.pop(message["id"]).set_result(message)
        elif "id" in message:
            self.write(json.dumps(self.reply(message)).encode())
        else:
            self.notifications.append((message["method"], message.get("params", {})))

    def start(self, message: Json) -> asyncio.Future[Json]:
        """Send a request without waiting."""
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self.waiting[message["id"]] = future
        self.write(json.dumps(message).encode())
        return future

    async def transmit(self, message: Json) -> Json:
        return await self.start(message)

    async def tell(self, message: Json) -> None:
        self.write(json.dumps(message).encode())


class HttpPeer(Peer):
    """A peer that sends each message as a POST."""

    def __init__(self, revision: str, capabilities: Json, answers: dict[str, Answer], port: int) -> None:
        super().__init__(revision, capabilities, answers)
        self.port = port
        self.session: str | None = None

    def encode(self, message: Json) -> bytes:
        """The bytes of a message's POST."""
        if self.modern:
            return post(self.port, message)
        fields = standard(self.port)
        if self.session is not None:
            fields += [("Mcp-Session-Id", self.session), ("MCP-Protocol-Version", self.revision)]
        return request(json.dumps(message).encode(), fields)

    async def transmit(self, message: Json) -> Json:
        async with connected(self.port) as wire:
            await wire.send(self.encode(message))
            head = await wire.head()
            self.session = head.get("mcp-session-id") or self.session
            if head.get("transfer-encoding") is None:
                return json.loads(await wire.reader.readexactly(int(head.get("content-length") or 0)))
            while True:
                event = await wire.event()
                if not event.get("data"):
                    continue
                said = json.loads(event["data"])
                if "method" not in said:
                    assert await wire.chunk() == b""
                    return said
                if "id" in said:
                    await self.tell(self.reply(said))
                else:
                    self.notifications.append((said["method"], said.get("params", {})))

    async def tell(self, message: Json) -> None:
        async with connected(self.port) as wire:
            await wire.send(self.encode(message))
            assert (await wire.response()).status == 202


@asynccontextmanager
async def peer(
    server: Server,
    revision: str = MODERN,
    transport: str = "memory",
    *,
    capabilities: Json | None = None,
    answers: dict[str, Answer] | None = None,
) -> AsyncIterator[Any]:
    """A peer of this revision, connected over this transport to the server in this process."""
    capabilities, answers = capabilities or {}, answers or {}
    if transport == "http":
        async with serving(server) as running:
            http = HttpPeer(revision, capabilities, answers, running.port)
            await http.open()
            yield http
        return
    duplex = DuplexPeer(revision, capabilities, answers)
    if transport == "memory":
        connection = await server.connect_memory()
        connection.on_message = duplex.receive
        duplex.write = connection.send
        try:
            await duplex.open()
            yield duplex
        finally:
            await connection.close()
        return
    async with over_pipes(server, duplex):
        await duplex.open()
        yield duplex


@asynccontextmanager
async def over_pipes(server: Server, duplex: DuplexPeer) -> AsyncIterator[None]:
    """The stdio shell on two pipes, in this process."""
    loop = asyncio.get_running_loop()
    server_in, client_out = os.pipe()
    client_in, server_out = os.pipe()
    core = server.core()
    await core.start()
    shell = stdio_shell(core, server_in, server_out)
    running = asyncio.create_task(shell.run())
    rest = b""

    def readable() -> None:
        nonlocal rest
        *lines, rest = (rest + os.read(client_in, 1 << 20)).split(b"\n")
        for line in lines:
            duplex.receive(line)

    loop.add_reader(client_in, readable)

    def write(data: bytes) -> None:
        os.write(client_out, data + b"\n")

    duplex.write = write
    try:
        yield
    finally:
        os.close(client_out)
        await running
        loop.remove_reader(client_in)
        await core.close()
        for descriptor in (client_in, server_in, server_out):
            os.close(descriptor)


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
