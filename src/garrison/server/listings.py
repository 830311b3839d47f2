"""Listings and discovery: made from the registry, encoded once, cut into pages.

Rules of this file:
- A page is encoded the first time it is asked for and kept as bytes until the registry changes.
- A cursor is sealed: it opens only for the listing it came from, for whom it was given to, and only while the listing
  has not changed.

Spec: 2026-07-28 server/utilities/pagination, server/utilities/caching, server/discover.
"""

from __future__ import annotations

import time
from math import inf
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, Final, cast

import msgspec

from ..errors import InvalidParams
from ..protocol.json import encode
from ..protocol.sealed import SealError
from ..protocol.types import DiscoverResult, Implementation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..policy.principal import Principal
    from ..protocol.revisions import Revision
    from ..protocol.sealed import Sealer
    from ..protocol.types import CacheScope
    from .capabilities import Offer
    from .registry import Listed, Registry
    from .results import Wire

__all__ = ["Listings"]

_PURPOSE: Final = "cursor"
_PLACE: Final = Struct(">QQ")
"""Where a page begins, and in which listing. As long for every number: a length would tell of what is not shown."""
_CURSOR_LIFE: Final = 24 * 3600.0
_KEPT: Final = 1024
"""Encoded pages that are kept; callers may see different ones."""
_MEMBERS: Final = {
    "tools/list": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
    "prompts/list": "prompts",
}


class Listings:
    """The listings of one server.

    Args:
        sealer, audience: what seals cursors, and for which server.
        page_size: items on a page; None puts everything on one.
        ttl_ms: how long clients may keep a page, in milliseconds.
        cache_scope: "public" or "private".
        offer: what is offered.
    """

    def __init__(
        self,
        registry: Registry,
        offer: Offer,
        wire: Wire,
        sealer: Callable[[], Sealer],
        audience: str,
        *,
        page_size: int | None,
        ttl_ms: int,
        cache_scope: CacheScope,
        instructions: str | None,
        versions: tuple[str, ...],
    ) -> None:
        self._registry = registry
        self._offer = offer
        self._wire = wire
        self._sealer = sealer
        self._audience = audience
        self._page_size = page_size
        self._ttl_ms = ttl_ms
        self._scope: CacheScope = cache_scope
        self.instructions = instructions
        self._versions = versions
        self._pages: dict[tuple[object, ...], tuple[float, bytes]] = {}
        self._version = 0

    def changed(self) -> None:
        """Forget what was encoded: the registry is another now."""
        self._version += 1
        self._pages.clear()

    def discover(self, revision: Revision) -> bytes:
        """The result of `server/discover`."""
        return self._kept(("server/discover", revision.version), lambda: (inf, self._discover(revision)))

    def _discover(self, revision: Revision) -> bytes:
        result = DiscoverResult(
            supported_versions=list(self._versions),
            capabilities=self._offer.capabilities(),
            instructions=self.instructions,
            ttl_ms=self._ttl_ms,
            cache_scope=self._scope,
        )
        return self._wire.own("server/discover", result, revision)

    def initialize(self, revision: Revision) -> bytes:
        """The result of `initialize`."""
        return self._kept(("initialize", revision.version), lambda: (inf, self._initialize(revision)))

    def _initialize(self, revision: Revision) -> bytes:
        plain = cast("dict[str, object]", msgspec.to_builtins(self._offer.capabilities()))
        result: dict[str, object] = {
            "protocolVersion": revision.version,
            "capabilities": revision.capabilities(plain),
            "serverInfo": self._wire.server_info,
        }
        if self.instructions is not None:
            result["instructions"] = self.instructions
        return encode(revision.result("initialize", result))

    def page(
        self, method: str, revision: Revision, cursor: object, principal: Principal, shown: frozenset[str] | None
    ) -> bytes:
        """The result of a list request.

        Args:
            method, revision, cursor: of the request.
            principal: who asks. A cursor is good for whom it was given to.
            shown: the names of the entries that it is shown; None for all.

        Raises:
            InvalidParams: the cursor is not one of this listing as it stands.
        """
        whose = principal.key if self._page_size is not None else ""
        start = 0 if cursor is None else self._open(method, cursor, whose)
        key = (method, revision.version, start, whose, shown)
        return self._kept(key, lambda: self._encode(method, revision, start, whose, shown))

    def _kept(self, key: tuple[object, ...], make: Callable[[], tuple[float, bytes]]) -> bytes:
        """What was encoded before and still holds, or is encoded now."""
        known = self._pages.get(key)
        if known is None or known[0] <= time.time():
            if len(self._pages) >= _KEPT:
                self._pages.clear()
            known = self._pages[key] = make()
        return known[1]

    def entries(self, method: str) -> Mapping[str, Listed]:
        """What a listing is made from."""
        registry = self._registry
        tables: dict[str, Mapping[str, Listed]] = {
            "tools/list": registry.tools,
            "resources/list": registry.resources,
            "resources/templates/list": registry.templates,
            "prompts/list": registry.prompts,
        }
        return tables[method]

    def _encode(
        self, method: str, revision: Revision, start: int, whose: str, shown: frozenset[str] | None
    ) -> tuple[float, bytes]:
        """A page, and until when it may be given out: its cursor does not last for ever."""
        entries = tuple(self.entries(method).items())  # a handler's thread may register meanwhile
        items = [entry.definition for name, entry in entries if shown is None or name in shown]
        end = len(items) if self._page_size is None else start + self._page_size
        result: dict[str, object] = {
            "resultType": "complete",
            _MEMBERS[method]: items[start:end],
            "ttlMs": self._ttl_ms,
            "cacheScope": self._scope,
        }
        until = inf
        if end < len(items):
            now = time.time()
            payload, binding = _PLACE.pack(end, self._version), self._binding(method, whose)
            result["nextCursor"] = self._sealer().seal(_PURPOSE, payload, binding=binding, expires=now + _CURSOR_LIFE)
            until = now + _CURSOR_LIFE / 2
        return until, self._wire.own(method, result, revision)

    def _binding(self, method: str, whose: str) -> bytes:
        """What a cursor belongs to."""
        return msgspec.json.encode([self._audience, method, whose])

    def _open(self, method: str, cursor: object, whose: str) -> int:
        try:
            if type(cursor) is not str:
                raise SealError
            payload = self._sealer().open(_PURPOSE, cursor, binding=self._binding(method, whose), now=time.time())
            start, version = _PLACE.unpack(payload)
        except (SealError, StructError) as exc:
            raise InvalidParams("Invalid cursor") from exc
        if version != self._version:
            raise InvalidParams("Invalid cursor: the listing has changed, start again")
        return start


def implementation(info: Implementation) -> dict[str, object]:
    """An `Implementation` as it stands in `_meta`."""
    return cast("dict[str, object]", msgspec.to_builtins(info))
