"""Access tokens that are signed JWTs (RFC 7519, RFC 9068), checked as RFC 8725 asks.

Rules of this file:
- The cheap refusals come first: size, form, header, claims; then the key; the signature is the last and the dearest.
  Nothing of the claims counts before it.
- The token chooses a key by name among those of our issuer, and nothing else: `jwk`, `jku`, `x5u` and `x5c` in its
  header are not looked at, and with `crit` it is refused (RFC 7515 section 4.1.11: what is not understood).
- What is encrypted, compressed or spelled in a second way is refused. JSON is read strictly: no member stands twice.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from ...errors import ConfigurationError
from ..jws import ALGORITHMS, JwsError, read_compact
from .claims import ClaimRules, audiences
from .jwks import DEFAULT_ALGORITHMS, JwksCache, KeySet
from .verifier import MAX_CHARS, TokenRefused, Verified

if TYPE_CHECKING:
    from ...safe.fetch import SafeFetch

__all__ = ["JwtVerifier", "unverified_issuer"]

MAX_LEEWAY: Final = 60.0
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_ACCESS_TOKEN: Final = frozenset({"at+jwt", "application/at+jwt"})
_UNTYPED: Final = frozenset({"jwt", "application/jwt"})
_OF_ENCRYPTION: Final = frozenset({"enc", "zip"})
_OF_OTHER_TOKENS: Final = frozenset({"at_hash", "c_hash", "s_hash", "events"})
"""Claims that ID tokens (OpenID Connect Core sections 3.1.3.6 and 3.3.2.11) and security events (RFC 8417) have, and
access tokens never: what tells them apart where `typ` does not."""


class _Issuer(msgspec.Struct):
    iss: str


_issuer_of = msgspec.json.Decoder(_Issuer).decode


def unverified_issuer(token: str) -> str | None:
    """The issuer that a JWT names, of which nothing is proven; None: it is none, or names none."""
    if len(token) > MAX_CHARS or token.count(".") != 2 or not token.isascii():
        return None
    claims = token.encode("ascii").split(b".")[1]
    try:
        return _issuer_of(a2b_base64(claims.translate(_TO_STANDARD) + b"=" * (-len(claims) % 4))).iss
    except (Base64Error, msgspec.DecodeError, UnicodeDecodeError):
        return None


class _Signed(NamedTuple):
    """A token whose signature is yet to be checked."""

    algorithm: str
    kid: str | None
    signed: bytes
    signature: bytes
    verified: Verified
    """What it will be if the signature is good."""


class JwtVerifier:
    """Checks JWTs of one issuer for one server. A `TokenVerifier`.

    Args:
        issuer: `iss` of its tokens, as it is written there.
        audience: the identifier of this server in `aud`, or several; mostly the URL of the MCP endpoint (RFC 8707
            section 2). A token without it is refused.
        jwks_uri: where the issuer's keys are; None: where its metadata says (RFC 8414, OpenID Connect Discovery).
        algorithms: those that are taken, of `auth.jws.ALGORITHMS`. None is symmetric and `none` is none of them.
        leeway: seconds by which the clocks may differ, 60 at most.
        max_age: seconds from `iat` to `exp`, or from now to `exp`, at most.
        require_typ: take only `typ: at+jwt` (RFC 9068 section 4). Set it where the issuer writes it. By default `JWT`
            and no `typ` are taken besides, since most issuers write no other, unless a claim shows another kind of
            token. Any other `typ` is that of another kind of token (RFC 8725 section 3.11), and always refused.
        tenant_claim: the claim that names the tenant. A token without it is refused.
        fetch: in place of a fetcher that reaches the public Internet and the hosts of `issuer` and `jwks_uri`.
        jwks: a key cache of this issuer, in place of one of its own; `jwks_uri` and `fetch` are then said there.

    Raises:
        ConfigurationError: an argument is missing or not of its form.

    Spec: 2026-07-28 basic/authorization, "Token Handling"; RFC 8725; RFC 9068 section 4.
    """

    def __init__(
        self,
        issuer: str,
        audience: str | Iterable[str],
        *,
        jwks_uri: str | None = None,
        algorithms: Iterable[str] = DEFAULT_ALGORITHMS,
        leeway: float = 30.0,
        max_age: float = 86_400.0,
        require_typ: bool = False,
        tenant_claim: str | None = None,
        fetch: SafeFetch | None = None,
        jwks: JwksCache | None = None,
    ) -> None:
        self._algorithms = frozenset((algorithms,) if isinstance(algorithms, str) else algorithms)
        if not self._algorithms or not self._algorithms <= ALGORITHMS.keys():
            raise ConfigurationError(f"JwtVerifier.algorithms: one or more of {', '.join(ALGORITHMS)}")
        if not 0 <= leeway <= MAX_LEEWAY:
            raise ConfigurationError(f"JwtVerifier.leeway: 0 to {MAX_LEEWAY:g} seconds")
        if not 0 < max_age < float("inf"):
            raise ConfigurationError("JwtVerifier.max_age: a positive number of seconds")
        self._rules = ClaimRules(
            verifier="JwtVerifier",
            issuer=issuer,
            audience=audiences(audience, "JwtVerifier: audience"),
            leeway=leeway,
            max_age=max_age,
            tenant_claim=tenant_claim,
        )
        self._types = _ACCESS_TOKEN if require_typ else _ACCESS_TOKEN | _UNTYPED
        if jwks is not None and (jwks.issuer != issuer or jwks_uri is not None or fetch is not None):
            raise ConfigurationError(
                "JwtVerifier.jwks: a cache of the same issuer, without jwks_uri and fetch beside it"
            )
        self._jwks = jwks or JwksCache(issuer, jwks_uri, algorithms=self._algorithms, fetch=fetch)

    @property
    def issuer(self) -> str:
        """The issuer whose tokens are checked."""
        return self._rules.issuer

    def accepts(self, token: str) -> bool:
        """Whether it is a JWT that names our issuer."""
        return unverified_issuer(token) == self._rules.issuer

    def verify(self, token: str, now: float) -> Verified | Awaitable[Verified]:
        """Check a token. Awaitable only where keys have to be fetched.

        Raises:
            TokenRefused: it is not taken.
            VerifierUnavailable: the issuer's keys cannot be had now.
        """
        signed = self._read(token, now)
        keys = self._jwks.current(now)
        if keys is None:
            if not self._jwks.may_ask(now):
                raise self._jwks.unavailable()
            return self._later(signed, now)
        if signed.kid is not None and signed.kid not in keys.named:
            if self._jwks.may_ask(now):
                return self._later(signed, now)
            if self._jwks.failing:
                raise self._jwks.unavailable()
        return _finished(signed, keys)

    async def _later(self, signed: _Signed, now: float) -> Verified:
        keys = await self._jwks.refresh(now)
        if signed.kid is not None and signed.kid not in keys.named and self._jwks.failing:
            raise self._jwks.unavailable()
        return _finished(signed, keys)

    def _read(self, token: str, now: float) -> _Signed:
        """Everything but the signature."""
        try:
            jws = read_compact(token, MAX_CHARS)
        except JwsError as exc:
            raise TokenRefused(str(exc)) from None
        header, claims = jws.header, jws.payload
        algorithm = header.get("alg")
        if type(algorithm) is not str or algorithm not in self._algorithms:
            raise TokenRefused("alg is not one of JwtVerifier.algorithms")
        if not _OF_ENCRYPTION.isdisjoint(header):
            raise TokenRefused("its header has enc or zip")
        kid = header.get("kid")
        if kid is not None and type(kid) is not str:
            raise TokenRefused("kid must be a text")
        self._check_type(header.get("typ"), claims)
        return _Signed(algorithm, kid, jws.signed, jws.signature, self._rules.verified(claims, now))

    def _check_type(self, given: object, claims: Mapping[str, object]) -> None:
        kind = "jwt" if given is None else given.lower() if type(given) is str else ""
        if kind not in self._types:
            raise TokenRefused("typ is that of another kind of token")
        if kind in _UNTYPED and not _OF_OTHER_TOKENS.isdisjoint(claims):
            raise TokenRefused("its claims are those of another kind of token")


def _finished(signed: _Signed, keys: KeySet) -> Verified:
    verify = keys.find(signed.kid, signed.algorithm)
    if verify is None:
        raise TokenRefused("the issuer has no key of this kid for this alg")
    if not verify(signed.signed, signed.signature):
        raise TokenRefused("the signature is wrong")
    return signed.verified
