"""The demo's attacks: each is refused, and right after it an honest request of the same kind is served.

Rules of this file:
- An attack and its honest twin differ in one thing, which the attack's name says.
- What should come is a status and a code of the specification; what came is read from the server's bytes.

Spec: 2026-07-28 basic/transports "Security", basic/patterns/mrtr; RFC 9112 section 6.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from .demo_raw import Answer, HttpPeer, Post, StdioPeer, meta, outcome, request
from .demo_rows import Row, row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

__all__ = ["Attack", "attack_http", "attack_size", "attack_stdio", "http_attacks"]

_MIB: Final = 1024 * 1024


def _call(tool: str, arguments: Mapping[str, object], **members: object) -> bytes:
    return request("tools/call", {"name": tool, "arguments": arguments, "_meta": meta("elicitation"), **members})


def _modern(method: str, name: str, body: bytes, **changes: str | None) -> Post:
    """A POST with the headers that repeat its body. A changed header is named with `_` for `-`."""
    headers: dict[str, str | None] = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, "Mcp-Name": name}
    headers.update({key.replace("_", "-"): value for key, value in changes.items()})
    return Post(body, headers)


def _search(arguments: Mapping[str, object] | None = None, **changes: str | None) -> Post:
    body = _call("search", {"word": "server"} if arguments is None else arguments)
    return _modern("tools/call", "search", body, **changes)


def _text(arguments: bytes, id: bytes = b'"id": 1') -> Post:
    """A search whose arguments and id are not what a JSON library would write."""
    body = _call("search", {"word": "server"}).replace(b'{"word": "server"}', arguments).replace(b'"id": 1', id)
    return _modern("tools/call", "search", body)


def _page(uri: str) -> Post:
    return _modern("resources/read", uri, request("resources/read", {"uri": uri, "_meta": meta()}))


def _deep(levels: int) -> bytes:
    return b'{"word": "server", "limit": ' + b"[" * levels + b"]" * levels + b"}"


_HONEST: Final = _search()
_ALONE: Final = _call("search", {"word": "server"})


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack and its twin: what is sent, and what should come of it."""

    what: str
    expected: str
    evil: Post
    twin: str = "the honest call"
    good: Post = _HONEST
    good_expected: str = "200 result"


def http_attacks(port: int, page: str) -> tuple[Attack, ...]:
    """The attacks that are one POST in the modern era.

    Args:
        port: the listener's.
        page: the name of a page that there is.
    """
    honest_page = _page(f"docs://page/{page}")
    return (
        Attack("no token", "401 -32600", _search(Authorization=None)),
        Attack("a wrong token", "401 -32600", _search(Authorization="Bearer " + "x" * 43)),
        Attack("a foreign Host", "421 -32600", _search(Host=f"evil.example:{port}")),
        Attack("a foreign Origin (DNS rebinding)", "403 -32600", _search(Origin="http://evil.example"),
               "the listener's own Origin", _search(Origin=f"http://127.0.0.1:{port}")),
        Attack("a form's text/plain (CSRF)", "415 -32600", _search(Content_Type="text/plain")),
        Attack("duplicate JSON keys", "400 -32700", _text(b'{"word": "a", "word": "b"}')),
        Attack("a duplicate id", "400 -32700", _text(b'{"word": "a"}', b'"id": 1, "id": 2')),
        Attack("a number without end, 1e999", "400 -32700", _text(b'{"word": "a", "limit": 1e999}')),
        Attack("NaN", "400 -32700", _text(b'{"word": "a", "limit": NaN}')),
        Attack("100000 nested arrays", "400 -32700", _text(_deep(100_000)),
               "8 nested arrays: a wrong type, no more", _text(_deep(8)), "200 isError"),
        Attack("a body of 17 MiB, declared", "413 -32600", Post(b"", _search().headers, declared=17 * _MIB),
               "a body of 1 MiB", _text(b'{"word": "server"}' + b" " * _MIB)),
        Attack("Mcp-Name says another tool", "400 -32020", _search(Mcp_Name="noisy")),
        Attack("an unknown argument", "200 isError", _search({"word": "server", "admin": True})),
        Attack("an argument of a wrong type", "200 isError", _search({"word": "server", "limit": "1; DROP TABLE"})),
        Attack("a path out of the template", "200 -32602", _page("docs://page/../../etc/passwd"),
               "a page by its name", honest_page),
        Attack("the same, percent-encoded", "200 -32602", _page("docs://page/..%2F..%2Fetc%2Fpasswd"),
               "a page by its name", honest_page),
    )  # fmt: skip


async def attack_http(peer: HttpPeer, page: str) -> list[Row]:
    """Play every attack over HTTP.

    Args:
        peer: who sends.
        page: the name of a page that has the word "server" in it.
    """
    rows: list[Row] = []
    for attack in http_attacks(peer.port, page):
        rows.append(await _row(attack.what, "modern", attack.expected, _posted(peer, attack.evil)))
        rows.append(await _row(_then(attack.twin), "modern", attack.good_expected, _posted(peer, attack.good)))
    rows += await _smuggle(peer)
    rows += await _tamper(peer, page)
    rows += await _guess(peer)
    return rows


def _then(what: str) -> str:
    return f"  then {what}"


async def _row(what: str, era: str, expected: str, check: Awaitable[str], transport: str = "http") -> Row:
    return await row(what, transport, era, expected, check)


async def _posted(peer: HttpPeer, post: Post) -> str:
    return str(await peer.post(post))


async def _smuggle(peer: HttpPeer) -> list[Row]:
    """Two lengths in one request: the part between them is a second request for whoever believes the other one."""
    inner = b"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    body = _call("search", {"word": "server"})
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    async def send(post: Post) -> str:
        answer = await peer.post(post)
        return f"{answer.status}, {answer.count} answer"

    def post(data: bytes, **changes: str | None) -> Post:
        return Post(data, {**_search().headers, "Transfer-Encoding": "chunked", **changes})

    two, one = post(chunked + inner), post(chunked, **{"Content-Length": None})
    return [
        await _row("two lengths (request smuggling)", "modern", "400, 1 answer", send(two)),
        await _row(_then("a chunked body alone"), "modern", "200, 1 answer", send(one)),
    ]


async def _tamper(peer: HttpPeer, name: str) -> list[Row]:
    """The state that travels through the client: altered, and moved to another call."""
    asked = await peer.post(_modern("tools/call", "open_page", _call("open_page", {"word": "server"})))
    result = cast("dict[str, object]", asked.message.get("result") or {})
    state = str(result.get("requestState", ""))
    questions = cast("dict[str, object]", result.get("inputRequests") or {})
    choice = {"action": "accept", "content": {"page": name}}

    async def retry(word: str, state: str) -> str:
        answered = dict.fromkeys(questions, choice)
        body = _call("open_page", {"word": word}, inputResponses=answered, requestState=state)
        return str(await peer.post(_modern("tools/call", "open_page", body)))

    middle = len(state) // 2
    flipped = state[:middle] + ("A" if state[middle : middle + 1] != "A" else "B") + state[middle + 1 :]
    return [
        await _row("requestState, one character altered", "modern", "200 -32602", retry("server", flipped)),
        await _row("requestState of another call", "modern", "200 -32602", retry("client", state)),
        await _row(_then("requestState as it was given"), "modern", "200 result", retry("server", state)),
    ]


async def _guess(peer: HttpPeer) -> list[Row]:
    """A session of the legacy era, by an id that was not given out."""
    old: dict[str, str | None] = {"MCP-Protocol-Version": "2025-11-25"}
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "demo", "version": "1"}}

    async def initialize() -> Answer:
        return await peer.post(Post(request("initialize", hello)))

    async def list_tools(session: str) -> str:
        return await _posted(peer, Post(request("tools/list", {}), {**old, "Mcp-Session-Id": session}))

    session = (await initialize()).headers.get("mcp-session-id", "")
    guess = session[:-1] + ("A" if session[-1:] != "A" else "B")
    return [
        await _row("a guessed session id", "legacy", "404 -32600", list_tools(guess)),
        await _row(_then("the session's own id"), "legacy", "200 result", list_tools(session)),
    ]


async def attack_stdio(argv: Sequence[str], env: Mapping[str, str]) -> list[Row]:
    """Play the attacks that a pipe allows.

    Args:
        argv, env: how to start the server.
    """
    lines = (
        ("a line that is no JSON", "-32700", b"stray output of a shell"),
        ("duplicate JSON keys", "-32700", _ALONE.replace(b'"id": 1', b'"id": 1, "id": 2')),
        ("100000 nested arrays", "-32700", _ALONE.replace(b'"server"', b"[" * 100_000 + b"]" * 100_000)),
    )
    rows: list[Row] = []
    async with StdioPeer(argv, env) as peer:
        for what, expected, line in lines:
            rows += await _line(peer, what, expected, line)
        rows.append(await _row("a handler that prints", "modern", "no stray line, result", _noise(peer), "stdio"))
        rows.append(await _row(_then("the honest call"), "modern", "result", peer.ask(_ALONE), "stdio"))
    return rows


async def attack_size(argv: Sequence[str], env: Mapping[str, str]) -> list[Row]:
    """Send a line over the cap. Who did so waits some seconds until the server reads on: `Limits.message_rate`."""
    async with StdioPeer(argv, env) as peer:
        return await _line(peer, "a line of 17 MiB", "-32600", b'{"' + b"x" * (17 * _MIB))


async def _line(peer: StdioPeer, what: str, expected: str, line: bytes) -> list[Row]:
    return [
        await _row(what, "modern", expected, peer.ask(line), "stdio"),
        await _row(_then("the honest call"), "modern", "result", peer.ask(_ALONE), "stdio"),
    ]


async def _noise(peer: StdioPeer) -> str:
    """Call a tool that prints a forged answer: the first line that comes must be the real one."""
    (first,) = await peer.send(_call("noisy", {"words": 3}))
    if not isinstance(first, dict):
        return f"a stray line: {first!r}"
    message = cast("dict[str, object]", first)
    return "a forged answer" if message.get("result") == "forged" else f"no stray line, {outcome(message)}"
