"""The record under `Pins`: its form, how large it may become, and what goes first.

Rules of this file:
- What is approved is never dropped: where there is no room for more, more is refused.
- What waits has room of its own, for each server and in all. There is no room for what comes last from one server, and
  of several servers those go that have waited the longest. Nothing is approved by that: it waits, and is not kept.
- Instructions are kept once for all tools of a server that were offered with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, cast

import msgspec

from ..errors import ProtocolViolation
from ..protocol.json import encode
from .state import StateError

__all__ = ["MOST_TOOLS", "Book", "Kept", "KeptServer", "put_approved", "put_waiting", "read_book", "write_book"]

MOST_TOOLS: Final = 512
"""Of one server."""
_VERSION: Final = 1
# Bytes of JSON. All of it stays well below what a file of state may have.
_APPROVED: Final = 6 * 1024 * 1024
_WAITING: Final = 6 * 1024 * 1024
_WAITING_EACH: Final = 2 * 1024 * 1024


class Kept(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A tool as it was approved or seen."""

    alias: str
    digest: str
    when: str
    definition: str
    """Its JSON, as text: so it comes back as it was, and takes no more room than it has."""
    instructions: str | None = None
    """The key under which `KeptServer.instructions` has them."""


class KeptServer(msgspec.Struct, forbid_unknown_fields=True):
    """What is kept of one server, by the server's own names of its tools."""

    approved: dict[str, Kept] = {}
    waiting: dict[str, Kept] = {}
    instructions: dict[str, str] = {}

    def is_approved(self, tool: str, digest: str) -> bool:
        """Whether a tool is pinned under this digest."""
        kept = self.approved.get(tool)
        return kept is not None and kept.digest == digest


class Book(msgspec.Struct, forbid_unknown_fields=True):
    """All of it, by the identities of servers."""

    version: int = _VERSION
    servers: dict[str, KeptServer] = {}


def read_book(whole: Mapping[str, object]) -> Book:
    """The record as it is in a state; an empty one is an empty book. Raises `StateError` where it is none of ours."""
    try:
        book = msgspec.convert(whole, Book)
    except msgspec.ValidationError as exc:
        raise StateError(f"the record of pins is not what was written ({exc}); move it away to be asked anew") from None
    if book.version != _VERSION:
        raise StateError(f"the record of pins has the version {book.version}; this program writes {_VERSION}")
    return book


def write_book(whole: dict[str, object], book: Book) -> None:
    """Puts the book in the place of the record, without what nothing refers to.

    Raises:
        StateError: more is approved than there is room for.
    """
    _make_room(book)
    for identity, server in tuple(book.servers.items()):
        kept = (*server.approved.values(), *server.waiting.values())
        if not kept:
            del book.servers[identity]
            continue
        used = {each.instructions for each in kept}
        server.instructions = {key: text for key, text in server.instructions.items() if key in used}
    if sum(_size(server, server.approved.values()) for server in book.servers.values()) > _APPROVED:
        raise StateError(
            f"more than {_APPROVED // 1024**2} MiB of definitions would be approved; "
            "`garrison pins forget` those that are not used any more"
        )
    whole.clear()
    whole.update(cast("dict[str, object]", msgspec.to_builtins(book)))


def put_approved(server: KeptServer, made: Mapping[str, Kept], instructions: str | None) -> None:
    """Have these be approved, and wait no longer.

    Raises:
        ProtocolViolation: these would be more than `MOST_TOOLS`.
    """
    for tool, kept in made.items():
        server.approved[tool] = kept
        server.waiting.pop(tool, None)
        if kept.instructions is not None and instructions is not None:
            server.instructions[kept.instructions] = instructions
    if len(server.approved) > MOST_TOOLS:
        raise ProtocolViolation(f"no more than {MOST_TOOLS} tools of one server can be approved")


def put_waiting(server: KeptServer, made: Mapping[str, Kept], instructions: str | None, *, others: bool) -> bool:
    """Have these wait, as far as there is room and they are not approved.

    Args:
        server: where.
        made: by their names.
        instructions: that they all came with.
        others: keep what else waits.

    Returns:
        Whether what waits now is other than before.
    """
    before = {tool: (kept.alias, kept.digest) for tool, kept in server.waiting.items()}
    if instructions is not None:
        server.instructions |= {kept.instructions: instructions for kept in made.values() if kept.instructions}
    old, server.waiting = server.waiting, {}
    left, texts = _WAITING_EACH, dict(server.instructions)
    for tool, kept in {**(old if others else {}), **made}.items():
        size = len(encode(kept)) + len(encode(texts.get(kept.instructions or "", "")))
        if server.is_approved(tool, kept.digest) or len(server.waiting) >= MOST_TOOLS or size > left:
            continue
        server.waiting[tool] = old[tool] if before.get(tool) == (kept.alias, kept.digest) else kept
        left -= size
        texts.pop(kept.instructions or "", None)  # they are kept once
    return before != {tool: (kept.alias, kept.digest) for tool, kept in server.waiting.items()}


def _make_room(book: Book) -> None:
    sizes = {identity: _size(server, server.waiting.values()) for identity, server in book.servers.items()}
    waiting = [identity for identity, server in book.servers.items() if server.waiting]
    waiting.sort(key=lambda identity: max(kept.when for kept in book.servers[identity].waiting.values()))
    total = sum(sizes.values())
    for identity in waiting:
        if total <= _WAITING:
            return
        total -= sizes[identity]
        book.servers[identity].waiting = {}


def _size(server: KeptServer, kept: Iterable[Kept]) -> int:
    """Bytes of some of what is kept of a server, with the instructions that belong to it."""
    some = list(kept)
    used = {each.instructions for each in some}
    return len(encode(some)) + len(encode([text for key, text in server.instructions.items() if key in used]))
