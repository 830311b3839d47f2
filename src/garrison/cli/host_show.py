"""A host for people: what a model is shown and what not, what has changed, and what a tool answered.

Rules of this file:
- What a server wrote is shown cleaned, on a terminal and in a pipe: a person decides by it.
- What is not shown to a model says why, and what would change that.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import msgspec

from ..host.adapters import generic_tools
from ..host.differences import seen
from ..host.labels import Label
from ..protocol import types as t
from ..protocol.json import encode
from .failures import AUTHENTICATION, TIMED_OUT, status_of, worded
from .style import bold, dim, emit, emit_json, green, red, safe, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TextIO

    from ..host.answers import ToolAnswer
    from ..host.exposure import HostTool, Unshown
    from ..host.host import Host
    from ..host.pins import Waiting
    from ..host.scanner import Finding

__all__ = ["changed", "show_answer", "show_change", "show_definitions", "show_host", "waiting"]

_WIDTH: Final = 72
_STATES: Final = {"new": "new", "changed": "CHANGED", "name": "refused", "scanner": "refused"}
_COLOURS: Final[dict[str, Callable[[str, TextIO], str]]] = {"removed": red, "added": green, "note": dim}

_ADVICE: Final = {
    AUTHENTICATION: "its token, or auth, stands in the configuration",
    TIMED_OUT: "its timeout stands in the configuration",
}
"""What to do about a server that cannot be used, where it is not what a single command would be told."""


def waiting(host: Host, unshown: Unshown) -> Waiting | None:
    """What is kept of a tool that waits for approval; None where nothing is."""
    tool = unshown.name.removeprefix(f"{unshown.server}.")
    return host.pins.of(host.member(unshown.server).identity).waiting(tool)


def changed(host: Host, unshown: Unshown) -> bool:
    """Whether a tool was approved, and is another now."""
    if unshown.why == "changed":
        return True
    found = waiting(host, unshown) if unshown.why == "scanner" else None
    return found is not None and found.pin is not None


def show_host(host: Host, *, as_json: bool) -> None:
    """Print what a model is shown and what not, why, and which servers cannot be used."""
    if as_json:
        emit_json(_facts(host))
        return
    rows = [[tool.name, "ok", _labels(tool), _short(tool.description)] for tool in host.tools()]
    rows += [[each.name, _state(host, each), "", _offered(each)] for each in host.unshown()]
    if rows:
        table("Tools", ("name", "state", "labels", "description"), rows)
    else:
        print("A model is shown nothing.")
    lines = [*_notes(host), *_held_back(host), *_failures(host)]
    if lines:
        print("\n" + "\n".join(lines))


def _labels(tool: HostTool) -> str:
    return ", ".join(label.name.lower() for label in Label if label in tool.labels and label.name)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}..."


def _offered(unshown: Unshown) -> str:
    said = None if unshown.review is None else unshown.review.definition.get("description")
    return _short(seen(said)) if isinstance(said, str) else ""


def _state(host: Host, unshown: Unshown) -> str:
    return "CHANGED" if changed(host, unshown) else _STATES[unshown.why]


def _notes(host: Host) -> Iterator[str]:
    """What the scanner says of tools that are shown, but for what is found in many harmless ones."""
    for tool in host.tools():
        yield from (f"{seen(tool.name)}  {_finding(each)}" for each in tool.findings if each.level != "low")


def _finding(finding: Finding) -> str:
    text = seen(f"{finding.level}: {finding.text} (at {finding.where})")
    return red(text, sys.stdout) if finding.level == "high" else text


def _held_back(host: Host) -> Iterator[str]:
    """What a model is not shown; of what was never approved, only how many there are."""
    new: dict[str, int] = {}
    for each in host.unshown():
        if each.why == "new":
            new[each.server] = new.get(each.server, 0) + 1
            continue
        yield bold(safe(worded(each.text)), sys.stdout)
        yield from (f"  {line}" for line in _difference(host, each, sys.stdout))
        yield from (f"  ! {_finding(found)}" for found in (each.review.findings if each.review else ()))
    for alias, count in new.items():
        yield f"{count} new tool{'s' * (count > 1)} of {alias}: `garrison host CONFIG approve` shows them and asks"


def show_change(host: Host, name: str) -> None:
    """Print on standard error what is other in a tool than was approved, where that is why it is refused."""
    for each in host.unshown():
        if each.name == name and changed(host, each):
            print("\n".join(f"  {line}" for line in _difference(host, each, sys.stderr)), file=sys.stderr)


def _difference(host: Host, unshown: Unshown, out: TextIO) -> Iterator[str]:
    found = waiting(host, unshown)
    if found is not None and found.pin is not None:
        for change in found.changes():
            yield change.line(lambda kind, text: _COLOURS[kind](text, out) if kind in _COLOURS else text)
    elif unshown.review is not None:
        yield from map(seen, unshown.review.changes)


def _failures(host: Host) -> Iterator[str]:
    for alias, failure in host.failures.items():
        advice = _ADVICE.get(status_of(failure))
        text = f"{' '.join(str(failure).split())}; {advice}" if advice else worded(failure)
        yield f"{red(f'{alias} cannot be used', sys.stdout)}: {safe(text).removeprefix(f'{alias}: ')}"


def _facts(host: Host) -> dict[str, object]:
    return {
        "tools": [
            {
                "name": tool.name,
                "server": tool.server,
                "labels": [label.name.lower() for label in Label if label in tool.labels and label.name],
                "digest": tool.digest,
                "findings": [finding._asdict() for finding in tool.findings],
            }
            for tool in host.tools()
        ],
        "unshown": [_unshown_facts(host, each) for each in host.unshown()],
        "failures": {
            alias: {"kind": type(failure).__name__, "message": str(failure), "status": status_of(failure)}
            for alias, failure in host.failures.items()
        },
    }


def _unshown_facts(host: Host, unshown: Unshown) -> dict[str, object]:
    found, review = waiting(host, unshown), unshown.review
    was = found is not None and found.pin is not None
    return {
        "name": unshown.name,
        "server": unshown.server,
        "why": unshown.why,
        "message": unshown.text,
        "digest": found.digest if found is not None else review.digest if review is not None else None,
        "changes": [change.line() for change in found.changes()] if found is not None and was else [],
        "findings": [finding._asdict() for finding in review.findings] if review is not None else [],
    }


def show_definitions(host: Host, names: Sequence[str], *, as_json: bool) -> None:
    """Print exactly what a model is shown: definitions, and the instructions of servers that may have a say.

    Args:
        host: the host.
        names: of these tools, or all tools of an alias; of all when empty.
        as_json: in the form of `generic_tools`.
    """
    tools = generic_tools(host)
    shown = [tool for tool in host.tools() if tool.name not in tools.left_out]
    pairs = zip(shown, tools.definitions(), strict=True)
    wanted = [each for tool, each in pairs if not names or tool.name in names or tool.server in names]
    if as_json:
        emit_json({"tools": wanted, "instructions": host.instructions(), "left_out": tools.left_out})
        return
    for index, each in enumerate(wanted):
        print("\n" * (index > 0) + bold(safe(str(each["name"])), sys.stdout))
        print(safe(str(each["description"])))
        print(dim(safe(msgspec.json.format(encode(each["input_schema"]), indent=2).decode()), sys.stdout))
    for name, why in tools.left_out.items():
        print(safe(f"{name} is left out: {why}"), file=sys.stderr)
    if not names and (said := host.instructions()):
        print(f"\n{safe(said)}")
    if not wanted:
        print("A model is shown nothing of that." if names else "A model is shown nothing.", file=sys.stderr)


def show_answer(answer: ToolAnswer, *, as_json: bool) -> None:
    """Print a tool's answer; on standard error when the tool failed."""
    if as_json:
        content: dict[str, object] = {"tool": answer.tool, "isError": answer.is_error, "text": answer.plain}
        content["content"] = [t.to_dict(block) for block in answer.content if isinstance(block, t.ContentBlock)]
        if answer.structured is not None:
            content["structuredContent"] = answer.structured
        emit_json(content)
    elif answer.is_error:
        print(safe(answer.display()), file=sys.stderr)
    else:
        emit(answer.display())
