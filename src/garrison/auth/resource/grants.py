"""What a credential of our own allows: an API key, a client certificate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from ...errors import ConfigurationError
from ...policy.principal import Principal

__all__ = ["Grant"]


@dataclass(frozen=True, slots=True)
class Grant:
    """Who somebody is, and what he may.

    Raises:
        ConfigurationError: a part is not of its form.
    """

    subject: str
    """Who it is. It is nobody's subject of another kind: what the credential is belongs to its identity."""
    scopes: Iterable[str] = ()
    """What he may; kept as a frozenset."""
    tenant: str | None = None
    """The organization he belongs to, where there are several."""
    client_id: str | None = None
    """The program that acts for him, where several do."""

    def __post_init__(self) -> None:
        scopes = self.scopes
        if isinstance(scopes, str):
            raise ConfigurationError("Grant.scopes: a set of texts, not one text")
        kept = frozenset(scopes)
        optional = [each for each in (self.tenant, self.client_id) if each is not None]
        texts: list[object] = [self.subject, *optional, *kept]
        if not all(type(each) is str and each and each.isprintable() for each in texts):
            raise ConfigurationError("Grant: each part is a printable text that is not empty")
        if any(" " in each for each in kept):
            raise ConfigurationError("Grant.scopes: a scope has no spaces")
        object.__setattr__(self, "scopes", kept)

    def principal(self, kind: str) -> Principal:
        """The identity.

        Args:
            kind: of the credential. It stands in the place of an issuer, so that the subjects of two kinds are never
                one.
        """
        return Principal(
            self.subject,
            issuer=kind,
            client_id=self.client_id,
            tenant=self.tenant,
            scopes=cast("frozenset[str]", self.scopes),
        )
