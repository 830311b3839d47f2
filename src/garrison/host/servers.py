"""What a host is told of its servers: `LocalServer` and `RemoteServer`.

    Host({
        "files": LocalServer(["node", "server.js", "/data"], read=["/data"], labels=["private"]),
        "web": RemoteServer("https://example.com/mcp", token=token, labels=["untrusted", "outward"]),
        "mine": server,                              # a `Server` of this process, or any other target of `Client`
    })

Rules of this file:
- These are values. What they mean is carried out elsewhere: nothing is looked up, started or read here.
- The alias is chosen here and by nobody else; what a server calls itself never counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, cast

from ..errors import ConfigurationError
from .labels import EVERYTHING, Label, labels_of

if TYPE_CHECKING:
    import os

    from ..auth.client.settings import AuthSettings
    from ..client.targets import Target
    from ..policy import SecurityPolicy
    from ..policy.secret import Secret
    from ..policy.tls import TlsClientConfig

    Path = str | os.PathLike[str]

__all__ = ["LocalServer", "OtherServer", "RemoteServer", "ServerSettings", "check_alias", "settings_of"]

SandboxMode = Literal["auto", "landlock", "bubblewrap", "off"]

_ALIAS: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


def _no_tools() -> Mapping[str, Sequence[str]]:
    return MappingProxyType({})


def check_alias(alias: str) -> None:
    """Refuse what is no alias: a small letter, then up to 31 of small letters, digits, `_` and `-`.

    Raises:
        ConfigurationError: it is none.
    """
    if type(alias) is not str or _ALIAS.fullmatch(alias) is None:
        raise ConfigurationError(
            f"{alias!r} is no alias of a server: a small letter, then small letters, digits, _ and -, 32 in all"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What is said of every kind of server.

    Raises:
        ConfigurationError: a label is none, or a value is not of its form.
    """

    labels: Sequence[str] | None = None
    """What its tools do: of `private`, `untrusted`, `outward`, `destructive`. None: all of that; []: nothing of it."""
    tools: Mapping[str, Sequence[str]] = field(default_factory=_no_tools)
    """The same for single tools, by the server's own name of the tool."""
    timeout: float | None = None
    """Seconds of one request; `Timeouts.request` of the host's policy when None."""
    policy: SecurityPolicy | None = None
    """Limits and time-outs of this server; the host's when None."""
    use_instructions: bool = False
    """Whether its `instructions`, once approved, are among what the model is given."""

    def __post_init__(self) -> None:
        if self.labels is not None:
            labels_of(self.labels)
        for names in self.tools.values():
            labels_of(names)
        _check_flag("use_instructions", self.use_instructions)

    def labels_for(self, tool: str) -> Label:
        """The labels of one tool: its own, else the server's, else all."""
        if tool in self.tools:
            return labels_of(self.tools[tool])
        return EVERYTHING if self.labels is None else labels_of(self.labels)


@dataclass(frozen=True, slots=True)
class LocalServer(ServerSettings):
    """A program that the host starts and speaks to over its standard streams.

    Args:
        command: the program and its arguments; never a command line. A name without a folder is looked for on the
            host's own PATH before anybody is asked.
        env: environment variables beside the few that a program needs. A `Secret` is shown to nobody.
        cwd: its folder; a new, empty one of its own when None.
        sandbox: `auto` confines it where the platform can, and says so where it cannot; `landlock` and `bubblewrap`
            are an error where they are not to be had; `off` starts it with all that this user may do.
        read, write, execute: files and folders beside the system's that it may read; read and change; read and start.
        network: whether it may make sockets.
        memory: bytes of memory that it may have (data, not address space); None is no limit.
        processes: how many processes it may be, children and theirs.
        open_files: descriptors of each of its processes.
        dangerously_allow_env: by name, why `env` may hold a variable that loads code into the program (`NODE_OPTIONS`).
        dangerously_allow_unpinned: why a package runner may fetch what has no fixed version, or a name that looks like
            another package's.
    """

    command: Sequence[str]
    env: Mapping[str, str | Secret] = field(default_factory=_nothing, repr=False, kw_only=True)
    cwd: Path | None = field(default=None, kw_only=True)
    sandbox: SandboxMode = field(default="auto", kw_only=True)
    read: Sequence[Path] = field(default=(), kw_only=True)
    write: Sequence[Path] = field(default=(), kw_only=True)
    execute: Sequence[Path] = field(default=(), kw_only=True)
    network: bool = field(default=False, kw_only=True)
    memory: int | None = field(default=2 * 1024**3, kw_only=True)
    processes: int | None = field(default=128, kw_only=True)
    open_files: int | None = field(default=256, kw_only=True)
    dangerously_allow_env: Mapping[str, str] = field(default_factory=_nothing, kw_only=True)
    dangerously_allow_unpinned: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        ServerSettings.__post_init__(self)
        if isinstance(self.command, str) or not self.command:
            raise ConfigurationError("LocalServer.command is a list: the program and its arguments")
        if self.sandbox not in ("auto", "landlock", "bubblewrap", "off"):
            raise ConfigurationError('LocalServer.sandbox is "auto", "landlock", "bubblewrap" or "off"')
        _check_flag("network", self.network)


@dataclass(frozen=True, slots=True)
class RemoteServer(ServerSettings):
    """A server with a URL (https, wss; http and ws on loopback), or `unix:` and the path of a socket.

    Args:
        url: its address.
        token: a bearer token, sent to the origin of the URL only.
        headers: further HTTP headers; a `Secret` is shown to nobody.
        auth: how to get tokens, in place of `token`.
        tls: authorities, pins and a certificate of one's own.
    """

    url: str
    token: Secret | None = field(default=None, repr=False, kw_only=True)
    headers: Mapping[str, str | Secret] = field(default_factory=_nothing, repr=False, kw_only=True)
    auth: AuthSettings | None = field(default=None, repr=False, kw_only=True)
    tls: TlsClientConfig | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class OtherServer(ServerSettings):
    """Any other target of `Client`: a server of this process, a transport.

    Args:
        target: as of `Client`.
        identity: what its approvals are kept under; the alias when empty.
    """

    target: Target
    identity: str = field(default="", kw_only=True)


def _check_flag(name: str, value: object) -> None:
    """Refuse what is taken for true and is not: `"off"`."""
    if type(value) is not bool:
        raise ConfigurationError(f"{name}= is True or False")


def settings_of(value: object) -> ServerSettings:
    """The settings that a plain target is short for: a list of texts, a URL, anything else that `Client` takes."""
    if isinstance(value, ServerSettings):
        return value
    if isinstance(value, str):
        return RemoteServer(value)
    if isinstance(value, Sequence):
        return LocalServer(cast("Sequence[str]", value))
    return OtherServer(cast("Target", value))
