"""The development authorization server gives what OAuth 2.1 and MCP promise: the ways that end well."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from typing import Any

import pytest

from garrison.auth import AuthorizationServerMetadata
from garrison.auth.dpop import DpopKey
from garrison.auth.jws import SigningKey, VerifyingKey, read_compact
from garrison.auth.urls import authorization_server_urls
from garrison.errors import ConfigurationError, InsecureConfigurationError
from garrison.testing import DevAuthorizationServer, DevClient, Reply, Request, TrustedIssuer, User

from .asking import RESOURCE, Asking, members
from .conftest import Serving

BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"


def read(server: DevAuthorizationServer, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token that the server's published keys verify."""
    header, claims, signed, signature = read_compact(token, 8192)
    listed: Any = server.jwks["keys"]
    (key,) = [each for each in listed if each["kid"] == header["kid"]]
    assert VerifyingKey(key, str(header["alg"])).verify(signed, signature)
    return dict(header), dict(claims)


@pytest.mark.parametrize("path", ["", "/tenant", "/a/b"])
@pytest.mark.parametrize("discovery", ["oauth", "openid"])
async def test_its_metadata_is_where_clients_look_for_it(serving: Serving, path: str, discovery: str) -> None:
    async with serving(path=path, discovery=[discovery], scopes=["read"]) as server:
        assert server.issuer.endswith(path) and server.issuer.startswith("http://127.0.0.1:")
        ask, found = Asking(server), []
        for url in authorization_server_urls(server.issuer):
            answer = await ask.fetch.get(url)
            if answer.status == 200:
                found.append(AuthorizationServerMetadata.read(answer.body, server.issuer))
                assert discovery[:5] in url
            else:
                assert answer.status == 404
        assert found and all(each == found[0] for each in found)
        metadata = found[0]
        assert metadata.has_pkce and metadata.authorization_response_iss_parameter_supported
        assert metadata.scopes_supported == ("read",) and metadata.registration_endpoint is None
        assert metadata.jwks_uri is not None
        assert json.loads((await ask.fetch.get(metadata.jwks_uri)).body) == server.jwks
        listed: Any = server.jwks["keys"]
        assert all("d" not in key and key["alg"] == "ES256" for key in listed)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_a_code_becomes_a_token_for_the_resource(serving: Serving, algorithm: str) -> None:
    async with serving(algorithm=algorithm, scopes=["read", "write", "admin"]) as server:
        ask = Asking(server)
        answer = members(await ask.authorize(scope="read write admin"))
        assert answer["state"] == "a state" and answer["iss"] == server.issuer
        status, got = await ask.redeem(answer["code"])
        assert status == 200 and got["token_type"] == "Bearer"
        assert got["scope"] == "read write", "alice may not have admin"
        header, claims = read(server, got["access_token"])
        assert header["typ"] == "at+jwt" and header["alg"] == algorithm
        assert claims["aud"] == RESOURCE and claims["iss"] == server.issuer and claims["sub"] == "alice"
        assert claims["client_id"] == "app" and claims["tenant"] == "acme" and claims["scope"] == "read write"
        assert 0 < claims["exp"] - time.time() <= got["expires_in"] == 300


async def test_a_refresh_token_is_exchanged_for_a_new_one(serving: Serving) -> None:
    async with serving() as server:
        ask = Asking(server)
        _, first = await ask.redeem(await ask.code(scope="read write"))
        status, second = await ask.renew(first["refresh_token"], scope="read")
        assert status == 200 and second["scope"] == "read"
        assert second["refresh_token"] != first["refresh_token"]
        status, third = await ask.renew(second["refresh_token"])
        assert status == 200 and third["scope"] == "read write", "what was granted stays"


async def test_refresh_tokens_for_offline_access_where_it_is_a_scope(serving: Serving) -> None:
    async with serving(scopes=["read", "offline_access"]) as server:
        ask = Asking(server)
        assert "refresh_token" not in (await ask.redeem(await ask.code()))[1]
        assert "refresh_token" in (await ask.redeem(await ask.code(scope="read offline_access")))[1]


async def test_clients_prove_themselves_in_each_way(serving: Serving) -> None:
    key = SigningKey.generate()
    clients = [
        DevClient("basic", secret="s:e cret", tenant="acme"),
        DevClient("signed", jwks={"keys": [dict(key.public)]}, scopes=["read"]),
    ]
    async with serving(clients=clients) as server:
        ask, more = Asking(server), {"grant_type": "client_credentials", "resource": RESOURCE, "scope": "read"}
        status, got = await ask.token({"Authorization": "Basic " + b64encode(b"basic:s%3Ae+cret").decode()}, **more)
        assert status == 200 and "refresh_token" not in got
        assert read(server, got["access_token"])[1]["sub"] == "basic"
        assert read(server, got["access_token"])[1]["tenant"] == "acme"
        assert (await ask.token(**more, client_id="basic", client_secret="s:e cret"))[0] == 200

        now = int(time.time())
        said = {"iss": "signed", "sub": "signed", "aud": server.issuer, "exp": now + 60, "iat": now, "jti": "1"}
        signed = {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": key.sign(key.segment({"typ": "JWT"}), said),
        }
        assert (await ask.token(**more, **signed))[0] == 200
        status, again = await ask.token(**more, **signed)
        assert (status, again["error"]) == (401, "invalid_client"), "an assertion is used once"
        stranger = SigningKey.generate()
        for signer, changes in (
            (stranger, {}),
            (key, {"iss": "other"}),
            (key, {"sub": "other"}),
            (key, {"aud": "https://else.example"}),
            (key, {"exp": now + 3600}),
            (key, {"jti": None}),
        ):
            made = signer.sign(signer.segment({"typ": "JWT"}), {**said, "jti": "2", **changes})
            status, refused = await ask.token(**more, **{**signed, "client_assertion": made})
            assert (status, refused["error"]) == (401, "invalid_client"), changes


async def test_a_proof_binds_the_token_to_its_key(serving: Serving) -> None:
    async with serving() as server:
        ask, key = Asking(server), DpopKey.generate()
        url = f"{server.issuer}/token"
        code = await ask.code()
        _, got = await ask.redeem(code, {"DPoP": key.proof("POST", url, now=time.time())})
        assert got["token_type"] == "DPoP"
        assert read(server, got["access_token"])[1]["cnf"] == {"jkt": key.thumbprint}
        status, refused = await ask.renew(got["refresh_token"])
        assert (status, refused["error"]) == (400, "invalid_dpop_proof"), "a public client's refresh token is bound"
        other = {"DPoP": DpopKey.generate().proof("POST", url, now=time.time())}
        given = {"grant_type": "refresh_token", "refresh_token": got["refresh_token"], "client_id": "app"}
        assert (await ask.token(other, **given, resource=RESOURCE))[0] == 400
        right = {"DPoP": key.proof("POST", url, now=time.time())}
        assert (await ask.token(right, **given, resource=RESOURCE))[1]["token_type"] == "DPoP"


async def test_a_nonce_is_asked_for_once(serving: Serving) -> None:
    async with serving(dpop="required", dpop_nonces=True) as server:
        ask, key = Asking(server), DpopKey.generate()
        url, form = (
            f"{server.issuer}/token",
            b"grant_type=client_credentials&client_id=watcher&client_secret=watcher-secret",
        )
        form += b"&resource=https%3A%2F%2Fmcp.example.com%2Fmcp"

        async def post(proof: str | None) -> tuple[int, Any, str | None]:
            got = await ask.fetch.post(
                url,
                form,
                media_type="application/x-www-form-urlencoded",
                headers={} if proof is None else {"DPoP": proof},
            )
            return got.status, json.loads(got.body), got.headers.get("dpop-nonce")

        status, said, _ = await post(None)
        assert (status, said["error"]) == (400, "invalid_dpop_proof")
        status, said, nonce = await post(key.proof("POST", url, now=time.time()))
        assert (status, said["error"]) == (400, "use_dpop_nonce") and nonce
        status, said, following = await post(key.proof("POST", url, nonce=nonce, now=time.time()))
        assert status == 200 and said["token_type"] == "DPoP" and following


async def test_introspection_and_revocation(serving: Serving) -> None:
    async with serving(opaque_tokens=True) as server:
        ask = Asking(server)
        _, got = await ask.redeem(await ask.code())
        token = got["access_token"]
        assert "." not in token
        watcher = {"client_id": "watcher", "client_secret": "watcher-secret"}
        _, said = await ask.post("introspect", {"token": token, **watcher})
        assert said["active"] and said["sub"] == "alice" and said["aud"] == RESOURCE and said["tenant"] == "acme"
        assert (await ask.post("introspect", {"token": token, "client_id": "app"}))[0] == 401, (
            "it has to be asked by name"
        )
        assert (await ask.post("revoke", {"token": token, "client_id": "other"}))[0] == 200
        assert await ask.active(token), "another client's revocation changes nothing"
        assert (await ask.post("revoke", {"token": token, "client_id": "app"}))[0] == 200
        assert not await ask.active(token)
        _, newer = await ask.renew(got["refresh_token"])
        assert await ask.active(newer["access_token"])
        assert (await ask.post("revoke", {"token": newer["refresh_token"], "client_id": "app"}))[0] == 200
        assert not await ask.active(newer["access_token"]), "what came of the consent ends with it"


async def test_registration_is_for_those_who_turn_it_on(serving: Serving) -> None:
    body = json.dumps({"redirect_uris": ["http://127.0.0.1/cb"], "application_type": "native", "client_name": "New"})
    web = json.dumps({"redirect_uris": ["http://127.0.0.1/cb"]})
    async with serving() as server:
        url, ask = f"{server.issuer}/register", Asking(server)
        assert (await ask.fetch.post(url, body.encode(), media_type="application/json")).status == 404
        server.settings.registration = True
        answer = await ask.fetch.post(url, body.encode(), media_type="application/json")
        assert answer.status == 201
        client = json.loads(answer.body)
        assert client["client_secret"] and client["application_type"] == "native"
        got = await ask.authorize(client_id=client["client_id"], redirect_uri="http://127.0.0.1:4321/cb")
        assert got.headers["location"].startswith("http://127.0.0.1:4321/cb?code=")
        refused = await ask.fetch.post(url, web.encode(), media_type="application/json")
        assert refused.status == 400 and json.loads(refused.body)["error"] == "invalid_redirect_uri"


async def test_a_workload_s_token_stands_for_its_client(serving: Serving) -> None:
    platform = SigningKey.generate()
    trusted = TrustedIssuer(
        "https://cluster.example", {"keys": [dict(platform.public)]}, id_jag=False, workloads={"system:job": "job"}
    )
    async with serving(clients=[DevClient("job", scopes=["read"])], trusted_issuers=[trusted]) as server:
        ask = Asking(server)

        async def ask_as(**changes: object) -> tuple[int, Any]:
            said = {
                "iss": trusted.issuer,
                "sub": "system:job",
                "aud": server.issuer,
                "exp": int(time.time()) + 60,
                **changes,
            }
            assertion = platform.sign(platform.segment({"typ": "JWT"}), said)
            return await ask.token(grant_type=BEARER, assertion=assertion, resource=RESOURCE, scope="read")

        for _ in range(2):  # a platform gives the same token until it ends
            status, got = await ask_as()
            assert status == 200 and read(server, got["access_token"])[1]["client_id"] == "job"
        for wrong in (
            {"sub": "system:other"},
            {"aud": "https://else.example"},
            {"exp": int(time.time()) - 60},
            {"iss": "https://evil.example"},
        ):
            assert (await ask_as(**wrong))[1]["error"] == "invalid_grant", wrong


async def test_a_token_is_exchanged_for_one_of_another_server(serving: Serving) -> None:
    async with serving(clients=[DevClient("gateway", secret="gateway-secret")]) as server:
        ask = Asking(server)
        given = {
            "grant_type": EXCHANGE,
            "client_id": "gateway",
            "client_secret": "gateway-secret",
            "subject_token": server.issue("alice", ["read"], RESOURCE),
            "subject_token_type": TYPE + "access_token",
            "resource": "https://upstream.example.com",
            "scope": "read",
        }
        status, got = await ask.token(**given)
        assert status == 200 and got["issued_token_type"] == TYPE + "access_token"
        _, claims = read(server, got["access_token"])
        assert claims["aud"] == "https://upstream.example.com" and claims["sub"] == "alice"
        assert claims["act"] == {"sub": "gateway"} and claims["tenant"] == "acme"
        server.revoke(given["subject_token"])
        assert (await ask.token(**given))[0] == 400


async def test_tests_can_make_any_token(serving: Serving) -> None:
    async with serving() as server:
        ask = Asking(server)
        right = server.issue("alice", ["read"], RESOURCE)
        assert read(server, right)[1]["scope"] == "read" and await ask.active(right)
        assert not await ask.active(server.issue("alice", ["read"], RESOURCE, lifetime=-60))
        header, claims, _, _ = read_compact(
            server.issue("eve", audience="https://else", typ="JWT", exp=None, tenant="x"), 8192
        )
        assert header["typ"] == "JWT" and "exp" not in claims and claims["tenant"] == "x"
        assert server.issue(header={"alg": "none"}).endswith(".")
        assert read_compact(server.issue(header={"alg": "HS256"}, key=b"k" * 32), 8192).header["alg"] == "HS256"
        stranger = SigningKey.generate().export().reveal()
        for key in (json.loads(stranger), pem(json.loads(stranger))):
            with pytest.raises(AssertionError):
                read(server, server.issue(key=key))
        before = server.issue("alice", audience=RESOURCE)
        server.rotate_keys()
        assert read(server, before)[1]["sub"] == "alice"
        assert read(server, server.issue("alice"))[0]["kid"] != read(server, before)[0]["kid"]
        server.rotate_keys(keep=False)
        with pytest.raises(ValueError):
            read(server, before)
        with pytest.raises(ConfigurationError):
            server.issue(key="no PEM")


def pem(jwk: dict[str, str]) -> str:
    """A private key in PEM."""
    from joserfc.jwk import ECKey

    return ECKey.import_key(jwk).as_pem(private=True).decode()  # type: ignore[arg-type]


async def test_tests_can_let_it_fail(serving: Serving) -> None:
    async with serving() as server:
        ask = Asking(server)
        server.fail("token", error="temporarily_unavailable", status=503)
        server.fail("authorize", error="access_denied")
        refused = members(await ask.authorize())
        assert refused["error"] == "access_denied" and refused["iss"] == server.issuer
        code = await ask.code()
        status, said = await ask.redeem(code)
        assert (status, said["error"]) == (503, "temporarily_unavailable")
        assert (await ask.redeem(code))[0] == 200, "once"
        with pytest.raises(ConfigurationError):
            server.fail("tokens")

        server.metadata = {"code_challenge_methods_supported": None, "issuer": "https://else.example"}
        document = json.loads((await ask.fetch.get(authorization_server_urls(server.issuer)[0])).body)
        assert "code_challenge_methods_supported" not in document and document["issuer"] == "https://else.example"

        def teapot(request: Request, reply: Reply) -> Reply:
            return Reply(418) if request.endpoint == "jwks" else reply

        server.on_reply = teapot
        assert (await ask.fetch.get(f"{server.issuer}/jwks")).status == 418
        assert len(server.asked("token")) == 2 and server.asked("token")[0].method == "POST"
        assert code not in repr(server.requests), "what is printed of a request has no secret"


@pytest.mark.parametrize("host", ["0.0.0.0", "", "10.0.0.1", "localhost", "::"])
def test_it_listens_on_loopback_and_nowhere_else(host: str) -> None:
    with pytest.raises(InsecureConfigurationError):
        DevAuthorizationServer(host=host)


async def test_it_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    async with DevAuthorizationServer([User("alice")], host="::1") as server:
        assert server.issuer.startswith("http://[::1]:")
        assert "never for production" in capsys.readouterr().err
