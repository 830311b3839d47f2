"""`ResourceServer`: what protects a server, said once.

    auth = ResourceServer("https://mcp.example.com/mcp", "https://auth.example.com")
    server = Server("notes", auth=auth)

Rules of this file:
- The identifier of the resource is configured, never taken from a request. It is what metadata, challenges and the
  audience of tokens are made from, one text compared as it is written.
- A verifier without an audience cannot be made; one made here from an issuer's URL has the resource as its audience.

RFC 9728; RFC 6750; MCP authorization.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Literal

from ...errors import ConfigurationError
from ..challenge import WwwAuthenticate
from ..metadata import ProtectedResourceMetadata
from ..urls import check_url, protected_resource_urls

if TYPE_CHECKING:
    from ...policy.principal import Principal
    from ...safe.fetch import SafeFetch
    from ..client.grants import TokenExchange
    from ..dpop import NonceSource
    from .certificates import Certificates
    from .verifier import TokenVerifier

__all__ = ["ResourceServer", "Revoked"]

Revoked = Callable[["Principal", str | None], "bool | Awaitable[bool]"]
"""From a principal and the id of its token (`jti`) to whether it was revoked."""

_MOST_RECHECK: Final = 60.0


class ResourceServer:
    """A protected resource: whose tokens it takes, and for what.

    Args:
        resource: the identifier of the server, as clients name it: its public URL with the endpoint's path. https, or
            http on loopback.
        verifiers: who vouches for callers. The URL of an issuer stands for a `JwtVerifier` of it whose audience is
            `resource`. Tokens of one issuer are never shown to another.
        certificates: who is known by a client certificate, on connections without a token.
        scopes: what every caller's token must have.
        scopes_supported: what clients are told to ask for at first: what ordinary work needs. `scopes` when not given.
        hierarchy: scope -> the scopes that it includes. Scopes are compared whole; nothing else is implied.
        dpop: "accept" takes bound tokens with their proofs and unbound ones without; "require" takes bound ones only.
        dpop_nonce: proofs must carry a nonce of ours (RFC 9449 section 9). `Nonces(secret)` in place of True where
            several processes serve the same clients.
        revoked: asked for each token, once in `recheck` seconds, whether it was revoked meanwhile.
        recheck: seconds for which a verdict is believed, 1 to 60. Open streams are looked after in the same time.
        exchange: gets tokens for upstream servers in place of the caller's, for `ctx.upstream_token`.
        failures_per_minute: tokens that one address may get wrong; what it shows after that is not looked at.
        name, documentation: of the metadata, for people.
        fetch: fetches the keys of issuers that are given by URL, in place of a `SafeFetch` for public hosts.

    Raises:
        ConfigurationError: a value is not of its form, or nobody vouches for anybody.
    """

    def __init__(
        self,
        resource: str,
        *verifiers: TokenVerifier | str,
        certificates: Certificates | None = None,
        scopes: Iterable[str] = (),
        scopes_supported: Iterable[str] | None = None,
        hierarchy: Mapping[str, Iterable[str]] | None = None,
        dpop: Literal["accept", "require"] = "accept",
        dpop_nonce: bool | NonceSource = False,
        revoked: Revoked | None = None,
        recheck: float = 60.0,
        exchange: TokenExchange | None = None,
        failures_per_minute: int = 30,
        name: str | None = None,
        documentation: str | None = None,
        fetch: SafeFetch | None = None,
    ) -> None:
        try:
            check_url(resource, "resource")
        except ValueError as exc:
            raise ConfigurationError(f"ResourceServer: {exc}") from None
        if not verifiers and certificates is None:
            raise ConfigurationError("ResourceServer: name an issuer, or give a verifier or certificates")
        if dpop not in ("accept", "require"):
            raise ConfigurationError('ResourceServer.dpop must be "accept" or "require"')
        if not 1.0 <= recheck <= _MOST_RECHECK:
            raise ConfigurationError("ResourceServer.recheck must be 1 to 60 seconds")
        if type(failures_per_minute) is not int or failures_per_minute < 1:
            raise ConfigurationError("ResourceServer.failures_per_minute must be a positive integer")
        self.resource = resource
        self.verifiers = tuple(_verifier(each, resource, fetch) for each in verifiers)
        self.certificates = certificates
        self.scopes = frozenset(_scopes(scopes, "scopes"))
        self.scopes_supported = _scopes(
            sorted(self.scopes) if scopes_supported is None else scopes_supported, "scopes_supported"
        )
        if "offline_access" in self.scopes_supported:
            raise ConfigurationError("ResourceServer.scopes_supported: offline_access is between client and issuer")
        wider = hierarchy or {}
        _scopes(wider, "hierarchy")
        self.hierarchy = _closed({scope: frozenset(_scopes(within, "hierarchy")) for scope, within in wider.items()})
        self.dpop = dpop
        self.dpop_nonce = dpop_nonce
        self.revoked = revoked
        self.recheck = recheck
        self.exchange = exchange
        self.failures_per_minute = failures_per_minute
        self.metadata = self._metadata(name, documentation)
        self.metadata_url = protected_resource_urls(resource)[0] if self.metadata is not None else None
        """Where clients find the metadata; None where no issuer is known whom they could ask for a token."""

    def _metadata(self, name: str | None, documentation: str | None) -> ProtectedResourceMetadata | None:
        issuers = tuple(dict.fromkeys(each.issuer for each in self.verifiers if each.issuer is not None))
        if not issuers:
            return None
        from ..dpop import ALGORITHMS

        try:
            return ProtectedResourceMetadata(
                self.resource,
                authorization_servers=issuers,
                scopes_supported=self.scopes_supported or None,
                resource_name=name,
                resource_documentation=documentation,
                dpop_signing_alg_values_supported=ALGORITHMS,
                dpop_bound_access_tokens_required=self.dpop == "require",
            )
        except ValueError as exc:
            raise ConfigurationError(f"ResourceServer: {exc}") from None

    def __repr__(self) -> str:
        return f"ResourceServer({self.resource!r})"

    def granted(self, scopes: frozenset[str]) -> frozenset[str]:
        """What a token with these scopes may do: they and all that they include."""
        if not self.hierarchy:
            return scopes
        return scopes.union(*(self.hierarchy.get(scope, frozenset()) for scope in scopes))


def _verifier(given: TokenVerifier | str, resource: str, fetch: SafeFetch | None) -> TokenVerifier:
    if not isinstance(given, str):
        return given
    from .jwt import JwtVerifier

    return JwtVerifier(given, resource, fetch=fetch)


def _scopes(given: Iterable[str], setting: str) -> tuple[str, ...]:
    """Scopes that can stand in a challenge (RFC 6749 section 3.3).

    Raises:
        ConfigurationError: one cannot.
    """
    if isinstance(given, str):
        raise ConfigurationError(f"ResourceServer.{setting} has a list of scopes, not one text")
    scopes = tuple(given)
    try:
        WwwAuthenticate(scope=scopes)
    except ValueError as exc:
        raise ConfigurationError(f"ResourceServer.{setting}: {exc}") from None
    return scopes


def _closed(hierarchy: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Each scope with everything that it includes, over any number of steps."""
    closed: dict[str, frozenset[str]] = {}
    for scope in hierarchy:
        found: set[str] = set()
        waiting = [scope]
        while waiting:
            for inner in hierarchy.get(waiting.pop(), ()):
                if inner not in found:
                    found.add(inner)
                    waiting.append(inner)
        closed[scope] = frozenset(found)
    return closed
