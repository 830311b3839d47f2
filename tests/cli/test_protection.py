"""`garrison run` and `garrison doctor` of a server that is protected: whose tokens it takes, and what it leaves out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from garrison.cli import main

from .commands import TOKEN, garrison, served

SERVER = """
from garrison import Server
from garrison.auth.resource import ApiKeys, Certificates, Grant
from garrison.auth.resource.server import ResourceServer
auth = ResourceServer({given})
server = Server("notes", auth=auth{more})

@server.tool(public=True)
def me() -> str:
    return "me"
"""
FORGOTTEN = """
@server.tool()
def forgotten() -> str:
    return "done"

@server.resource("note://forgotten")
def lost() -> str:
    return "done"
"""
HERE, ISSUER = '"https://mcp.example.com/mcp"', '"https://auth.example.com"'
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(tmp_path)
    for name in tuple(os.environ):
        if name.startswith("GARRISON_"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def ask(folder: Path, capfd: pytest.CaptureFixture[str]) -> Ask:
    """The report about a server."""

    def ask(*words: str, given: str = f"{HERE}, {ISSUER}", more: str = "", ending: str = "") -> dict[str, Any]:
        (folder / "server.py").write_text(SERVER.format(given=given, more=more) + ending)
        status = main(["doctor", "server.py", "--json", *(words or ("--http", "127.0.0.1:0"))])
        out, _ = capfd.readouterr()
        report = json.loads(out)
        assert status == (0 if report["starts"] else 1), out
        return report

    return ask


def kinds(report: dict[str, Any]) -> set[str]:
    return {found["kind"] for found in report["findings"]}


def test_what_protects_a_server(ask: Ask) -> None:
    given = (
        f"{HERE}, {ISSUER}, ApiKeys({{ApiKeys.new()[1]: Grant('ci')}}), scopes=['notes:read'], dpop='require', "
        "dpop_nonce=True, recheck=5, revoked=lambda principal, token_id: False, hierarchy={'admin': ['notes:read']}"
    )
    report = ask(given=given)
    assert report["protection"] == {
        "resource": "https://mcp.example.com/mcp",
        "issuers": ["https://auth.example.com"],
        "verifiers": ["JwtVerifier", "ApiKeys"],
        "certificates": False,
        "metadata_url": "https://mcp.example.com/.well-known/oauth-protected-resource/mcp",
        "scopes": ["notes:read"],
        "scopes_supported": ["notes:read"],
        "hierarchy": {"admin": ["notes:read"]},
        "dpop": "require",
        "dpop_nonce": True,
        "recheck": 5.0,
        "revoked": True,
        "exchange": False,
        "failures_per_minute": 30,
        "default_rule": False,
        "undeclared": [],
    }
    said = "tokens of https://auth.example.com, keys of its own, for https://mcp.example.com/mcp"
    assert report["listener"]["authentication"] == said
    assert not {"undeclared", "dpop", "revocation", "issuer", "resource_path", "no_effect"} & kinds(report)


def test_what_declares_no_rule_is_found(ask: Ask) -> None:
    report = ask(ending=FORGOTTEN)
    assert report["protection"]["undeclared"] == ["tool 'forgotten'", "resource 'note://forgotten'"]
    assert "undeclared" in kinds(report)
    report = ask(ending=FORGOTTEN, more=", authorize=lambda access: True")
    assert report["protection"]["undeclared"] == [] and report["protection"]["default_rule"]
    assert "undeclared" not in kinds(report)


@pytest.mark.parametrize(
    ("given", "kind", "benign"),
    [
        (f'{HERE}, "http://127.0.0.1:9000"', "issuer", f"{HERE}, {ISSUER}"),
        (f'"https://mcp.example.com/other", {ISSUER}', "resource_path", f'"https://mcp.example.com", {ISSUER}'),
        (f"{HERE}, {ISSUER}", "dpop", f"{HERE}, {ISSUER}, dpop='require'"),
        (f"{HERE}, {ISSUER}", "revocation", f"{HERE}, {ISSUER}, revoked=lambda principal, token_id: False"),
    ],
)
def test_what_is_doubtful(given: str, kind: str, benign: str, ask: Ask) -> None:
    assert kind in kinds(ask(given=given))
    assert kind not in kinds(ask(given=benign))


def test_a_token_beside_it_has_no_effect_or_is_refused(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no_effect" not in kinds(ask())
    monkeypatch.setenv("GARRISON_TOKEN", TOKEN)
    report = ask()
    assert (
        report["starts"]
        and "no_effect" in kinds(report)
        and "GARRISON_TOKEN" not in report["listener"]["authentication"]
    )
    report = ask("--http", "127.0.0.1:0", "--token", TOKEN)
    assert not report["starts"] and "two ways" in report["refusal"] and TOKEN not in json.dumps(report)


def test_on_stdio_it_is_not_at_work(ask: Ask) -> None:
    report = ask("--stdio")
    assert report["protection"] is None and "no_effect" in kinds(report)
    assert report["starts"]


def test_people_read_the_same(ask: Ask, capfd: pytest.CaptureFixture[str]) -> None:
    ask(ending=FORGOTTEN)
    assert main(["doctor", "server.py", "--http", "127.0.0.1:0"]) == 0
    out, _ = capfd.readouterr()
    for text in ("Protection", "https://auth.example.com", "accept", "60 s", "offered to nobody", "tool 'forgotten'"):
        assert text in out


def test_a_server_without_it_has_no_such_part(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "server.py").write_text("from garrison import Server\nserver = Server('open')\n")
    assert main(["doctor", "server.py", "--http", "127.0.0.1:0", "--json"]) == 0
    report = json.loads(capfd.readouterr()[0])
    assert report["protection"] is None and "made at the start" in report["listener"]["authentication"]


def test_run_says_whose_tokens_are_taken_and_makes_none(folder: Path) -> None:
    (folder / "server.py").write_text(SERVER.format(given=f"{HERE}, {ISSUER}", more=""))
    with served("server.py", cwd=folder, token=None) as (url, said):
        assert "it takes tokens of https://auth.example.com, for https://mcp.example.com/mcp\n" in said
        assert "token:" not in said
        done = garrison("list", url, env={"GARRISON_STORE": "file", "XDG_DATA_HOME": str(folder)})
        assert done.returncode == 6 and f"garrison login {url}" in done.stderr
