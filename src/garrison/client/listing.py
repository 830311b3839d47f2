"""What a client takes of a listing: how many pages and definitions, how large, and for how long.

Rules of this file:
- A page is looked at before it is read into its type. More definitions, or larger ones, than the limits allow are
  refused, and the error names the limit.
- A definition that is not one is left out, and counted; the others of its page are there. A page that is none is an
  error.
- A walk over pages ends: after `Limits.pages`, after `Timeouts.listing`, or where the cursors go round.

Spec: 2026-07-28 server/utilities/pagination.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast

import msgspec

from ..errors import RequestTimeout
from ..protocol import types as t
from ..protocol.json import encode
from .words import refused, said

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import ProtocolViolation
    from ..policy import Limits, Timeouts

__all__ = ["LISTS", "Walk", "check_page", "read_page"]

T = TypeVar("T", bound=t.Result)

_SHOWN: Final = 64

_log = logging.getLogger("garrison.client")


class _List(NamedTuple):
    """Where a result has its definitions, what each of them is, and the limit of how many there may be."""

    member: str
    field: str
    kind: type[t.Tool | t.Resource | t.ResourceTemplate | t.Prompt]
    setting: str


LISTS: Final = {
    "tools/list": _List("tools", "tools", t.Tool, "tools"),
    "resources/list": _List("resources", "resources", t.Resource, "listed"),
    "resources/templates/list": _List("resourceTemplates", "resource_templates", t.ResourceTemplate, "listed"),
    "prompts/list": _List("prompts", "prompts", t.Prompt, "listed"),
}
"""The listings, by method."""


def check_page(method: str, raw: dict[str, object], size: int, limits: Limits) -> None:
    """Refuses a page with too much in it.

    Args:
        method, raw: of a listing, as it came.
        size: bytes it came in.
        limits: the client's.

    Raises:
        ProtocolViolation: there are too many definitions, or one of them or the cursor is too large.
    """
    spec = LISTS[method]
    items = _items(raw, spec.member)
    _few_enough(method, len(items), spec, limits)
    most = limits.definition_bytes
    if size <= most:
        return
    cursor = raw.get("nextCursor")
    if isinstance(cursor, str) and len(cursor) > most:
        raise refused(
            f"{method}: the cursor is longer than {most} characters", method=method, setting="Limits.definition_bytes"
        )
    for item in items:
        if len(encode(item)) > most:
            name = cast("dict[str, object]", item).get("name") if isinstance(item, dict) else None
            which = f" of {said(name, _SHOWN)!r}" if isinstance(name, str) else ""
            raise refused(
                f"{method}: the definition{which} is larger than {most} bytes",
                method=method,
                setting="Limits.definition_bytes",
            )


def read_page(method: str, raw: dict[str, object], kind: type[T], left_out: Callable[[int], None]) -> T:
    """A page as its type, without the definitions that are none.

    Args:
        method, raw: of a listing, in the shape of the newest revision.
        kind: what it is.
        left_out: hears how many definitions were left out, if any were.

    Raises:
        ProtocolViolation: it is no page.
    """
    try:
        return t.convert(raw, kind)
    except msgspec.ValidationError as exc:
        problem = said(exc)
    spec = LISTS[method]
    items = _items(raw, spec.member)
    good = [item for item in items if _is_one(item, spec.kind)]
    if len(good) < len(items):
        try:
            page = t.convert({**raw, spec.member: good}, kind)
        except msgspec.ValidationError as exc:
            problem = said(exc)
        else:
            count = len(items) - len(good)
            text = f"{method}: {count} of {len(items)} definitions are malformed and left out; the first: {problem}"
            refused(text, method=method)
            _log.warning("%s", text)
            left_out(count)
            return page
    raise refused(f"{method}: {problem}", method=method)


class Walk:
    """One walk over the pages of a listing.

    Args:
        method: of the listing.
        limits, timeouts: the client's.
        now: loop time.
    """

    __slots__ = ("_count", "_end", "_left", "_limits", "_method", "_pages", "_seen", "_whole")

    def __init__(self, method: str, limits: Limits, timeouts: Timeouts, now: float) -> None:
        self._method = method
        self._limits = limits
        self._whole = self._left = timeouts.listing
        self._end = now + max(timeouts.listing, timeouts.request_max)
        self._seen: set[str] = set()
        self._pages = self._count = 0

    def patience(self, timeout: float, now: float) -> float:
        """Seconds for the next page, of the `timeout` that one request has.

        Raises:
            RequestTimeout: nothing is left.
        """
        if self._left <= 0 or now >= self._end:
            raise self.late()
        return min(timeout, self._left)

    def took(self, seconds: float) -> None:
        """Counts the time of one page."""
        self._left -= seconds

    def late(self) -> RequestTimeout:
        """The error for a listing that takes too long."""
        return RequestTimeout(self._method, self._whole, setting="Timeouts.listing")

    def count(self, page: t.PaginatedResult) -> None:
        """Counts one page and what it brought.

        Raises:
            ProtocolViolation: there are too many definitions.
        """
        spec = LISTS[self._method]
        self._pages += 1
        self._count += len(getattr(page, spec.field))
        _few_enough(self._method, self._count, spec, self._limits)

    def cursor_after(self, page: t.PaginatedResult) -> str | None:
        """The cursor of the page after this one; None after the last one.

        Raises:
            ProtocolViolation: it leads in a circle, or too far.
        """
        cursor = page.next_cursor
        if cursor is None:
            return None
        if cursor in self._seen:
            raise self._refused("the pages go round in a circle")
        self._seen.add(cursor)
        if self._pages >= self._limits.pages:
            raise self._refused(f"more than {self._limits.pages} pages", "Limits.pages")
        return cursor

    def _refused(self, text: str, setting: str = "") -> ProtocolViolation:
        return refused(f"{self._method}: {text}", method=self._method, setting=setting)


def _few_enough(method: str, count: int, spec: _List, limits: Limits) -> None:
    most: int = getattr(limits, spec.setting)
    if count > most:
        raise refused(f"{method}: the server lists more than {most}", method=method, setting=f"Limits.{spec.setting}")


def _items(raw: dict[str, object], member: str) -> list[object]:
    items = raw.get(member)
    return cast("list[object]", items) if isinstance(items, list) else []


def _is_one(item: object, kind: type[object]) -> bool:
    try:
        t.convert(item, kind)
    except msgspec.ValidationError:
        return False
    return True
