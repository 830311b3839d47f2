"""Credentials without an authorization server: API keys and client certificates."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from garrison import ConfigurationError
from garrison.auth.resource import ApiKeys, Certificates, Grant, TokenRefused, TokenVerifier
from garrison.policy.principal import LOCAL
from garrison.policy.secret import Secret

NOW = 1_800_000_000.0


def made() -> tuple[str, str]:
    key, hashed = ApiKeys.new()
    return key.reveal(), hashed


def test_a_key_of_the_configuration_is_taken_and_no_other() -> None:
    (key, hashed), (other, _) = made(), made()
    keys = ApiKeys({hashed: Grant("ci", ["read"], tenant="acme", client_id="runner")})
    as_verifier: TokenVerifier = keys
    assert as_verifier.issuer is None
    who = keys.verify(key, NOW).principal
    assert (who.subject, who.scopes, who.tenant, who.client_id) == ("ci", {"read"}, "acme", "runner")
    for text in (
        other,
        key[:-1],
        key + "A",
        key.upper(),
        hashed,
        hashed.removeprefix("sha256:"),
        "",
        "gk_",
        "\ud800" * 40,
    ):
        with pytest.raises(TokenRefused):
            keys.verify(text, NOW)


def test_keys_are_long_random_and_recognised() -> None:
    (key, hashed), (other, _) = made(), made()
    assert key != other and key.startswith("gk_") and len(key) == 46
    assert hashed == "sha256:" + hashlib.sha256(key.encode()).hexdigest() == ApiKeys.hash(Secret(key))
    keys = ApiKeys({hashed: Grant("ci")})
    assert keys.accepts(key) and keys.accepts(other) and not keys.accepts("a.b.c") and not keys.accepts("opaque" * 10)
    # A key that was made elsewhere is known by its hash.
    foreign = "made-elsewhere-" + "x" * 32
    keys = ApiKeys({ApiKeys.hash(foreign): Grant("ci")})
    assert keys.accepts(foreign) and keys.verify(foreign, NOW).principal.subject == "ci"


def test_a_short_key_cannot_be_used_whatever_its_hash() -> None:
    short = "hunter2" * 4
    with pytest.raises(ConfigurationError, match="32 characters") as caught:
        ApiKeys.hash(short)
    assert short not in str(caught.value)
    keys = ApiKeys({"sha256:" + hashlib.sha256(short.encode()).hexdigest(): Grant("ci")})
    assert not keys.accepts(short)
    with pytest.raises(TokenRefused):
        keys.verify(short, NOW)
    with pytest.raises(TokenRefused):
        keys.verify("x" * 1024 * 1024, NOW)


def test_nothing_prints_a_key() -> None:
    key, hashed = ApiKeys.new()
    keys = ApiKeys({hashed: Grant("ci")})
    shown = f"{key} {key!r} {keys} {keys!r} {keys.verify(key.reveal(), NOW)!r}"
    assert key.reveal() not in shown and hashed not in shown


@pytest.mark.attack("ATK-184")
def test_a_key_that_was_taken_back_is_refused() -> None:
    (key, hashed), (other, second) = made(), made()
    keys = ApiKeys({hashed: Grant("ci"), second: Grant("cd")})
    keys.verify(key, NOW)
    assert keys.revoke(hashed) and not keys.revoke(hashed)
    with pytest.raises(TokenRefused):
        keys.verify(key, NOW)
    assert keys.verify(other, NOW).principal.subject == "cd"


def test_subjects_of_two_kinds_are_never_one() -> None:
    key, hashed = made()
    by_key = ApiKeys({hashed: Grant("local")}).verify(key, NOW).principal
    by_certificate = Certificates({"ci.example.com": Grant("local")}).principal("ci.example.com")
    assert len({by_key, by_certificate, LOCAL}) == 3 and not by_key.owner


@pytest.mark.parametrize(
    "grants",
    [
        {},
        {"gk_plain-key-in-the-configuration-0123456789": Grant("ci")},
        {"sha256:abc": Grant("ci")},
        {"sha256:" + "A" * 64: Grant("ci")},
        {"md5:" + "a" * 64: Grant("ci")},
        {"sha256:" + "a" * 64: "ci"},
        {"sha256:" + "a" * 64 + "\n": Grant("ci")},
    ],
)
def test_configurations_of_keys_that_are_none(grants: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ApiKeys(grants)
    assert "plain-key" not in str(caught.value)


@pytest.mark.parametrize(
    "parts",
    [
        {"subject": ""},
        {"subject": "a\n"},
        {"subject": 7},
        {"scopes": "read"},
        {"scopes": ["a b"]},
        {"scopes": [""]},
        {"scopes": [7]},
        {"tenant": ""},
        {"client_id": ""},
    ],
)
def test_grants_that_are_none(parts: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Grant(**{"subject": "ci", **parts})
    assert Grant("ci", ("a", "b")).scopes == {"a", "b"}


def test_a_name_in_a_certificate_is_compared_as_it_is_written() -> None:
    known = Certificates({"ci.example.com": Grant("ci", ["read"]), "spiffe://example.org/agent": Grant("agent")})
    found = known.principal("ci.example.com")
    assert found is not None and (found.subject, found.scopes) == ("ci", {"read"})
    assert known.principal("spiffe://example.org/agent") is not None
    for name in ("", "CI.example.com", "*.example.com", "x.ci.example.com", "ci.example.com.", "ci.example.com\0"):
        assert known.principal(name) is None
    assert known.revoke("ci.example.com") and not known.revoke("ci.example.com")
    assert known.principal("ci.example.com") is None


@pytest.mark.parametrize("grants", [{}, {"": Grant("ci")}, {"a\n": Grant("ci")}, {"a": "ci"}, {7: Grant("ci")}])
def test_configurations_of_certificates_that_are_none(grants: Any) -> None:
    with pytest.raises(ConfigurationError):
        Certificates(grants)
