"""Who is asking, as a listener has verified it.

Rules of this file:
- Everything in a principal was verified: by a signature, an authorization server, a certificate or the kernel. Nothing
  a peer says of itself is here, and no credential is.
- A subject means something only together with its issuer, so neither stands alone in a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, final

import msgspec

__all__ = ["ANONYMOUS", "HOLDER", "LOCAL", "NOBODY", "Principal"]

_NONE: Final[Mapping[str, object]] = MappingProxyType({})


@final
class Principal:
    """One verified identity. Equal to another of the same `key`.

    Args:
        subject: who it is, for its issuer; or what kind of peer, where there is no issuer (`local`, `uid:1000`).
        issuer: who says so: the issuer of a token, or empty.
        client_id: the program that acts for the subject.
        tenant: the organization it belongs to, where the deployment has several.
        scopes: what the credential allows.
        claims: the verified claims of the token, where there was one.
        owner: it is whoever started this process. What a server protects is protected from others.
        local: it was told by this machine alone: a pipe, or the kernel.

    Raises:
        ValueError: no subject, or a bare one that begins with a bracket, as the key of a full one does.
    """

    __slots__ = ("account", "claims", "client_id", "issuer", "key", "local", "owner", "scopes", "subject", "tenant")

    def __init__(
        self,
        subject: str,
        *,
        issuer: str = "",
        client_id: str | None = None,
        tenant: str | None = None,
        scopes: frozenset[str] = frozenset(),
        claims: Mapping[str, object] | None = None,
        owner: bool = False,
        local: bool = False,
    ) -> None:
        if not subject or (subject.startswith("[") and not issuer):
            raise ValueError("subject: not empty, and without an issuer it does not begin with a bracket")
        self.subject = subject
        self.issuer = issuer
        self.client_id = client_id
        self.tenant = tenant
        self.scopes = scopes
        self.claims = _NONE if claims is None else MappingProxyType(dict(claims))
        self.owner = owner
        self.local = local
        plain = not issuer and client_id is None and tenant is None
        self.account: str = subject if plain else _joined(issuer, tenant, subject)
        """Whose it is, whatever the program: issuer, tenant and subject. What is counted is counted by it."""
        self.key: str = subject if plain else _joined(issuer, tenant, subject, client_id)
        """The account and the program. What belongs to one caller (sessions, states, cursors) is kept by it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Principal) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return self.key

    def __repr__(self) -> str:
        return f"Principal({self.key!r}, scopes={sorted(self.scopes)!r})"


def _joined(*parts: str | None) -> str:
    """One text for several, that no other parts give. It begins with a bracket, as no plain subject does."""
    return msgspec.json.encode(parts).decode()


LOCAL: Final = Principal("local", owner=True, local=True)
"""Whoever started this process, or is in it."""
NOBODY: Final = Principal("nobody")
"""Nobody has been verified yet."""
ANONYMOUS: Final = Principal("anonymous")
"""A peer of a listener that asks nobody who they are."""
HOLDER: Final = Principal("token")
"""Whoever knows the one token of a listener: it may be many."""
