"""What checks a token, and what it finds.

Rules of this file:
- A verifier says yes with a `Verified` or raises. There is no third answer, and none that means "perhaps".
- Why a token is refused is for the log. The peer is told that it is, and nothing else: a reason helps who guesses.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, Protocol

from ...policy.principal import Principal

__all__ = ["MAX_CHARS", "Confirmation", "TokenRefused", "TokenVerifier", "Verified", "VerifierUnavailable"]

MAX_CHARS: Final = 16 * 1024
"""Characters of a token. A longer one is refused before anything of it is decoded."""

_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class TokenRefused(Exception):
    """The token is not taken.

    Args:
        reason: why, for the log and the security event. It holds nothing that a peer wrote.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class VerifierUnavailable(TokenRefused):
    """Whether the token is good cannot be found out now: the keys or the answer of its issuer cannot be had.

    Nobody is let in by it. Over HTTP it is a 503: the same token may be good later, and getting a new one would not
    help.
    """


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The key that a token is bound to (RFC 7800 section 3.1). Who shows the token has to prove that he has that key.

    Raises:
        ValueError: neither is given, or one is no SHA-256 thumbprint in base64url.
    """

    jkt: str | None = None
    """Thumbprint of the key of DPoP proofs (RFC 9449 section 6.1)."""
    x5t_s256: str | None = None
    """Thumbprint of the client certificate, `x5t#S256` (RFC 8705 section 3.1)."""

    def __post_init__(self) -> None:
        given = [each for each in (self.jkt, self.x5t_s256) if each is not None]
        if not given or not all(map(_THUMBPRINT.fullmatch, given)):
            raise ValueError("a confirmation is a SHA-256 thumbprint in base64url: jkt, x5t#S256 or both")


@dataclass(frozen=True, slots=True)
class Verified:
    """What a credential turned out to be."""

    principal: Principal
    expires: float = float("inf")
    """From when on it is refused, in seconds of `time.time`; infinite where it names no end."""
    issued_for: Confirmation | None = None
    """The key that it is bound to. Who takes it has to check that the peer has this key."""
    token_id: str | None = None
    """`jti`, where it has one."""


class TokenVerifier(Protocol):
    """Checks the tokens of one origin. Its methods are called in the event loop."""

    @property
    def issuer(self) -> str | None:
        """The authorization server whose tokens it checks, for the metadata; None for keys of our own."""
        ...

    def accepts(self, token: str) -> bool:
        """Whether a token looks as if it were for this verifier. A cheap look, which proves nothing."""
        ...

    def verify(self, token: str, now: float) -> Verified | Awaitable[Verified]:
        """Check a token. What is returned is awaitable only where something has to be asked for first.

        Args:
            token: as it stood in the header field.
            now: the time, in seconds of `time.time`.

        Raises:
            TokenRefused: it is not taken.
            VerifierUnavailable: that cannot be told now.
        """
        ...
