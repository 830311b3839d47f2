"""The certified authorization server of these tests says what our types expect, and a person can sign in to it."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit

import pytest

from garrison.auth import AuthorizationRequest, AuthorizationServerMetadata, PkceChallenge, TokenRequest
from garrison.auth.dpop import DpopKey, nonce_of
from garrison.auth.jws import VerifyingKey, read_compact
from garrison.auth.urls import authorization_server_urls
from garrison.safe import Fetched, SafeFetch
from garrison.testing import DevAuthorizationServer, DevClient, Reply, Request, User
from garrison.testing.oauth.http import LoopbackHttp
from tests.support.chromium import Chromium
from tests.support.chromium_oauth import oauth_browser, sign_in
from tests.support.oauth_provider import INSTALLING, REDIRECT, RESOURCE, Provider, oauth_provider

pytestmark = [pytest.mark.oauth, pytest.mark.timeout(INSTALLING + 60)]

DOCUMENT = "https://client.example/oauth/client.json"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    document = {
        "client_id": DOCUMENT,
        "client_name": "A program with a document",
        "application_type": "native",
        "token_endpoint_auth_method": "none",
        "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code"],
        "response_types": ["code"],
    }
    with oauth_provider(documents={DOCUMENT: document}, dpop_nonces=True) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with oauth_browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


def fetching(issuer: str) -> SafeFetch:
    return SafeFetch(private_hosts=[urlsplit(issuer).netloc], redirects=0)


async def metadata_of(issuer: str) -> AuthorizationServerMetadata:
    """The metadata, under the names that it is published under: both, for both of our servers."""
    found = [await fetching(issuer).get(url) for url in authorization_server_urls(issuer)]
    assert [each.status for each in found] == [200] * len(found)
    first, *rest = (AuthorizationServerMetadata.read(each.body, issuer) for each in found)
    assert all(each == first for each in rest)
    return first


async def posted(url: str, form: bytes, headers: dict[str, str] | None = None) -> Fetched:
    return await fetching(url).post(url, form, media_type="application/x-www-form-urlencoded", headers=headers)


async def verified(metadata: AuthorizationServerMetadata, token: str) -> dict[str, Any]:
    """The claims of a token, by the keys that its issuer publishes."""
    assert metadata.jwks_uri is not None
    header, claims, signed, signature = read_compact(token, 8192)
    keys = json.loads((await fetching(metadata.issuer).get(metadata.jwks_uri)).body)["keys"]
    (key,) = [each for each in keys if each["kid"] == header["kid"]]
    assert VerifyingKey(key, str(header["alg"])).verify(signed, signature) and header["typ"] == "at+jwt"
    return dict(claims)


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, asyncio.Future[dict[str, str]]]]:
    """A place on loopback for the answer; gives its redirect URI, and what comes to it."""
    came: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def take(request: Request) -> Reply:
        if request.path == "/callback" and not came.done():
            came.set_result(dict(parse_qsl(request.query)))
        return Reply(200, b"Done", (("Content-Type", "text/plain"),))

    place = LoopbackHttp(take, "127.0.0.1")
    try:
        yield f"{await place.start(0)}/callback", came
    finally:
        await place.stop()


async def test_it_says_what_an_mcp_client_needs(provider: Provider) -> None:
    metadata = await metadata_of(provider.issuer)
    assert metadata.has_pkce and metadata.authorization_response_iss_parameter_supported
    assert metadata.client_id_metadata_document_supported
    assert {"authorization_code", "refresh_token", "client_credentials"} <= set(metadata.grant_types_supported)
    assert {"none", "private_key_jwt"} <= set(metadata.token_endpoint_auth_methods_supported)
    assert "ES256" in (metadata.dpop_signing_alg_values_supported or ())
    for endpoint in (metadata.registration_endpoint, metadata.revocation_endpoint, metadata.introspection_endpoint):
        assert endpoint is not None


async def test_a_service_gets_a_token_for_the_resource(provider: Provider) -> None:
    metadata = await metadata_of(provider.issuer)
    assert metadata.token_endpoint is not None
    basic = b64encode(f"service:{quote_plus('the secret: of a service')}".encode()).decode()
    form = TokenRequest.client_credentials(RESOURCE, scope="read").form()
    answer = await posted(metadata.token_endpoint, form, {"Authorization": f"Basic {basic}"})
    assert answer.status == 200, answer.body
    claims = await verified(metadata, json.loads(answer.body)["access_token"])
    assert claims["aud"] == RESOURCE and claims["iss"] == provider.issuer and claims["scope"] == "read"
    unknown = TokenRequest.client_credentials("https://unknown.example", scope="read").form()
    refused = await posted(metadata.token_endpoint, unknown, {"Authorization": f"Basic {basic}"})
    assert refused.status == 400 and json.loads(refused.body)["error"] == "invalid_target"


@pytest.mark.parametrize("client_id", ["desktop", DOCUMENT])
async def test_a_person_signs_in(provider: Provider, browser: Chromium, client_id: str) -> None:
    metadata, pkce, key = await metadata_of(provider.issuer), PkceChallenge(), DpopKey.generate()
    assert metadata.authorization_endpoint is not None and metadata.token_endpoint is not None
    async with listening() as (redirect_uri, came):
        request = AuthorizationRequest(client_id, pkce, RESOURCE, redirect_uri=redirect_uri, scope="read")
        await sign_in(browser, request.url(metadata.authorization_endpoint), redirect_uri, user="alice")
        answer = await came
    assert answer["state"] == request.state and answer["iss"] == provider.issuer, answer
    form = TokenRequest.authorization_code(
        answer["code"], client_id, pkce.verifier, RESOURCE, redirect_uri=redirect_uri
    ).form()
    proof = key.proof("POST", metadata.token_endpoint, now=time.time())
    asked = await posted(metadata.token_endpoint, form, {"DPoP": proof})
    nonce = nonce_of(asked.headers)
    assert json.loads(asked.body)["error"] == "use_dpop_nonce" and nonce is not None
    proof = key.proof("POST", metadata.token_endpoint, nonce=nonce, now=time.time())
    got = await posted(metadata.token_endpoint, form, {"DPoP": proof})
    assert got.status == 200, (got.body, provider.said)
    token = json.loads(got.body)
    assert token["token_type"] == "DPoP" and ("refresh_token" in token) == (client_id == "desktop")
    claims = await verified(metadata, token["access_token"])
    assert claims["aud"] == RESOURCE and claims["sub"] == "alice" and claims["cnf"] == {"jkt": key.thumbprint}


async def test_a_person_can_say_no(provider: Provider, browser: Chromium) -> None:
    metadata = await metadata_of(provider.issuer)
    assert metadata.authorization_endpoint is not None
    async with listening() as (redirect_uri, came):
        request = AuthorizationRequest("desktop", PkceChallenge(), RESOURCE, redirect_uri=redirect_uri, scope="read")
        await sign_in(browser, request.url(metadata.authorization_endpoint), redirect_uri, deny=True)
        answer = await came
    assert answer["error"] == "access_denied" and answer["iss"] == provider.issuer


@pytest.mark.parametrize("path", ["", "/tenant"])
@pytest.mark.parametrize("deny", [False, True])
async def test_the_same_at_the_development_server(browser: Chromium, path: str, deny: bool) -> None:
    client = DevClient("desktop", redirect_uris=[REDIRECT], name="<b>A desktop program</b>")
    users = [User("bob"), User("alice", scopes=["read"])]
    async with DevAuthorizationServer(users, clients=[client], path=path) as server, listening() as (to, came):
        metadata, pkce = await metadata_of(server.issuer), PkceChallenge()
        assert metadata.authorization_endpoint is not None and metadata.token_endpoint is not None
        request = AuthorizationRequest("desktop", pkce, RESOURCE, redirect_uri=to, scope="read write")
        await sign_in(browser, request.url(metadata.authorization_endpoint), to, user="alice", deny=deny)
        answer = await came
        assert answer["state"] == request.state and answer["iss"] == server.issuer
        assert answer.get("error") == ("access_denied" if deny else None)
        if not deny:
            form = TokenRequest.authorization_code(answer["code"], "desktop", pkce.verifier, RESOURCE, redirect_uri=to)
            got = await posted(metadata.token_endpoint, form.form())
            claims = await verified(metadata, json.loads(got.body)["access_token"])
            assert claims["sub"] == "alice" and claims["scope"] == "read"


async def test_no_page_may_frame_the_consent(browser: Chromium) -> None:
    async with DevAuthorizationServer(clients=[DevClient("desktop", redirect_uris=[REDIRECT])]) as server:
        query = {"client_id": "desktop", "redirect_uri": REDIRECT, "response_type": "code", "resource": RESOURCE}
        query |= {"code_challenge": PkceChallenge().challenge, "code_challenge_method": "S256"}
        target = f"{server.issuer}/authorize?{urlencode(query)}"
        page = await browser.open(f"{server.issuer}/jwks")
        assert "Continue as alice" in await page.run("return await (await fetch(url)).text()", url=target)
        framed = """
            const frame = document.createElement('iframe');
            frame.src = url;
            await new Promise((done) => { frame.onload = done; document.documentElement.append(frame); });
            return frame.contentDocument === null || !frame.contentDocument.body.innerText.includes('alice');
        """
        assert await page.run(framed, url=target)
        await browser.close_pages()
