"""The server as a user deploys it: nginx with TLS in front, the server on a Unix socket behind, both from
examples/deploy."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from garrison import Client, types
from garrison.errors import ConnectionFailed, HttpError
from tests.support.nginx import WORKER, nginx

from .place import NAME, ROOT, TOKEN, Place, deployed, free_port

pytestmark = pytest.mark.peer

BIG = 5_000_000
ROOM = "[limits]\noutput_block_bytes = 5_000_000\noutput_bytes = 16_000_000\n"
"""For an answer of that size."""
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs of other users")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with deployed(ROOM) as running:
        yield running


@pytest.fixture(scope="module")
def limited() -> Iterator[Place]:
    """Another one, where a client has four messages and then one a second."""
    with deployed("[limits]\nmessage_burst = 4\nmessage_rate = 1\n") as running:
        yield running


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's public name is that of this machine."""
    asked = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        return asked("127.0.0.1" if host == NAME else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def client(place: Place, url: str = "", **keywords: Any) -> Client:
    return Client(url or place.url, token=TOKEN, tls=place.tls, **keywords)


@pytest.mark.parametrize(
    ("era", "version"), [("modern", "2026-07-28"), ("legacy", "2025-11-25")], ids=["modern", "legacy"]
)
async def test_both_eras_are_served(place: Place, era: Literal["modern", "legacy"], version: str) -> None:
    async with client(place, era=era) as ours:
        assert ours.protocol_version == version
        assert (await ours.call_tool("add", {"a": 19, "b": 23})).structured_content == {"result": 42}
        assert [tool.name async for tool in ours.tools()] == ["add", "size", "repeat", "steps", "cancelled"]


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_progress_arrives_while_the_handler_runs(place: Place, era: Literal["modern", "legacy"]) -> None:
    seen: list[float] = []
    async with client(place, era=era) as ours:
        begun = time.monotonic()
        result = await ours.call_tool(
            "steps", {"count": 3, "seconds": 0.3}, on_progress=lambda _: seen.append(time.monotonic() - begun)
        )
        took = time.monotonic() - begun
    assert result.structured_content == {"result": 3}
    assert len(seen) == 3 and seen[0] < 0.3 and seen[2] < took - 0.2, (seen, took)


async def test_large_messages_pass_both_ways(place: Place) -> None:
    async with client(place) as ours:
        assert (await ours.call_tool("size", {"text": "x" * BIG})).structured_content == {"result": BIG}
        result = await ours.call_tool("repeat", {"text": "0123456789", "times": BIG // 10})
        assert isinstance(result.content[0], types.TextContent) and len(result.content[0].text) == BIG


async def test_websocket_passes(place: Place) -> None:
    seen: list[float] = []
    begun = time.monotonic()
    async with client(place, place.url.replace("https:", "wss:")) as ours:
        assert (await ours.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}
        await ours.call_tool(
            "steps", {"count": 2, "seconds": 0.3}, on_progress=lambda _: seen.append(time.monotonic() - begun)
        )
        assert len(seen) == 2 and seen[1] - seen[0] > 0.2
        assert (await ours.call_tool("size", {"text": "x" * BIG})).structured_content == {"result": BIG}


async def cancelled(ours: Client) -> int:
    """How many calls of `steps` were cancelled."""
    result = await ours.call_tool("cancelled")
    assert isinstance(result.structured_content, dict)
    return int(str(result.structured_content["result"]))


async def test_a_request_whose_client_goes_is_cancelled(place: Place) -> None:
    async with client(place, era="modern") as ours:
        before = await cancelled(ours)
        begun = asyncio.Event()
        call = asyncio.create_task(
            ours.call_tool("steps", {"count": 100, "seconds": 0.1}, on_progress=lambda _: begun.set())
        )
        await begun.wait()
        call.cancel()
        async with asyncio.timeout(5):
            while await cancelled(ours) == before:
                await asyncio.sleep(0.02)


async def test_without_the_token_there_is_nothing(place: Place) -> None:
    with pytest.raises(HttpError) as refused:
        async with Client(place.url, tls=place.tls):
            pass
    assert refused.value.status == 401


def test_a_name_that_is_not_served_is_refused(place: Place) -> None:
    assert place.status() == 400  # let in: its message is the wrong one
    assert place.status(host="evil.example") == 421
    assert place.status(host="localhost.evil.example") == 421
    assert place.status(x_forwarded_host=NAME, host="evil.example") == 421


@pytest.mark.attack("ATK-022")
@pytest.mark.parametrize(("field", "number"), [("none", 1), ("x-forwarded-for", 2), ("forwarded", 3), ("x-real-ip", 4)])
def test_only_nginx_says_who_the_client_is(limited: Place, field: str, number: int) -> None:
    """One that sends too much is told so, whatever it writes about itself; others are served meanwhile."""
    statuses: list[int] = []
    for forged in range(8):
        value = f"for=6.6.6.{forged}" if field == "forwarded" else f"6.6.6.{forged}"
        statuses.append(limited.status(f"127.0.2.{number}", **{field: value}))
    assert statuses[:4] == [400] * 4 and statuses[-1] == 429, statuses
    assert limited.status(f"127.0.3.{number}") == 400


async def test_nginx_finds_a_server_that_was_restarted(place: Place) -> None:
    for kill in (False, True):
        async with client(place, era="modern") as ours:
            assert not (await ours.call_tool("add", {"a": 1, "b": 2})).is_error
            place.stop(kill=kill)
            with pytest.raises((HttpError, ConnectionFailed)):
                await ours.call_tool("add", {"a": 1, "b": 2})
            place.start()
            assert not (await ours.call_tool("add", {"a": 1, "b": 2})).is_error


@pytest.mark.parametrize(("token", "status"), [(TOKEN, 0), ("another-token-than-that", 6)])
def test_the_health_check_of_the_documentation(place: Place, token: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "garrison", "discover", "http://localhost/mcp", "--unix-socket", str(place.socket)],
        env={**os.environ, "GARRISON_TOKEN": token, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == status, done.stderr


@AS_ROOT
@pytest.mark.attack("ATK-077")
@pytest.mark.parametrize("user", ["nobody nogroup", f"nobody {WORKER}"], ids=["another group", "the same group"])
def test_no_other_user_of_the_machine_reaches_the_socket(place: Place, user: str) -> None:
    """Another user's nginx gets nothing: the folder keeps it out, or the server, which asks who connects."""
    port = free_port()
    other = place.folder / f"nginx-{port}"
    other.mkdir()
    with nginx(other, place.site(port), port, user=user) as log:
        assert place.status("127.0.0.1", port) == 502
        assert ("Permission denied" in log.read_text()) == (user == "nobody nogroup")
    assert place.status() == 400
