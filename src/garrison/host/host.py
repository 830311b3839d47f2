"""`Host`: many servers for one model, and nothing that a person or a policy did not allow.

    async with Host({"files": ["node", "server.js", "/data"]}, approve=terminal()) as host:
        for tool in host.tools():
            print(tool.name, tool.description)
        answer = await host.call("files.read_file", {"path": "notes.txt"})
        print(answer.text)

Rules of this file:
- Without somebody to ask, and without a rule that allows, nothing is started, shown or called.
- Names are whole (`alias.tool`); a bare name finds nothing.
- One server that fails, lies or hangs harms no other, and is told of in `failures`.

Spec: 2026-07-28 client, server/tools "Security Considerations", basic/security_best_practices.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from .. import events
from ..errors import (
    ClientError,
    ConfigurationError,
    DefinitionChanged,
    GarrisonError,
    NoSuchTool,
    NotApproved,
)
from ..gate.hygiene import visible
from ..gate.untrusted import Untrusted
from ..policy import SecurityPolicy
from .acting import acted, acting
from .approvals import ApprovalPolicy, Approvals
from .asking import Asking
from .consent import Consent
from .conversation import Conversation
from .exposure import Exposure
from .grants import Grants
from .launches import Launches
from .member import Member
from .names import check_aliases
from .pins import Pins
from .questions import ToolsQuestion
from .servers import check_alias, settings_of
from .state import FolderState

if TYPE_CHECKING:
    import os

    from ..audit.contract import Sink
    from ..auth.store import CredentialStore
    from ..client.client import ProgressHandler
    from .answers import ToolAnswer
    from .asking import SampleHandler
    from .exposure import HostTool, Scan, Unshown
    from .questions import Approver, FileQuestion
    from .sampling import SamplingBudget
    from .state import State

__all__ = ["Host"]

_log = logging.getLogger("garrison.host")


class Host:
    """Servers that a model may use, as far as somebody allows it.

    Args:
        servers: by alias, which is chosen here: `LocalServer`, `RemoteServer`, or any target of `Client`.
        approve: asks somebody; `garrison.host.terminal()` asks at the terminal. Without it every question is a no.
        policy: rules for calls, which save questions or refuse.
        state: where approvals are kept; a folder of this user by default. `MemoryState()` asks anew at each start.
        security: limits and time-outs of the connections.
        elicit: whether servers may ask the person to fill in forms and to visit pages; they are put to `approve`.
        sample: lets a language model write for a server; None refuses.
        sampling: how much of that one server may have.
        roots: folders that servers may be told, once somebody agrees.
        dangerously_allow_roots: why folders may be among them that hold everything or credentials.
        scan: what becomes of definitions that look like an attack and were not approved: `block`, `warn` or `off`.
        strict: whether a program is refused that its runner fetches without a fixed version.
        patience: seconds that a question waits for its answer.
        fresh: seconds after which a server's tools are listed again before a call.
        review: whether `start` asks about tools that were not approved; else they wait for `Host.review`.
        audit: keeps what happens in this host; see `garrison.audit`.

    Raises:
        ConfigurationError: an alias or a setting is wrong.
    """

    def __init__(
        self,
        servers: Mapping[str, object],
        *,
        approve: Approver | None = None,
        policy: ApprovalPolicy | None = None,
        state: State | None = None,
        security: SecurityPolicy | None = None,
        elicit: bool = False,
        sample: SampleHandler | None = None,
        sampling: SamplingBudget | None = None,
        roots: Sequence[str | os.PathLike[str]] = (),
        dangerously_allow_roots: str = "",
        scan: Scan = "block",
        strict: bool = True,
        patience: float | None = None,
        fresh: float = 300.0,
        review: bool = True,
        audit: Sink | None = None,
    ) -> None:
        for alias in servers:
            check_alias(alias)
        check_aliases(tuple(servers))
        if scan not in ("block", "warn", "off"):
            raise ConfigurationError('Host(scan=) is "block", "warn" or "off"')
        if not 0 < fresh < float("inf"):
            raise ConfigurationError("Host(fresh=) is a positive number of seconds")
        for name, flag in (("elicit", elicit), ("strict", strict), ("review", review)):
            if type(flag) is not bool:
                raise ConfigurationError(f"Host({name}=) is True or False")
        security = security or SecurityPolicy()
        self.state: State = FolderState() if state is None else state
        """Where approvals are kept."""
        self.consent = Consent(approve, patience=security.timeouts.ask if patience is None else patience)
        self.pins = Pins(self.state)
        self.grants = Grants(self.state)
        self._approvals = Approvals(policy or ApprovalPolicy(), self.consent, self.grants)
        self._exposure = Exposure(self.pins, scan)
        self._reviews = review
        self._audit = audit
        self._unheard: Callable[[], None] | None = None
        self._refreshing: dict[str, asyncio.Task[None]] = {}
        self._deciding = asyncio.Lock()
        self._started = self._closed = False
        self.notices: tuple[str, ...] = ()
        """What is odd about the file that it was made from, in words for whoever wrote that."""
        self._file: FileQuestion | None = None
        self._trust: Callable[[], None] | None = None
        launches = Launches(self.state, strict=strict)
        self._members = {
            alias: Member(
                alias,
                settings_of(target),
                policy=security,
                consent=self.consent,
                launches=launches,
                asking=Asking(
                    alias,
                    self.consent,
                    elicit=elicit,
                    sample=sample,
                    budget=sampling,
                    roots=roots,
                    dangerously_allow_roots=dangerously_allow_roots,
                ),
                fresh=fresh,
                on_changed=self._changed,
            )
            for alias, target in servers.items()
        }
        self._first = Conversation(self)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        approve: Approver | None = None,
        state: State | None = None,
        trusted: bool = False,
        store: CredentialStore | None = None,
        **options: object,
    ) -> Host:
        """A host as a file describes it: our TOML, or the `mcpServers` JSON of desktop clients.

        Args:
            path: the file. One that is not below this user's own configuration folder is believed once somebody has
                seen what it would start, and again after each change.
            approve, state: as of `Host`.
            trusted: believe it unasked.
            store: where `credential:` references lead; that of `open_store` when None.
            options: further arguments of `Host`, which go before the file's.

        Raises:
            ConfigurationError: the file cannot be read, others could have written it, or a key is wrong.
        """
        from .config import read_config  # lazy: a host in code reads no file

        state = FolderState() if state is None else state
        config = read_config(path, state=state, trusted=trusted, store=store)
        host = cls(config.servers, approve=approve, state=state, **{**config.options(), **options})  # pyright: ignore[reportArgumentType] - arguments of Host by name, which it checks itself
        host._file, host._trust, host.notices = config.question, config.trust, tuple(config.notices)
        return host

    # Life.

    async def __aenter__(self) -> Host:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    @acted
    async def start(self) -> None:
        """Starts and lists all servers, and asks about what was not approved yet.

        What fails with one server is in `failures`; only a configuration that nobody believes ends all of it.

        Raises:
            NotApproved: the configuration is from a project, and was not approved.
            ConfigurationError: it was started before.
        """
        if self._started:
            raise ConfigurationError("a Host is started once: make another one")
        self._started = True
        if self._audit is not None:
            self._unheard = events.listen(self._hear)
        try:
            await self._believe()
            await asyncio.gather(*(member.start() for member in self._members.values()))
            for alias, failure in self.failures.items():
                _log.warning("The server %s cannot be used: %s", alias, failure)
            self._look()
            if self._reviews and self.consent.asks:
                await self.review()
        except BaseException:  # whatever ended the start, nothing may stay running
            await self.aclose()
            raise

    @acted
    async def aclose(self) -> None:
        """Ends all connections and programs. May be called twice."""
        self._closed = True
        refreshing = tuple(self._refreshing.values())
        for task in refreshing:
            task.cancel()
        if refreshing:
            await asyncio.wait(refreshing, timeout=1.0)
        try:
            await asyncio.gather(*(member.aclose() for member in self._members.values()))
        finally:
            if self._unheard is not None:
                self._unheard()
                self._unheard = None

    # What there is.

    @property
    def actor(self) -> Host:
        """On whose behalf its methods run."""
        return self

    @property
    def servers(self) -> tuple[str, ...]:
        """The aliases."""
        return tuple(self._members)

    @property
    def failures(self) -> Mapping[str, GarrisonError]:
        """The servers that cannot be used, and why."""
        return {alias: member.failure for alias, member in self._members.items() if member.failure is not None}

    def tools(self) -> tuple[HostTool, ...]:
        """The tools that a model may be shown: approved, and as they were approved."""
        return tuple(self._exposure.tools.values())

    def unshown(self) -> tuple[Unshown, ...]:
        """The tools that a model is not shown, and why."""
        return tuple(self._exposure.unshown.values())

    def instructions(self) -> str:
        """What servers with `use_instructions` say of their use, as it was approved, for a model; mostly empty."""
        parts: list[str] = []
        shown = {tool.server for tool in self._exposure.tools.values()}
        for alias, member in self._members.items():
            said = member.listed.instructions if member.listed is not None and alias in shown else None
            if said and member.settings.use_instructions:
                parts.append(Untrusted(said, f"instructions of {alias}").rendered().text)
        return "\n".join(parts)

    @acted
    async def refresh(self) -> None:
        """Lists the tools of all servers again. What changed is blocked until somebody agrees."""
        listing = [self._list(member) for member in self._members.values() if member.failure is None]
        for failed in await asyncio.gather(*listing, return_exceptions=True):  # once all of them have ended
            if isinstance(failed, BaseException) and not isinstance(failed, ClientError):
                raise failed

    @acted
    async def review(self) -> tuple[HostTool, ...]:
        """Asks about every tool that was not approved as it is now, server by server.

        Returns:
            The tools that were approved by this.
        """
        async with self._deciding:
            before = dict(self._exposure.tools)
            for alias, member in self._members.items():
                reviews = self._exposure.reviews(alias)
                if not reviews:
                    continue
                instructions = reviews[0].instructions
                verdict = await self.consent.ask(ToolsQuestion(server=alias, tools=reviews, instructions=instructions))
                if not verdict.allowed:
                    continue
                # What was shown is what is approved, whatever the server says by now.
                agreed = {
                    review.name.removeprefix(f"{alias}."): review.definition
                    for review in reviews
                    if verdict.tools is None or review.name in verdict.tools
                }
                try:
                    self.pins.approve_all(member.identity, agreed, instructions, alias=alias)
                    for review in reviews:
                        if review.changes:  # what was allowed of the old one is not allowed of the new one
                            self.grants.end(member.identity, review.name)
                except GarrisonError as exc:  # more than is kept of one server: the others are none the worse
                    _log.warning("What was approved of %s cannot be kept, and is not shown: %s", alias, exc)
            self._look()
            return tuple(
                tool for name, tool in self._exposure.tools.items() if before.get(name) is None or before[name] != tool
            )

    # What is done.

    def conversation(self) -> Conversation:
        """A conversation with a model: what it has read counts for what it may do next, and for no other one."""
        return Conversation(self)

    async def call(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        on_progress: ProgressHandler | None = None,
    ) -> ToolAnswer:
        """Calls a tool for the model, in the host's first conversation. See `Conversation.call`."""
        return await self._first.call(name, arguments, timeout=timeout, on_progress=on_progress)

    async def read_resource(self, alias: str, uri: str) -> ToolAnswer:
        """Reads a resource, in the host's first conversation. See `Conversation.read_resource`."""
        return await self._first.read_resource(alias, uri)

    def member(self, alias: str) -> Member:
        """One server by its alias. Raises `NoSuchTool`."""
        found = self._members.get(alias)
        if found is None:
            raise NoSuchTool(f"there is no server {alias[:64]!r} here; there are {', '.join(self._members) or 'none'}")
        return found

    async def sound(self, name: str) -> HostTool:
        """A tool as it may be called now.

        Raises:
            NoSuchTool: no tool of this name is shown.
            DefinitionChanged: it is not what was approved.
            NotApproved: it was never approved, or its name or definition is refused.
            ClientError: its server cannot be used.
            StateError: what was approved cannot be read.
        """
        member = self.member(name.partition(".")[0])
        if await member.is_stale():
            if (failed := await self._list(member)) is not None:
                raise failed
        elif not self._exposure.decided:
            self._look()
        tool = self._exposure.tools.get(name)
        if tool is not None:
            return tool
        unshown = self._exposure.unshown.get(name)
        if unshown is None:
            raise NoSuchTool(f"there is no tool {visible(name)[:160]!r} here; names are whole, as alias.tool")
        about = events.Event("approval.denied", server=unshown.server, target=visible(unshown.name)[:160])
        events.record("approval.denied", f"a call was refused: {unshown.text}", about=about)
        raise (DefinitionChanged if unshown.why == "changed" else NotApproved)(unshown.text)

    @property
    def approvals(self) -> Approvals:
        """What decides on calls."""
        return self._approvals

    # Inside.

    async def _believe(self) -> None:
        question, trust = self._file, self._trust
        if question is None or trust is None:
            return
        verdict = await self.consent.ask(question)
        if not verdict.allowed:
            events.record(
                "config.untrusted", f"{visible(question.path)} was not approved", setting="Host.from_file(trusted=)"
            )
            raise NotApproved(
                f"{visible(question.path)} comes with a project and was not approved: see it with `garrison host`, or "
                "say trusted=True"
            )
        trust()
        self._file = None

    async def _list(self, member: Member) -> ClientError | None:
        """Lists one server's tools again, and at once decides anew: no other server is waited for in between.

        Returns:
            Why they cannot be listed; then none of them is shown.
        """
        failed: ClientError | None = None
        try:
            await member.list_again()
        except ClientError as exc:
            _log.warning("The tools of %s cannot be listed: %s", member.alias, exc)
            member.listed, failed = None, exc
        self._look()
        return failed

    def _look(self) -> None:
        self._exposure.look(tuple(self._members.values()))

    def _changed(self, alias: str) -> None:
        if alias not in self._refreshing and not self._closed:
            task = asyncio.get_running_loop().create_task(self._refresh_soon(self._members[alias]))
            self._refreshing[alias] = task

    async def _refresh_soon(self, member: Member) -> None:
        """Lists a server's tools again until it has said no further time that they are others."""
        try:
            while member.failure is None:
                await asyncio.sleep(member.pause())
                if await member.is_stale():
                    await self._list(member)
                if member.listed is None or not await member.is_stale():
                    return
        except GarrisonError as exc:
            _log.warning("The tools of %s cannot be listed: %s", member.alias, exc)
        finally:
            self._refreshing.pop(member.alias, None)

    def _hear(self, event: events.Event) -> None:
        # Several hosts of one process may have servers of one alias.
        if self._audit is not None and acting.get() is self:
            self._audit.write(event)
