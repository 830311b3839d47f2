"""What a development authorization server is set to. Tests may change it while the server runs.

Rules of this file:
- One object, which every endpoint reads when it is asked. Nothing is copied out of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal

from ...auth.errors import OAuthError
from ...auth.urls import check_url
from .people import User
from .wire import Refusal, scope_words

__all__ = ["Settings", "narrowed"]


@dataclass(slots=True, kw_only=True)
class Settings:
    """The settings of one server."""

    issuer: str = ""
    """Known when it listens."""
    users: dict[str, User] = field(default_factory=dict[str, User])
    scopes: tuple[str, ...] = ()
    """`scopes_supported`; empty for every scope."""
    default_scopes: tuple[str, ...] = ()
    """Granted where none is asked for."""
    resources: frozenset[str] | None = None
    """The resources that tokens may be for; None for all."""
    auto_approve: str | None = None
    """A user who agrees to everything at once, without a page."""
    refresh_tokens: bool = True
    """Given to clients that may use them; where `offline_access` is among `scopes`, only with it."""
    registration: bool = False
    """Dynamic registration (RFC 7591)."""
    opaque_tokens: bool = False
    """Access tokens that only introspection explains, in place of JWTs."""
    dpop: Literal["offered", "required", "off"] = "offered"
    dpop_nonces: bool = False
    """Proofs have to bring a nonce of the server (RFC 9449 section 8)."""
    token_seconds: float = 300.0
    code_seconds: float = 60.0
    refresh_seconds: float = 24 * 3600.0
    consent_seconds: float = 600.0
    clock: Callable[[], float] = time.time

    def endpoint(self, name: str) -> str:
        """The URL of an endpoint."""
        return f"{self.issuer.rstrip('/')}/{name}"

    def resource(self, asked: str | None, bound: str | None = None) -> str:
        """The resource that a token will be for (RFC 8707 section 2).

        Args:
            asked: the parameter.
            bound: what the grant is bound to, where it is.

        Raises:
            Refusal: none is named, it is not known, or it is not that of the grant.
        """
        if asked is None:
            raise Refusal(OAuthError.INVALID_TARGET, "resource is missing: name the server that the token is for")
        try:
            check_url(asked, "resource")
        except ValueError as exc:
            raise Refusal(OAuthError.INVALID_TARGET, str(exc)) from None
        if self.resources is not None and asked not in self.resources:
            raise Refusal(OAuthError.INVALID_TARGET, "resource is not known here")
        if bound is not None and asked != bound:
            raise Refusal(OAuthError.INVALID_TARGET, "resource is not that of the grant")
        return asked

    def asked_scopes(self, text: str | None) -> tuple[str, ...]:
        """The scopes that a request asks for, or the default ones.

        Raises:
            Refusal: one is not known.
        """
        asked = scope_words(text)
        if self.scopes and not set(asked) <= set(self.scopes):
            raise Refusal(OAuthError.INVALID_SCOPE, "scope names one that is not known here")
        return asked or self.default_scopes

    def exact_scopes(self, text: str | None, *allowed: Collection[str] | None) -> tuple[str, ...]:
        """The same, all of which must be allowed by each of several.

        Raises:
            Refusal: one is not.
        """
        asked = self.asked_scopes(text)
        if narrowed(asked, *allowed) != asked:
            raise Refusal(OAuthError.INVALID_SCOPE, "scope names more than is allowed")
        return asked


def narrowed(scopes: tuple[str, ...], *allowed: Collection[str] | None) -> tuple[str, ...]:
    """The scopes that each of several allows; None allows all."""
    return tuple(scope for scope in scopes if all(each is None or scope in each for each in allowed))
