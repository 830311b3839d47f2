"""`Client(url, auth=...)` without a person: credentials of a program, of its platform, of its company; and DPoP."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import pytest

from garrison.auth.client.settings import ClientCredentials, EnterpriseAuthorization, WorkloadIdentity
from garrison.auth.dpop import ProofRefused, ProofVerifier
from garrison.auth.store import MemoryStore
from garrison.errors import AuthenticationRequired, AuthorizationFailed
from garrison.testing import DevAuthorizationServer, DevClient, TrustedIssuer, User

from .fakes import Request
from .oauth import Protected, connected, forms, kept, protected, said, scene, signing_in

ROBOT = DevClient("robot", secret="the secret of the robot")
SECRET = ClientCredentials("robot", secret="the secret of the robot")


def pair() -> tuple[str, dict[str, Any]]:
    """A private key as PEM, and the JWK set of its public part."""
    from joserfc.jwk import ECKey

    key = ECKey.generate_key("P-256")
    return key.as_pem(private=True).decode(), {"keys": [key.as_dict(private=False)]}


async def test_a_secret_gets_a_token_before_the_first_request() -> None:
    async with scene(clients=[ROBOT]) as (authorization, server, _):
        async with connected(server, SECRET) as client:
            assert await said(client) == "ok"
            assert client.whoami is not None and client.whoami.client_id == "robot"
        assert all("authorization" in each.headers for each in server.calls)
        assert [form["resource"] for form in forms(authorization)] == [server.url]
        assert not any("secret" in form for form in map(str, forms(authorization)))


@pytest.mark.attack("ATK-216")
async def test_a_key_gets_a_token_and_no_assertion_is_used_twice() -> None:
    pem, jwks = pair()
    robot = DevClient("robot", jwks=jwks)
    async with scene(clients=[robot]) as (authorization, server, _):
        async with connected(server, ClientCredentials("robot", key=pem)) as client:
            for _ in range(2):
                server.refused.update(server.tokens)
                assert await said(client) == "ok"
        assertions = [form["client_assertion"] for form in forms(authorization)]
        assert len(set(assertions)) == len(assertions) == 3


@pytest.mark.attack("ATK-208")
async def test_a_token_of_a_program_is_renewed_once_before_it_ends() -> None:
    async with scene(clients=[ROBOT], token_seconds=1) as (authorization, server, _):
        async with connected(server, SECRET) as client:
            authorization.settings.token_seconds = 300
            await asyncio.sleep(0.6)
            assert await asyncio.gather(*(said(client) for _ in range(20))) == ["ok"] * 20
        assert len(forms(authorization)) == 2
        assert all("authorization" in each.headers for each in server.calls)


async def test_a_wrong_secret_is_shown_once_for_each_attempt_and_never_repeated() -> None:
    async with scene(clients=[ROBOT]) as (authorization, server, _):
        client = connected(server, ClientCredentials("robot", secret="a wrong one"))
        with pytest.raises(AuthorizationFailed) as caught:
            await client.connect()
        await client.aclose()
        assert caught.value.error == "invalid_client"
        assert "a wrong one" not in str(caught.value)
        assert len(forms(authorization)) == 1


async def test_further_scopes_are_asked_for_once_and_then_it_is_an_error() -> None:
    robot = DevClient("robot", secret="the secret of the robot", scopes=["read", "write"])
    async with scene(clients=[robot]) as (authorization, server, _):
        server.need = {"server/discover": ["read"], "tools/call": ["write"], "tools/list": ["admin"]}
        async with connected(server, SECRET) as client:
            assert await said(client) == "ok"
            with pytest.raises(AuthorizationFailed) as caught:
                await client.list_tools()
        assert caught.value.error == "invalid_scope"
        assert [form.get("scope") for form in forms(authorization)] == [None, "read", "read write", "read write admin"]


async def test_a_secret_stays_with_the_authorization_server_that_was_first() -> None:
    async with scene(clients=[ROBOT]) as (_, server, _), DevAuthorizationServer(clients=[ROBOT]) as second:
        async with connected(server, SECRET) as client:
            server.issuers = [second.issuer]
            server.refused.update(server.tokens)
            with pytest.raises(AuthorizationFailed, match="issuer="):
                await said(client)
        assert not second.asked("token")


async def test_an_issuer_that_is_set_is_the_only_one() -> None:
    async with scene(clients=[ROBOT]) as (first, server, _), DevAuthorizationServer(clients=[ROBOT]) as second:
        auth = ClientCredentials("robot", secret="the secret of the robot", issuer=first.issuer)
        server.issuers = [second.issuer]
        client = connected(server, auth)
        with pytest.raises(AuthorizationFailed, match="issuer"):
            await client.connect()
        await client.aclose()
        server.issuers = [second.issuer, first.issuer]
        async with connected(server, auth) as client:
            assert await said(client) == "ok"
        assert not second.requests


@pytest.mark.parametrize("client_id", [None, "robot"])
async def test_a_workload_shows_what_its_platform_says(client_id: str | None) -> None:
    async with DevAuthorizationServer() as platform:
        trusted = TrustedIssuer(platform.issuer, platform.jwks, id_jag=False, workloads={"job": "robot"})
        async with scene(clients=[ROBOT], trusted_issuers=[trusted]) as (authorization, server, _):

            async def assertion() -> str:
                return platform.issue("job", audience=authorization.issuer, typ="JWT", jti=str(time.monotonic()))

            async with connected(server, WorkloadIdentity(assertion=assertion, client_id=client_id)) as client:
                assert await said(client) == "ok"
            (form,) = forms(authorization)
            assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
            assert (form["resource"], form.get("client_id")) == (server.url, client_id)


@pytest.mark.attack("ATK-218")
async def test_a_workload_that_is_refused_tries_nothing_else() -> None:
    async with scene(clients=[ROBOT]) as (authorization, server, _):
        client = connected(server, WorkloadIdentity(assertion=lambda: "e30.e30.e30"))
        with pytest.raises(AuthorizationFailed):
            await client.connect()
        await client.aclose()
        assert len(forms(authorization)) == 1
        assert not server.calls


async def test_an_assertion_that_cannot_be_had_is_an_error_of_its_own() -> None:
    def fails() -> str:
        raise OSError("no such file")

    async with scene() as (authorization, server, _):
        client = connected(server, WorkloadIdentity(assertion=fails))
        with pytest.raises(AuthorizationFailed, match="assertion gave no token"):
            await client.connect()
        await client.aclose()
        assert not forms(authorization)


@pytest.mark.attack("ATK-210")
@pytest.mark.parametrize("honest", [True, False])
async def test_the_identity_provider_is_asked_for_the_configured_server_alone(honest: bool) -> None:
    desktop = DevClient("desktop", secret="at the company", grants=["urn:ietf:params:oauth:grant-type:token-exchange"])
    async with DevAuthorizationServer(users=[User("alice")], clients=[desktop]) as company:
        trusted = TrustedIssuer(company.issuer, company.jwks)
        robot = DevClient("robot", secret="the secret of the robot")
        async with scene(users=[User("alice")], clients=[robot], trusted_issuers=[trusted]) as (first, server, _):
            company.add_client(
                DevClient(
                    "desktop",
                    secret="at the company",
                    grants=["urn:ietf:params:oauth:grant-type:token-exchange"],
                    elsewhere={first.issuer: "robot"},
                )
            )
            auth = EnterpriseAuthorization(
                idp=f"{company.issuer}/token",
                id_token=lambda: company.issue_id_token("alice", "desktop"),
                idp_client_id="desktop",
                idp_client_secret="at the company",
                issuer=first.issuer,
                client_id="robot",
                secret="the secret of the robot",
            )
            if honest:
                async with connected(server, auth) as client:
                    assert await said(client) == "ok"
                (exchange,) = forms(company)
                assert (exchange["audience"], exchange["resource"]) == (first.issuer, server.url)
                return
            async with protected("https://as.evil.example") as hostile:
                client = connected(hostile, auth)
                with pytest.raises(AuthorizationFailed, match="issuer"):
                    await client.connect()
                await client.aclose()
            assert not company.asked("token") and not first.asked("token")


# DPoP


def proving(server: Protected, verifier: ProofVerifier, *, nonce: str = "") -> list[str]:
    """Lets a server check proofs of possession, and want a nonce. Returns the proofs that it takes."""
    seen: list[str] = []

    def verdict(request: Request) -> bytes | None:
        token = request.headers.get("authorization", "").partition(" ")[2]
        if not token or request.target != "/mcp":
            return None
        proof = request.headers.get("dpop", "")
        try:
            verifier.check(proof, method=request.verb, url=server.url, access_token=token, jkt_expected=None)
        except ProofRefused as exc:
            return server.challenge("401 Unauthorized", exc.code)
        if nonce and f'"nonce":"{nonce}"' not in payload(proof):
            return server.challenge("401 Unauthorized", "use_dpop_nonce", extra=f"DPoP-Nonce: {nonce}\r\n")
        seen.append(proof)
        return None

    server.verdict, server.scheme = verdict, "DPoP"
    return seen


def payload(proof: str) -> str:
    part = proof.split(".")[1]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode().replace(" ", "")


async def test_each_request_has_a_proof_of_its_own() -> None:
    store = MemoryStore()
    async with scene() as (_, server, person):
        proofs = proving(server, ProofVerifier())
        for _ in range(2):
            async with connected(server, signing_in(person, store=store)) as client:
                await asyncio.gather(*(said(client) for _ in range(5)))
                server.refused.update(server.tokens)
                assert await said(client) == "ok"
        assert len(person.pages) == 1
        assert len(set(proofs)) == len(proofs) >= 14
        assert len(kept(store, "key")) == 1


async def test_a_nonce_that_is_wanted_is_given_and_kept() -> None:
    async with scene(dpop_nonces=True) as (_, server, person):
        proving(server, ProofVerifier(), nonce="one")
        async with connected(server, signing_in(person)) as client:
            assert [await said(client) for _ in range(3)] == ["ok"] * 3
        # discovery: without a token, with one, with its nonce; then one request for each call
        assert len(server.calls) == 3 + 3


async def test_a_server_that_wants_a_nonce_and_takes_none_ends() -> None:
    async with scene() as (_, server, person):
        server.scheme = "DPoP"
        server.verdict = lambda request: (
            server.challenge("401 Unauthorized", "use_dpop_nonce", extra="DPoP-Nonce: another\r\n")
            if request.headers.get("authorization")
            else None
        )
        client = connected(server, signing_in(person))
        with pytest.raises(AuthenticationRequired, match="401"):
            await client.connect()
        await client.aclose()
        assert len(server.calls) < 12 and len(person.pages) == 1


@pytest.mark.parametrize(("dpop", "scheme"), [("auto", "Bearer"), ("off", "Bearer")])
async def test_a_server_that_does_not_say_dpop_gets_bearer_tokens(dpop: Any, scheme: str) -> None:
    async with scene() as (authorization, server, person):
        async with connected(server, signing_in(person, dpop=dpop)) as client:
            assert await said(client) == "ok"
        assert "dpop" not in authorization.asked("token")[0].headers
        assert server.calls[-1].headers["authorization"].startswith(scheme + " ")


async def test_dpop_may_be_demanded_and_refused_by_the_user() -> None:
    async with scene() as (authorization, server, person):
        server.metadata = {"dpop_bound_access_tokens_required": True}
        client = connected(server, signing_in(person, dpop="off"))
        with pytest.raises(AuthorizationFailed, match=r"OAuth\.dpop"):
            await client.connect()
        await client.aclose()
        assert not person.pages
        server.metadata = {}
        authorization.metadata = {"dpop_signing_alg_values_supported": ["RS512"]}
        client = connected(server, signing_in(person, dpop="require"))
        with pytest.raises(AuthorizationFailed, match="DPoP"):
            await client.connect()
        await client.aclose()
        assert not person.pages
