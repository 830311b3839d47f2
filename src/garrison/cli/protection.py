"""What protects a server, in plain values and in words: for `garrison run` and `garrison doctor`.

Rules of this file:
- The names of these fields are an interface: they do not change.
- No token and no key comes in here, and nothing is fetched: what is said is what is configured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ..auth.resource.server import ResourceServer
    from ..server import Server

Doubt = tuple[Literal["warning", "note"], str, str]

__all__ = ["Doubt", "Protection", "doubts", "protection", "takes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """A `ResourceServer`, and what it leaves to nobody."""

    resource: str
    """The identifier that tokens must be for."""
    issuers: tuple[str, ...]
    """The authorization servers whose tokens are taken."""
    verifiers: tuple[str, ...]
    """The classes that check tokens, in the order in which they are asked."""
    certificates: bool
    """Whether callers are known by client certificates, too."""
    metadata_url: str | None
    """Where clients read whom to ask."""
    scopes: tuple[str, ...]
    """What every token must have."""
    scopes_supported: tuple[str, ...]
    """What clients are told to ask for at first."""
    hierarchy: dict[str, tuple[str, ...]]
    dpop: str
    """`accept` or `require`."""
    dpop_nonce: bool
    recheck: float
    """Seconds for which a verdict is believed."""
    revoked: bool
    """Whether it is asked whether a token was revoked."""
    exchange: bool
    """Whether tokens for other servers are got in exchange."""
    failures_per_minute: int
    default_rule: bool
    """Whether what declares no rule has the server's own."""
    undeclared: tuple[str, ...]
    """What declares no rule, and is offered to nobody."""


def protection(server: Server) -> Protection | None:
    """What protects a server; None where nothing does."""
    auth = server.auth
    if auth is None:
        return None
    bare = () if server.has_default_rule else (name for name, each in server.registry.entries() if each.rule is None)
    return Protection(
        resource=auth.resource,
        issuers=_issuers(auth),
        verifiers=tuple(type(each).__name__ for each in auth.verifiers),
        certificates=auth.certificates is not None,
        metadata_url=auth.metadata_url,
        scopes=tuple(sorted(auth.scopes)),
        scopes_supported=auth.scopes_supported,
        hierarchy={scope: tuple(sorted(within)) for scope, within in auth.hierarchy.items()},
        dpop=auth.dpop,
        dpop_nonce=auth.dpop_nonce is not False,
        recheck=auth.recheck,
        revoked=auth.revoked is not None,
        exchange=auth.exchange is not None,
        failures_per_minute=auth.failures_per_minute,
        default_rule=server.has_default_rule,
        undeclared=tuple(bare),
    )


def _issuers(auth: ResourceServer) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.issuer for each in auth.verifiers if each.issuer is not None))


def takes(auth: ResourceServer) -> str:
    """Whom a server believes, and for what: `tokens of https://auth.example.com, for https://mcp.example.com/mcp`."""
    issuers = _issuers(auth)
    found = [f"tokens of {' and '.join(issuers)}"] if issuers else []
    if any(each.issuer is None for each in auth.verifiers):
        found.append("keys of its own")
    if auth.certificates is not None:
        found.append("client certificates")
    return f"{', '.join(found)}, for {auth.resource}"


def doubts(found: Protection, path: str, *, token_in_environment: bool) -> list[Doubt]:
    """What the person who runs the server should know: level, kind and text of each finding.

    Args:
        found: of `protection`.
        path: where the endpoint is served.
        token_in_environment: GARRISON_TOKEN is set.
    """
    doubtful: list[Doubt] = []
    if found.undeclared:
        text = f"nobody may use what declares no rule (scopes=, public= or authorize=): {', '.join(found.undeclared)}"
        doubtful.append(("warning", "undeclared", text))
    for issuer in found.issuers:
        if urlsplit(issuer).scheme == "http":
            text = f"{issuer} is an authorization server of this machine: for development only"
            doubtful.append(("warning", "issuer", text))
    named = urlsplit(found.resource).path.rstrip("/")
    if path != named and not path.startswith(f"{named}/"):
        text = (
            f"the endpoint is at {path}, and clients name it {found.resource}: a proxy must lead from one to the other"
        )
        doubtful.append(("warning", "resource_path", text))
    if found.dpop == "accept" and found.verifiers:
        text = 'tokens that are not bound to a key are taken: ResourceServer(dpop="require") where every client can'
        doubtful.append(("note", "dpop", text))
    if "JwtVerifier" in found.verifiers and not found.revoked:
        text = "a signed token that was revoked is good until it ends: ResourceServer(revoked=) can ask"
        doubtful.append(("note", "revocation", text))
    if token_in_environment:
        text = "GARRISON_TOKEN has no effect while Server(auth=...) says whose tokens are taken"
        doubtful.append(("note", "no_effect", text))
    return doubtful
