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
from .style import safe

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from ..auth.client.settings import AuthSettings
    from ..policy.tls import TlsClientConfig
    from ..policy.transports import HttpTransportConfig
    from ..protocol.types import ElicitFormParams, ElicitUrlParams

    ElicitParams = ElicitFormParams | ElicitUrlParams

__all__ = ["Reached", "client_for", "sign_in_for"]

_KEPT: Final = 16 * 1024
_FOR_URLS: Final = (
    "token",
    "header",
    "ca",
    "cert",
    "key",
    "pin",
    "unix_socket",
    "allow_insecure_http",
    "account",
    "store",
)


class Reached:
    """A client that is not connected yet, and what its server says beside the protocol."""

    def __init__(self, options: Namespace, auth: AuthSettings | None = None) -> None:
        self._verbose: bool = options.verbose
        self._said = b""
        self.client = client_for(options, Asker(yes=getattr(options, "yes", False)), self._hear, auth)

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


def sign_in_for(options: Namespace) -> AuthSettings | None:
    """How a client uses the sign-in that is kept for the target; None where there is none, or another credential was
    given.

    Raises:
        AuthorizationFailed: the credential store cannot be used.
        ConfigurationError: what the environment says of it is wrong.
    """
    named = (header.partition(":")[0].strip().lower() for header in options.header)
    if _token(options) is not None or options.unix_socket is not None or "authorization" in named:
        return None
    from ..auth.store import StoreError
    from ..errors import AuthorizationFailed
    from .failures import quiet
    from .signins import find, used_again

    try:
        found = find(options.target, options.account, options.store)
        if found is None:
            return None
        quiet()
        # Whom to believe is what the client believes of the server, as it does without this.
        return used_again(found, options.target, notice=lambda text: print(safe(text), file=sys.stderr))
    except StoreError as exc:
        raise AuthorizationFailed(f"the credential store: {exc}") from exc


def _token(options: Namespace) -> str | None:
    return options.token or os.environ.get("GARRISON_TOKEN") or None


def client_for(
    options: Namespace, ask: Asker, hear: Callable[[bytes], None], auth: AuthSettings | None = None
) -> Client:
    """The client that the options describe.

    Args:
        options: those of the command.
        ask: answers the server's questions.
        hear: gets what a started server writes on standard error.
        auth: of `sign_in_for`, once the server has asked.

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
        token=_token(options),
        headers=dict(map(_header, options.header)) or None,
        tls=_tls(options),
        policy=_policy(options),
        era=options.era,
        timeout=options.timeout,
        on_elicit=ask,
        auth=auth,
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
