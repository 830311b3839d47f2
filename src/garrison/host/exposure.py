"""Which tools a model is shown: those whose names are sound and whose definitions somebody has approved.

Rules of this file:
- A tool is shown as it was approved or not at all. A change takes it away, for calls and for listings.
- What the scanner finds gravely wrong in a definition that was never approved is not even asked about; whoever wants
  it approves it by its digest (`garrison pins approve`). The scanner is advice: names and pins decide.
- Texts of a definition reach a model cleaned; what has to be exact (names, enumerations, patterns) stays as approved.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

from ..events import Event, record
from ..gate.hygiene import visible
from ..protocol import types as t
from .labels import Label
from .names import check_names, exposed
from .pins import definition_digest, tell_changed
from .questions import Review, cut
from .scanner import scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .member import Listed, Member
    from .pins import Pins, ServerPins
    from .scanner import Finding

__all__ = ["Exposure", "HostTool", "Scan", "Unshown"]

Scan = Literal["block", "warn", "off"]

_MOST_TOLD: Final = 4096
_SHOWN: Final = 160
_PROSE: Final = frozenset({"description", "title", "$comment"})

_log = logging.getLogger("garrison.host")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTool:
    """A tool that a model may be shown."""

    name: str
    """What the model calls it: `alias.tool`."""
    server: str
    """The alias."""
    tool: str
    """The server's own name of it."""
    description: str
    """Cleaned; the server's words."""
    input_schema: Mapping[str, object]
    title: str | None = None
    output_schema: Mapping[str, object] | None = None
    labels: Label
    """What whoever runs the host says that it can do."""
    hints: Mapping[str, object]
    """The server's annotations: claims."""
    digest: str
    """Of the approved definition."""
    findings: tuple[Finding, ...] = ()
    """What the scanner says of it; advice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unshown:
    """A tool that a model is not shown, and why."""

    name: str
    server: str
    why: Literal["new", "changed", "name", "scanner"]
    text: str
    """In words, with what to do."""
    review: Review | None = None
    """What somebody would have to approve; None where nobody is asked."""


class Exposure:
    """What is shown and what is not, of all servers of a host.

    Args:
        pins: what was approved.
        mode: what becomes of grave findings in a definition that was not approved.
    """

    def __init__(self, pins: Pins, mode: Scan) -> None:
        self._pins = pins
        self._mode: Scan = mode
        self._told: set[tuple[str, str]] = set()
        """What was recorded: name and digest, or name and reason."""
        self._names: dict[str, frozenset[str]] = {}
        """What the servers list, by alias."""
        self._scanned: dict[tuple[str, str], tuple[Finding, ...]] = {}
        """What the scanner said beside those names, by alias and digest."""
        self._compared: dict[tuple[str, str], tuple[str, ...]] = {}
        """What is other in a definition, by the digests of the pin and of what is listed."""
        self.tools: dict[str, HostTool] = {}
        self.unshown: dict[str, Unshown] = {}
        self.decided = False
        """Whether these are as of what is listed; not where what was approved could not be read."""

    def look(self, members: Sequence[Member]) -> None:
        """Decides anew, from what each server lists and what is approved now. Where that fails, nothing is shown."""
        self.tools, self.unshown, self.decided = {}, {}, False
        listed = {member.alias: member.listed for member in members if member.listed and member.failure is None}
        names = {alias: [tool.name for tool in found.tools] for alias, found in listed.items()}
        verdict = check_names(names)
        everybody = {alias: frozenset(theirs) for alias, theirs in names.items()}
        if everybody != self._names:
            self._names, self._scanned = everybody, {}
        tools: dict[str, HostTool] = {}
        unshown: dict[str, Unshown] = {}
        for member in members:
            found = listed.get(member.alias)
            if found is None:
                continue
            sound: dict[str, t.Tool] = {}
            for tool in found.tools:
                refused = verdict.refused.get((member.alias, tool.name))
                if refused is None:
                    sound[tool.name] = tool
                else:
                    name = exposed(member.alias, tool.name)
                    unshown[name] = self._refused(member.alias, name, refused)
            for decided in self._decide(member, found, sound, verdict.flagged):
                if isinstance(decided, HostTool):
                    tools[decided.name] = decided
                else:
                    unshown[decided.name] = decided
        self.tools, self.unshown, self.decided = tools, unshown, True

    def reviews(self, alias: str) -> tuple[Review, ...]:
        """What waits for somebody's approval, of one server."""
        return tuple(each.review for each in self.unshown.values() if each.server == alias and each.review is not None)

    def _refused(self, alias: str, name: str, why: str) -> Unshown:
        shown = cut(visible(name), _SHOWN)  # of any length
        text = f"{shown} is not shown: {visible(why)}"
        if self._is_first(name, why):
            record("name.refused", text, about=Event("name.refused", server=alias, target=shown))
        return Unshown(name=name, server=alias, why="name", text=text)

    def _decide(
        self,
        member: Member,
        found: Listed,
        tools: Mapping[str, t.Tool],
        flagged: Mapping[tuple[str, str], tuple[str, ...]],
    ) -> Iterator[HostTool | Unshown]:
        definitions = {name: t.to_dict(tool) for name, tool in tools.items()}
        pinned = self._pins.of(member.identity)
        waiting: dict[str, Mapping[str, object]] = {}
        for name, definition in definitions.items():
            digest = definition_digest(definition, found.instructions)
            findings = self._findings(definition, found.instructions, member.alias, digest)
            if pinned.status(name, definition, found.instructions) == "same":
                yield _shown(member, tools[name], digest, findings)
                continue
            waiting[name] = definition
            review = Review(
                name=exposed(member.alias, name),
                definition=definition,
                instructions=found.instructions,
                digest=digest,
                findings=findings,
                changes=self._changes(pinned, name, definition, found.instructions, digest),
                flags=flagged.get((member.alias, name), ()),
            )
            yield self._waits(member.alias, name, review)
        crowded = self._pins.keep_all_seen(member.identity, member.alias, waiting, found.instructions)
        if crowded:
            _log.warning("%s offers more than can be kept to be looked at: %d tools", member.alias, len(crowded))

    def _findings(
        self, definition: Mapping[str, object], instructions: str | None, alias: str, digest: str
    ) -> tuple[Finding, ...]:
        if self._mode == "off":
            return ()
        found = self._scanned.get((alias, digest))
        if found is None:
            if len(self._scanned) >= _MOST_TOLD:
                self._scanned.clear()
            # Its own names are among them: what it says of its own tools is no word about another server's.
            found = scan(definition, alias=alias, others=self._names, instructions=instructions)
            self._scanned[alias, digest] = found
        return found

    def _changes(
        self, pinned: ServerPins, name: str, definition: Mapping[str, object], instructions: str | None, digest: str
    ) -> tuple[str, ...]:
        pin = pinned.pin(name)
        if pin is None:
            return ()
        found = self._compared.get((pin.digest, digest))
        if found is None:
            if len(self._compared) >= _MOST_TOLD:
                self._compared.clear()
            found = self._compared[pin.digest, digest] = pinned.changes(name, definition, instructions)
        return found

    def _waits(self, alias: str, tool: str, review: Review) -> Unshown:
        name = review.name
        grave = next((finding for finding in review.findings if finding.level == "high"), None)
        if review.changes and self._is_first(name, f"{review.digest} changed"):
            tell_changed(alias, tool, review.changes)
        if grave is not None and self._is_first(name, review.digest):
            text = visible(f"{name}: {grave.text} (at {grave.where})")
            about = Event("definition.flagged", server=alias, target=visible(name))
            record("definition.flagged", text, setting="Host(scan=)", about=about)
        how = f"`await host.review()`, or `garrison pins approve {name}`"
        if grave is not None and self._mode == "block":
            text = f"{name} is not shown: its definition looks like an attack: {grave.text} (at {grave.where})"
            text += f"; if it is none, approve it with `garrison pins approve {name}`"
            return Unshown(name=name, server=alias, why="scanner", text=visible(text))
        if review.changes:
            text = f"{name} is not what was approved, and is blocked until somebody has seen the difference and agrees"
            return Unshown(name=name, server=alias, why="changed", text=visible(f"{text} ({how})"), review=review)
        return Unshown(
            name=name, server=alias, why="new", text=visible(f"{name} was not approved yet ({how})"), review=review
        )

    def _is_first(self, name: str, what: str) -> bool:
        """Whether this was not told yet: one refusal is one event, however often it is looked at."""
        if (name, what) in self._told:
            return False
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told.add((name, what))
        return True


def _shown(member: Member, tool: t.Tool, digest: str, findings: tuple[Finding, ...]) -> HostTool:
    return HostTool(
        name=exposed(member.alias, tool.name),
        server=member.alias,
        tool=tool.name,
        description=visible(tool.description or ""),
        input_schema=cast("Mapping[str, object]", _cleaned(tool.input_schema)),
        title=visible(tool.title) if tool.title is not None else None,
        output_schema=cast("Mapping[str, object] | None", _cleaned(tool.output_schema)),
        labels=member.settings.labels_for(tool.name),
        hints=t.to_dict(tool.annotations) if tool.annotations is not None else {},
        digest=digest,
        findings=findings,
    )


def _cleaned(value: object, key: str = "") -> object:
    """A schema with its prose cleaned."""
    if isinstance(value, dict):
        return {name: _cleaned(each, name) for name, each in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_cleaned(each) for each in cast("list[object]", value)]
    return visible(value) if isinstance(value, str) and key in _PROSE else value
