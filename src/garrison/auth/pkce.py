"""PKCE (RFC 7636), by S256 and nothing else: `plain` protects nobody who needs protection (section 7.2)."""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final

__all__ = ["PkceChallenge"]

_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")


def _new() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class PkceChallenge:
    """A secret of one authorization request, and what the request shows of it.

    `PkceChallenge()` makes a new one, of 256 random bits.

    Raises:
        ValueError: a verifier that RFC 7636 section 4.1 does not allow. The message does not repeat it.
    """

    verifier: str = field(default_factory=_new, repr=False)
    """The secret, which the token request shows."""
    method: str = field(default="S256", init=False)
    """`code_challenge_method`."""

    def __post_init__(self) -> None:
        if not _VERIFIER.fullmatch(self.verifier):
            raise ValueError("a PKCE verifier is 43 to 128 characters of A-Z, a-z, 0-9, '-', '.', '_', '~'")

    def __reduce__(self) -> str:
        raise TypeError("a PkceChallenge is not pickled")

    @property
    def challenge(self) -> str:
        """`code_challenge`: the SHA-256 of the verifier, in base64url without padding (RFC 7636 section 4.2)."""
        return urlsafe_b64encode(hashlib.sha256(self.verifier.encode("ascii")).digest()).rstrip(b"=").decode("ascii")

    def matches(self, challenge: str) -> bool:
        """Whether a challenge is that of this verifier, in constant time; for an authorization server (section 4.6)."""
        return compare_digest(self.challenge.encode(), challenge.encode("utf-8", "surrogatepass"))
