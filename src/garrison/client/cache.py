"""Results that are still fresh, by what the server said about them.

Rules of this file:
- A result is kept for `ttlMs`, at most a day; never one that came from a retry with answers.
- A notification that something changed drops what it may have changed, at once and also for requests under way.
- The cache belongs to one client. When that is somebody else to the server than before, what is not `public` goes.

Spec: 2026-07-28 server/utilities/caching.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from ..protocol import types as t

__all__ = ["Cache"]

_LONGEST: Final = 24 * 3600.0
_MOST_ENTRIES: Final = 256
_MOST_BYTES: Final = 32 * 1024 * 1024

_CHANGES: Final = {
    "notifications/tools/list_changed": ("tools/list",),
    "notifications/prompts/list_changed": ("prompts/list",),
    "notifications/resources/list_changed": ("resources/list", "resources/templates/list"),
}

Key = tuple[str, str | None]


class Cache:
    """Fresh results by method and subject (the cursor or URI)."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, tuple[float, int, t.CacheableResult]] = OrderedDict()
        self._bytes = 0
        self.generation = 0
        """Grows with every change that the server tells of."""

    def get(self, key: Key, now: float) -> t.CacheableResult | None:
        """The result for this request, while it is fresh. `now` is in seconds of any steady clock."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now < entry[0]:
            return entry[2]
        self._drop(key)
        return None

    def put(self, key: Key, result: t.CacheableResult, *, size: int, now: float, generation: int) -> None:
        """Keeps a result.

        Args:
            key: method and subject.
            result: with its `ttl_ms`.
            size: bytes it came in.
            now: when it came.
            generation: the cache's when the request was sent; an older one means that it may be outdated already.
        """
        seconds = min(float(result.ttl_ms) / 1000, _LONGEST)
        if key in self._entries:
            self._drop(key)
        if seconds <= 0 or generation != self.generation or size > _MOST_BYTES:
            return
        self._entries[key] = (now + seconds, size, result)
        self._bytes += size
        while len(self._entries) > _MOST_ENTRIES or self._bytes > _MOST_BYTES:
            self._drop(next(iter(self._entries)))

    def changed(self, method: str, uri: str | None = None) -> None:
        """Drops what this notification says has changed. `uri` may lie below the resource that was read."""
        methods = _CHANGES.get(method, ())
        updated = method == "notifications/resources/updated" and uri is not None
        if not methods and not updated:
            return
        self.generation += 1
        for key in tuple(self._entries):
            read = key[0] == "resources/read" and key[1] is not None
            if key[0] in methods or (updated and read and str(uri).startswith(str(key[1]))):
                self._drop(key)

    def leave(self) -> None:
        """Drops what only the one who asked may see, also of requests under way."""
        self.generation += 1
        for key, (_, _, result) in tuple(self._entries.items()):
            if result.cache_scope != "public":
                self._drop(key)

    def clear(self) -> None:
        """Drops everything."""
        self.generation += 1
        self._entries.clear()
        self._bytes = 0

    def _drop(self, key: Key) -> None:
        self._bytes -= self._entries.pop(key)[1]
