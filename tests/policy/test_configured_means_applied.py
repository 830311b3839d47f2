"""Configured means applied: every setting of every configuration object, changed, is seen to do something.

The settings are found by themselves: the fields of all public frozen classes of `garrison.policy` and of a host, the
arguments of the functions that start something and of what tools call, and the options of a tool. One without a case
fails; see `applied/case.py` for how to write it. What a host's file can say is seen once more in
`test_host_files_applied.py`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import garrison.host
import garrison.policy
from garrison import Client, Server
from garrison.audit import AuditLog
from garrison.auth.resource import IntrospectionVerifier, JwtVerifier
from garrison.auth.resource.server import ResourceServer
from garrison.client.launching import Launch
from garrison.host import (
    Always,
    ApprovalPolicy,
    Host,
    HostTool,
    LocalServer,
    OtherServer,
    Question,
    RemoteServer,
    Rule,
    SamplingBudget,
    ToolAnswer,
    Unshown,
)
from garrison.policy.toml import Settings
from garrison.safe import SafeCommand, SafeFetch, SafeRoot, SafeSQL
from garrison.server.options import ToolOptions

from .applied.case import CASES, Case, names_of, rows, title_of

FUNCTIONS: tuple[object, ...] = (
    Server,
    Server.http,
    Server.run_http,
    Server.unix,
    Server.run_unix,
    Server.asgi,
    Client,
    ResourceServer,
    JwtVerifier,
    IntrospectionVerifier,
    ToolOptions,
    AuditLog,
    SafeRoot,
    SafeSQL,
    SafeCommand,
    SafeFetch,
    Launch,
    LocalServer,
    RemoteServer,
    OtherServer,
    Host,
    Host.from_file,
    ApprovalPolicy,
    Rule,
    Always,
    SamplingBudget,
)
"""What takes settings as arguments, or names them."""

NOT_SETTINGS: dict[object, str] = {Settings: "what a file says, made of the other objects; nobody configures it"}


@pytest.fixture(autouse=True)
def nothing_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GARRISON_TOKEN", raising=False)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


SAID_BY_A_HOST = {HostTool, Question, ToolAnswer, Unshown}
"""Frozen classes of a host by which nobody configures anything."""


def configuration_objects() -> list[type]:
    """The public frozen dataclasses of `garrison.policy`, by name."""
    found: dict[type, None] = {}
    for module in pkgutil.iter_modules(garrison.policy.__path__, garrison.policy.__name__ + "."):
        loaded = importlib.import_module(module.name)
        for name in loaded.__all__:
            value: Any = getattr(loaded, name)
            if isinstance(value, type) and dataclasses.is_dataclass(value):
                assert value.__dataclass_params__.frozen, f"{value} can be changed"  # type: ignore[attr-defined]
                found[value] = None
    return sorted(found.keys() - NOT_SETTINGS.keys(), key=lambda kind: kind.__name__)


EVERY = [(owner, names_of(owner)) for owner in (*configuration_objects(), *FUNCTIONS)]


@pytest.mark.parametrize(("owner", "name", "case"), rows(EVERY))
async def test_a_changed_setting_is_seen(owner: object, name: str, case: Case | None) -> None:
    setting = f"{title_of(owner)}.{name}"
    if case is None:
        pytest.fail(
            f"nothing shows what {setting} does. Add to tests/policy/applied a function that starts a server or client "
            f'with a value of it and says what is seen: @case({title_of(owner)}, "{name}", default=..., '
            "changed=(value, ...)); see case.py there"
        )
    (first, expected), (then, other) = case.first, case.changed
    assert first != then and expected != other, f"the case of {setting} shows no difference"
    if case.apart:
        seen = [await case.observe(first), await case.observe(then)]
    else:
        seen = await asyncio.gather(case.observe(first), case.observe(then), return_exceptions=True)
        for each in seen:
            if isinstance(each, BaseException):
                raise each
    assert seen == [expected, other], f"with {setting}={first!r} and {then!r}"


def test_every_setting_of_a_host_is_looked_at() -> None:
    public = [getattr(garrison.host, name) for name in garrison.host.__all__]
    frozen = {each for each in public if isinstance(each, type) and dataclasses.is_dataclass(each)}
    assert frozen - SAID_BY_A_HOST <= set(FUNCTIONS)


def test_every_case_is_of_a_setting_that_there_is() -> None:
    owners = {*configuration_objects(), *FUNCTIONS}
    for owner, name in CASES:
        assert owner in owners, f"{title_of(owner)} is no configuration object"
        assert name in names_of(owner), f"{title_of(owner)} has no setting {name}"
