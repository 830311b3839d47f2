"""Keys of an issuer: which are used, and how often they are asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

from garrison import ConfigurationError
from garrison.auth.metadata import MAX_BYTES
from garrison.auth.resource import JwksCache, JwtVerifier, TokenRefused, Verified, VerifierUnavailable
from garrison.auth.resource.issuer import DocumentError
from garrison.auth.resource.jwks import DEFAULT_ALGORITHMS, KeySet
from garrison.errors import ConnectionFailed, RequestTimeout
from garrison.safe import SafeFetch
from tests.auth.resource.issuer import (
    ISSUER,
    JSON,
    JWKS_URI,
    NOW,
    RESOURCE,
    Web,
    encoded,
    http,
    jwk,
    jwks,
    key,
    listening,
    page,
    token,
    verified,
    verifier,
    web,
)

EC, RSA = key("EC"), key("RSA")
WELL_KNOWN = f"{ISSUER}/.well-known/oauth-authorization-server"
OPENID = f"{ISSUER}/.well-known/openid-configuration"
METADATA = {"issuer": ISSUER, "jwks_uri": JWKS_URI}


def read(*keys: Any) -> KeySet:
    return KeySet.read(jwks(*keys), DEFAULT_ALGORITHMS)


def useful(keys: KeySet) -> set[str]:
    return {kid for kid, algorithms in keys.named.items() if algorithms}


# What is in a set


def test_a_key_is_bound_to_what_fits_it() -> None:
    keys = read(jwk(EC, kid="e"), jwk(RSA, kid="r"), jwk(RSA, kid="p", alg="PS256"), jwk(key("OKP"), kid="o"))
    bound = {kid: set(algorithms) for kid, algorithms in keys.named.items()}
    assert bound == {"e": {"ES256"}, "r": {"RS256", "PS256"}, "p": {"PS256"}, "o": {"EdDSA", "Ed25519"}}
    verify = keys.find("e", "ES256")
    assert verify is not None
    signature = JWSRegistry.algorithms["ES256"].sign(b"text", EC)
    assert verify(b"text", signature) is True and verify(b"texts", signature) is False and verify(b"text", b"") is False


@pytest.mark.parametrize(
    "secret",
    [
        EC.as_dict(private=True),
        RSA.as_dict(private=True),
        key("OKP").as_dict(private=True),
        {"kty": "oct", "kid": "s", "k": encoded(b"x" * 32)},
        {"kty": "oct", "kid": "s"},
        {**jwk(RSA), "k": "x"},
        {**jwk(RSA), "oth": []},
        {"kty": "new", "d": "x"},
    ],
)
def test_a_set_with_a_secret_is_refused_whole(secret: Any) -> None:
    with pytest.raises(DocumentError, match="private or symmetric"):
        read(jwk(EC, kid="other"), secret)
    assert useful(read(jwk(EC, kid="other"))) == {"other"}


def test_two_keys_of_one_name_verify_nothing() -> None:
    assert useful(read(jwk(EC), jwk(key("EC", "x"), kid="1"), jwk(RSA, kid="2"))) == {"2"}
    assert useful(read(jwk(EC), jwk(EC), jwk(EC))) == set()
    assert useful(read(jwk(EC), jwk(RSA, kid="1"))) == set()
    # One of them is for encryption: the other is meant.
    assert useful(read(jwk(RSA, kid="1", use="enc"), jwk(EC))) == {"1"}


@pytest.mark.parametrize(
    "odd",
    [
        {"kty": "new", "kid": "9"},
        {"kid": "9"},
        jwk(EC, kid="9", crv="secp256k1"),
        jwk(EC, kid="9", crv="P-384"),
        jwk(EC, kid="9", x="AAAA"),
        jwk(EC, kid="9", x=None),
        jwk(EC, kid="9", x=7),
        jwk(EC, kid="9", y=""),
        jwk(key("EC", crv="P-384"), kid="9"),
        jwk(key("OKP", crv="X25519"), kid="9"),
        jwk(key("OKP"), kid="9", x="AAAA"),
        jwk(RSA, kid="9", n=None),
        jwk(RSA, kid="9", n="="),
        jwk(RSA, kid="9", n="é"),
        jwk(RSA, kid="9", e="AQ"),
        jwk(RSA, kid="9", e=encoded(b"\x01" + b"\x00" * 31 + b"\x01")),
        jwk(RSA, kid="9", n=encoded(b"\xff" * 513)),
        jwk(RSA, kid="9", use="enc"),
        jwk(RSA, kid="9", use=7),
        jwk(RSA, kid="9", key_ops=["sign"]),
        jwk(RSA, kid="9", key_ops=["unheard-of"]),
        jwk(RSA, kid="9", key_ops=7),
        jwk(RSA, kid="9", alg="RSA-OAEP"),
        jwk(RSA, kid="9", alg=7),
        jwk(RSA, kid="9", alg="none"),
    ],
)
def test_a_key_that_cannot_be_used_is_passed_over(odd: Any) -> None:
    assert useful(read(odd, jwk(EC))) == {"1"}


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_short_rsa_keys_are_not_used() -> None:
    assert useful(read(jwk(RSAKey.generate_key(1024), kid="short"), jwk(RSA, kid="long"))) == {"long"}
    assert useful(read(jwk(RSAKey.generate_key(2040), kid="short"), jwk(RSA, kid="long"))) == {"long"}


def test_members_that_are_not_looked_at_do_no_harm() -> None:
    assert useful(read(jwk(EC, x5u="gopher://x", x5c=7, x5t=[], ext=True))) == {"1"}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [7]}',
        b'{"keys": [], "keys": []}',
        b'{"keys": ' + b"[" * 100 + b"]" * 100 + b"}",
        jwks(*({"kty": "new"} for _ in range(65))),
    ],
)
def test_what_is_no_key_set(document: bytes) -> None:
    with pytest.raises(DocumentError):
        KeySet.read(document, DEFAULT_ALGORITHMS)
    KeySet.read(jwks(*({"kty": "new"} for _ in range(64))), DEFAULT_ALGORITHMS)


VALUES = st.none() | st.integers(0, 9) | st.text(max_size=6) | st.lists(st.text(max_size=6), max_size=2)


@given(st.dictionaries(st.sampled_from(["kty", "use", "key_ops", "alg", "kid", "n", "e", "crv", "x", "y"]), VALUES))
def test_any_key_is_read_or_passed_over(changed: dict[str, Any]) -> None:
    for good in (EC, RSA, key("OKP")):
        read({**jwk(good), **changed})


# How often it is asked


@pytest.mark.attack("ATK-170")
async def test_random_kids_make_us_ask_once_in_a_cool_down() -> None:
    fetch = web()
    checking = verifier(fetch)
    await verified(checking, token())
    assert len(fetch.asked) == 1
    body, signature = token().split(".")[1:]

    async def flood(now: float) -> int:
        waited = 0
        for _ in range(100):
            answers: list[Awaitable[Verified]] = []
            for _ in range(100):
                head = encoded({"alg": "ES256", "kid": secrets.token_hex(8)})
                try:
                    answer = checking.verify(f"{head}.{body}.{signature}", now)
                except TokenRefused as exc:
                    assert not isinstance(exc, VerifierUnavailable)
                    continue
                assert isinstance(answer, Awaitable)
                answers.append(answer)
            waited += len(answers)
            found = await asyncio.gather(*answers, return_exceptions=True)
            assert all(type(each) is TokenRefused for each in found)
            await verified(checking, token(), now)
        return waited

    assert await flood(NOW + 29) == 0 and len(fetch.asked) == 1
    assert await flood(NOW + 31) == 100 and len(fetch.asked) == 2
    assert await flood(NOW + 60) == 0 and len(fetch.asked) == 2


async def test_a_new_key_is_found_when_a_token_names_it() -> None:
    fetch = web()
    checking = verifier(fetch)
    await verified(checking, token())
    new = key("EC", "new")
    fetch.pages[JWKS_URI] = page(jwks(jwk(EC), jwk(new)))
    fresh = token(new, header={"kid": "new"})
    with pytest.raises(TokenRefused, match="no key"):
        await verified(checking, fresh, NOW + 10)
    assert (await verified(checking, fresh, NOW + 30)).principal.subject == "alice"
    assert isinstance(checking.verify(fresh, NOW + 30), Verified)


async def test_a_key_that_was_withdrawn_is_not_used_after_ten_minutes() -> None:
    fetch = web()
    checking = verifier(fetch)
    text = token(exp=NOW + 3000)
    await verified(checking, text)
    fetch.pages[JWKS_URI] = page(jwks(jwk(RSA, kid="2")))
    assert isinstance(checking.verify(text, NOW + 599), Verified)
    with pytest.raises(TokenRefused, match="no key"):
        await verified(checking, text, NOW + 600)
    assert len(fetch.asked) == 2


async def test_a_clock_that_was_set_back_makes_keys_old() -> None:
    fetch = web()
    checking = verifier(fetch)
    await verified(checking, token())
    await verified(checking, token(iat=NOW - 2000), NOW - 1000)
    assert len(fetch.asked) == 2


async def test_all_who_wait_share_one_answer_and_one_who_goes_takes_it_from_nobody() -> None:
    fetch = web()
    fetch.pause = 0.05
    checking = verifier(fetch)
    tasks = [asyncio.ensure_future(verified(checking, token(sub=f"u{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert [each.principal.subject for each in found[1:] if isinstance(each, Verified)] == [
        f"u{n}" for n in range(1, 20)
    ]
    assert fetch.asked == [JWKS_URI]


# When the issuer cannot be asked


async def test_without_keys_nobody_is_let_in_and_the_fault_is_not_the_token_s() -> None:
    fetch = Web({JWKS_URI: ConnectionFailed("down")})
    checking = verifier(fetch)
    with pytest.raises(VerifierUnavailable, match="down"):
        await verified(checking, token())
    for _ in range(100):
        with pytest.raises(VerifierUnavailable):
            checking.verify(token(), NOW + 4)
    assert len(fetch.asked) == 1
    with pytest.raises(TokenRefused, match="aud") as bad:
        checking.verify(token(aud="x"), NOW + 4)
    assert not isinstance(bad.value, VerifierUnavailable)
    fetch.pages = web().pages
    await verified(checking, token(), NOW + 5)


async def test_known_keys_outlive_their_issuer_s_failure_for_an_hour() -> None:
    fetch = web()
    checking = verifier(fetch)
    text = token(exp=NOW + 9000)
    await verified(checking, text)
    fetch.pages[JWKS_URI] = RequestTimeout("GET", 5)
    await verified(checking, text, NOW + 600)
    assert len(fetch.asked) == 2
    # While it fails, nobody waits: the next attempts are made beside, one in a cool-down.
    for second in range(601, 720):
        assert isinstance(checking.verify(text, NOW + second), Verified)
        await asyncio.sleep(0.001)
    assert len(fetch.asked) == 2 + 3
    with pytest.raises(VerifierUnavailable):
        await verified(checking, token(header={"kid": "new"}, exp=NOW + 9000), NOW + 719)
    await verified(checking, text, NOW + 4199)
    with pytest.raises(VerifierUnavailable):
        await verified(checking, text, NOW + 4200)
    fetch.pages = web().pages
    await verified(checking, text, NOW + 4206)


async def test_whether_a_new_key_is_good_cannot_be_told_while_its_issuer_fails() -> None:
    fetch = web()
    checking = verifier(fetch)
    await verified(checking, token())
    fetch.pages[JWKS_URI] = ConnectionFailed("down")
    unknown = token(header={"kid": "new"})
    answer = checking.verify(unknown, NOW + 30)
    assert isinstance(answer, Awaitable)
    with pytest.raises(VerifierUnavailable):
        await answer
    with pytest.raises(VerifierUnavailable):
        checking.verify(unknown, NOW + 31)
    await verified(checking, token(), NOW + 31)


async def test_old_keys_are_not_used_unasked() -> None:
    """After a failure, and then silence, the issuer is asked before old keys are used again."""
    fetch = web()
    checking = verifier(fetch)
    text = token(exp=NOW + 9000)
    await verified(checking, text)
    fetch.pages[JWKS_URI] = ConnectionFailed("down")
    await verified(checking, text, NOW + 600)
    fetch.pages[JWKS_URI] = page(jwks(jwk(RSA, kid="2")))
    with pytest.raises(TokenRefused, match="no key"):
        await verified(checking, text, NOW + 700)


@pytest.mark.parametrize(
    "answer",
    [
        page(b"", 404),
        page(jwks(jwk(EC)), 302, {**JSON, "location": "https://elsewhere.example/"}),
        page(jwks(jwk(EC)), 200, {"content-type": "text/html"}),
        page(jwks(jwk(EC)), 200, {}),
        page(jwks(jwk(EC)), 206),
        page(jwks(jwk(EC)) + b" " * MAX_BYTES),
        page(jwks(EC.as_dict(private=True))),
        page(b"not json"),
    ],
)
async def test_an_answer_that_is_none_counts_as_a_failure(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    fetch = web()
    checking = verifier(fetch)
    await verified(checking, token(exp=NOW + 3000))
    fetch.pages[JWKS_URI] = answer
    with caplog.at_level(logging.WARNING, "garrison.security"):
        await verified(checking, token(exp=NOW + 3000), NOW + 600)
    assert [getattr(each, "event", "") for each in caplog.records] == ["auth.unavailable"]
    with pytest.raises(VerifierUnavailable):
        await verified(verifier(Web({JWKS_URI: answer})), token())
    assert set(fetch.redirects) == {0}


@pytest.mark.parametrize("kind", ["application/json", "application/jwk-set+json", "Application/JSON; charset=utf-8"])
async def test_json_by_its_media_types(kind: str) -> None:
    await verified(verifier(Web({JWKS_URI: page(jwks(jwk(EC)), 200, {"content-type": kind})})), token())


# Where the keys are


async def test_the_metadata_of_the_issuer_says_where_its_keys_are() -> None:
    keys = page(jwks(jwk(EC)))
    for place, before in ((WELL_KNOWN, []), (OPENID, [WELL_KNOWN])):
        fetch = Web({place: page(METADATA), JWKS_URI: keys})
        await verified(verifier(fetch, jwks_uri=None), token())
        assert fetch.asked == [*before, place, JWKS_URI]
    html = page(b"<html>", 200, {"content-type": "text/html"})
    fetch = Web({WELL_KNOWN: html, OPENID: page(METADATA), JWKS_URI: keys})
    await verified(verifier(fetch, jwks_uri=None), token())


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": ISSUER + "/"},
        {"issuer": "https://evil.example"},
        {"jwks_uri": None},
        {"jwks_uri": "http://auth.example.com/keys"},
        {"jwks_uri": 7},
    ],
)
async def test_metadata_of_somebody_else_is_not_followed(changed: dict[str, Any]) -> None:
    document = {name: value for name, value in {**METADATA, **changed}.items() if value is not None}
    fetch = Web({WELL_KNOWN: page(document), OPENID: page(document), JWKS_URI: page(jwks(jwk(EC)))})
    with pytest.raises(VerifierUnavailable):
        await verified(verifier(fetch, jwks_uri=None), token())
    assert JWKS_URI not in fetch.asked


async def test_a_place_that_moved_is_looked_up_again() -> None:
    moved = f"{ISSUER}/keys2"
    fetch = Web({WELL_KNOWN: page(METADATA), JWKS_URI: page(jwks(jwk(EC)))})
    checking = verifier(fetch, jwks_uri=None)
    text = token(exp=NOW + 3000)
    await verified(checking, text)
    fetch.pages = Web({WELL_KNOWN: page({**METADATA, "jwks_uri": moved}), moved: page(jwks(jwk(EC)))}).pages
    await verified(checking, text, NOW + 600)
    await verified(checking, text, NOW + 631)
    await asyncio.sleep(0.01)
    assert fetch.asked == [WELL_KNOWN, JWKS_URI, JWKS_URI, WELL_KNOWN, moved]


async def test_times_are_settings() -> None:
    fetch = web()
    cache = JwksCache(ISSUER, JWKS_URI, fetch=fetch, fresh=10, stale=0, cooldown=5)
    checking = JwtVerifier(ISSUER, RESOURCE, jwks=cache)
    await verified(checking, token())
    await verified(checking, token(), NOW + 10)
    assert len(fetch.asked) == 2
    fetch.pages[JWKS_URI] = ConnectionFailed("down")
    with pytest.raises(VerifierUnavailable):
        await verified(checking, token(), NOW + 20)


async def test_where_nothing_failed_old_keys_are_not_used() -> None:
    fetch = web()
    cache = JwksCache(ISSUER, JWKS_URI, fetch=fetch, fresh=40, stale=100, cooldown=30)
    checking = JwtVerifier(ISSUER, RESOURCE, jwks=cache)
    await verified(checking, token())
    fetch.pages[JWKS_URI] = page(jwks(jwk(RSA, kid="2")))
    with pytest.raises(TokenRefused, match="no key"):
        await verified(checking, token(), NOW + 40)


@pytest.mark.parametrize(
    "changed",
    [
        {"fresh": 0},
        {"fresh": 20},
        {"stale": -1},
        {"cooldown": 0},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"uri": "ftp://x"},
    ],
)
def test_settings_that_are_none(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        JwksCache(ISSUER, **changed)


# Over real connections


async def test_an_issuer_on_loopback_is_reached_because_it_was_configured() -> None:
    asked: list[bytes] = []

    def answer(request: bytes) -> bytes:
        target = request.split(b" ")[1].decode()
        asked.append(request)
        if target.startswith("/.well-known/oauth"):
            return http({"issuer": f"http://127.0.0.1:{port}", "jwks_uri": f"http://127.0.0.1:{port}/keys"})
        return http(jwks(jwk(EC)), kind="application/jwk-set+json")

    async with listening(answer) as port:
        issuer = f"http://127.0.0.1:{port}"
        found = await verified(JwtVerifier(issuer, RESOURCE), token(iss=issuer))
        assert found.principal.issuer == issuer and len(asked) == 2
        # A fetcher of one's own has its own list.
        with pytest.raises(VerifierUnavailable, match="https"):
            await verified(JwtVerifier(issuer, RESOURCE, fetch=SafeFetch()), token(iss=issuer))
        assert len(asked) == 2


async def test_a_private_address_in_the_metadata_is_not_fetched() -> None:
    def canary(request: bytes) -> bytes:
        touched.append(request)
        return http(jwks(jwk(EC)))

    def answer(request: bytes) -> bytes:
        return http({"issuer": f"http://127.0.0.1:{port}", "jwks_uri": f"http://127.0.0.1:{other}/keys"})

    touched: list[bytes] = []
    async with listening(canary) as other, listening(answer) as port:
        issuer = f"http://127.0.0.1:{port}"
        with pytest.raises(VerifierUnavailable):
            await verified(JwtVerifier(issuer, RESOURCE), token(iss=issuer))
        assert touched == []
        configured = JwtVerifier(issuer, RESOURCE, jwks_uri=f"http://127.0.0.1:{other}/keys")
        await verified(configured, token(iss=issuer))
        assert len(touched) == 1


async def test_redirects_are_not_followed() -> None:
    def answer(request: bytes) -> bytes:
        if b"GET /moved" in request:
            return http(jwks(jwk(EC)))
        return b"HTTP/1.1 302 Found\r\nLocation: /moved\r\nContent-Length: 0\r\n\r\n"

    async with listening(answer) as port:
        base = f"http://127.0.0.1:{port}"
        with pytest.raises(VerifierUnavailable, match="302"):
            await verified(JwtVerifier(ISSUER, RESOURCE, jwks_uri=f"{base}/keys"), token())
        await verified(JwtVerifier(ISSUER, RESOURCE, jwks_uri=f"{base}/moved"), token())


def test_nothing_is_asked_and_no_crypto_loaded_before_the_first_token() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from garrison.auth.resource import JwtVerifier, ApiKeys, IntrospectionVerifier\n"
        f"JwtVerifier({ISSUER!r}, {RESOURCE!r})\n"
        "print([name for name in ('joserfc', 'cryptography', 'email', 'httptools') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert json.loads(done.stdout.replace("'", '"')) == []


def test_a_key_of_ours_is_what_joserfc_makes() -> None:
    assert isinstance(EC, ECKey) and isinstance(RSA, RSAKey)
