"""Who may open a Unix socket, as `garrison run` is told: the group, and the proxy's user in it."""

from __future__ import annotations

import os

import pytest

from garrison import SecurityPolicy
from garrison.cli.options import parser_for
from garrison.cli.plan import make_plan
from garrison.errors import ConfigurationError
from garrison.policy.transports import UnixSocketConfig


def socket_of(*words: str) -> UnixSocketConfig | None:
    plan = make_plan(parser_for("run").parse_intermixed_args(["server.py", *words]), SecurityPolicy())
    return plan.unix if plan.network is None else plan.network.unix


@pytest.mark.parametrize("listener", [("--unix", "/x/s"), ("--http", "unix:/x/s")])
def test_the_owner_alone_unless_told_otherwise(listener: tuple[str, str]) -> None:
    assert socket_of(*listener) == UnixSocketConfig("/x/s", mode=0o600)
    assert socket_of(*listener, "--socket-group", "root") == UnixSocketConfig("/x/s", mode=0o660, group="root")
    numbers = socket_of(*listener, "--socket-group", "7", "--socket-user", "8")
    assert numbers == UnixSocketConfig("/x/s", mode=0o660, group=7, allowed_uids=(8,))
    names = socket_of(*listener, "--socket-group", "7", "--socket-user", "root")
    assert names is not None and names.allowed_uids == (0,)


@pytest.mark.skipif(os.name != "posix", reason="there are no such users here")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--unix /x/s --socket-user root", "--socket-group"),
        ("--unix /x/s --socket-group g --socket-user no-such-user", "no such user"),
        ("--http 127.0.0.1:0 --socket-group g", "unix:PATH"),
        ("--socket-user root", "unix:PATH"),
    ],
)
def test_what_makes_no_sense_is_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        socket_of(*words.split())
