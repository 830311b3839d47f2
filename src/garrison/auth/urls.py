"""Addresses of OAuth: which are acceptable, and where metadata is found.

Rules of this file:
- An identifier is compared as it is written, and nothing is normalized: RFC 8414 section 3.3, RFC 9728 section 3.3.
- https, or http on loopback for development; never user information or a fragment.
"""

from __future__ import annotations

from typing import Final

from ..protocol.uri import Uri, UriError, parse_uri

__all__ = ["authorization_server_urls", "check_issuer", "check_url", "is_loopback_url", "protected_resource_urls"]

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_RESOURCE: Final = "/.well-known/oauth-protected-resource"
_SERVER: Final = "/.well-known/oauth-authorization-server"
_OPENID: Final = "/.well-known/openid-configuration"


def _host(uri: Uri) -> str:
    authority = uri.authority or ""
    if authority.startswith("["):
        return authority.partition("]")[0].lower() + "]"
    return authority.partition(":")[0].lower()


def is_loopback_url(url: str) -> bool:
    """Whether a URL names this machine by a literal address or `localhost`."""
    try:
        return _host(parse_uri(url)) in _LOOPBACK
    except UriError:
        return False


def check_url(url: str, what: str) -> Uri:
    """Take an endpoint's URL apart.

    Args:
        url: the URL.
        what: its name in an error.

    Raises:
        ValueError: it is not https (or http on loopback), or has user information or a fragment. The message does not
            repeat it.
    """
    try:
        uri = parse_uri(url)
    except UriError as exc:
        raise ValueError(f"{what}: {exc}") from None
    if not uri.authority or not (uri.scheme == "https" or (uri.scheme == "http" and _host(uri) in _LOOPBACK)):
        raise ValueError(f"{what} must be an https URL; http is for loopback only")
    if uri.fragment is not None:
        raise ValueError(f"{what} must not have a fragment")
    return uri


def check_issuer(url: str, what: str) -> Uri:
    """The same for an issuer, which has no query besides (RFC 8414 section 2).

    Raises:
        ValueError: as `check_url`, or it has a query.
    """
    uri = check_url(url, what)
    if uri.query is not None:
        raise ValueError(f"{what} must not have a query")
    return uri


def protected_resource_urls(resource: str) -> tuple[str, ...]:
    """Where the metadata of a resource may be, in the order to look: with its path inserted, then at the root.

    RFC 9728 section 3.1; MCP authorization, protected resource metadata discovery.

    Raises:
        ValueError: `resource` is no acceptable identifier.
    """
    uri = check_url(resource, "resource")
    root = f"{uri.scheme}://{uri.authority}{_RESOURCE}"
    query = "" if uri.query is None else f"?{uri.query}"
    path = uri.path.rstrip("/")
    return (root + path + query, root) if path or query else (root,)


def authorization_server_urls(issuer: str) -> tuple[str, ...]:
    """Where the metadata of an authorization server may be, in the order to look.

    RFC 8414 section 3.1 and OpenID Connect Discovery; MCP authorization, authorization server metadata discovery.

    Raises:
        ValueError: `issuer` is no acceptable identifier.
    """
    uri = check_issuer(issuer, "issuer")
    origin = f"{uri.scheme}://{uri.authority}"
    path = uri.path.rstrip("/")
    inserted = (origin + _SERVER + path, origin + _OPENID + path)
    return (*inserted, origin + path + _OPENID) if path else inserted
