"""Finding out which revision to speak with a server.

Theory of operation: the first request is always `server/discover` in the newest revision that is allowed. A server of
the modern era answers it, or says with a modern error what it would have; everything else is a server of the older era,
which gets `initialize`, and over HTTP, if that is not understood either, the transport of 2024-11-05. What `versions`
and `era` forbid is never tried, and never accepted from the server.

An address that has spoken the newer era to this program is not followed into the older one: whoever stands between
could have made it look older. `era="legacy"` says that it is meant.

Spec: 2026-07-28 basic/versioning, basic/transports/stdio and streamable-http "Backward Compatibility".
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal, cast
from weakref import WeakKeyDictionary

import msgspec

from ..errors import (
    AuthenticationRequired,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    HttpError,
    ProtocolViolation,
    RemoteError,
    RequestTimeout,
)
from ..protocol import revisions
from ..protocol import types as t
from .words import said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..policy import Timeouts
    from ..protocol.revisions import Revision
    from .handlers import Answers
    from .link import Link

__all__ = ["Agreement", "Era", "allowed_versions", "choose", "handshake", "negotiate"]

Era = Literal["auto", "modern", "legacy"]

SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
UNSUPPORTED_VERSION: Final = -32022
_MODERN_ERRORS: Final = frozenset({-32020, -32021, UNSUPPORTED_VERSION})
_NOT_LEGACY: Final = frozenset({401, 403, 407, 408, 429})
OLD_HTTP: Final = frozenset({400, 404, 405})
"""Statuses with which a server of 2024-11-05 answers a POST to its stream's address."""
_MOST_KNOWN: Final = 1024

_known: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, None]] = WeakKeyDictionary()
"""The addresses that have spoken the newer era on a loop, the latest last."""


class Agreement(msgspec.Struct, frozen=True):
    """What both sides know once they have met."""

    revision: Revision
    capabilities: t.ServerCapabilities
    server_info: t.Implementation | None = None
    instructions: str | None = None


class NoHandshake(Exception):
    """Internal: the server understands no POST of `initialize`; it may be one of 2024-11-05."""


def allowed_versions(versions: Sequence[str] | None, era: Era) -> tuple[str, ...]:
    """The revisions that may be spoken, newest first.

    Raises:
        ConfigurationError: a revision is unknown, or none is left.
    """
    wanted = revisions.VERSIONS if versions is None else tuple(versions)
    for version in wanted:
        if revisions.get(version) is None:
            raise ConfigurationError(f"versions=: {version!r} is not one of {', '.join(revisions.VERSIONS)}")
    if era not in ("auto", "modern", "legacy"):
        raise ConfigurationError("era= must be auto, modern or legacy")
    left = [
        v for v in revisions.VERSIONS if v in wanted and (era == "auto" or (v in revisions.LEGACY) == (era == "legacy"))
    ]
    if not left:
        raise ConfigurationError(f"versions= and era={era!r} leave no revision to speak")
    return tuple(left)


def choose(offered: object, versions: Sequence[str]) -> str | None:
    """The newest of `versions` in a server's list, or None."""
    names = cast("list[object]", offered) if isinstance(offered, list) else []
    return next((version for version in versions if version in names), None)


async def negotiate(link: Link, versions: Sequence[str], answers: Answers, timeouts: Timeouts) -> Agreement:
    """Meets a server.

    Raises:
        ConnectionFailed: there is no revision that both sides speak.
        NoHandshake: the server takes no POST, and 2024-11-05 is allowed.
        AuthenticationRequired, HttpError, ConnectionLost, ProtocolViolation: as for any request.
    """
    modern = [version for version in versions if version not in revisions.LEGACY]
    legacy = [version for version in versions if version in revisions.LEGACY]
    if modern:
        agreement = await _discover(link, modern, legacy, timeouts)
        address = _address(link)
        known = _known.setdefault(asyncio.get_running_loop(), {})
        if agreement is not None:
            if address is not None:
                known.pop(address, None)
                known[address] = None
                if len(known) > _MOST_KNOWN:
                    del known[next(iter(known))]
            return agreement
        if address in known:
            raise ConnectionFailed(
                f"{address} has spoken a revision from {modern[-1]} on before, and now wants an older one: this is "
                'not followed unasked (era="legacy" does)'
            )
        if not legacy:
            raise ConnectionFailed(f"The server does not speak {', '.join(modern)}, and nothing else is allowed here")
    return await handshake(link, legacy, answers, timeouts)


async def _discover(link: Link, modern: list[str], legacy: list[str], timeouts: Timeouts) -> Agreement | None:
    """The agreement with a modern server; None when the server is of the older era."""
    version = modern[0]
    # On one channel silence means the older era, so it is not listened to for long; HTTP always answers.
    patience = timeouts.request if link.transport.http else timeouts.connect
    for _ in range(2):
        link.speak(_revision(version))
        try:
            raw = await link.run(link.call("server/discover", {}, timeout=patience, safe=True))
        except RemoteError as exc:
            if exc.code not in _MODERN_ERRORS:
                return None
            data: object = exc.data
            supported = cast("dict[str, object]", data).get("supported") if isinstance(data, dict) else None
            if exc.code != UNSUPPORTED_VERSION:
                raise
            picked = choose(supported, modern)
            if picked is None:
                if choose(supported, legacy) is not None:
                    return None
                raise _nothing_common(supported, [*modern, *legacy]) from None
            version = picked
            continue
        except AuthenticationRequired:
            raise
        except HttpError as exc:
            if not 400 <= exc.status < 500 or exc.status in _NOT_LEGACY:
                raise
            return None
        except RequestTimeout:
            if link.transport.http:
                raise
            return None
        except ConnectionLost:
            # Some older servers end themselves over a request before `initialize`.
            if link.transport.http or not legacy:
                raise
            await link.transport.open()
            return None
        try:
            found = t.convert(raw, t.DiscoverResult)
        except msgspec.ValidationError as exc:
            if "supportedVersions" in raw:
                raise ProtocolViolation(f"server/discover: {said(exc)}") from None
            return None
        picked = choose(found.supported_versions, modern)
        if picked is None:
            if choose(found.supported_versions, legacy) is not None:
                return None
            raise _nothing_common(found.supported_versions, [*modern, *legacy])
        link.speak(_revision(picked))
        return Agreement(_revision(picked), found.capabilities, _info(found.meta), found.instructions)
    raise ProtocolViolation("The server refuses a version that it says it supports")


async def handshake(link: Link, legacy: Sequence[str], answers: Answers, timeouts: Timeouts) -> Agreement:
    """`initialize` and `notifications/initialized`.

    Raises:
        ConnectionFailed: the server chose a revision that is not allowed.
        NoHandshake: it takes no POST, and 2024-11-05 is allowed.
    """
    asked = legacy[0]
    link.speak(_revision(asked))
    params = {
        "protocolVersion": asked,
        "capabilities": answers.capabilities(asked, modern=False),
        "clientInfo": link.info,
    }
    call = link.call("initialize", params, timeout=timeouts.request)
    try:
        raw = await link.run(call)
    except HttpError as exc:
        if link.transport.http and exc.status in OLD_HTTP and revisions.VERSIONS[-1] in legacy:
            raise NoHandshake from exc
        raise
    except RemoteError as exc:
        raise ConnectionFailed(f"The server refused to initialize: {exc}") from exc
    try:
        result = t.convert(raw, t.InitializeResult)
    except msgspec.ValidationError as exc:
        raise ProtocolViolation(f"initialize: {said(exc)}") from None
    if result.protocol_version not in legacy:
        raise _nothing_common([result.protocol_version], legacy)
    link.transport.greeted(call)
    revision = _revision(result.protocol_version)
    link.speak(revision)
    await link.notify("notifications/initialized")
    listening = link.transport.listen()
    if listening is not None:
        await listening
    return Agreement(revision, result.capabilities, result.server_info, result.instructions)


def _address(link: Link) -> str | None:
    """What a server is known by from one connection to the next; None where that is not for long."""
    if not link.transport.http:
        return None
    from .http import StreamableHttp

    if not isinstance(link.transport, StreamableHttp) or link.transport.settings.pool.unix_socket is not None:
        return None
    endpoint = link.transport.settings.endpoint
    return endpoint.origin + endpoint.target


def _revision(version: str) -> Revision:
    revision = revisions.get(version)
    if revision is None:
        raise ConfigurationError(f"{version!r} is not a revision")
    return revision


def _info(meta: dict[str, object] | None) -> t.Implementation | None:
    try:
        return t.convert((meta or {}).get(SERVER_INFO), t.Implementation)
    except msgspec.ValidationError:
        return None


def _nothing_common(offered: object, versions: Sequence[str]) -> ConnectionFailed:
    names = [str(name)[:32] for name in cast("list[object]", offered)[:8]] if isinstance(offered, list) else []
    return ConnectionFailed(f"No common protocol version: the server offers {names}, this client {list(versions)}")
