"""A live host for a case: made in code, or read from a file that says the same.

    async with hosting({"x": LocalServer(...)}, patience=1.0) as (host, person):
        ...

A case that looks at a host through `hosting` shows its setting twice: as it is, and within `from_file` as the key of
that name in a TOML file. What a file cannot say (an approver, a sink) is given in code then too.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import date
from pathlib import Path
from typing import Any

from garrison import Host, Server
from garrison.auth.client.settings import ClientCredentials, OAuth
from garrison.host import ApprovalPolicy, LocalServer, MemoryState, OtherServer, RemoteServer, Rule
from garrison.host.config import HostSettings
from garrison.host.config_values import keys_of
from garrison.policy.secret import Secret
from garrison.policy.tls import TlsClientConfig
from tests.support.hosted import Approver
from tests.support.raw_http import TOKEN, serving

from .case import names_of
from .scene import folder

__all__ = ["FILE_KEYS", "from_file", "hosting", "remote", "toml_value"]

OF_HOST = {each.name for each in dataclasses.fields(HostSettings)}
FILE_KEYS: Mapping[object, set[str]] = {
    Host: OF_HOST,
    LocalServer: keys_of(LocalServer),
    RemoteServer: keys_of(RemoteServer),
    ApprovalPolicy: set(names_of(ApprovalPolicy)),
    Rule: set(names_of(Rule)),
}
"""What can be said in a file, by whose setting it is."""

_TYPES = {OAuth: "oauth", ClientCredentials: "client-credentials"}
_texts: ContextVar[list[str] | None] = ContextVar("texts", default=None)


@contextmanager
def from_file() -> Iterator[list[str]]:
    """Hosts within this are read from files; gives their texts."""
    texts: list[str] = []
    before = _texts.set(texts)
    try:
        yield texts
    finally:
        _texts.reset(before)


@asynccontextmanager
async def hosting(
    servers: Mapping[str, object], *, approve: Any = "yes", **options: Any
) -> AsyncIterator[tuple[Host, Any]]:
    """A host that has started, and who is asked: somebody who says yes to everything, unless another is given."""
    person: Any = Approver() if approve == "yes" else approve
    options.setdefault("state", MemoryState())
    texts = _texts.get()
    if texts is None or any(isinstance(each, OtherServer) for each in servers.values()):
        async with Host(servers, approve=person, **options) as host:
            yield host, person
        return
    with folder() as place:
        path = place / "host.toml"
        texts.append(_written(servers, options, place))
        path.write_text(texts[-1])
        path.chmod(0o600)
        rest = {name: value for name, value in options.items() if name not in OF_HOST and name != "policy"}
        async with Host.from_file(path, approve=person, trusted=True, **rest) as host:
            yield host, person


@asynccontextmanager
async def remote(server: Server, **settings: Any) -> AsyncIterator[RemoteServer]:
    """The settings by which a host reaches this server, which is served over HTTP."""
    async with serving(server) as running:
        yield RemoteServer(running.url, **{"token": Secret(TOKEN), **settings})


def _written(servers: Mapping[str, Any], options: Mapping[str, Any], place: Path) -> str:
    policy: ApprovalPolicy = options.get("policy") or ApprovalPolicy()
    lines = [f"default = {toml_value(policy.default, place)}"] if policy.default != "ask" else []
    for rule in policy.rules:
        lines += ["[[rules]]", *_fields(rule, place)]
    for alias, server in servers.items():
        lines += [f"[servers.{alias}]", *_fields(server, place)]
    given = {name: value for name, value in options.items() if name in OF_HOST and value is not None}
    lines += ["[host]", *(f"{name} = {toml_value(value, place)}" for name, value in given.items())]
    return "\n".join(lines) + "\n"


def _fields(value: Any, place: Path) -> list[str]:
    """The fields of an object that are not as they are by default, as lines; `policy` is for code alone."""
    return [
        f"{each.name} = {toml_value(found, place)}"
        for each in dataclasses.fields(value)
        if each.init and each.name != "policy"
        for found in [getattr(value, each.name)]
        if each.default is dataclasses.MISSING or found != each.default
        if each.default_factory is dataclasses.MISSING or found != each.default_factory()
    ]


def toml_value(value: Any, place: Path) -> str:
    """A value as a file has it; a secret is a reference to a file beside it."""
    if isinstance(value, Secret):
        path = place / f"secret-{len(os.listdir(place))}"
        path.write_text(value.reveal())
        path.chmod(0o600)
        return f"{{ from = {json.dumps(f'file:{path}')} }}"
    if isinstance(value, (OAuth, ClientCredentials, TlsClientConfig)):
        kind = [f'type = "{_TYPES[type(value)]}"'] if type(value) in _TYPES else []
        return f"{{ {', '.join([*kind, *_fields(value, place)])} }}"
    if isinstance(value, Mapping):
        inside = [f"{json.dumps(name)} = {toml_value(each, place)}" for name, each in value.items()]
        return f"{{ {', '.join(inside)} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml_value(each, place) for each in value)}]"
    if isinstance(value, (Path, date)):
        return json.dumps(str(value))
    return "false" if value is None else json.dumps(value)
