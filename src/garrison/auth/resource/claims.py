"""What a token says, whoever vouched for it: the claims of a JWT (RFC 7519, RFC 9068) and of an introspection answer
(RFC 7662 section 2.2).

Rules of this file:
- A claim of a wrong type refuses the token: what was not understood is not guessed at.
- Identifiers are compared as they are written. There is no prefix, no case and no trailing slash to forgive.
- A client's name is never taken for a person's. A JWT needs `sub`: RFC 9068 section 2.2 has the client's identifier
  there where no person is involved. An introspection answer may name a client alone (RFC 7662 section 2.2), whose
  subject is then `client:` and its identifier, and nobody else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from ...errors import ConfigurationError
from ...policy.principal import Principal
from ..urls import check_issuer
from .verifier import Confirmation, TokenRefused, Verified

__all__ = ["ClaimRules", "audiences"]

_PROGRAM: Final = "client:"


def audiences(given: str | Iterable[str], setting: str) -> frozenset[str]:
    """The identifiers of a setting that takes one or several.

    Raises:
        ConfigurationError: there is none, or one is no text.
    """
    found = frozenset((given,) if isinstance(given, str) else given)
    if not found or not all(type(cast("object", each)) is str and each for each in found):
        raise ConfigurationError(f"{setting}: the identifier of this server, as tokens have it in aud, is needed")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """What has to be true of the claims.

    Raises:
        ConfigurationError: the issuer is none of RFC 8414.
    """

    verifier: str
    """The class whose settings these are, for errors."""
    issuer: str
    audience: frozenset[str]
    """One of these has to be in `aud`; empty: `aud` is not looked at."""
    leeway: float
    """Seconds by which the clocks may differ."""
    max_age: float | None
    """Seconds that a token may live; None: it does not matter, and it need not end."""
    issuer_needed: bool = True
    """`iss` has to be there. Where it is, it has to be the issuer in any case."""
    subject_needed: bool = True
    """`sub` has to be there. Otherwise a token may be that of a program alone."""
    tenant_claim: str | None = None

    def __post_init__(self) -> None:
        try:
            check_issuer(self.issuer, f"{self.verifier}: issuer")
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None
        tenant = cast("object", self.tenant_claim)
        if tenant is not None and not (type(tenant) is str and tenant):
            raise ConfigurationError(f"{self.verifier}: tenant_claim is the name of a claim")

    def verified(self, claims: Mapping[str, object], now: float) -> Verified:
        """Who the claims are about.

        Args:
            claims: of a token that was, or is yet to be, vouched for.
            now: the time, in seconds of `time.time`.

        Raises:
            TokenRefused: a rule is broken.
        """
        issuer = claims.get("iss")
        if issuer != self.issuer and (issuer is not None or self.issuer_needed):
            raise TokenRefused("iss is another issuer" if issuer is not None else "iss is missing")
        if self.audience and self.audience.isdisjoint(_texts(claims, "aud")):
            raise TokenRefused("aud does not have this server" if "aud" in claims else "aud is missing")
        expires = self._lifetime(claims, now)
        subject, client = _text(claims, "sub"), _text(claims, "client_id")
        if subject is None:
            if self.subject_needed or client is None:
                raise TokenRefused("sub is missing")
            subject = f"{_PROGRAM}{client}"
        elif not self.subject_needed and subject.startswith(_PROGRAM):
            raise TokenRefused("sub is that of a program")
        principal = Principal(
            subject,
            issuer=self.issuer,
            client_id=client if client is not None else _text(claims, "azp"),
            tenant=self._tenant(claims),
            scopes=_scopes(claims),
            claims=claims,
        )
        return Verified(principal, expires, _confirmation(claims), _text(claims, "jti"))

    def _lifetime(self, claims: Mapping[str, object], now: float) -> float:
        """From when on the token is refused."""
        expires, issued, begins = (_time(claims, name) for name in ("exp", "iat", "nbf"))
        if begins is not None and now < begins - self.leeway:
            raise TokenRefused("nbf is in the future")
        if issued is not None and now < issued - self.leeway:
            raise TokenRefused("iat is in the future")
        if expires is None:
            if self.max_age is not None:
                raise TokenRefused("exp is missing")
            return float("inf")
        end = expires + self.leeway
        if now >= end:
            raise TokenRefused("it has expired")
        if self.max_age is not None and expires - (now if issued is None else issued) > self.max_age:
            raise TokenRefused(f"it lives longer than {self.verifier}.max_age")
        return end

    def _tenant(self, claims: Mapping[str, object]) -> str | None:
        if self.tenant_claim is None:
            return None
        tenant = _text(claims, self.tenant_claim)
        if tenant is None:
            raise TokenRefused("the tenant claim is missing")
        return tenant


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not (type(value) is str and value):
        raise TokenRefused(f"{name} must be a text")
    return value


def _texts(claims: Mapping[str, object], name: str) -> list[str]:
    """A text, or several, as `aud` is (RFC 7519 section 4.1.3)."""
    value = claims.get(name)
    if value is None:
        return []
    several = cast("list[object]", value) if type(value) is list else [value]
    if not all(type(each) is str for each in several):
        raise TokenRefused(f"{name} must be a text or a list of texts")
    return cast("list[str]", several)


def _time(claims: Mapping[str, object], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2), which the JSON reader has held to be finite."""
    value = claims.get(name)
    if value is None:
        return None
    if type(value) is not int and type(value) is not float:
        raise TokenRefused(f"{name} must be a number")
    return float(value)


def _scopes(claims: Mapping[str, object]) -> frozenset[str]:
    """Of `scope` (RFC 8693 section 4.2), or of `scp`, which some servers write, as a list or as words."""
    scope = _text(claims, "scope") if claims.get("scope") != "" else ""
    if scope is not None:
        return frozenset(scope.split(" ")) - {""}
    return frozenset(word for each in _texts(claims, "scp") for word in each.split(" ")) - {""}


def _confirmation(claims: Mapping[str, object]) -> Confirmation | None:
    bound = claims.get("cnf")
    if bound is None:
        return None
    if type(bound) is not dict:
        raise TokenRefused("cnf must be an object")
    members = cast("dict[str, object]", bound)
    try:
        return Confirmation(_text(members, "jkt"), _text(members, "x5t#S256"))
    except ValueError:
        raise TokenRefused("cnf binds the token to a key in a way that cannot be checked") from None
