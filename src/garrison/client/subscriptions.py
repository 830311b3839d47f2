"""Listening for changes: one way to say it, whatever the revision.

Rules of this file:
- A modern server gets `subscriptions/listen`; an older one `resources/subscribe`, and its unasked notifications are
  sorted here.
- When the connection of a modern subscription breaks, it is made anew, with growing pauses. Changes in between cannot
  be known, so everything that is listened to is reported as changed once.
- At most `Limits.subscription_events` wait to be read; a reader that falls behind further ends the subscription.

Spec: 2026-07-28 basic/patterns/subscriptions; 2025-11-25 server/resources "Subscriptions".
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from ..errors import ClientError, ConnectionLost
from ..protocol import types as t
from .words import refused, said

if TYPE_CHECKING:
    from ..protocol.envelope import Notification
    from .link import Link
    from .transport import Call

__all__ = [
    "Change",
    "LegacySubscriptions",
    "PromptListChanged",
    "ResourceListChanged",
    "ResourceUpdated",
    "Subscription",
    "ToolListChanged",
]

_MOST_FAILURES: Final = 5
_STEADY: Final = 30.0
"""Seconds that a connection must have held for its end to be the first one again."""


class ToolListChanged(msgspec.Struct, frozen=True):
    """The server's tools are others now."""


class PromptListChanged(msgspec.Struct, frozen=True):
    """The server's prompts are others now."""


class ResourceListChanged(msgspec.Struct, frozen=True):
    """The server's resources are others now."""


class ResourceUpdated(msgspec.Struct, frozen=True):
    """A resource has other contents now. `uri` may lie below the one that was subscribed to."""

    uri: str


Change = ToolListChanged | PromptListChanged | ResourceListChanged | ResourceUpdated


def read_change(notification: Notification) -> Change | None:
    """The change that a notification tells of, or None when it is another kind of notification."""
    method = notification.method
    if method == "notifications/resources/updated":
        uri = notification.params.get("uri")
        return ResourceUpdated(uri) if isinstance(uri, str) else None
    if method == "notifications/tools/list_changed":
        return ToolListChanged()
    if method == "notifications/prompts/list_changed":
        return PromptListChanged()
    if method == "notifications/resources/list_changed":
        return ResourceListChanged()
    return None


class Source(Protocol):
    """Where the changes of one subscription come from."""

    async def open(self, subscription: Subscription) -> t.SubscriptionFilter:
        """Starts; returns what the server really offers."""
        ...

    async def close(self, subscription: Subscription) -> None:
        """Stops."""
        ...


class Subscription:
    """Changes, one after the other.

        async with client.subscribe(tools=True) as changes:
            async for change in changes:
                ...

    The loop ends when the server ends the subscription in an orderly way or the client is closed.

    Raises:
        ConnectionLost: (in the loop) the connection ended and could not be made again.
    """

    def __init__(self, wanted: t.SubscriptionFilter, find: Callable[[], Awaitable[Source]], *, most: int) -> None:
        self.wanted = wanted
        self.acknowledged = t.SubscriptionFilter()
        """What the server agreed to tell."""
        self._find = find
        self._source: Source | None = None
        self._most = most
        self._events: deque[Change] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._over = False
        self._error: ClientError | None = None

    async def __aenter__(self) -> Subscription:
        self._source = await self._find()
        self.acknowledged = await self._source.open(self)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the subscription. May be called twice."""
        self.end(None)
        if self._source is not None:
            await self._source.close(self)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Change:
        while not self._events:
            if self._over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._events.popleft()

    def offer(self, change: Change) -> None:
        """Takes in one change."""
        if self._over:
            return
        if len(self._events) >= self._most:
            text = f"More than {self._most} changes wait to be read"
            self.end(refused(text, method="subscriptions/listen", setting="Limits.subscription_events"))
            return
        self._events.append(change)
        self._wake()

    def offer_all(self) -> None:
        """Reports everything that is listened to as changed."""
        known = self.acknowledged
        for flag, change in (
            (known.tools_list_changed, ToolListChanged()),
            (known.prompts_list_changed, PromptListChanged()),
            (known.resources_list_changed, ResourceListChanged()),
        ):
            if flag:
                self.offer(change)
        for uri in known.resource_subscriptions or ():
            self.offer(ResourceUpdated(uri))

    def end(self, error: ClientError | None) -> None:
        """Nothing more will come."""
        if not self._over:
            self._over, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Hub(Protocol):
    """What a subscription needs of its client."""

    closed: bool
    """True once the client was closed."""
    missed: Callable[[], None]
    """Says that changes may have been missed: nothing that is cached can be trusted."""

    async def ready(self) -> Link:
        """The link, connected. Raises `ClientError`."""
        ...


class ModernSource:
    """`subscriptions/listen`, made again when its connection breaks. `patience`: seconds for the acknowledgement."""

    def __init__(self, hub: Hub, *, patience: float) -> None:
        self._hub = hub
        self._patience = patience
        self._task: asyncio.Task[None] | None = None
        self._call: Call | None = None
        self._link: Link | None = None
        self._acknowledged: asyncio.Future[t.SubscriptionFilter] | None = None
        self._failures = 0
        """Breaks in a row before an acknowledgement."""
        self._breaks = 0
        """Breaks in a row of connections that did not hold for long."""
        self._since = 0.0
        self._closing = False

    async def open(self, subscription: Subscription) -> t.SubscriptionFilter:
        link = await self._hub.ready()
        first = self._acknowledged = asyncio.get_running_loop().create_future()
        self._task = link.spawn(self._run(subscription))
        try:
            async with asyncio.timeout(self._patience):
                return await first
        except TimeoutError:
            await self.close(subscription)
            text = "subscriptions/listen was not acknowledged in time"
            raise refused(text, method="subscriptions/listen") from None
        except BaseException:  # an opening that is given up must leave nothing behind
            await self.close(subscription)
            raise

    async def close(self, subscription: Subscription) -> None:
        self._closing = True
        if self._acknowledged is not None:
            self._acknowledged.cancel()
        if self._link is not None and self._call is not None:
            self._link.abandon(self._call)
        task = self._task
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait((task,), timeout=1.0)

    async def _run(self, subscription: Subscription) -> None:
        try:
            await self._listen(subscription)
        except asyncio.CancelledError:
            self._finish(subscription, None)
            raise

    async def _listen(self, subscription: Subscription) -> None:
        wanted = t.to_dict(subscription.wanted)
        while True:
            try:
                self._link = await self._hub.ready()
                self._call = self._link.call(
                    "subscriptions/listen",
                    {"notifications": wanted},
                    stream=True,
                    on_event=lambda event: self._heard(event, subscription),
                )
                await self._link.run(self._call)
                self._finish(subscription, None)
                return
            except ConnectionLost as exc:
                self._failures += 1
                now = asyncio.get_running_loop().time()
                self._breaks = 1 if self._since and now - self._since > _STEADY else self._breaks + 1
                self._since = 0.0
                first = self._acknowledged
                if self._closing or self._hub.closed:
                    self._finish(subscription, None)
                    return
                if self._failures > _MOST_FAILURES or (first is not None and not first.done()):
                    self._finish(subscription, exc)
                    return
            except ClientError as exc:
                self._finish(subscription, exc)
                return
            pause = min(0.25 * 2 ** min(self._breaks, 7), 30.0)
            await asyncio.sleep(pause * (0.5 + secrets.randbelow(1000) / 2000))

    def _heard(self, event: Notification, subscription: Subscription) -> None:
        if event.method == "notifications/subscriptions/acknowledged":
            try:
                granted = t.convert(event.params, t.SubscriptionsAcknowledgedParams).notifications
            except msgspec.ValidationError as exc:
                self._finish(subscription, refused(f"{event.method}: {said(exc)}", method="subscriptions/listen"))
                return
            subscription.acknowledged = granted
            first = self._acknowledged
            if first is not None and not first.done():
                first.set_result(granted)
            elif self._failures:
                self._hub.missed()
                subscription.offer_all()
            self._failures = 0
            self._since = asyncio.get_running_loop().time()
            return
        change = read_change(event)
        if change is not None and _covers(subscription.wanted, change):
            subscription.offer(change)

    def _finish(self, subscription: Subscription, error: ClientError | None) -> None:
        first = self._acknowledged
        if first is not None and not first.done():
            first.set_exception(error or ConnectionLost("The server ended the subscription before it began"))
        subscription.end(error)


class LegacySubscriptions:
    """The subscriptions to a server of the older era; the source of each of them.

    Args:
        hub: the client.
        capabilities: says what the server tells of.
    """

    def __init__(self, hub: Hub, capabilities: t.ServerCapabilities) -> None:
        self._hub = hub
        self._capabilities = capabilities
        self._open: list[Subscription] = []
        self._uris: Counter[str] = Counter()

    async def open(self, subscription: Subscription) -> t.SubscriptionFilter:
        wanted, can = subscription.wanted, self._capabilities
        resources = can.resources
        uris = sorted(set(wanted.resource_subscriptions or ())) if resources is not None and resources.subscribe else []
        granted = t.SubscriptionFilter(
            tools_list_changed=_both(wanted.tools_list_changed, can.tools and can.tools.list_changed),
            prompts_list_changed=_both(wanted.prompts_list_changed, can.prompts and can.prompts.list_changed),
            resources_list_changed=_both(wanted.resources_list_changed, resources and resources.list_changed),
            resource_subscriptions=uris or None,
        )
        subscription.acknowledged = granted
        self._open.append(subscription)
        self._uris.update(uris)
        try:
            for uri in [uri for uri in uris if self._uris[uri] == 1]:
                await self._tell("resources/subscribe", uri)
        except BaseException:  # a subscription that is refused must leave nothing behind
            await self.close(subscription)
            raise
        return granted

    async def close(self, subscription: Subscription) -> None:
        if subscription not in self._open:
            return
        self._open.remove(subscription)
        for uri in subscription.acknowledged.resource_subscriptions or ():
            self._uris[uri] -= 1
            if self._uris[uri] <= 0:
                del self._uris[uri]
                if not self._hub.closed:
                    with suppress(ClientError):  # at the latest the server forgets with the session
                        await self._tell("resources/unsubscribe", uri)

    async def renew(self) -> None:
        """Subscribes again, in a new session."""
        for uri in tuple(self._uris):
            await self._tell("resources/subscribe", uri)
        self._hub.missed()
        for subscription in self._open:
            subscription.offer_all()

    def heard(self, notification: Notification) -> None:
        """Gives a change to every subscription that listens for it."""
        change = read_change(notification)
        if change is not None:
            for subscription in self._open:
                if _covers(subscription.acknowledged, change):
                    subscription.offer(change)

    def lost(self, error: ConnectionLost) -> None:
        """Ends all subscriptions: the session is over."""
        for subscription in self._open:
            subscription.end(None if self._hub.closed else ConnectionLost(*error.args))

    async def _tell(self, method: str, uri: str) -> None:
        link = await self._hub.ready()
        await link.run(link.call(method, {"uri": uri}, safe=True))


def _both(wanted: bool | None, offered: object) -> bool | None:
    return True if wanted and offered else None


def _covers(known: t.SubscriptionFilter, change: Change) -> bool:
    if isinstance(change, ToolListChanged):
        return bool(known.tools_list_changed)
    if isinstance(change, PromptListChanged):
        return bool(known.prompts_list_changed)
    if isinstance(change, ResourceListChanged):
        return bool(known.resources_list_changed)
    # The updated resource may lie below the one that was named.
    return any(change.uri.startswith(uri) for uri in known.resource_subscriptions or ())
