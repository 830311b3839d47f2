"""Being known to an authorization server: registered beforehand, by a document at a URL, or by asking to be.

Rules of this file:
- The order of MCP: pre-registered, metadata document, dynamic registration (only where it is allowed), and then the
  error that tells the user to give `client_id`.
- A pre-registered client that has an `issuer` is shown to no other authorization server.
- What a dynamic registration answers is compared with what was asked for. A client whose redirect URIs, authentication,
  grants or scopes were changed on the way is not used.
- The redirect URIs of a client are https, or http on loopback.

Spec: 2026-07-28 basic/authorization, "Client Registration"; draft-ietf-oauth-client-id-metadata-document-00; RFC 7591;
RFC 8252 section 7.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import msgspec

from ... import events
from ...errors import AuthorizationFailed, ClientError, ConfigurationError, ParseError
from ...policy.limits import Limits
from ...policy.secret import Secret
from ...protocol.json import decoder
from ..metadata import MAX_BYTES, AuthorizationServerMetadata
from ..urls import check_url, is_loopback_url
from .words import cleaned, error_code, refused

if TYPE_CHECKING:
    from ...safe.fetch import Fetched, SafeFetch
    from .authentication import ClientAuthentication

__all__ = ["ClientRegistration", "Registered", "check_metadata_url", "client_metadata_document"]

_GRANTS: Final = ("authorization_code", "refresh_token")
_VISIBLE: Final = re.compile(r"[!-~][ -~]*")
_METHODS: Final = ("none", "client_secret_basic", "client_secret_post")
"""How a client that registered itself shows who it is; the first that the server knows. A secret that is not there
cannot leak."""
_LATEST: Final = 4102444800
"""2100-01-01: later than any secret ends."""

_decode = decoder(Limits(json_depth=16, json_nodes=10_000, json_members=1_000, json_items=2_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A client that an authorization server knows."""

    issuer: str
    """The authorization server."""
    client: ClientAuthentication
    how: Literal["pre-registered", "metadata document", "dynamic"]
    redirect_uri: str
    """Where its answers go; of loopback, the port may be another one each time."""
    secret: Secret | None = None
    """What a dynamic registration gave."""
    expires_at: int = 0
    """When the secret ends, in seconds since the epoch; 0: never."""

    def to_json(self) -> bytes:
        """A dynamic registration as it is kept, its secret included: for a credential store and nothing else.

        Raises:
            ValueError: it is no dynamic registration; others come from the configuration each time.
        """
        if self.how != "dynamic":
            raise ValueError("only a dynamic registration is kept")
        kept = _Kept(
            self.issuer,
            self.client.client_id,
            self.client.method,
            self.redirect_uri,
            None if self.secret is None else self.secret.reveal(),
            self.expires_at,
        )
        return msgspec.json.encode(kept)

    @classmethod
    def from_json(cls, kept: bytes, issuer: str, now: float) -> Registered | None:
        """What `to_json` gave; None where it is of another issuer, has ended, or is none.

        Args:
            kept: the bytes.
            issuer: the authorization server that is asked now.
            now: seconds since the epoch.
        """
        try:
            found = msgspec.json.decode(kept, type=_Kept)
            if found.issuer != issuer or (found.expires_at and found.expires_at <= now):
                return None
            return _dynamic(issuer, found.client_id, found.method, found.redirect_uri, found.secret, found.expires_at)
        except (msgspec.DecodeError, ValueError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRegistration:
    """How this client may be known; `register` takes the first way that an authorization server offers.

    Raises:
        ConfigurationError: the URL of the metadata document or the name is not of its form.
    """

    client: ClientAuthentication | None = None
    """The client as it is registered at `issuer`."""
    issuer: str | None = None
    """The authorization server that knows `client`. None: the caller knows that it is the one that is asked."""
    metadata_document: str | ClientAuthentication | None = None
    """The https URL of the document about this client, or a `PrivateKeyJwt` of which it is the `client_id`."""
    allow_dynamic_registration: bool = False
    """Ask an authorization server that offers nothing else to register this client. MCP deprecates it."""
    client_name: str = "Garrison"
    """What a person reads in the consent of a client that was registered dynamically."""
    _document: ClientAuthentication | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        document = self.metadata_document
        if document is not None:
            if isinstance(document, str):
                from .authentication import PublicClient

                document = PublicClient(document)
            check_metadata_url(document.client_id)
            object.__setattr__(self, "_document", document)
        _check_name(self.client_name)

    async def register(
        self, fetch: SafeFetch, server: AuthorizationServerMetadata, redirect_uri: str, scopes: Sequence[str] = ()
    ) -> Registered:
        """Be known to an authorization server.

        Args:
            fetch: for a dynamic registration.
            server: the metadata of the authorization server.
            redirect_uri: where answers are taken.
            scopes: what will be asked for.

        Raises:
            AuthorizationFailed: the server offers no way that is allowed, or does not register as it was asked to.
        """
        if self.client is not None:
            if self.issuer is not None and self.issuer != server.issuer:
                raise refused(
                    "the server's authorization server is not the one where this client is registered", setting="issuer"
                )
            return Registered(issuer=server.issuer, client=self.client, how="pre-registered", redirect_uri=redirect_uri)
        if self._document is not None and server.client_id_metadata_document_supported:
            return Registered(
                issuer=server.issuer, client=self._document, how="metadata document", redirect_uri=redirect_uri
            )
        if server.registration_endpoint is not None and self.allow_dynamic_registration:
            return await self._dynamic(fetch, server, server.registration_endpoint, redirect_uri, scopes)
        raise AuthorizationFailed(
            "the authorization server does not know this client: register it there and set client_id"
            + (
                "; or let it register itself with allow_dynamic_registration=True, which MCP deprecates"
                if server.registration_endpoint is not None and not self.allow_dynamic_registration
                else ""
            )
        )

    async def _dynamic(
        self,
        fetch: SafeFetch,
        server: AuthorizationServerMetadata,
        endpoint: str,
        redirect_uri: str,
        scopes: Sequence[str],
    ) -> Registered:
        """Dynamic client registration, RFC 7591 section 3."""
        events.record(
            "policy.relaxed",
            "this client registers itself at an authorization server, which MCP deprecates",
            setting="allow_dynamic_registration",
        )
        known = server.token_endpoint_auth_methods_supported
        method = next((each for each in _METHODS if each in known), None)
        if method is None:
            raise AuthorizationFailed(
                "the authorization server registers only clients that have a key: register this one there and set "
                "client_id"
            )
        asked: dict[str, object] = {
            "client_name": self.client_name,
            "redirect_uris": [redirect_uri],
            "grant_types": _GRANTS,
            "response_types": ("code",),
            "token_endpoint_auth_method": method,
            "application_type": "native" if is_loopback_url(redirect_uri) else "web",
        }
        if server.scopes_supported is not None:  # those of a resource need not be among them, and are no error there
            scopes = [scope for scope in scopes if scope in server.scopes_supported]
        if scopes:
            asked["scope"] = " ".join(scopes)
        try:
            answer = await fetch.post(
                endpoint,
                msgspec.json.encode(asked),
                media_type="application/json",
                headers={"Accept": "application/json"},
            )
        except ClientError as exc:
            raise AuthorizationFailed(f"the client cannot be registered: {exc}") from exc
        given = _answer(answer)
        _check_answer(given, redirect_uri, method, scopes)
        try:
            return _dynamic(
                server.issuer,
                given.client_id,
                method,
                redirect_uri,
                given.client_secret,
                given.client_secret_expires_at,
            )
        except ValueError as exc:
            raise refused(f"the registration cannot be used: {exc}") from None


def check_metadata_url(url: str) -> None:
    """Check the URL of a client's metadata document, which is its `client_id`.

    Raises:
        ConfigurationError: it is not https with a path, or has dot segments, a query, a fragment or user information
            (draft-ietf-oauth-client-id-metadata-document-00 section 3).
    """
    try:
        uri = check_url(url, "client_metadata_url")
    except ValueError as exc:
        raise ConfigurationError(str(exc)) from None
    segments = uri.path.split("/")
    if uri.scheme != "https" or not uri.path.strip("/") or uri.query is not None:
        raise ConfigurationError("client_metadata_url must be an https URL with a path and without a query")
    if any(segment.lower().replace("%2e", ".") in (".", "..") for segment in segments):
        raise ConfigurationError("client_metadata_url must not have dot segments")


def client_metadata_document(
    url: str,
    client_name: str,
    redirect_uris: Iterable[str],
    *,
    scopes: Iterable[str] = (),
    jwks_uri: str | None = None,
    client_uri: str | None = None,
    logo_uri: str | None = None,
) -> bytes:
    """The document to serve at a URL, so that authorization servers know the client by that URL.

    Args:
        url: where it will be served as `application/json`.
        client_name: what a person reads in the consent.
        redirect_uris: where answers are taken: https, or http on loopback. For a desktop program
            `http://127.0.0.1/callback`, whose port is free.
        scopes: those that the client asks for at most; empty leaves them open.
        jwks_uri: the public keys of a client that shows who it is with `private_key_jwt`. None: a public client.
        client_uri, logo_uri: its web page and picture, for the consent.

    Raises:
        ConfigurationError: something is not of its form.
    """
    check_metadata_url(url)
    _check_name(client_name)
    redirects = tuple(redirect_uris)
    members: dict[str, object] = {
        "client_id": url,
        "client_name": client_name,
        "redirect_uris": redirects,
        "grant_types": _GRANTS,
        "response_types": ("code",),
        "token_endpoint_auth_method": "none" if jwks_uri is None else "private_key_jwt",
        "application_type": "native" if all(map(is_loopback_url, redirects)) else "web",
    }
    if not redirects:
        raise ConfigurationError("redirect_uris: at least one is needed")
    others = {"jwks_uri": jwks_uri, "client_uri": client_uri, "logo_uri": logo_uri}
    named = {name: value for name, value in others.items() if value is not None}
    try:
        for redirect in redirects:
            check_url(redirect, "redirect_uris")
        for name, value in named.items():
            check_url(value, name)
    except ValueError as exc:
        raise ConfigurationError(str(exc)) from None
    scope = " ".join(scopes)
    return msgspec.json.format(msgspec.json.encode({**members, **({"scope": scope} if scope else {}), **named}))


def _check_name(name: str) -> None:
    if not name or len(name) > 200 or not name.isprintable():
        raise ConfigurationError("client_name must be 1 to 200 printable characters")


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A dynamic registration in a store."""

    issuer: str
    client_id: str
    method: str
    redirect_uri: str
    secret: str | None
    expires_at: int

    def __repr__(self) -> str:
        return "_Kept(***)"


class _Answer(msgspec.Struct, frozen=True):
    """What a registration endpoint answers (RFC 7591 section 3.2.1). What is absent was not changed."""

    client_id: str
    client_secret: str | None = None
    client_secret_expires_at: int = 0
    redirect_uris: tuple[str, ...] | None = None
    token_endpoint_auth_method: str | None = None
    grant_types: tuple[str, ...] | None = None
    response_types: tuple[str, ...] | None = None
    scope: str | None = None

    def __repr__(self) -> str:
        return "_Answer(***)"


class _Refusal(msgspec.Struct, frozen=True):
    """What it answers otherwise (section 3.2.2)."""

    error: str = ""
    error_description: str = ""


def _answer(answer: Fetched) -> _Answer:
    """The registration in an answer, or why there is none."""
    if answer.status not in (200, 201):
        raise _rejected(answer)
    if answer.media_type != "application/json":
        raise refused("the registration endpoint does not answer with JSON")
    try:
        return msgspec.convert(_read(answer.body), _Answer)
    except ParseError as exc:
        raise refused(f"the answer to the registration cannot be read: {exc.message}") from None
    except msgspec.ValidationError:
        raise refused("the answer to the registration is none of RFC 7591") from None


def _read(body: bytes) -> object:
    if len(body) > MAX_BYTES:
        raise ParseError(f"more than {MAX_BYTES} bytes")
    return _decode(body)


def _rejected(answer: Fetched) -> AuthorizationFailed:
    """The refusal of the server, in words that can be acted on."""
    said = _Refusal()
    if answer.media_type == "application/json":
        try:
            said = msgspec.convert(_read(answer.body), _Refusal)
        except (ParseError, msgspec.ValidationError):
            said = _Refusal()
    code = error_code(said.error)
    words = cleaned(said.error_description)
    text = f"the authorization server does not register this client ({code or f'status {answer.status}'})"
    text += f": {words}" if words else ""
    if code == "invalid_redirect_uri":
        text += "; set redirect_uri to one that it takes"
    return AuthorizationFailed(f"{text}; or register the client there and set client_id", error=code)


def _check_answer(given: _Answer, redirect_uri: str, method: str, scopes: Sequence[str]) -> None:
    """Refuse a registration that is not the one that was asked for."""
    checks: dict[str, Callable[[], bool]] = {
        "redirect_uris": lambda: given.redirect_uris is None or _same_redirect(given.redirect_uris, redirect_uri),
        "token_endpoint_auth_method": lambda: given.token_endpoint_auth_method in (None, method),
        "grant_types": lambda: _within(given.grant_types, _GRANTS, needed="authorization_code"),
        "response_types": lambda: _within(given.response_types, ("code",), needed="code"),
        "scope": lambda: not scopes or given.scope is None or set(given.scope.split()).issubset(scopes),
    }
    for name, holds in checks.items():
        if not holds():
            raise refused(
                f"the authorization server registered the client with another {name} than it was asked to; register "
                "the client there and set client_id",
                setting="client_id",
            )
    if method != "none" and not given.client_secret:
        raise refused("the authorization server registered the client without a secret, which it demands")


def _same_redirect(given: Collection[str], asked: str) -> bool:
    """Whether the redirect URI is the one that was asked for. The port of loopback is free (RFC 8252 section 7.3)."""
    return len(given) == 1 and all(
        each == asked or (is_loopback_url(each) and _portless(each) == _portless(asked)) for each in given
    )


def _portless(uri: str) -> tuple[str, str | None, str, str, str]:
    parts = urlsplit(uri)
    return parts.scheme, parts.hostname, parts.path, parts.query, parts.fragment


def _within(given: Collection[str] | None, asked: Collection[str], *, needed: str) -> bool:
    return given is None or (needed in given and set(given).issubset(asked))


def _dynamic(
    issuer: str, client_id: str, method: str, redirect_uri: str, secret: str | None, expires_at: int
) -> Registered:
    """A client that registered itself.

    Raises:
        ValueError: a part is not of its form. The message does not repeat it.
    """
    from .authentication import ClientSecret, PublicClient

    if not _VISIBLE.fullmatch(client_id) or len(client_id) > 2_000:
        raise ValueError("client_id must be visible ASCII of at most 2000 characters")
    if not 0 <= expires_at <= _LATEST:
        raise ValueError("client_secret_expires_at must be a time")
    check_url(redirect_uri, "redirect_uri")
    if method == "none":
        return Registered(issuer=issuer, client=PublicClient(client_id), how="dynamic", redirect_uri=redirect_uri)
    if not secret or not _VISIBLE.fullmatch(secret):
        raise ValueError("client_secret must be visible ASCII (RFC 6749 appendix A.2)")
    if method not in ("client_secret_basic", "client_secret_post"):
        raise ValueError("token_endpoint_auth_method is not one of a secret")
    kept = Secret(secret)
    return Registered(
        issuer=issuer,
        client=ClientSecret(client_id, kept, method=method),
        how="dynamic",
        redirect_uri=redirect_uri,
        secret=kept,
        expires_at=expires_at,
    )
