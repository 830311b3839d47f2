"""The types of OAuth, as they go over the wire: metadata, PKCE, requests."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from garrison.auth import (
    AuthorizationConfig,
    AuthorizationRequest,
    AuthorizationServerMetadata,
    MetadataError,
    PkceChallenge,
    ProtectedResourceMetadata,
    TokenRequest,
)
from garrison.auth.metadata import MAX_BYTES
from garrison.auth.urls import authorization_server_urls, is_loopback_url, protected_resource_urls

RESOURCE = "https://mcp.example.com"
ISSUER = "https://auth.example.com"
SERVER: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "response_types_supported": ["code"],
    "code_challenge_methods_supported": ["S256"],
}


def server(**changed: Any) -> bytes:
    """A document of an authorization server."""
    return json.dumps({name: value for name, value in {**SERVER, **changed}.items() if value is not None}).encode()


# Addresses


def test_where_metadata_is_looked_for() -> None:
    here = "https://mcp.example.com/.well-known/oauth-protected-resource"
    assert protected_resource_urls(RESOURCE) == protected_resource_urls(f"{RESOURCE}/") == (here,)
    assert protected_resource_urls(f"{RESOURCE}/a/mcp") == (f"{here}/a/mcp", here)
    assert protected_resource_urls(f"{RESOURCE}/mcp?t=1") == (f"{here}/mcp?t=1", here)
    one, two = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
    assert authorization_server_urls(ISSUER) == (ISSUER + one, ISSUER + two)
    assert authorization_server_urls(f"{ISSUER}/t") == (f"{ISSUER}{one}/t", f"{ISSUER}{two}/t", f"{ISSUER}/t{two}")


@pytest.mark.parametrize(
    "url",
    [
        "http://mcp.example.com",
        "http://localhost.example.com/",
        "http://127.0.0.1.example.com",
        "http://127.0.0.2",
        "ftp://mcp.example.com",
        "javascript:alert(1)",
        "https:///path",
        "https://user@mcp.example.com",
        "https://mcp.example.com/#x",
        "https://mcp.example.com\\@evil.example",
        "https://mcp.example.com/ x",
        "//mcp.example.com",
        "",
    ],
)
def test_what_is_no_address_for_metadata(url: str) -> None:
    with pytest.raises(ValueError, match="resource") as caught:
        protected_resource_urls(url)
    assert not url or url not in str(caught.value)
    with pytest.raises(ValueError, match="issuer"):
        authorization_server_urls(url)


def test_http_is_for_loopback() -> None:
    for host in ("localhost", "LOCALHOST", "127.0.0.1", "[::1]", "localhost:8080", "[::1]:1"):
        assert is_loopback_url(f"http://{host}/x")
        protected_resource_urls(f"http://{host}")
    assert not is_loopback_url("http://[::2]/")
    assert not is_loopback_url("nonsense")
    with pytest.raises(ValueError, match="query"):
        authorization_server_urls(f"{ISSUER}?x=1")


# Metadata


def test_metadata_of_a_resource_goes_out_and_comes_back() -> None:
    metadata = (
        ProtectedResourceMetadata(RESOURCE).with_authorization_server(ISSUER).with_scopes(["mcp:read", "mcp:write"])
    )
    assert json.loads(metadata.to_json()) == {
        "resource": RESOURCE,
        "authorization_servers": [ISSUER],
        "scopes_supported": ["mcp:read", "mcp:write"],
        "bearer_methods_supported": ["header"],
    }
    assert ProtectedResourceMetadata.read(metadata.to_json(), RESOURCE) == metadata
    with pytest.raises(MetadataError, match="authorization_servers"):
        ProtectedResourceMetadata(RESOURCE).to_json()


@pytest.mark.parametrize(
    ("document", "rule"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{}", "resource"),
        (b'{"resource":"https://mcp.example.com","resource":"https://mcp.example.com"}', "duplicate"),
        (b'{"resource":"https://mcp.example.com"}', "authorization_servers"),
        (b'{"resource":"https://mcp.example.com","authorization_servers":[]}', "authorization_servers"),
        (b'{"resource":"https://mcp.example.com/","authorization_servers":["https://a"]}', "another resource"),
        (b'{"resource":"https://MCP.example.com","authorization_servers":["https://a"]}', "another resource"),
        (b'{"resource":"https://mcp.example.com:443","authorization_servers":["https://a"]}', "another resource"),
        (b'{"resource":"https://mcp.example.com","authorization_servers":["http://evil"]}', "authorization_servers"),
        (b'{"resource":"https://mcp.example.com","authorization_servers":"https://a"}', "array"),
        (b'{"resource":"https://mcp.example.com","authorization_servers":["https://a"],"jwks_uri":"file:///"}', "jwks"),
        (b" " * MAX_BYTES + b"{}", "bytes"),
    ],
)
def test_metadata_of_a_resource_that_cannot_be_used(document: bytes, rule: str) -> None:
    with pytest.raises(MetadataError, match=rule) as caught:
        ProtectedResourceMetadata.read(document, RESOURCE)
    assert "evil" not in str(caught.value)


def test_metadata_of_a_server_goes_out_and_comes_back() -> None:
    metadata = AuthorizationServerMetadata.read(server(more={"x": 1}, scopes_supported=["a"]), ISSUER)
    assert metadata.token_endpoint == f"{ISSUER}/token"
    assert metadata.has_pkce
    assert metadata.token_endpoint_auth_methods_supported == ("client_secret_basic",)
    assert AuthorizationServerMetadata.read(metadata.to_json(), ISSUER) == metadata
    for methods in (None, [], ["plain"], ["s256"]):
        assert not AuthorizationServerMetadata.read(server(code_challenge_methods_supported=methods), ISSUER).has_pkce


@pytest.mark.parametrize(
    "other", [f"{ISSUER}/", "https://AUTH.example.com", f"{ISSUER}:443", f"{ISSUER}/t", "https://b"]
)
def test_metadata_of_another_issuer_is_refused(other: str) -> None:
    for document, asked in ((server(issuer=other), ISSUER), (server(), other)):
        with pytest.raises(MetadataError, match="another issuer"):
            AuthorizationServerMetadata.read(document, asked)


@pytest.mark.parametrize(
    "name", [name for name in AuthorizationServerMetadata.__struct_fields__ if name.endswith(("_endpoint", "_uri"))]
)
def test_every_address_of_a_server_is_looked_at(name: str) -> None:
    good = AuthorizationServerMetadata.read(server(**{name: "https://other.example/x"}), ISSUER)
    assert getattr(good, name) == "https://other.example/x"
    for bad in ("http://auth.example.com/x", "javascript:x", "https://a/#f"):
        with pytest.raises(MetadataError, match=name):
            AuthorizationServerMetadata.read(server(**{name: bad}), ISSUER)


# PKCE


def test_the_example_of_the_rfc() -> None:
    pkce = PkceChallenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert pkce.challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert pkce.method == "S256"
    assert pkce.matches(pkce.challenge)
    assert not pkce.matches(pkce.verifier)
    assert not pkce.matches("é")


def test_every_challenge_is_new_and_keeps_its_secret() -> None:
    made = {PkceChallenge().verifier for _ in range(50)}
    assert len(made) == 50
    assert all(43 <= len(verifier) <= 128 for verifier in made)
    pkce = PkceChallenge()
    assert pkce.verifier not in repr(pkce)
    for bad in ("x" * 42, "x" * 129, "x" * 42 + "é", "x" * 42 + " "):
        with pytest.raises(ValueError, match="43 to 128") as caught:
            PkceChallenge(bad)
        assert bad not in str(caught.value)


# Requests


def asked(request: AuthorizationRequest, endpoint: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request.url(endpoint)).query, strict_parsing=True)


def test_an_authorization_request_has_all_that_mcp_demands() -> None:
    pkce = PkceChallenge()
    request = AuthorizationRequest("my client", pkce, RESOURCE).with_redirect_uri("http://localhost:8080/callback")
    found = asked(request.with_scope("mcp:read a&b"), f"{ISSUER}/authorize")
    assert found == {
        "response_type": ["code"],
        "client_id": ["my client"],
        "redirect_uri": ["http://localhost:8080/callback"],
        "scope": ["mcp:read a&b"],
        "state": [request.state],
        "code_challenge": [pkce.challenge],
        "code_challenge_method": ["S256"],
        "resource": [RESOURCE],
    }
    assert asked(request, f"{ISSUER}/authorize?tenant=1")["tenant"] == ["1"]
    assert request.state != AuthorizationRequest("my client", pkce, RESOURCE).state
    assert request.state not in repr(request)


@pytest.mark.parametrize(
    "endpoint", ["http://auth.example.com/a", "javascript:x", "https://a/?state=x", "https://a/?x&%72esource=y"]
)
def test_where_no_request_goes(endpoint: str) -> None:
    with pytest.raises(ValueError, match="authorization_endpoint"):
        AuthorizationRequest("c", PkceChallenge(), RESOURCE).url(endpoint)


@pytest.mark.parametrize(
    "given",
    [
        {"client_id": ""},
        {"client_id": "a\nb"},
        {"resource": "http://mcp.example.com"},
        {"redirect_uri": "http://example.com/callback"},
        {"redirect_uri": "https://a/#x"},
        {"scope": ""},
        {"scope": "a  b"},
        {"scope": 'a"b'},
        {"state": ""},
    ],
)
def test_requests_that_cannot_be_made(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(given)).partition("_")[0]):
        AuthorizationRequest(**{"client_id": "c", "pkce": PkceChallenge(), "resource": RESOURCE, **given})


def test_token_requests() -> None:
    pkce = PkceChallenge()
    request = TokenRequest.authorization_code("c&d", "me", pkce.verifier, RESOURCE, redirect_uri="http://localhost:1/x")
    assert parse_qs(request.form().decode(), strict_parsing=True) == {
        "grant_type": ["authorization_code"],
        "code": ["c&d"],
        "client_id": ["me"],
        "code_verifier": [pkce.verifier],
        "redirect_uri": ["http://localhost:1/x"],
        "resource": [RESOURCE],
    }
    assert pkce.verifier not in repr(request)
    refresh = TokenRequest.refresh_token("secret", "me", RESOURCE)
    assert parse_qs(refresh.form().decode())["resource"] == [RESOURCE]
    assert "secret" not in repr(refresh)
    own = TokenRequest.client_credentials(RESOURCE, scope="a b").with_parameters(client_assertion="x.y.z")
    assert parse_qs(own.form().decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["a b"],
        "resource": [RESOURCE],
        "client_assertion": ["x.y.z"],
    }
    with pytest.raises(ValueError, match="once"):
        own.with_parameters(resource="https://other.example")
    with pytest.raises(ValueError, match="verifier"):
        TokenRequest.authorization_code("c", "me", "short", RESOURCE)


def test_a_configuration_makes_both_requests() -> None:
    metadata = AuthorizationServerMetadata.read(server(), ISSUER)
    config = AuthorizationConfig(metadata, "me", RESOURCE, redirect_uri="http://127.0.0.1:8/x", scope="a")
    pkce = PkceChallenge()
    assert config.request(pkce).parameters["code_challenge"] == pkce.challenge
    token = config.token_request("code", pkce)
    assert (token.parameters["redirect_uri"], token.parameters["code_verifier"]) == (
        "http://127.0.0.1:8/x",
        pkce.verifier,
    )
    for broken, rule in (
        ({"code_challenge_methods_supported": ["plain"]}, "S256"),
        ({"code_challenge_methods_supported": None}, "S256"),
        ({"token_endpoint": None}, "token_endpoint"),
    ):
        with pytest.raises(ValueError, match=rule):
            AuthorizationConfig(AuthorizationServerMetadata.read(server(**broken), ISSUER), "me", RESOURCE)
