"""Opaque tokens: what the authorization server says counts, for a while, and nothing else does."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable
from typing import Any

import pytest

from garrison import ConfigurationError
from garrison.auth import AuthorizationServerMetadata, TokenRequest
from garrison.auth.client.authentication import ClientSecret, PrivateKeyJwt, PublicClient
from garrison.auth.resource import (
    Confirmation,
    IntrospectionVerifier,
    TokenRefused,
    Verified,
    VerifierUnavailable,
)
from garrison.auth.resource import introspection as module
from garrison.auth.resource.decisions import Decisions
from garrison.errors import ConnectionFailed, ProtocolViolation, RequestTimeout
from garrison.policy.secret import Secret
from tests.auth.resource.issuer import (
    ENDPOINT,
    ISSUER,
    NOW,
    RESOURCE,
    Web,
    http,
    key,
    listening,
    page,
    token,
    verified,
)

TOKEN = "opaque-token_1~2+3/4="
WELL_KNOWN = f"{ISSUER}/.well-known/oauth-authorization-server"


class Basic:
    """A client that shows a secret, as `ClientSecret` does."""

    client_id = "mcp"
    method = "client_secret_basic"

    def apply(
        self, request: TokenRequest, server: AuthorizationServerMetadata, endpoint: str, now: float
    ) -> tuple[TokenRequest, dict[str, str]]:
        assert (server.issuer, now) == (self.issuer, NOW) and endpoint.endswith("/introspect")
        return request.with_parameters(extra="1"), {"Authorization": "Basic " + base64.b64encode(b"mcp:s").decode()}

    issuer = ISSUER


class Lenient(Basic):
    """The same at any time, and without the secret."""

    def apply(
        self, request: TokenRequest, server: AuthorizationServerMetadata, endpoint: str, now: float
    ) -> tuple[TokenRequest, dict[str, str]]:
        return request, {}


def answer(**changed: Any) -> dict[str, Any]:
    good = {"active": True, "iss": ISSUER, "aud": RESOURCE, "sub": "alice", "client_id": "app", "scope": "a b"}
    return {name: value for name, value in {**good, "exp": NOW + 300, **changed}.items() if value is not None}


def web(**changed: Any) -> Web:
    return Web({ENDPOINT: page(answer(**changed))})


def verifier(fetch: Web, **changed: Any) -> IntrospectionVerifier:
    settings: dict[str, Any] = {"client": Lenient(), "endpoint": ENDPOINT, "fetch": fetch, "cache": 60.0, **changed}
    return IntrospectionVerifier(settings.pop("issuer", ISSUER), settings.pop("audience", RESOURCE), **settings)


async def refused(fetch: Web, reason: str) -> None:
    with pytest.raises(TokenRefused, match=reason) as caught:
        await verified(verifier(fetch), TOKEN)
    assert not isinstance(caught.value, VerifierUnavailable)


# The question


async def test_the_token_is_posted_with_the_client_s_authentication() -> None:
    fetch = web()
    found = await verified(verifier(fetch, client=Basic()), TOKEN)
    assert fetch.forms == [{"token": [TOKEN], "token_type_hint": ["access_token"], "extra": ["1"]}]
    assert fetch.headers == [{"Accept": "application/json", "Authorization": "Basic bWNwOnM="}]
    who = found.principal
    assert (who.subject, who.issuer, who.client_id, who.scopes) == ("alice", ISSUER, "app", {"a", "b"})
    assert (found.expires, found.token_id, found.issued_for) == (NOW + 300, None, None)


async def test_the_metadata_of_the_issuer_says_where_to_ask() -> None:
    metadata = {"issuer": ISSUER, "introspection_endpoint": ENDPOINT}
    fetch = Web({WELL_KNOWN: page(metadata), ENDPOINT: page(answer())})
    checking = verifier(fetch, endpoint=None)
    await verified(checking, TOKEN)
    await verified(checking, TOKEN + "=")
    assert fetch.asked == [WELL_KNOWN, ENDPOINT, ENDPOINT]
    for broken in ({"issuer": ISSUER}, {**metadata, "issuer": ISSUER + "/"}):
        fetch = Web({WELL_KNOWN: page(broken), ENDPOINT: page(answer())})
        with pytest.raises(VerifierUnavailable):
            await verified(verifier(fetch, endpoint=None), TOKEN)
        assert ENDPOINT not in fetch.asked


@pytest.mark.parametrize(
    "text", ["", " ", "a b", "a\nb", "é", "=", "a" * 16_385, "a=b", "\ud800", '"a"', "gk_" + "x" * 43]
)
async def test_what_is_no_token_of_the_issuer_is_not_shown_to_it(text: str) -> None:
    fetch = web()
    assert not verifier(fetch).accepts(text)
    with pytest.raises(TokenRefused, match="form"):
        await verified(verifier(fetch), text)
    assert fetch.asked == []


async def test_a_jwt_of_another_issuer_is_not_shown_to_it() -> None:
    fetch = web()
    checking = verifier(fetch)
    assert not checking.accepts(token(iss="https://other.example.com"))
    with pytest.raises(TokenRefused, match="form"):
        await verified(checking, token(iss="https://other.example.com"))
    assert fetch.asked == []
    await verified(checking, token())
    await verified(checking, "a" * 16_384)


def own_key() -> PrivateKeyJwt:
    return PrivateKeyJwt("mcp", Secret(key("EC").as_pem(private=True).decode()), algorithm="ES256")


@pytest.mark.parametrize(
    ("client", "sent"),
    [
        (lambda: ClientSecret("mcp", "s"), "Basic bWNwOnM="),
        (lambda: ClientSecret("mcp", "s", method="client_secret_post"), "client_secret"),
        (own_key, "client_assertion"),
    ],
)
@pytest.mark.parametrize("endpoint", [ENDPOINT, None])
async def test_with_each_method_of_a_client(client: Any, sent: str, endpoint: str | None) -> None:
    metadata = {"issuer": ISSUER, "introspection_endpoint": ENDPOINT}
    fetch = Web({WELL_KNOWN: page(metadata), ENDPOINT: page(answer())})
    await verified(verifier(fetch, client=client(), endpoint=endpoint), TOKEN)
    assert sent in (fetch.headers[0].get("Authorization"), *fetch.forms[0])


def test_a_client_without_a_credential_cannot_ask() -> None:
    with pytest.raises(ConfigurationError, match="credential"):
        verifier(web(), client=PublicClient("mcp"))


# The answer


@pytest.mark.attack("ATK-182")
@pytest.mark.parametrize(
    "changed",
    [{"active": "true"}, {"active": 1}, {"active": None}, {"active": "false"}, {"active": []}, {"active": {}}],
)
async def test_active_is_true_or_it_is_no_answer(changed: dict[str, Any]) -> None:
    with pytest.raises(VerifierUnavailable, match="active"):
        await verified(verifier(web(**changed)), TOKEN)
    await verified(verifier(web()), TOKEN)


@pytest.mark.attack("ATK-182")
@pytest.mark.parametrize(
    "odd",
    [
        page(answer(), 500),
        page(answer(), 401),
        page(answer(), 302, {"content-type": "application/json", "location": "https://evil.example/"}),
        page(answer(), 200, {"content-type": "text/html"}),
        page(b""),
        page(b"[]"),
        page(b"true"),
        page(b'{"active": true, "active": true}'),
        page(b'{"active": true'),
        RequestTimeout("POST", 5),
        ConnectionFailed("down"),
        ProtocolViolation("too large"),
    ],
)
async def test_an_odd_answer_lets_nobody_in(odd: Any, caplog: pytest.LogCaptureFixture) -> None:
    fetch = Web({ENDPOINT: odd})
    checking = verifier(fetch)
    with caplog.at_level(logging.WARNING, "garrison.security"), pytest.raises(VerifierUnavailable):
        await verified(checking, TOKEN)
    assert [getattr(each, "event", "") for each in caplog.records] == ["auth.unavailable"]
    assert TOKEN not in caplog.text
    # It is not remembered: the next request asks again.
    fetch.pages = web().pages
    await verified(checking, TOKEN)


@pytest.mark.attack("ATK-182")
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"active": False}, "not active"),
        ({"aud": "https://other.example.com"}, "aud"),
        ({"aud": RESOURCE + "/"}, "aud"),
        ({"aud": None}, "aud is missing"),
        ({"aud": ["https://other.example.com"]}, "aud"),
        ({"aud": 7}, "aud"),
        ({"iss": ISSUER + "/"}, "iss"),
        ({"iss": 7}, "iss"),
        ({"exp": NOW}, "expired"),
        ({"exp": str(NOW + 300)}, "exp"),
        ({"exp": True}, "exp"),
        ({"nbf": NOW + 1}, "nbf"),
        ({"sub": None, "client_id": None}, "sub"),
        ({"sub": "client:app"}, "sub"),
        ({"sub": ""}, "sub"),
        ({"scope": 7}, "scope"),
        ({"token_type": "refresh_token"}, "token_type"),
        ({"token_type": 7}, "token_type"),
        ({"token_type": "DPoP"}, "cnf"),
        ({"cnf": {"kid": "x"}}, "cnf"),
    ],
)
async def test_a_yes_that_is_not_for_us_is_a_no(changed: dict[str, Any], reason: str) -> None:
    await refused(web(**changed), reason)


async def test_a_program_alone_is_nobody_of_its_name() -> None:
    program = (await verified(verifier(web(sub=None)), TOKEN)).principal
    person = (await verified(verifier(web(sub="app")), TOKEN)).principal
    assert (program.subject, program.client_id) == ("client:app", "app")
    assert program != person and program.account != person.account


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": ["https://other.example.com", RESOURCE]},
        {"iss": None},
        {"token_type": "bearer"},
        {"token_type": "Bearer"},
        {"nbf": NOW, "iat": NOW},
        {"exp": NOW + 1},
    ],
)
async def test_a_yes_for_us(changed: dict[str, Any]) -> None:
    assert (await verified(verifier(web(**changed)), TOKEN)).principal.issuer == ISSUER


async def test_what_a_token_is_bound_to_is_told() -> None:
    thumb = "a" * 43
    found = await verified(verifier(web(token_type="DPoP", cnf={"jkt": thumb})), TOKEN)
    assert found.issued_for == Confirmation(jkt=thumb)


async def test_the_tenant_is_the_member_that_was_named() -> None:
    assert (await verified(verifier(web(org="acme"), tenant_claim="org"), TOKEN)).principal.tenant == "acme"
    with pytest.raises(TokenRefused, match="tenant"):
        await verified(verifier(web(), tenant_claim="org"), TOKEN)


async def test_any_audience_takes_a_written_reason(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigurationError, match="reason"):
        verifier(web(), dangerously_any_audience=" ")
    with caplog.at_level(logging.WARNING, "garrison.security"):
        checking = verifier(web(aud=None), dangerously_any_audience="its tokens are for this server alone")
    assert [getattr(each, "event", "") for each in caplog.records] == ["policy.relaxed"]
    assert (await verified(checking, TOKEN)).principal.subject == "alice"


# What is remembered


@pytest.mark.attack("ATK-184")
async def test_a_yes_counts_for_a_minute_and_a_revoked_token_no_longer() -> None:
    fetch = web()
    checking = verifier(fetch)
    first = await verified(checking, TOKEN)
    fetch.pages = web(active=False).pages
    assert checking.verify(TOKEN, NOW + 59) is first and len(fetch.asked) == 1
    with pytest.raises(TokenRefused, match="not active"):
        await verified(checking, TOKEN, NOW + 60)
    with pytest.raises(TokenRefused, match="not active"):
        checking.verify(TOKEN, NOW + 61)
    assert len(fetch.asked) == 2


async def test_a_yes_ends_with_the_token() -> None:
    fetch = web(exp=NOW + 20)
    checking = verifier(fetch)
    first = await verified(checking, TOKEN)
    assert checking.verify(TOKEN, NOW + 19) is first
    with pytest.raises(TokenRefused, match="expired"):
        await verified(checking, TOKEN, NOW + 20)


async def test_without_an_end_it_is_asked_each_minute() -> None:
    fetch = web(exp=None)
    checking = verifier(fetch)
    assert (await verified(checking, TOKEN)).expires == float("inf")
    await verified(checking, TOKEN, NOW + 60)
    assert len(fetch.asked) == 2


async def test_a_no_counts_for_ten_seconds() -> None:
    fetch = web(active=False)
    checking = verifier(fetch)
    for second in (0, 5, 9):
        with pytest.raises(TokenRefused):
            await verified(checking, TOKEN, NOW + second)
    assert len(fetch.asked) == 1
    fetch.pages = web().pages
    await verified(checking, TOKEN, NOW + 10)


async def test_the_cache_is_a_setting() -> None:
    fetch = web()
    checking = verifier(fetch, cache=0)
    await verified(checking, TOKEN)
    await verified(checking, TOKEN)
    assert len(fetch.asked) == 2
    for cache in (61, -1):
        with pytest.raises(ConfigurationError, match="cache"):
            verifier(fetch, cache=cache)


async def test_one_question_for_all_who_wait() -> None:
    fetch = web()
    fetch.pause = 0.05
    checking = verifier(fetch)
    tasks = [asyncio.ensure_future(verified(checking, TOKEN)) for _ in range(20)]
    await asyncio.sleep(0.01)
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError) and all(isinstance(each, Verified) for each in found[1:])
    assert fetch.asked == [ENDPOINT]


async def test_all_who_ask_may_go() -> None:
    fetch = Web({ENDPOINT: ConnectionFailed("down")})
    fetch.pause = 0.02
    task = asyncio.ensure_future(verified(verifier(fetch), TOKEN))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.05)


async def test_a_flood_of_tokens_asks_a_bounded_number_at_once() -> None:
    fetch = web(active=False)
    fetch.pause = 0.05
    checking = verifier(fetch)
    waiting: list[Awaitable[Verified]] = []
    turned_away = 0
    for number in range(200):
        try:
            found = checking.verify(f"token{number}", NOW)
        except VerifierUnavailable:
            turned_away += 1
        else:
            assert isinstance(found, Awaitable)
            waiting.append(found)
    assert (len(waiting), turned_away) == (64, 136)
    assert all(isinstance(each, TokenRefused) for each in await asyncio.gather(*waiting, return_exceptions=True))
    assert len(fetch.asked) == 64
    with pytest.raises(TokenRefused, match="not active"):
        await verified(checking, "token199")


def test_decisions_are_bounded_and_the_oldest_go_first() -> None:
    kept: Decisions[int] = Decisions(60.0, most=3)
    for number in range(4):
        kept.put(b"%d" % number, number, NOW)
        kept.get(b"0", NOW)
    assert len(kept) == 3 and [kept.get(b"%d" % number, NOW) for number in range(4)] == [0, None, 2, 3]
    assert kept.get(b"0", NOW + 60) is None and len(kept) == 2
    assert kept.get(b"2", NOW - 1) is None and kept.get(b"3", NOW + 59) == 3
    kept.forget(b"3")
    assert len(kept) == 0


async def test_no_token_is_kept() -> None:
    checking = verifier(web())
    found = await verified(checking, TOKEN)
    kept: list[object] = [vars(checking), found, found.principal.claims, list(checking._good._kept)]
    assert TOKEN not in repr(kept) and module.MAX_CACHE == 60


# Over a real connection


async def test_over_a_real_connection() -> None:
    asked: list[bytes] = []

    def serve(request: bytes) -> bytes:
        asked.append(request)
        return http(answer(iss=None)) if len(asked) == 1 else http(b"", "307 Moved\r\nLocation: /other")

    async with listening(serve) as port:
        checking = IntrospectionVerifier(
            ISSUER, RESOURCE, client=Lenient(), endpoint=f"http://127.0.0.1:{port}/introspect"
        )
        assert (await verified(checking, TOKEN)).principal.subject == "alice"
        assert asked[0].startswith(b"POST /introspect HTTP/1.1\r\n")
        assert asked[0].endswith(b"token=opaque-token_1~2%2B3%2F4%3D&token_type_hint=access_token")
        with pytest.raises(VerifierUnavailable, match="307"):
            await verified(checking, "other")
        assert len(asked) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "http://auth.example.com"},
        {"audience": ""},
        {"audience": []},
        {"endpoint": "http://auth.example.com/introspect"},
        {"endpoint": ""},
        {"tenant_claim": ""},
    ],
)
def test_settings_that_are_none(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        verifier(web(), **changed)
