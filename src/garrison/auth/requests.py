"""What a client asks an authorization server for: a person's consent, and a token.

Rules of this file:
- No request can be built without PKCE and without naming the resource that the token is for (RFC 8707): MCP demands
  both. A token exchange may name an audience in its place: it is for others than MCP servers too.
- What is secret prints as a mask.
- There is no implicit grant, and none by a person's password (RFC 9700 sections 2.1.2 and 2.4).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, urlencode

from .metadata import AuthorizationServerMetadata
from .pkce import PkceChallenge
from .urls import check_url

__all__ = ["GRANT_TYPES", "JWT_BEARER", "TOKEN_EXCHANGE", "AuthorizationConfig", "AuthorizationRequest", "TokenRequest"]

JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
"""RFC 7523 section 2.1."""
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - the name of a grant
"""RFC 8693 section 2.1."""
GRANT_TYPES: Final = frozenset(
    {"authorization_code", "refresh_token", "client_credentials", JWT_BEARER, TOKEN_EXCHANGE}
)
"""The grants there are here."""

_SCOPE: Final = re.compile(r"[!#-\[\]-~]++(?: [!#-\[\]-~]++)*+")
_VISIBLE: Final = re.compile(r"[ -~]++")


def _check_scope(scope: str | None) -> None:
    if scope is not None and not _SCOPE.fullmatch(scope):
        raise ValueError("scope: words of visible ASCII without quotes and backslashes, one space between them")


def _check_visible(name: str, text: str) -> None:
    if not _VISIBLE.fullmatch(text):
        raise ValueError(f"{name} must be visible ASCII (RFC 6749 appendix A), and not empty")


def _state() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """The authorization request of the code grant (RFC 6749 section 4.1.1, RFC 7636 section 4.3, RFC 8707 section 2).

    Raises:
        ValueError: a part is not of its form.
    """

    client_id: str
    pkce: PkceChallenge
    resource: str
    """The identifier of the server that the token is for."""
    redirect_uri: str | None = field(default=None, kw_only=True)
    """Where the answer goes: https, or http on loopback (RFC 8252 section 7.3)."""
    scope: str | None = field(default=None, kw_only=True)
    """Scopes, with spaces between them."""
    state: str = field(default_factory=_state, kw_only=True, repr=False)
    """What the answer has to bring back; made anew."""

    def __post_init__(self) -> None:
        _check_visible("client_id", self.client_id)
        check_url(self.resource, "resource")
        if self.redirect_uri is not None:
            check_url(self.redirect_uri, "redirect_uri")
        _check_scope(self.scope)
        _check_visible("state", self.state)

    def __reduce__(self) -> str:
        raise TypeError("an AuthorizationRequest is not pickled")

    def with_redirect_uri(self, uri: str) -> AuthorizationRequest:
        """The same, with the address of the answer."""
        return replace(self, redirect_uri=uri)

    def with_scope(self, scope: str) -> AuthorizationRequest:
        """The same, with scopes."""
        return replace(self, scope=scope)

    @property
    def parameters(self) -> Mapping[str, str]:
        """The members of the query."""
        given = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": self.scope,
            "state": self.state,
            "code_challenge": self.pkce.challenge,
            "code_challenge_method": self.pkce.method,
            "resource": self.resource,
        }
        return MappingProxyType({name: value for name, value in given.items() if value is not None})

    def url(self, endpoint: str) -> str:
        """The address to open in a browser.

        Args:
            endpoint: `authorization_endpoint`. A query that it has is kept (RFC 6749 section 3.1).

        Raises:
            ValueError: it is neither https nor loopback, or it has one of the parameters already.
        """
        query = check_url(endpoint, "authorization_endpoint").query
        named = {name for name, _ in parse_qsl(query or "", keep_blank_values=True)}
        if not named.isdisjoint(self.parameters):
            raise ValueError("authorization_endpoint has a parameter that the request sets")
        joint = "?" if query is None else "&" if query else ""
        return f"{endpoint}{joint}{urlencode(self.parameters)}"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What is posted to a token endpoint (RFC 6749 sections 4.1.3, 4.4.2 and 6; RFC 8707 section 2), and to its peers.

    Made by `authorization_code`, `refresh_token`, `client_credentials`, `jwt_bearer` or `token_exchange`; for a
    revocation or introspection endpoint by `about_token`.
    """

    grant_type: str
    """Empty where the request is for no token."""
    resource: str | None
    """The identifier of the server that the token is for; None where an audience stands in its place, or no token."""
    parameters: Mapping[str, str] = field(repr=False)
    """All members of the form, secrets too."""

    @classmethod
    def authorization_code(
        cls, code: str, client_id: str, verifier: str, resource: str, *, redirect_uri: str | None = None
    ) -> TokenRequest:
        """A code for a token.

        Args:
            code: of the answer to the authorization request.
            client_id, redirect_uri: as they were in that request.
            verifier: of its PKCE challenge.
            resource: the identifier of the server that the token is for.
        """
        PkceChallenge(verifier)
        return cls._made(
            "authorization_code",
            resource,
            code=code,
            client_id=client_id,
            code_verifier=verifier,
            redirect_uri=redirect_uri,
        )

    @classmethod
    def refresh_token(cls, token: str, client_id: str, resource: str, *, scope: str | None = None) -> TokenRequest:
        """A refresh token for a new token."""
        return cls._made("refresh_token", resource, refresh_token=token, client_id=client_id, scope=scope)

    @classmethod
    def client_credentials(
        cls, resource: str, *, client_id: str | None = None, scope: str | None = None
    ) -> TokenRequest:
        """The client's own credential for a token; how it is shown is for whoever sends the request."""
        return cls._made("client_credentials", resource, client_id=client_id, scope=scope)

    @classmethod
    def jwt_bearer(
        cls, assertion: str, resource: str, *, client_id: str | None = None, scope: str | None = None
    ) -> TokenRequest:
        """A JWT that another party issued for a token (RFC 7523 section 2.1)."""
        return cls._made(JWT_BEARER, resource, assertion=assertion, client_id=client_id, scope=scope)

    @classmethod
    def token_exchange(
        cls,
        subject_token: str,
        subject_token_type: str,
        *,
        resource: str | None = None,
        audience: str | None = None,
        scope: str | None = None,
        requested_token_type: str | None = None,
    ) -> TokenRequest:
        """A token for another one (RFC 8693 section 2.1).

        Args:
            subject_token, subject_token_type: what stands for whom the new token is about, and what it is.
            resource, audience: who the new token is for, by URL or by name. One of them is needed, so that it is not
                for everybody.
            scope, requested_token_type: what it may be used for, and what it shall be.

        Raises:
            ValueError: a part is not of its form, or both `resource` and `audience` are missing.
        """
        if resource is None and audience is None:
            raise ValueError("resource or audience is needed: a token is for somebody")
        return cls._made(
            TOKEN_EXCHANGE,
            resource,
            subject_token=subject_token,
            subject_token_type=subject_token_type,
            audience=audience,
            requested_token_type=requested_token_type,
            scope=scope,
        )

    @classmethod
    def about_token(cls, token: str, *, hint: str | None = None) -> TokenRequest:
        """What names a token at a revocation or introspection endpoint (RFC 7009 and RFC 7662, section 2.1 of each).

        Args:
            token: it.
            hint: `access_token` or `refresh_token`.
        """
        _check_visible("token", token)
        members = {"token": token} if hint is None else {"token": token, "token_type_hint": hint}
        return cls("", None, MappingProxyType(members))

    @classmethod
    def _made(cls, grant_type: str, resource: str | None, **given: str | None) -> TokenRequest:
        if resource is not None:
            check_url(resource, "resource")
        _check_scope(given.get("scope"))
        for name, value in given.items():
            if value is not None:
                _check_visible(name, value)
        members = {"grant_type": grant_type, **given, "resource": resource}
        kept = {name: value for name, value in members.items() if value is not None}
        return cls(grant_type, resource, MappingProxyType(kept))

    def with_parameters(self, **more: str) -> TokenRequest:
        """The same, with further members: a client assertion, say.

        Raises:
            ValueError: one of them is there already.
        """
        if not self.parameters.keys().isdisjoint(more):
            raise ValueError("a member of the form may stand once")
        return replace(self, parameters=MappingProxyType({**self.parameters, **more}))

    def form(self) -> bytes:
        """The body, as `application/x-www-form-urlencoded`."""
        return urlencode(self.parameters).encode("ascii")


@dataclass(frozen=True, slots=True)
class AuthorizationConfig:
    """What a client knows of an authorization server and of itself there: everything that an authorization needs.

    Raises:
        ValueError: a part is not of its form, or the server does not say that it checks PKCE with S256.
    """

    server: AuthorizationServerMetadata
    client_id: str
    resource: str
    redirect_uri: str | None = field(default=None, kw_only=True)
    scope: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.server.authorization_endpoint is None or self.server.token_endpoint is None:
            raise ValueError("server: its authorization_endpoint and token_endpoint are needed")
        if not self.server.has_pkce:
            raise ValueError("server: code_challenge_methods_supported does not have S256")
        self.request(PkceChallenge())

    def request(self, pkce: PkceChallenge) -> AuthorizationRequest:
        """A new authorization request."""
        return AuthorizationRequest(
            self.client_id, pkce, self.resource, redirect_uri=self.redirect_uri, scope=self.scope
        )

    def token_request(self, code: str, pkce: PkceChallenge) -> TokenRequest:
        """The token request for the code that came back."""
        return TokenRequest.authorization_code(
            code, self.client_id, pkce.verifier, self.resource, redirect_uri=self.redirect_uri
        )
