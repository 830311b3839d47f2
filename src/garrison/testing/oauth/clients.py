"""The programs that may ask: registered ones, those known by a document, and those that register themselves.

Rules of this file:
- A client proves itself in the one way that it is registered for; two ways at once are refused (RFC 6749 section 2.3).
- Who cannot prove it learns no more than that (`invalid_client`).
"""

from __future__ import annotations

import secrets
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hmac import compare_digest
from typing import Final, cast
from urllib.parse import unquote_plus

from ...auth.errors import OAuthError
from ...errors import ConfigurationError, ParseError
from ...policy.secret import Secret
from .assertions import Assertions, claims_of
from .documents import DocumentRefused, Documents, is_document_url
from .http import Request
from .people import CLIENT_CREDENTIALS, CODE, REFRESH, DevClient
from .redirects import check_redirect_uri, is_local
from .settings import Settings
from .wire import Refusal, document

__all__ = ["ASSERTION_TYPE", "METHODS", "Clients"]

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
METHODS: Final = ("none", "client_secret_basic", "client_secret_post", "private_key_jwt")
_GRANTS: Final = frozenset({CODE, REFRESH, CLIENT_CREDENTIALS})
_ASSERTION_SECONDS: Final = 300.0
_MOST: Final = 1_000


class Clients:
    """Finds, authenticates and registers clients.

    Args:
        settings: of the server.
        clients: the registered ones.
        documents: fetches those that are known by a document; None where none is.
        assertions: reads what they sign.
    """

    def __init__(
        self,
        settings: Settings,
        clients: Iterable[DevClient],
        documents: Documents | None,
        assertions: Assertions,
    ) -> None:
        self._settings = settings
        self._documents = documents
        self._assertions = assertions
        self._known: dict[str, DevClient] = {client.client_id: client for client in clients}

    def add(self, client: DevClient) -> None:
        """Register a client, in place of an older one of its id."""
        self._known[client.client_id] = client

    def remove(self, client_id: str) -> None:
        """Forget a client."""
        self._known.pop(client_id, None)

    async def find(self, client_id: str | None) -> DevClient:
        """The client of an id.

        Raises:
            Refusal: there is none.
        """
        if client_id is None:
            raise Refusal(OAuthError.INVALID_REQUEST, "client_id is missing")
        known = self._known.get(client_id)
        if known is not None:
            return known
        if self._documents is not None and is_document_url(client_id):
            try:
                return await self._documents.client(client_id)
            except DocumentRefused as exc:
                raise Refusal(OAuthError.INVALID_CLIENT, str(exc)) from None
        raise Refusal(OAuthError.INVALID_CLIENT, "the client is not known")

    async def authenticate(self, request: Request, form: Mapping[str, str]) -> DevClient:
        """The client that sends a form, proven where it can prove itself.

        Raises:
            Refusal: it is not known, or does not prove itself as it is registered to.
        """
        authorization = request.headers.get("authorization")
        shown = [authorization is not None, "client_secret" in form, "client_assertion" in form]
        if sum(shown) > 1:
            raise Refusal(OAuthError.INVALID_REQUEST, "more than one way to authenticate the client")
        if authorization is not None:
            client_id, secret = _basic(authorization)
            if form.get("client_id", client_id) != client_id:
                raise Refusal(OAuthError.INVALID_REQUEST, "client_id is not that of the Authorization field")
            return await self._by_secret(client_id, secret, "client_secret_basic")
        if "client_secret" in form:
            return await self._by_secret(form.get("client_id"), form["client_secret"], "client_secret_post")
        if "client_assertion" in form:
            return await self._by_assertion(form)
        client = await self.find(form.get("client_id"))
        if client.confidential:
            raise _unproven("the client has to authenticate")
        return client

    async def _by_secret(self, client_id: str | None, secret: str, method: str) -> DevClient:
        basic = method == "client_secret_basic"
        try:
            client = await self.find(client_id)
        except Refusal as exc:
            if exc.error == OAuthError.INVALID_CLIENT:
                raise _unproven("the client is not known, or its secret is another", basic=basic) from None
            raise
        kept = client.secret.reveal() if isinstance(client.secret, Secret) else client.secret
        right = kept is not None and compare_digest(kept.encode(), secret.encode("utf-8", "surrogatepass"))
        if method not in client.methods or not right:
            raise _unproven("the client is not known, or its secret is another", basic=basic)
        return client

    async def _by_assertion(self, form: Mapping[str, str]) -> DevClient:
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise Refusal(OAuthError.INVALID_REQUEST, f"client_assertion_type must be {ASSERTION_TYPE}")
        assertion = form["client_assertion"]
        named = claims_of(assertion).get("sub")
        client = await self.find(named if isinstance(named, str) else form.get("client_id"))
        if "private_key_jwt" not in client.methods or client.jwks is None:
            raise _unproven("the client does not use private_key_jwt")
        if form.get("client_id", client.client_id) != client.client_id:
            raise _unproven("client_id is not the subject of the assertion")
        settings = self._settings
        claims = self._assertions.read(
            assertion,
            client.jwks,
            issuer=client.client_id,
            audiences=(settings.issuer, settings.endpoint("token")),
            typ=None,
            error=OAuthError.INVALID_CLIENT,
            longest=_ASSERTION_SECONDS,
        )
        if claims.get("sub") != client.client_id:
            raise _unproven("sub of the assertion is not the client")
        return client

    def register(self, request: Request) -> dict[str, object]:
        """Register a client that asks for it (RFC 7591 section 3).

        Returns:
            The members of the answer.

        Raises:
            Refusal: its metadata is not acceptable.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise _metadata("the body must be application/json")
        try:
            value = document(request.body)
        except ParseError:
            raise _metadata("the body is not strict JSON") from None
        if not isinstance(value, dict):
            raise _metadata("the body is no JSON object")
        members = cast("dict[str, object]", value)
        method = members.get("token_endpoint_auth_method", "client_secret_basic")
        grants = _texts(members, "grant_types") or (CODE,)
        if method not in METHODS:
            raise _metadata("token_endpoint_auth_method is not supported")
        if not set(grants) <= _GRANTS or (CLIENT_CREDENTIALS in grants and method == "none"):
            raise _metadata("grant_types names one that is not for such a client")
        uris = _redirect_uris(members, needed=CODE in grants)
        keys, name = members.get("jwks"), members.get("client_name", "")
        if (method == "private_key_jwt") != isinstance(keys, dict) or not isinstance(name, str):
            raise _metadata("jwks goes with private_key_jwt, and client_name is a text")
        if len(self._known) >= _MOST:
            raise Refusal(OAuthError.TEMPORARILY_UNAVAILABLE, "too many clients", status=503)
        client = DevClient(
            f"dynamic-{secrets.token_urlsafe(12)}",
            redirect_uris=uris,
            jwks=cast("dict[str, object]", keys) if isinstance(keys, dict) else None,
            name=name,
            method=str(method),
            grants=grants,
        )
        answer: dict[str, object] = {
            "client_id": client.client_id,
            "client_id_issued_at": int(self._settings.clock()),
            "client_name": name,
            "redirect_uris": uris,
            "grant_types": grants,
            "response_types": ("code",) if CODE in grants else (),
            "token_endpoint_auth_method": method,
            "application_type": members.get("application_type", "web"),
        }
        if str(method).startswith("client_secret"):
            secret = secrets.token_urlsafe(32)
            client = replace(client, secret=Secret(secret))
            answer |= {"client_secret": secret, "client_secret_expires_at": 0}
        self.add(client)
        return answer


def _basic(authorization: str) -> tuple[str, str]:
    """Id and secret, each form-encoded (RFC 6749 section 2.3.1)."""
    scheme, _, value = authorization.partition(" ")
    try:
        text = b64decode(value.strip(" "), validate=True).decode("utf-8")
        client_id, colon, secret = text.partition(":")
        if scheme.lower() == "basic" and colon:
            return unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except ValueError:
        pass
    raise _unproven("Authorization is not of the Basic scheme", basic=True)


def _unproven(text: str, *, basic: bool = False) -> Refusal:
    headers = (("WWW-Authenticate", 'Basic realm="token"'),) if basic else ()
    return Refusal(OAuthError.INVALID_CLIENT, text, headers=headers)


def _metadata(text: str) -> Refusal:
    return Refusal(OAuthError.INVALID_CLIENT_METADATA, text)


def _texts(members: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = members.get(name, [])
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(item, str) for item in items):
        raise _metadata(f"{name} must be a list of texts")
    return tuple(str(item) for item in items)


def _redirect_uris(members: Mapping[str, object], *, needed: bool) -> tuple[str, ...]:
    """Those of the metadata, as its `application_type` allows (OpenID Connect Registration section 2)."""
    uris, kind = _texts(members, "redirect_uris"), members.get("application_type", "web")
    if kind not in ("web", "native"):
        raise _metadata("application_type must be web or native")
    if needed and not uris:
        raise Refusal(OAuthError.INVALID_REDIRECT_URI, "redirect_uris is missing")
    for uri in uris:
        try:
            check_redirect_uri(uri)
        except (ValueError, ConfigurationError) as exc:
            raise Refusal(OAuthError.INVALID_REDIRECT_URI, str(exc)) from None
        if kind == "web" and is_local(uri):
            raise Refusal(OAuthError.INVALID_REDIRECT_URI, "redirect URIs on loopback are for application_type native")
    return uris
