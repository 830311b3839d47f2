"""How a client shows who it is: by the method that the server named, with nothing of a secret anywhere else."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import pytest

pytest.importorskip("joserfc")

from garrison.auth import AuthorizationServerMetadata, TokenRequest
from garrison.auth.client.authentication import (
    ALGORITHMS,
    ClientAuthentication,
    ClientSecret,
    PrivateKeyJwt,
    PublicClient,
)
from garrison.auth.jws import VerifyingKey, read_compact
from garrison.errors import AuthorizationFailed, ConfigurationError
from garrison.policy.secret import Secret

ISSUER = "https://auth.example.com/tenant"
ENDPOINT = "https://auth.example.com/tenant/token"
RESOURCE = "https://mcp.example.com/mcp"
NOW = 1_800_000_000.0
PASSWORD = "p\u00e4ss:w&rd+~ %2f"
REQUEST = TokenRequest.client_credentials(RESOURCE, scope="a b")


def server(*methods: str, **changed: Any) -> AuthorizationServerMetadata:
    """An authorization server that takes these methods, or all."""
    taken = methods or ("none", "client_secret_basic", "client_secret_post", "private_key_jwt")
    given: dict[str, Any] = {"issuer": ISSUER, "token_endpoint_auth_methods_supported": taken}
    return AuthorizationServerMetadata(**{**given, **changed})


def new_key(algorithm: str, size: int = 2048) -> Any:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    if algorithm == "EdDSA":
        return OKPKey.generate_key("Ed25519")
    return ECKey.generate_key("P-256") if algorithm == "ES256" else RSAKey.generate_key(size)


def pem(key: Any) -> str:
    return key.as_pem(private=True).decode()


KEY = new_key("ES256")
PEM = pem(KEY)


def form(request: TokenRequest) -> dict[str, str]:
    pairs = parse_qsl(request.form().decode(), strict_parsing=True)
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def assertion(client: ClientAuthentication, metadata: AuthorizationServerMetadata | None = None) -> dict[str, Any]:
    request, _ = client.apply(REQUEST, metadata or server(), ENDPOINT, NOW)
    return dict(read_compact(request.parameters["client_assertion"], 8192).payload)


# A public client


def test_a_public_client_gives_its_name_and_nothing_else() -> None:
    request, headers = PublicClient("me").apply(REQUEST, server("client_secret_basic"), ENDPOINT, NOW)
    assert form(request) == {**form(REQUEST), "client_id": "me"}
    assert headers == {}
    named = TokenRequest.refresh_token("r", "me", RESOURCE)
    assert PublicClient("me").apply(named, server(), ENDPOINT, NOW) == (named, {})


# A secret


def test_basic_keeps_the_two_halves_apart_whatever_is_in_them() -> None:
    client = ClientSecret("https://client.example/a:b c", PASSWORD)
    request, headers = client.apply(REQUEST, server(), ENDPOINT, NOW)
    assert request == REQUEST
    scheme, _, encoded = headers["Authorization"].partition(" ")
    name, _, secret = base64.b64decode(encoded).decode("ascii").partition(":")
    assert scheme == "Basic"
    assert (unquote_plus(name), unquote_plus(secret)) == ("https://client.example/a:b c", PASSWORD)
    # A plain name and secret stand as they are, for servers that do not decode.
    _, headers = ClientSecret("my-client_1.x~", "s-3_c.r~").apply(REQUEST, server(), ENDPOINT, NOW)
    assert base64.b64decode(headers["Authorization"][6:]) == b"my-client_1.x~:s-3_c.r~"


def test_post_puts_both_into_the_form() -> None:
    client = ClientSecret("me", Secret(PASSWORD), method="client_secret_post")
    request, headers = client.apply(REQUEST, server(), ENDPOINT, NOW)
    assert form(request) == {**form(REQUEST), "client_id": "me", "client_secret": PASSWORD}
    assert headers == {}


def test_a_secret_is_shown_in_one_place_alone() -> None:
    for method in ("client_secret_basic", "client_secret_post"):
        client = ClientSecret("me", "the-secret", method=method)
        request, headers = client.apply(REQUEST, server(), ENDPOINT, NOW)
        assert ("the-secret" in request.form().decode()) == (method == "client_secret_post")
        assert bool(headers) == (method == "client_secret_basic")
        assert "the-secret" not in f"{client} {client!r} {request} {request!r}"
        with pytest.raises(TypeError):
            pickle.dumps(client)


# A key


@pytest.mark.attack("ATK-216")
def test_each_assertion_is_short_lived_for_this_server_and_has_its_own_name() -> None:
    client = PrivateKeyJwt("me", PEM, algorithm="ES256", key_id="k-1")
    posted = [client.apply(REQUEST, server(), ENDPOINT, NOW) for _ in range(3)]
    names: set[str] = set()
    for request, headers in posted:
        assert headers == {}
        members = form(request)
        token = read_compact(members.pop("client_assertion"), 8192)
        assert members.pop("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert members == form(REQUEST), "nothing else is added, no secret and no client_id"
        assert token.header == {"alg": "ES256", "typ": "JWT", "kid": "k-1"}
        assert VerifyingKey(KEY.as_dict(private=False), "ES256").verify(token.signed, token.signature)
        claims = dict(token.payload)
        names.add(str(claims.pop("jti")))
        assert claims == {"iss": "me", "sub": "me", "aud": ISSUER, "iat": int(NOW), "exp": int(NOW) + 60}
    assert len(names) == 3
    assert min(map(len, names)) >= 22


def test_an_audience_and_a_lifetime_can_be_chosen() -> None:
    client = PrivateKeyJwt("me", PEM, algorithm="ES256", audience=ENDPOINT, lifetime=300)
    claims = assertion(client)
    assert (claims["aud"], claims["exp"] - claims["iat"]) == (ENDPOINT, 300)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_signs_with_a_key_in_pem_and_as_a_jwk(algorithm: str) -> None:
    key = new_key(algorithm)
    for text in (pem(key), f"\n{pem(key)}\n", json.dumps(key.as_dict(private=True))):
        request, _ = PrivateKeyJwt("me", text, algorithm=algorithm).apply(REQUEST, server(), ENDPOINT, NOW)
        token = read_compact(request.parameters["client_assertion"], 8192)
        assert token.header["alg"] == algorithm
        assert VerifyingKey(key.as_dict(private=False), algorithm).verify(token.signed, token.signature)


def test_an_algorithm_is_used_that_the_server_named() -> None:
    client = PrivateKeyJwt("me", PEM, algorithm="ES256")
    listed = "token_endpoint_auth_signing_alg_values_supported"
    assert assertion(client, server(**{listed: ("RS256", "ES256")}))["sub"] == "me"
    with pytest.raises(AuthorizationFailed, match=r"RS256, PS256, not ES256 .*PrivateKeyJwt\.algorithm"):
        client.apply(REQUEST, server(**{listed: ("RS256", "PS256")}), ENDPOINT, NOW)


def encrypted() -> str:
    return KEY.as_pem(private=True, password="open sesame").decode()


def p384() -> str:
    from joserfc.jwk import ECKey

    return pem(ECKey.generate_key("P-384"))


def weak_rsa() -> str:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(65537, 1024)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (PEM, "RS256"),
        (PEM, "EdDSA"),
        (p384(), "ES256"),
        (weak_rsa(), "RS256"),
        (pem(new_key("RS256")), "ES256"),
        (KEY.as_pem(private=False).decode(), "ES256"),
        (json.dumps(KEY.as_dict(private=False)), "ES256"),
        (json.dumps({**KEY.as_dict(private=True), "d": "AAAA"}), "ES256"),
        (json.dumps({**KEY.as_dict(private=True), "x": new_key("ES256").as_dict()["x"]}), "ES256"),
        (json.dumps({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}), "ES256"),
        (PEM[:-60], "ES256"),
        ("hunter2-hunter2", "ES256"),
        ('{"kty": "EC", "kty": "EC"}', "ES256"),
        (encrypted(), "ES256"),
        (PEM, "HS256"),
        (PEM, "none"),
        ("", "ES256"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_at_once_and_not_repeated(key: str, algorithm: str) -> None:
    with pytest.raises(ConfigurationError, match="PrivateKeyJwt") as caught:
        PrivateKeyJwt("me", key, algorithm=algorithm)
    told = f"{caught.value} {caught.value.__cause__}"
    assert not any(len(word) > 8 and word in told for word in key.split() if "-----" not in word)


def test_a_key_with_a_passphrase_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="passphrase"):
        PrivateKeyJwt("me", encrypted(), algorithm="ES256")


def test_a_key_is_not_shown_by_accident() -> None:
    client = PrivateKeyJwt("me", Secret(PEM), algorithm="ES256")
    assert repr(client) == "PrivateKeyJwt('me', algorithm='ES256')"
    assert KEY.as_dict(private=True)["d"] not in f"{client}{client._key!r}"
    with pytest.raises(TypeError):
        pickle.dumps(client)


@pytest.mark.parametrize("wrong", [{"lifetime": 301}, {"lifetime": 0}, {"lifetime": float("nan")}, {"audience": ""}])
def test_an_assertion_cannot_be_made_to_last(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="PrivateKeyJwt"):
        PrivateKeyJwt("me", PEM, algorithm="ES256", **wrong)


# What holds for all


def clients() -> dict[str, ClientAuthentication]:
    return {
        "client_secret_basic": ClientSecret("me", "secret"),
        "client_secret_post": ClientSecret("me", "secret", method="client_secret_post"),
        "private_key_jwt": PrivateKeyJwt("me", PEM, algorithm="ES256"),
        "none": PublicClient("me"),
    }


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
def test_a_credential_is_shown_by_a_method_that_the_server_named(method: str) -> None:
    client = clients()[method]
    assert (client.method, client.client_id) == (method, "me")
    client.apply(REQUEST, server("none", method), ENDPOINT, NOW)
    others = tuple(other for other in clients() if other != method)
    with pytest.raises(AuthorizationFailed, match=f"does not take {method}, but {', '.join(others)}"):
        client.apply(REQUEST, server(*others), ENDPOINT, NOW)


def test_a_server_that_names_no_methods_takes_basic() -> None:
    silent = AuthorizationServerMetadata(issuer=ISSUER)
    clients()["client_secret_basic"].apply(REQUEST, silent, ENDPOINT, NOW)
    with pytest.raises(AuthorizationFailed):
        clients()["client_secret_post"].apply(REQUEST, silent, ENDPOINT, NOW)


def test_what_a_server_names_is_cleaned_before_it_is_shown() -> None:
    odd = server("\x1b[31mred", "https://evil.example/x", "z" * 500)
    with pytest.raises(AuthorizationFailed) as caught:
        clients()["private_key_jwt"].apply(REQUEST, odd, ENDPOINT, NOW)
    assert "\x1b" not in str(caught.value)
    assert "evil" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("method", ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"])
def test_nothing_is_shown_to_an_endpoint_in_the_clear(method: str) -> None:
    client = clients()[method]
    for endpoint in ("http://auth.example.com/token", "ftp://auth.example.com/", "https://u:p@auth.example.com/t", "x"):
        with pytest.raises(AuthorizationFailed, match="Nothing is sent"):
            client.apply(REQUEST, server(), endpoint, NOW)
    for endpoint in (ENDPOINT, "http://127.0.0.1:9/token", "http://localhost:9/token"):
        client.apply(REQUEST, server(), endpoint, NOW)


@pytest.mark.parametrize("method", ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"])
def test_a_request_of_another_client_is_not_signed(method: str) -> None:
    client = clients()[method]
    client.apply(TokenRequest.refresh_token("r", "me", RESOURCE), server(), ENDPOINT, NOW)
    with pytest.raises(ConfigurationError, match="client_id"):
        client.apply(TokenRequest.refresh_token("r", "you", RESOURCE), server(), ENDPOINT, NOW)


def test_what_is_added_stands_there_once() -> None:
    twice = REQUEST.with_parameters(client_assertion="mine")
    with pytest.raises(ValueError, match="once"):
        clients()["private_key_jwt"].apply(twice, server(), ENDPOINT, NOW)


@pytest.mark.parametrize("name", ["", "two\nlines", "caf\u00e9"])
def test_a_client_needs_a_name(name: str) -> None:
    for make in (
        lambda: PublicClient(name),
        lambda: ClientSecret(name, "secret"),
        lambda: PrivateKeyJwt(name, PEM, algorithm="ES256"),
    ):
        with pytest.raises(ConfigurationError, match="client_id"):
            make()


def test_a_secret_needs_to_be_one() -> None:
    with pytest.raises(ConfigurationError, match=r"ClientSecret\.secret"):
        ClientSecret("me", "")
    with pytest.raises(ConfigurationError, match=r"ClientSecret\.method"):
        ClientSecret("me", "x", method="client_secret_jwt")  # pyright: ignore[reportArgumentType]
