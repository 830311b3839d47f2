"""One authorization: a person is sent to the authorization server, and one answer comes back.

Rules of this file:
- Before the browser opens, everything is recorded that the answer is measured by: issuer, state, PKCE verifier,
  redirect URI, resource. Nothing of it is learnt from the answer.
- The state is looked at before anything else. A delivery without the right one is not awaited, says nothing and ends
  nothing. The right one counts once.
- Then no parameter may stand twice, then `iss` is compared (RFC 9207 section 2.4), and only then is the rest read,
  errors too. Of an answer that fails, nothing is shown.
- The code leaves in a token request for the recorded issuer, and nowhere else.

Spec: 2026-07-28 basic/authorization, "Authorization Response Validation"; OAuth 2.1 section 4.1; RFC 7636; RFC 8707;
RFC 9207; RFC 9700 sections 2.1 and 4.7.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from ...errors import AuthorizationFailed
from ...policy.secret import Secret
from ..metadata import AuthorizationServerMetadata
from ..pkce import PkceChallenge
from ..requests import AuthorizationConfig, TokenRequest
from .browser import MAX_ADDRESS, Browser, check_address
from .words import cleaned, error_code, refused

if TYPE_CHECKING:
    from .loopback import RedirectListener

__all__ = ["Attempt", "Authorized", "authorize", "check_iss"]

_PARAMETERS: Final = 32
"""Parameters that an answer has at most."""
_MAX_CODE: Final = 4096


@dataclass(frozen=True, slots=True)
class Authorized:
    """A person said yes."""

    server: AuthorizationServerMetadata
    """The authorization server of whom it was asked: the only one to show the code to."""
    code: Secret
    request: TokenRequest
    """What turns the code into a token, PKCE verifier and resource included."""
    redirect_uri: str
    scopes: tuple[str, ...] = ()
    """What was asked for."""


class Attempt:
    """The record of one authorization, and the judge of its answer. It answers one delivery and no other.

    Args:
        server: the authorization server, of validated metadata.
        client_id: of this client there.
        resource: the identifier of the MCP server.
        redirect_uri: where the answer comes.
        scopes: what is asked for; empty leaves it to the server.
        require_iss: refuse an answer without `iss`, also of a server that does not announce it.

    Raises:
        AuthorizationFailed: the server does not say that it checks PKCE with S256, or an address or value is not
            acceptable. No browser was opened.
    """

    __slots__ = ("_code_request", "_redirect_uri", "_require_iss", "_scopes", "_server", "_state", "_used", "url")

    def __init__(
        self,
        server: AuthorizationServerMetadata,
        client_id: str,
        resource: str,
        *,
        redirect_uri: str,
        scopes: Iterable[str] = (),
        require_iss: bool = False,
    ) -> None:
        if not server.has_pkce:
            raise refused(
                "the authorization server does not say that it checks PKCE with S256 "
                "(code_challenge_methods_supported), and MCP forbids to go on"
            )
        self._server = server
        self._redirect_uri = redirect_uri
        self._scopes = tuple(scopes)
        self._require_iss = require_iss
        self._state = secrets.token_urlsafe(32)
        self._used = False
        pkce = PkceChallenge()
        try:
            config = AuthorizationConfig(
                server, client_id, resource, redirect_uri=redirect_uri, scope=" ".join(self._scopes) or None
            )
            request = replace(config.request(pkce), state=self._state)
            url = request.url(server.authorization_endpoint or "")
        except ValueError as exc:
            raise refused(f"the authorization cannot be asked for: {exc}") from None
        if "offline_access" in self._scopes and "&prompt=" not in url and "?prompt=" not in url:
            # OpenID Connect Core section 11: without this, servers leave the refresh token out.
            url += "&prompt=consent"
        check_address(url)
        self.url = url
        """The page to open."""
        self._code_request = _CodeRequest(config, pkce)

    def __repr__(self) -> str:
        return f"Attempt(issuer={self._server.issuer!r}, used={self._used})"

    def take(self, query: str) -> Authorized | None:
        """Judge the query of a delivery at the redirect URI.

        Returns:
            The code; None where the delivery is not the answer to this request, which is awaited still.

        Raises:
            AuthorizationFailed: it is the answer, and it is a refusal or breaks a rule. The attempt is over.
        """
        pairs = _pairs(query)
        states = [value for name, value in pairs if name == "state"]
        if self._used or len(states) != 1 or not _same(states[0], self._state):
            return None
        self._used = True
        given = dict(pairs)
        if len(given) != len(pairs):
            raise refused("the answer of the authorization server has a parameter twice, and was not used")
        check_iss(self._server, given.get("iss"), required=self._require_iss)
        if "error" in given:
            raise _denied(given)
        code = given.get("code", "")
        if not code or len(code) > _MAX_CODE:
            raise refused("the answer of the authorization server has no code, or one of more than 4096 characters")
        try:
            request = self._code_request.of(code)
        except ValueError as exc:
            raise refused(f"the answer of the authorization server cannot be used: {exc}") from None
        return Authorized(self._server, Secret(code), request, self._redirect_uri, self._scopes)

    def take_address(self, address: str) -> Authorized:
        """Judge the whole address of the last page, as a person or a program gives it.

        Raises:
            AuthorizationFailed: as `take`, or it is not the answer to this request.
        """
        where, _, query = address.partition("#")[0].partition("?")
        found = self.take(query) if where == self._redirect_uri and len(address) <= MAX_ADDRESS else None
        if found is None:
            raise refused("the address that was given is not the answer to this request; start again")
        return found


@dataclass(frozen=True, slots=True)
class _CodeRequest:
    """What makes the token request of a code."""

    config: AuthorizationConfig
    pkce: PkceChallenge = field(repr=False)

    def of(self, code: str) -> TokenRequest:
        return self.config.token_request(code, self.pkce)


def check_iss(server: AuthorizationServerMetadata, iss: str | None, *, required: bool = False) -> None:
    """The table of RFC 9207 section 2.4: present, it is the recorded issuer, character by character; absent, the server
    must not have announced it.

    Args:
        server: of whom the authorization was asked.
        iss: the parameter of the answer, decoded once.
        required: refuse its absence in any case.

    Raises:
        AuthorizationFailed: it does not hold. Nothing of the answer stands in the message.
    """
    if iss is None:
        if required or server.authorization_response_iss_parameter_supported:
            raise refused("the answer does not say which authorization server it is of (iss), and was not used")
    elif not _same(iss, server.issuer):
        raise refused("the answer is of another authorization server than was asked (iss), and was not used")


async def authorize(
    server: AuthorizationServerMetadata,
    client_id: str,
    resource: str,
    *,
    listener: RedirectListener,
    browser: Browser,
    scopes: Iterable[str] = (),
    timeout: float = 120.0,
    require_iss: bool = False,
) -> Authorized:
    """Ask a person, and wait for the answer.

    Args:
        server, client_id, resource, scopes, require_iss: as of `Attempt`.
        listener: takes the answer; it listens already, and its `redirect_uri` is that of the request.
        browser: opens the page.
        timeout: seconds for all of it.

    Raises:
        AuthorizationFailed: a check failed, the person or the server said no, no browser opens, or the time is over.
    """
    attempt = Attempt(
        server, client_id, resource, redirect_uri=listener.redirect_uri, scopes=scopes, require_iss=require_iss
    )
    deadline = asyncio.timeout(timeout)
    try:
        async with deadline:
            return await _answered(attempt, listener, browser)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise AuthorizationFailed(f"nobody signed in within {timeout:g} s (timeout)") from None


async def _answered(attempt: Attempt, listener: RedirectListener, browser: Browser) -> Authorized:
    """What comes first: the delivery at the listener, or what the browser says."""
    receiving = asyncio.ensure_future(listener.receive(attempt.take))  # begins first, so it waits before a page opens
    opening = asyncio.ensure_future(_opened(browser, attempt.url))
    try:
        await asyncio.wait((receiving, opening), return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            opened = opening.result()
            if isinstance(opened, str):
                return attempt.take_address(opened)
            if not opened:
                raise AuthorizationFailed(
                    "no browser could be opened to sign in with; run this on a desktop, or set browser=headless"
                )
        return await receiving
    finally:
        receiving.cancel()
        opening.cancel()
        await asyncio.gather(receiving, opening, return_exceptions=True)


async def _opened(browser: Browser, url: str) -> bool | str:
    found = browser(url)
    return await found if isinstance(found, Awaitable) else found


def _pairs(query: str) -> list[tuple[str, str]]:
    """The parameters of a query; none where it is not one."""
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_PARAMETERS)
    except ValueError:
        return []


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


def _denied(given: dict[str, str]) -> AuthorizationFailed:
    """The refusal of an answer whose `iss` was checked."""
    state = given["state"]  # which the answer proved itself with, and nobody else needs to see
    code = error_code(given["error"].replace(state, "***"))
    words = cleaned(given.get("error_description", "").replace(state, "***"))
    text = f"the authorization server refused: {code or 'an error without a name'}"
    return AuthorizationFailed(text + (f" ({words})" if words else ""), error=code)
