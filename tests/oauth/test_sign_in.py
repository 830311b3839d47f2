"""A person signs in to a protected server: every way to be known as a client, every transport, and how it ends."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from garrison import Client, WebSocketConfig
from garrison.auth import FileStore, MemoryStore, ResourceServer
from garrison.errors import AuthorizationFailed
from tests.support.chromium import Chromium
from tests.support.hosting import Host
from tests.support.oauth_provider import INSTALLING

from .scene import (
    DOCUMENT,
    POLICY,
    House,
    Person,
    called,
    claims,
    entries,
    eventually,
    house,
    listed,
    notes,
    served,
    signing_in,
    token_in,
)

pytestmark = [pytest.mark.oauth, pytest.mark.timeout(INSTALLING + 60)]

KNOWN: dict[str, dict[str, Any]] = {
    "pre-registered": {},
    "metadata document": {"client_id": None, "client_metadata_url": DOCUMENT},
    "dynamic": {"client_id": None, "allow_dynamic_registration": True},
}


@pytest.fixture(scope="module")
def at() -> Iterator[House]:
    with house(scopes=["read", "write"]) as running:
        yield running


def protecting(at: House, **options: Any) -> ResourceServer:
    return ResourceServer(at.url, at.issuer, **{"scopes_supported": ["read"], **options})


@pytest.mark.parametrize("how", KNOWN)
async def test_a_person_signs_in(at: House, browser: Chromium, how: str) -> None:
    person, store = Person(browser), MemoryStore()
    auth = signing_in(person, store=store, **KNOWN[how])
    async with served(at.url, protecting(at)), Client(at.url, auth=auth, policy=POLICY) as client:
        issuer, subject, client_id, scopes = await called(client, "whoami")
        assert (issuer, subject) == (at.issuer, "alice") and "read" in scopes.split() and "write" not in scopes.split()
        assert client_id == person.asked("client_id") and (how == "dynamic") == (client_id not in ("desktop", DOCUMENT))
        assert await called(client, "read") == "what is written"
        assert await listed(client) == ["whoami", "read"]
    assert len(person.pages) == 1 and person.asked("resource") == at.url
    said = claims(store)
    assert (said["aud"], said["iss"], said["sub"]) == (at.url, at.issuer, "alice")


@pytest.mark.parametrize(("era", "revision"), [("modern", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_what_needs_more_asks_the_person_once_more_and_then_succeeds(
    at: House, browser: Chromium, era: Any, revision: str
) -> None:
    person = Person(browser)
    async with served(at.url, protecting(at)):
        async with Client(at.url, auth=signing_in(person), policy=POLICY, era=era) as client:
            assert client.protocol_version == revision
            assert await called(client, "read") == "what is written" and await listed(client) == ["whoami", "read"]
            assert await called(client, "write") == "written"
            assert len(person.pages) == 2 and {"read", "write"} <= set(person.asked("scope").split())
            assert [await called(client, "write"), await called(client, "read")] == ["written", "what is written"]
            assert (await called(client, "whoami"))[3].split()[-2:] == ["read", "write"]
            assert len(person.pages) == 2


async def test_over_websocket(at: House, browser: Chromium) -> None:
    person = Person(browser)
    async with served(at.url, protecting(at)):
        url = at.url.replace("http", "ws", 1)
        async with Client(url, auth=signing_in(person), policy=POLICY) as client:
            assert (await called(client, "whoami"))[1] == "alice"
    assert len(person.pages) == 1 and person.asked("resource") == at.url


async def test_behind_uvicorn(at: House, browser: Chromium) -> None:
    person, port = Person(browser), urlsplit(at.url).port or 0
    host = Host(notes(protecting(at)).asgi(websocket=WebSocketConfig()), ws="websockets-sansio")
    await host.begin(port)
    try:
        async with Client(at.url, auth=signing_in(person), policy=POLICY) as client:
            assert await called(client, "read") == "what is written"
            assert await called(client, "write") == "written"
    finally:
        await host.end()
    assert len(person.pages) == 2


async def test_a_no_on_the_page_ends_it(at: House, browser: Chromium) -> None:
    person, store = Person(browser, deny=True), MemoryStore()
    async with served(at.url, protecting(at)):
        with pytest.raises(AuthorizationFailed) as caught:
            async with Client(at.url, auth=signing_in(person, store=store), policy=POLICY):
                pass
        assert caught.value.error == "access_denied" and len(person.pages) == 1
        assert not entries(store, "token")
        person.deny = False
        async with Client(at.url, auth=signing_in(person, store=store), policy=POLICY) as client:
            assert await called(client, "read") == "what is written"
            person.deny = True
            with pytest.raises(AuthorizationFailed) as caught:
                await called(client, "write")
            assert caught.value.error == "access_denied" and len(person.pages) == 3
            assert await called(client, "read") == "what is written"


async def test_a_client_that_starts_again_needs_no_browser(at: House, browser: Chromium, tmp_path: Path) -> None:
    person, path, key = Person(browser), tmp_path / "private" / "credentials", secrets.token_bytes(32)
    async with served(at.url, protecting(at)):
        for _ in range(2):
            auth = signing_in(person, store=FileStore(path, key))
            async with Client(at.url, auth=auth, policy=POLICY) as client:
                assert (await called(client, "whoami"))[1] == "alice"
    assert len(person.pages) == 1


@pytest.mark.attack("ATK-208")
async def test_an_ending_token_is_renewed_once_for_all_calls(browser: Chromium) -> None:
    with house(token_seconds=3, offline=True) as at:
        person, store = Person(browser), MemoryStore()
        auth = signing_in(person, store=store)
        async with served(at.url, protecting(at)), Client(at.url, auth=auth, policy=POLICY) as client:
            assert "offline_access" in person.asked("scope").split()
            seen = [token_in(store)]
            for _ in range(2):
                await asyncio.sleep(1.6)
                before = len(at.provider.grants)
                assert await asyncio.gather(*(called(client, "read") for _ in range(20))) == ["what is written"] * 20
                assert await eventually(lambda: len(at.provider.grants) > before)  # noqa: B023 - called at once
                assert at.provider.grants[before:] == ["refresh_token"]
                seen.append(token_in(store))
            for name in ("access_token", "refresh_token"):
                assert len({each[name] for each in seen}) == 3, name
        assert len(person.pages) == 1
