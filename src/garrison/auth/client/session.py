"""`Authorizer`: the live authorization of one client at one MCP server.

Theory of operation: a transport asks `due` before a request and awaits `prepare` where it says so; puts `lines` into
the request; tells `heard` of each answer; and gives a 401 or 403 to `challenged`, which says whether to send the
request again. Everything that changes the token is one task at a time, a flight, which all who need its outcome wait
for. Who stops waiting does not stop the flight.

A token that is refused climbs a ladder: one from the store is renewed, a renewed one is replaced by a new grant, and a
new one that was never accepted is the end: the server refuses what its own authorization server gives.

Rules of this file:
- A token goes to the origin and path of the resource that it was issued for, and nowhere else.
- Nothing of one authorization server is shown to another. When the MCP server names another one, the token of its
  predecessor is forgotten, and the user is told.
- No loop: refusals, further scopes and questions to a person are counted, and each count has an end that says why.

Spec: MCP 2026-07-28 basic/authorization; RFC 6750 section 3; RFC 9449 sections 7 to 9; RFC 9700 section 4.14.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from ... import events
from ...errors import (
    AuthorizationFailed,
    ClientError,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    RequestTimeout,
)
from ..challenge import WwwAuthenticate
from ..dpop import nonce_of
from ..errors import OAuthError
from ..requests import TokenRequest
from ..store import StoreError
from ..tokens import CredentialKey
from ..urls import check_url
from .discovery import choose_scopes, read_challenge
from .held import Held, SignedIn, covers
from .keeping import Keeping
from .obtain import way_for
from .settings import OAuth
from .words import cleaned, refused

if TYPE_CHECKING:
    from ..tokens import TokenSet
    from .discovery import Discovered
    from .endpoint import TokenEndpoint
    from .settings import AuthSettings

__all__ = ["Authorizer"]

T = TypeVar("T")

_PAUSE: Final = 5.0
"""Seconds until a renewal that reached nobody is tried again, while the token still lives."""
_FLOWS: Final = 4
_WINDOW: Final = 300.0
"""A person is asked `_FLOWS` times in `_WINDOW` seconds at most."""
_MOST_STEPS: Final = 64
"""Different sets of further scopes that one client asks for."""
_GONE: Final = frozenset({OAuthError.INVALID_GRANT, OAuthError.INVALID_CLIENT, OAuthError.UNAUTHORIZED_CLIENT})
"""What a token endpoint says of a refresh token that is of no more use."""

_log = logging.getLogger("garrison.client")


class Authorizer:
    """See the top of this file.

    Args:
        url: the MCP server: https, or http on loopback.
        settings: how a token is had.
        clock: seconds of the day, as `time.time`.

    Raises:
        ConfigurationError: the URL is not one that tokens are sent to, or `settings` is none of the objects.
    """

    def __init__(self, url: str, settings: AuthSettings, *, clock: Callable[[], float] = time.time) -> None:
        try:
            check_url(url, "the URL of a server with auth=")
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None
        self.url = url
        self.settings = settings
        self._clock = clock
        self._way = way_for(url, settings, clock=clock, tell=self._tell, count=self._count)
        self._held: Held | None = None
        self._looked = False
        self._place = ("", False)
        self._flight: asyncio.Task[bool] | None = None
        self._wanted: frozenset[str] = frozenset()
        """The scopes that were asked for."""
        self._steps: dict[frozenset[str], int] = {}
        self._asked: deque[float] = deque(maxlen=_FLOWS)
        self._offered = False
        """Whether the server has said that it takes tokens bound to a key."""
        self._closed = False

    # What a transport asks.

    @property
    def due(self) -> bool:
        """Whether `prepare` has something to do before the next request."""
        held = self._held
        return not self._looked if held is None else self._clock() >= held.renew_at

    async def prepare(self) -> None:
        """Have a token, as far as that takes no person: from the store, by a renewal, or of the program's own.

        Raises:
            ClientError: a token cannot be renewed and has ended, or the program is given none.
        """
        if not self._closed and self.due:
            await self._join(self._begin if self._held is None else self._renew_ahead, lambda: not self.due)

    def lines(self, method: str, url: str) -> str:
        """The header lines that authorize one request; none where there is no token for this URL.

        Args:
            method: of the request, for the proof of DPoP.
            url: of the request: https, or http on loopback.
        """
        held = self._held
        if held is None:
            return ""
        if self._place[0] != url:
            self._place = (url, covers(held.key.resource, url))
        if not self._place[1]:
            return ""
        if held.dpop is None:
            return held.line
        token, nonce = held.tokens.access_token, held.nonce
        return (
            f"{held.line}DPoP: {held.dpop.proof(method, url, access_token=token, nonce=nonce, now=self._clock())}\r\n"
        )

    def heard(self, status: int, headers: Mapping[str, str]) -> None:
        """Tells of an answer of the MCP server; names of `headers` in lower case."""
        held = self._held
        if held is None:
            return
        if status != 401:
            held.accepted = True
        if held.dpop is not None:
            held.nonce = nonce_of(headers) or held.nonce

    async def challenged(
        self, status: int, headers: Mapping[str, str], *, url: str, sent: str, person: bool = True
    ) -> bool:
        """Deals with a 401 or 403.

        Args:
            status, headers: of the answer; names in lower case.
            url: of the request.
            sent: the `lines` of the request.
            person: whether a person may be asked; not so for what nobody waits for.

        Returns:
            Whether the request is to be sent again. It was not carried out.

        Raises:
            AuthorizationFailed: there is no token to be had, and why.
            ClientError: a server that is needed for it cannot be reached.
        """
        held = self._held
        if self._closed or status not in (401, 403) or not covers(held.key.resource if held else self.url, url):
            return False
        if held is not None and not sent.startswith(held.line):
            return True  # it was renewed since
        challenge = self._challenge(headers)
        if challenge is not None and challenge.error == OAuthError.USE_DPOP_NONCE and held is not None and held.dpop:
            held.nonce = nonce_of(headers)
            return held.nonce is not None
        if status == 401:
            return await self._join(lambda: self._recover(challenge, person), lambda: self._held is not held)
        if challenge is None or challenge.error != OAuthError.INSUFFICIENT_SCOPE:
            return False
        return await self._join(lambda: self._step_up(challenge, person), lambda: self._held is not held)

    async def aclose(self) -> None:
        """Ends what is under way. Tokens stay in the store."""
        self._closed = True
        flight = self._flight
        if flight is not None and not flight.done():
            flight.cancel()
            await asyncio.wait((flight,), timeout=1.0)

    # What a user asks.

    @property
    def whoami(self) -> SignedIn | None:
        """Who the client is to the server; None before there is a token."""
        return None if self._held is None else self._held.shown()

    async def sign_out(self) -> bool:
        """Forgets the token, here always, and revokes it at its authorization server (RFC 7009).

        Returns:
            True where the server revoked it, or there was none. False where it has no way to revoke, or failed: the
            user is told, and the token ends by itself.

        Raises:
            AuthorizationFailed: the store cannot be used; the client itself has forgotten the token.
        """
        flight = self._flight
        if flight is not None and not flight.done():
            flight.cancel()
            await asyncio.wait((flight,))
        return await self._join(self._leave, lambda: False)

    async def _leave(self) -> bool:
        if not self._looked:
            await self._look()
        held, self._held = self._held, None
        self._steps.clear()
        self._wanted = frozenset()
        if held is None:
            return await self._leave_unusable()
        await self._stored(lambda store: store.forget(held.key))
        revoked = True
        tokens = ((held.tokens.refresh_token, "refresh_token"), (held.tokens.access_token, "access_token"))
        try:
            endpoint = await self._endpoint(held)
            for token, hint in tokens:
                if token is not None and not await endpoint.revoke(token, hint):
                    revoked = False
        except ClientError as exc:
            self._tell(f"Signed out here, but the token was not revoked at {held.key.issuer}: {exc}")
            return False
        if not revoked:
            self._tell(f"Signed out here; {held.key.issuer} has no way to revoke a token, which ends by itself")
        return revoked

    async def _leave_unusable(self) -> bool:
        """Forgets tokens that are kept and cannot be used: their key is gone, or it is not clear which one counts."""
        kept = await self._stored(self._candidates)
        for key in kept:
            await self._stored(lambda store, key=key: store.forget(key))
        if kept:
            self._tell(f"Signed out of {self.url} here; what was kept could not be used, and was not revoked")
        return not kept

    # Flights.

    async def _join(self, work: Callable[[], Coroutine[object, object, bool]], done: Callable[[], bool]) -> bool:
        """Does `work`, unless somebody is about something already: then waits, and looks whether it is `done`.

        Returns:
            What `work` says, or True where it was done by another flight.
        """
        while True:
            flight, own = self._flight, False
            if flight is None or flight.done():
                flight = self._flight = asyncio.get_running_loop().create_task(self._guarded(work()))
                flight.add_done_callback(_seen)
                own = True
            await asyncio.wait((flight,))
            if flight.cancelled():
                raise ConnectionLost("The client was closed, or signed out, before there was a token")
            result = flight.result()
            if own or done():
                return result or not own

    async def _guarded(self, work: Coroutine[object, object, bool]) -> bool:
        try:
            return await work
        except ClientError:
            raise
        except StoreError as exc:
            raise AuthorizationFailed(f"The credential store: {exc}") from exc
        except Exception as exc:  # functions of the user run here: what they raise must end the calls that wait
            raise AuthorizationFailed(f"A function that was given to auth= failed ({type(exc).__name__})") from exc

    async def _begin(self) -> bool:
        """The first time: a token that was kept, or one of the program's own."""
        await self._look()
        if self._held is not None:
            return True if not self.due else await self._renew_ahead()
        if self._way.interactive:
            return False
        try:
            found = await self._discover(None)
        except AuthorizationFailed as exc:
            _log.info("A token is only asked for when the server wants one: %s", exc)
            return False
        await self._obtain(found, None, None)
        return True

    async def _look(self) -> bool:
        """Takes the token that the store has for this server, if it is clear which one."""
        self._looked = True
        fitting = await self._stored(self._candidates)
        if len(fitting) != 1:
            return False  # which one counts, discovery will say
        tokens = await self._stored(lambda store: store.tokens(fitting[0]))
        return tokens is not None and self._adopt(await self._way.stored(fitting[0], tokens))

    async def _candidates(self, store: Keeping) -> list[CredentialKey]:
        given = self._way.client_id
        fitting = [
            key
            for key in await store.keys()
            if key.kind == "token"
            and key.account == self.settings.account
            and self.settings.issuer in (None, key.issuer)
            and given in (None, key.client_id)
            and covers(key.resource, self.url)
        ]
        longest = max((len(key.resource) for key in fitting), default=0)
        return [key for key in fitting if len(key.resource) == longest]

    async def _renew_ahead(self) -> bool:
        """Renews a token that is about to end."""
        held = self._held
        if held is None:
            return False
        try:
            if await self._renew(held):
                return True
            if not self._way.interactive:
                await self._obtain(await self._discover(None), None, None)
                return True
        except (ConnectionFailed, ConnectionLost, RequestTimeout) as exc:
            if held.tokens.expires_at is None or held.tokens.expires_at <= self._clock():
                raise
            held.renew_at = self._clock() + _PAUSE
            _log.warning("The token of %s could not be renewed yet: %s", held.key.resource, exc)
        return False

    async def _recover(self, challenge: WwwAuthenticate | None, person: bool) -> bool:
        """After a 401: the next rung of the ladder."""
        self._looked = True
        found = await self._discover(challenge)
        held = self._held
        if held is None:
            key = await self._way.key(found)
            kept = None if key is None else await self._stored(lambda store: store.tokens(key))
            if key is not None and kept is not None and self._adopt(await self._way.stored(key, kept)):
                return True
        elif held.accepted or held.origin == "stored":
            if await self._renew(held):
                return True
        elif held.origin == "new":
            why = challenge.error_description if challenge is not None else None
            raise refused(
                f"{self.url} refuses the token that its authorization server {held.key.issuer} has just given"
                + (f": {cleaned(why)}" if why else "; the two must agree on issuer, audience and keys")
            )
        if self._way.interactive and not person:
            return False
        await self._obtain(found, challenge, None)
        return True

    async def _step_up(self, challenge: WwwAuthenticate, person: bool) -> bool:
        """After a 403 that names scopes: a token for them and for all before, a number of times."""
        more = frozenset(challenge.scope)
        if self._way.interactive and not person:
            return False
        found = await self._discover(challenge)
        held = self._held
        granted = (held.tokens.scopes if held is not None else None) or self._wanted
        times = self._steps.get(more, 0)
        most = self.settings.step_up_attempts if isinstance(self.settings, OAuth) else 1
        if not more or times >= most or (times and more <= granted) or len(self._steps) >= _MOST_STEPS:
            raise refused(
                f"{self.url} wants further scopes ({cleaned(' '.join(sorted(more)))}), and tokens that were asked for "
                "with them are not enough for it",
                setting="OAuth.step_up_attempts",
                error=OAuthError.INSUFFICIENT_SCOPE,
            )
        self._steps[more] = times + 1
        await self._obtain(found, challenge, None if held is None else granted)
        return True

    # Steps.

    async def _discover(self, challenge: WwwAuthenticate | None) -> Discovered:
        """What the server says of itself now. A token of another authorization server or resource is forgotten."""
        held = self._held
        found = await self._way.discover(challenge, None if held is None else held.key.issuer)
        if held is None or (held.key.issuer, held.key.resource) == (found.server.issuer, found.resource):
            return found
        self._held = None
        self._wanted = frozenset()
        self._steps.clear()
        await self._stored(lambda store: store.forget(held.key))
        if held.key.issuer == found.server.issuer:
            text = (
                f"{self.url} now says that it is {found.resource}; the token for {held.key.resource} is not used there"
            )
        else:
            text = (
                f"{self.url} has changed from authorization server {held.key.issuer} to {found.server.issuer}; what "
                "was used there is not used here"
            )
            events.record("oauth.issuer_changed", text, setting=f"{type(self.settings).__name__}.issuer")
            if self.settings.notice is None:
                return found  # the event has told
        self._tell(text)
        return found

    async def _renew(self, held: Held) -> bool:
        """By the refresh token, or by what another process has renewed already. False where neither is there."""
        async with (await self._way.keeping()).locked(held.key):
            kept = await self._stored(lambda store: store.tokens(held.key))
            if kept is not None and kept.access_token != held.tokens.access_token:
                return self._adopt(await self._way.stored(held.key, kept, held))
            refresh = held.tokens.refresh_token
            if refresh is None or not held.key.client_id:
                return False
            endpoint = await self._endpoint(held)
            request = TokenRequest.refresh_token(refresh.reveal(), held.key.client_id, held.key.resource)
            try:
                tokens = await endpoint.request(request)
            except AuthorizationFailed as exc:
                if exc.error not in _GONE:
                    raise
                _log.info("The authorization of %s has ended (%s)", held.key.resource, exc.error)
                self._held = None
                await self._stored(lambda store: store.forget(held.key))
                return False
            if tokens.scopes is None:
                tokens = replace(tokens, scopes=held.tokens.scopes)
            self._adopt(held.renewed(tokens, self._clock()))
            await self._keep(held.key, tokens)
            return True

    async def _obtain(
        self, found: Discovered, challenge: WwwAuthenticate | None, before: frozenset[str] | None
    ) -> None:
        """A new grant; with `before`, one for the scopes of the challenge beside these."""
        given = self.settings.scopes
        if given is not None and before is None:
            challenge = replace(challenge or WwwAuthenticate(), scope=tuple(given))
        so_far = sorted(self._wanted if before is None else before)
        refresh = self._way.interactive
        scopes = choose_scopes(challenge, found.metadata, found.server, held=so_far, refresh=refresh)
        if before is not None and challenge is not None:
            await self._approve(frozenset(challenge.scope) - before)
        old = self._held
        fresh = await self._way.obtain(found, scopes, offered=self._offered)
        self._wanted = frozenset(scopes)
        self._adopt(fresh)
        await self._keep(fresh.key, fresh.tokens)
        if old is not None and old.key != fresh.key:
            await self._stored(lambda store: store.forget(old.key))

    async def _keep(self, key: CredentialKey, tokens: TokenSet) -> None:
        """Keeps a token that is in use already: one that cannot be kept is not lost by that."""
        try:
            await self._stored(lambda store: store.keep(key, tokens))
        except StoreError as exc:
            self._tell(f"The token of {key.resource} is used, but not kept: {exc}")

    async def _approve(self, more: frozenset[str]) -> None:
        ask = self.settings.approve_scopes if isinstance(self.settings, OAuth) else None
        if ask is None or not more:
            return
        answer = ask(more)
        if not (await answer if isinstance(answer, Awaitable) else answer):
            raise refused(
                f"{self.url} wants scopes that were not approved: {cleaned(' '.join(sorted(more)))}",
                setting="OAuth.approve_scopes",
                error=OAuthError.ACCESS_DENIED,
            )

    def _count(self) -> None:
        """Counts a question to a person.

        Raises:
            AuthorizationFailed: it would be one too many.
        """
        now = self._clock()
        if len(self._asked) == _FLOWS and now - self._asked[0] < _WINDOW:
            raise refused(
                f"{self.url} has wanted {_FLOWS} authorizations within {_WINDOW:g} s; nobody is asked again for now"
            )
        self._asked.append(now)

    async def _endpoint(self, held: Held) -> TokenEndpoint:
        if held.endpoint is None:
            held.endpoint = await self._way.endpoint(held.key, held.dpop)
        return held.endpoint

    def _adopt(self, held: Held | None) -> bool:
        """Uses a token from now on."""
        if held is None:
            return False
        self._looked = True
        self._held = held
        self._place = ("", False)
        self._wanted = self._wanted or held.tokens.scopes or frozenset()
        return True

    def _challenge(self, headers: Mapping[str, str]) -> WwwAuthenticate | None:
        """What the server says of the request: of the scheme that is spoken, where there are several."""
        text = headers.get("www-authenticate")
        if text is None:
            return None
        first = read_challenge(text)
        every = WwwAuthenticate.parse(text)
        self._offered = self._offered or WwwAuthenticate.select(every, "DPoP") is not None
        spoken = self._held.tokens.token_type if self._held is not None else "Bearer"
        ours = WwwAuthenticate.select(every, spoken)
        if first is None or ours is None or ours.resource_metadata is not None:
            return ours or first
        return replace(ours, resource_metadata=first.resource_metadata)

    # Small things.

    async def _stored(self, work: Callable[[Keeping], Awaitable[T]]) -> T:
        return await work(await self._way.keeping())

    def _tell(self, text: str) -> None:
        if self.settings.notice is None:
            _log.warning("%s", text)
        else:
            self.settings.notice(text)


def _seen(flight: asyncio.Task[bool]) -> None:
    """Marks the error of a flight as seen, where nobody waits for it any more."""
    if not flight.cancelled():
        flight.exception()
