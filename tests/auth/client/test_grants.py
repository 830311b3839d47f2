"""Grants without a person at a browser, and that what is meant for one party never reaches another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("joserfc")

from garrison.auth import ProtectedResourceMetadata, TokenRequest
from garrison.auth.client.authentication import ClientAuthentication, ClientSecret, PrivateKeyJwt, PublicClient
from garrison.auth.client.endpoint import TokenEndpoint
from garrison.auth.client.grants import (
    ACCESS_TOKEN,
    ID_JAG,
    ID_TOKEN,
    JWT,
    SAML2,
    EnterpriseGrant,
    TokenExchange,
    client_credentials,
    jwt_bearer,
)
from garrison.auth.jws import SigningKey
from garrison.errors import AuthorizationFailed, ConfigurationError
from garrison.policy.secret import Secret
from garrison.safe import SafeFetch
from tests.support.token_server import BEARER, Answer, TokenServer, token_server

RESOURCE = "https://mcp.example.com/mcp"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
BEARER_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ID = Secret("the.id.token")
JAG: dict[str, Any] = {
    "access_token": "the.id-jag",
    "issued_token_type": ID_JAG,
    "token_type": "N_A",
    "expires_in": 300,
}
EXCHANGED: dict[str, Any] = {**BEARER, "issued_token_type": ACCESS_TOKEN}


def endpoint(here: TokenServer, client: ClientAuthentication | None = None) -> TokenEndpoint:
    return TokenEndpoint(here.fetch, here.metadata(), client or PublicClient("me"))


def says(body: dict[str, Any], status: int = 200) -> Callable[[object], Answer]:
    return lambda posted: Answer(dict(body), status)


# The client's own credential, and a platform's assertion


@pytest.mark.attack("ATK-216")
async def test_client_credentials_with_a_key() -> None:
    client = PrivateKeyJwt("me", SigningKey.generate().export(), algorithm="ES256")
    async with token_server() as here:
        got = await client_credentials(endpoint(here, client), RESOURCE, scopes=["a", "b"])
        assert (got.access_token, got.scopes) == (Secret("token-1"), {"a", "b"})
        (posted,) = here.posted
        assert posted.form.keys() == {"grant_type", "resource", "scope", "client_assertion", "client_assertion_type"}
        assert (posted.form["grant_type"], posted.form["resource"]) == ("client_credentials", RESOURCE)
        await client_credentials(endpoint(here, ClientSecret("me", "s")), RESOURCE)
        assert here.posted[1].form == {"grant_type": "client_credentials", "resource": RESOURCE}


async def test_the_assertion_of_a_platform() -> None:
    async with token_server() as here:
        got = await jwt_bearer(endpoint(here, PublicClient("workload")), Secret("w.l.t"), RESOURCE, scopes=["a"])
        assert got.access_token == Secret("token-1")
        assert here.posted[0].form == {
            "grant_type": BEARER_GRANT,
            "assertion": "w.l.t",
            "resource": RESOURCE,
            "scope": "a",
            "client_id": "workload",
        }


@pytest.mark.parametrize("code", ["invalid_grant", "invalid_scope", "unauthorized_client"])
async def test_nothing_is_tried_in_place_of_what_was_refused(code: str) -> None:
    async with token_server() as here:
        here.answer = says({"error": code, "error_description": "w.l.t is not welcome"}, 400)
        with pytest.raises(AuthorizationFailed) as caught:
            await jwt_bearer(endpoint(here), Secret("w.l.t"), RESOURCE)
        assert caught.value.error == code
        assert "w.l.t" not in str(caught.value)
        assert len(here.posted) == 1


async def test_a_request_that_makes_no_sense_is_not_sent() -> None:
    async with token_server() as here:
        for resource, scopes in (("http://mcp.example.com", ["a"]), ("mcp", ["a"]), (RESOURCE, ["a b", "c\n"])):
            with pytest.raises(ValueError):
                await client_credentials(endpoint(here), resource, scopes=scopes)
        assert here.posted == []


# One token for another


async def test_a_token_is_exchanged_for_the_server_behind() -> None:
    async with token_server() as here:
        here.answer = says(EXCHANGED)
        exchange = TokenExchange(endpoint(here, ClientSecret("me", "s")))
        got = await exchange.exchange(Secret("incoming"), audience="billing", scopes=["read"])
        assert (got.access_token, got.issued_token_type, got.scopes) == (Secret("token-1"), ACCESS_TOKEN, {"read"})
        assert here.posted[0].form == {
            "grant_type": EXCHANGE,
            "subject_token": "incoming",
            "subject_token_type": ACCESS_TOKEN,
            "requested_token_type": ACCESS_TOKEN,
            "audience": "billing",
            "scope": "read",
        }
        here.answer = says({**EXCHANGED, "issued_token_type": JWT})
        await TokenExchange(endpoint(here), subject_token_type=JWT).exchange(Secret("incoming"), resource=RESOURCE)
        assert here.posted[1].form["resource"] == RESOURCE
        assert here.posted[1].form["subject_token_type"] == JWT


async def test_an_exchange_is_for_somebody() -> None:
    async with token_server() as here:
        with pytest.raises(ValueError, match="resource or audience"):
            await TokenExchange(endpoint(here)).exchange(Secret("incoming"))
        assert here.posted == []


@pytest.mark.parametrize(
    "body",
    [
        BEARER,
        {**EXCHANGED, "issued_token_type": ID_JAG},
        {**EXCHANGED, "issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        {**EXCHANGED, "token_type": "N_A"},
        {**EXCHANGED, "access_token": "incoming"},
    ],
)
async def test_what_is_no_new_access_token_is_not_taken(body: dict[str, Any]) -> None:
    async with token_server() as here:
        here.answer = says(body)
        with pytest.raises(AuthorizationFailed, match="cannot be used"):
            await TokenExchange(endpoint(here)).exchange(Secret("incoming"), audience="billing")


# The company's identity provider


@asynccontextmanager
async def company() -> AsyncIterator[tuple[TokenServer, TokenServer]]:
    """An identity provider, and the authorization server of an MCP server."""
    async with token_server() as idp, token_server() as server:
        idp.answer = says(JAG)
        yield idp, server


def enterprise(idp: TokenServer, server: TokenServer, **given: Any) -> EnterpriseGrant:
    return EnterpriseGrant(
        endpoint(idp, PublicClient("at-idp")),
        endpoint(server, ClientSecret("at-server", "s3cret")),
        RESOURCE,
        **given,
    )


def about(server: TokenServer, **changed: Any) -> ProtectedResourceMetadata:
    return ProtectedResourceMetadata(**{"resource": RESOURCE, "authorization_servers": (server.issuer,), **changed})


async def test_an_id_token_becomes_a_token_of_the_mcp_server() -> None:
    async with company() as (idp, server):
        got = await enterprise(idp, server).request(ID, scopes=["a", "b"], metadata=about(server))
        assert (got.access_token, got.token_type) == (Secret("token-1"), "Bearer")
        (asked,), (redeemed,) = idp.posted, server.posted
        assert asked.form == {
            "grant_type": EXCHANGE,
            "requested_token_type": ID_JAG,
            "audience": server.issuer,
            "resource": RESOURCE,
            "scope": "a b",
            "subject_token": "the.id.token",
            "subject_token_type": ID_TOKEN,
            "client_id": "at-idp",
        }
        assert redeemed.form == {
            "grant_type": BEARER_GRANT,
            "assertion": "the.id-jag",
            "resource": RESOURCE,
            "scope": "a b",
        }
        assert redeemed.headers["authorization"].startswith("Basic ")
        # Neither credential reaches the other party.
        assert b"the.id.token" not in redeemed.raw
        assert b"s3cret" not in asked.raw and b"YXQtc2VydmVyOnMzY3JldA" not in asked.raw


async def test_an_assertion_is_got_anew_for_each_token() -> None:
    async with company() as (idp, server):
        grant = enterprise(idp, server, subject_token_type=SAML2)
        for _ in range(2):
            await grant.request(ID)
        assert [posted.form["subject_token_type"] for posted in idp.posted] == [SAML2, SAML2]
        assert len(server.posted) == 2


@pytest.mark.attack("ATK-210")
async def test_an_mcp_server_that_names_another_authority_gets_no_exchange() -> None:
    async with company() as (idp, server), token_server() as evil:
        grant = enterprise(idp, server)
        for metadata in (
            about(evil),
            about(server, authorization_servers=(server.issuer + "/",)),
            about(server, resource="https://mcp.example.com/"),
        ):
            with pytest.raises(AuthorizationFailed, match="The MCP server"):
                await grant.request(ID, metadata=metadata)
        assert idp.posted == server.posted == evil.posted == []
        await grant.request(ID, metadata=about(server, authorization_servers=(evil.issuer, server.issuer)))
        assert (len(idp.posted), len(server.posted), evil.posted) == (1, 1, [])


@pytest.mark.attack("ATK-210")
@pytest.mark.parametrize(
    "body",
    [
        {**JAG, "issued_token_type": ACCESS_TOKEN},
        {**JAG, "token_type": "Bearer"},
        BEARER,
        {"error": "invalid_grant"},
    ],
)
async def test_what_is_no_assertion_is_not_redeemed(body: dict[str, Any]) -> None:
    async with company() as (idp, server):
        idp.answer = says(body)
        with pytest.raises(AuthorizationFailed):
            await enterprise(idp, server).request(ID)
        assert server.posted == []


async def test_a_refusal_of_either_is_told_without_what_was_sent() -> None:
    async with company() as (idp, server):
        server.answer = says({"error": "invalid_grant", "error_description": "the.id-jag expired"}, 400)
        with pytest.raises(AuthorizationFailed) as caught:
            await enterprise(idp, server).request(ID)
        assert "the.id-jag" not in str(caught.value) and server.issuer in str(caught.value)
        idp.answer = says({"error": "access_denied", "error_description": "the.id.token?"}, 400)
        with pytest.raises(AuthorizationFailed) as caught:
            await enterprise(idp, server).request(ID)
        assert "the.id.token" not in str(caught.value) and idp.issuer in str(caught.value)


@pytest.mark.attack("ATK-193")
async def test_an_identity_provider_leads_nowhere_else() -> None:
    async with company() as (idp, server), token_server() as evil:
        idp.answer = lambda posted: Answer(b"", 307, {"Location": f"{evil.issuer}/token"})
        fetch = SafeFetch(private_hosts=[f"127.0.0.1:{each.port}" for each in (idp, server, evil)])
        grant = EnterpriseGrant(TokenEndpoint(fetch, idp.metadata(), PublicClient("me")), endpoint(server), RESOURCE)
        with pytest.raises(AuthorizationFailed, match="redirects"):
            await grant.request(ID)
        assert evil.posted == server.posted == []


async def test_a_configuration_that_makes_no_sense_is_refused_at_once() -> None:
    async with company() as (idp, server):
        with pytest.raises(ConfigurationError, match="subject_token_type"):
            enterprise(idp, server, subject_token_type=ACCESS_TOKEN)
        with pytest.raises(ConfigurationError, match="resource"):
            EnterpriseGrant(endpoint(idp), endpoint(server), "http://mcp.example.com")


# The requests themselves


def test_requests_keep_their_secrets_to_themselves() -> None:
    for request in (
        TokenRequest.jwt_bearer("hush-hush", RESOURCE),
        TokenRequest.token_exchange("hush-hush", ID_TOKEN, audience="x"),
        TokenRequest.about_token("hush-hush", hint="access_token"),
    ):
        assert "hush-hush" in request.form().decode()
        assert "hush-hush" not in repr(request)
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        TokenRequest.jwt_bearer("hush\nhush", RESOURCE)
    assert "hush" not in str(caught.value)


def test_a_request_about_a_token_names_no_grant_and_no_resource() -> None:
    request = TokenRequest.about_token("t")
    assert (request.grant_type, request.resource, dict(request.parameters)) == ("", None, {"token": "t"})
    with pytest.raises(ValueError):
        TokenRequest.about_token("")
