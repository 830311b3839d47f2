"""What users give to `Client(url, auth=...)`: wrong values are named at once, and secrets are never shown."""

from __future__ import annotations

from typing import Any

import pytest

from garrison.auth.client.settings import (
    AuthSettings,
    ClientCredentials,
    EnterpriseAuthorization,
    OAuth,
    WorkloadIdentity,
)
from garrison.errors import ConfigurationError
from garrison.policy.secret import Secret


def token() -> str:
    return "e30.e30.e30"


RIGHT: list[tuple[type[AuthSettings], dict[str, Any]]] = [
    (OAuth, {}),
    (OAuth, {"client_id": "a", "client_secret": "s", "scopes": ["a", "b"], "account": "me@example.com"}),
    (OAuth, {"client_metadata_url": "https://example.com/client.json", "redirect_uri": "http://127.0.0.1/callback"}),
    (ClientCredentials, {"client_id": "a", "secret": "s"}),
    (ClientCredentials, {"client_id": "a", "key": "k", "algorithm": "EdDSA", "issuer": "https://as.example"}),
    (WorkloadIdentity, {"assertion": token}),
    (
        EnterpriseAuthorization,
        {
            "idp": "https://idp.example/token",
            "id_token": token,
            "idp_client_id": "a",
            "issuer": "https://as.example",
            "client_id": "b",
            "secret": "s",
        },
    ),
]
BASE: dict[type[AuthSettings], dict[str, Any]] = dict(reversed(RIGHT))

WRONG: list[tuple[type[AuthSettings], str, object]] = [
    (OAuth, "scopes", "a b"),
    (OAuth, "scopes", ["a b"]),
    (OAuth, "issuer", "http://as.example"),
    (OAuth, "issuer", "https://as.example?x=1"),
    (OAuth, "account", ""),
    (OAuth, "account", "a\nb"),
    (OAuth, "private_hosts", "10.0.0.1"),
    (OAuth, "dpop", "maybe"),
    (OAuth, "client_id", ""),
    (OAuth, "client_id", "a\r\nb"),
    (OAuth, "client_secret", "without an id"),
    (OAuth, "client_metadata_url", "https://example.com"),
    (OAuth, "client_metadata_url", "http://example.com/client.json"),
    (OAuth, "redirect_uri", "https://example.com/callback"),
    (OAuth, "client_name", "\x1b[31m"),
    (OAuth, "step_up_attempts", -1),
    (OAuth, "step_up_attempts", 11),
    (OAuth, "timeout", 0),
    (OAuth, "timeout", float("nan")),
    (ClientCredentials, "client_id", ""),
    (ClientCredentials, "secret", None),
    (ClientCredentials, "secret", ""),
    (ClientCredentials, "key", "both"),
    (ClientCredentials, "method", "none"),
    (ClientCredentials, "algorithm", "HS256"),
    (WorkloadIdentity, "assertion", "a token"),
    (WorkloadIdentity, "client_id", ""),
    (EnterpriseAuthorization, "issuer", None),
    (EnterpriseAuthorization, "idp", "http://idp.example/token"),
    (EnterpriseAuthorization, "id_token", "a token"),
    (EnterpriseAuthorization, "idp_client_id", ""),
    (EnterpriseAuthorization, "idp_client_secret", ""),
    (EnterpriseAuthorization, "resource", "mcp"),
    (EnterpriseAuthorization, "key", "both"),
]


@pytest.mark.parametrize(("kind", "given"), RIGHT)
def test_right_values_are_taken(kind: type[AuthSettings], given: dict[str, Any]) -> None:
    made = kind(**given)
    assert all(getattr(made, name) is not None for name in given)


@pytest.mark.parametrize(("kind", "name", "value"), WRONG)
def test_a_wrong_value_is_named(kind: type[AuthSettings], name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"{kind.__name__}.*{name}"):
        kind(**{**BASE[kind], name: value})


@pytest.mark.attack("ATK-218")
@pytest.mark.parametrize("grant", ["password", "implicit"])
def test_there_is_no_way_to_ask_for_other_grants(grant: str) -> None:
    for kind in BASE:
        assert not [name for name in kind.__slots__ if "password" in name or "grant" in name or "response_type" in name]
    with pytest.raises(TypeError):
        OAuth(grant_type=grant)  # type: ignore[call-arg]


def test_secrets_are_secrets_and_do_not_show() -> None:
    shown = "the very secret"
    every: list[AuthSettings] = [
        OAuth("a", shown),
        ClientCredentials("a", secret=shown),
        ClientCredentials("a", key=Secret(shown)),
        EnterpriseAuthorization(**{**BASE[EnterpriseAuthorization], "secret": shown, "idp_client_secret": shown}),
    ]
    for each in every:
        assert shown not in repr(each) and shown not in str(each) and shown not in f"{each}"


def test_what_is_given_does_not_change_any_more() -> None:
    scopes = ["a"]
    given = OAuth(scopes=scopes)
    scopes.append("admin")
    assert given.scopes == ("a",)
    with pytest.raises(AttributeError):
        given.account = "other"  # type: ignore[misc]
