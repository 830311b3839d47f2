"""What was granted: codes, refresh tokens, access tokens, and the family of each (RFC 9700 section 4.14).

Rules of this file:
- Everything that comes of one consent is one family. A code or a refresh token that is shown twice ends the family, for
  one of the two who showed it has stolen it.
- A code or token is found by its text, is for one client, and ends. The oldest are forgotten when there are very many.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from ...auth.errors import OAuthError
from ...auth.pkce import PkceChallenge
from .wire import Refusal

__all__ = ["Access", "Family", "Ledger"]

_MOST: Final = 10_000
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Family:
    """One consent, and all that comes of it."""

    client_id: str
    subject: str
    resource: str
    scopes: tuple[str, ...]
    tenant: str | None = None
    key: str | None = None
    """The thumbprint of the DPoP key that refresh tokens are bound to."""
    ended: bool = False


@dataclass(slots=True)
class _Code:
    family: Family
    redirect_uri: str
    challenge: str
    expires: float
    used: bool = False


@dataclass(slots=True)
class _Refresh:
    family: Family
    expires: float
    used: bool = False


@dataclass(slots=True)
class Access:
    """An access token that was given."""

    claims: Mapping[str, object] = field(repr=False)
    expires: float
    family: Family | None
    revoked: bool = False


class Ledger:
    """Remembers grants.

    Args:
        clock: the time, in seconds of `time.time`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._codes: dict[str, _Code] = {}
        self._refresh: dict[str, _Refresh] = {}
        self._access: dict[str, Access] = {}

    def code(self, family: Family, *, redirect_uri: str, challenge: str, seconds: float) -> str:
        """A new authorization code."""
        code = secrets.token_urlsafe(32)
        _keep(self._codes, code, _Code(family, redirect_uri, challenge, self._clock() + seconds))
        return code

    def redeem(self, code: str, *, client_id: str, redirect_uri: str | None, verifier: str) -> Family:
        """The family of a code, which is spent by this.

        Raises:
            Refusal: it is not known, ended, spent, or shown by somebody else.
        """
        found = self._codes.get(code)
        if found is None or found.family.client_id != client_id:
            raise _no("the code is not known")
        if found.used:
            found.family.ended = True
            raise _no("the code was used before; what came of it has ended")
        found.used = True
        if found.family.ended or found.expires <= self._clock():
            raise _no("the code has ended")
        if redirect_uri != found.redirect_uri:
            raise _no("redirect_uri is not that of the authorization request")
        try:
            proven = PkceChallenge(verifier).matches(found.challenge)
        except ValueError:
            proven = False
        if not proven:
            raise _no("code_verifier is not that of the authorization request")
        return found.family

    def refresh_token(self, family: Family, seconds: float) -> str:
        """A new refresh token."""
        token = secrets.token_urlsafe(32)
        _keep(self._refresh, token, _Refresh(family, self._clock() + seconds))
        return token

    def refresh_family(self, token: str, client_id: str) -> Family:
        """The family of a refresh token, which stays usable until `spend`.

        Raises:
            Refusal: it is not known, ended, spent, or shown by another client.
        """
        found = self._refresh.get(token)
        if found is None or found.family.client_id != client_id:
            raise _no("the refresh token is not known")
        if found.used:
            found.family.ended = True
            raise _no("the refresh token was used before; what came of it has ended")
        if found.family.ended or found.expires <= self._clock():
            raise _no("the refresh token has ended")
        return found.family

    def spend(self, token: str) -> None:
        """A refresh token has been exchanged for a new one."""
        self._refresh[token].used = True

    def given(self, token: str, claims: Mapping[str, object], expires: float, family: Family | None) -> None:
        """Remember an access token."""
        _keep(self._access, token, Access(claims, expires, family))

    def access(self, token: str) -> Access | None:
        """An access token that is good now."""
        found = self._access.get(token)
        if found is None or found.revoked or found.expires <= self._clock():
            return None
        return None if found.family is not None and found.family.ended else found

    def refresh(self, token: str) -> tuple[Family, float] | None:
        """A refresh token that is good now, and when it ends."""
        found = self._refresh.get(token)
        if found is None or found.used or found.family.ended or found.expires <= self._clock():
            return None
        return found.family, found.expires

    def revoke(self, token: str, client_id: str | None = None) -> bool:
        """End a token: a refresh token with its family, an access token alone (RFC 7009 section 2.1).

        Args:
            token: its text.
            client_id: who asks; None for the server itself.

        Returns:
            Whether it was there, for this client.
        """
        refresh, access = self._refresh.get(token), self._access.get(token)
        if refresh is not None and client_id in (None, refresh.family.client_id):
            refresh.family.ended = True
            return True
        if access is not None and client_id in (None, access.claims.get("client_id")):
            access.revoked = True
            return True
        return False


def _keep(where: dict[str, T], name: str, value: T) -> None:
    while len(where) >= _MOST:
        del where[next(iter(where))]
    where[name] = value


def _no(text: str) -> Refusal:
    return Refusal(OAuthError.INVALID_GRANT, text)
