"""A client's connection over its life, and the carrying of one request to its result.

Rules of this file:
- Connecting, restarting a local server and renewing a session happen one at a time, when a request needs them.
- A request is sent again by itself only where the server did not carry it out: it refused the revision, or no longer
  knew the session, or asked for input first.

Spec: 2026-07-28 basic/versioning, basic/patterns/mrtr, basic/transports/stdio "Unexpected Termination"; 2025-11-25
basic/transports "Session Management".
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

import msgspec

from .. import events
from ..errors import ConfigurationError, ConnectionFailed, ConnectionLost, HttpError, RemoteError
from ..protocol import revisions
from ..protocol import types as t
from .link import Link
from .negotiation import UNSUPPORTED_VERSION, NoHandshake, choose, handshake, negotiate
from .subscriptions import LegacySubscriptions, ModernSource
from .words import refused, said

if TYPE_CHECKING:
    from ..policy import SecurityPolicy
    from ..protocol.envelope import Notification
    from .handlers import Answers
    from .negotiation import Agreement
    from .transport import Call, ClientTransport

__all__ = ["Answered", "Conversation"]

_INPUT_REQUIRED: Final = frozenset({"tools/call", "resources/read", "prompts/get"})
_RENEWALS: Final = 3
"""Sessions that one request may lose before it fails."""
_RESTARTS: Final = 5
_RESTART_WINDOW: Final = 60.0
"""Seconds within which so many connections may end; a transport that starts its server has a longer one of its own."""
_FIRST_PAUSE: Final = 0.1
"""Seconds before the next connection is made; each further time within the window twice as long."""


class Answered:
    """A result as it came, the call that it ended, and whether the server asked for input first."""

    __slots__ = ("asked", "call", "raw")

    def __init__(self, raw: dict[str, object], call: Call, asked: bool) -> None:
        self.raw = raw
        self.call = call
        self.asked = asked


class Conversation:
    """See the top of this file.

    Args:
        make: makes a transport; called again after a failure to connect.
        policy: limits and time-outs.
        versions: the revisions that may be spoken, newest first.
        info: the client's name and version.
        timeout: seconds for one request; the policy's when None.
        answers: answers the server's questions.
        log_level: the least severe log message that is asked for.
        on_notification: hears every notification but progress and cancellation.
        on_missed: hears that changes may have been missed.

    Raises:
        ConfigurationError: a value is wrong, or `make` raises it.
    """

    def __init__(
        self,
        make: Callable[[], ClientTransport],
        *,
        policy: SecurityPolicy,
        versions: Sequence[str],
        info: Mapping[str, object],
        timeout: float | None,
        answers: Answers,
        log_level: t.LoggingLevel | None,
        on_notification: Callable[[Notification], None],
        on_missed: Callable[[], None],
    ) -> None:
        if timeout is not None and not 0 < timeout < float("inf"):
            raise ConfigurationError("timeout= must be a positive number of seconds")
        if log_level is not None and log_level not in t.LOGGING_LEVELS:
            raise ConfigurationError(f"log_level= must be one of {', '.join(t.LOGGING_LEVELS)}")
        self.link: Link | None = None
        self.agreement: Agreement | None = None
        self.legacy: LegacySubscriptions | None = None
        self.closed = False
        self.log_level: t.LoggingLevel | None = log_level
        self.missed = on_missed
        self._make = make
        self._transport: ClientTransport | None = make()
        self._limits, self._timeouts, self._tolerate = policy.limits, policy.timeouts, policy.tolerate
        self._versions = tuple(versions)
        self._modern = [version for version in versions if version not in revisions.LEGACY]
        self._older = [version for version in versions if version in revisions.LEGACY]
        self._info = info
        self._timeout = timeout
        self._answers = answers
        self._on_notification = on_notification
        self._meeting: Link | None = None
        self._lock = asyncio.Lock()
        self._restarts: deque[float] = deque()

    @property
    def mirrors(self) -> bool:
        """True where arguments are mirrored in headers."""
        return self.link is not None and self.link.modern and self.link.transport.http

    @property
    def credential(self) -> object:
        """Something that is another one once the transport sends another credential than before."""
        # Of a transport that sends the same one for ever there is nothing to be known.
        return 0 if self.link is None else self.link.transport.credential

    def agreed(self) -> Agreement:
        """What was agreed with the server. Raises `ConnectionLost` before there is anything."""
        if self.agreement is None:
            raise ConnectionLost("The client is not connected")
        return self.agreement

    async def ready(self) -> Link:
        """The link, connected, or connected again where that is safe.

        Raises:
            ClientError: there is no connection to be had.
        """
        link = self.link
        if link is not None and not link.transport.down:
            return link
        async with self._lock:
            if self.closed:
                raise ConnectionLost("The client is closed")
            link = self.link
            if link is None:
                return await self._meet()
            if link.transport.down:
                await self._restart(link)
            return link

    async def aclose(self) -> None:
        """Ends everything; from any task, at any time, any number of times."""
        self.closed = True
        link, self.link = self.link or self._meeting, None
        transport, self._transport = self._transport, None
        if link is not None:
            await link.aclose()
        elif transport is not None:
            await transport.aclose()

    async def _meet(self) -> Link:
        transport = self._transport or self._make()
        self._transport = None
        link = self._meeting = self._new_link(transport)
        try:
            await transport.open()
            try:
                agreement = await negotiate(link, self._versions, self._answers, self._timeouts)
            except NoHandshake:
                link = self._meeting = self._new_link(_oldest(transport))
                await link.transport.open()
                agreement = await handshake(link, self._older, self._answers, self._timeouts)
            self.agreement = agreement
            if agreement.revision.modern:
                link.want_log(self.log_level)
            else:
                self.legacy = LegacySubscriptions(self, agreement.capabilities)
                if self.log_level is not None and agreement.capabilities.logging is not None:
                    await link.run(link.call("logging/setLevel", {"level": self.log_level}))
            if self.closed:
                raise ConnectionLost("The client is closed")
        except BaseException as exc:  # whatever ended the meeting, nothing of it may stay open
            await link.aclose()
            if isinstance(exc, ConnectionLost) and not self.closed:
                raise ConnectionFailed(*exc.args) from exc
            raise
        finally:
            self._meeting = None
        self.link = link
        return link

    async def _restart(self, link: Link) -> None:
        """Connects again, where that starts a local server anew; the requests of its predecessor are lost."""
        if not link.modern:
            raise ConnectionLost("The connection ended, and with it the session: connect a new client")
        window: float = getattr(link.transport, "restart_window", _RESTART_WINDOW)
        now = asyncio.get_running_loop().time()
        while self._restarts and now - self._restarts[0] >= window:
            self._restarts.popleft()
        if len(self._restarts) >= _RESTARTS:
            text = f"The server ended more than {_RESTARTS} times within {window:g} s; connect a new client"
            # Only a server that is started has a name of ours.
            about = events.Event("launch.limited", server=getattr(link.transport, "name", ""))
            events.record("launch.limited", text, about=about)
            raise ConnectionLost(text)
        # Up to half as long again, so that many clients do not all start their servers at once.
        pause = _FIRST_PAUSE * 2 ** len(self._restarts) * (1 + os.urandom(1)[0] / 512)
        self._restarts.append(now)
        await asyncio.sleep(pause)
        if self.closed:
            raise ConnectionLost("The client is closed")
        self.missed()
        await link.transport.open()

    async def _renew(self, link: Link, session: str) -> None:
        """Makes a new session when the server no longer knows the old one."""
        async with self._lock:
            if link.transport.session != session:
                return  # another request has seen to it
            try:
                self.agreement = await handshake(link, self._older, self._answers, self._timeouts)
            except NoHandshake as exc:
                raise ConnectionLost("The session ended, and the server makes no new one") from exc
            self.missed()
        if self.legacy is not None:
            await self.legacy.renew()

    def _new_link(self, transport: ClientTransport) -> Link:
        return Link(
            transport,
            limits=self._limits,
            timeouts=self._timeouts,
            info=self._info,
            answers=self._answers,
            on_notification=self._heard,
            on_lost=self._lost,
            tolerate=self._tolerate,
        )

    def _heard(self, notification: Notification) -> None:
        if self.legacy is not None:
            self.legacy.heard(notification)
        self._on_notification(notification)

    def _lost(self, error: ConnectionLost) -> None:
        if self.legacy is not None:
            self.legacy.lost(error)

    async def source(self) -> ModernSource | LegacySubscriptions:
        """Where a new subscription gets its changes from."""
        await self.ready()
        return self.legacy or ModernSource(self, patience=self._timeouts.request)

    async def ask(
        self,
        method: str,
        params: Mapping[str, object],
        *,
        timeout: float | None = None,
        meta: Mapping[str, object] | None = None,
        headers: Sequence[tuple[str, str]] = (),
        safe: bool = False,
        on_progress: Callable[[t.ProgressParams], object] | None = None,
    ) -> Answered:
        """Carries a request to its complete result, answering what the server asks for on the way.

        Args:
            method, params, meta: the request; `params` without `_meta`.
            timeout: seconds for each round.
            headers: further HTTP headers.
            safe: whether doing it twice changes nothing.
            on_progress: hears its progress.
        """
        rounds = renewals = 0
        sent = params
        while True:
            link = self.link
            if link is None or link.transport.down:
                link = await self.ready()
            session = link.transport.session
            call = link.call(
                method,
                sent,
                timeout=self._timeout if timeout is None else timeout,
                meta=meta,
                headers=headers,
                safe=safe,
                on_progress=on_progress,
            )
            try:
                raw = await link.run(call)
            except HttpError as exc:
                # 404 in a session: the session is gone, and the request was not read.
                if exc.status != 404 or session is None or link.modern or renewals == _RENEWALS:
                    raise
                renewals += 1
                await self._renew(link, session)
                continue
            except RemoteError as exc:
                if exc.code == UNSUPPORTED_VERSION and link.modern and self._adopt_version(link, exc.data):
                    continue
                raise
            kind = raw.get("resultType", "complete")
            if kind == "complete" or not link.modern:
                return Answered(raw, call, rounds > 0)
            if kind != "input_required" or method not in _INPUT_REQUIRED:
                raise refused(f"{method}: a result of type {said(kind, 64)!r} is not allowed here", method=method)
            rounds += 1
            if rounds > self._limits.rounds:
                raise refused(
                    f"{method}: the server asked back more than {self._limits.rounds} times",
                    method=method,
                    setting="Limits.rounds",
                )
            sent = await self._retry(method, params, raw)

    async def _retry(
        self, method: str, params: Mapping[str, object], raw: Mapping[str, object]
    ) -> Mapping[str, object]:
        """The parameters of a retry: the original ones, the answers, and the state as it came."""
        requests, state = raw.get("inputRequests"), raw.get("requestState")
        if not (requests is None or isinstance(requests, dict)) or not (state is None or isinstance(state, str)):
            raise refused(f"{method}: inputRequests or requestState is malformed", method=method)
        if requests is None and state is None:
            raise refused(f"{method}: input is required, but none is asked for", method=method)
        retry = dict(params)
        if requests is not None:
            retry["inputResponses"] = await self._answers.all(cast("dict[str, object]", requests))
        if state is not None:
            retry["requestState"] = state
        return retry

    def _adopt_version(self, link: Link, data: object) -> bool:
        """Changes to a revision that the server names in its error. False when it would be the same, or none."""
        supported = cast("dict[str, object]", data).get("supported") if isinstance(data, dict) else None
        picked = choose(supported, self._modern)
        revision = revisions.get(picked) if picked is not None else None
        if revision is None or revision is link.revision:
            return False
        link.speak(revision)
        self.agreement = msgspec.structs.replace(self.agreed(), revision=revision)
        return True


def _oldest(transport: ClientTransport) -> ClientTransport:
    """The HTTP transport of 2024-11-05 at the same address."""
    from .http import StreamableHttp
    from .http_sse import HttpSse

    if not isinstance(transport, StreamableHttp):
        raise ConnectionFailed("The server takes no initialize request")
    return HttpSse(transport.settings)
