"""Tokens that are bound to a key, tokens that say nothing, and tokens that are given back."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote_plus, urlencode, urlsplit

import pytest

from garrison import Client
from garrison.auth import DpopKey, MemoryStore, ResourceServer
from garrison.policy.secret import Secret
from garrison.safe import SafeFetch
from tests.support.chromium import Chromium
from tests.support.oauth_provider import INSTALLING
from tests.support.protected import challenge, knock
from tests.support.raw_http import Response

from .scene import (
    POLICY,
    House,
    Person,
    called,
    claims,
    entries,
    house,
    introspecting,
    listed,
    served,
    signing_in,
    token_in,
)

pytestmark = [pytest.mark.oauth, pytest.mark.timeout(INSTALLING + 60)]


@pytest.fixture(scope="module")
def at() -> Iterator[House]:
    with house(dpop_nonces=True) as running:
        yield running


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


async def active(at: House, token: str) -> bool:
    """What the authorization server says of a token."""
    basic = b64encode(f"notes-server:{quote_plus('the secret: of the server')}".encode()).decode()
    answer = await SafeFetch(private_hosts=[urlsplit(at.issuer).netloc]).post(
        f"{at.issuer}/token/introspection",
        urlencode({"token": token}).encode(),
        media_type="application/x-www-form-urlencoded",
        headers={"Authorization": f"Basic {basic}"},
    )
    assert answer.status == 200, answer.body
    return json.loads(answer.body)["active"]


@pytest.mark.parametrize("kind", ["JWT", "opaque"])
async def test_a_bound_token_is_of_use_with_its_key_only(at: House, browser: Chromium, kind: str) -> None:
    person, store = Person(browser), MemoryStore()
    url = at.opaque if kind == "opaque" else at.url
    verifier = introspecting(at) if kind == "opaque" else at.issuer
    auth = ResourceServer(url, verifier, scopes_supported=["read"], dpop="require", dpop_nonce=True)
    async with served(url, auth):
        async with Client(url, auth=signing_in(person, store=store), policy=POLICY) as client:
            assert (await called(client, "whoami"))[1] == "alice" and await listed(client) == ["whoami", "read"]
            assert await asyncio.gather(*(called(client, "read") for _ in range(5))) == ["what is written"] * 5
        assert len(person.pages) == 1
        assert any("use_dpop_nonce" in line for line in at.provider.said)
        kept = token_in(store)
        assert kept["token_type"] == "DPoP"
        token, port = kept["access_token"], port_of(url)
        assert ("jkt" in claims(store)["cnf"]) if kind == "JWT" else ("." not in token)

        async def proven(key: DpopKey, nonce: str | None = None) -> Response:
            proof = key.proof("POST", url, access_token=token, nonce=nonce, now=time.time())
            return await knock("http", port, f"DPoP {token}", DPoP=proof)

        # Who has the token has not got the key.
        for authorization in (f"Bearer {token}", f"DPoP {token}"):
            assert (await knock("http", port, authorization)).status == 401
        (place,) = entries(store, "key")
        own = DpopKey.load(Secret((store.load(place) or b"").decode()))
        without = await proven(own)
        nonce = without.get("dpop-nonce")
        assert without.status == 401 and challenge(without).error == "use_dpop_nonce" and nonce is not None
        assert (await proven(DpopKey.generate(), nonce)).status == 401
        assert (await proven(own, nonce)).status == 200


async def test_where_it_is_switched_off_tokens_are_not_bound(at: House, browser: Chromium) -> None:
    person, store = Person(browser), MemoryStore()
    async with served(at.url, ResourceServer(at.url, at.issuer, scopes_supported=["read"])):
        auth = signing_in(person, store=store, dpop="off")
        async with Client(at.url, auth=auth, policy=POLICY) as client:
            assert await called(client, "read") == "what is written"
    assert token_in(store)["token_type"] == "Bearer" and "cnf" not in claims(store)


async def test_after_sign_out_a_token_is_of_no_use_to_anybody(at: House, browser: Chromium) -> None:
    person, store = Person(browser), MemoryStore()
    auth = ResourceServer(at.opaque, introspecting(at, cache=0), scopes_supported=["read"], recheck=1)
    async with served(at.opaque, auth):
        settings = signing_in(person, store=store, dpop="off")
        async with Client(at.opaque, auth=settings, policy=POLICY) as client:
            assert await called(client, "read") == "what is written"
            kept = token_in(store)
            token, refresh = kept["access_token"], kept["refresh_token"]
            assert [await active(at, each) for each in (token, refresh)] == [True, True]
            assert (await knock("http", port_of(at.opaque), f"Bearer {token}")).status == 200

            assert await client.sign_out() is True
            assert [await active(at, each) for each in (token, refresh)] == [False, False]
            assert client.whoami is None and not entries(store, "token")
            await asyncio.sleep(1.1)
            late = await knock("http", port_of(at.opaque), f"Bearer {token}")
            assert late.status == 401 and challenge(late).error == "invalid_token"

            assert await called(client, "read") == "what is written"  # which takes the person
            assert len(person.pages) == 2


@pytest.mark.attack("ATK-217")
async def test_a_token_that_its_server_cannot_revoke_is_forgotten_and_the_user_told(
    at: House, browser: Chromium
) -> None:
    person, store, told = Person(browser), MemoryStore(), list[str]()
    async with served(at.url, ResourceServer(at.url, at.issuer, scopes_supported=["read"])):
        auth = signing_in(person, store=store, notice=told.append)
        async with Client(at.url, auth=auth, policy=POLICY) as client:
            kept = token_in(store)
            assert await active(at, kept["refresh_token"])
            assert await client.sign_out() is False
            assert len(told) == 1 and "unsupported_token_type" in told[0]
            assert not await active(at, kept["refresh_token"])
    assert not entries(store, "token")
