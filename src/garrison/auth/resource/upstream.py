"""Tokens for the servers behind one's own, got for callers and kept while they are good.

Rules of this file:
- A caller's token goes to the token endpoint of the exchange and nowhere else; what comes back is for one caller and
  one upstream server, and is kept under both.
- Several calls that need the same token wait for one exchange.

RFC 8693; MCP authorization, "Access Token Privilege Restriction".
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...policy.secret import Secret
    from ..client.grants import TokenExchange
    from ..tokens import TokenSet

__all__ = ["UpstreamTokens"]

_MOST: Final = 1_000
_MARGIN: Final = 30.0
"""Seconds before its end from which on a token is not given out any more."""

Key = tuple[bytes, str, "str | None", frozenset[str]]


class UpstreamTokens:
    """What exchanges gave.

    Args:
        exchange: gets them.
        clock: the time, in seconds of `time.time`.
    """

    def __init__(self, exchange: TokenExchange, clock: Callable[[], float]) -> None:
        self._exchange = exchange
        self._clock = clock
        self._kept: OrderedDict[Key, TokenSet] = OrderedDict()
        self._under_way: dict[Key, asyncio.Task[TokenSet]] = {}

    async def get(
        self, caller: bytes, subject: Secret, resource: str, audience: str | None, scopes: frozenset[str], until: float
    ) -> Secret:
        """A token for an upstream server.

        Args:
            caller: a digest of the credential, under which the token is kept.
            subject: the caller's own token.
            resource, audience, scopes: see `Context.upstream_token`.
            until: when the caller's own token ends; no other is given out for it later.

        Raises:
            AuthorizationFailed and other ClientErrors: there is none to be had.
        """
        key = (caller, resource, audience, scopes)
        kept = self._kept.get(key)
        now = self._clock()
        if kept is not None and now + _MARGIN < min(until, kept.expires_at or 0.0):
            return kept.access_token
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.get_running_loop().create_task(
                self._exchange.exchange(subject, resource=resource, audience=audience, scopes=scopes)
            )
            task.add_done_callback(lambda done: self._settle(key, done))
        return (await asyncio.shield(task)).access_token

    def _settle(self, key: Key, done: asyncio.Task[TokenSet]) -> None:
        self._under_way.pop(key, None)
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[key] = done.result()
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)

    def close(self) -> None:
        """Ask for nothing more."""
        for task in tuple(self._under_way.values()):
            task.cancel()
