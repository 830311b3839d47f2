"""Listings and discovery: made from the registry, encoded once, cut into pages.

Rules of this file:
- A page is encoded the first time it is asked for and kept as bytes until the registry changes.
- A cursor is sealed: it opens only for the listing it came from, and only while the listing has not changed.

Spec: 2026-07-28 server/utilities/pagination, server/utilities/caching, server/discover.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, cast

import msgspec

from ..errors import InvalidParams
from ..protocol.json import encode
from ..protocol.sealed import SealError
from ..protocol.types import (
    DiscoverResult,
    Implementation,
    ListChangedCapability,
    ResourcesCapability,
    ServerCapabilities,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..protocol.revisions import Revision
    from ..protocol.sealed import Sealer
    from ..protocol.types import CacheScope
    from .registry import Registry
    from .results import Wire

__all__ = ["Listings"]

_PURPOSE: Final = "cursor"
_CURSOR_LIFE: Final = 24 * 3600.0
_MEMBERS: Final = {
    "tools/list": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
    "prompts/list": "prompts",
}


class Listings:
    """The listings of one server.

    Args:
        page_size: items on a page; None puts everything on one.
        ttl_ms: how long clients may keep a page, in milliseconds.
        cache_scope: "public" or "private".
        experimental: further capabilities to advertise.
    """

    def __init__(
        self,
        registry: Registry,
        wire: Wire,
        sealer: Callable[[], Sealer],
        *,
        page_size: int | None,
        ttl_ms: int,
        cache_scope: CacheScope,
        instructions: str | None,
        versions: tuple[str, ...],
    ) -> None:
        self._registry = registry
        self._wire = wire
        self._sealer = sealer
        self._page_size = page_size
        self._ttl_ms = ttl_ms
        self._scope: CacheScope = cache_scope
        self.instructions = instructions
        self._versions = versions
        self._pages: dict[tuple[str, str, int], bytes] = {}
        self._version = 0

    def changed(self) -> None:
        """Forget what was encoded: the registry is another now."""
        self._version += 1
        self._pages.clear()

    def capabilities(self) -> ServerCapabilities:
        """What this server advertises, which is what it answers."""
        registry = self._registry
        return ServerCapabilities(
            tools=ListChangedCapability(list_changed=True) if registry.tools else None,
            resources=ResourcesCapability(subscribe=True, list_changed=True)
            if registry.resources or registry.templates
            else None,
            prompts=ListChangedCapability(list_changed=True) if registry.prompts else None,
            completions={} if registry.completers else None,
            logging={},
        )

    def discover(self, revision: Revision) -> bytes:
        """The result of `server/discover`."""
        key = ("server/discover", revision.version, 0)
        page = self._pages.get(key)
        if page is None:
            result = DiscoverResult(
                supported_versions=list(self._versions),
                capabilities=self.capabilities(),
                instructions=self.instructions,
                ttl_ms=self._ttl_ms,
                cache_scope=self._scope,
            )
            page = self._pages[key] = self._wire.struct("server/discover", result, revision)
        return page

    def initialize(self, revision: Revision) -> bytes:
        """The result of `initialize`."""
        key = ("initialize", revision.version, 0)
        page = self._pages.get(key)
        if page is None:
            plain = cast("dict[str, object]", msgspec.to_builtins(self.capabilities()))
            result: dict[str, object] = {
                "protocolVersion": revision.version,
                "capabilities": revision.capabilities(plain),
                "serverInfo": self._wire.server_info,
            }
            if self.instructions is not None:
                result["instructions"] = self.instructions
            page = self._pages[key] = encode(revision.result("initialize", result))
        return page

    def page(self, method: str, revision: Revision, cursor: object) -> bytes:
        """The result of a list request.

        Raises:
            InvalidParams: the cursor is not one of this listing as it stands.
        """
        start = 0 if cursor is None else self._open(method, cursor)
        key = (method, revision.version, start)
        page = self._pages.get(key)
        if page is None:
            page = self._pages[key] = self._encode(method, revision, start)
        return page

    def _items(self, method: str) -> Iterable[object]:
        registry = self._registry
        table = {
            "tools/list": registry.tools,
            "resources/list": registry.resources,
            "resources/templates/list": registry.templates,
            "prompts/list": registry.prompts,
        }[method]
        return [entry.definition for entry in tuple(table.values())]

    def _encode(self, method: str, revision: Revision, start: int) -> bytes:
        items = list(self._items(method))
        end = len(items) if self._page_size is None else start + self._page_size
        result: dict[str, object] = {
            "resultType": "complete",
            _MEMBERS[method]: items[start:end],
            "ttlMs": self._ttl_ms,
            "cacheScope": self._scope,
        }
        if end < len(items):
            payload = encode([end, self._version])
            expires = time.time() + _CURSOR_LIFE
            result["nextCursor"] = self._sealer().seal(_PURPOSE, payload, binding=method.encode(), expires=expires)
        return self._wire.struct(method, result, revision)

    def _open(self, method: str, cursor: object) -> int:
        try:
            if type(cursor) is not str:
                raise SealError
            payload = self._sealer().open(_PURPOSE, cursor, binding=method.encode(), now=time.time())
            start, version = msgspec.json.decode(payload, type=tuple[int, int])
        except (SealError, msgspec.MsgspecError) as exc:
            raise InvalidParams("Invalid cursor") from exc
        if version != self._version:
            raise InvalidParams("Invalid cursor: the listing has changed, start again")
        return start


def implementation(info: Implementation) -> dict[str, object]:
    """An `Implementation` as it stands in `_meta`."""
    return cast("dict[str, object]", msgspec.to_builtins(info))
