"""Cross-site requests that a browser sends without asking the server first: none runs a handler.

Each is first made to a site that answers anything, to see that it leaves the browser as a server that does not look
would like it.
"""

from __future__ import annotations

import json

import pytest

from tests.support.chromium import Chromium
from tests.support.mcp import until

from .scene import Scene
from .site import Seen, site

pytestmark = [pytest.mark.peer, pytest.mark.attack("ATK-017")]

MESSAGES = [
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "hit", "arguments": {"word": "forged"}}},
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "forged", "version": "1"},
        },
    },
]
OURS = ("127.0.0.1", "localhost")
OTHERS = ("0.0.0.0", "evil.test")

FORM = """
const form = document.createElement("form");
const frame = document.createElement("iframe");
form.method = "POST";
form.action = url;
form.enctype = kind;
form.target = frame.name = "frame" + Math.random();
// As text/plain, name=value is JSON again when the text is cut inside a string.
const input = document.createElement("input");
[input.name, input.value] = [text.slice(0, -1) + ', "x": "', '"}'];
form.append(input);
document.body.append(frame, form);
form.submit();
"""
NO_CORS = """
fetch(url, {method: "POST", mode: "no-cors", credentials: "include", headers: {"content-type": kind}, body: text})
    .catch(() => null);
"""
BEACON = "navigator.sendBeacon(url, new Blob([text], {type: kind}));"
IMAGE = "new Image().src = url;"
SCRIPT = "const tag = document.createElement('script'); tag.src = url; document.body.append(tag);"
STREAM = "new EventSource(url);"
FRAME = "const frame = document.createElement('iframe'); frame.src = url; document.body.append(frame);"

SIMPLE = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
ATTACKS = [
    *((f"form {kind}", "POST", FORM, kind) for kind in SIMPLE),
    *((f"no-cors {kind}", "POST", NO_CORS, kind) for kind in SIMPLE),
    ("beacon", "POST", BEACON, "text/plain"),
    ("image", "GET", IMAGE, ""),
    ("script", "GET", SCRIPT, ""),
    ("event source", "GET", STREAM, ""),
    ("frame", "GET", FRAME, ""),
]


def is_json(seen: Seen) -> bool:
    try:
        return isinstance(json.loads(seen.body), dict)
    except ValueError:
        return False


@pytest.mark.parametrize(("method", "attack", "kind"), [a[1:] for a in ATTACKS], ids=[a[0] for a in ATTACKS])
async def test_a_page_makes_no_handler_run(
    browser: Chromium, events: list[str], method: str, attack: str, kind: str
) -> None:
    scene = Scene(events)
    paths = ("/mcp", "/sse") if method == "GET" else ("/mcp", "/messages/")
    targets = [(path, message) for path in paths for message in (MESSAGES if method == "POST" else MESSAGES[:1])]
    async with site() as theirs, site() as lax, scene.serve(browser) as serving:
        page = await browser.open(theirs.url("evil.test"))

        async def attack_port(port: int, hosts: tuple[str, ...]) -> int:
            """Make every request to these hosts; how many there are."""
            requests = [[f"http://{host}:{port}{path}", json.dumps(m)] for host in hosts for path, m in targets]
            await page.run(f"for (const [url, text] of requests) {{ {attack} }}", kind=kind, requests=requests)
            return len(requests)

        fired = await attack_port(lax.port, OURS + OTHERS)
        await until(lambda: len(lax.seen) >= fired)
        assert {(seen.method, seen.path) for seen in lax.seen} == {(method, path) for path in paths}
        if kind == "text/plain":
            assert all(map(is_json, lax.seen))

        fired = await attack_port(serving.port, OURS)
        await until(lambda: len(scene.refusals) >= fired)
        assert set(scene.refusals) == {"origin.refused"}
        events.clear()
        fired = await attack_port(serving.port, OTHERS)
        await until(lambda: len(scene.refusals) >= fired)  # more: browsers try again after status 421
        assert set(scene.refusals) == {"host.refused"}
    assert scene.ran == []


async def test_json_never_leaves_the_browser_unasked(browser: Chromium, events: list[str]) -> None:
    """The server asks for a media type that makes browsers ask first; where that is refused the body never comes."""
    scene = Scene(events)
    async with site() as theirs, site() as lax, scene.serve(browser) as serving:
        page = await browser.open(theirs.url("evil.test"))
        for port in (lax.port, serving.port):
            url, text = f"http://127.0.0.1:{port}/mcp", json.dumps(MESSAGES[0])
            await page.run(BEACON, url=url, kind="application/json", text=text)
        await until(lambda: scene.refusals and lax.seen)
    assert [seen.method for seen in lax.seen] == ["OPTIONS"]
    assert scene.ran == [] and scene.refusals == ["origin.refused"]
