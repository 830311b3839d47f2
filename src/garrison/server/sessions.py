"""The legacy box: sessions of the revisions that begin with a handshake.

Rules of this file:
- A session exists only after `initialize`, belongs to the principal who opened it, and is unknown to anyone else.
- Ids are made here, from 256 random bits; one that a client invents names nothing.
- Sessions are bounded in number, in idle time and in age, and so are the questions that wait for a client's answer.

Spec: 2025-11-25 basic/lifecycle and basic/transports "Session Management".
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, cast

from ..errors import ConnectionLost, InvalidParams, InvalidRequest, McpError, Overloaded, RemoteError
from ..protocol.envelope import encode_request
from ..protocol.json import encode
from ..protocol.revisions import LEGACY, get
from ..protocol.types import LOGGING_LEVELS
from .call import Call, optional_fields
from .subscriptions import Listener

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from ..policy import Limits, Timeouts
    from ..policy.principal import Principal
    from ..protocol.envelope import Request, Response
    from ..protocol.revisions import Revision
    from ..protocol.types import LoggingLevel
    from ..transports.peer import Credential
    from .call import Channel
    from .capabilities import Offer
    from .listings import Listings
    from .subscriptions import Hub

__all__ = ["LegacyDoor", "Session", "SessionStore"]

_LISTS: Final = ("tools", "prompts", "resources")
_WAITING_QUESTIONS: Final = 64
_SELF_BYTES: Final = 64 * 1024
"""What a client may say about itself: kept as long as its session."""
_URIS: Final = 1_000
_URI_CHARS: Final = 256 * 1024
"""Subscribed URIs of one session, and their characters together."""


class Session:
    """One legacy client after its handshake."""

    __slots__ = (
        "_asks",
        "_next",
        "address",
        "began",
        "capabilities",
        "client_info",
        "credential",
        "extra",
        "id",
        "listener",
        "log_level",
        "principal",
        "revision",
        "used",
    )

    def __init__(
        self, id: str, revision: Revision, principal: Principal, capabilities: dict[str, object], client_info: object
    ) -> None:
        self.id = id
        self.revision = revision
        self.principal = principal
        self.capabilities = capabilities
        self.client_info = client_info
        self.credential: Credential | None = None
        """What its last request showed."""
        self.address = ""
        """Where its last request came from, over HTTP."""
        self.log_level: int | None = LOGGING_LEVELS["info"]
        self.began = self.used = time.monotonic()
        self.listener: Listener | None = None
        self.extra: object = None
        """What the transport keeps for the session."""
        self._asks: dict[str, asyncio.Future[dict[str, object]]] = {}
        self._next = int.from_bytes(os.urandom(5))

    def ask(
        self, method: str, params: dict[str, object], send: Callable[[bytes], None]
    ) -> asyncio.Future[dict[str, object]]:
        """Send a request to the client through `send`; the future has its result."""
        import asyncio

        future: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
        if len(self._asks) >= _WAITING_QUESTIONS:
            future.set_exception(McpError("Too many questions wait for this client"))
            return future
        # Unguessable, so that an answer can only come from who was asked.
        self._next += 1
        identifier = f"{self._next:x}-{os.urandom(8).hex()}"
        self._asks[identifier] = future
        future.add_done_callback(lambda _: self._asks.pop(identifier, None))
        send(encode_request(identifier, method, self.revision.server_request(method, params)))
        return future

    def answer(self, response: Response) -> bool:
        """Give a client's response to who asked. False if nobody did."""
        future = self._asks.get(response.id) if type(response.id) is str else None
        if future is None or future.done():
            return False
        if response.error is not None:
            future.set_exception(RemoteError(response.error.code, response.error.message, response.error.data))
        else:
            future.set_result(cast("dict[str, object]", response.result))
        return True

    def close(self) -> None:
        """Nobody will answer any more."""
        for future in tuple(self._asks.values()):
            if not future.done():
                future.set_exception(ConnectionLost("the client's session ended"))


class SessionStore:
    """The sessions of one HTTP listener."""

    def __init__(self, limits: Limits, timeouts: Timeouts) -> None:
        self._most = limits.sessions
        self._most_each = limits.sessions_per_principal
        self._counts: dict[str, int] = {}
        """Account -> its sessions; who has none is not there."""
        self._idle = timeouts.session_idle
        self._longest = timeouts.session_max
        self._sessions: dict[str, Session] = {}
        self.on_close: Callable[[Session], None] = lambda session: None
        self.busy: Callable[[Session], bool] = lambda session: False
        """True for a session that is in use without requests: a stream is open, or a request is under way."""

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        """Keep a session.

        Raises:
            Overloaded: there are `Limits.sessions` already, or `Limits.sessions_per_principal` of this principal, none
                of them idle too long or too old.
        """
        account = session.principal.account
        if len(self._sessions) >= self._most or self._counts.get(account, 0) >= self._most_each:
            self.sweep()
            if len(self._sessions) >= self._most:
                raise Overloaded("Too many sessions", hint="Limits.sessions, Timeouts.session_idle")
            if self._counts.get(account, 0) >= self._most_each:
                raise Overloaded("Too many sessions", hint="Limits.sessions_per_principal, Timeouts.session_idle")
        self._sessions[session.id] = session
        self._counts[account] = self._counts.get(account, 0) + 1

    def get(self, id: str, principal: Principal, credential: Credential | None = None) -> Session | None:
        """The principal's session of this id. Someone else's is as unknown as an invented one.

        From here on the session is used with what this credential allows.
        """
        session = self._sessions.get(id)
        if session is None or session.principal.key != principal.key:
            return None
        now = time.monotonic()
        if self._over(session, now):
            self.remove(session)
            return None
        session.used = now
        session.principal, session.credential = principal, credential
        return session

    def _over(self, session: Session, now: float) -> bool:
        """True for a session that was idle too long, or is too old whether it is used or not."""
        return now - session.began > self._longest or (now - session.used > self._idle and not self.busy(session))

    def remove(self, session: Session) -> None:
        """End a session."""
        if self._sessions.pop(session.id, None) is not None:
            account = session.principal.account
            self._counts[account] -= 1
            if not self._counts[account]:
                del self._counts[account]
            session.close()
            self.on_close(session)

    def sweep(self) -> None:
        """End the sessions that were idle too long or are too old."""
        now = time.monotonic()
        for session in [session for session in self._sessions.values() if self._over(session, now)]:
            self.remove(session)

    def close(self) -> None:
        """End all."""
        for session in tuple(self._sessions.values()):
            self.remove(session)


class LegacyDoor:
    """What only handshake revisions know: `initialize`, `ping`, `logging/setLevel`, `resources/subscribe`."""

    def __init__(
        self,
        offer: Offer,
        listings: Listings,
        hub: Hub,
        may_read: Callable[[Principal, str], bool | Awaitable[bool]],
    ) -> None:
        self._offer = offer
        self._may_read = may_read
        self._listings = listings
        self._hub = hub

    def initialize(self, request: Request, principal: Principal) -> tuple[Session, bytes]:
        """The session that an `initialize` request opens, and the result to answer.

        Raises:
            InvalidParams: the parameters are not those of `initialize`.
        """
        params = request.params
        version = params.get("protocolVersion")
        revision = cast("Revision", get(version if type(version) is str and version in LEGACY else LEGACY[0]))
        params = revision.upgrade_params("initialize", params)
        capabilities = params.get("capabilities")
        if type(version) is not str or type(capabilities) is not dict:
            raise InvalidParams("initialize needs params.protocolVersion and params.capabilities")
        if len(encode([params.get("capabilities"), params.get("clientInfo")])) > _SELF_BYTES:
            raise InvalidParams(f"params.capabilities and params.clientInfo: at most {_SELF_BYTES} bytes")
        session = Session(
            os.urandom(32).hex(),
            revision,
            principal,
            cast("dict[str, object]", capabilities),
            params.get("clientInfo"),
        )
        return session, self._listings.initialize(revision)

    def listen(self, session: Session, send: Callable[[str, dict[str, object]], None]) -> None:
        """Tell the session about changed listings and, when it subscribes, about resources."""
        listener = session.listener = Listener(send, lambda: session.principal, self._may_read)
        listener.methods.update(f"notifications/{kind}/list_changed" for kind in _LISTS)
        self._hub.add(listener)

    def leave(self, session: Session) -> None:
        """Stop telling the session."""
        if session.listener is not None:
            self._hub.discard(session.listener)
            session.listener = None

    def local(self, request: Request, session: Session) -> bytes | None:
        """The encoded result, if this is a request that the box answers itself.

        Raises:
            McpError: it is, and it is wrong.
        """
        method = request.method
        if method == "ping":
            return b"{}"
        self._offer.check(method)
        if method == "logging/setLevel":
            level = request.params.get("level")
            number = LOGGING_LEVELS.get(cast("LoggingLevel", level)) if type(level) is str else None
            if number is None:
                raise InvalidParams(f"params.level must be one of {', '.join(LOGGING_LEVELS)}")
            session.log_level = number
            return b"{}"
        if method in ("resources/subscribe", "resources/unsubscribe"):
            return self._subscribe(request, session, subscribe=method == "resources/subscribe")
        if method == "initialize":
            raise InvalidRequest("This session is initialized already")
        return None

    def _subscribe(self, request: Request, session: Session, *, subscribe: bool) -> bytes:
        uri = request.params.get("uri")
        if type(uri) is not str:
            raise InvalidParams("params.uri must be a string")
        uris = session.listener.uris if session.listener is not None else set[str]()
        if not subscribe:
            uris.discard(uri)
        elif uri not in uris and (len(uris) >= _URIS or sum(map(len, uris)) + len(uri) > _URI_CHARS):
            raise InvalidParams("Too many subscriptions in this session")
        else:
            uris.add(uri)
        return b"{}"

    def call(self, request: Request, session: Session, channel: Channel) -> Call:
        """The call of a legacy request.

        Raises:
            MalformedMeta: a field of `_meta` has the wrong type.
        """
        request.params = session.revision.upgrade_params(request.method, request.params)
        call = Call(
            request,
            session.revision,
            channel,
            session.principal,
            session.capabilities,
            session.client_info,
            session.log_level,
        )
        call.credential, call.address = session.credential, session.address
        meta = request.params.get("_meta")
        if type(meta) is dict:
            optional_fields(call, cast("dict[str, object]", meta))
        return call
