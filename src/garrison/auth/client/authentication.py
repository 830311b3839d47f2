"""How a client shows an authorization server who it is (RFC 6749 section 2.3, RFC 7523 section 2.2).

Rules of this file:
- A credential is shown only by a method that the server named, and only to an https endpoint or one on loopback.
- One request, one method. What a method adds to a form stands there once.
- A secret leaves by the form or the field that its method names. It is in no message and in no repr.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, cast, final
from urllib.parse import quote_plus

from ...errors import AuthorizationFailed, ConfigurationError
from ...policy.secret import Secret
from ..jws import SigningKey
from ..metadata import AuthorizationServerMetadata
from ..requests import TokenRequest
from ..urls import check_url
from .words import cleaned, refused

__all__ = ["ALGORITHMS", "ClientAuthentication", "ClientSecret", "PrivateKeyJwt", "PublicClient"]

ALGORITHMS: Final = ("ES256", "RS256", "PS256", "EdDSA")
"""What a client assertion may be signed with."""
MAX_LIFETIME: Final = 300.0
"""Seconds that an assertion may last."""

_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_METHODS: Final = ("client_secret_basic", "client_secret_post")

Shown = tuple[TokenRequest, dict[str, str]]
"""A request with what a method adds to its form, and header fields beside it."""


class ClientAuthentication(Protocol):
    """One client at one authorization server, and how it shows that it is the one."""

    @property
    def client_id(self) -> str:
        """The client's name there."""
        ...

    @property
    def method(self) -> str:
        """`token_endpoint_auth_method` (RFC 7591 section 2)."""
        ...

    def apply(self, request: TokenRequest, server: AuthorizationServerMetadata, endpoint: str, now: float) -> Shown:
        """Add to a request what shows who sends it. Called anew for each attempt.

        Args:
            request: what will be posted.
            server: the authorization server.
            endpoint: the URL that it is posted to.
            now: the time, in seconds of `time.time`.

        Raises:
            AuthorizationFailed: the server does not take this method, or the endpoint is not one to show a secret to.
            ConfigurationError: the request is of another client.
        """
        ...


@final
@dataclass(frozen=True, slots=True)
class PublicClient:
    """A client that has nothing to show but its name (RFC 6749 section 2.1).

    Whether a server takes such is for the server to say: what was sent is no secret.

    Raises:
        ConfigurationError: `client_id` is empty, or not visible ASCII.
    """

    client_id: str
    method: str = field(default="none", init=False)

    def __post_init__(self) -> None:
        _check_id(self.client_id)

    def apply(self, request: TokenRequest, server: AuthorizationServerMetadata, endpoint: str, now: float) -> Shown:
        """As `ClientAuthentication.apply`."""
        _check_endpoint(endpoint)
        return _named(request, self.client_id), {}


@final
@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A client with a secret that the server knows too (RFC 6749 section 2.3.1).

    Args:
        client_id: its name.
        secret: the secret.
        method: `client_secret_basic` sends it in the Authorization field, `client_secret_post` in the form.

    Raises:
        ConfigurationError: a part is not of its form.
    """

    client_id: str
    secret: Secret | str = field(repr=False)
    method: Literal["client_secret_basic", "client_secret_post"] = field(default="client_secret_basic", kw_only=True)

    def __post_init__(self) -> None:
        _check_id(self.client_id)
        if self.method not in _METHODS:
            raise ConfigurationError(f"ClientSecret.method must be one of {', '.join(_METHODS)}")
        if not isinstance(self.secret, Secret):
            if not self.secret:
                raise ConfigurationError("ClientSecret.secret must not be empty")
            object.__setattr__(self, "secret", Secret(self.secret))

    def apply(self, request: TokenRequest, server: AuthorizationServerMetadata, endpoint: str, now: float) -> Shown:
        """As `ClientAuthentication.apply`."""
        _check_endpoint(endpoint)
        _check_method(self.method, server)
        secret = cast("Secret", self.secret).reveal()
        if self.method == "client_secret_post":
            return _named(request, self.client_id).with_parameters(client_secret=secret), {}
        _check_client(request, self.client_id)
        # Both halves are form-encoded before they are joined: a colon in a name does not end it.
        pair = f"{quote_plus(self.client_id)}:{quote_plus(secret)}"
        return request, {"Authorization": f"Basic {b64encode(pair.encode('ascii')).decode('ascii')}"}


@final
class PrivateKeyJwt:
    """A client with a key of its own, which shows a short-lived signed assertion (RFC 7523 section 3).

    Args:
        client_id: its name.
        key: the private key: PEM without a passphrase, or a JWK.
        algorithm: one of `ALGORITHMS`; it must fit the key.
        key_id: `kid`, where the server knows several keys of this client.
        audience: `aud` of assertions, where a server wants another one than its issuer.
        lifetime: seconds that an assertion lasts, at most `MAX_LIFETIME`.

    Raises:
        ConfigurationError: a part is not of its form, or the key is none for the algorithm.
    """

    __slots__ = ("_audience", "_head", "_key", "_lifetime", "algorithm", "client_id", "method")

    def __init__(
        self,
        client_id: str,
        key: Secret | str,
        *,
        algorithm: str,
        key_id: str | None = None,
        audience: str | None = None,
        lifetime: float = 60.0,
    ) -> None:
        _check_id(client_id)
        if algorithm not in ALGORITHMS:
            raise ConfigurationError(f"PrivateKeyJwt.algorithm must be one of {', '.join(ALGORITHMS)}")
        if not 1 <= lifetime <= MAX_LIFETIME:
            raise ConfigurationError(f"PrivateKeyJwt.lifetime must be 1 to {MAX_LIFETIME:g} seconds")
        if audience == "":
            raise ConfigurationError("PrivateKeyJwt.audience must not be empty")
        try:
            self._key = SigningKey.load(key if isinstance(key, Secret) else Secret(key), algorithm)
        except ValueError as exc:
            raise ConfigurationError(f"PrivateKeyJwt.key: {exc}") from None
        self._head = self._key.segment({"typ": "JWT"} if key_id is None else {"typ": "JWT", "kid": key_id})
        self._audience = audience
        self._lifetime = lifetime
        self.algorithm = algorithm
        self.client_id = client_id
        self.method = "private_key_jwt"

    def apply(self, request: TokenRequest, server: AuthorizationServerMetadata, endpoint: str, now: float) -> Shown:
        """As `ClientAuthentication.apply`. Each assertion is for this server alone, and has a name of its own."""
        _check_endpoint(endpoint)
        _check_method(self.method, server)
        known = server.token_endpoint_auth_signing_alg_values_supported
        if known is not None and self.algorithm not in known:
            raise refused(
                f"{server.issuer} takes client assertions signed with {_listed(known)}, not {self.algorithm}",
                setting="PrivateKeyJwt.algorithm",
            )
        _check_client(request, self.client_id)
        claims: dict[str, object] = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self._audience or server.issuer,
            "jti": secrets.token_urlsafe(24),
            "iat": int(now),
            "exp": int(now + self._lifetime),
        }
        assertion = self._key.sign(self._head, claims)
        return request.with_parameters(client_assertion_type=_ASSERTION, client_assertion=assertion), {}

    def __repr__(self) -> str:
        return f"PrivateKeyJwt({self.client_id!r}, algorithm={self.algorithm!r})"

    def __reduce__(self) -> str:
        raise TypeError("a PrivateKeyJwt is not pickled")


def _check_id(client_id: str) -> None:
    if not client_id or not client_id.isascii() or not client_id.isprintable():
        raise ConfigurationError("client_id must be visible ASCII, and not empty")


def _check_endpoint(endpoint: str) -> None:
    try:
        check_url(endpoint, "the endpoint")
    except ValueError as exc:
        raise refused(f"Nothing is sent to the authorization server: {exc}") from None


def _check_method(method: str, server: AuthorizationServerMetadata) -> None:
    known = server.token_endpoint_auth_methods_supported
    if method not in known:
        raise AuthorizationFailed(
            f"{server.issuer} does not take {method}, but {_listed(known)}: use one of these with this server"
        )


def _check_client(request: TokenRequest, client_id: str) -> None:
    if request.parameters.get("client_id", client_id) != client_id:
        raise ConfigurationError("the request names another client_id than the one that authenticates")


def _named(request: TokenRequest, client_id: str) -> TokenRequest:
    _check_client(request, client_id)
    return request if "client_id" in request.parameters else request.with_parameters(client_id=client_id)


def _listed(names: tuple[str, ...]) -> str:
    """What a server wrote, fit to be shown."""
    return cleaned(", ".join(names)) or "none at all"
