"""JWTs: what is taken, and that everything beside it is not."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison import ConfigurationError
from garrison.auth.resource import Confirmation, JwksCache, JwtVerifier, TokenRefused, Verified, VerifierUnavailable
from garrison.auth.resource.jwt import unverified_issuer
from garrison.auth.resource.verifier import MAX_CHARS
from tests.auth.resource.issuer import (
    ISSUER,
    JWKS_URI,
    NOW,
    RESOURCE,
    Web,
    claims,
    encoded,
    jwk,
    jwks,
    key,
    page,
    signed,
    token,
    verified,
    verifier,
    web,
)

EC, RSA, OKP = key("EC"), key("RSA"), key("OKP")


async def refused(text: str, reason: str | None = None, *, now: float = NOW, checking: Any = None) -> str:
    """That a token is refused, and for which reason."""
    with pytest.raises(TokenRefused, match=reason) as caught:
        await verified(checking or verifier(), text, now)
    assert not isinstance(caught.value, VerifierUnavailable)
    return caught.value.reason


# What is taken


async def test_a_good_token_gives_its_principal() -> None:
    found = await verified(verifier(), token())
    who = found.principal
    assert (who.subject, who.issuer, who.client_id, who.tenant) == ("alice", ISSUER, "app", None)
    assert who.scopes == {"notes:read", "notes:write"} and who.claims["jti"] == "t1" and not who.owner
    assert (found.expires, found.token_id, found.issued_for) == (NOW + 330, "t1", None)


async def test_with_its_keys_at_hand_it_answers_at_once() -> None:
    checking = verifier()
    first = checking.verify(token(), NOW)
    assert isinstance(first, Awaitable)
    await first
    assert isinstance(checking.verify(token(sub="bob"), NOW), Verified)


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        (EC, "ES256"),
        (RSA, "RS256"),
        (RSA, "PS256"),
        (OKP, "EdDSA"),
        (OKP, "Ed25519"),
        (key("EC", crv="P-384"), "ES384"),
        (key("EC", crv="P-521"), "ES512"),
        (RSA, "RS512"),
        (RSA, "PS384"),
    ],
)
async def test_each_algorithm(private: Any, algorithm: str) -> None:
    checking = verifier(web(jwk(private)), algorithms=[algorithm])
    assert (await verified(checking, token(private, algorithm))).principal.subject == "alice"
    text = token(private, algorithm)
    broken = text[:-6] + ("AAAAAA" if text[-6:] != "AAAAAA" else "BAAAAA")
    await refused(broken, "signature", checking=checking)


async def test_the_default_algorithms() -> None:
    checking = verifier(web(jwk(EC, kid="a"), jwk(RSA, kid="b"), jwk(OKP, kid="c")))
    for private, kid, algorithm in ((EC, "a", "ES256"), (RSA, "b", "PS256"), (OKP, "c", "EdDSA")):
        await verified(checking, token(private, algorithm, header={"kid": kid}))
    await refused(token(RSA, "RS512", header={"kid": "b"}), "algorithms", checking=checking)


async def test_without_kid_one_fitting_key_is_enough_and_two_are_none() -> None:
    text = token(header={"kid": None})
    await verified(verifier(web(jwk(EC), jwk(RSA, kid="2"))), text)
    await verified(verifier(web(jwk(EC, kid=None))), text)
    await refused(text, "no key", checking=verifier(web(jwk(EC), jwk(key("EC", "2")))))


@pytest.mark.parametrize(
    ("changed", "scopes"),
    [
        ({"scope": None, "scp": ["a", "b"]}, {"a", "b"}),
        ({"scope": None, "scp": "a b"}, {"a", "b"}),
        ({"scope": "a", "scp": ["b"]}, {"a"}),
        ({"scope": None}, set()),
        ({"scope": ""}, set()),
        ({"scope": " a  b "}, {"a", "b"}),
        ({"scope": "read\u00a0admin"}, {"read\u00a0admin"}),
        ({"scope": "read\tadmin\u2003x"}, {"read\tadmin\u2003x"}),
        ({"scope": None, "scp": ["read\u0085admin"]}, {"read\u0085admin"}),
    ],
)
async def test_scopes(changed: dict[str, Any], scopes: set[str]) -> None:
    assert (await verified(verifier(), token(**changed))).principal.scopes == scopes


async def test_the_client_may_stand_in_azp() -> None:
    assert (await verified(verifier(), token(client_id=None, azp="web"))).principal.client_id == "web"
    assert (await verified(verifier(), token(client_id=None))).principal.client_id is None


async def test_the_tenant_is_the_claim_that_was_named() -> None:
    checking = verifier(tenant_claim="org")
    assert (await verified(checking, token(org="acme"))).principal.tenant == "acme"
    await refused(token(), "tenant", checking=checking)
    await refused(token(org=7), "org", checking=checking)
    assert (await verified(verifier(), token(org="acme"))).principal.tenant is None


async def test_what_a_token_is_bound_to_is_told() -> None:
    thumb = "a" * 43
    found = await verified(verifier(), token(cnf={"jkt": thumb}))
    assert found.issued_for == Confirmation(jkt=thumb)
    found = await verified(verifier(), token(cnf={"x5t#S256": thumb}))
    assert found.issued_for == Confirmation(x5t_s256=thumb)


@pytest.mark.parametrize(
    "cnf", [{}, {"kid": "x"}, {"jwk": {}}, {"jkt": "short"}, {"jkt": 1}, "text", [], {"jkt": "a" * 42 + "="}]
)
async def test_a_binding_that_cannot_be_checked_refuses(cnf: object) -> None:
    await refused(token(cnf=cnf), "cnf|jkt")


# Audience and issuer


@pytest.mark.attack("ATK-162")
@pytest.mark.parametrize(
    "aud",
    [
        "https://other.example.com",
        ["https://other.example.com", "https://third.example.com"],
        RESOURCE + "/",
        RESOURCE[:-1],
        RESOURCE.upper(),
        [],
        None,
        7,
        {"a": RESOURCE},
        [RESOURCE, 7],
    ],
)
async def test_a_token_for_somebody_else_is_refused(aud: object) -> None:
    await refused(token(aud=aud), "aud")


@pytest.mark.attack("ATK-162")
async def test_a_token_for_us_among_others_is_taken() -> None:
    await verified(verifier(), token(aud=["https://other.example.com", RESOURCE]))
    await verified(verifier(audience=[RESOURCE, "api://notes"]), token(aud="api://notes"))


@pytest.mark.attack("ATK-163")
@pytest.mark.parametrize("iss", [ISSUER + "/", ISSUER.upper(), "https://auth.example.com/tenant2", None, 7, [ISSUER]])
async def test_another_issuer_with_our_keys_is_refused(iss: object) -> None:
    await refused(token(iss=iss), "iss")
    assert not verifier().accepts(token(iss=iss)) and verifier().accepts(token())


async def test_a_subject_is_needed() -> None:
    for sub in (None, "", 7):
        await refused(token(sub=sub), "sub")


# Algorithms and keys


@pytest.mark.attack("ATK-164")
@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "NONE", "", None, 0, ["ES256"]])
async def test_no_signature_is_no_signature(algorithm: object) -> None:
    good = token()
    head = encoded({"alg": algorithm, "kid": "1", "typ": "at+jwt"})
    body, signature = good.split(".")[1:]
    for ending in ("", signature, encoded(b"x")):
        await refused(f"{head}.{body}.{ending}", "algorithms" if ending else "three parts|not base64url")
    await refused(good.rpartition(".")[0] + ".", "three parts|not base64url")
    await verified(verifier(), good)


@pytest.mark.attack("ATK-165")
@pytest.mark.parametrize("private", [EC, RSA])
async def test_a_public_key_is_no_hmac_secret(private: Any) -> None:
    checking = verifier(web(jwk(private)))
    for secret in (private.as_pem(private=False), private.as_der(private=False), jwks(jwk(private)), b""):
        for algorithm in ("HS256", "HS384", "HS512"):
            text = f"{encoded({'alg': algorithm, 'kid': '1'})}.{encoded(claims())}"
            mac = hmac.new(secret, text.encode(), getattr(hashlib, f"sha{algorithm[2:]}")).digest()
            await refused(f"{text}.{encoded(mac)}", "algorithms", checking=checking)
    await verified(checking, token(private, "ES256" if private is EC else "RS256"))


@pytest.mark.attack("ATK-166")
@pytest.mark.parametrize("kid", ["1", "2", "../../keys/1", "1' OR '1'='1", "/dev/null", "https://evil.example/k", ""])
async def test_a_key_that_the_token_brings_is_not_used(kid: str) -> None:
    own = key("EC", "own")
    fetch = web()
    checking = verifier(fetch)
    for header in (
        {"jwk": jwk(own, kid=kid)},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["MIIB"]},
        {},
    ):
        text = token(own, header={**header, "kid": kid})
        await refused(text, "signature" if kid == "1" else "no key", checking=checking)
    assert set(fetch.asked) == {JWKS_URI}
    # With the right key, such members do no harm, and are not read.
    await verified(checking, token(header={"jku": "https://evil.example/keys", "x5c": ["MIIB"]}))
    assert set(fetch.asked) == {JWKS_URI}


@pytest.mark.attack("ATK-167")
@pytest.mark.parametrize(
    "header",
    [{"crit": ["bork"], "bork": 1}, {"crit": []}, {"crit": ["b64"], "b64": False}, {"b64": True}, {"zip": "DEF"}],
)
async def test_what_must_be_understood_and_is_not_refuses(header: dict[str, Any]) -> None:
    await refused(token(header=header), "crit|zip")
    await verified(verifier(), token(header={"bork": 1}))


async def test_a_key_serves_its_own_algorithm_alone() -> None:
    bound = verifier(web(jwk(RSA, alg="RS256")))
    await verified(bound, token(RSA, "RS256"))
    await refused(token(RSA, "PS256"), "no key", checking=bound)
    await refused(token(EC, "ES256"), "no key", checking=bound)


async def test_the_verifier_s_algorithms_count_whatever_the_keys_could() -> None:
    cache = JwksCache(ISSUER, JWKS_URI, fetch=web(jwk(RSA)))
    checking = JwtVerifier(ISSUER, RESOURCE, algorithms=["PS256"], jwks=cache)
    await verified(checking, token(RSA, "PS256"))
    await refused(token(RSA, "RS256"), "algorithms", checking=checking)


@pytest.mark.parametrize("kid", [7, [], {}, ["1"], True])
async def test_a_kid_that_is_no_text_refuses(kid: object) -> None:
    await refused(token(header={"kid": kid}), "kid must be")


@pytest.mark.parametrize("changed", [{"use": "enc"}, {"key_ops": ["encrypt"]}, {"key_ops": []}, {"alg": "ECDH-ES"}])
async def test_the_kid_of_a_key_for_something_else_is_refused(changed: dict[str, Any]) -> None:
    fetch = web(jwk(EC, **changed))
    checking = verifier(fetch)
    await refused(token(), "no key", checking=checking)
    await refused(token(), "no key", checking=checking)
    assert fetch.asked == [JWKS_URI]
    await verified(verifier(web(jwk(EC, use="sig", key_ops=["verify"], alg="ES256"))), token())


# Time


@pytest.mark.attack("ATK-168")
@pytest.mark.parametrize(
    "changed",
    [
        {"exp": NOW - 61},
        {"exp": NOW - 30},
        {"exp": None},
        {"exp": str(NOW + 300)},
        {"exp": True},
        {"exp": [NOW + 300]},
        {"exp": 1e308},
        {"exp": 10**60},
        {"exp": NOW + 86_400 * 2},
        {"exp": NOW + 10_000, "iat": NOW - 80_000},
        {"nbf": True},
        {"exp": NOW + 86_401, "iat": None},
        {"exp": -1},
        {"nbf": NOW + 31},
        {"nbf": "0"},
        {"iat": 4_070_908_800},
        {"iat": NOW + 31},
        {"iat": True},
        {"iat": "now"},
    ],
)
async def test_a_token_out_of_its_time_is_refused(changed: dict[str, Any]) -> None:
    await refused(token(**changed), r"^(exp|nbf|iat|it has expired|it lives|payload: Invalid JSON: number of more)")


@pytest.mark.attack("ATK-168")
@pytest.mark.parametrize(
    "changed",
    [
        {"exp": NOW - 29},
        {"exp": int(NOW) + 1},
        {"exp": NOW + 86_390},
        {"exp": NOW + 86_400, "iat": None},
        {"nbf": NOW + 29, "iat": NOW + 29},
        {"nbf": 0},
    ],
)
async def test_a_token_in_its_time_is_taken(changed: dict[str, Any]) -> None:
    await verified(verifier(), token(**changed))


async def test_leeway_and_age_are_settings() -> None:
    await verified(verifier(leeway=60), token(exp=NOW - 59))
    await refused(token(exp=NOW - 1), "expired", checking=verifier(leeway=0))
    await refused(token(exp=NOW + 300), "lives longer", checking=verifier(max_age=200))
    await verified(verifier(max_age=200_000), token(exp=NOW + 190_000))


async def test_infinity_is_no_time() -> None:
    body = json.dumps(claims()).replace(str(NOW + 300), "1e999").encode()
    await refused(signed({"alg": "ES256", "kid": "1"}, body, EC, "ES256"), "JSON")


# Form


@pytest.mark.attack("ATK-169")
async def test_what_has_not_the_form_is_refused_before_it_is_read() -> None:
    good = token()
    head, body, signature = good.split(".")
    for text in (
        "",
        ".",
        "..",
        "...",
        f"{head}.{body}",
        f"{good}.",
        f".{good}",
        f"{head}.{body}.{signature}.{signature}",
        f"{head}.{body}.{signature}.{signature}.{signature}",
        f"{head}.{body}.{signature}=",
        f"{head}=.{body}.{signature}",
        f"{head}.{body}.!{signature}",
        f" {good}",
        f"{good}\n",
        good.replace(".", "。"),
        f"{head}.{body}.é",
        f"{head}.{body}.\ud800",
        f"{head}A.{body}.{signature}",
        f"{encoded(b'not json')}.{body}.{signature}",
        f"{encoded([])}.{body}.{signature}",
        f"{head}.{encoded(b'[]')}.{signature}",
        f"{head}.{encoded(b'null')}.{signature}",
        f"{head}.{encoded(b'[' * 5000)}.{signature}",
    ):
        await refused(text)
    await verified(verifier(), good)


@pytest.mark.attack("ATK-169")
async def test_a_large_token_is_not_looked_at() -> None:
    await refused("a" * 1024 * 1024, "more than 16384 characters")
    padded = token(pad="x" * (MAX_CHARS // 4 * 3 - 700))
    assert MAX_CHARS - 700 < len(padded) <= MAX_CHARS
    await verified(verifier(), padded)
    await refused(token(pad="x" * (MAX_CHARS // 4 * 3)), "more than 16384")
    assert not verifier().accepts("a" * 1024 * 1024)


@pytest.mark.attack("ATK-169")
async def test_encrypted_tokens_are_not_read() -> None:
    jwe = ".".join(
        encoded(part) for part in ({"alg": "RSA-OAEP", "enc": "A256GCM", "zip": "DEF"}, b"k", b"i", b"c", b"t")
    )
    await refused(jwe, "three parts|not base64url")
    await refused(token(header={"enc": "A256GCM"}), "enc")


async def test_a_second_spelling_of_a_token_is_refused() -> None:
    good = token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = alphabet[alphabet.index(good[-1]) ^ 1]
    await refused(good[:-1] + other, "base64url")


@pytest.mark.parametrize("double", ["iss", "aud", "exp"])
async def test_a_claim_that_stands_twice_is_refused(double: str) -> None:
    body = json.dumps(claims())[:-1] + f', "{double}": {json.dumps(claims()[double])}}}'
    await refused(signed({"alg": "ES256", "kid": "1"}, body.encode(), EC, "ES256"), "JSON")
    head = b'{"alg": "ES256", "kid": "1", "\\u0061lg": "ES256"}'
    await refused(signed(head, claims(), EC, "ES256"), "JSON")
    await verified(verifier(), signed({"alg": "ES256", "kid": "1"}, json.dumps(claims()).encode(), EC, "ES256"))


# Other kinds of tokens


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", "jwt", None])
async def test_types_that_are_taken(typ: str | None) -> None:
    await verified(verifier(), token(header={"typ": typ}))


@pytest.mark.parametrize(
    "typ", ["dpop+jwt", "logout+jwt", "oauth-id-jag+jwt", "secevent+jwt", "token-introspection+jwt", "", 7]
)
async def test_other_types_are_refused(typ: object) -> None:
    await refused(token(header={"typ": typ}), "typ")


@pytest.mark.parametrize("typ", ["JWT", None, "application/jwt"])
async def test_where_the_type_is_required_nothing_else_is_taken(typ: str | None) -> None:
    checking = verifier(require_typ=True)
    await refused(token(header={"typ": typ}), "typ", checking=checking)
    await verified(checking, token(header={"typ": "application/at+jwt"}))


@pytest.mark.parametrize("claim", ["at_hash", "c_hash", "s_hash", "events"])
async def test_an_untyped_token_of_another_kind_is_refused(claim: str) -> None:
    added: dict[str, Any] = {claim: "x"}
    await refused(token(header={"typ": "JWT"}, **added), "another kind")
    await verified(verifier(), token(header={"typ": "at+jwt"}, **added))


@pytest.mark.parametrize(
    "changed", [{"scope": 7}, {"scope": ["a"]}, {"scope": None, "scp": [7]}, {"client_id": 7}, {"jti": 7}]
)
async def test_claims_of_a_wrong_type_refuse(changed: dict[str, Any]) -> None:
    await refused(token(**changed), "must be")


# Several issuers


async def test_each_issuer_has_its_own_keys_and_identities() -> None:
    other = "https://auth.example.org"
    ours, theirs = key("EC"), key("EC", "theirs")
    pages = {JWKS_URI: page(jwks(jwk(ours))), f"{other}/keys": page(jwks(jwk(theirs, kid="1")))}
    first, second = verifier(Web(pages)), verifier(Web(pages), issuer=other, jwks_uri=f"{other}/keys")
    one = await verified(first, token(ours))
    two = await verified(second, token(theirs, iss=other))
    assert one.principal.subject == two.principal.subject and one.principal != two.principal
    # A key of the one issuer signs nothing for the other.
    await refused(token(ours, iss=other), "signature", checking=second)
    assert [each.accepts(token(theirs, iss=other)) for each in (first, second)] == [False, True]


@pytest.mark.parametrize(
    "text", ["", "a.b.c", "gk_abc", "..", f"a.{encoded([])}.b", f"a.{encoded({'iss': 7})}.b", "é.é.é"]
)
def test_a_look_at_what_is_no_jwt(text: str) -> None:
    assert unverified_issuer(text) is None and not verifier().accepts(text)


@given(st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_\-=.]{0,60}", fullmatch=True))
async def test_nothing_but_a_refusal_comes_of_any_text(text: str) -> None:
    unverified_issuer(text)
    await refused(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "scope", "scp", "client_id", "azp", "cnf", "jti"]),
)
async def test_any_value_of_a_claim_is_taken_or_refused(value: object, name: str) -> None:
    changed: dict[str, Any] = {name: value}
    try:
        found = await verified(verifier(), token(**changed))
    except TokenRefused:
        return
    assert found.principal.issuer == ISSUER and found.expires < float("inf")


# Settings


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": ""},
        {"issuer": "auth.example.com"},
        {"issuer": "http://auth.example.com"},
        {"issuer": "https://auth.example.com?x"},
        {"audience": ""},
        {"audience": []},
        {"audience": [""]},
        {"audience": None},
        {"algorithms": []},
        {"algorithms": ["none"]},
        {"algorithms": ["HS256"]},
        {"algorithms": ["ES256", "HS256"]},
        {"algorithms": "none"},
        {"algorithms": ["ES256K"]},
        {"leeway": 61},
        {"leeway": -1},
        {"max_age": 0},
        {"max_age": float("inf")},
        {"tenant_claim": ""},
        {"jwks_uri": "http://auth.example.com/keys"},
    ],
)
def test_settings_that_are_none(changed: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, TypeError)):
        verifier(**changed)


def test_issuer_and_audience_cannot_be_left_out() -> None:
    with pytest.raises(TypeError):
        JwtVerifier(ISSUER)  # pyright: ignore[reportCallIssue] - that it cannot be called so
    with pytest.raises(TypeError):
        JwtVerifier(audience=RESOURCE)  # pyright: ignore[reportCallIssue] - that it cannot be called so
    assert JwtVerifier(ISSUER, RESOURCE).issuer == ISSUER


async def test_a_key_cache_of_ones_own_is_of_the_same_issuer() -> None:
    cache = JwksCache(ISSUER, JWKS_URI, fetch=web())
    await verified(JwtVerifier(ISSUER, RESOURCE, jwks=cache), token())
    with pytest.raises(ConfigurationError, match="jwks"):
        JwtVerifier("https://other.example.com", RESOURCE, jwks=cache)
    with pytest.raises(ConfigurationError, match="jwks"):
        JwtVerifier(ISSUER, RESOURCE, jwks=cache, jwks_uri=JWKS_URI)


async def test_a_refusal_repeats_nothing_of_the_token() -> None:
    for text in (
        token(aud="https://hostile.example"),
        token(header={"typ": "hostile"}),
        token(exp="hostile"),
        "hostile",
    ):
        reason = await refused(text)
        assert "hostile" not in reason
