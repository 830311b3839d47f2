"""The token that a client uses, and where it may go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ..dpop import DpopKey
    from ..tokens import CredentialKey, TokenSet
    from .endpoint import TokenEndpoint

__all__ = ["Held", "SignedIn", "covers"]

_MARGIN: Final = 30.0
"""Seconds before its end that a token is renewed; half of its life where that is less."""
_DOTS: Final = re.compile(r"(?:^|/|%2f|%5c|\\)(?:\.|%2e){1,2}(?=/|$|%2f|%5c|\\)", re.IGNORECASE)
_PORTS: Final = {"https": 443, "http": 80}


def covers(resource: str, url: str) -> bool:
    """Whether a token for a resource may go to a URL: the same origin, and its path or one below it.

    Where the resource has a query, only the very same URL. A path with dot segments, also encoded, is below nothing.
    """
    if url == resource:
        return True
    mine, theirs = urlsplit(resource), urlsplit(url)
    if _origin(resource) != _origin(url) or mine.query:
        return False
    path = theirs.path or "/"
    if _DOTS.search(path):
        return False
    base = mine.path.rstrip("/")
    return path == base or path.startswith(base + "/")


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme, 0)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who a client is to a server. It holds no token."""

    issuer: str
    """The authorization server."""
    resource: str
    """The identifier of the MCP server."""
    client_id: str
    account: str
    scopes: frozenset[str] | None
    """What was granted, where that is known."""
    expires_at: float | None
    """When the token ends, in seconds of `time.time`; it is renewed before, where that can be."""


class Held:
    """A token in use.

    Args:
        key: what it is kept under.
        tokens: the token and what came with it.
        origin: whether it was kept, renewed by a refresh token, or is of a new grant.
        dpop: the key that it is bound to.
        endpoint: where it is renewed; None until that is found out.
        renewable: whether it can be renewed without a person.
        now: the time, in seconds of `time.time`.
    """

    __slots__ = ("accepted", "dpop", "endpoint", "key", "line", "nonce", "origin", "renew_at", "renewable", "tokens")

    def __init__(
        self,
        key: CredentialKey,
        tokens: TokenSet,
        origin: Literal["stored", "renewed", "new"],
        *,
        dpop: DpopKey | None,
        endpoint: TokenEndpoint | None,
        renewable: bool,
        now: float,
    ) -> None:
        self.key = key
        self.tokens = tokens
        self.origin = origin
        self.dpop = dpop
        self.endpoint = endpoint
        self.renewable = renewable
        self.accepted = False
        """Whether the MCP server took it for a request."""
        self.renew_at = inf
        """When to renew it, in seconds of `time.time`."""
        if tokens.expires_at is not None and (renewable or tokens.refresh_token is not None):
            self.renew_at = tokens.expires_at - min(_MARGIN, max(0.0, tokens.expires_at - now) / 2)
        self.nonce: str | None = None
        """The last nonce that the MCP server gave for proofs (RFC 9449 section 9)."""
        self.line = f"Authorization: {tokens.token_type} {tokens.access_token.reveal()}\r\n"

    def renewed(self, tokens: TokenSet, now: float) -> Held:
        """The same with a new token."""
        dpop, endpoint = self.dpop, self.endpoint
        fresh = Held(self.key, tokens, "renewed", dpop=dpop, endpoint=endpoint, renewable=self.renewable, now=now)
        fresh.nonce = self.nonce
        return fresh

    def shown(self) -> SignedIn:
        """What may be shown of it."""
        key, tokens = self.key, self.tokens
        return SignedIn(key.issuer, key.resource, key.client_id, key.account, tokens.scopes, tokens.expires_at)
