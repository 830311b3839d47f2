"""The authorization endpoint: from a request to a person's consent, and to a code (RFC 6749 section 4.1, RFC 9700).

Rules of this file:
- Until client and redirect URI are known to belong together, nothing is sent anywhere: the person reads the error.
- PKCE with S256 and a resource are demanded (MCP authorization). Every answer, also an error, names its issuer (RFC
  9207).
- A consent belongs to the browser that was shown the page: by a cookie that no page can read or set, and a token in the
  form. It is given once, within `Settings.consent_seconds`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ...auth.errors import OAuthError
from .clients import Clients
from .http import Reply, Request
from .ledger import Family, Ledger
from .pages import consent_page, error_page
from .people import CODE, DevClient, User
from .redirects import answer_url, is_registered
from .settings import Settings, narrowed
from .wire import Refusal, form, parameters

__all__ = ["Consent"]

_COOKIE: Final = "garrison-consent"
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_MOST: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Asked:
    """An authorization request that was checked."""

    client: DevClient
    redirect_uri: str
    state: str | None
    challenge: str
    resource: str
    scopes: tuple[str, ...]
    key: str | None


@dataclass(frozen=True, slots=True)
class _Pending:
    asked: _Asked
    expires: float


class Consent:
    """Answers `authorize` and `consent`.

    Args:
        settings: of the server.
        clients: who may ask.
        ledger: keeps codes.
    """

    def __init__(self, settings: Settings, clients: Clients, ledger: Ledger) -> None:
        self._settings = settings
        self._clients = clients
        self._ledger = ledger
        self._secret = secrets.token_bytes(32)
        self._pending: dict[str, _Pending] = {}

    async def authorize(self, request: Request, fault: Refusal | None = None) -> Reply:
        """The endpoint that a browser is sent to.

        Args:
            request: of the browser.
            fault: what to answer in place of the page, once it is known where.
        """
        if request.method != "GET":
            return error_page("Only GET is served here.", 405)
        try:
            given = parameters(request.query)
            client, redirect_uri = await self._whose(given)
        except Refusal as exc:
            return error_page(exc.description, exc.status)
        state = given.get("state")
        try:
            if fault is not None:
                raise fault
            asked = self._checked(client, redirect_uri, state, given)
        except Refusal as exc:
            return self._error(redirect_uri, state, exc)
        at_once = self._settings.auto_approve
        if at_once is not None:
            return self._approved(asked, self._settings.users[at_once])
        if given.get("prompt") == "none":
            return self._error(redirect_uri, state, Refusal(OAuthError.LOGIN_REQUIRED, "nobody has signed in"))
        return self._page(request, asked)

    async def _whose(self, given: Mapping[str, str]) -> tuple[DevClient, str]:
        client = await self._clients.find(given.get("client_id"))
        redirect_uri = given.get("redirect_uri")
        if redirect_uri is None or not is_registered(redirect_uri, client.redirect_uris):
            raise Refusal(OAuthError.INVALID_REQUEST, "redirect_uri is not one that the client has registered.")
        return client, redirect_uri

    def _checked(self, client: DevClient, redirect_uri: str, state: str | None, given: Mapping[str, str]) -> _Asked:
        if given.get("response_type") != "code":
            raise Refusal(OAuthError.UNSUPPORTED_RESPONSE_TYPE, "response_type must be code")
        if given.get("response_mode", "query") != "query":
            raise Refusal(OAuthError.INVALID_REQUEST, "response_mode must be query")
        if not client.may(CODE):
            raise Refusal(OAuthError.UNAUTHORIZED_CLIENT, "the client may not use authorization_code")
        challenge, key = given.get("code_challenge", ""), given.get("dpop_jkt")
        if given.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
            raise Refusal(OAuthError.INVALID_REQUEST, "PKCE is needed: code_challenge, with S256")
        if key is not None and not _THUMBPRINT.fullmatch(key):
            raise Refusal(OAuthError.INVALID_REQUEST, "dpop_jkt is no thumbprint")
        resource = self._settings.resource(given.get("resource"))
        scopes = self._settings.asked_scopes(given.get("scope"))
        return _Asked(client, redirect_uri, state, challenge, resource, scopes, key)

    def _page(self, request: Request, asked: _Asked) -> Reply:
        settings = self._settings
        now = settings.clock()
        self._pending = {each: kept for each, kept in self._pending.items() if kept.expires > now}
        while len(self._pending) >= _MOST:
            del self._pending[next(iter(self._pending))]
        browser = request.cookie(_COOKIE) or secrets.token_urlsafe(32)
        transaction = secrets.token_urlsafe(24)
        self._pending[transaction] = _Pending(asked, now + settings.consent_seconds)
        cookie = f"{_COOKIE}={browser}; Path=/; Max-Age={int(settings.consent_seconds)}; HttpOnly; SameSite=Lax"
        return consent_page(
            action=urlsplit(settings.endpoint("consent")).path,
            hidden=(("transaction", transaction), ("csrf", self._token(transaction, browser))),
            client=asked.client,
            redirect_uri=asked.redirect_uri,
            resource=asked.resource,
            scopes=asked.scopes,
            users=settings.users.values(),
            headers=(("Set-Cookie", cookie),),
        )

    def _token(self, transaction: str, browser: str) -> str:
        """What a form has to bring: of this transaction, and of the browser that was shown its page."""
        return hmac.new(self._secret, f"{transaction} {browser}".encode(), hashlib.sha256).hexdigest()

    async def consent(self, request: Request) -> Reply:
        """Where the form of the page goes."""
        settings = self._settings
        try:
            given = form(request)
        except Refusal as exc:
            return error_page(exc.description, exc.status)
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
        own = f"http://{request.headers.get('host', '')}"  # the listener has checked that it is one of its names
        if site != "same-origin" or origin not in (None, own):
            return error_page("The form was sent from another page.", 403)
        transaction, browser = given.get("transaction", ""), request.cookie(_COOKIE) or ""
        pending = self._pending.get(transaction)
        if (
            pending is None
            or pending.expires <= settings.clock()
            or not hmac.compare_digest(self._token(transaction, browser).encode(), given.get("csrf", "").encode())
        ):
            return error_page(
                "This consent has ended, or belongs to another browser. Start again in your program.", 403
            )
        del self._pending[transaction]
        asked = pending.asked
        if "deny" in given:
            denied = Refusal(OAuthError.ACCESS_DENIED, "the person said no")
            return self._error(asked.redirect_uri, asked.state, denied)
        user = settings.users.get(given.get("user", ""))
        if user is None:
            return error_page("There is no such user.")
        return self._approved(asked, user)

    def _approved(self, asked: _Asked, user: User) -> Reply:
        granted = narrowed(asked.scopes, user.scopes)
        if asked.scopes and not granted:
            refusal = Refusal(OAuthError.ACCESS_DENIED, "the person has none of the scopes")
            return self._error(asked.redirect_uri, asked.state, refusal)
        family = Family(asked.client.client_id, user.name, asked.resource, granted, tenant=user.tenant, key=asked.key)
        code = self._ledger.code(
            family,
            redirect_uri=asked.redirect_uri,
            challenge=asked.challenge,
            seconds=self._settings.code_seconds,
        )
        return self._answer(asked.redirect_uri, {"code": code}, asked.state)

    def _error(self, redirect_uri: str, state: str | None, refusal: Refusal) -> Reply:
        members = {"error": refusal.error, "error_description": refusal.description}
        return self._answer(redirect_uri, members, state)

    def _answer(self, redirect_uri: str, members: dict[str, str], state: str | None) -> Reply:
        if state is not None:
            members["state"] = state
        members["iss"] = self._settings.issuer
        fields = (
            ("Location", answer_url(redirect_uri, members)),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
        )
        return Reply(303, b"", fields)
