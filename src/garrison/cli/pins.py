"""`garrison pins list|diff|approve|forget`: what was approved of the tools that servers offer, and what waits for it.

Rules of this file:
- Nothing is started and nobody is connected to: what waits is what a host has seen and kept.
- What a server says is shown whole, between quotation marks, with every hidden character written out, in a pipe too.
- What is approved is what was shown, and no definition that came in between. A script names by
  its digest the one that somebody has seen.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import msgspec

from ..errors import ConfigurationError, DefinitionChanged, ProtocolViolation
from ..host.differences import quoted, seen
from ..host.pins import Pins
from ..host.state import FolderState, StateError
from ..protocol.json import encode
from .failures import OK, USAGE, quiet
from .style import bold, dim, emit_json, green, red, safe, table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..host.differences import Change
    from ..host.pins import Entry, Pin, Waiting
    from ..host.scanner import Finding

__all__ = ["pins"]

_WAITS: Final = 1
_YES: Final = frozenset({"y", "yes"})
_SHORT: Final = len("sha256:") + 12


def pins(options: Namespace) -> int:
    """`garrison pins ACTION [NAME ...]`"""
    quiet()
    try:
        return _ACTIONS[options.action](Pins(FolderState(options.state)), options)
    except (ConfigurationError, StateError, ProtocolViolation) as exc:
        print(f"garrison: {safe(str(exc))}", file=sys.stderr)
        return USAGE


def _wanted(book: Pins, names: Sequence[str]) -> list[Entry]:
    """What the names stand for; all there is without any."""
    entries = book.entries()
    if not names:
        return list(entries)
    for name in names:
        if not any(name in (entry.name, entry.alias) for entry in entries):
            raise ConfigurationError(f"{seen(name)}: no such tool or server; `garrison pins list` shows what there is")
    return [entry for entry in entries if entry.name in names or entry.alias in names]


def _waiting(book: Pins, entries: Sequence[Entry]) -> list[Waiting]:
    wanted = {(entry.identity, entry.tool) for entry in entries}
    return [each for each in book.waiting() if (each.identity, each.tool) in wanted]


# list


def _list(book: Pins, options: Namespace) -> int:
    entries = _wanted(book, options.names)
    pinned = {(pin.identity, pin.tool): pin for pin in book.listed()}
    waiting = {(each.identity, each.tool): each for each in _waiting(book, entries)}
    keyed = [(entry, (entry.identity, entry.tool)) for entry in entries]
    rows = [(entry, pinned.get(key), waiting.get(key)) for entry, key in keyed]
    if options.json:
        emit_json([_row(entry, pin, waits) for entry, pin, waits in rows])
    elif rows:
        _show_rows(rows)
    else:
        print("Nothing was approved, and nothing waits for it.")
    return _WAITS if waiting and options.check else OK


def _row(entry: Entry, pin: Pin | None, waits: Waiting | None) -> dict[str, object]:
    return {
        "name": entry.name,
        "alias": entry.alias,
        "tool": entry.tool,
        "identity": entry.identity,
        "state": _state(pin, waits),
        "digest": None if pin is None else pin.digest,
        "approved": None if pin is None else pin.when,
        "waiting_digest": None if waits is None else waits.digest,
        "seen": None if waits is None else waits.when,
    }


def _state(pin: Pin | None, waits: Waiting | None) -> str:
    """`approved`, `changed` or `new`."""
    return "approved" if waits is None else "changed" if pin is not None else "new"


def _show_rows(rows: Sequence[tuple[Entry, Pin | None, Waiting | None]]) -> None:
    identities = {alias: {entry.identity for entry, _, _ in rows if entry.alias == alias} for alias in _aliases(rows)}
    several = any(len(found) > 1 for found in identities.values())
    cells: list[list[str]] = []
    for entry, pin, waits in rows:
        digest, when = ("", "") if pin is None else (pin.digest[:_SHORT], pin.when[:19].replace("T", " "))
        state = "ok" if waits is None else f"waiting ({_state(pin, waits)})"
        cells.append([seen(entry.name), state, digest, when, *([seen(entry.identity)] if several else [])])
    table("Pins", ("tool", "state", "digest", "approved (UTC)", *(["server"] if several else [])), cells)
    if any(waits is not None for _, _, waits in rows):
        print("\n`garrison pins diff` shows what waits.")


def _aliases(rows: Sequence[tuple[Entry, Pin | None, Waiting | None]]) -> set[str]:
    return {entry.alias for entry, _, _ in rows}


# diff


def _diff(book: Pins, options: Namespace) -> int:
    waiting = _waiting(book, _wanted(book, options.names))
    if options.json:
        emit_json([_as_json(each, _findings(book, each)) for each in waiting])
    elif not waiting:
        print("Nothing waits.")
    else:
        for index, each in enumerate(waiting):
            print("\n" * (index > 0) + "\n".join(_lines(each, _findings(book, each))))
    return _WAITS if waiting else OK


def _findings(book: Pins, waits: Waiting) -> Sequence[Finding]:
    """What the scanner says of it, who knows the tools of the other servers as far as they were kept."""
    from ..host.scanner import scan  # lazy: `list` and `forget` need none

    tools: dict[str, set[str]] = {}
    for entry in book.entries():
        tools.setdefault(entry.alias, set()).add(entry.tool)
    return scan(waits.definition, alias=waits.alias, others=tools, instructions=waits.instructions)


def _as_json(waits: Waiting, findings: Sequence[Finding]) -> dict[str, object]:
    return {
        "name": waits.name,
        "alias": waits.alias,
        "tool": waits.tool,
        "identity": waits.identity,
        "state": _state(waits.pin, waits),
        "digest": waits.digest,
        "seen": waits.when,
        "approved_digest": None if waits.pin is None else waits.pin.digest,
        "changes": [change.line() for change in waits.changes()],
        "findings": [finding._asdict() for finding in findings],
        "definition": waits.definition,
        "instructions": waits.instructions,
    }


def _lines(waits: Waiting, findings: Sequence[Finding]) -> Iterator[str]:
    """All that waits: the difference, or the whole definition where nothing was approved."""
    out = sys.stdout
    yield bold(f"{seen(waits.name)}  {_state(waits.pin, waits).upper()}", out)
    yield dim(f"  of {seen(waits.identity)}", out)
    if waits.pin is None:
        yield from (f"  {green(line, out)}" for line in _indented(waits.definition))
        if waits.instructions is not None:
            yield f"  the server's instructions: {green(quoted(waits.instructions), out)}"
    else:
        yield dim(f"  approved {waits.pin.when[:19]}Z as {waits.pin.digest}", out)
        yield from (f"  {_painted(change)}" for change in waits.changes())
    for finding in findings:
        text = seen(f"{finding.level}: {finding.text} (at {finding.where})")
        yield f"  ! {red(text, out) if finding.level == 'high' else text}"
    yield dim(f"  seen {waits.when[:19]}Z, digest {waits.digest}", out)


def _indented(definition: Mapping[str, object]) -> list[str]:
    text = msgspec.json.format(encode(definition), indent=2).decode()
    return [seen(line) for line in text.split("\n")]


def _painted(change: Change) -> str:
    return change.line(lambda kind, text: _COLOURS[kind](text, sys.stdout) if kind in _COLOURS else text)


_COLOURS: Final = {"removed": red, "added": green, "note": dim}


# approve


def _approve(book: Pins, options: Namespace) -> int:
    _check_words(options)
    entries = _wanted(book, options.names)
    waiting = _waiting(book, entries)
    if options.digest is not None:
        if not any(each.digest == options.digest for each in waiting):
            return _is_not_there(book, entries, options)
        waiting = [each for each in waiting if each.digest == options.digest]
        if options.yes and len(waiting) > 1:
            raise ConfigurationError(f"{seen(options.names[0])} is a tool of several servers; approve it at a terminal")
    done: list[Pin] = []
    left = 0
    for each in waiting:
        if not options.yes:
            print("\n".join(_lines(each, _findings(book, each))))
        try:
            if options.yes or _agreed(each):
                done.append(book.approve_waiting(each.identity, each.tool, each.digest))
                continue
        except DefinitionChanged as exc:
            print(f"garrison: {safe(str(exc))}", file=sys.stderr)
        left += 1
    _tell(done, waiting, options)
    return _WAITS if left else OK


def _check_words(options: Namespace) -> None:
    if options.yes:
        if options.digest is None or len(options.names) != 1:
            raise ConfigurationError("--yes needs one NAME and --digest: the digest of what somebody has looked at")
    elif options.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigurationError(
            "approve asks a person at a terminal; elsewhere, give one NAME with --digest and --yes, once somebody has "
            "looked at `garrison pins diff`"
        )


def _is_not_there(book: Pins, entries: Sequence[Entry], options: Namespace) -> int:
    """What was asked for does not wait: it is approved already, or something else waits."""
    if any((pin := book.of(entry.identity).pin(entry.tool)) and pin.digest == options.digest for entry in entries):
        _tell([], [], options)
        return OK
    text = f"garrison: nothing of the digest {seen(options.digest)} waits there; look at `garrison pins diff` again"
    print(safe(text), file=sys.stderr)
    return _WAITS


def _agreed(waits: Waiting) -> bool:
    print(f"Approve {seen(waits.name)}? [y/N] ", end="", flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):  # the end of input
        print()
    return answer.strip().lower() in _YES


def _tell(done: Sequence[Pin], waiting: Sequence[Waiting], options: Namespace) -> None:
    if options.json:
        emit_json([{"name": pin.name, "identity": pin.identity, "digest": pin.digest} for pin in done])
        return
    for pin in done:
        print(f"approved {seen(pin.name)} {pin.digest}")
    if not waiting:
        print("Nothing waits.")


# forget


def _forget(book: Pins, options: Namespace) -> int:
    if not options.names:
        raise ConfigurationError("forget needs the NAME of a tool or a server")
    entries = [entry for entry in _wanted(book, options.names) if book.forget(entry.identity, entry.tool)]
    if options.json:
        emit_json([{"name": entry.name, "identity": entry.identity} for entry in entries])
        return OK
    for entry in entries:
        print(f"forgot {seen(entry.name)}")
    return OK


_ACTIONS: Final[dict[str, Callable[[Pins, Namespace], int]]] = {
    "list": _list,
    "diff": _diff,
    "approve": _approve,
    "forget": _forget,
}
