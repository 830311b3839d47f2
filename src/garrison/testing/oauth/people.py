"""Whom a development authorization server knows: people, programs, and other issuers.

Rules of this file:
- These are values: who writes them decides. What a peer says of itself becomes one of them only in `clients`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from ...auth.urls import check_issuer
from ...errors import ConfigurationError
from ...policy.secret import Secret
from .redirects import check_redirect_uri

__all__ = [
    "CLIENT_CREDENTIALS",
    "CODE",
    "JWT_BEARER",
    "REFRESH",
    "TOKEN_EXCHANGE",
    "DevClient",
    "Jwks",
    "TrustedIssuer",
    "User",
]

CODE: Final = "authorization_code"
REFRESH: Final = "refresh_token"
CLIENT_CREDENTIALS: Final = "client_credentials"
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name

Jwks = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class User:
    """A person who may sign in, by being picked from a list."""

    name: str
    """Also the subject of tokens."""
    tenant: str | None = None
    """The organization: the claim `tenant` of tokens."""
    scopes: Collection[str] | None = None
    """The scopes that may be granted; None for all."""


@dataclass(frozen=True, slots=True)
class DevClient:
    """A registered program (RFC 7591 section 2).

    Raises:
        ConfigurationError: a redirect URI is neither https nor http on loopback, or there is both a secret and keys.
    """

    client_id: str
    redirect_uris: Collection[str] = ()
    """Where answers may go. Matched as written; of `http://127.0.0.1` and `http://[::1]` the port is free."""
    secret: Secret | str | None = field(default=None, repr=False)
    """For `client_secret_basic` and `client_secret_post`."""
    jwks: Jwks | None = None
    """Public keys, for `private_key_jwt`."""
    name: str = ""
    """For people; shown as text."""
    method: str | None = None
    """The one way to authenticate; None for what secret or keys allow."""
    grants: Collection[str] | None = None
    """Grant types; None for what follows from redirect URIs and credentials."""
    scopes: Collection[str] | None = None
    """The scopes that it may have for itself; None for all."""
    tenant: str | None = None
    """The claim `tenant` of tokens that it has for itself."""
    elsewhere: Mapping[str, str] = field(default_factory=dict[str, str])
    """Its client ids at other authorization servers, by issuer: what an ID-JAG for them names."""
    from_document: bool = False
    """It is known by the URL of a document about it."""

    def __post_init__(self) -> None:
        if self.secret is not None and self.jwks is not None:
            raise ConfigurationError("DevClient: a secret or keys, not both")
        for uri in self.redirect_uris:
            try:
                check_redirect_uri(uri)
            except ValueError as exc:
                raise ConfigurationError(f"DevClient.redirect_uris: {exc}") from None

    @property
    def methods(self) -> tuple[str, ...]:
        """The ways it may authenticate."""
        if self.method is not None:
            return (self.method,)
        if self.jwks is not None:
            return ("private_key_jwt",)
        return ("none",) if self.secret is None else ("client_secret_basic", "client_secret_post")

    @property
    def confidential(self) -> bool:
        """It can prove who it is."""
        return self.methods != ("none",)

    def may(self, grant: str) -> bool:
        """Whether it may use a grant type."""
        if self.grants is not None:
            return grant in self.grants
        if grant in (CODE, REFRESH):
            return bool(self.redirect_uris)
        return self.confidential


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """Another issuer, whose assertions are taken for tokens (RFC 7523).

    Raises:
        ConfigurationError: its issuer is no https or loopback URL.
    """

    issuer: str
    jwks: Jwks | Callable[[], Jwks]
    """Its public keys, or where they are asked for each time."""
    id_jag: bool = True
    """It is the organization's identity provider: its ID-JAGs are taken. Their `sub` is the name of a `User`."""
    workloads: Mapping[str, str] = field(default_factory=dict[str, str])
    """Workload identities: from the `sub` of its tokens to the client id that they stand for."""

    def __post_init__(self) -> None:
        try:
            check_issuer(self.issuer, "TrustedIssuer.issuer")
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None

    def keys(self) -> Jwks:
        """Its public keys."""
        return self.jwks() if callable(self.jwks) else self.jwks
