"""Who wants to hear about changes: `subscriptions/listen` streams and legacy sessions, in one hub.

Rules of this file:
- A subscriber hears only what it asked for, and nothing before its acknowledgement.
- The number of subscribers is bounded; so is what waits for each (the channel's own bound ends a stream that is full).

Spec: 2026-07-28 basic/patterns/subscriptions.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from ..errors import InvalidParams, TooManyRequests
from ..protocol.types import SUBSCRIPTION_ID_KEY

if TYPE_CHECKING:
    import asyncio

    from ..policy.principal import Principal
    from .call import Call

__all__ = ["Hub", "Listener", "MayRead"]

MayRead = Callable[["Principal", str], "bool | Awaitable[bool]"]

_FLAGS: Final = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
_UPDATED: Final = "notifications/resources/updated"


class Listener:
    """One subscriber: the methods and URIs it wants, and where its notifications go.

    Args:
        send: takes a notification.
        principal: who it is, with what it may do now.
        may_read: whether a principal may read a URI. Asked for each change, so that a right that was lost is lost.
    """

    __slots__ = ("may_read", "methods", "principal", "send", "uris")

    def __init__(
        self,
        send: Callable[[str, dict[str, object]], None],
        principal: Callable[[], Principal],
        may_read: MayRead,
    ) -> None:
        self.send = send
        self.principal = principal
        self.may_read = may_read
        self.methods: set[str] = set()
        self.uris: set[str] = set()


class Hub:
    """The subscribers of one running server, all on one event loop.

    Args:
        most: open `subscriptions/listen` streams at once.
        patience: seconds for a policy function that is asked whether a subscriber may hear of a change.
        most_each: open streams of one principal.
    """

    def __init__(self, most: int, patience: float, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._counts: dict[str, int] = {}
        """Account -> its streams; who has none is not there."""
        self._patience = patience
        self._streams = 0
        self._listeners: set[Listener] = set()
        self._closing: set[asyncio.Future[None]] = set()
        self._telling: dict[tuple[Listener, str], asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tie the hub to the running loop, on whose thread all subscribers are told."""
        self._loop = loop
        self._thread = threading.get_ident()

    def add(self, listener: Listener) -> None:
        """Start telling this listener."""
        self._listeners.add(listener)

    def discard(self, listener: Listener) -> None:
        """Stop telling it."""
        self._listeners.discard(listener)

    def list_changed(self, kind: str) -> None:
        """Tell who wants to know that the listing of "tools", "prompts" or "resources" changed."""
        if self._elsewhere(self.list_changed, kind):
            return
        method = f"notifications/{kind}/list_changed"
        for listener in tuple(self._listeners):
            if method in listener.methods:
                listener.send(method, {})

    def resource_updated(self, uri: str, tenant: str | None = None) -> None:
        """Tell who subscribed to this URI, and may read it, that its contents changed; None tells every tenant."""
        if self._elsewhere(self.resource_updated, uri, tenant):
            return
        for listener in tuple(self._listeners):
            if uri not in listener.uris or (tenant is not None and listener.principal().tenant != tenant):
                continue
            if (listener, uri) in self._telling:
                continue  # it will hear of this change too, if it may
            may = listener.may_read(listener.principal(), uri)
            if may is True:
                listener.send(_UPDATED, {"uri": uri})
            elif may is not False and self._loop is not None:
                task = self._telling[listener, uri] = self._loop.create_task(self._told(listener, uri, may))
                task.add_done_callback(partial(self._was_told, listener, uri))

    async def _told(self, listener: Listener, uri: str, may: Awaitable[bool]) -> None:
        import asyncio

        try:
            async with asyncio.timeout(self._patience):
                may_hear = await may
        except TimeoutError:
            return  # that function has not said yes
        if may_hear and listener in self._listeners:
            listener.send(_UPDATED, {"uri": uri})

    def _was_told(self, listener: Listener, uri: str, task: asyncio.Task[None]) -> None:
        del self._telling[listener, uri]

    def _elsewhere(self, tell: Callable[..., None], *what: object) -> bool:
        """True if this is a worker's thread; the loop's thread tells instead."""
        if self._loop is None or threading.get_ident() == self._thread:
            return False
        try:
            self._loop.call_soon_threadsafe(tell, *what)
        except RuntimeError:
            self._loop = None  # that loop is closed, and nobody listens on it
        return True

    def close(self) -> None:
        """End every stream gracefully: each gets its response."""
        for task in self._telling.values():
            task.cancel()
        for future in tuple(self._closing):
            if not future.done():
                future.set_result(None)

    async def listen(self, call: Call, offered: frozenset[str], most_uris: int, may_read: MayRead) -> dict[str, object]:
        """Serve one `subscriptions/listen` request until the server closes or the request is cancelled.

        Args:
            call: the request.
            offered: the filter members this server can honour.
            most_uris: how many resources one stream may name.
            may_read: whether a principal may read a URI.
        """
        import asyncio

        wanted = call.params.get("notifications")
        if type(wanted) is not dict:
            raise InvalidParams("subscriptions/listen needs params.notifications")
        if self._streams >= self._most:
            raise TooManyRequests("Limits.subscriptions")
        account = call.principal.account
        if self._counts.get(account, 0) >= self._most_each:
            raise TooManyRequests("Limits.subscriptions_per_principal")
        honoured = _honoured(cast("dict[str, object]", wanted), offered, most_uris)
        meta: dict[str, object] = {SUBSCRIPTION_ID_KEY: call.id}
        channel = call.channel
        listener = Listener(
            lambda method, params: channel.notify(method, {**params, "_meta": meta}), lambda: call.principal, may_read
        )
        listener.methods.update(_FLAGS[name] for name in honoured if name in _FLAGS)
        listener.uris.update(cast("list[str]", honoured.get("resourceSubscriptions", [])))
        channel.notify("notifications/subscriptions/acknowledged", {"_meta": meta, "notifications": honoured})
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing.add(ended)
        self._streams += 1
        self._counts[account] = self._counts.get(account, 0) + 1
        self.add(listener)
        try:
            await ended
        finally:
            self._streams -= 1
            self._counts[account] -= 1
            if not self._counts[account]:
                del self._counts[account]
            self._closing.discard(ended)
            self.discard(listener)
        return {"_meta": meta}


def _honoured(wanted: dict[str, object], offered: frozenset[str], most_uris: int) -> dict[str, object]:
    honoured: dict[str, object] = {}
    for name in _FLAGS:
        flag = wanted.get(name)
        if flag is not None and type(flag) is not bool:
            raise InvalidParams(f"notifications.{name} must be a boolean")
        if flag and name in offered:
            honoured[name] = True
    uris = wanted.get("resourceSubscriptions")
    if uris is not None:
        if type(uris) is not list or not all(type(uri) is str for uri in cast("list[object]", uris)):
            raise InvalidParams("notifications.resourceSubscriptions must be a list of strings")
        if len(cast("list[object]", uris)) > most_uris:
            raise InvalidParams(f"notifications.resourceSubscriptions: at most {most_uris}")
        if "resourceSubscriptions" in offered:
            honoured["resourceSubscriptions"] = uris
    return honoured
