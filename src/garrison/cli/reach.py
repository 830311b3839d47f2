"""From the target on the command line to a client of it.

https://...  or  http://...    a URL
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
from .ask import Asker

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from ..protocol.types import ElicitFormParams, ElicitUrlParams

    ElicitParams = ElicitFormParams | ElicitUrlParams

__all__ = ["Reached", "client_for"]

_KEPT: Final = 16 * 1024


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
    if target.startswith(("http://", "https://")):
        _refuse(options.env, "--env is for servers that are started from a command line")
        return Client(
            target,
            token=options.token or os.environ.get("GARRISON_TOKEN") or None,
            headers=dict(map(_header, options.header)) or None,
            era=options.era,
            timeout=options.timeout,
            on_elicit=ask,
        )
    _refuse(options.token, "--token is for servers with a URL")
    _refuse(options.header, "--header is for servers with a URL")
    argv, env = _command(target)
    env.update(map(_variable, options.env))
    return Client(argv, env=env, era=options.era, timeout=options.timeout, on_elicit=ask, on_stderr=hear)


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
