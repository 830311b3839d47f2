"""The official Python SDK on the other side: its client at our server, our client at its server, one certified
authorization server between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from mcp import Client as OfficialClient
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl

from garrison import Client
from garrison.auth import ClientCredentials, JwtVerifier, MemoryStore, ResourceServer, TokenRefused
from garrison.auth.client.loopback import RedirectListener
from tests.support.chromium import Chromium
from tests.support.chromium_oauth import sign_in
from tests.support.hosting import Host
from tests.support.oauth_provider import INSTALLING

from .scene import POLICY, House, Person, called, house, served, signing_in, token_in

pytestmark = [pytest.mark.oauth, pytest.mark.timeout(INSTALLING + 60)]


@pytest.fixture(scope="module")
def at() -> Iterator[House]:
    with house(scopes=["read", "write"]) as running:
        yield running


class Storage:
    """Where their client keeps what it has."""

    def __init__(self, known: OAuthClientInformationFull | None) -> None:
        self.tokens: OAuthToken | None = None
        self.known = known

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.known

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.known = client_info


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("known", [True, False], ids=["registered", "dynamic"])
async def test_their_client_signs_in_to_our_server(at: House, browser: Chromium, mode: Any, known: bool) -> None:
    pages: list[str] = []
    async with RedirectListener("http://127.0.0.1/callback") as listener:
        metadata = OAuthClientMetadata(
            client_name="theirs",
            redirect_uris=[AnyUrl(listener.redirect_uri)],
            token_endpoint_auth_method="none",
            application_type="native",
        )

        async def opened(url: str) -> None:
            pages.append(url)

        async def answered() -> AuthorizationCodeResult:
            browsing = asyncio.create_task(sign_in(browser, pages[-1], listener.redirect_uri))
            given = parse_qs(await listener.receive(lambda query: query or None))
            await browsing
            return AuthorizationCodeResult(code=given["code"][0], state=given["state"][0], iss=given["iss"][0])

        registered = OAuthClientInformationFull(**{**metadata.model_dump(), "client_id": "desktop"}) if known else None
        storage = Storage(registered)
        auth = OAuthClientProvider(at.url, metadata, storage, opened, answered)
        async with served(at.url, ResourceServer(at.url, at.issuer, scopes_supported=["read"])):
            async with httpx2.AsyncClient(auth=auth) as http:
                transport = streamable_http_client(at.url, http_client=http)
                async with OfficialClient(transport, mode=mode) as client:
                    assert [tool.name for tool in (await client.list_tools()).tools] == ["whoami", "read"]
                    result = await client.call_tool("whoami", {})
                    assert result.structured_content is not None
                    assert result.structured_content["result"][1] == "alice"
    assert len(pages) == 1 and storage.tokens is not None and storage.tokens.refresh_token is not None
    assert storage.known is not None and (storage.known.client_id == "desktop") == known


class Verifier:
    """Tells their server whose a token is."""

    def __init__(self, at: House) -> None:
        self._jwt = JwtVerifier(at.issuer, at.url)
        self._url = at.url

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            found = self._jwt.verify(token, time.time())
            verified = await found if isinstance(found, Awaitable) else found
        except TokenRefused:
            return None
        who = verified.principal
        scopes = sorted(who.scopes)
        return AccessToken(
            token=token, client_id=who.client_id or "", scopes=scopes, subject=who.subject, resource=self._url
        )


@asynccontextmanager
async def their_server(at: House) -> AsyncIterator[None]:
    """A server of theirs at the URL of the resource, which wants the scope `read`."""
    settings = AuthSettings.model_validate(  # which, given texts, puts no slash behind an issuer
        {
            "issuer_url": at.issuer,
            "resource_server_url": at.url,
            "required_scopes": ["read"],
            "validate_token_resource": True,
        }
    )
    server = MCPServer("theirs", log_level="CRITICAL", auth=settings, token_verifier=Verifier(at))

    @server.tool()
    async def whoami() -> str:
        token = get_access_token()
        return "" if token is None else f"{token.subject} by {token.client_id}"

    host = Host(server.streamable_http_app())
    await host.begin(urlsplit(at.url).port or 0)
    try:
        yield
    finally:
        await host.end()


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_our_client_signs_in_to_their_server(at: House, browser: Chromium, era: Any) -> None:
    person, store = Person(browser), MemoryStore()
    async with their_server(at):
        auth = signing_in(person, store=store)
        async with Client(at.url, auth=auth, policy=POLICY, era=era) as client:
            assert await called(client, "whoami") == "alice by desktop"
        async with Client(at.url, auth=auth, policy=POLICY, era=era) as client:
            assert await called(client, "whoami") == "alice by desktop"
    assert len(person.pages) == 1 and person.asked("resource") == at.url
    assert token_in(store)["token_type"] == "Bearer"  # their server says nothing of keys


async def test_a_program_of_ours_at_their_server(at: House) -> None:
    auth = ClientCredentials("service", secret="the secret: of a service")
    async with their_server(at), Client(at.url, auth=auth, policy=POLICY) as client:
        assert await called(client, "whoami") == "service by service"
