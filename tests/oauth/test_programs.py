"""Programs with a credential of their own, at the certified authorization server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from joserfc.jwk import ECKey

from garrison import Client
from garrison.auth import ClientCredentials, ResourceServer
from garrison.errors import AuthorizationFailed
from tests.support.oauth_provider import CLIENTS, INSTALLING

from .scene import POLICY, House, called, house, served

pytestmark = [pytest.mark.oauth, pytest.mark.timeout(INSTALLING + 60)]

KEY = ECKey.generate_key("P-256", private=True, parameters={"kid": "1", "alg": "ES256"})
SIGNER = {
    "client_id": "signer",
    "token_endpoint_auth_method": "private_key_jwt",
    "token_endpoint_auth_signing_alg": "ES256",
    "jwks": {"keys": [KEY.as_dict(private=False)]},
    "redirect_uris": [],
    "grant_types": ["client_credentials"],
    "response_types": [],
}
WAYS: dict[str, dict[str, Any]] = {
    "client_secret_basic": {"client_id": "service", "secret": "the secret: of a service"},
    "private_key_jwt": {"client_id": "signer", "key": KEY.as_pem(private=True).decode(), "key_id": "1"},
}


@pytest.fixture(scope="module")
def at() -> Iterator[House]:
    with house(clients=(*CLIENTS, SIGNER)) as running:
        yield running


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_program_gets_its_token(at: House, way: str, scheme: str) -> None:
    auth = ClientCredentials(**WAYS[way])
    async with served(at.url, ResourceServer(at.url, at.issuer, scopes_supported=["read"])):
        async with Client(at.url.replace("http", scheme, 1), auth=auth, policy=POLICY) as client:
            who = await called(client, "whoami")
            assert who[2:] == [auth.client_id, "read"] and await called(client, "read") == "what is written"


async def test_a_program_asks_for_what_it_needs_besides(at: House) -> None:
    auth = ClientCredentials(**WAYS["private_key_jwt"])
    async with served(at.url, ResourceServer(at.url, at.issuer, scopes_supported=["read"])):
        async with Client(at.url, auth=auth, policy=POLICY) as client:
            assert await called(client, "read") == "what is written" and await called(client, "write") == "written"
            assert (await called(client, "whoami"))[3] == "read write"


@pytest.mark.parametrize("way", WAYS)
async def test_another_credential_gets_none(at: House, way: str) -> None:
    key = ECKey.generate_key("P-256", private=True).as_pem(private=True).decode()
    wrong = {"secret": "another secret"} if way == "client_secret_basic" else {"key": key}
    auth = ClientCredentials(**{**WAYS[way], **wrong})
    async with served(at.url, ResourceServer(at.url, at.issuer, scopes_supported=["read"])):
        with pytest.raises(AuthorizationFailed) as caught:
            async with Client(at.url, auth=auth, policy=POLICY):
                pass
    assert caught.value.error == "invalid_client"
