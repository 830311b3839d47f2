"""Makes the tokens that the server gives: access tokens (RFC 9068), refresh tokens, ID tokens, ID-JAGs.

Rules of this file:
- An access token is for one resource, one client and a short time, and says so.
- What was given is in the ledger, so that it can be introspected and revoked.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from .ledger import Family, Ledger
from .settings import Settings
from .signing import Signer

if TYPE_CHECKING:
    from joserfc.jwk import Key

__all__ = ["ACCESS_TOKEN", "ID_JAG", "ID_TOKEN", "ID_JAG_TYP", "Tokens"]

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - a name
ID_JAG: Final = "urn:ietf:params:oauth:token-type:id-jag"
ID_JAG_TYP: Final = "oauth-id-jag+jwt"
_ACCESS_TYP: Final = "at+jwt"
_ASSERTION_SECONDS: Final = 300


class Tokens:
    """Makes tokens.

    Args:
        settings: of the server.
        signer: signs.
        ledger: remembers.
    """

    def __init__(self, settings: Settings, signer: Signer, ledger: Ledger) -> None:
        self._settings = settings
        self._signer = signer
        self._ledger = ledger

    def access(
        self, family: Family, jkt: str | None, *, scopes: tuple[str, ...] | None = None, more: Mapping[str, object] = {}
    ) -> dict[str, object]:
        """The members of a token answer (RFC 6749 section 5.1).

        Args:
            family: whose, for what.
            jkt: the DPoP key that it is bound to.
            scopes: fewer than those of the family.
            more: further claims.
        """
        granted = family.scopes if scopes is None else scopes
        token = self.signed(
            {
                "sub": family.subject,
                "aud": family.resource,
                "client_id": family.client_id,
                "scope": " ".join(granted) or None,
                "tenant": family.tenant,
                "cnf": {"jkt": jkt} if jkt is not None else None,
                **more,
            },
            family=family,
        )
        members: dict[str, object] = {
            "access_token": token,
            "token_type": "Bearer" if jkt is None else "DPoP",
            "expires_in": int(self._settings.token_seconds),
        }
        return members | ({"scope": " ".join(granted)} if granted else {})

    def signed(
        self,
        claims: Mapping[str, object],
        *,
        family: Family | None = None,
        typ: str = _ACCESS_TYP,
        header: Mapping[str, object] | None = None,
        key: Key | Mapping[str, str] | str | bytes | None = None,
    ) -> str:
        """An access token of any claims, in the form that is set. A claim that is None is left out."""
        settings = self._settings
        now = int(settings.clock())
        usual = {
            "iss": settings.issuer,
            "iat": now,
            "exp": now + int(settings.token_seconds),
            "jti": secrets.token_urlsafe(16),
        }
        said = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        token = (
            secrets.token_urlsafe(32)
            if settings.opaque_tokens
            else self._signer.sign(said, typ, header=header, key=key)
        )
        ends = said.get("exp")
        expires = float(ends) if isinstance(ends, int | float) else float("inf")
        self._ledger.given(token, said, expires, family)
        return token

    def refresh(self, family: Family) -> dict[str, object]:
        """The refresh token of a token answer, where the settings give one."""
        settings = self._settings
        offline = "offline_access"
        if not settings.refresh_tokens or (offline in settings.scopes and offline not in family.scopes):
            return {}
        return {"refresh_token": self._ledger.refresh_token(family, settings.refresh_seconds)}

    def id_token(self, subject: str, client_id: str, claims: Mapping[str, object]) -> str:
        """An ID token (OpenID Connect Core section 2)."""
        return self._assertion("JWT", {"sub": subject, "aud": client_id, **claims})

    def id_jag(
        self,
        *,
        subject: str,
        audience: str,
        client_id: str,
        resource: str,
        scope: str | None,
        claims: Mapping[str, object],
        header: Mapping[str, object] | None = None,
    ) -> str:
        """An identity assertion for another authorization server (enterprise-managed authorization, section 4.3)."""
        named = {"sub": subject, "aud": audience, "client_id": client_id, "resource": resource, "scope": scope}
        return self._assertion(ID_JAG_TYP, {**named, **claims}, header)

    def _assertion(self, typ: str, claims: Mapping[str, object], header: Mapping[str, object] | None = None) -> str:
        now = int(self._settings.clock())
        usual = {
            "iss": self._settings.issuer,
            "iat": now,
            "exp": now + _ASSERTION_SECONDS,
            "jti": secrets.token_urlsafe(16),
        }
        return self._signer.sign({**usual, **claims}, typ, header=header)
