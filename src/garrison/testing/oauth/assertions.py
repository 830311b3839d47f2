"""What others signed: client assertions, ID-JAGs, workload tokens (RFC 7523 section 3, RFC 8725).

Rules of this file:
- The algorithm is one of `ALGORITHMS`, none of them symmetric; the keys are those of the issuer that was looked up, and
  never those that a token names.
- Issuer, audience, time, kind and number are checked before anything else of it is believed; each number counts once.
- Every refusal has the same error code for its caller, and says which rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Final, cast

from ...auth.jws import JwsError, VerifyingKey, read_compact
from .people import Jwks
from .wire import Refusal

__all__ = ["ALGORITHMS", "Assertions", "Once", "claims_of"]

ALGORITHMS: Final = ("ES256", "ES384", "RS256", "PS256", "EdDSA", "Ed25519")
_LONGEST: Final = 8 * 1024
_LEEWAY: Final = 30.0
_MOST: Final = 10_000


class Once:
    """Remembers what may be used once, until it has ended. When it is full of what has not, nothing more is taken."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, ...], float] = {}

    def take(self, key: tuple[str, ...], until: float) -> bool:
        """Whether this is the first time.

        Args:
            key: what it is.
            until: when it may be forgotten.
        """
        now = self._clock()
        if len(self._seen) >= _MOST:
            self._seen = {each: end for each, end in self._seen.items() if end > now}
        if key in self._seen or len(self._seen) >= _MOST:
            return False
        self._seen[key] = until
        return True


class Assertions:
    """Reads assertions.

    Args:
        clock: the time, in seconds of `time.time`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._once = Once(clock)

    def read(
        self,
        token: str,
        keys: Jwks,
        *,
        issuer: str,
        audiences: Collection[str],
        typ: str | None,
        error: str,
        longest: float,
        once: bool = True,
    ) -> dict[str, object]:
        """The claims of an assertion.

        Args:
            token: the JWT.
            keys: the public keys of its issuer.
            issuer: who has to say it.
            audiences: the names of this server; its `aud` has to be one of them, alone.
            typ: the kind that it has to be; None for a plain JWT.
            error: the error code of a refusal.
            longest: most seconds until it ends.
            once: it has a `jti`, which is taken once.

        Raises:
            Refusal: it is not acceptable.
        """

        def refusal(text: str) -> Refusal:
            return Refusal(error, f"assertion: {text}")

        header, claims = _verified(token, keys, refusal)
        said = header.get("typ", "JWT")
        said = said.lower().removeprefix("application/") if isinstance(said, str) else ""
        if said != (typ or "jwt"):
            raise refusal(f"typ must be {typ or 'JWT'}")
        if claims.get("iss") != issuer:
            raise refusal("iss is another")
        audience = claims.get("aud")
        if isinstance(audience, list) and len(cast("list[object]", audience)) == 1:
            audience = cast("list[object]", audience)[0]
        if audience not in audiences:
            raise refusal("aud must be this authorization server, alone")
        until = self._times(claims, longest, refusal)
        if once:
            number = claims.get("jti")
            if not isinstance(number, str) or not number:
                raise refusal("jti is missing")
            if not self._once.take((issuer, number), until + _LEEWAY):
                raise refusal("jti was used before")
        return claims

    def _times(self, claims: dict[str, object], longest: float, refusal: Callable[[str], Refusal]) -> float:
        now = self._clock()
        ends, made, starts = (claims.get(name) for name in ("exp", "iat", "nbf"))
        for value in (ends, made, starts):
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
            ):
                raise refusal("exp, iat and nbf must be numbers")
        if not isinstance(ends, int | float):
            raise refusal("exp is missing")
        if ends <= now - _LEEWAY:
            raise refusal("it has expired")
        if ends > now + longest + _LEEWAY:
            raise refusal(f"exp is more than {longest:g} s ahead")
        if any(isinstance(value, int | float) and value > now + _LEEWAY for value in (made, starts)):
            raise refusal("iat or nbf is in the future")
        return float(ends)


def claims_of(token: str) -> dict[str, object]:
    """What a token says, unverified: to look up whose it is. Empty for what is no JWT."""
    try:
        return dict(read_compact(token, _LONGEST).payload)
    except JwsError:
        return {}


def _verified(
    token: str, keys: Jwks, refusal: Callable[[str], Refusal]
) -> tuple[Mapping[str, object], dict[str, object]]:
    """Header and claims of a JWT that one of the keys signed."""
    try:
        header, claims, signed, signature = read_compact(token, _LONGEST)
    except JwsError as exc:
        raise refusal(str(exc)) from None
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise refusal(f"alg must be one of {', '.join(ALGORITHMS)}")
    listed = keys.get("keys")
    for given in cast("list[object]", listed) if isinstance(listed, list | tuple) else ():
        if not isinstance(given, dict):
            continue
        members = cast("dict[str, object]", given)
        if "kid" in header and members.get("kid", header["kid"]) != header["kid"]:
            continue
        try:
            if VerifyingKey(members, algorithm).verify(signed, signature):
                return header, dict(claims)
        except JwsError:
            continue  # a key for something else
    raise refusal("no key of its issuer signed it")
