"""From the target on the command line to a client of it.

https://...  or  wss://...     a URL; http and ws on loopback, or where a reason is given
unix:PATH                      a Unix socket, one message per line
file.py  or  file.py:name      started with this Python, by `garrison run`, over stdio
anything else                  a command line, split as a shell would split it, and run without one
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Final

from ..client import Client
from ..errors import ConfigurationError
from ..policy import SecurityPolicy
from .ask import Asker

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from ..policy.tls import TlsClientConfig
    from ..policy.transports import HttpTransportConfig
    from ..protocol.types import ElicitFormParams, ElicitUrlParams

    ElicitParams = ElicitFormParams | ElicitUrlParams

__all__ = ["Reached", "client_for"]

_KEPT: Final = 16 * 1024
_FOR_URLS: Final = ("token", "header", "ca", "cert", "key", "pin", "unix_socket", "allow_insecure_http")


class Reached:
    """A client that is not connected yet, and what its server says beside the protocol."""

    def __init__(self, options: Namespace) -> None:
        self._verbose: bool = options.verbose
        self._said = b""
        self.client = client_for(options, Asker(yes=getattr(options, "yes", False)), self._hear)

    @property
    def log(self) -> str:
        """The end of what a started server wrote on standard error, as far as it was not shown."""
        return self._said.decode("utf-8", "replace")

    def _hear(self, data: bytes) -> None:
        if self._verbose:
            sys.stderr.buffer.write(data)
            sys.stderr.buffer.flush()
        else:
            self._said = (self._said + data)[-_KEPT:]


def client_for(options: Namespace, ask: Asker, hear: Callable[[bytes], None]) -> Client:
    """The client that the options describe.

    Raises:
        ConfigurationError: the target or an option is not what it should be.
    """
    target: str = options.target
    network = target.startswith(("https://", "http://", "wss://", "ws://"))
    local = not network and not target.startswith("unix:")
    if not network:
        for name in _FOR_URLS:
            _refuse(getattr(options, name), f"--{name.replace('_', '-')} is for servers with a URL")
    if not local:
        _refuse(options.env, "--env is for servers that are started from a command line")
    if local:
        argv, env = _command(target)
        env.update(map(_variable, options.env))
        return Client(argv, env=env, era=options.era, timeout=options.timeout, on_elicit=ask, on_stderr=hear)
    if not network:
        return Client(target, era=options.era, timeout=options.timeout, on_elicit=ask)
    return Client(
        target if options.unix_socket is None else _by_socket(target, options.unix_socket),
        token=options.token or os.environ.get("GARRISON_TOKEN") or None,
        headers=dict(map(_header, options.header)) or None,
        tls=_tls(options),
        policy=_policy(options),
        era=options.era,
        timeout=options.timeout,
        on_elicit=ask,
    )


def _by_socket(url: str, path: str) -> HttpTransportConfig:
    from ..policy.transports import HttpTransportConfig

    if not url.startswith("http"):
        raise ConfigurationError("--unix-socket is for http and https URLs")
    return HttpTransportConfig(url, unix_socket=path)


def _tls(options: Namespace) -> TlsClientConfig | None:
    """Whom to believe and what to show; None for the platform's roots and nothing else."""
    if not (options.ca or options.cert or options.key or options.pin):
        return None
    from ..policy.tls import TlsClientConfig

    if (options.cert is None) != (options.key is None):
        raise ConfigurationError("--cert and --key belong together")
    return TlsClientConfig(ca=options.ca, certificate=options.cert, key=options.key, pins=tuple(options.pin))


def _policy(options: Namespace) -> SecurityPolicy | None:
    """The client's policy, where hosts may be talked to without TLS."""
    if not options.allow_insecure_http:
        return None
    reasons: dict[str, str] = {}
    for word in options.allow_insecure_http:
        host, equals, reason = word.partition("=")
        if not host or not equals or not reason.strip():
            raise ConfigurationError(f"--allow-insecure-http {word}: must be HOST=REASON")
        reasons[host] = reason
    return SecurityPolicy(allow_insecure_http_hosts=reasons)


def _refuse(given: object, reason: str) -> None:
    if given:
        raise ConfigurationError(reason)


def _command(target: str) -> tuple[list[str], dict[str, str]]:
    """The arguments that start a server, and the environment they need."""
    try:
        words = shlex.split(target)
    except ValueError as exc:
        raise ConfigurationError(f"{target}: {exc}") from None
    if not words:
        raise ConfigurationError("the target is empty: give a URL, a file.py or a command line")
    if len(words) == 1 and words[0].partition(".py:")[0].removesuffix(".py") != words[0]:
        # The folders that this program found its own packages in, if they were named to it.
        path = os.environ.get("PYTHONPATH")
        return [sys.executable, "-P", "-m", "garrison", "run", words[0]], {} if path is None else {"PYTHONPATH": path}
    return words, {}


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ConfigurationError(f"--header {text!r}: must be 'Name: value'")
    return name.strip(), value.strip()


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if equals:
        return name, value
    if name not in os.environ:
        raise ConfigurationError(f"--env {name}: it is not set here; give NAME=VALUE")
    return name, os.environ[name]
