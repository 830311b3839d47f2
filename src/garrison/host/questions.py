"""What a person is asked before a host does anything: one class for each kind of question, and the verdict.

    async def approve(question: Question) -> Verdict | bool:
        print(question.text())
        return input("Allow? ") == "yes"

Rules of this file:
- A question holds all that its answer depends on, whole. `text` shows it whole: hidden characters are written out,
  and where a front must cut, it says how much is missing and shows the end too (`cut`).
- What a server says stands in a question as JSON, on one line: no words of its own can pass for the host's.
- A verdict that is not clearly yes is no.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ..gate.hygiene import visible
from ..protocol.json import encode
from .labels import Label

if TYPE_CHECKING:
    from typing import TypeAlias

    from ..protocol import types as t
    from .launches import LaunchRecord, Risk
    from .scanner import Finding

__all__ = [
    "Always",
    "Approver",
    "CallQuestion",
    "FileQuestion",
    "FormQuestion",
    "LaunchQuestion",
    "Question",
    "Review",
    "RootsQuestion",
    "SampleQuestion",
    "SampleResultQuestion",
    "ToolsQuestion",
    "UrlQuestion",
    "Verdict",
    "cut",
    "shown",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Always:
    """A yes that holds for more than this call.

    It holds for the server and the tool as they are now: a changed definition or launch ends it.
    """

    arguments: Mapping[str, object] | None = None
    """Which calls: for each argument named, its exact value, or a text in which `*` stands for any characters but `/`,
    and `**` for any. Arguments that are not named may not be there. None: these very arguments."""
    seconds: float = 3600.0
    """How long, at most 30 days."""


class Verdict(NamedTuple):
    """The answer to a question."""

    allowed: bool
    always: Always | None = None
    """Of a `CallQuestion`: ask no more for calls like this one."""
    tools: frozenset[str] | None = None
    """Of a `ToolsQuestion`: the exposed names that are approved; None is all of them."""
    edited: object = None
    """Of a `SampleQuestion` and `SampleResultQuestion`: what is used instead. Of a `FormQuestion`: the content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What all questions have in common."""

    kind: ClassVar[str] = ""
    server: str
    """The alias of the server that it is about; empty for a file."""
    reasons: tuple[str, ...] = ()
    """Why it is asked, in the host's own words."""

    @property
    def target(self) -> str:
        """The tool or other thing that it is about, for records."""
        return ""

    def heading(self) -> str:
        """One line that says what is asked."""
        raise NotImplementedError

    def body(self) -> list[str]:
        """Lines that show all of it."""
        raise NotImplementedError

    def text(self) -> str:
        """Heading, reasons and body, hidden characters written out; any length."""
        lines = [self.heading(), *(f"  ! {reason}" for reason in self.reasons), *(f"  {line}" for line in self.body())]
        return visible("\n".join(lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchQuestion(Question):
    """May this program be started?"""

    kind: ClassVar[str] = "launch"
    record: LaunchRecord
    risks: tuple[Risk, ...] = ()
    changes: tuple[str, ...] = ()
    """What is other than when it was last approved; empty when it never was."""

    @property
    def target(self) -> str:
        return self.record.program

    def heading(self) -> str:
        return f"Start the server {self.server}?" if not self.changes else f"Start the changed server {self.server}?"

    def body(self) -> list[str]:
        lines = self.record.lines()
        lines += [f"{risk.level}: {risk.text}" for risk in self.risks]
        return lines + [f"changed: {change}" for change in self.changes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One tool that was not approved as it is now."""

    name: str
    """What the model would call it: `alias.tool`."""
    definition: Mapping[str, object]
    """All that the server says of it, as JSON."""
    instructions: str | None = None
    """What the server says about its use; part of the digest."""
    digest: str
    findings: tuple[Finding, ...] = ()
    """What the scanner says; advice and no proof."""
    changes: tuple[str, ...] = ()
    """What is other than when it was last approved, a line each; empty when it never was."""
    flags: tuple[str, ...] = ()
    """What is odd about its name beside those of other tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsQuestion(Question):
    """May a model be shown these tools?"""

    kind: ClassVar[str] = "tools"
    tools: tuple[Review, ...]
    instructions: str | None = None
    """What the server says about its use, in its words."""

    @property
    def target(self) -> str:
        return ", ".join(review.name for review in self.tools)

    def heading(self) -> str:
        changed = sum(1 for review in self.tools if review.changes)
        new = len(self.tools) - changed
        parts = [f"{new} new" if new else "", f"{changed} changed" if changed else ""]
        return f"Show the model tools of {self.server} ({', '.join(part for part in parts if part)})?"

    def body(self) -> list[str]:
        lines: list[str] = []
        for review in self.tools:
            lines.append(f"{review.name}" + ("  CHANGED" if review.changes else ""))
            lines += [f"  name: {flag}" for flag in review.flags]
            lines += [f"  {finding.level}: {finding.text} (at {finding.where})" for finding in review.findings]
            lines += [f"  {change}" for change in review.changes] or [f"  {shown(review.definition)}"]
        if self.instructions:
            lines += ["the server's instructions:", *(f"  {shown(line)}" for line in self.instructions.splitlines())]
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class CallQuestion(Question):
    """May this tool be called with these arguments?"""

    kind: ClassVar[str] = "call"
    tool: str
    """The exposed name, `alias.tool`."""
    arguments: Mapping[str, object]
    labels: Label
    """What the tool can do, as whoever runs the host says."""
    sources: tuple[str, ...] = ()
    """Where what the model has read in this conversation came from: tools, and how they are labelled."""
    hints: Mapping[str, object] = field(default_factory=dict[str, object])
    """The server's annotations of the tool: its own claims, which nobody has checked."""

    @property
    def target(self) -> str:
        return self.tool

    def heading(self) -> str:
        return f"Call {self.tool}?"

    def body(self) -> list[str]:
        lines = ["arguments:"]
        lines += [f"  {name}: {_counted(value)}" for name, value in self.arguments.items()] or ["  (none)"]
        lines.append(f"it is labelled: {_named(self.labels)}")
        lines += [f"the conversation has read: {source}" for source in self.sources]
        if self.hints:
            lines.append(f"the server claims (unverified): {shown(self.hints)}")
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleQuestion(Question):
    """May this server have our model write something?"""

    kind: ClassVar[str] = "sample"
    params: t.CreateMessageParams
    left: str = ""
    """What is left of its budget, in words."""

    def heading(self) -> str:
        return f"Let {self.server} ask your model?"

    def body(self) -> list[str]:
        lines = [f"at most {self.params.max_tokens} tokens; {self.left}"]
        if self.params.system_prompt:
            lines.append(f"its system prompt: {_counted(self.params.system_prompt)}")
        for message in self.params.messages:
            lines.append(f"{message.role}: {_counted(_plain(message.content))}")
        return lines + _others(self.params, "messages", "systemPrompt", "maxTokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleResultQuestion(Question):
    """May this server have what our model wrote?"""

    kind: ClassVar[str] = "sample-result"
    result: t.CreateMessageResult

    def heading(self) -> str:
        return f"Give {self.server} what your model wrote?"

    def body(self) -> list[str]:
        return [_counted(_plain(self.result.content)), *_others(self.result, "content", "role", "resultType")]


@dataclass(frozen=True, slots=True, kw_only=True)
class FormQuestion(Question):
    """A server asks the person to fill in a form. A yes carries the content in `Verdict.edited`."""

    kind: ClassVar[str] = "form"
    message: str
    schema: Mapping[str, object]

    def heading(self) -> str:
        return f"{self.server} asks you to fill in a form"

    def body(self) -> list[str]:
        return [f"in its words: {_counted(self.message)}", f"the form: {shown(self.schema)}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlQuestion(Question):
    """A server asks the person to visit a page. Nothing is opened by the host."""

    kind: ClassVar[str] = "url"
    message: str
    url: str
    """The whole address."""
    host: str
    """The part of it that says where it leads, as it would be connected to."""
    warnings: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        return self.host

    def heading(self) -> str:
        return f"{self.server} asks you to visit a page of {self.host}"

    def body(self) -> list[str]:
        warned = [f"warning: {warning}" for warning in self.warnings]
        return [f"in its words: {_counted(self.message)}", f"the whole address: {self.url}", *warned]


@dataclass(frozen=True, slots=True, kw_only=True)
class RootsQuestion(Question):
    """May this server know these folders?"""

    kind: ClassVar[str] = "roots"
    roots: tuple[str, ...]

    def heading(self) -> str:
        return f"Tell {self.server} the folders that you work in?"

    def body(self) -> list[str]:
        return list(self.roots)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileQuestion(Question):
    """May this configuration be believed? It comes with a project, and so from whoever wrote that."""

    kind: ClassVar[str] = "file"
    path: str
    lines: tuple[str, ...]
    """What it would start and reach."""
    changed: bool = False

    @property
    def target(self) -> str:
        return self.path

    def heading(self) -> str:
        return f"Believe the {'changed ' if self.changed else ''}configuration {self.path}?"

    def body(self) -> list[str]:
        return list(self.lines)


Approver: TypeAlias = "Callable[[Question], Verdict | bool | Awaitable[Verdict | bool]]"
"""Asks somebody. What it raises, and being late, is a no."""


def shown(value: object) -> str:
    """A JSON value as one line, whole."""
    return encode(value).decode()


def cut(text: str, most: int) -> str:
    """A text for a small place: its beginning and its end, and how many characters are not shown."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    tail = most - head
    return f"{text[:head]} [... {len(text) - most} of {len(text)} characters not shown ...] {text[-tail:]}"


def _counted(value: object) -> str:
    text = value if isinstance(value, str) else shown(value)
    plain = shown(text) if isinstance(value, str) else text
    return plain if len(text) <= 200 else f"({len(text)} characters) {plain}"


def _named(labels: Label) -> str:
    return ", ".join(label.name.lower() for label in Label if label in labels and label.name) or "nothing"


def _others(whole: t.CreateMessageParams | t.CreateMessageResult, *names: str) -> list[str]:
    """A line for what is sent beside what these members hold."""
    from ..protocol.types import to_dict  # lazy: only sampling shows content

    others = {name: value for name, value in to_dict(whole).items() if name not in names}
    return [f"and: {_counted(others)}"] if others else []


def _plain(content: t.SamplingContent | list[t.SamplingContent]) -> object:
    from ..protocol.types import TextContent, to_dict  # lazy: only sampling shows content

    if isinstance(content, list):
        return [_plain(part) for part in content]
    return content.text if isinstance(content, TextContent) else to_dict(content)
