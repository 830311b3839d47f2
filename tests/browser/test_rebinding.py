"""DNS rebinding, played to its end: a page whose name moves to the server's address."""

from __future__ import annotations

import pytest

from tests.support.chromium import Chromium, Page

from .scene import POST, Scene, hit
from .site import site

pytestmark = [pytest.mark.peer, pytest.mark.attack("ATK-015")]


async def page_of(browser: Chromium, host: str, port: int) -> Page:
    """A page of an attacker who has this address for now, and then lets go of it."""
    async with site(port) as theirs:
        return await browser.open(theirs.url(host))


async def test_a_name_that_moved_to_the_server_gets_nothing(
    browser: Chromium, events: list[str], free_port: int
) -> None:
    scene = Scene(events)
    page = await page_of(browser, "rebind.test", free_port)
    async with scene.serve(browser, port=free_port):
        # For the browser both are the page's own origin: no preflight, and the answer may be read.
        posted = await page.run(POST, url="/mcp", **hit("moved"))
        status = await page.run("return (await fetch('/mcp', {headers: {accept: 'text/event-stream'}})).status")
    assert posted["status"] == 421 and "not served here" in posted["body"]
    assert status == 421
    assert scene.ran == []
    assert set(scene.refusals) == {"host.refused"}  # more than two: browsers try again after 421


async def test_the_same_page_is_answered_where_its_name_is_allowed(
    browser: Chromium, events: list[str], free_port: int
) -> None:
    name = f"rebind.test:{free_port}"
    scene = Scene(events, allowed_hosts=(name,), allowed_origins=(f"http://{name}",))
    page = await page_of(browser, "rebind.test", free_port)
    async with scene.serve(browser, port=free_port):
        posted = await page.run(POST, url="/mcp", **hit("moved"))
    assert posted["status"] == 200 and "heard moved" in posted["body"]
    assert scene.ran == ["moved"] and scene.refusals == []


@pytest.mark.parametrize("host", ["rebind.test", "127.0.0.1", "0.0.0.0", "localhost"])
async def test_a_page_of_another_port_reaches_the_server_by_no_name(
    browser: Chromium, events: list[str], host: str
) -> None:
    scene = Scene(events)
    async with site() as theirs, scene.serve(browser) as serving:
        page = await browser.open(theirs.url("rebind.test"))
        posted = await page.run(POST, url=f"http://{host}:{serving.port}/mcp", **hit("other port"))
    assert posted == {"error": "TypeError"}  # the preflight was refused
    assert scene.ran == []
    assert set(scene.refusals) == {"host.refused" if host in ("rebind.test", "0.0.0.0") else "origin.refused"}
