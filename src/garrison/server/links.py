"""`Links`: addresses of a web page that one person opens once, for questions that must not pass through a client.

    links = Links[Order]("https://shop.example/pay")

    @server.tool()
    async def pay(ctx: Context, order: str) -> str:
        url = await ctx.once("link", lambda: links.new(ctx, order))
        answer = await ctx.elicit_url("Pay on our page", url)
        ...

    async def page(request):                    # behind the page's own sign-in
        order = links.redeem(request.query["ticket"], signed_in_as(request))

Rules of this file:
- A link names what it is for, and opens nothing by itself: the page knows by its own sign-in who opens it, and that has
  to be the account for which the link was made.
- It works once, and not for long. Used, expired, invented, and somebody else's are one thing: refused, in these words.
- Nothing of the value or of the caller stands in it, and what is kept here is its digest.

Spec: 2026-07-28 client/elicitation, "Safe URL Handling" and "Phishing".
"""

from __future__ import annotations

import re
import secrets
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from .. import events
from ..errors import ConfigurationError, GarrisonError, ToolError
from ..policy.principal import Principal
from .shelf import Full, Shelf

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import Context

__all__ = ["LinkRefused", "Links"]

T = TypeVar("T")
S = TypeVar("S")

_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_SHARED: Final = frozenset({"anonymous", "nobody", "token"})
"""Subjects that are many people."""


class LinkRefused(GarrisonError):
    """There is no such link for this account. Which of the reasons it is, nobody is told."""

    def __init__(self) -> None:
        super().__init__("No such link: it was used, has expired, or is for another account. Ask for a new one.")


class Links(Generic[T]):
    """Links to one page, in the memory of this process. Its methods may be called from any thread.

    Args:
        url: the page: https, or http on loopback.
        parameter: the member of its query in which the ticket stands.
        ttl: seconds for which a link works.
        most, most_each: links that were not used yet, in all and of one account.
        clock: gives seconds that never go back.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    __slots__ = ("_prefix", "_shelf")

    def __init__(
        self,
        url: str,
        *,
        parameter: str = "ticket",
        ttl: float = 600.0,
        most: int = 10_000,
        most_each: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from ..auth.urls import check_url

        if _NAME.fullmatch(parameter) is None:
            raise ConfigurationError("Links.parameter: a letter, then up to 31 of A-Z a-z 0-9 _ -")
        try:
            query = check_url(url, "Links.url").query
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None
        if query is not None and any(part.partition("=")[0] == parameter for part in query.split("&")):
            raise ConfigurationError("Links.url has the parameter of the ticket already")
        self._prefix = f"{url}{'?' if query is None else '&'}{parameter}="
        self._shelf: Shelf[T] = Shelf("Links", clock, ttl=ttl, most=most, most_each=most_each)

    def __repr__(self) -> str:
        return f"Links({self._prefix!r}, {len(self)} open)"

    def __len__(self) -> int:
        """How many can still be used."""
        return len(self._shelf)

    def new(self, ctx: Context[S], value: T) -> str:
        """A link for the caller.

        Args:
            ctx: the caller's. In a handler that asks, call it through `ctx.once`: the handler runs again.
            value: what `redeem` gives.

        Returns:
            The URL, with a ticket of 43 characters of `A-Z a-z 0-9 - _`.

        Raises:
            ToolError: the caller has `most_each` already, or there are `most` in all.
            ConfigurationError: nobody knows which person asks: the server has no `auth`, so callers are all alike.
        """
        principal = ctx.principal
        if not principal.issuer and principal.subject in _SHARED:
            raise ConfigurationError("Links.new: callers are all alike here; set Server(auth=) or take certificates")
        ticket = secrets.token_urlsafe(_BYTES)
        try:
            self._shelf.add(principal.account, _digest(ticket), value)
        except Full as exc:
            events.record("limit.reached", f"too many links of {principal.key}", setting=f"Links.{exc.bound}")
            raise ToolError("Too many links are open. Use one of them, or try again later.") from None
        return self._prefix + ticket

    def redeem(self, ticket: str, account: Principal | str, *, peer: str = "") -> T:
        """The value of a link, which from now on names nothing.

        Args:
            ticket: as the page was asked for it.
            account: who has signed in to the page: a `Principal` of the caller's issuer, tenant and subject, or its
                `account`. Never what the address or a form says.
            peer: the browser's address, for the event.

        Raises:
            LinkRefused: there is no such link for this account. Somebody else's stays good for its owner.
        """
        whose = account.account if isinstance(account, Principal) else account
        taken = self._shelf.take(_digest(ticket), whose)
        if taken is None:
            events.record("link.refused", "a link was refused", peer=peer, about=events.Event("", principal=whose))
            raise LinkRefused
        return taken[1]


def _digest(ticket: str) -> str:
    return sha256(ticket.encode(errors="surrogatepass")).hexdigest()
