"""One conversation with a model: what it calls, and what that lets it read: `Conversation`.

Rules of this file:
- A call is checked as it is sent: the definition is the approved one, a rule or somebody has allowed these arguments,
  and nothing changed while they thought about it.
- What was read is remembered before the model has it, also where it is an error: its text is the server's.
- A call that was carried out is one event, `call.ended`; one that was refused is one event of whoever refused it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

from .. import events
from ..errors import DefinitionChanged, GarrisonError, RemoteError
from .acting import acted, of_server
from .answers import ToolAnswer, answer_of, error_of, joined
from .flow import Flow

if TYPE_CHECKING:
    from ..client.client import ProgressHandler
    from .exposure import HostTool
    from .host import Host
    from .labels import Label
    from .member import Member

__all__ = ["Conversation"]


class Conversation:
    """What one model is told and does: see `Host.conversation`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.flow = Flow()
        """What was read in it."""

    @property
    def actor(self) -> Host:
        """On whose behalf its methods run."""
        return self._host

    def tools(self) -> tuple[HostTool, ...]:
        """As of `Host.tools`."""
        return self._host.tools()

    @acted
    async def call(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        on_progress: ProgressHandler | None = None,
    ) -> ToolAnswer:
        """Calls a tool for the model, if a rule or somebody allows it.

        Args:
            name: `alias.tool`.
            arguments: as the model gives them.
            timeout: seconds; the server's by default.
            on_progress: hears its progress.

        Returns:
            The answer; also where the tool failed, or the server answered with an error (`is_error`).

        Raises:
            NotApproved: a rule, or somebody, said no, or nobody said yes in time; nothing was sent.
            DefinitionChanged, NoSuchTool: as of `Host.sound`.
            RequestTimeout, ConnectionLost, ProtocolViolation, OutputInvalid: there is no answer that can be used.
        """
        given = deepcopy(dict(arguments or {}))  # what was asked about is what is sent
        host = self._host
        tool = await host.sound(name)
        member = host.member(tool.server)
        await host.approvals.check(
            server=tool.server,
            identity=member.identity,
            tool=name,
            digest=tool.digest,
            arguments=given,
            labels=tool.labels,
            hints=tool.hints,
            flow=self.flow,
        )
        if (await host.sound(name)).digest != tool.digest:
            text = f"{name} changed while somebody was asked about it; nothing was sent"
            events.record("approval.denied", text, about=events.Event("", server=tool.server, target=name))
            raise DefinitionChanged(text)

        async def run() -> ToolAnswer:
            result = await member.client.call_tool(tool.tool, given, timeout=timeout, on_progress=on_progress)
            return answer_of(result, server=tool.server, tool=name, labels=tool.labels)

        return await self._kept(run, "tools/call", tool.server, name, tool.labels, given)

    @acted
    async def read_resource(self, alias: str, uri: str) -> ToolAnswer:
        """Reads a resource of a server, if a rule or somebody allows it: in rules the tool `resources/read`.

        Raises:
            As of `call`.
        """
        name = f"{alias}.resources/read"

        async def run() -> ToolAnswer:
            contents = (await member.client.read_resource(uri)).contents
            return _text_of(contents, alias, name, labels)

        member = self._host.member(alias)
        labels = member.settings.labels_for("resources/read")
        await self._allowed(member, name, {"uri": uri}, labels)
        return await self._kept(run, "resources/read", alias, name, labels, {"uri": uri})

    @acted
    async def get_prompt(self, alias: str, prompt: str, arguments: Mapping[str, str] | None = None) -> ToolAnswer:
        """The text of a prompt, if a rule or somebody allows it: in rules the tool `prompts/get`.

        Raises:
            As of `call`.
        """
        name = f"{alias}.prompts/get"

        async def run() -> ToolAnswer:
            messages = (await member.client.get_prompt(prompt, texts)).messages
            return _text_of([message.content for message in messages], alias, name, labels)

        member = self._host.member(alias)
        labels = member.settings.labels_for("prompts/get")
        texts = dict(arguments or {})
        given = {"name": prompt, "arguments": texts}
        await self._allowed(member, name, given, labels)
        return await self._kept(run, "prompts/get", alias, name, labels, given)

    async def _allowed(self, member: Member, name: str, arguments: Mapping[str, object], labels: Label) -> None:
        await self._host.approvals.check(
            server=member.alias,
            identity=member.identity,
            tool=name,
            digest="",
            arguments=arguments,
            labels=labels,
            hints={},
            flow=self.flow,
        )

    async def _kept(
        self,
        run: Callable[[], Awaitable[ToolAnswer]],
        method: str,
        alias: str,
        name: str,
        labels: Label,
        arguments: Mapping[str, object],
    ) -> ToolAnswer:
        """Carries out what was allowed, and remembers what it has let the model read."""
        began, outcome, error = time.perf_counter(), "cancelled", ""
        try:
            try:
                with of_server(alias):
                    answer = await run()
            except RemoteError as exc:
                answer = error_of(exc, server=alias, tool=name, labels=labels)
            outcome = "error" if answer.is_error else "ok"
        except GarrisonError as exc:
            outcome, error = "error", type(exc).__name__
            raise
        finally:
            if events.heard():
                events.emit(
                    events.Event(
                        "call.ended",
                        decision="allowed",
                        outcome=outcome,
                        server=alias,
                        method=method,
                        target=name,
                        arguments=dict(arguments),
                        error=error,
                        duration=time.perf_counter() - began,
                        time=time.time(),
                    )
                )
        self.flow.note(name, labels)
        return answer


def _text_of(contents: Sequence[object], alias: str, name: str, labels: Label) -> ToolAnswer:
    return ToolAnswer(server=alias, tool=name, plain=joined(contents), content=tuple(contents), labels=labels)
