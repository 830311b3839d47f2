"""What a user gives to `Client(url, auth=...)`: one object for each way to a token.

    OAuth()                                    a person signs in with a browser (authorization code, PKCE)
    ClientCredentials("id", secret=...)        the program has a credential of its own
    WorkloadIdentity(assertion=read_token)     the platform gives the program a signed identity
    EnterpriseAuthorization(idp=..., ...)      the company's identity provider decides

Rules of this file:
- Values only, frozen, checked when they are made. The defaults are the safe ones.
- A secret given as text is a `Secret` from then on. None stands in a repr.
- A client secret belongs to one authorization server. Where `issuer` is not given, it is the first one that the MCP
  server named, and no other one ever gets it.

Spec: MCP 2026-07-28 basic/authorization; the extensions OAuth client credentials (SEP-1046), enterprise-managed
authorization (SEP-990), workload identity federation (SEP-1933) and DPoP (SEP-1932).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from ...errors import ConfigurationError
from ...policy.secret import Secret
from ..urls import check_issuer, check_url, is_loopback_url

if TYPE_CHECKING:
    from ...policy.tls import TlsClientConfig
    from ..store import CredentialStore
    from .browser import Browser

__all__ = [
    "Assertion",
    "AuthSettings",
    "ClientCredentials",
    "EnterpriseAuthorization",
    "OAuth",
    "WorkloadIdentity",
]

Assertion = Callable[[], "str | Secret | Awaitable[str | Secret]"]
"""Gives a token of another issuer each time that one is needed. May be `async`."""

T = TypeVar("T")

_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")
_VISIBLE: Final = re.compile(r"[ -~]+")
_METHODS: Final = ("client_secret_basic", "client_secret_post")
_ALGORITHMS: Final = ("ES256", "RS256", "PS256", "EdDSA")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """What all ways have in common.

    Raises:
        ConfigurationError: a value is not of its form. The message names the field.
    """

    scopes: Sequence[str] | None = None
    """What to ask for, in place of what the server names. None: what it names, and no more."""
    issuer: str | None = None
    """The one authorization server to use. None: the one that the MCP server names."""
    account: str = "default"
    """Your own name for the account, where you have several at one server."""
    store: CredentialStore | None = field(default=None, repr=False)
    """Where tokens are kept. None: for a person `open_store()`, for a program its memory."""
    private_hosts: Sequence[str] = ()
    """`host`, `host:port` or `host:*` of authorization servers that are not on the public Internet."""
    tls: TlsClientConfig | None = None
    """Whom to believe when asking the authorization server. None: whom the client believes of the MCP server."""
    dpop: Literal["auto", "require", "off"] = "auto"
    """Tokens bound to a key of this client (RFC 9449): where both servers offer it; always; never."""
    trust_resource_metadata: Callable[[str], bool] | None = field(default=None, repr=False)
    """Is asked whether the metadata of the server may come from a URL of another origin. None: never."""
    notice: Callable[[str], None] | None = field(default=None, repr=False)
    """Is told what the user should know: another authorization server, tokens that are not kept. None: the log."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        scopes = self.scopes
        if scopes is not None:
            if isinstance(scopes, str) or not all(_SCOPE.fullmatch(scope) for scope in scopes):
                raise ConfigurationError(f"{name}.scopes must be a list of scopes, each without spaces")
            object.__setattr__(self, "scopes", tuple(dict.fromkeys(scopes)))
        if self.issuer is not None:
            _url(name, "issuer", self.issuer, check_issuer)
        if not self.account or len(self.account) > 256 or not self.account.isprintable():
            raise ConfigurationError(f"{name}.account must be 1 to 256 printable characters")
        if isinstance(self.private_hosts, str):
            raise ConfigurationError(f"{name}.private_hosts must be a list")
        object.__setattr__(self, "private_hosts", tuple(self.private_hosts))
        if self.dpop not in ("auto", "require", "off"):
            raise ConfigurationError(f"{name}.dpop must be auto, require or off")


@dataclass(frozen=True, slots=True)
class OAuth(AuthSettings):
    """A person signs in: the authorization code grant with PKCE.

    Without arguments the client is known by dynamic registration only if that is allowed; give `client_id` for a
    registered client, or `client_metadata_url`.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    client_id: str | None = None
    """The id under which this client is registered at the authorization server."""
    client_secret: Secret | str | None = field(default=None, repr=False)
    """Its secret, where it has one."""
    client_metadata_url: str | None = field(default=None, kw_only=True)
    """The https URL of this client's metadata document, which is its id where a server takes such."""
    client_name: str = field(default="Garrison", kw_only=True)
    """What a dynamic registration calls this client."""
    allow_dynamic_registration: bool = field(default=False, kw_only=True)
    """Register at a server that knows no other way (RFC 7591; deprecated by MCP)."""
    redirect_uri: str | None = field(default=None, kw_only=True)
    """The address of the answer, on loopback; without a port, any free one is taken. None: for a registered client
    `http://127.0.0.1/callback`, else one with a random path."""
    browser: Browser | None = field(default=None, kw_only=True, repr=False)
    """Opens the page to sign in on. None: the desktop's browser."""
    approve_scopes: Callable[[frozenset[str]], bool | Awaitable[bool]] | None = field(
        default=None, kw_only=True, repr=False
    )
    """Is asked before scopes are asked for that were not before, beyond the first sign-in. None: the page asks."""
    step_up_attempts: int = field(default=3, kw_only=True)
    """How often a person is asked for the same further scopes; 0 to 10."""
    timeout: float = field(default=120.0, kw_only=True)
    """Seconds that a person has to sign in."""
    legacy_discovery: bool = field(default=False, kw_only=True)
    """Also take a server of 2025-03-26, which publishes no metadata of the resource and is its own authority."""

    def __post_init__(self) -> None:
        AuthSettings.__post_init__(self)
        _client_id("OAuth", self.client_id)
        if self.client_secret is not None:
            if self.client_id is None:
                raise ConfigurationError("OAuth.client_secret is nothing without OAuth.client_id")
            object.__setattr__(self, "client_secret", _secret("OAuth", "client_secret", self.client_secret))
        if self.client_metadata_url is not None:
            uri = _url("OAuth", "client_metadata_url", self.client_metadata_url, check_url)
            if not uri.path.strip("/"):
                raise ConfigurationError("OAuth.client_metadata_url must have a path")
        if self.redirect_uri is not None:
            _url("OAuth", "redirect_uri", self.redirect_uri, check_url)
            if not is_loopback_url(self.redirect_uri):
                raise ConfigurationError("OAuth.redirect_uri must be on loopback, where this client can listen")
        if not self.client_name or len(self.client_name) > 200 or not self.client_name.isprintable():
            raise ConfigurationError("OAuth.client_name must be 1 to 200 printable characters")
        if type(self.step_up_attempts) is not int or not 0 <= self.step_up_attempts <= 10:
            raise ConfigurationError("OAuth.step_up_attempts must be 0 to 10")
        if not 0 < self.timeout <= 3600:
            raise ConfigurationError("OAuth.timeout must be a number of seconds, at most 3600")


@dataclass(frozen=True, slots=True)
class ClientCredentials(AuthSettings):
    """The program's own credential: a key (`private_key_jwt`, better) or a secret.

    Raises:
        ConfigurationError: a value is not of its form; neither a key nor a secret is given, or both.
    """

    client_id: str
    secret: Secret | str | None = field(default=None, kw_only=True, repr=False)
    """The client secret."""
    method: Literal["client_secret_basic", "client_secret_post"] = field(default="client_secret_basic", kw_only=True)
    """How the secret is shown."""
    key: Secret | str | None = field(default=None, kw_only=True, repr=False)
    """The private key, as PEM or JWK."""
    algorithm: str = field(default="ES256", kw_only=True)
    """What the key signs with: ES256, RS256, PS256 or EdDSA."""
    key_id: str | None = field(default=None, kw_only=True)
    """`kid` of the key, where the server has several."""

    def __post_init__(self) -> None:
        AuthSettings.__post_init__(self)
        _client_id("ClientCredentials", self.client_id)
        if (self.secret is None) == (self.key is None):
            raise ConfigurationError("ClientCredentials: give either secret= or key=")
        _client_key("ClientCredentials", self)


@dataclass(frozen=True, slots=True)
class WorkloadIdentity(AuthSettings):
    """A signed identity of the platform (a token of Kubernetes, of a cloud, of SPIFFE) for a token of the server.

    The assertion goes to the authorization server only (RFC 7523 section 2.1). An error ends the attempt: nothing is
    tried in its place.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    assertion: Assertion = field(repr=False)
    """Gives the platform's token; it is called anew for each use."""
    client_id: str | None = field(default=None, kw_only=True)
    """The id of this client, where the server wants one."""

    def __post_init__(self) -> None:
        AuthSettings.__post_init__(self)
        if not callable(self.assertion):
            raise ConfigurationError("WorkloadIdentity.assertion must be a function that returns the token")
        _client_id("WorkloadIdentity", self.client_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterpriseAuthorization(AuthSettings):
    """The company's identity provider decides who may use which server (SEP-990).

    The person's ID token is exchanged for an assertion at `idp`, and that for a token at `issuer`. Both come from here
    and never from the MCP server: where it names another authorization server, nothing is sent.

    Raises:
        ConfigurationError: a value is not of its form, or `issuer` is missing.
    """

    idp: str
    """The token endpoint of the identity provider: a URL."""
    id_token: Assertion = field(repr=False)
    """Gives the ID token of the person who is signed in there; it is called anew for each use."""
    idp_client_id: str
    """The id of this client at the identity provider."""
    idp_client_secret: Secret | str | None = field(default=None, repr=False)
    """Its secret there, where it has one."""
    client_id: str
    """The id of this client at `issuer`."""
    secret: Secret | str | None = field(default=None, repr=False)
    """The client secret at `issuer`."""
    method: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    """How the secret is shown."""
    key: Secret | str | None = field(default=None, repr=False)
    """The private key at `issuer`, as PEM or JWK, in place of a secret."""
    algorithm: str = "ES256"
    """What the key signs with: ES256, RS256, PS256 or EdDSA."""
    key_id: str | None = None
    """`kid` of the key, where the server has several."""
    resource: str | None = None
    """The identifier of the MCP server. None: the URL that the client is given."""

    def __post_init__(self) -> None:
        AuthSettings.__post_init__(self)
        name = "EnterpriseAuthorization"
        if self.issuer is None:
            raise ConfigurationError(f"{name}.issuer must be given: it is not taken from the MCP server")
        _url(name, "idp", self.idp, check_url)
        if self.resource is not None:
            _url(name, "resource", self.resource, check_url)
        if not callable(self.id_token):
            raise ConfigurationError(f"{name}.id_token must be a function that returns the token")
        _client_id(name, self.client_id)
        _client_id(name, self.idp_client_id, "idp_client_id")
        if self.idp_client_secret is not None:
            secret = _secret(name, "idp_client_secret", self.idp_client_secret)
            object.__setattr__(self, "idp_client_secret", secret)
        if self.secret is not None and self.key is not None:
            raise ConfigurationError(f"{name}: give either secret= or key=")
        _client_key(name, self)


def _client_key(name: str, settings: ClientCredentials | EnterpriseAuthorization) -> None:
    for field_name in ("secret", "key"):
        value: Secret | str | None = getattr(settings, field_name)
        if value is not None:
            object.__setattr__(settings, field_name, _secret(name, field_name, value))
    if settings.method not in _METHODS:
        raise ConfigurationError(f"{name}.method must be one of {', '.join(_METHODS)}")
    if settings.algorithm not in _ALGORITHMS:
        raise ConfigurationError(f"{name}.algorithm must be one of {', '.join(_ALGORITHMS)}")


def _client_id(name: str, value: str | None, field_name: str = "client_id") -> None:
    if value is not None and not _VISIBLE.fullmatch(value):
        raise ConfigurationError(f"{name}.{field_name} must be visible ASCII, and not empty")


def _secret(name: str, field_name: str, value: Secret | str) -> Secret:
    if isinstance(value, Secret):
        return value
    try:
        return Secret(value)
    except ValueError:
        raise ConfigurationError(f"{name}.{field_name} must not be empty") from None


def _url(name: str, field_name: str, value: str, check: Callable[[str, str], T]) -> T:
    try:
        return check(value, f"{name}.{field_name}")
    except ValueError as exc:
        raise ConfigurationError(str(exc)) from None
