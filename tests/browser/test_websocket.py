"""WebSockets that pages open: browsers ask nobody before they connect, so the server has to look at the origin."""

from __future__ import annotations

import json
from typing import Any

import pytest

from garrison.policy.transports import WebSocketConfig
from tests.support.chromium import Chromium
from tests.support.mcp import call, until

from .scene import Scene
from .site import site

pytestmark = [pytest.mark.peer, pytest.mark.attack("ATK-069")]

TALK = """
const socket = new WebSocket(url, protocols);
return await new Promise((resolve) => {
  const said = [];
  socket.onopen = () => { said.push("open " + socket.protocol); socket.send(JSON.stringify(message)); };
  socket.onmessage = (event) => { said.push(event.data); socket.close(1000); };
  socket.onclose = (event) => resolve({said, code: event.code});
});
"""


async def talk(page: Any, url: str, word: str, protocols: list[str] | None = None) -> Any:
    return await page.run(
        TALK, url=url, protocols=["mcp"] if protocols is None else protocols, message=call("hit", {"word": word})
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "evil.test"])
async def test_a_foreign_page_opens_none(browser: Chromium, events: list[str], host: str) -> None:
    scene = Scene(events)
    async with site() as theirs, scene.serve(browser, websocket=WebSocketConfig()) as serving:
        page = await browser.open(theirs.url("evil.test"))
        answer = await talk(page, f"ws://{host}:{serving.port}/mcp", "foreign")
        await until(lambda: scene.refusals)
    assert answer == {"said": [], "code": 1006}
    assert scene.ran == []
    assert set(scene.refusals) == {"host.refused" if host in ("0.0.0.0", "evil.test") else "origin.refused"}


async def test_a_page_whose_name_moved_to_the_server_opens_none(
    browser: Chromium, events: list[str], free_port: int
) -> None:
    scene = Scene(events)
    async with site(free_port) as theirs:
        page = await browser.open(theirs.url("rebind.test"))
    async with scene.serve(browser, port=free_port, websocket=WebSocketConfig()):
        answer = await talk(page, f"ws://rebind.test:{free_port}/mcp", "moved")
        await until(lambda: scene.refusals)
    assert answer == {"said": [], "code": 1006}
    assert scene.ran == [] and set(scene.refusals) == {"host.refused"}


async def test_a_listed_page_talks(browser: Chromium, events: list[str]) -> None:
    async with site() as friend:
        scene = Scene(events, allowed_origins=(f"http://app.test:{friend.port}",))
        async with scene.serve(browser, websocket=WebSocketConfig()) as serving:
            page = await browser.open(friend.url("app.test"))
            answer = await talk(page, serving.websocket_url, "friend")
            without = await talk(page, serving.websocket_url, "no subprotocol", [])
    opened, result = answer["said"]
    assert opened == "open mcp" and json.loads(result)["result"]["structuredContent"] == {"result": "heard friend"}
    assert answer["code"] == 1000
    assert without == {"said": [], "code": 1006}
    assert scene.ran == ["friend"] and scene.refusals == []


async def test_a_page_cannot_bring_a_token(browser: Chromium, events: list[str]) -> None:
    """Browsers let a page set no header of the handshake, and a URL is no place for a token."""
    token = "a-token-for-pages-of-this-test"
    async with site() as friend:
        scene = Scene(events, token=True, allowed_origins=(f"http://app.test:{friend.port}",))
        async with scene.serve(browser, token=token, websocket=WebSocketConfig()) as serving:
            page = await browser.open(friend.url("app.test"))
            for url in (serving.websocket_url, f"{serving.websocket_url}?token={token}&access_token={token}"):
                assert await talk(page, url, "friend") == {"said": [], "code": 1006}
    assert scene.ran == [] and set(scene.refusals) == {"auth.refused"}
