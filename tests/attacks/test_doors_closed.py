"""Who comes to a WebSocket without leave, and where a token must not stand."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from garrison import Client, ConfigurationError
from garrison.policy.transports import HttpTransportConfig, WebSocketConfig
from tests.attacks.target import Target
from tests.support.everywhere import uvicorn_serving
from tests.support.raw_http import TOKEN, Response, changed, exchange, request, standard


@asynccontextmanager
async def listening(place: str, target: Target) -> AsyncIterator[int]:
    """A WebSocket of the edge, or of the ASGI face behind uvicorn; gives the port."""
    if place == "edge":
        async with target.server.http(port=0, token=TOKEN, websocket=WebSocketConfig()) as serving:
            yield serving.port
    else:
        app = target.server.asgi(token=TOKEN, websocket=WebSocketConfig())
        async with uvicorn_serving(app, ws="websockets-sansio") as port:
            yield port


async def handshake(port: int, target: str = "/mcp", token: str | None = TOKEN, **changes: str | None) -> Response:
    """A handshake that is good but for what the arguments say, and its response."""
    fields = [
        *changed(standard(port, token), content_type=None, accept=None),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "mcp"),
    ]
    return await exchange(port, request(b"", changed(fields, **changes), method="GET", target=target, length=False))


places = pytest.mark.parametrize("place", ["edge", "asgi"])


@pytest.mark.attack("ATK-069")
@places
async def test_a_foreign_page_opens_no_websocket(place: str) -> None:
    target = Target()
    async with listening(place, target) as port:
        for origin in ("http://evil.example", "null", f"http://localhost:{port}.evil.example", "https://localhost"):
            assert (await handshake(port, origin=origin)).status == 403, origin
            assert (await handshake(port, token=None, origin=origin, cookie=f"token={TOKEN}")).status == 403, origin
        # Without an Origin a cookie is worth nothing: only the token lets in.
        assert (await handshake(port, token=None, cookie=f"token={TOKEN}; Authorization={TOKEN}")).status in (401, 403)
        assert (await handshake(port, sec_fetch_site="cross-site")).status == 403
        assert (await handshake(port)).status == 101
        assert (await handshake(port, origin=f"http://127.0.0.1:{port}")).status == 101


@pytest.mark.attack("ATK-071")
@places
async def test_a_token_in_the_query_is_none_and_is_not_logged(place: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    target = Target()
    async with listening(place, target) as port:
        for query in ("access_token=", "token=", "authorization=Bearer%20", "access_token=x&access_token="):
            for path in ("/mcp?", "/?", "/mcp/?"):
                refused = await handshake(port, path + query + TOKEN, token=None)
                assert refused.status in ((401, 403) if path == "/mcp?" else (401, 403, 404))
                assert TOKEN.encode() not in refused.body
                assert not any(TOKEN in value for _, value in refused.fields)
            posted = await exchange(port, request(b"{}", standard(port, None), target="/mcp?" + query + TOKEN))
            assert posted.status == 401
        assert (await handshake(port)).status == 101
    assert TOKEN not in caplog.text


SERVER = """
from garrison import Server
server = Server("x")

@server.tool()
def echo(text: str) -> str:
    return text
"""
SECRET = "a-secret-on-the-command-line"


def garrison(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "garrison", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=25, stdin=subprocess.DEVNULL)


@pytest.mark.attack("ATK-078")
def test_a_local_server_takes_no_token_on_its_command_line(tmp_path: Path) -> None:
    """On stdio the token has no use: it is refused, and not repeated."""
    file = tmp_path / "server.py"
    file.write_text(SERVER)
    for arguments in (("run", str(file), "--token", SECRET), ("call", str(file), "echo", "text=x", "--token", SECRET)):
        done = garrison(*arguments)
        assert done.returncode != 0, arguments
        assert "token" in done.stderr
        assert SECRET not in done.stdout + done.stderr
    done = garrison("call", str(file), "echo", "text=x")
    assert done.returncode == 0 and "x" in done.stdout
    warned = garrison("doctor", str(file), "--http", "127.0.0.1:0", "--token", SECRET)
    assert "command line" in warned.stdout
    assert SECRET not in warned.stdout + warned.stderr


@pytest.mark.attack("ATK-078")
def test_a_client_of_a_local_server_takes_no_token() -> None:
    with pytest.raises(ConfigurationError, match="token") as caught:
        Client([sys.executable, "-c", ""], token=SECRET)
    assert SECRET not in str(caught.value)
    for config in (
        HttpTransportConfig("https://a.example/mcp", token=SECRET),
        WebSocketConfig("wss://a/b", token=SECRET),
    ):
        assert SECRET not in repr(config)
    assert Client([sys.executable, "-c", ""])
