"""From what a user names as the server to the transport that reaches it.

    "https://..."  "http://..."    HttpTransportConfig    Streamable HTTP
    "wss://..."    "ws://..."      WebSocketConfig        WebSocket
    "unix:/path/of.sock"           UnixSocketConfig       a Unix socket, one message per line
    [program, argument, ...]       Launch                 a program that is started, over its standard streams
    a server object                                       a server in this process
    a client transport                                    that transport

Rules of this file:
- A text is short for its configuration object. What the object does not say, the client's arguments say; what both say
  is an error, and so is an argument that has no meaning for this kind of server.
- Only the transport that is needed is loaded: a client of a local process loads no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

from ..errors import ConfigurationError
from .launching import Launch
from .transport import MemoryTransport, StdioTransport

if TYPE_CHECKING:
    import os
    import ssl
    from typing import TypeAlias, TypeGuard

    from ..auth.client.session import Authorizer
    from ..policy import SecurityPolicy
    from ..policy.tls import TlsClientConfig
    from ..policy.transports import HttpTransportConfig, UnixSocketConfig, WebSocketConfig
    from ..safe.sandbox import Sandbox
    from .http import Challenge
    from .launching import SandboxMode
    from .transport import ClientTransport, MemoryChannel

    Config = HttpTransportConfig | WebSocketConfig | UnixSocketConfig
    Target: TypeAlias = "str | Config | Sequence[str] | Launch | InMemoryServer | ClientTransport"

__all__ = ["InMemoryServer", "Reach", "authorizer_for", "settle", "transport_for"]

T = TypeVar("T")

_URL: Final = "servers with a URL"
_HTTP: Final = "servers with an https URL"
_LOCAL: Final = "servers that are started"
_LIST: Final = "servers that are started from a list of arguments"
_OPTIONS: Final = {
    "token": _URL,
    "headers": _URL,
    "tls": _URL,
    "proxy": _HTTP,
    "challenge": _HTTP,
    "env": _LIST,
    "cwd": _LIST,
    "sandbox": _LIST,
    "on_stderr": _LOCAL,
}
"""The arguments of `Client` that are not for every server, and which they are for."""


class InMemoryServer(Protocol):
    """A server object in this process."""

    async def connect_memory(self) -> MemoryChannel:
        """A new channel to it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How to reach a server. The fields are those of `Client`."""

    policy: SecurityPolicy
    token: str | None = field(repr=False)
    headers: Mapping[str, str] | None = field(repr=False)
    proxy: str | None
    tls: ssl.SSLContext | TlsClientConfig | None
    challenge: Challenge | None
    env: Mapping[str, str] | None = field(repr=False)
    cwd: str | os.PathLike[str] | None
    sandbox: Sandbox | SandboxMode | None = None
    on_stderr: Callable[[bytes], None] | None
    auth: Authorizer | None = None
    """Of `authorizer_for`."""


def settle(target: Target, policy: SecurityPolicy) -> tuple[Target, SecurityPolicy]:
    """The target with its configuration in place of a text, and the policy with the message size of that configuration.

    Raises:
        ConfigurationError: the text is no address.
    """
    if isinstance(target, str):
        target = _named(target)
    elif isinstance(target, Sequence) or hasattr(target, "connect_memory") or hasattr(target, "attach"):
        return target, policy
    if _is_config(target):
        from ..policy.transports import limits_for

        policy = replace(policy, limits=limits_for(policy.limits, target))
    return target, policy


def authorizer_for(
    target: Target,
    auth: object,
    *,
    token: str | None,
    challenge: Challenge | None,
    tls: ssl.SSLContext | TlsClientConfig | None,
) -> Authorizer | None:
    """What gets the tokens for a target that was settled; None without `auth`.

    Args:
        target, auth, token, challenge, tls: as of `Client`. Where `auth` does not say whom to believe, the authorities
            of `tls` are believed of the authorization server, too; its certificate and pins are not for that one.

    Raises:
        ConfigurationError: the target has no URL, or there is another way to a token beside this one.
    """
    if auth is None:
        return None
    from ..auth.client.session import Authorizer
    from ..auth.client.settings import AuthSettings
    from ..policy.tls import TlsClientConfig
    from ..policy.transports import HttpTransportConfig, WebSocketConfig
    from ..transports.http.url import HTTP, WEBSOCKET, UrlError, parse_endpoint

    if not isinstance(auth, AuthSettings):
        raise ConfigurationError("auth= is an OAuth, ClientCredentials, WorkloadIdentity or EnterpriseAuthorization")
    if not isinstance(target, (HttpTransportConfig, WebSocketConfig)):
        raise ConfigurationError(f"auth= is for {_URL}")
    if token is not None or target.token is not None or challenge is not None:
        raise ConfigurationError("auth= gets the tokens by itself: give neither token= nor challenge= beside it")
    if isinstance(target, HttpTransportConfig) and target.unix_socket is not None:
        raise ConfigurationError("auth= is for servers on a network, not for a Unix socket")
    believed = target.tls if tls is None else tls
    if auth.tls is None and isinstance(believed, TlsClientConfig) and believed.ca is not None:
        auth = replace(auth, tls=TlsClientConfig(ca=believed.ca, minimum=believed.minimum))
    try:
        endpoint = parse_endpoint(target.url, HTTP if isinstance(target, HttpTransportConfig) else WEBSOCKET)
    except UrlError as exc:
        raise ConfigurationError(f"the URL of the server: {exc}") from None
    scheme = "https" if endpoint.secure else "http"  # a handshake of WebSocket is a request of HTTP
    return Authorizer(f"{scheme}://{endpoint.authority}{endpoint.target}", auth)


def transport_for(target: Target, reach: Reach) -> ClientTransport:
    """A new transport to a target that was settled; a transport is returned as it is.

    Raises:
        ConfigurationError: the target is nothing that can be reached, or an option does not belong to it.
        ConnectionFailed: plain http or ws to a host that is neither loopback nor named by the policy.
    """
    if isinstance(target, Launch):
        _only(reach, _LOCAL)
        return _started(target, reach)
    if isinstance(target, Sequence):
        _only(reach, _LOCAL, _LIST)
        sandbox = "off" if reach.sandbox is None else reach.sandbox
        launch = Launch(cast("Sequence[str]", target), env=reach.env or {}, cwd=reach.cwd, sandbox=sandbox)
        return _started(launch, reach)
    if hasattr(target, "connect_memory"):
        _only(reach)
        return MemoryTransport(cast("InMemoryServer", target).connect_memory)
    if hasattr(target, "attach"):
        _only(reach)
        return cast("ClientTransport", target)
    if _is_config(target):
        return _network(target, reach)
    raise ConfigurationError(
        "the target is a URL, unix: and a path, a configuration object, a list of program and arguments, "
        "a server, or a client transport"
    )


def _started(launch: Launch, reach: Reach) -> ClientTransport:
    policy = reach.policy
    return StdioTransport(launch, limits=policy.limits, timeouts=policy.timeouts, on_stderr=reach.on_stderr)


def _named(text: str) -> Config:
    from ..policy.transports import HttpTransportConfig, UnixSocketConfig, WebSocketConfig
    from ..transports.http.url import UrlError, parse_unix

    scheme = text.partition(":")[0].lower()
    if scheme in ("wss", "ws"):
        return WebSocketConfig(text)
    if scheme != "unix":
        return HttpTransportConfig(text)
    try:
        return UnixSocketConfig(parse_unix(text))
    except UrlError as exc:
        raise ConfigurationError(f"the address of the server: {exc}") from None


def _is_config(target: object) -> TypeGuard[Config]:
    from ..policy.transports import HttpTransportConfig, UnixSocketConfig, WebSocketConfig

    return isinstance(target, (HttpTransportConfig, WebSocketConfig, UnixSocketConfig))


def _network(config: Config, reach: Reach) -> ClientTransport:
    from ..policy.transports import HttpTransportConfig, UnixSocketConfig

    limits, timeouts, insecure = (
        reach.policy.limits,
        reach.policy.timeouts,
        reach.policy.allow_insecure_http_hosts,
    )
    if isinstance(config, UnixSocketConfig):
        _only(reach)
        from .unix import UnixTransport

        return UnixTransport(config, limits=limits, timeouts=timeouts)
    token = _either("token", reach.token, config.token, config)
    headers = _either("headers", reach.headers, config.headers, config)
    tls = _either("tls", reach.tls, config.tls, config)
    if isinstance(config, HttpTransportConfig):
        _only(reach, _URL, _HTTP)
        from .http import HttpSettings, StreamableHttp

        return StreamableHttp(
            HttpSettings(
                config.url,
                limits=limits,
                timeouts=timeouts,
                token=token,
                headers=headers,
                proxy=_either("proxy", reach.proxy, config.proxy, config),
                tls=tls,
                challenge=reach.challenge,
                auth=reach.auth,
                insecure_hosts=insecure,
                unix_socket=cast("UnixSocketConfig | None", config.unix_socket),  # what its own constructor made of it
            )
        )
    _only(reach, _URL)
    from .websocket import WebSocketTransport

    return WebSocketTransport(
        replace(config, token=token, headers=headers),
        limits=limits,
        timeouts=timeouts,
        tls=tls,
        auth=reach.auth,
        insecure_hosts=insecure,
    )


def _only(reach: Reach, *kinds: str) -> None:
    """Refuses the options that are for other kinds of servers."""
    for name, kind in _OPTIONS.items():
        if kind not in kinds and getattr(reach, name) is not None:
            raise ConfigurationError(f"{name}= is for {kind}")


def _either(name: str, option: T | None, configured: T | None, config: Config) -> T | None:
    if option is not None and configured is not None:
        raise ConfigurationError(f"{name}= is given twice: to the client, and as {type(config).__name__}.{name}")
    return configured if option is None else option
