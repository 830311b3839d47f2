"""From the address of an MCP server to its authorization server: what both say of themselves, checked.

Rules of this file:
- The order of MCP: the challenge's `resource_metadata`, the well-known address with the path, the one at the root. The
  first document that is JSON counts. One that is for somebody else ends the attempt before an authorization server is
  asked; the next address is tried only where there was no document.
- `resource` is the server's own address or a parent path of it at the same origin (RFC 9728 section 3.3). `https://host`
  and `https://host/` are one; nothing else is normalized in a path.
- `issuer` is compared as it is written (RFC 8414 section 3.3).
- An authorization server of the public Internet does not send anybody inside: its addresses name no loopback and no
  private address.
- Documents are fetched by `SafeFetch`: 256 KiB, two redirects within the origin.

Spec: 2026-07-28 basic/authorization, "Authorization Server Discovery", "Scope Selection Strategy"; RFC 9728; RFC 8414;
OpenID Connect Discovery. 2025-03-26 basic/authorization 2.3 with `legacy=True`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from ...errors import AuthorizationFailed, ClientError, ConfigurationError, ParseError
from ...policy.limits import Limits
from ...protocol.json import decoder
from ...safe.addresses import is_address, is_public
from ...safe.fetch import SafeFetch
from ...transports.http.url import Endpoint, UrlError, parse_endpoint
from ..challenge import ChallengeError, WwwAuthenticate
from ..metadata import MAX_BYTES, AuthorizationServerMetadata, MetadataError, ProtectedResourceMetadata
from ..urls import authorization_server_urls, check_url, protected_resource_urls
from .words import refused

if TYPE_CHECKING:
    import ssl

    from ...policy.tls import TlsClientConfig

__all__ = [
    "Discovered",
    "canonical_resource",
    "choose_scopes",
    "discover",
    "discover_resource",
    "discover_server",
    "fetch_for",
    "read_challenge",
]

MAX_SCOPES: Final = 50
"""Scopes that one request asks for."""
MAX_SCOPE_CHARS: Final = 1_000
"""Characters of them together."""

_REDIRECTS: Final = 2
_LOCAL: Final = ("127.0.0.1:*", "localhost:*", "[::1]:*")
_SCOPE: Final = re.compile(r"[!#-\[\]-~]++")
_OFFLINE: Final = "offline_access"
_LEGACY: Final = {"MCP-Protocol-Version": "2025-03-26"}
_decode = decoder(Limits(json_depth=16, json_nodes=10_000, json_members=1_000, json_items=2_000))


@dataclass(frozen=True, slots=True)
class Discovered:
    """What an authorization begins with."""

    resource: str
    """The identifier of the server, as its metadata writes it: what requests name and tokens are for."""
    server: AuthorizationServerMetadata
    metadata: ProtectedResourceMetadata | None
    """None for a server of 2025-03-26, which has none."""


def fetch_for(
    url: str, *, private_hosts: Iterable[str] = (), tls: TlsClientConfig | ssl.SSLContext | None = None
) -> SafeFetch:
    """What fetches everything of OAuth for one MCP server.

    Args:
        url: the server. Whoever runs the program chose it, so its own host and port may be asked wherever it is; and
            where it is on loopback, so may every port of loopback.
        private_hosts: `host` or `host:port` of authorization servers that are not on the public Internet.
        tls: whom to believe, in place of the platform's roots.

    Raises:
        ConfigurationError: an argument is not of its form.
    """
    try:
        endpoint = parse_endpoint(url)
    except UrlError as exc:
        raise ConfigurationError(f"the server's address: {exc}") from None
    hosts = (*private_hosts, _host_port(endpoint), *(_LOCAL if endpoint.loopback else ()))
    return SafeFetch(private_hosts=hosts, max_bytes=MAX_BYTES, redirects=_REDIRECTS, tls=tls)


def read_challenge(*values: str) -> WwwAuthenticate | None:
    """The challenge that a client follows, of the `WWW-Authenticate` fields of an answer.

    Args:
        values: the values of the fields, decoded as Latin-1.

    Returns:
        Of the challenges for Bearer and DPoP, the first that says where the metadata is; else the first; else None.

    Raises:
        AuthorizationFailed: the fields are none of RFC 9110 section 11.6.1, too long, or name a parameter twice.
    """
    try:
        challenges = WwwAuthenticate.parse(*values)
    except ChallengeError as exc:
        raise refused(f"the server's WWW-Authenticate cannot be read: {exc}") from None
    ours = [each for each in challenges if each.scheme.lower() in ("bearer", "dpop")]
    return next((each for each in ours if each.resource_metadata is not None), ours[0] if ours else None)


def canonical_resource(url: str) -> str:
    """The identifier of an MCP server whose metadata says none: its address, without a slash that is all its path.

    Raises:
        AuthorizationFailed: the address is neither https nor loopback, or has a fragment.
    """
    endpoint = _server(url)
    return endpoint.origin + ("" if endpoint.target == "/" else endpoint.target)


async def discover(
    fetch: SafeFetch,
    url: str,
    challenge: WwwAuthenticate | None,
    *,
    issuer: str | None = None,
    trust: Callable[[str], bool] | None = None,
    legacy: bool = False,
) -> Discovered:
    """Find the authorization server of an MCP server, and what it is able to do.

    Args:
        fetch: of `fetch_for`.
        url: the MCP server, as the client was given it.
        challenge: of `read_challenge`.
        issuer: the authorization server where the client is registered; None takes the first that the server names.
        trust: as of `discover_resource`.
        legacy: where the server has no metadata, go on as 2025-03-26 has it: the server's origin is the authorization
            server, and where that has no metadata either, its endpoints are `/authorize`, `/token` and `/register`.

    Raises:
        AuthorizationFailed: there is no document that can be used, or `issuer` is not among those that it names.
    """
    metadata = await _find_resource(fetch, url, challenge, trust)
    if metadata is None:
        if not legacy:
            raise _no_resource_metadata(url)
        server = await _legacy_server(fetch, _server(url).origin)
        if issuer is not None and server.issuer != issuer:
            raise _other_issuer()
        return Discovered(canonical_resource(url), server, None)
    if issuer is not None and issuer not in metadata.authorization_servers:
        raise _other_issuer()
    server = await discover_server(fetch, issuer or metadata.authorization_servers[0])
    return Discovered(metadata.resource, server, metadata)


async def discover_resource(
    fetch: SafeFetch,
    url: str,
    challenge: WwwAuthenticate | None,
    *,
    trust: Callable[[str], bool] | None = None,
) -> ProtectedResourceMetadata:
    """The metadata of an MCP server (RFC 9728).

    Args:
        fetch: of `fetch_for`.
        url: the MCP server, as the client was given it.
        challenge: of `read_challenge`; its `resource_metadata` is asked first.
        trust: says whether metadata at an address of another origin may be believed. None believes none.

    Returns:
        The document. Its `resource` is what all requests name.

    Raises:
        AuthorizationFailed: there is none, or it is not this server's. No authorization server was asked.
    """
    found = await _find_resource(fetch, url, challenge, trust)
    if found is None:
        raise _no_resource_metadata(url)
    return found


async def discover_server(fetch: SafeFetch, issuer: str) -> AuthorizationServerMetadata:
    """The metadata of an authorization server (RFC 8414, OpenID Connect Discovery).

    Args:
        fetch: of `fetch_for`.
        issuer: its identifier, exactly as it was named.

    Raises:
        AuthorizationFailed: there is none, it is of another issuer, or an address in it is not acceptable.
    """
    try:
        urls = authorization_server_urls(issuer)
    except ValueError as exc:
        raise refused(f"the authorization server cannot be used: {exc}") from None
    document = await _first(fetch, urls, "authorization server")
    if document is None:
        raise AuthorizationFailed("the authorization server publishes no metadata (RFC 8414, OpenID Connect Discovery)")
    return _checked_server(document, issuer)


def choose_scopes(
    challenge: WwwAuthenticate | None,
    metadata: ProtectedResourceMetadata | None,
    server: AuthorizationServerMetadata | None = None,
    *,
    held: Iterable[str] = (),
    refresh: bool = False,
    approved: Collection[str] | None = None,
    approve: Callable[[frozenset[str]], bool] | None = None,
) -> tuple[str, ...]:
    """The scopes to ask for: those of the challenge, else those of the metadata, else none; besides those held already.

    Args:
        challenge: what the server answered; its scopes are authoritative for the request that it refused.
        metadata: of the server; its `scopes_supported` counts where the challenge names no scope and none are held.
        server: the authorization server, whose `scopes_supported` says whether it knows `offline_access`.
        held: the scopes that were asked for before: a step-up keeps them.
        refresh: ask for `offline_access` as well, where the authorization server lists it and other scopes are asked
            for; alone it would take the place of the server's defaults.
        approved: the scopes that may be asked for without a question. None: all.
        approve: is asked about scopes outside `approved`, and says whether they may be.

    Returns:
        The scopes in order; empty to leave `scope` out.

    Raises:
        AuthorizationFailed: they are more than 50 or longer than 1 000 characters, one is no scope of RFC 6749 section
            3.3, or they were not approved.
    """
    before = tuple(held)
    wanted = challenge.scope if challenge is not None else ()
    if not wanted and not before and metadata is not None:
        wanted = metadata.scopes_supported or ()
    chosen = list(dict.fromkeys((*before, *wanted)))
    if len(chosen) > MAX_SCOPES or len(" ".join(chosen)) > MAX_SCOPE_CHARS:
        raise refused(f"the server asks for more than {MAX_SCOPES} scopes or {MAX_SCOPE_CHARS} characters of them")
    if not all(_SCOPE.fullmatch(scope) for scope in chosen):
        raise refused("the server asks for a scope that is none of RFC 6749 section 3.3")
    new: frozenset[str] = frozenset() if approved is None else frozenset(chosen).difference(approved)
    if new and (approve is None or not approve(new)):
        raise refused(f"the server asks for {len(new)} scopes that were not approved", setting="approve_scopes")
    if refresh and chosen and server is not None and _OFFLINE in (server.scopes_supported or ()):
        chosen += [_OFFLINE] if _OFFLINE not in chosen else []
    return tuple(chosen)


# Documents


async def _find_resource(
    fetch: SafeFetch, url: str, challenge: WwwAuthenticate | None, trust: Callable[[str], bool] | None
) -> ProtectedResourceMetadata | None:
    here = _server(url)
    named = None if challenge is None else challenge.resource_metadata
    urls = list(protected_resource_urls(canonical_resource(url)))
    if named is not None:
        _check_named(named, here, trust)
        urls = [named, *(each for each in urls if each != named)]
    document = await _first(fetch, urls, "server")
    return None if document is None else _checked_resource(document, here)


def _check_named(named: str, here: Endpoint, trust: Callable[[str], bool] | None) -> None:
    """Refuse an address of metadata that is not for this server to name."""
    try:
        check_url(named, "resource_metadata")
        there = parse_endpoint(named)
    except ValueError as exc:
        raise refused(f"the server's challenge: {exc}") from None
    if there.origin != here.origin and (trust is None or not trust(named)):
        raise refused(
            f"the server's challenge names metadata of another origin, {there.origin}",
            setting="trust_resource_metadata",
        )


def _checked_resource(document: bytes, here: Endpoint) -> ProtectedResourceMetadata:
    try:
        members = _decode(document)
        resource = cast("dict[str, object]", members).get("resource") if isinstance(members, dict) else None
        if not isinstance(resource, str) or not _is_of(resource, here):
            raise MetadataError("resource: the document is of another server")
        return ProtectedResourceMetadata.read(document, resource)
    except (MetadataError, ParseError) as exc:
        raise refused(f"the server's protected resource metadata cannot be used: {exc}") from None


def _is_of(resource: str, here: Endpoint) -> bool:
    """Whether an identifier is that of the server, or of a path above it."""
    try:
        check_url(resource, "resource")
        there = parse_endpoint(resource)
    except ValueError:
        return False
    if there.origin != here.origin:
        return False
    above = there.target if there.target.endswith("/") else there.target + "/"
    return there.target == here.target or here.target.partition("?")[0].startswith(above)


def _checked_server(document: bytes, *issuers: str) -> AuthorizationServerMetadata:
    """The metadata in a document that may be of one of these issuers, which are spellings of one."""
    problem: MetadataError | None = None
    for issuer in issuers:
        try:
            found = AuthorizationServerMetadata.read(document, issuer)
        except MetadataError as exc:
            problem = exc
            continue
        outside = not _inside(found.issuer)
        if outside and any(map(_inside, _endpoints(found))):
            raise refused("the authorization server's metadata names an address that is not public")
        return found
    raise refused(f"the authorization server's metadata cannot be used: {problem}")


def _endpoints(found: AuthorizationServerMetadata) -> list[str]:
    given = (
        found.authorization_endpoint,
        found.token_endpoint,
        found.jwks_uri,
        found.registration_endpoint,
        found.revocation_endpoint,
        found.introspection_endpoint,
        found.pushed_authorization_request_endpoint,
    )
    return [each for each in given if each is not None]


def _inside(url: str) -> bool:
    """Whether an address is of this machine or of a private network, by its very text."""
    try:
        endpoint = parse_endpoint(url)
    except UrlError:
        return True
    return endpoint.loopback or (is_address(endpoint.host) and not is_public(endpoint.host))


async def _legacy_server(fetch: SafeFetch, origin: str) -> AuthorizationServerMetadata:
    """The authorization server of 2025-03-26, which is the MCP server's origin."""
    urls = (f"{origin}/.well-known/oauth-authorization-server",)
    document = await _first(fetch, urls, "server", _LEGACY)
    if document is not None:
        # Libraries of that time write an origin as an issuer with a slash.
        return _checked_server(document, origin, origin + "/")
    return AuthorizationServerMetadata(
        issuer=origin,
        authorization_endpoint=f"{origin}/authorize",
        token_endpoint=f"{origin}/token",
        registration_endpoint=f"{origin}/register",
        response_types_supported=("code",),
        grant_types_supported=("authorization_code", "refresh_token"),
        # That revision demands PKCE of everybody, so it stands for the metadata that would say so.
        code_challenge_methods_supported=("S256",),
        token_endpoint_auth_methods_supported=("none", "client_secret_basic", "client_secret_post"),
    )


async def _first(
    fetch: SafeFetch, urls: Iterable[str], whose: str, headers: Mapping[str, str] | None = None
) -> bytes | None:
    """The first document at one of these addresses. An answer of another status or kind is none."""
    for url in urls:
        try:
            answer = await fetch.get(
                url, headers={"Accept": "application/json", **(headers or {})}, same_origin=True, redirects=_REDIRECTS
            )
        except ClientError as exc:
            raise AuthorizationFailed(f"the metadata of the {whose} cannot be fetched: {exc}") from exc
        if answer.status == 200 and (answer.media_type == "application/json" or answer.media_type.endswith("+json")):
            return answer.body
    return None


def _server(url: str) -> Endpoint:
    try:
        check_url(url, "the server's address")
        return parse_endpoint(url)
    except ValueError as exc:
        raise refused(str(exc)) from None


def _host_port(endpoint: Endpoint) -> str:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}"


def _no_resource_metadata(url: str) -> AuthorizationFailed:
    return AuthorizationFailed(
        f"{_server(url).origin} asks for a token and publishes no protected resource metadata (RFC 9728); "
        "for a server of revision 2025-03-26 set legacy_discovery=True"
    )


def _other_issuer() -> AuthorizationFailed:
    return refused(
        "the server no longer names the authorization server where this client is registered; register with the new "
        "one if the change is meant",
        setting="issuer",
    )
