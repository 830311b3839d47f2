"""The development authorization server agrees with our client and our verifiers, on each way to a token."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from garrison.auth import AuthorizationServerMetadata, TokenRequest
from garrison.auth.client.authentication import ClientSecret, PrivateKeyJwt, PublicClient
from garrison.auth.client.code_flow import authorize
from garrison.auth.client.discovery import discover_server
from garrison.auth.client.endpoint import TokenEndpoint
from garrison.auth.client.grants import EnterpriseGrant, TokenExchange, client_credentials, jwt_bearer
from garrison.auth.client.loopback import RedirectListener
from garrison.auth.dpop import DpopKey
from garrison.auth.jws import SigningKey
from garrison.auth.resource import IntrospectionVerifier, JwtVerifier, TokenRefused, TokenVerifier, Verified
from garrison.errors import AuthorizationFailed
from garrison.policy.secret import Secret
from garrison.safe import SafeFetch
from garrison.testing import DevAuthorizationServer, DevClient, TrustedIssuer, User

from .asking import REDIRECT, RESOURCE
from .conftest import Serving


def fetching(*issuers: str) -> SafeFetch:
    return SafeFetch(private_hosts=[urlsplit(issuer).netloc for issuer in issuers])


async def at(server: DevAuthorizationServer) -> tuple[SafeFetch, AuthorizationServerMetadata]:
    """What asks a server, and what the server says of itself."""
    fetch = fetching(server.issuer)
    return fetch, await discover_server(fetch, server.issuer)


async def verified(verifier: TokenVerifier, token: str) -> Verified:
    assert verifier.accepts(token)
    found = verifier.verify(token, time.time())
    return await found if inspect.isawaitable(found) else found


def following(*issuers: str) -> Callable[[str], Awaitable[bool]]:
    """A browser that does what it is told: it goes where the redirect leads."""

    async def browse(url: str) -> bool:
        answer = await SafeFetch(private_hosts=[urlsplit(each).netloc for each in issuers], redirects=0).get(url)
        location = answer.headers["location"]
        await SafeFetch(private_hosts=[urlsplit(location).netloc]).get(location)
        return True

    return browse


@pytest.mark.parametrize("path", ["", "/tenant"])
async def test_sign_in_refresh_and_sign_out(serving: Serving, path: str) -> None:
    async with serving(path=path, dpop_nonces=True) as server:
        fetch, metadata = await at(server)
        async with RedirectListener(REDIRECT.replace(":9/", "/")) as listener:
            found = await authorize(
                metadata,
                "app",
                RESOURCE,
                listener=listener,
                browser=following(server.issuer),
                scopes=["read"],
                require_iss=True,
            )
        endpoint = TokenEndpoint(fetch, metadata, PublicClient("app"), dpop=DpopKey.generate())
        first = await endpoint.request(found.request)
        assert first.token_type == "DPoP" and first.refresh_token is not None and first.scopes == {"read"}
        verifier = JwtVerifier(server.issuer, RESOURCE, require_typ=True, tenant_claim="tenant", fetch=fetch)
        seen = await verified(verifier, first.access_token.reveal())
        assert seen.principal.subject == "alice" and seen.principal.tenant == "acme" and seen.issued_for is not None
        with pytest.raises(TokenRefused):
            await verified(JwtVerifier(server.issuer, "https://else.example", fetch=fetch), first.access_token.reveal())
        second = await endpoint.request(TokenRequest.refresh_token(first.refresh_token.reveal(), "app", RESOURCE))
        assert second.refresh_token is not None and second.refresh_token != first.refresh_token
        assert await endpoint.revoke(second.refresh_token, "refresh_token")
        with pytest.raises(AuthorizationFailed) as gone:
            await endpoint.request(TokenRequest.refresh_token(second.refresh_token.reveal(), "app", RESOURCE))
        assert gone.value.error == "invalid_grant"


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_services_with_keys_and_secrets(serving: Serving, algorithm: str) -> None:
    key = SigningKey.generate()
    signed = DevClient("signed", jwks={"keys": [dict(key.public)]}, tenant="acme")
    async with serving(clients=[signed], algorithm=algorithm) as server:
        fetch, metadata = await at(server)
        verifier = JwtVerifier(server.issuer, RESOURCE, fetch=fetch)
        for client in (
            PrivateKeyJwt("signed", key.export(), algorithm="ES256"),
            ClientSecret("watcher", "watcher-secret"),
            ClientSecret("watcher", "watcher-secret", method="client_secret_post"),
        ):
            tokens = await client_credentials(TokenEndpoint(fetch, metadata, client), RESOURCE, scopes=["read"])
            seen = await verified(verifier, tokens.access_token.reveal())
            assert seen.principal.client_id == client.client_id and seen.principal.scopes == {"read"}


async def test_tokens_that_only_introspection_explains(serving: Serving) -> None:
    async with serving(opaque_tokens=True) as server:
        fetch, metadata = await at(server)
        watcher = ClientSecret("watcher", "watcher-secret")
        tokens = await client_credentials(TokenEndpoint(fetch, metadata, watcher), RESOURCE)
        verifier = IntrospectionVerifier(server.issuer, RESOURCE, client=watcher, cache=0, fetch=fetch)
        assert (await verified(verifier, tokens.access_token.reveal())).principal.subject == "watcher"
        server.revoke(tokens.access_token.reveal())
        with pytest.raises(TokenRefused):
            await verified(verifier, tokens.access_token.reveal())


async def test_workloads_companies_and_gateways(serving: Serving) -> None:
    platform = SigningKey.generate()
    workload = TrustedIssuer(
        "https://cluster.example", {"keys": [dict(platform.public)]}, id_jag=False, workloads={"system:job": "job"}
    )
    clients = [DevClient("job"), DevClient("agent", secret="agent-secret")]
    async with (
        DevAuthorizationServer([User("alice")], clients=[DevClient("sso", secret="sso-secret")]) as company,
        serving(
            clients=clients, trusted_issuers=[workload, TrustedIssuer(company.issuer, lambda: company.jwks)]
        ) as server,
    ):
        fetch, metadata = await at(server)
        verifier = JwtVerifier(server.issuer, RESOURCE, fetch=fetch)

        now = int(time.time())
        said: dict[str, Any] = {"iss": workload.issuer, "sub": "system:job", "aud": server.issuer, "exp": now + 60}
        assertion = Secret(platform.sign(platform.segment({"typ": "JWT"}), said))
        tokens = await jwt_bearer(TokenEndpoint(fetch, metadata, PublicClient("job")), assertion, RESOURCE)
        assert (await verified(verifier, tokens.access_token.reveal())).principal.client_id == "job"

        company.add_client(DevClient("sso", secret="sso-secret", elsewhere={server.issuer: "agent"}))
        idp_fetch, idp = await at(company)
        agent = TokenEndpoint(fetch, metadata, ClientSecret("agent", "agent-secret"))
        grant = EnterpriseGrant(TokenEndpoint(idp_fetch, idp, ClientSecret("sso", "sso-secret")), agent, RESOURCE)
        tokens = await grant.request(Secret(company.issue_id_token("alice", "sso")), scopes=["read"])
        of_tenants = JwtVerifier(server.issuer, RESOURCE, tenant_claim="tenant", fetch=fetch)
        seen = await verified(of_tenants, tokens.access_token.reveal())
        assert seen.principal.subject == "alice" and seen.principal.tenant == "acme"

        upstream = "https://upstream.example.com"
        other = await TokenExchange(agent).exchange(tokens.access_token, resource=upstream, scopes=["read"])
        assert (
            await verified(JwtVerifier(server.issuer, upstream, fetch=fetch), other.access_token.reveal())
        ).principal
        with pytest.raises(TokenRefused):
            await verified(verifier, other.access_token.reveal())
