"""Pages of other origins: those that are listed call tools and read the answers, no other does (CORS)."""

from __future__ import annotations

import json

import pytest

from tests.support.chromium import Chromium
from tests.support.mcp import modern

from .scene import POST, TOKEN, Scene, fields, hit
from .site import site

pytestmark = pytest.mark.peer


@pytest.mark.attack("ATK-019")
@pytest.mark.attack("ATK-002")
async def test_a_listed_page_reads_and_another_does_not(browser: Chromium, events: list[str]) -> None:
    async with site() as friend, site() as stranger:
        listed = f"http://app.test:{friend.port}"
        scene = Scene(events, token=True, allowed_origins=(listed,))
        async with scene.serve(browser, token=TOKEN) as serving:
            good = await browser.open(friend.url("app.test"))
            answer = await good.run(POST, url=serving.url, **hit("friend"))
            assert answer["status"] == 200 and "heard friend" in answer["body"]
            assert scene.ran == ["friend"] and scene.refusals == []

            # Another name at the same port, and the same name at another port, both with the token.
            for url in (friend.url("evil.test"), stranger.url("app.test")):
                bad = await browser.open(url)
                assert await bad.run(POST, url=serving.url, **hit("stranger")) == {"error": "TypeError"}
            assert scene.ran == ["friend"] and scene.refusals == ["origin.refused"] * 2


@pytest.mark.attack("ATK-003")
async def test_a_page_without_an_origin_of_its_own_is_refused(browser: Chromium, events: list[str]) -> None:
    async with site() as friend:
        scene = Scene(events, allowed_origins=(f"http://app.test:{friend.port}",))
        async with scene.serve(browser) as serving:
            page = await browser.open(friend.url("app.test"))
            await page.run(
                """
                const frame = document.createElement("iframe");
                frame.sandbox = "allow-scripts";
                const told = new Promise((resolve) => window.addEventListener("message", resolve, {once: true}));
                const body = JSON.stringify(message);
                frame.srcdoc = `<script>
                    fetch("${url}", {method: "POST", mode: "no-cors", body: ${JSON.stringify(body)}})
                        .finally(() => parent.postMessage("sent", "*"));
                </script>`;
                document.body.append(frame);
                await told;
                """,
                url=serving.url,
                message=hit("sandbox")["message"],
            )
    assert scene.ran == [] and scene.refusals == ["origin.refused"]


async def test_a_listed_page_is_told_what_it_did_wrong(browser: Chromium, events: list[str]) -> None:
    async with site() as friend:
        scene = Scene(events, token=True, allowed_origins=(f"http://app.test:{friend.port}",))
        async with scene.serve(browser, token=TOKEN) as serving:
            page = await browser.open(friend.url("app.test"))
            answer = await page.run(POST, url=serving.url, **hit("friend", token="a-token-that-is-another"))
            assert answer["status"] == 401 and "token" in answer["body"]
            unknown = modern("tools/call", {"name": "unknown", "arguments": {}})
            answer = await page.run(POST, url=serving.url, headers=fields(unknown), message=unknown)
            assert json.loads(answer["body"])["error"]["code"] == -32602
    assert scene.ran == []


async def test_a_listed_page_reads_a_stream(browser: Chromium, events: list[str]) -> None:
    async with site() as friend:
        scene = Scene(events, token=True, allowed_origins=(f"http://app.test:{friend.port}",))
        async with scene.serve(browser, token=TOKEN) as serving:
            page = await browser.open(friend.url("app.test"))
            message = modern("tools/call", {"name": "count", "arguments": {}, "_meta": {"progressToken": "p"}})
            answer = await page.run(POST, url=serving.url, headers=fields(message), message=message)
    told = [json.loads(line.removeprefix("data:")) for line in answer["body"].split("\n") if line.startswith("data:")]
    assert [event["params"]["progress"] for event in told[:-1]] == [1, 2, 3]
    assert told[-1]["result"]["content"][0]["text"] == "counted"


async def test_a_listed_page_holds_a_session_of_the_older_era(browser: Chromium, events: list[str]) -> None:
    async with site() as friend:
        scene = Scene(events, token=True, allowed_origins=(f"http://app.test:{friend.port}",))
        async with scene.serve(browser, token=TOKEN) as serving:
            page = await browser.open(friend.url("app.test"))
            headers = {k: v for k, v in fields(modern("ping")).items() if not k.startswith("mcp-")}
            params = {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "page", "version": "1"},
            }
            hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
            opened = await page.run(POST, url=serving.url, headers=headers, message=hello)
            assert opened["status"] == 200 and opened["session"], opened
            headers |= {"mcp-session-id": opened["session"], "mcp-protocol-version": "2025-06-18"}
            ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            assert (await page.run(POST, url=serving.url, headers=headers, message=ready))["status"] == 202
            called = {
                "jsonrpc": "2.0",
                "id": 2,
                "method": "tools/call",
                "params": hit("session")["message"]["params"].copy(),
            }
            del called["params"]["_meta"]
            assert "heard session" in (await page.run(POST, url=serving.url, headers=headers, message=called))["body"]
            ended = "return (await fetch(url, {method: 'DELETE', headers})).status"
            assert await page.run(ended, url=serving.url, headers=headers) in (200, 204)
    assert scene.ran == ["session"]
