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
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from ..client.client import Client
from ..client.launching import launch_of
from ..errors import ClientError, GarrisonError, LaunchRefused
from ..gate.hygiene import visible
from ..policy.secret import Secret
from ..protocol import types as t
from .canonical import canonical
from .launches import record_of, verify
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
        self._listening: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    @property
    def client(self) -> Client:
        """The connection. Raises what the server failed with."""
        if self._client is None or self.failure is not None:
            raise self.failure or ClientError(f"{self.alias} is not started")
        return self._client

    async def start(self) -> None:
        """Asks where that is needed, connects and lists. What goes wrong is kept in `failure`, never raised."""
        try:
            record = None
            if isinstance(self.settings, LocalServer):
                # Files are read to the end: not on the loop.
                record = await asyncio.to_thread(record_of, self.settings, alias=self.alias)
            self.identity = identity_of(self.alias, self.settings, record)
            self._client = await self._made(record)
            await self._client.connect()
            await self.list_again()
            if self._client.server_capabilities.tools is not None:
                self._listening = asyncio.get_running_loop().create_task(self._listen(self._client))
        except GarrisonError as exc:
            self.failure = exc
            await self._end()
        except BaseException:  # cancelled: nothing of it may stay
            await self._end()
            raise

    async def aclose(self) -> None:
        """Ends the connection, and a local server."""
        if self.failure is None:
            self.failure = ClientError(f"{self.alias} is closed")
        await self._end()

    async def list_again(self) -> Listed:
        """What the server offers now."""
        async with self._lock:
            client = self.client
            await client.connect()
            version = client.tools_version
            tools = (
                tuple([tool async for tool in client.tools()]) if client.server_capabilities.tools is not None else ()
            )
            self.listed = Listed(tools, client.instructions, version, asyncio.get_running_loop().time())
            return self.listed

    async def is_stale(self) -> bool:
        """Whether what was listed may be another by now; connects again where that is needed to know."""
        client, listed = self.client, self.listed
        await client.connect()
        if listed is None or listed.version != client.tools_version:
            return True
        return asyncio.get_running_loop().time() - listed.at > self._fresh

    # Starting.

    async def _made(self, record: LaunchRecord | None) -> Client:
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
            return Client(
                settings.url,
                token=settings.token.reveal() if settings.token is not None else None,
                headers=_revealed(settings.headers) or None,
                auth=settings.auth,
                tls=settings.tls,
                **common,  # pyright: ignore[reportArgumentType] - the arguments of Client by their names, typed above
            )
        if isinstance(settings, OtherServer):
            return Client(settings.target, **common)  # pyright: ignore[reportArgumentType] - as above
        raise LaunchRefused(f"{self.alias}: settings of this kind reach no server")

    async def _started(self, settings: LocalServer, record: LaunchRecord, common: Mapping[str, object]) -> Client:
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
        found = replace(settings, command=record.argv)
        launch = launch_of(found, record.program, name=self.alias, check=lambda: verify(record, alias=self.alias))
        return Client(launch, **common)  # pyright: ignore[reportArgumentType] - as above

    async def _end(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.wait((listening,), timeout=1.0)
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
