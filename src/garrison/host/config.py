"""A host in a file: our own TOML, or the `mcpServers` JSON of desktop clients.

    config = read_config("host.toml", state=state)
    config.question                     # None: the file is believed; else what somebody is asked first
    Host(config.servers, state=state, **config.options())

Rules of this file:
- A file is read when it is named; none is looked for. It is read once: what was shown is what is used.
- Who believes it is in `config_trust`, how values are written in `config_values`, the JSON in `config_json`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from .. import events
from ..errors import ConfigurationError, InsecureConfigurationError
from ..policy.files import read_guarded
from .config_json import read_servers
from .config_trust import config_folder, is_json, lines_of, parsed, trust, untrusted
from .config_values import Where, as_table, check_keys, keys_of, made
from .references import reference_of, resolve
from .rules import ApprovalPolicy
from .servers import LocalServer, RemoteServer, ServerSettings, check_alias

if TYPE_CHECKING:
    from ..auth.store import CredentialStore
    from ..policy.secret import Secret
    from .questions import FileQuestion
    from .state import State

__all__ = ["HostConfig", "HostSettings", "config_folder", "lines_of", "read_config", "trust", "untrusted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """The table `[host]`: arguments of `Host` that a file can give. A None is the host's own default."""

    elicit: bool | None = None
    roots: Sequence[str] | None = None
    dangerously_allow_roots: str | None = None
    scan: str | None = None
    strict: bool | None = None
    patience: float | None = None
    fresh: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """What a configuration file says."""

    path: str
    """The file, links followed."""
    servers: Mapping[str, ServerSettings]
    """By alias."""
    approvals: ApprovalPolicy
    """The rules for calls."""
    settings: HostSettings
    """What else it says of the host."""
    notices: tuple[str, ...] = ()
    """For the person: what was left alone, renamed, or would better be a reference."""
    question: FileQuestion | None = None
    """What somebody is to be asked before it is used; None where it is believed."""
    trust: Callable[[], None] = field(repr=False, compare=False)
    """Keeps that somebody said yes, until the file changes. Raises `StateError`."""

    def options(self) -> dict[str, object]:
        """The arguments of `Host`, by name, that the file gives."""
        given = {each.name: cast("object", getattr(self.settings, each.name)) for each in fields(self.settings)}
        return {"policy": self.approvals} | {name: value for name, value in given.items() if value is not None}


def read_config(
    path: str | os.PathLike[str], *, state: State, trusted: bool = False, store: CredentialStore | None = None
) -> HostConfig:
    """The configuration in a file.

    Args:
        path: the file, which its group and others cannot write to. Relative paths in it begin at its folder.
        state: where it is kept which files were approved.
        trusted: believe it unasked.
        store: where `credential:` references lead; `open_store()` when None and there is one.

    Raises:
        ConfigurationError: it cannot be read, or a key or a value is none. The message names the file and the key.
        InsecureConfigurationError: others can change it, or read a file that it takes a secret from. The event is
            `config.untrusted`.
        StateError, StoreError: what is kept cannot be read.
    """
    name: str = os.path.realpath(path)
    try:
        data = read_guarded(name)
        question = None if trusted else untrusted(name, data, state)
        return _read(name, data, question, partial(trust, name, data, state), store)
    except InsecureConfigurationError as exc:
        events.record("config.untrusted", str(exc), setting="Host.from_file(path)")
        raise


def _read(
    name: str, data: bytes, question: FileQuestion | None, believe: Callable[[], None], store: CredentialStore | None
) -> HostConfig:
    folder = os.path.dirname(name)

    def lookup(value: object, at: str) -> Secret:
        return resolve(reference_of(value, at), at, folder=folder, store=store)

    whole = parsed(name, data)
    settings, approvals, notices = HostSettings(), ApprovalPolicy(), ()
    try:
        if is_json(name, data):
            if os.path.basename(folder).startswith("."):  # .vscode and the like are about the folder above
                folder = os.path.dirname(folder)
            tables, notices = read_servers(whole, name, folder=folder, lookup=lookup)
            servers = {alias: _server(table, Where(alias, folder, lookup)) for alias, table in tables.items()}
        else:
            check_keys(whole, ("servers", "host", "rules", "default"), "")
            servers: dict[str, ServerSettings] = {}
            for alias, table in as_table(whole.get("servers", {}), "servers").items():
                check_alias(alias)
                servers[alias] = _server(as_table(table, f"servers.{alias}"), Where(f"servers.{alias}", folder, lookup))
            settings = made(HostSettings, as_table(whole.get("host", {}), "host"), Where("host", folder, lookup))
            approvals = ApprovalPolicy.from_table({key: whole[key] for key in ("rules", "default") if key in whole})
    except ConfigurationError as exc:
        said = str(exc)
        raise type(exc)(said if said.startswith(name) else f"{name}: {said}") from None
    return HostConfig(
        path=name,
        servers=MappingProxyType(servers),
        approvals=approvals,
        settings=settings,
        notices=notices,
        question=question,
        trust=believe,
    )


def _server(table: dict[str, object], where: Where) -> ServerSettings:
    if ("command" in table) == ("url" in table):
        check_keys(table, keys_of(LocalServer) | keys_of(RemoteServer), f"{where.at}.")
        raise ConfigurationError(f"{where.at}: must have either command or url")
    return made(LocalServer if "command" in table else RemoteServer, table, where)
