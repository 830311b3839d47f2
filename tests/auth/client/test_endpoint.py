"""The token endpoint, honest and hostile: what counts as a token, and what is said of everything else."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest

pytest.importorskip("joserfc")

from garrison.auth import TokenRequest
from garrison.auth.client.authentication import ClientSecret, PrivateKeyJwt, PublicClient
from garrison.auth.client.endpoint import MAX_LIFETIME, TokenEndpoint
from garrison.auth.dpop import DpopKey, Nonces, ProofRefused, ProofVerifier
from garrison.auth.jws import SigningKey, read_compact
from garrison.errors import AuthorizationFailed, ClientError, ConfigurationError, ProtocolViolation
from garrison.policy.secret import Secret
from garrison.safe import FetchRefused, SafeFetch
from tests.support.token_server import BEARER, Answer, Posted, TokenServer, token_server

NOW = 1_800_000_000.0
RESOURCE = "https://mcp.example.com/mcp"
CODE = TokenRequest.authorization_code("the-code", "me", "v" * 43, RESOURCE, redirect_uri="http://127.0.0.1:1/cb")
REFRESH = TokenRequest.refresh_token("the-refresh-token", "me", RESOURCE, scope="a b")
BOUND: dict[str, Any] = {**BEARER, "token_type": "DPoP"}


def endpoint(here: TokenServer, **given: Any) -> TokenEndpoint:
    """The endpoint of a server, as a public client without a key asks it."""
    made = {"client": PublicClient("me"), "clock": lambda: NOW, **given}
    return TokenEndpoint(made.pop("fetch", here.fetch), made.pop("server", here.metadata()), **made)


async def refused(here: TokenServer, answer: Answer, request: TokenRequest = CODE, **given: Any) -> AuthorizationFailed:
    """The error for an answer, which was asked for once and leaves nothing secret behind."""
    here.answer = lambda posted: answer
    before = len(here.posted)
    with pytest.raises(AuthorizationFailed) as caught:
        await endpoint(here, **given).request(request)
    assert len(here.posted) == before + 1, "asked once: no other try, grant or method"
    error = caught.value
    assert error.__cause__ is None
    return error


# What is asked


async def test_a_code_is_exchanged() -> None:
    async with token_server() as here:
        here.answer = lambda posted: Answer({**BEARER, "refresh_token": "r-1", "scope": "b a"})
        got = await endpoint(here).request(CODE)
        assert got.access_token == Secret("token-1")
        assert got.refresh_token == Secret("r-1")
        assert (got.token_type, got.expires_at, got.scopes) == ("Bearer", NOW + 3600, {"a", "b"})
        (posted,) = here.posted
        assert posted.raw.startswith(b"POST /token HTTP/1.1\r\n")
        assert posted.headers["accept"] == "application/json"
        assert posted.headers["content-type"] == "application/x-www-form-urlencoded"
        assert "dpop" not in posted.headers and "authorization" not in posted.headers
        assert posted.form == dict(CODE.parameters)


async def test_a_client_authenticates() -> None:
    async with token_server() as here:
        await endpoint(here, client=ClientSecret("me", "s3cret")).request(CODE)
        assert here.posted[0].headers["authorization"] == "Basic bWU6czNjcmV0"
        key = PrivateKeyJwt("me", SigningKey.generate().export(), algorithm="ES256")
        await endpoint(here, client=key).request(TokenRequest.client_credentials(RESOURCE))
        assert read_compact(here.posted[1].form["client_assertion"], 9000).payload["aud"] == here.issuer


async def test_a_refresh_token_that_is_not_replaced_is_kept() -> None:
    async with token_server() as here:
        assert (await endpoint(here).request(REFRESH)).refresh_token == Secret("the-refresh-token")
        for nothing in (None, ""):
            here.answer = lambda posted, nothing=nothing: Answer({**BEARER, "refresh_token": nothing})
            assert (await endpoint(here).request(REFRESH)).refresh_token == Secret("the-refresh-token")
        here.answer = lambda posted: Answer({**BEARER, "refresh_token": "r-2"})
        assert (await endpoint(here).request(REFRESH)).refresh_token == Secret("r-2")
        here.answer = lambda posted: Answer()
        assert (await endpoint(here).request(CODE)).refresh_token is None


@pytest.mark.parametrize(
    ("said", "asked", "granted"),
    [
        ({}, REFRESH, {"a", "b"}),
        ({"scope": "a"}, REFRESH, {"a"}),
        ({"scope": "a b c"}, REFRESH, {"a", "b", "c"}),
        ({"scope": ""}, REFRESH, set[str]()),
        ({"scope": None}, REFRESH, {"a", "b"}),
        ({}, CODE, None),
    ],
)
async def test_scopes_are_what_was_granted(said: dict[str, Any], asked: TokenRequest, granted: set[str] | None) -> None:
    async with token_server() as here:
        here.answer = lambda posted: Answer({**BEARER, **said})
        assert (await endpoint(here).request(asked)).scopes == granted


@pytest.mark.attack("ATK-218")
@pytest.mark.parametrize("grant", ["password", "implicit", "token", "urn:ietf:params:oauth:grant-type:device_code", ""])
async def test_there_is_no_grant_by_password_and_none_without_a_code(grant: str) -> None:
    async with token_server() as here:
        request = TokenRequest(grant, RESOURCE, {"grant_type": grant, "username": "u", "password": "p"})
        with pytest.raises(ConfigurationError, match="grant_type must be one of"):
            await endpoint(here).request(request)
        assert here.posted == []
        await endpoint(here).request(CODE)
        assert not any("password" in name or "implicit" in name for name in vars(TokenRequest))


# What is answered


async def test_an_answer_may_say_little_and_much() -> None:
    async with token_server() as here:
        here.answer = lambda posted: Answer(
            {"access_token": "~t/o+k=e.n_-", "token_type": "bEARER", "id_token": "x", "more": {"a": [1, 2.5, None]}},
            media_type="Application/JSON; charset=utf-8",
            headers={"Cache-Control": "no-store"},
        )
        got = await endpoint(here).request(CODE)
        assert (got.access_token.reveal(), got.expires_at, got.issued_token_type) == ("~t/o+k=e.n_-", None, None)


WRONG: dict[str, tuple[Any, str]] = {
    "token_type mac": ({**BEARER, "token_type": "mac"}, "neither Bearer nor DPoP"),
    "token_type N_A": ({**BEARER, "token_type": "N_A"}, "neither Bearer nor DPoP"),
    "token_type empty": ({**BEARER, "token_type": ""}, "neither Bearer nor DPoP"),
    "token_type missing": ({"access_token": "t"}, "token_type"),
    "token_type a list": ({**BEARER, "token_type": ["Bearer"]}, "token_type"),
    "token_type DPoP, unasked": (BOUND, "bound to a key"),
    "access_token missing": ({"token_type": "Bearer"}, "access_token"),
    "access_token empty": ({**BEARER, "access_token": ""}, "access_token"),
    "access_token null": ({**BEARER, "access_token": None}, "access_token"),
    "access_token a number": ({**BEARER, "access_token": 7}, "access_token"),
    "access_token with a newline": ({**BEARER, "access_token": "a\r\nX-Evil: 1"}, "access_token"),
    "access_token ends with a newline": ({**BEARER, "access_token": "a\n"}, "access_token"),
    "access_token with a space": ({**BEARER, "access_token": "a b"}, "access_token"),
    "access_token not ASCII": ({**BEARER, "access_token": "t\u00f6ken"}, "access_token"),
    "access_token too long": ({**BEARER, "access_token": "x" * 16_385}, "access_token"),
    "refresh_token with a newline": ({**BEARER, "refresh_token": "a\nb"}, "refresh_token"),
    "refresh_token a number": ({**BEARER, "refresh_token": 7}, "refresh_token"),
    "expires_in negative": ({**BEARER, "expires_in": -1}, "expires_in"),
    "expires_in a text": ({**BEARER, "expires_in": "3600"}, "expires_in"),
    "expires_in true": ({**BEARER, "expires_in": True}, "expires_in"),
    "expires_in NaN": (b'{"access_token": "t", "token_type": "Bearer", "expires_in": NaN}', "JSON"),
    "expires_in out of range": (b'{"access_token": "t", "token_type": "Bearer", "expires_in": 1e999}', "JSON"),
    "scope a list": ({**BEARER, "scope": ["a"]}, "scope"),
    "scope with a newline": ({**BEARER, "scope": "a\nb"}, "scope"),
    "a list": ([BEARER], "object"),
    "a text": ("token", "object"),
    "empty": (b"", "JSON"),
    "cut short": (json.dumps(BEARER).encode()[:-2], "JSON"),
    "a member twice": (b'{"access_token": "a", "access_token": "b", "token_type": "Bearer"}', "duplicate"),
    "nested without end": ({**BEARER, "x": json.loads("[" * 9 + "]" * 9)}, "nested"),
}


@pytest.mark.attack("ATK-207")
@pytest.mark.parametrize("name", WRONG)
async def test_an_answer_that_is_not_right_gives_no_token(name: str, caplog: pytest.LogCaptureFixture) -> None:
    body, reason = WRONG[name]
    async with token_server() as here:
        with caplog.at_level(logging.WARNING, "garrison.security"):
            error = await refused(here, Answer(body))
        assert re.search(reason, str(error))
        assert error.error is None
        assert [record.__dict__["event"] for record in caplog.records] == ["oauth.refused"]


@pytest.mark.attack("ATK-207")
@pytest.mark.parametrize("media_type", ["text/html", "text/plain", "application/jsonp", "", "application/jwt"])
async def test_what_is_not_json_by_its_own_word_gives_no_token(media_type: str) -> None:
    async with token_server() as here:
        body = b"<html>token-1</html>" if media_type == "text/html" else json.dumps(BEARER).encode()
        assert "application/json" in str(await refused(here, Answer(body, media_type=media_type)))


@pytest.mark.attack("ATK-207")
async def test_an_answer_without_end_is_not_read() -> None:
    async with token_server() as here:
        here.answer = lambda posted: Answer({**BEARER, "filler": "x" * 10_000_000})
        with pytest.raises(ProtocolViolation, match="more than 262144 bytes"):
            await endpoint(here).request(CODE)
        # Also where the fetcher would let it pass.
        here.answer = lambda posted: Answer({**BEARER, "filler": "x" * 262_144})
        wide = SafeFetch(private_hosts=[f"127.0.0.1:{here.port}"], max_bytes=20_000_000)
        with pytest.raises(AuthorizationFailed, match="more than 262144 bytes"):
            await endpoint(here, fetch=wide).request(CODE)
        here.answer = lambda posted: Answer({**BEARER, "filler": "x" * 200_000})
        assert await endpoint(here).request(CODE)


@pytest.mark.attack("ATK-207")
@pytest.mark.parametrize(
    ("said", "lasting"),
    [(1e30, MAX_LIFETIME), (10**25, MAX_LIFETIME), (2_592_001, MAX_LIFETIME), (0, 0), (0.5, 0.5), (86_400, 86_400)],
)
async def test_a_token_is_not_believed_to_last_for_ever(said: float, lasting: float) -> None:
    async with token_server() as here:
        here.answer = lambda posted: Answer({**BEARER, "expires_in": said})
        assert (await endpoint(here).request(CODE)).expires_at == NOW + lasting


async def test_a_token_is_not_shown_by_accident() -> None:
    async with token_server() as here:
        here.answer = lambda posted: Answer({**BEARER, "refresh_token": "r-1"})
        got = await endpoint(here).request(CODE)
        assert "token-1" not in f"{got} {got!r}" and "r-1" not in f"{got!r}"


# What is refused


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize("code", ["invalid_grant", "invalid_scope", "unauthorized_client", "invalid_client", "odd-one"])
async def test_a_refusal_ends_the_attempt_and_carries_its_code(status: int, code: str) -> None:
    async with token_server() as here:
        error = await refused(here, Answer({"error": code, "error_description": "No,  not\tyou."}, status))
        assert error.error == code
        assert str(error) == f"{here.issuer} gave no token: {code} (it says: No, not you.)"
        assert str(await refused(here, Answer({"error": code}, status))) == f"{here.issuer} gave no token: {code}"


async def test_a_refusal_with_status_200_is_one() -> None:
    async with token_server() as here:
        for body in ({"error": "bad_verification_code"}, {**BEARER, "error": "bad_verification_code"}):
            assert (await refused(here, Answer(body))).error == "bad_verification_code"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"<html>", 500, media_type="text/html"),
        Answer({"error": "invalid_grant"}, 400, media_type="text/html"),
        Answer({"error": ["invalid_grant"]}, 400),
        Answer({"error": "two words\n"}, 400),
        Answer({"error": "x" * 65}, 400),
        Answer({"message": "no"}, 503),
        Answer(b"", 429),
        Answer(b'{"error": "a", "error": "b"}', 400),
        Answer(dict(BEARER), 201),
        Answer(b"", 204),
    ],
)
async def test_what_is_neither_a_token_nor_an_error_is_named_by_its_status(answer: Answer) -> None:
    async with token_server() as here:
        error = await refused(here, answer)
        assert error.error is None
        assert f"status {answer.status}" in str(error)


@pytest.mark.attack("ATK-207")
async def test_what_a_server_says_is_cleaned_and_without_our_secrets() -> None:
    words = (
        "\x1b[2J\u202e Sign in at https://evil.example/x?the-code now, code the-code, verifier " + "v" * 43 + "!" * 999
    )
    async with token_server() as here:
        told = str(await refused(here, Answer({"error": "invalid_grant", "error_description": words}, 400)))
        assert "Sign in at" in told and "***" in told
        for hidden in ("the-code", "v" * 43, "evil.example", "\x1b", "\u202e"):
            assert hidden not in told
        assert len(told) < 300
        told = str(await refused(here, Answer({"error": "x", "error_description": "the-refresh-token"}, 400), REFRESH))
        assert "the-refresh-token" not in told


@pytest.mark.attack("ATK-193")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_what_is_posted_follows_no_redirect(status: int) -> None:
    async with token_server() as here, token_server() as there:
        away = Answer(b"", status, {"Location": f"{there.issuer}/token"})
        fetch = SafeFetch(private_hosts=[f"127.0.0.1:{here.port}", f"127.0.0.1:{there.port}"])
        assert "redirects" in str(await refused(here, away, fetch=fetch))
        with pytest.raises(AuthorizationFailed, match="redirects"):
            await endpoint(here, fetch=fetch).revoke(Secret("t"), "access_token")
        assert there.posted == []
        here.answer = lambda posted: Answer()
        assert await endpoint(here, fetch=fetch).request(CODE)


@pytest.mark.attack("ATK-194")
@pytest.mark.parametrize(
    "url", ["https://10.0.0.5/token", "https://[fd00::1]/token", "https://metadata.google.internal/token"]
)
async def test_no_endpoint_inside_a_network_is_asked(url: str) -> None:
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["169.254.169.254"]

    async with token_server() as here:
        fetch = SafeFetch(private_hosts=[f"127.0.0.1:{here.port}"], resolver=resolver, timeout=2.0)
        with pytest.raises(FetchRefused, match="not public"):
            await endpoint(here, server=here.metadata(token_endpoint=url), fetch=fetch).request(CODE)
        with pytest.raises(FetchRefused, match="not public"):
            await endpoint(here, server=here.metadata(revocation_endpoint=url), fetch=fetch).revoke(
                Secret("t"), "access_token"
            )
        assert await endpoint(here, fetch=fetch).request(CODE)
        assert len(here.posted) == 1


async def test_no_answer_is_another_error_than_a_refusal() -> None:
    async with token_server() as here:
        away = here.metadata()
    with pytest.raises(ClientError) as caught:
        await endpoint(here, server=away).request(CODE)
    assert not isinstance(caught.value, AuthorizationFailed)


async def test_a_server_without_a_token_endpoint_gives_no_tokens() -> None:
    async with token_server() as here:
        with pytest.raises(AuthorizationFailed, match="token_endpoint"):
            endpoint(here, server=here.metadata(token_endpoint=None))


# DPoP


def prover(**given: Any) -> ProofVerifier:
    return ProofVerifier(clock=lambda: NOW, **given)


def proven(here: TokenServer, checks: ProofVerifier, posted: Posted) -> str:
    url = f"{here.issuer}/token"
    return checks.check(posted.headers["dpop"], method="POST", url=url, access_token=None, jkt_expected=None)


async def test_a_key_is_shown_and_the_token_is_bound_to_it() -> None:
    key = DpopKey.generate()
    async with token_server() as here:
        here.answer = lambda posted: Answer(BOUND)
        listed = here.metadata(dpop_signing_alg_values_supported=("RS256", "ES256"))
        got = await endpoint(here, dpop=key, server=listed).request(CODE)
        assert got.token_type == "DPoP"
        checks = prover()
        assert proven(here, checks, here.posted[0]) == key.thumbprint
        await endpoint(here, dpop=key).request(REFRESH)
        assert proven(here, checks, here.posted[1]) == key.thumbprint, "a proof of its own"


@pytest.mark.attack("ATK-207")
async def test_what_was_asked_to_be_bound_is_not_taken_unbound() -> None:
    key = DpopKey.generate()
    async with token_server() as here:
        told = str(await refused(here, Answer(), dpop=key))
        assert "TokenEndpoint.allow_bearer" in told
        assert (await endpoint(here, dpop=key, allow_bearer=True).request(CODE)).token_type == "Bearer"
        here.answer = lambda posted: Answer(BOUND)
        assert (await endpoint(here, dpop=key, allow_bearer=True).request(CODE)).token_type == "DPoP"


async def test_a_nonce_is_asked_for_once_and_then_known() -> None:
    nonces, key = Nonces(), DpopKey.generate()
    client = PrivateKeyJwt("me", SigningKey.generate().export(), algorithm="ES256")
    async with token_server() as here:
        checks = prover(nonces=nonces)

        def answer(posted: Posted) -> Answer:
            headers = {"DPoP-Nonce": nonces.current(NOW)}
            try:
                proven(here, checks, posted)
            except ProofRefused as exc:
                return Answer({"error": exc.code}, 400, headers)
            return Answer(BOUND, headers=headers)

        here.answer = answer
        asking = endpoint(here, dpop=key, client=client)
        assert (await asking.request(CODE)).token_type == "DPoP"
        first, again = here.posted
        # What a server may take once is made anew; the grant is the same.
        for member in ("dpop", "client_assertion"):
            assert (first.headers | first.form)[member] != (again.headers | again.form)[member]
        assert first.form["code"] == again.form["code"]
        await asking.request(REFRESH)
        assert len(here.posted) == 3


async def test_a_nonce_of_a_good_answer_is_used_next_time() -> None:
    async with token_server() as here:
        here.answer = lambda posted: Answer(BOUND, headers={"DPoP-Nonce": f"n-{len(here.posted)}"})
        asking = endpoint(here, dpop=DpopKey.generate())
        for _ in range(3):
            await asking.request(CODE)
        told = [read_compact(posted.headers["dpop"], 9000).payload.get("nonce") for posted in here.posted]
        assert told == [None, "n-1", "n-2"]


@pytest.mark.parametrize("headers", [{"DPoP-Nonce": "again"}, {}, {"DPoP-Nonce": "two, nonces"}])
async def test_a_server_that_never_has_enough_of_nonces_is_left(headers: dict[str, str]) -> None:
    async with token_server() as here:
        here.answer = lambda posted: Answer({"error": "use_dpop_nonce"}, 400, headers)
        with pytest.raises(AuthorizationFailed) as caught:
            await endpoint(here, dpop=DpopKey.generate()).request(CODE)
        assert caught.value.error == "use_dpop_nonce"
        assert len(here.posted) == (2 if headers.get("DPoP-Nonce") == "again" else 1)
        # Without a key there is nothing to put a nonce into.
        await refused(here, Answer({"error": "use_dpop_nonce"}, 400, headers))


async def test_a_server_that_does_not_know_the_algorithm_is_not_asked() -> None:
    async with token_server() as here:
        listed = here.metadata(dpop_signing_alg_values_supported=("RS256",))
        with pytest.raises(AuthorizationFailed, match="RS256, not ES256"):
            endpoint(here, server=listed, dpop=DpopKey.generate())
        assert await endpoint(here, server=listed).request(CODE)


# An assertion in place of a token


JAG = "urn:ietf:params:oauth:token-type:id-jag"
EXCHANGE = TokenRequest.token_exchange("id-token", "urn:x", audience="https://auth.example.com")


async def test_an_assertion_is_taken_for_what_it_says_it_is() -> None:
    async with token_server() as here:
        good = {"access_token": "a.s.s", "issued_token_type": JAG, "token_type": "N_A", "expires_in": 300}
        for kind in ("N_A", "n_a"):
            here.answer = lambda posted, kind=kind: Answer({**good, "token_type": kind})
            assert await endpoint(here).assertion(EXCHANGE, JAG) == Secret("a.s.s")
        wrong: list[dict[str, Any]] = [
            {**good, "token_type": "Bearer"},
            {**good, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"},
            {**good, "issued_token_type": None},
            {**good, "access_token": "a b"},
        ]
        for each in wrong:
            here.answer = lambda posted, each=each: Answer(each)
            with pytest.raises(AuthorizationFailed, match="cannot be used"):
                await endpoint(here).assertion(EXCHANGE, JAG)


# Revocation


async def test_a_token_is_revoked() -> None:
    async with token_server() as here:
        here.answer = lambda posted: Answer(b"", media_type="text/plain")
        assert await endpoint(here, client=ClientSecret("me", "s3cret")).revoke(Secret("r-1"), "refresh_token")
        (posted,) = here.posted
        assert posted.path == "/revoke"
        assert posted.form == {"token": "r-1", "token_type_hint": "refresh_token"}
        assert posted.headers["authorization"].startswith("Basic ")
        await endpoint(here).revoke(Secret("r-1"), "refresh_token")
        assert here.posted[1].form["client_id"] == "me"


@pytest.mark.attack("ATK-217")
async def test_a_revocation_that_fails_is_told() -> None:
    async with token_server() as here:
        here.answer = lambda posted: Answer({"error": "unsupported_token_type", "error_description": "tok-9"}, 400)
        with pytest.raises(AuthorizationFailed, match="did not revoke") as caught:
            await endpoint(here).revoke(Secret("tok-9"), "access_token")
        assert caught.value.error == "unsupported_token_type"
        assert "tok-9" not in str(caught.value)
        here.answer = lambda posted: Answer(b"busy", 503, media_type="text/plain")
        with pytest.raises(AuthorizationFailed, match="status 503"):
            await endpoint(here).revoke(Secret("tok-9"), "access_token")


async def test_a_server_that_revokes_nothing_is_not_asked() -> None:
    async with token_server() as here:
        silent = here.metadata(revocation_endpoint=None)
        assert not await endpoint(here, server=silent).revoke(Secret("t"), "access_token")
        assert here.posted == []
