"""One request on its way through the server: what it asks, who asks, and where its messages go.

Rules of this file:
- A `Call` says everything a handler may know. Nothing is remembered between two requests of the modern revision: its
  protocol version and capabilities come from its own `_meta`. A legacy request takes them from its session.
- `Channel` is the only way a running request reaches its peer.

Spec: 2026-07-28 basic, "Statelessness" and "_meta".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from ..errors import InvalidParams, UnsupportedVersion
from ..protocol.revisions import LATEST, get
from ..protocol.types import (
    CLIENT_CAPABILITIES_KEY,
    CLIENT_INFO_KEY,
    LOG_LEVEL_KEY,
    LOGGING_LEVELS,
    PROTOCOL_VERSION_KEY,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..errors import McpError
    from ..policy.principal import Principal
    from ..protocol.envelope import Request, RequestId
    from ..protocol.revisions import Revision
    from ..protocol.types import LoggingLevel
    from ..transports.peer import Credential
    from .outgoing import Outgoing
    from .running import Running

__all__ = ["Call", "Channel", "MalformedMeta", "modern_call", "optional_fields", "refused_handshake", "shown"]


class MalformedMeta(InvalidParams):
    """The request's `_meta` lacks a required protocol field, or has one of the wrong type."""

    http_status = 400


class Channel(Protocol):
    """Where the messages of one running request go. All methods belong to the event loop's thread."""

    def notify(self, method: str, params: dict[str, object]) -> None:
        """Send a notification that relates to the request. Dropped when the peer has gone."""
        ...

    async def drain(self) -> None:
        """Return once the peer has room for more."""
        ...

    def ask(self, method: str, params: dict[str, object]) -> Awaitable[dict[str, object]]:
        """Send a request to a legacy client and wait for its result.

        Raises:
            RemoteError: the client answered with an error.
            ConnectionLost: the client is gone.
        """
        ...

    def close_stream(self) -> None:
        """End the HTTP response stream and let the client come back for the rest. No effect where there is none."""
        ...


class Call:
    """One request. Read-only for everyone but the door that made it."""

    __slots__ = (
        "address",
        "began",
        "capabilities",
        "channel",
        "client_info",
        "credential",
        "failed",
        "id",
        "log_level",
        "looks",
        "match",
        "method",
        "params",
        "principal",
        "progress_token",
        "revision",
        "running",
        "server",
        "timeout",
        "told",
    )

    def __init__(
        self,
        request: Request,
        revision: Revision,
        channel: Channel,
        principal: Principal,
        capabilities: dict[str, object],
        client_info: object = None,
        log_level: int | None = None,
        progress_token: RequestId | None = None,
    ) -> None:
        self.id = request.id
        self.method = request.method
        self.params = request.params
        self.revision = revision
        self.channel = channel
        self.principal = principal
        self.capabilities = capabilities
        self.client_info = client_info
        self.log_level = log_level
        self.progress_token = progress_token
        self.timeout: float | None = None
        self.running: Running | None = None
        self.credential: Credential | None = None
        """What the caller showed, on a protected listener."""
        self.address = ""
        """Where it came from: an IP address, `unix`, or empty for a pipe and memory."""
        self.server = ""
        """The name of the server that does it."""
        self.looks: Outgoing | None = None
        """What looks at the texts that are sent on the way to its result."""
        self.began = False
        """Its handler has begun."""
        self.failed = ""
        """How its handler failed, for the record; empty where it did not."""
        self.told: McpError | None = None
        """The refusal of it that was recorded."""
        self.match: Callable[[], None] | None = None
        """Holds the headers that repeat arguments against them. Called once it is known that the tool may be known."""


_MODERN = cast("Revision", get(LATEST))


def modern_call(request: Request, channel: Channel, principal: Principal, versions: tuple[str, ...]) -> Call:
    """The call of a modern request, whose `_meta` must be complete.

    Args:
        request, channel, principal: what asks, where its messages go, and who it is.
        versions: what the server speaks, to tell a client that wants another.

    Raises:
        MalformedMeta: a required field is missing or of the wrong type.
        UnsupportedVersion: another protocol version.
    """
    meta = request.params.get("_meta")
    if type(meta) is not dict:
        raise MalformedMeta("params._meta is required")
    fields = cast("dict[str, object]", meta)
    version = fields.get(PROTOCOL_VERSION_KEY)
    if version != LATEST:
        if type(version) is not str:
            raise MalformedMeta(f"params._meta needs {PROTOCOL_VERSION_KEY}")
        raise UnsupportedVersion(shown(version), versions)
    capabilities = fields.get(CLIENT_CAPABILITIES_KEY)
    if type(capabilities) is not dict:
        raise MalformedMeta(f"params._meta needs {CLIENT_CAPABILITIES_KEY}")
    call = Call(
        request, _MODERN, channel, principal, cast("dict[str, object]", capabilities), fields.get(CLIENT_INFO_KEY)
    )
    if "progressToken" in fields or LOG_LEVEL_KEY in fields:
        optional_fields(call, fields)
    return call


def optional_fields(call: Call, meta: dict[str, object]) -> None:
    """Take progress token and log level from `_meta`.

    Raises:
        MalformedMeta: one of them has the wrong type or is no log level.
    """
    token = meta.get("progressToken")
    if token is not None:
        if type(token) is not str and type(token) is not int:
            raise MalformedMeta("params._meta.progressToken must be a string or an integer")
        call.progress_token = token
    level = meta.get(LOG_LEVEL_KEY)
    if level is not None:
        number = LOGGING_LEVELS.get(cast("LoggingLevel", level)) if type(level) is str else None
        if number is None:
            raise MalformedMeta(f"params._meta {LOG_LEVEL_KEY} must be one of {', '.join(LOGGING_LEVELS)}")
        call.log_level = number


def refused_handshake(request: Request, versions: tuple[str, ...]) -> UnsupportedVersion:
    """The error for a handshake client where only the modern revision is served.

    It names what is spoken: an older client has nothing else to show (spec: basic/versioning).
    """
    wanted = request.params.get("protocolVersion")
    error = UnsupportedVersion(shown(wanted) if type(wanted) is str else "none", versions)
    error.request_id = request.id
    return error


def shown(text: str, most: int = 64) -> str:
    """A peer's text as it may stand in a message: printable ASCII, short."""
    clean = "".join(c if " " <= c <= "~" else "?" for c in text[:most])
    return clean + "..." if len(text) > most else clean
