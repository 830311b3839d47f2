"""What `garrison run` will serve, and how: from the command line, a configuration file and the server's own code.

Rules of this file:
- The command line comes before the file, and the file before the code. The file replaces the policy of the code as a
  whole; a word of the command line replaces one field.
- A setting that nothing of the plan has a use for is an error, from the command line or from the file. When the command
  line says where to listen, what the file says of other listeners does not count.
- Nothing is opened or started here but the files that are named: `garrison doctor` makes the same plan.
- Where a setting came from is kept beside it.
"""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from ..errors import ConfigurationError
from ..policy import Limits, SecurityPolicy, Timeouts
from ..policy.rates import Rate, Rates

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping

    from ..policy.tls import TlsServerConfig
    from ..policy.toml import ServeSettings, Settings
    from ..policy.transports import UnixSocketConfig, WebSocketConfig

__all__ = ["Network", "Plan", "leaves", "make_plan", "parse_address"]

_LISTENERS: Final = ("stdio", "http", "ws", "unix")
_TLS: Final = ("tls_cert", "tls_key", "tls_client_ca", "tls_minimum", "tls_reload")
_LISTS: Final = ("allowed_hosts", "allowed_origins", "trusted_proxies", "tolerate")
_AS_GIVEN: Final = (
    *("public_url", "hygiene", "redact_results"),
    *("dangerously_allow_unauthenticated", "dangerously_allow_unsafe_socket_path", "dangerously_skip_hygiene"),
)


_USES: Final[tuple[tuple[tuple[str, ...], str, Callable[[ServeSettings], bool]], ...]] = (
    (
        ("path", "token", "token_file", *_TLS, "workers"),
        "{0}http and {0}ws",
        lambda serve: bool(serve.http or serve.ws),
    ),
    (("ws_max_message_size", "ws_subprotocol", "ws_compression"), "{0}ws", lambda serve: bool(serve.ws)),
    (("unix_max_message_size",), "{0}unix", lambda serve: bool(serve.unix)),
    (
        ("socket_group", "socket_user"),
        "{0}unix PATH and {0}http unix:PATH",
        lambda serve: bool(serve.unix) or serve.http.startswith("unix:"),
    ),
)
"""Settings of a listener, what they are for (`{0}` stands before the name of a setting), and whether it is there."""


class Network(NamedTuple):
    """A listener of HTTP and WebSocket: what `run_http` takes."""

    host: str
    port: int
    token: str | None
    path: str
    tls: TlsServerConfig | None
    websocket: WebSocketConfig | None
    http: bool
    unix: UnixSocketConfig | None
    """HTTP over this Unix socket, in place of host and port."""
    workers: int = 1
    """Processes that serve together."""


class Plan(NamedTuple):
    """What is served; on stdio where there is neither `network` nor `unix`."""

    policy: SecurityPolicy
    sources: Mapping[str, str]
    """Setting, as `limits.connections` -> `default`, `code`, `file` or `command line`."""
    network: Network | None = None
    unix: UnixSocketConfig | None = None
    """The framing of stdio on this Unix socket."""
    token_from: str = ""
    """Where the token comes from; empty when it is made at the start, or not asked for."""
    replaced: tuple[str, ...] = ()
    """Settings of the code that the file replaced."""


def make_plan(options: Namespace, code: SecurityPolicy) -> Plan:
    """The plan of one command line.

    Args:
        options: those of `serve_options`.
        code: the policy that the server was made with.

    Raises:
        ConfigurationError: the words, or the file, are not settings, or do not go together.
        InsecureConfigurationError: a file that is named can be changed, or a secret one read, by others.
    """
    settings: Settings | None = None
    if options.config is not None:
        from ..policy.toml import read_toml

        settings = read_toml(options.config)
    base = code if settings is None else settings.policy
    policy, words = _with_words(base, options)
    before, now = leaves(base), leaves(policy)
    default, coded = leaves(SecurityPolicy()), leaves(code)
    sources: dict[str, str] = {}
    for name, value in now.items():
        if name in words or value != before[name]:
            sources[name] = "command line"
        elif settings is not None and name in settings.named:
            sources[name] = "file"
        elif value != default[name]:
            sources[name] = "code" if settings is None else "file"
        else:
            sources[name] = "default"
    plan = Plan(policy, sources)
    if settings is not None:
        plan = plan._replace(replaced=tuple(name for name in now if coded[name] not in (default[name], before[name])))
    return _listening(plan, options, settings)


def leaves(policy: SecurityPolicy) -> dict[str, object]:
    """Every setting of a policy by its name, as `allowed_hosts` and `limits.connections`; those without a dot first."""
    found: dict[str, object] = {}
    inner: dict[str, object] = {}
    for field in fields(policy):
        value: object = getattr(policy, field.name)
        if is_dataclass(value):
            inner |= {f"{field.name}.{part.name}": getattr(value, part.name) for part in fields(value)}
        else:
            found[field.name] = value
    return found | inner


def parse_address(text: str, option: str = "--http") -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[V6]:PORT` or `:PORT`.

    Raises:
        ConfigurationError: it is none of these.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigurationError(f"{option} {text}: must be HOST:PORT, for instance 127.0.0.1:8000")
    return host or "127.0.0.1", int(port)


# Policy


def _with_words(policy: SecurityPolicy, options: Namespace) -> tuple[SecurityPolicy, set[str]]:
    """The policy as the command line changes it, and the settings that it names."""
    words: set[str] = set()
    if options.profile is not None:
        policy = _with_profile(policy, options.profile)
        words.add("profile")
    changes: dict[str, object] = {}
    for name in _LISTS:
        if (given := getattr(options, name)) is not None:
            changes[name] = tuple(given)
    for name in _AS_GIVEN:
        if (given := getattr(options, name)) is not None:
            changes[name] = given
    if options.allow_insecure_http_hosts is not None:
        changes["allow_insecure_http_hosts"] = _pairs("--allow-insecure-http", options.allow_insecure_http_hosts)
    words |= changes.keys()
    rates = _rates(options.rates, policy.rates)
    words |= {f"rates.{name}" for name in rates}
    if rates:
        changes["rates"] = replace(policy.rates, **rates)
    limits = _numbers("--limit", options.limits, policy.limits, int)
    timeouts = _numbers("--timeout", options.timeouts, policy.timeouts, float)
    words |= {f"limits.{name}" for name in limits} | {f"timeouts.{name}" for name in timeouts}
    if limits:
        changes["limits"] = replace(policy.limits, **limits)
    if timeouts:
        changes["timeouts"] = replace(policy.timeouts, **timeouts)
    return (replace(policy, **changes) if changes else policy), words


def _with_profile(policy: SecurityPolicy, profile: str) -> SecurityPolicy:
    """The policy with another preset: what came from the old one goes, what the new one says comes."""
    from ..policy.toml import preset

    strict, old, new = SecurityPolicy(), preset(policy.profile), preset(profile)
    changes: dict[str, object] = {}
    for field in fields(policy):
        plain, was, to, now = (getattr(each, field.name) for each in (strict, old, new, policy))
        if now == was or to != plain:
            changes[field.name] = to
    return replace(policy, **changes)


def _pairs(option: str, words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals or not value.strip():
            raise ConfigurationError(f"{option} {word}: must be {_PAIRS[option]}")
        found[name] = value
    return found


_PAIRS: Final = {
    "--limit": "NAME=VALUE, for instance connections=1000",
    "--timeout": "NAME=SECONDS, for instance handler=30",
    "--rate": "NAME=RATE, for instance principal=120/minute,30",
    "--allow-insecure-http": "HOST=REASON",
}


def _numbers(
    option: str, words: list[str] | None, now: Limits | Timeouts, kind: Callable[[str], float]
) -> dict[str, float]:
    """`NAME=VALUE` words as changes of limits or time-outs."""
    if not words:
        return {}
    known = {field.name for field in fields(now)}
    found: dict[str, float] = {}
    for name, text in _pairs(option, words).items():
        if name not in known:
            from ..policy.toml import nearest

            raise ConfigurationError(f"{option} {name}: there is no such setting; {nearest(name, known)}")
        try:
            found[name] = kind(text)
        except ValueError:
            form = "a whole number" if kind is int else "a number of seconds"
            raise ConfigurationError(f"{option} {name}={text}: must be {form}") from None
    return found


def _rates(words: list[str] | None, now: Rates) -> dict[str, Any]:
    """`NAME=RATE` words as changes of rates. `Any` is for `replace`, which takes fields of several types."""
    found: dict[str, Any] = {}
    for name, text in _pairs("--rate", words or []).items():
        known = {field.name for field in fields(now)}
        if name not in known:
            from ..policy.toml import nearest

            raise ConfigurationError(f"--rate {name}: there is no such rate; {nearest(name, known)}")
        rate, comma, burst = text.partition(",")
        try:
            if name == "most_keys":
                found[name] = int(text)
            else:
                found[name] = Rate.of(rate, int(burst.removesuffix(" at once")) if comma else None)
        except ValueError:
            raise ConfigurationError(f"--rate {name}={text}: must be {_PAIRS['--rate']}") from None
    return found


# Listening


def _listening(plan: Plan, options: Namespace, settings: Settings | None) -> Plan:
    known = [name for names, _, _ in _USES for name in names]
    words = {name: word for name in known if (word := getattr(options, name, None)) is not None}
    chosen = [name for name in _LISTENERS if getattr(options, name)]
    if settings is None and not words and not chosen:
        return plan  # the usual case, which needs nothing else
    if options.stdio and len(chosen) > 1:
        raise ConfigurationError(f"--stdio: not allowed with --{chosen[1]}")
    from ..policy.toml import ServeSettings

    serve = ServeSettings() if settings is None else settings.serve
    if chosen:  # they choose where to listen, whatever the file says of it
        serve = replace(serve, http=options.http or "", ws=options.ws or False, unix=options.unix or "")
    serve = replace(serve, **{name: word for name, word in words.items() if name != "token"})
    if serve.unix and (serve.http or serve.ws):
        raise ConfigurationError("--unix: not allowed with --http or --ws: it is a listener of its own")
    _check_used(serve, words, None if chosen else settings)
    if serve.unix:
        return plan._replace(unix=replace(_socket(serve.unix, serve), max_message_size=serve.unix_max_message_size))
    if not serve.http and not serve.ws:
        return plan
    token, token_from = _token(options, serve)
    return plan._replace(network=_network(serve, token), token_from=token_from)


def _check_used(serve: ServeSettings, words: Mapping[str, object], file: Settings | None) -> None:
    """Refuse a setting of the command line, or of the file where one is given, that nothing has a use for."""
    for names, use, there in _USES:
        for name in names if not there(serve) else ():
            if name in words:
                raise ConfigurationError(f"--{name.replace('_', '-')} is for {use.format('--')}")
            if file is not None and f"serve.{name}" in file.named:
                raise ConfigurationError(f"{file.path}: serve.{name} is for {use.format('serve.')}")


def _network(serve: ServeSettings, token: str | None) -> Network:
    path = serve.path
    if not path.startswith("/") or any(c <= " " or c > "~" or c in "?#" for c in path):
        raise ConfigurationError(f"--path {path}: must start with / and have no spaces, ? or #")
    address, option = serve.http, "--http"
    if serve.http and isinstance(serve.ws, str):
        raise ConfigurationError(
            f"--ws {serve.ws}: with --http, WebSocket is served on the same listener and path: give --ws no address"
        )
    if not address:
        address, option = serve.ws if isinstance(serve.ws, str) else "127.0.0.1:8000", "--ws"
    unix: UnixSocketConfig | None = None
    if address.startswith("unix:"):
        unix, address = _socket(address.removeprefix("unix:"), serve), "127.0.0.1:0"
    host, port = parse_address(address, option)
    websocket: WebSocketConfig | None = None
    if serve.ws:
        from ..policy.transports import WebSocketConfig

        websocket = WebSocketConfig(
            max_message_size=serve.ws_max_message_size,
            subprotocol=serve.ws_subprotocol,
            compression=serve.ws_compression,
        )
    return Network(host, port, token, path, _tls(serve), websocket, bool(serve.http), unix, serve.workers)


def _socket(path: str, serve: ServeSettings) -> UnixSocketConfig:
    from ..policy.transports import UnixSocketConfig

    if serve.socket_user and not serve.socket_group:
        raise ConfigurationError("--socket-user needs --socket-group: a group that this user is in may open the socket")
    group = serve.socket_group
    return UnixSocketConfig(
        # Nothing, and the `@` of a socket without a file, is left for others to refuse.
        path if path[:1] in ("", "@") else os.path.abspath(path),
        mode=0o660 if group else 0o600,
        group=(int(group) if group.isdecimal() else group) if group else None,
        allowed_uids=(_uid(serve.socket_user),) if serve.socket_user else (),
    )


def _uid(user: str) -> int:
    if user.isdecimal():
        return int(user)
    import pwd

    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ConfigurationError(f"--socket-user {user}: no such user") from None


def _tls(serve: ServeSettings) -> TlsServerConfig | None:
    if not (serve.tls_cert and serve.tls_key):
        default = type(serve)()
        for name in _TLS:
            if getattr(serve, name) != getattr(default, name):
                raise ConfigurationError(
                    f"{name} is set, and TLS needs both a certificate and its key: --tls-cert and --tls-key"
                )
        return None
    from ..policy.tls import TlsServerConfig

    return TlsServerConfig(
        certificate=serve.tls_cert,
        key=serve.tls_key,
        client_ca=serve.tls_client_ca or None,
        minimum=cast('Literal["1.2", "1.3"]', serve.tls_minimum),  # checked there
        reload=serve.tls_reload,
    )


def _token(options: Namespace, serve: ServeSettings) -> tuple[str | None, str]:
    """The token that was given and where, if one was."""
    if options.token is not None and options.token_file is not None:
        raise ConfigurationError("--token: not allowed with --token-file")
    if options.token is not None:
        return options.token, "--token"
    if serve.token_file:
        from ..policy.files import read_guarded

        token = read_guarded(serve.token_file, secret=True).decode("utf-8", "replace").strip()
        if not token:
            raise ConfigurationError(f"{serve.token_file}: there is no token in it")
        return token, serve.token_file
    return None, "GARRISON_TOKEN" if os.environ.get("GARRISON_TOKEN") else ""
