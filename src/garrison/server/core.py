"""What all connections of one server share while it runs.

Rules of this file:
- Built once when a transport starts; the corridor is composed here and never per message.
- It runs on one event loop. Starting it enters the server's lifespan, closing it leaves it. Before it is started it
  answers what needs no loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..protocol.envelope import parser
from ..protocol.json import decoder
from ..protocol.revisions import LATEST, VERSIONS, get
from .sessions import LegacyDoor

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from ..gate.shared_rates import SharedRates
    from ..policy import SecurityPolicy
    from ..protocol.revisions import Revision
    from ..transports.flood import Floods
    from .capabilities import Offer
    from .desk import Desk
    from .listings import Listings
    from .recording import Audit
    from .registry import Registry
    from .runner import Runner
    from .subscriptions import Hub
    from .threads import Workers

__all__ = ["Core"]


class Core:
    """The running server."""

    def __init__(
        self,
        *,
        policy: SecurityPolicy,
        registry: Registry,
        listings: Listings,
        offer: Offer,
        hub: Hub,
        desk: Desk,
        runner: Runner,
        audit: Audit | None,
        rate_store: SharedRates | None,
        legacy: bool,
        lifespan: AbstractAsyncContextManager[object] | None,
    ) -> None:
        self.policy = policy
        self.registry = registry
        self.listings = listings
        self.hub = hub
        self.desk = desk
        self.decode = decoder(policy.limits, duplicate_keys="duplicate_keys" in policy.tolerate)
        self.parse = parser(unknown_members="unknown_members" in policy.tolerate)
        self.modern = cast("Revision", get(LATEST))
        self.serves_legacy = legacy
        self.versions = VERSIONS if legacy else (LATEST,)
        """The revisions that are served."""
        self.legacy = LegacyDoor(offer, listings, hub, desk.may_read)
        self.runner = runner
        self.audit = audit
        self._rate_store = rate_store
        self._lifespan = lifespan
        self._workers: Workers | None = None
        self._floods: Floods | None = None

    @property
    def floods(self) -> Floods:
        """The places and meters of all its listeners."""
        if self._floods is None:
            from ..transports.flood import Floods

            self._floods = Floods(self.policy.limits)
        return self._floods

    @property
    def wants_loop(self) -> bool:
        """True if there is something to do that needs an event loop."""
        return self._lifespan is not None or self.runner.wants_loop

    async def start(self) -> None:
        """Enter the lifespan and tie everything to the running loop."""
        import asyncio

        from .threads import Workers

        loop = asyncio.get_running_loop()
        state = None if self._lifespan is None else await self._lifespan.__aenter__()
        self._workers = Workers(self.policy.limits.threads, loop)
        self.hub.start(loop)
        self.desk.start(loop, self._workers, state)
        self.runner.start(loop)

    async def close(self) -> None:
        """End subscriptions gracefully, let requests end, cancel what is left, leave the lifespan."""
        self.hub.close()
        await self.runner.close(self.policy.timeouts.shutdown)
        if self.audit is not None:
            self.audit.close()
        if self._rate_store is not None:
            await self._rate_store.close()
        if self._workers is None:
            return  # the lifespan was not entered
        self._workers.close()
        if self._lifespan is not None:
            await self._lifespan.__aexit__(None, None, None)
