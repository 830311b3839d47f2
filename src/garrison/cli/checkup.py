"""What `garrison doctor` finds out: a report of plain values, printed as tables or as JSON.

Rules of this file:
- The names of these classes' fields, and the values of `source`, `compared`, `level` and `kind`, are an interface:
  they do not change.
- No secret comes in here: of a token it is said where it comes from, of an environment variable its name.
- A setting is looser than its default when it lets more pass, waits longer, or believes more.
"""

from __future__ import annotations

import os
import platform
import re
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, cast

from ..errors import ConfigurationError
from ..policy import SecurityPolicy
from ..policy.rates import Rate
from .plan import leaves

if TYPE_CHECKING:
    from datetime import datetime

    from ..policy.tls import TlsServerConfig
    from ..policy.transports import UnixSocketConfig, WebSocketConfig
    from ..server import Server
    from .plan import Network, Plan
    from .protection import Protection

__all__ = [
    "Finding",
    "Listener",
    "Report",
    "Setting",
    "Tls",
    "WebSocket",
    "examined",
    "kept_by",
    "findings",
    "listener",
    "settings",
    "versions",
]

Compared = Literal["same", "tighter", "looser", "different"]

_LARGER_IS_TIGHTER: Final = frozenset({"limits.body_rate"})
_NEITHER: Final = frozenset({"public_url", "hygiene", "timeouts.keep_alive", "timeouts.shutdown", "rates.most_keys"})
_TRUE_IS_TIGHTER: Final = frozenset({"redact_results"})
_FAR: Final = 8
"""A limit this many times its default is worth a warning."""
_MANY: Final = 10
"""Names that one finding lists."""
_SOON: Final = 30
"""Days before its end in which a certificate is worth a warning."""
_TRUST: Final = frozenset({"SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"})
_OPENSSL: Final = frozenset({"OPENSSL_CONF", "OPENSSL_MODULES"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of the policy."""

    setting: str
    value: object
    default: object
    source: str
    """`default`, `code`, `file` or `command line`."""
    compared: Compared


@dataclass(frozen=True, slots=True)
class Tls:
    """How a listener speaks TLS."""

    versions: tuple[str, ...]
    certificate: str
    expires: str | None
    """When the certificate ends, as ISO 8601; None where it cannot be read."""
    client_ca: str | None
    reload: float
    """Seconds between looks at the files."""


@dataclass(frozen=True, slots=True)
class WebSocket:
    """How a listener speaks WebSocket."""

    max_message_size: int
    """Bytes."""
    subprotocol: str
    compression: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where the server would listen, and who is let in."""

    transports: tuple[str, ...]
    address: str | None = None
    path: str | None = None
    max_message_size: int
    """Bytes; those of a WebSocket message are in `websocket`."""
    websocket: WebSocket | None = None
    tls: Tls | None = None
    client_certificates: bool = False
    authentication: str
    """Whether a token is asked for and where it comes from, or why not."""
    public_url: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the person who runs the server should know."""

    level: Literal["warning", "note"]
    kind: str
    text: str


@dataclass(slots=True)
class Report:
    """Everything."""

    starts: bool = False
    refusal: str | None = None
    """Why it would not start, in the words of `garrison run`."""
    server: dict[str, str] | None = None
    listener: Listener | None = None
    protection: Protection | None = None
    """What protects it, where something does and it is at work."""
    audit: str | None = None
    """What keeps a record of refusals and calls; None where nothing does."""
    policy: list[Setting] = field(default_factory=list[Setting])
    relaxations: dict[str, str] = field(default_factory=dict[str, str])
    findings: list[Finding] = field(default_factory=list[Finding])
    versions: dict[str, str] = field(default_factory=dict[str, str])


def versions() -> dict[str, str]:
    """What it would run on."""
    from .. import __version__

    return {
        "garrison": __version__,
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "platform": platform.platform(),
    }


def settings(plan: Plan) -> list[Setting]:
    """Every setting of the plan's policy."""
    defaults = leaves(SecurityPolicy())
    return [
        Setting(name, _plain(value), _plain(defaults[name]), plan.sources[name], compared(name, value, defaults[name]))
        for name, value in leaves(plan.policy).items()
    ]


def compared(name: str, value: object, default: object) -> Compared:
    """How a setting's value stands to its default."""
    if value == default:
        return "same"
    if name in _NEITHER:
        return "different"
    if name in _TRUE_IS_TIGHTER:
        return "tighter" if value else "looser"
    if isinstance(value, Rate | None):
        return _compared_rates(value, default if isinstance(default, Rate) else None)
    if isinstance(value, int | float) and isinstance(default, int | float):
        return "looser" if (value > default) != (name in _LARGER_IS_TIGHTER) else "tighter"
    return "looser"  # the defaults of all others are empty, or the strictest there is


def _compared_rates(value: Rate | None, default: Rate | None) -> Compared:
    if value is None or default is None:
        return "looser" if value is None else "tighter"
    more = (value.per_second - default.per_second, value.burst - default.burst)
    return "looser" if min(more) >= 0 else "tighter" if max(more) <= 0 else "different"


def kept_by(sink: object) -> str | None:
    """What keeps the audit, in words: its class, and its file where it has one."""
    if sink is None:
        return None
    path: object = getattr(sink, "path", None)
    return f"{type(sink).__name__}, {path}" if isinstance(path, str) else type(sink).__name__


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, str]", value))
    return re.sub("//[^/@]*@", "//***@", value) if isinstance(value, str) else value


def listener(server: Server, plan: Plan) -> Listener:
    """The facts of the plan's listener."""
    network = plan.network
    public = cast("str", _plain(plan.policy.public_url)) or None
    size = plan.policy.limits.message_bytes
    if plan.unix is not None:
        return Listener(
            transports=("unix",),
            address=f"unix:{plan.unix.path}",
            max_message_size=_size(plan, plan.unix),
            authentication="no token: the socket's mode and the peer's user id decide",
            public_url=public,
        )
    if network is None:
        return Listener(
            transports=("stdio",),
            max_message_size=size,
            authentication="no token: the client is whoever starts the program",
            public_url=public,
        )
    host = f"[{network.host}]" if ":" in network.host else network.host
    mutual = network.tls is not None and network.tls.client_ca is not None
    if server.auth is not None:
        from .protection import takes

        asked = takes(server.auth)
    elif plan.token_from:
        asked = f"a token, given by {plan.token_from}"
    elif mutual:
        asked = "no token: every client must show a certificate"
    elif plan.policy.dangerously_allow_unauthenticated:
        asked = "no token: dangerously_allow_unauthenticated"
    else:
        asked = "a token, made at the start"
    return Listener(
        transports=tuple(name for name, on in (("http", network.http), ("websocket", network.websocket)) if on),
        address=f"{host}:{network.port}" if network.unix is None else f"unix:{network.unix.path}",
        path=network.path,
        max_message_size=size,
        websocket=None if network.websocket is None else _websocket(plan, network.websocket),
        tls=None if network.tls is None else _tls(network.tls),
        client_certificates=mutual,
        authentication=asked,
        public_url=public,
    )


def _websocket(plan: Plan, config: WebSocketConfig) -> WebSocket:
    return WebSocket(_size(plan, config), config.subprotocol, config.compression)


def _size(plan: Plan, config: WebSocketConfig | UnixSocketConfig) -> int:
    from ..policy.transports import limits_for

    return limits_for(plan.policy.limits, config).message_bytes


def _tls(tls: TlsServerConfig) -> Tls:
    end = _end(tls)
    return Tls(
        versions=("1.3",) if tls.minimum == "1.3" else ("1.2", "1.3"),
        certificate=os.fspath(tls.certificate),
        expires=None if end is None else end.isoformat(),
        client_ca=None if tls.client_ca is None else os.fspath(tls.client_ca),
        reload=tls.reload,
    )


def _end(tls: TlsServerConfig) -> datetime | None:
    """When the certificate ends; None where it cannot be read, which is refused elsewhere."""
    from cryptography.x509 import load_pem_x509_certificate

    from ..policy.files import opened

    try:
        with opened(tls.certificate, "certificate", public=True) as descriptor:
            return load_pem_x509_certificate(os.read(descriptor, 1024 * 1024)).not_valid_after_utc
    except (ConfigurationError, OSError, ValueError):
        return None


def examined(server: Server, plan: Plan) -> str | None:
    """Why `garrison run` would not start with this plan, in its own words; None when it would."""
    network = plan.network
    try:
        if network is not None:
            from ..server.serve import HttpServing
            from ..server.workers import check_workers

            arguments = network._asdict()
            check_workers(server, arguments.pop("workers"))
            HttpServing(server, **arguments)
            if network.tls is not None:
                from ..transports.tls import server_context

                server_context(network.tls)
        socket = plan.unix if network is None else network.unix
        if socket is not None:
            from ..transports.unix import check_place

            check_place(socket, unsafe_reason=plan.policy.dangerously_allow_unsafe_socket_path)
    except ConfigurationError as exc:
        return str(exc)
    return None


def findings(server: Server, plan: Plan, *, token_shown: bool) -> list[Finding]:
    """What is doubtful, the worst first.

    Args:
        server, plan: what would be served.
        token_shown: the token stands on the command line.
    """
    found = [*_surroundings(), *_policy(plan)]
    if token_shown:
        text = "the token is on the command line, where other users see it: use --token-file or GARRISON_TOKEN"
        found.append(Finding("warning", "token_visible", text))
    if plan.network is not None:
        found += _network(server, plan, plan.network)
        found += _protection(server, plan.network)
    elif server.auth is not None:
        text = "Server(auth=...) is at work on HTTP and WebSocket: here nobody shows a token"
        found.append(Finding("note", "no_effect", text))
    if server.audit is None and (plan.network is not None or plan.unix is not None):
        text = "no record of calls is kept: --audit-log FILE, or Server(audit=...)"
        found.append(Finding("note", "audit", text))
    if plan.network is not None and plan.network.workers > 1 and not server.has_rate_store:
        text = f"each of {plan.network.workers} workers counts rates by itself: Server(rate_store=SharedRates(...))"
        found.append(Finding("note", "rates_apart", text))
    found += _tools(server)
    if server.legacy != "off":
        text = f'handshake revisions are served (legacy="{server.legacy}"): "off" where every client knows 2026-07-28'
        found.append(Finding("note", "legacy", text))
    return sorted(found, key=lambda each: each.level, reverse=True)


def _surroundings() -> list[Finding]:
    found: list[Finding] = []
    for name in sorted(os.environ):
        if name in _TRUST or name.upper().endswith("_PROXY"):
            text = f"{name} is set: Garrison ignores it; other libraries in this program may not"
            found.append(Finding("warning", "environment", text))
        elif name in _OPENSSL:
            text = f"{name} is set: OpenSSL itself obeys it, and can be made weaker by it"
            found.append(Finding("warning", "environment", text))
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        found.append(Finding("warning", "root", "this is root: run servers as a user of their own"))
    if ssl.OPENSSL_VERSION_INFO < (3, 0):
        found.append(Finding("warning", "openssl", f"{ssl.OPENSSL_VERSION} is no longer maintained: use 3.0 or newer"))
    if sys.flags.dev_mode:
        found.append(Finding("note", "dev_mode", "Python runs in its development mode"))
    return found


def _tools(server: Server) -> list[Finding]:
    """What tools were let off."""
    found: list[Finding] = []
    raw = [name for name, tool in server.registry.tools.items() if tool.policy.raw_text]
    if raw:
        text = f"control and invisible characters leave as they are (dangerously_raw_text) from {_some(raw)}"
        found.append(Finding("warning", "raw_text", text))
    unasked = [name for name, tool in server.registry.tools.items() if tool.policy.destructive and not tool.asks]
    if unasked:
        text = f"nobody is asked before something is destroyed (confirm=False) by {_some(unasked)}"
        found.append(Finding("note", "unconfirmed", text))
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MANY]) + (f" and {len(names) - _MANY} more" if len(names) > _MANY else "")


def _policy(plan: Plan) -> list[Finding]:
    found: list[Finding] = []
    defaults = leaves(SecurityPolicy())
    for name, value in (leaves(plan.policy) | _sizes(plan)).items():
        default = defaults.get(name, defaults["limits.message_bytes"])
        if isinstance(value, Rate) and isinstance(default, Rate):
            times = max(value.per_second / default.per_second, value.burst / default.burst)
        elif type(value) not in (int, float) or not isinstance(default, int | float) or name in _NEITHER:
            continue
        else:
            number = cast("float", value)
            times = default / number if name in _LARGER_IS_TIGHTER else number / default
        if times >= _FAR:
            found.append(Finding("warning", "limit", f"{name} is {times:,.0f} times as loose as its default"))
    if plan.replaced:
        text = f"the file replaces the policy of the code, which sets {', '.join(plan.replaced)}"
        found.append(Finding("warning", "code_replaced", text))
    return found


def _sizes(plan: Plan) -> dict[str, object]:
    """The sizes of messages that take the place of `limits.message_bytes`."""
    websocket = None if plan.network is None else plan.network.websocket
    sizes = {
        "serve.ws_max_message_size": None if websocket is None else websocket.max_message_size,
        "serve.unix_max_message_size": None if plan.unix is None else plan.unix.max_message_size,
    }
    return {name: size for name, size in sizes.items() if size is not None}


def _network(server: Server, plan: Plan, network: Network) -> list[Finding]:
    from datetime import UTC, datetime

    found: list[Finding] = []
    if network.websocket is not None and network.websocket.compression:
        text = "WebSocket messages are compressed (serve.ws_compression): their size tells about secrets in them"
        found.append(Finding("warning", "compression", text))
    if any((name == "unix") == (network.unix is not None) for name in plan.policy.trusted_proxies):
        text = (
            "trusted_proxies: the proxy must add each client's address to X-Forwarded-For and take Forwarded away; "
            "otherwise limits.message_rate counts its clients as one, or as whoever they say they are"
        )
        found.append(Finding("note", "trusted_proxy", text))
    protected = server.auth is not None
    asks = protected or bool(plan.token_from) or (network.tls is not None and network.tls.client_ca is not None)
    if plan.policy.dangerously_allow_unauthenticated and asks:
        text = (
            "dangerously_allow_unauthenticated has no effect while a token or a certificate is asked for: take it out, "
            "or the listener is open on the day when that is missing"
        )
        found.append(Finding("note", "no_effect", text))
    if server.http_sse:
        text = "the transport of 2024-11-05 is served (http_sse=True): leave it out when no client needs it"
        found.append(Finding("warning", "http_sse", text))
    if not server.has_state_key:
        text = "state_key is not set: give one where several processes serve the same clients"
        found.append(Finding("note", "state_key", text))
    end = None if network.tls is None else _end(network.tls)
    if end is not None and (days := (end - datetime.now(UTC)).days) < _SOON:
        found.append(Finding("warning", "certificate", f"the certificate ends in {days} days"))
    return found


def _protection(server: Server, network: Network) -> list[Finding]:
    from .protection import doubts, protection

    found = protection(server)
    if found is None:
        return []
    token = bool(os.environ.get("GARRISON_TOKEN"))
    return [Finding(*each) for each in doubts(found, network.path, token_in_environment=token)]
