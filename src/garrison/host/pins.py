"""What was approved of a server's tools, so that nobody changes a tool after somebody agreed to it: `Pins`.

    pins = Pins(FolderState())
    pins.status(identity, "read", definition, instructions)      # "new"
    pins.approve(identity, "read", definition, instructions, alias="files")
    pins.status(identity, "read", definition, instructions)      # "same", until anything in it is other

Rules of this file:
- A pin belongs to an identity: what the server is, not what it or anybody calls it. Another server has other pins.
- A digest covers the whole definition and the server's instructions. What is approved is what was shown: a digest
  stands for it in between, and a newer definition is not approved in its place.
- Definitions that wait for somebody are kept beside the pins, in a place of their own size: a server that offers ever
  more of them takes no room from what was approved.
- A record that is not what was written is an error, never an empty one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast, final

import msgspec

from ..audit.record import stamp
from ..errors import DefinitionChanged, ProtocolViolation
from ..events import Event, record
from ..protocol.json import encode
from .canonical import CanonicalError, canonical
from .differences import Change, changes, seen
from .pin_record import Book, Kept, KeptServer, put_approved, put_waiting, read_book, write_book
from .questions import cut
from .state import StateError

if TYPE_CHECKING:
    from .state import State

    Definition = Mapping[str, object]

__all__ = ["Entry", "Pin", "Pins", "ServerPins", "Waiting", "definition_digest", "tell_changed"]

_NAME: Final = "pins"
_DOMAIN: Final = b"garrison tool definition 1\n"

_DEFINITION: Final = 64 * 1024
_DEPTH: Final = 256
_SHOWN: Final = 100
_PLACES: Final = 1000


def definition_digest(definition: Definition, instructions: str | None) -> str:
    """The digest of all that a server says of a tool.

    Args:
        definition: the tool as the server lists it, whole: name, title, description, schemas, annotations, icons,
            `_meta` and whatever else there is, as JSON.
        instructions: the server's instructions; None where it has none, which is not the same as empty ones.

    Returns:
        `sha256:` and 64 hexadecimal digits.

    Raises:
        CanonicalError: the definition is no JSON.
    """
    whole: dict[str, object] = {"definition": definition, "instructions": instructions}
    try:
        text = canonical(whole)
    except CanonicalError:
        # Schemas of 64-bit numbers have bounds that no double holds. They are named by their places, digit by digit.
        long: dict[str, str] = {}
        text = canonical({**whole, "definition": _without_long(definition, "", long, _DEPTH), "integers": long})
    return f"sha256:{sha256(_DOMAIN + text).hexdigest()}"


def _without_long(value: object, path: str, long: dict[str, str], depth: int) -> object:
    """The value with null in place of each integer that is not canonical. What is too deep stays: it is refused."""
    if isinstance(value, int):
        try:
            canonical(value)
        except CanonicalError:
            long[path] = str(value)
            return None
    elif depth and isinstance(value, list | tuple):
        items = cast("list[object]", value)
        return [_without_long(item, f"{path}/{index}", long, depth - 1) for index, item in enumerate(items)]
    elif depth and isinstance(value, Mapping):
        members = cast("Mapping[object, object]", value)
        return {name: _without_long(item, _below(path, name), long, depth - 1) for name, item in members.items()}
    return value


def _below(path: str, name: object) -> str:
    """A JSON pointer, RFC 6901."""
    return f"{path}/{str(name).replace('~', '~0').replace('/', '~1')}"


# What is had from it


class Entry(NamedTuple):
    """A tool of which something is kept. Nothing of it was checked."""

    identity: str
    alias: str
    tool: str
    approved: bool
    waiting: bool

    @property
    def name(self) -> str:
        """`alias.tool`."""
        return f"{self.alias}.{self.tool}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A tool as somebody approved it."""

    identity: str
    """What the server is."""
    alias: str
    """What it was called then."""
    tool: str
    """The server's own name of the tool."""
    definition: Definition
    instructions: str | None
    digest: str
    when: str
    """RFC 3339, UTC."""

    @property
    def name(self) -> str:
        """`alias.tool`."""
        return f"{self.alias}.{self.tool}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Pin):
    """A tool as it was last offered, which nobody has approved; `when` is when that was seen."""

    pin: Pin | None
    """What was approved of it before; None when nothing was."""

    def changes(self) -> tuple[Change, ...]:
        """What is other than in the pin; all of it where there is none."""
        if self.pin is None:
            return _all_changes({}, None, self.definition, self.instructions)
        return _all_changes(self.pin.definition, self.pin.instructions, self.definition, self.instructions)


def _all_changes(old: Definition, said: str | None, new: Definition, says: str | None) -> tuple[Change, ...]:
    before = {} if said is None else {"instructions": said}
    after = {} if says is None else {"instructions": says}
    return (*changes(old, new), *changes(before, after))


@final
class ServerPins:
    """The pins of one server, as they were when this was made. To be had from `Pins.of`."""

    __slots__ = ("_identity", "_server")

    def __init__(self, identity: str, server: KeptServer) -> None:
        self._identity = identity
        self._server = server

    def pin(self, tool: str) -> Pin | None:
        """What was approved of a tool. Raises `StateError` where it is not what was written."""
        kept = self._server.approved.get(tool)
        return None if kept is None else Pin(**self.read(tool, kept))

    def waiting(self, tool: str) -> Waiting | None:
        """What waits of a tool; None when that is nothing, or the same as is approved. Raises `StateError`."""
        kept = self._server.waiting.get(tool)
        if kept is None:
            return None
        pin = self.pin(tool)
        if pin is not None and pin.digest == kept.digest:
            return None
        return Waiting(**self.read(tool, kept), pin=pin)

    def status(self, tool: str, definition: Definition, instructions: str | None) -> Literal["new", "same", "changed"]:
        """See `Pins.status`."""
        pin = self.pin(tool)
        if pin is None:
            return "new"
        return "same" if pin.digest == definition_digest(definition, instructions) else "changed"

    def changes(self, tool: str, definition: Definition, instructions: str | None) -> tuple[str, ...]:
        """See `Pins.changes`."""
        pin = self.pin(tool)
        if pin is None or pin.digest == definition_digest(definition, instructions):
            return ()
        found = _all_changes(pin.definition, pin.instructions, definition, instructions)
        return tuple(change.line() for change in found)

    def read(self, tool: str, kept: Kept) -> _Fields:
        """What was kept, held against its digest."""
        instructions = None if kept.instructions is None else self._server.instructions.get(kept.instructions)
        try:
            definition = msgspec.json.decode(kept.definition, type=dict[str, object])
            whole = definition_digest(definition, instructions) == kept.digest
        except (msgspec.DecodeError, CanonicalError, RecursionError):
            definition, whole = {}, False
        if not whole:
            name = _named(kept.alias, tool)
            raise StateError(
                f"what is kept of {name} is not what was written: it does not give its digest; "
                f"`garrison pins forget {name}` has it approved anew"
            )
        return {
            "identity": self._identity,
            "alias": kept.alias,
            "tool": tool,
            "definition": definition,
            "instructions": instructions,
            "digest": kept.digest,
            "when": kept.when,
        }


if TYPE_CHECKING:
    from typing import TypedDict

    class _Fields(TypedDict):
        identity: str
        alias: str
        tool: str
        definition: Definition
        instructions: str | None
        digest: str
        when: str


@final
class Pins:
    """What was approved, by the identity of a server and the server's own name of a tool.

    Args:
        state: where it is kept; its record `pins`.

    All methods raise `StateError` where that cannot be read or written, or is not what was written.
    """

    __slots__ = ("_state",)

    def __init__(self, state: State) -> None:
        self._state = state

    # What is known

    def of(self, identity: str) -> ServerPins:
        """All pins of one server in one reading: for who looks at many tools."""
        return ServerPins(identity, self._book().servers.get(identity) or KeptServer())

    def status(
        self, identity: str, tool: str, definition: Definition, instructions: str | None
    ) -> Literal["new", "same", "changed"]:
        """Whether a tool is what was approved; `new` when nothing was.

        Raises:
            CanonicalError: the definition is no JSON.
        """
        return self.of(identity).status(tool, definition, instructions)

    def changes(self, identity: str, tool: str, definition: Definition, instructions: str | None) -> tuple[str, ...]:
        """What is other than was approved, a line each; empty when it is the same, and when nothing was approved.

        Raises:
            CanonicalError: the definition is no JSON.
        """
        return self.of(identity).changes(tool, definition, instructions)

    def entries(self) -> tuple[Entry, ...]:
        """Every tool of which something is kept, unchecked, in the order of their names."""
        found: list[Entry] = []
        for identity, server in self._book().servers.items():
            for tool in {**server.approved, **server.waiting}:
                kept = server.waiting.get(tool) or server.approved[tool]
                found.append(Entry(identity, kept.alias, tool, tool in server.approved, tool in server.waiting))
        return tuple(sorted(found, key=lambda entry: (entry.alias, entry.tool, entry.identity)))

    def listed(self) -> tuple[Pin, ...]:
        """Every pin, in the order of their names."""
        pins = (pin for server, tool in self._each() if (pin := server.pin(tool)) is not None)
        return tuple(sorted(pins, key=lambda pin: (pin.alias, pin.tool, pin.identity)))

    def waiting(self) -> tuple[Waiting, ...]:
        """Every tool that waits for somebody's approval, in the order of their names."""
        found = (waiting for server, tool in self._each() if (waiting := server.waiting(tool)) is not None)
        return tuple(sorted(found, key=lambda each: (each.alias, each.tool, each.identity)))

    def _each(self) -> Iterator[tuple[ServerPins, str]]:
        for identity, server in self._book().servers.items():
            for tool in {**server.approved, **server.waiting}:
                yield ServerPins(identity, server), tool

    # What somebody decides

    def approve(
        self, identity: str, tool: str, definition: Definition, instructions: str | None, *, alias: str
    ) -> None:
        """Pin a tool as it is. Whoever calls this has shown exactly that to somebody, who agreed.

        Raises:
            ProtocolViolation: definition and instructions are larger than 64 KiB each, or the server has 512 pins.
            CanonicalError: the definition is no JSON.
        """
        self.approve_all(identity, {tool: definition}, instructions, alias=alias)

    def approve_all(
        self, identity: str, definitions: Mapping[str, Definition], instructions: str | None, *, alias: str
    ) -> None:
        """Pin several tools of a server, all or none. As `approve`, written once."""
        made = {tool: _kept(alias, tool, definition, instructions) for tool, definition in definitions.items()}
        with self._state.changing(_NAME) as whole:
            book = read_book(whole)
            server = book.servers.setdefault(identity, KeptServer())
            put_approved(server, made, instructions)
            write_book(whole, book)
        for tool, kept in made.items():
            _tell_approved(kept.alias, tool, kept.digest)

    def approve_waiting(self, identity: str, tool: str, digest: str) -> Pin:
        """Pin what waits, if it is still that.

        Args:
            identity: of the server.
            tool: the server's own name of it.
            digest: of what somebody has seen.

        Raises:
            DefinitionChanged: something else waits by now, or nothing does.
        """
        with self._state.changing(_NAME) as whole:
            book = read_book(whole)
            server = book.servers.get(identity) or KeptServer()
            waiting = ServerPins(identity, server).waiting(tool)
            if waiting is None or waiting.digest != digest:
                now = "nothing waits there now" if waiting is None else f"{waiting.digest} waits there now"
                raise DefinitionChanged(
                    f"{_named('', tool)}: {digest} was not approved, as {now}; look at the difference again"
                )
            kept = _kept(waiting.alias, tool, waiting.definition, waiting.instructions)
            put_approved(server, {tool: kept}, waiting.instructions)
            write_book(whole, book)
        _tell_approved(waiting.alias, tool, digest)
        return Pin(**ServerPins(identity, server).read(tool, kept))

    def forget(self, identity: str, tool: str | None = None) -> bool:
        """Forget what was approved and what waits, of a tool or of a whole server, so that it is new again.

        Returns:
            Whether anything was kept.
        """
        with self._state.changing(_NAME) as whole:
            book = read_book(whole)
            server = book.servers.get(identity)
            if server is None:
                return False
            if tool is None:
                del book.servers[identity]
                found = True
            else:
                found = server.approved.pop(tool, None) is not None
                found = server.waiting.pop(tool, None) is not None or found
            write_book(whole, book)
            return found

    # What waits

    def keep_seen(self, identity: str, alias: str, tool: str, definition: Definition, instructions: str | None) -> bool:
        """Keep a definition that nobody has approved, so that it can be looked at later. It is not approved by that.

        Returns:
            False when there is no room for it: over 64 KiB, 512 tools of a server, or 2 MiB of one server.

        Raises:
            CanonicalError: the definition is no JSON.
        """
        return not self._keep(identity, alias, {tool: definition}, instructions, others=True)

    def keep_all_seen(
        self, identity: str, alias: str, definitions: Mapping[str, Definition], instructions: str | None
    ) -> tuple[str, ...]:
        """All that waits of a server: what it offered before and offers no more does not wait any longer.

        As `keep_seen`, read and written once, and not written when it is what is kept already.

        Returns:
            The tools for which there was no room.
        """
        return self._keep(identity, alias, definitions, instructions, others=False)

    def _keep(
        self,
        identity: str,
        alias: str,
        definitions: Mapping[str, Definition],
        instructions: str | None,
        *,
        others: bool,
    ) -> tuple[str, ...]:
        made: dict[str, Kept] = {}
        for tool, definition in definitions.items():
            with suppress(ProtocolViolation):
                made[tool] = _kept(alias, tool, definition, instructions)
        server = self._book().servers.get(identity) or KeptServer()
        if put_waiting(server, made, instructions, others=others):
            with self._state.changing(_NAME) as whole:
                book = read_book(whole)
                server = book.servers.setdefault(identity, KeptServer())
                put_waiting(server, made, instructions, others=others)
                write_book(whole, book)
        there = {tool for tool, kept in made.items() if tool in server.waiting or server.is_approved(tool, kept.digest)}
        return tuple(tool for tool in definitions if tool not in there)

    def _book(self) -> Book:
        return read_book(self._state.read(_NAME))


def _named(alias: str, tool: str) -> str:
    """For a message: the tool's name is the server's, and as long as the server likes."""
    return cut(seen(f"{alias}.{tool}" if alias else tool), _SHOWN)


def _kept(alias: str, tool: str, definition: Definition, instructions: str | None) -> Kept:
    digest = definition_digest(definition, instructions)
    text = encode(dict(definition))
    if len(text) > _DEFINITION or len(encode(instructions)) > _DEFINITION:
        most = f"{_DEFINITION // 1024} KiB"
        raise ProtocolViolation(f"{_named(alias, tool)}: its definition or the instructions are larger than {most}")
    by = None if instructions is None else sha256(instructions.encode()).hexdigest()
    return Kept(alias, digest, stamp(time.time()), text.decode(), by)


# What is told


def tell_changed(alias: str, tool: str, lines: tuple[str, ...]) -> None:
    """The event `pin.changed`, once for each change: for whoever blocks the tool. `lines` are those of `changes`."""
    places = cut(", ".join(line.partition(": ")[0] for line in lines), _PLACES)
    name = _named(alias, tool)
    record(
        "pin.changed",
        f"{name} is not what was approved: {places}",
        setting=f"garrison pins approve {name}",
        decision="refused",
        about=Event("pin.changed", server=alias, target=name),
    )


def _tell_approved(alias: str, tool: str, digest: str) -> None:
    record(
        "pin.approved",
        f"{_named(alias, tool)} was approved as {digest}",
        decision="allowed",
        about=Event("pin.approved", server=alias, target=_named(alias, tool)),
    )
