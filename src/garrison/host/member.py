"""One server of a host: its consent to start, its connection, and what it lists.

Rules of this file:
- A program is started only as it was approved, and looked at again right before.
- Every server has a client of its own: no session, cache, token, question or log of one is another's.
- What it lists is known as of one moment. Where it may have changed since, or the moment is long ago, it is listed
  again before anything is called.
- A server that fails harms no other; what failed is kept, to be told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeVar

from .. import events
from ..client.client import Client
from ..client.launching import launch_of
from ..client.words import refused
from ..errors import ClientError, ConnectionFailed, ConnectionLost, GarrisonError, LaunchRefused
from ..gate.hygiene import visible
from ..policy.secret import Secret
from ..protocol import types as t
from ..protocol.json import encode
from ..protocol.revisions import LEGACY
from .acting import of_server
from .canonical import canonical
from .launches import as_recorded, record_of, verify
from .questions import LaunchQuestion
from .servers import LocalServer, OtherServer, RemoteServer

if TYPE_CHECKING:
    from ..policy import SecurityPolicy
    from ..protocol.envelope import Notification
    from .asking import Asking
    from .consent import Consent
    from .launches import Launches, LaunchRecord
    from .servers import ServerSettings

__all__ = ["Listed", "Member", "identity_of"]

_PAUSE: Final = 0.2
"""Seconds between a server's word that its tools have changed and listing them again: many words are one."""
_LONGEST_PAUSE: Final = 30.0
"""What that grows to where a server says it again and again."""
_QUIET: Final = 60.0
"""Seconds without a word, after which it begins anew."""
_REPLACEMENTS: Final = 5
_WINDOW: Final = 60.0
"""Connections to a server of an older revision that are made anew in so many seconds."""
_LISTED: Final = 32
"""How many definitions of the largest size all tools may have together, each with the instructions."""

R = TypeVar("R")

_log = logging.getLogger("garrison.host")


def identity_of(alias: str, settings: ServerSettings, record: LaunchRecord | None = None) -> str:
    """What the approvals of a server are kept under: its address and issuer, or its command, arguments, folder and
    the names of its variables. What the server calls itself is no part of it.

    Args:
        alias, settings: what the host was told.
        record: of a local server.
    """
    if isinstance(settings, RemoteServer):
        issuer = getattr(settings.auth, "issuer", None)
        return f"remote {settings.url} {issuer}" if issuer else f"remote {settings.url}"
    if record is not None:
        said = {"argv": list(record.argv), "program": record.program, "cwd": record.cwd, "env": sorted(record.env)}
        return f"local sha256:{sha256(canonical(said)).hexdigest()}"
    return f"other {getattr(settings, 'identity', '') or alias}"


def _of_this(method: Callable[[Member], Awaitable[R]]) -> Callable[[Member], Awaitable[R]]:
    """Has the events that a method causes be about this server."""

    @wraps(method)
    async def run(self: Member) -> R:
        with of_server(self.alias):
            return await method(self)

    return run


class Listed:
    """What a server offered at one moment."""

    __slots__ = ("at", "instructions", "tools", "version")

    def __init__(self, tools: tuple[t.Tool, ...], instructions: str | None, version: int, at: float) -> None:
        self.tools = tools
        self.instructions = instructions
        self.version = version
        """`Client.tools_version` when it was listed."""
        self.at = at
        """Loop time."""


class Member:
    """One server.

    Args:
        alias, settings: what the host was told.
        policy: the host's, where the server has none.
        consent: asks before a program is started.
        launches: what was started before.
        asking: what the server may ask.
        fresh: seconds for which a listing counts.
        on_changed: hears that the server says its tools have changed.
    """

    def __init__(
        self,
        alias: str,
        settings: ServerSettings,
        *,
        policy: SecurityPolicy,
        consent: Consent,
        launches: Launches,
        asking: Asking,
        fresh: float,
        on_changed: Callable[[str], None],
    ) -> None:
        self.alias = alias
        self.settings = settings
        self.identity = ""
        self.failure: GarrisonError | None = None
        """Why it cannot be used; None while it can."""
        self.listed: Listed | None = None
        self._policy = settings.policy or policy
        self._consent = consent
        self._launches = launches
        self._asking = asking
        self._fresh = fresh
        self._on_changed = on_changed
        self._client: Client | None = None
        self._make: Callable[[], Client] | None = None
        self._meeting = asyncio.Lock()
        self._replacements: deque[float] = deque()
        self._listening: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._pause = _PAUSE
        self._said = 0.0

    @property
    def client(self) -> Client:
        """The connection. Raises what the server failed with."""
        if self._client is None or self.failure is not None:
            raise self.failure or ClientError(f"{self.alias} is not started")
        return self._client

    @_of_this
    async def start(self) -> None:
        """Asks where that is needed, connects and lists. What goes wrong is kept in `failure`, never raised."""
        try:
            record = None
            if isinstance(self.settings, LocalServer):
                # Files are read to the end: not on the loop.
                record = await asyncio.to_thread(record_of, self.settings, alias=self.alias)
            self.identity = identity_of(self.alias, self.settings, record)
            self._make = await self._made(record)
            client = self._client = self._make()
            if self.failure is not None:  # it was closed while somebody was asked
                raise self.failure
            await client.connect()
            await self.list_again()
            self._hear_changes(client)
        except GarrisonError as exc:
            self.failure = self.failure or exc
            await self._end()
        except Exception as exc:  # noqa: BLE001 - a server of this process is somebody's code, and the others go on
            _log.error("The server %s failed to start", self.alias, exc_info=exc)
            self.failure = self.failure or ConnectionFailed(f"{self.alias}: {type(exc).__name__} while it was started")
            await self._end()
        except BaseException:  # cancelled: nothing of it may stay
            await self._end()
            raise

    async def aclose(self) -> None:
        """Ends the connection, and a local server."""
        if self.failure is None:
            self.failure = ClientError(f"{self.alias} is closed")
        await self._end()

    @_of_this
    async def list_again(self) -> Listed:
        """What the server offers now."""
        async with self._lock:
            client = await self._connected()
            version = client.tools_version
            tools = (
                tuple([tool async for tool in client.tools()]) if client.server_capabilities.tools is not None else ()
            )
            self._check_size(tools, client.instructions)
            self.listed = Listed(tools, client.instructions, version, asyncio.get_running_loop().time())
            return self.listed

    def _check_size(self, tools: tuple[t.Tool, ...], instructions: str | None) -> None:
        """Refuse what takes long to be judged: that holds up the other servers.

        Raises:
            ProtocolViolation: the definitions are too large together.
        """
        most = _LISTED * self._policy.limits.definition_bytes
        size = len(tools) * len(instructions or "") + sum(len(encode(t.to_dict(tool))) for tool in tools)
        if size > most:
            text = f"{self.alias}: its tools and instructions have more than {most} bytes together"
            raise refused(text, method="tools/list", setting="Limits.definition_bytes")

    @_of_this
    async def is_stale(self) -> bool:
        """Whether what was listed may be another by now; connects again where that is needed to know."""
        client = await self._connected()
        listed = self.listed
        if listed is None or listed.version != client.tools_version:
            return True
        return asyncio.get_running_loop().time() - listed.at > self._fresh

    def pause(self) -> float:
        """Seconds to wait before the tools are listed again because the server says so: more each time, until it is
        quiet. A call does not wait for that."""
        now = asyncio.get_running_loop().time()
        self._pause = _PAUSE if now - self._said > _QUIET else min(2 * self._pause, _LONGEST_PAUSE)
        self._said = now + self._pause
        return self._pause

    async def _connected(self) -> Client:
        """The connection; a new one where the server's revision knows no other way back from a lost one."""
        client = self.client
        try:
            await client.connect()
        except ConnectionLost:
            if client.protocol_version not in LEGACY:
                raise
            return await self._replaced(client)
        return client

    async def _replaced(self, lost: Client) -> Client:
        """A new connection in the place of a lost one: nothing that was listed counts any more.

        Raises:
            ConnectionLost: there were too many of late.
        """
        async with self._meeting:
            if self.client is not lost:  # somebody else has seen to it
                return self.client
            clock = asyncio.get_running_loop().time
            while self._replacements and clock() - self._replacements[0] > _WINDOW:
                self._replacements.popleft()
            if len(self._replacements) >= _REPLACEMENTS:
                text = f"{self.alias} ended more than {_REPLACEMENTS} times within {_WINDOW:g} s"
                events.record("launch.limited", text, about=events.Event("launch.limited", server=self.alias))
                raise ConnectionLost(text)
            pause = _PAUSE * 2 ** len(self._replacements)
            self._replacements.append(clock())
            await asyncio.sleep(pause)
            await self._stop_listening()
            await lost.aclose()
            if self.failure is not None or self._make is None:  # it was closed meanwhile
                raise self.failure or ConnectionLost(f"{self.alias} is not started")
            client, self.listed = self._make(), None
            self._client = client  # so that `aclose` ends it
            try:
                await client.connect()
            except BaseException:  # whatever it is: the next attempt counts like this one
                self._client = lost if self.failure is None else None
                await client.aclose()
                raise
            self._hear_changes(client)
            about = events.Event("server.restarted", server=self.alias)
            events.record("server.restarted", f"{self.alias} was connected to again", decision="noted", about=about)
            return client

    def _hear_changes(self, client: Client) -> None:
        if client.server_capabilities.tools is not None:
            self._listening = asyncio.get_running_loop().create_task(self._listen(client))

    # Starting.

    async def _made(self, record: LaunchRecord | None) -> Callable[[], Client]:
        """What makes a connection, once its start is allowed."""
        settings = self.settings
        common = {
            "timeout": settings.timeout,
            "policy": self._policy,
            "on_elicit": self._asking.on_elicit,
            "on_sample": self._asking.on_sample,
            "on_roots": self._asking.on_roots,
            "on_notification": self._heard,
            "cache": False,  # what counts is what the server says now
        }
        if isinstance(settings, LocalServer) and record is not None:
            return await self._started(settings, record, common)
        if isinstance(settings, RemoteServer):
            return partial(
                Client,
                settings.url,
                token=settings.token.reveal() if settings.token is not None else None,
                headers=_revealed(settings.headers) or None,
                auth=settings.auth,
                tls=settings.tls,
                **common,
            )
        if isinstance(settings, OtherServer):
            return partial(Client, settings.target, **common)
        raise LaunchRefused(f"{self.alias}: settings of this kind reach no server")

    async def _started(
        self, settings: LocalServer, record: LaunchRecord, common: Mapping[str, object]
    ) -> Callable[[], Client]:
        risks = self._launches.check(self.alias, record, settings)
        changes = self._launches.changes(self.alias, record)
        if changes != ():
            question = LaunchQuestion(server=self.alias, record=record, risks=risks, changes=changes or ())
            verdict = await self._consent.ask(question)
            if not verdict.allowed:
                raise LaunchRefused(
                    f"{self.alias} was not started: nobody has allowed {visible(record.program)} to be started as it "
                    "is now; `garrison host` shows it and asks"
                )
            self._launches.approve(self.alias, record)
        # Also when it is started again by itself: what was approved is what is started.
        found = as_recorded(settings, record, alias=self.alias)
        launch = launch_of(found, record.program, name=self.alias, check=lambda: verify(record, alias=self.alias))
        return partial(Client, launch, **common)

    async def _stop_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.wait((listening,), timeout=1.0)

    async def _end(self) -> None:
        await self._stop_listening()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # What the server tells.

    def _heard(self, notification: Notification) -> None:
        if notification.method == "notifications/tools/list_changed":
            self._on_changed(self.alias)

    async def _listen(self, client: Client) -> None:
        """Keeps a subscription to changes, where the server has one to give."""
        try:
            async with client.subscribe(tools=True) as changes:
                async for _ in changes:
                    self._on_changed(self.alias)
        except GarrisonError as exc:
            # Without it, a listing counts for `fresh` seconds: changes are seen later, and still before a call.
            _log.info("%s does not tell when its tools change: %s", self.alias, visible(str(exc))[:200])


def _revealed(headers: Mapping[str, str | Secret]) -> dict[str, str]:
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in headers.items()}
