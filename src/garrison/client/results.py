"""From what a server answers to a typed result: read, kept while it is fresh, page by page.

Rules of this file:
- Nothing of a result is passed on before it was read into its type.
- What was kept is given only to the one who asked for it: when the client is somebody else to the server than before,
  what is not public is dropped, also of requests under way.

Spec: 2026-07-28 server/utilities/caching, server/utilities/pagination.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ..errors import RequestTimeout
from ..protocol import types as t
from .cache import Cache
from .listing import LISTS, Walk, check_page, read_page
from .words import refused, said

if TYPE_CHECKING:
    from ..auth.client.held import SignedIn
    from ..policy import SecurityPolicy
    from .conversation import Conversation

__all__ = ["Results"]

T = TypeVar("T", bound=t.Result)
C = TypeVar("C", bound=t.CacheableResult)
P = TypeVar("P", bound=t.PaginatedResult)


class Results:
    """The results of one client.

    Args:
        conversation: carries the requests.
        policy: limits and time-outs.
        timeout: seconds for one request; the policy's when None.
        cache: whether results are kept.
        whoami: who the client is to the server, where that is known.
        on_progress: hears the progress of requests.
        on_other: hears that the client is somebody else to the server than before.
    """

    def __init__(
        self,
        conversation: Conversation,
        *,
        policy: SecurityPolicy,
        timeout: float | None,
        cache: bool,
        whoami: Callable[[], SignedIn | None],
        on_progress: Callable[[t.ProgressParams], object] | None,
        on_other: Callable[[], None],
    ) -> None:
        self._conversation = conversation
        self._limits, self._timeouts = policy.limits, policy.timeouts
        self._patience = policy.timeouts.request if timeout is None else timeout
        self._cache = Cache() if cache else None
        self._whoami = whoami
        self._on_progress = on_progress
        self._on_other = on_other
        self._who: tuple[object, object] = (conversation.credential, None)

    def read(self, method: str, raw: dict[str, object], kind: type[T]) -> T:
        """A result as its type. Raises `ProtocolViolation` where it is none."""
        revision = self._conversation.agreed().revision
        if not revision.modern:
            raw = revision.upgrade_result(method, raw)
        if method in LISTS:
            return read_page(method, raw, kind, self._left_out)
        try:
            return t.convert(raw, kind)
        except msgspec.ValidationError as exc:
            raise refused(f"{method}: {said(exc)}", method=method) from None

    async def fetch(
        self,
        method: str,
        params: Mapping[str, object],
        subject: str | None,
        kind: type[C],
        timeout: float | None,
        meta: Mapping[str, object] | None,
        walk: Walk | None = None,
    ) -> C:
        """A request whose result may be kept, by method and subject. Within a walk, it takes of the walk's time.

        Raises:
            ClientError: there is no result.
        """
        cache, key = self._cache if meta is None else None, (method, subject)
        clock = asyncio.get_running_loop().time
        generation = 0
        self.recognize()
        if cache is not None:
            found = cache.get(key, clock())
            if isinstance(found, kind):
                return found
            generation = cache.generation
        patience = self._patience if timeout is None else timeout
        left = patience if walk is None else walk.patience(patience, clock())
        try:
            answered = await self._conversation.ask(
                method, params, timeout=left, meta=meta, safe=True, on_progress=self._on_progress
            )
        except RequestTimeout:
            if walk is None or left == patience:
                raise
            raise walk.late() from None
        call = answered.call
        if walk is not None:
            walk.took(call.timeout - (call.deadline - clock()))
        if method in LISTS:
            check_page(method, answered.raw, call.size, self._limits)
        result = self.read(method, answered.raw, kind)
        self.recognize()
        if cache is not None and not answered.asked:
            cache.put(key, result, size=call.size, now=clock(), generation=generation)
        return result

    async def page(
        self,
        method: str,
        cursor: str | None,
        kind: type[P],
        timeout: float | None,
        meta: Mapping[str, object] | None,
        walk: Walk | None = None,
    ) -> P:
        """One page of a listing. Raises as `fetch`."""
        params: dict[str, object] = {} if cursor is None else {"cursor": cursor}
        return await self.fetch(method, params, cursor, kind, timeout, meta, walk)

    async def pages(
        self, method: str, kind: type[P], timeout: float | None, meta: Mapping[str, object] | None
    ) -> AsyncIterator[P]:
        """All pages of a listing, as far as a `Walk` goes. Raises as `fetch`, and as `Walk`."""
        walk = Walk(method, self._limits, self._timeouts, asyncio.get_running_loop().time())
        cursor: str | None = None
        while True:
            page = await self.page(method, cursor, kind, timeout, meta, walk)
            walk.count(page)
            yield page
            cursor = walk.cursor_after(page)
            if cursor is None:
                return

    def recognize(self) -> None:
        """Drops what was for somebody else, once this client is somebody else to the server."""
        signed = self._whoami()
        who = (self._conversation.credential, signed and (signed.issuer, signed.client_id, signed.account))
        if who != self._who:
            self._who = who
            self._on_other()
            if self._cache is not None:
                self._cache.leave()

    def changed(self, method: str, uri: str | None = None) -> None:
        """Drops what this notification says has changed."""
        if self._cache is not None:
            self._cache.changed(method, uri)

    def clear(self) -> None:
        """Drops everything."""
        if self._cache is not None:
            self._cache.clear()

    def _left_out(self, count: int) -> None:
        link = self._conversation.link
        if link is not None:
            link.dropped["definition"] += count
