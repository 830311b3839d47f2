"""Tokens as a client keeps them, and under which name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..policy.secret import Secret

__all__ = ["CredentialKey", "TokenSet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSet:
    """What a token endpoint gave (RFC 6749 section 5.1)."""

    access_token: Secret
    token_type: Literal["Bearer", "DPoP"] = "Bearer"  # noqa: S105 - the name of a type
    expires_at: float | None = None
    """When it ends, in seconds of `time.time`; None where the server did not say."""
    refresh_token: Secret | None = None
    scopes: frozenset[str] | None = None
    """What was granted; None where neither request nor answer named scopes."""
    issued_token_type: str | None = None
    """Of a token exchange (RFC 8693 section 2.2.1)."""


@dataclass(frozen=True, slots=True)
class CredentialKey:
    """The name of a stored credential. Two that differ in one member have nothing to do with each other."""

    issuer: str
    """The authorization server that gave it."""
    resource: str = ""
    """The server it is for; empty for a registration, which is for all servers of its issuer."""
    client_id: str = ""
    account: str = "default"
    """The person's own name for it, where there are several accounts."""
    kind: Literal["token", "client", "key"] = field(default="token", kw_only=True)
    """A token set, a registered client, or a DPoP key."""
