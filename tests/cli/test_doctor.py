"""`garrison doctor`: it says what `garrison run` would do, where each setting came from, and no secret."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from garrison import Limits, Rate, SecurityPolicy, Timeouts
from garrison.cli import main
from garrison.cli.checkup import compared
from garrison.cli.plan import leaves
from tests.support.certs import Authority

SERVER = 'from garrison import Limits, SecurityPolicy, Server\nserver = Server("checked", version="2.0"{more})\n'
CANARY = "canary-in-a-coal-mine"

Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a server, in an environment in which nothing is doubtful."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(tmp_path)
    for name in tuple(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(("SSL", "OPENSSL_", "GARRISON_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "geteuid", lambda: 1000 if os.getuid() == 0 else os.getuid())
    write(tmp_path)
    return tmp_path


def write(place: Path, more: str = "") -> None:
    (place / "server.py").write_text(SERVER.replace("{more}", more))


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str]) -> Ask:
    def ask(*words: str) -> tuple[int, dict[str, Any]]:
        status = main(["doctor", "server.py", "--json", *words])
        out, err = capfd.readouterr()
        assert err == "" and out.count("\n") == 1
        return status, json.loads(out)

    return ask


def setting(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in report["policy"] if each["setting"] == name]
    return found


def kinds(report: dict[str, Any]) -> set[str]:
    return {each["kind"] for each in report["findings"]}


def as_json(value: Any) -> dict[str, Any]:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else dict(value)  # type: ignore[arg-type]


def test_the_members_of_the_report_do_not_change(ask: Ask, place: Path) -> None:
    authority = Authority(place)
    leaf = authority.leaf()
    status, report = ask("--http", ":0", "--tls-cert", str(leaf.certificate), "--tls-key", str(leaf.key))
    assert status == 0 and report["starts"] is True and report["refusal"] is None
    assert report.keys() == {
        "starts", "refusal", "server", "listener", "protection", "audit", "policy", "relaxations", "findings",
        "versions"
    }  # fmt: skip
    assert report["server"] == {"name": "checked", "version": "2.0"}
    assert report["listener"].keys() == {
        "transports", "address", "path", "max_message_size", "websocket", "tls", "client_certificates",
        "authentication", "public_url",
    }  # fmt: skip
    assert report["listener"]["tls"].keys() == {"versions", "certificate", "expires", "client_ca", "reload"}
    assert ask("--ws")[1]["listener"]["websocket"].keys() == {"max_message_size", "subprotocol", "compression"}
    assert {tuple(each) for each in report["policy"]} == {("setting", "value", "default", "source", "compared")}
    assert {tuple(each) for each in report["findings"]} == {("level", "kind", "text")}
    assert report["versions"].keys() == {"garrison", "python", "openssl", "platform"}


def test_every_setting_is_there_with_its_default(ask: Ask) -> None:
    _, report = ask()
    default = leaves(SecurityPolicy())
    assert [each["setting"] for each in report["policy"]] == list(default)
    for each in report["policy"]:
        assert each["value"] == each["default"] == json.loads(json.dumps(default[each["setting"]], default=as_json))
        assert (each["source"], each["compared"]) == ("default", "same")
    assert report["relaxations"] == {}


def test_where_a_setting_came_from(ask: Ask, place: Path) -> None:
    write(place, ', policy=SecurityPolicy(limits=Limits(batch=3), allowed_hosts=("code.example",))')
    _, report = ask("--limit", "rounds=3")
    assert setting(report, "limits.batch") | {"value": 3, "source": "code", "compared": "tighter"} == setting(
        report, "limits.batch"
    )
    assert setting(report, "limits.rounds")["source"] == "command line"
    assert setting(report, "allowed_hosts")["value"] == ["code.example"]
    file = private(place / "x.toml", "limits.threads = 64\nallow_insecure_http_hosts.a = 'why'\n")
    _, report = ask("--limit", "rounds=3", "--config", file)
    sources = {name: setting(report, f"limits.{name}")["source"] for name in ("batch", "rounds", "threads")}
    assert sources == {"batch": "default", "rounds": "command line", "threads": "file"}
    assert setting(report, "allow_insecure_http_hosts")["value"] == {"a": "why"}
    replaced = [each["text"] for each in report["findings"] if each["kind"] == "code_replaced"]
    assert len(replaced) == 1 and "limits.batch" in replaced[0] and "allowed_hosts" in replaced[0]
    _, report = ask("--limit", "rounds=3")
    assert "code_replaced" not in kinds(report)


NEITHER = {"timeouts.keep_alive", "timeouts.shutdown"}


def test_looser_and_tighter() -> None:
    for kind, name in ((Limits, "limits"), (Timeouts, "timeouts")):
        for field in dataclasses.fields(kind):
            full, default = f"{name}.{field.name}", getattr(kind(), field.name)
            found = (compared(full, default * 2, default), compared(full, default / 2, default))
            expected = ("tighter", "looser") if field.name == "body_rate" else ("looser", "tighter")
            assert found == (("different", "different") if full in NEITHER else expected), full
            assert compared(full, default, default) == "same"
    changed = dataclasses.replace(
        SecurityPolicy.compat(),
        allowed_hosts=("a",),
        allowed_origins=("https://a",),
        trusted_proxies=("unix",),
        public_url="https://a",
        allow_insecure_http_hosts={"a": "why"},
        dangerously_allow_unauthenticated="why",
        dangerously_allow_unsafe_socket_path="why",
        dangerously_skip_hygiene="why",
        hygiene="strip",
        redact_results=True,
    )
    default = leaves(SecurityPolicy())
    found = {name: compared(name, value, default[name]) for name, value in leaves(changed).items() if "." not in name}
    others = {"public_url": "different", "hygiene": "different", "redact_results": "tighter"}
    assert found == {name: others.get(name, "looser") for name in found}


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [
        (Rate(60, 250), Rate(60, 250), "same"),
        (Rate(61, 250), Rate(60, 250), "looser"),
        (Rate(60, 251), Rate(60, 250), "looser"),
        (Rate(2, 30), Rate(60, 250), "tighter"),
        (Rate(2, 300), Rate(60, 250), "different"),
        (Rate(1e6, 10**6), None, "tighter"),
        (None, None, "same"),
        (None, Rate(1, 1), "looser"),
    ],
)
def test_looser_and_tighter_rates(value: Rate | None, default: Rate | None, expected: str) -> None:
    assert compared("rates.principal", value, default) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"transports": ["stdio"], "address": None, "path": None}),
        (["--http", "[::1]:80"], {"transports": ["http"], "address": "[::1]:80", "path": "/mcp", "tls": None}),
        (["--ws", "--path", "/x"], {"transports": ["websocket"], "address": "127.0.0.1:8000", "path": "/x"}),
        (["--ws", "--http", ":1"], {"transports": ["http", "websocket"], "address": "127.0.0.1:1"}),
        (["--unix", "/run/x/s"], {"transports": ["unix"], "address": "unix:/run/x/s", "path": None}),
        (["--http", "unix:/run/x/s"], {"transports": ["http"], "address": "unix:/run/x/s"}),
        (["--http", ":1"], {"authentication": "a token, made at the start"}),
        (["--http", ":1", "--token", CANARY], {"authentication": "a token, given by --token"}),
        (
            ["--http", ":1", "--dangerously-allow-unauthenticated", "why"],
            {"authentication": "no token: dangerously_allow_unauthenticated"},
        ),
    ],
)
def test_the_facts_of_the_listener(words: list[str], expected: dict[str, Any], ask: Ask) -> None:
    _, report = ask(*words)
    assert report["listener"] | expected == report["listener"]


def test_the_facts_of_tls(ask: Ask, place: Path) -> None:
    authority = Authority(place)
    leaf = authority.leaf(days=(-1, 90))
    words = ["--http", ":1", "--tls-cert", str(leaf.certificate), "--tls-key", str(leaf.key)]
    _, report = ask(*words)
    assert report["listener"]["tls"]["versions"] == ["1.2", "1.3"] and not report["listener"]["client_certificates"]
    assert report["listener"]["tls"]["expires"].startswith("20") and "certificate" not in kinds(report)
    _, report = ask(*words, "--tls-minimum", "1.3", "--tls-client-ca", str(authority.pem))
    assert report["listener"]["tls"]["versions"] == ["1.3"] and report["listener"]["client_certificates"]
    assert report["listener"]["authentication"] == "no token: every client must show a certificate"
    soon = authority.leaf(days=(-1, 5))
    _, report = ask("--http", ":1", "--tls-cert", str(soon.certificate), "--tls-key", str(soon.key))
    assert "certificate" in kinds(report) and report["starts"]


def test_the_facts_of_messages(ask: Ask, place: Path) -> None:
    usual = {"max_message_size": 16777216, "subprotocol": "mcp", "compression": False}
    for words, size, websocket in (
        ([], 16777216, None),
        (["--http", ":1", "--limit", "message_bytes=1000"], 1000, None),
        (["--unix", "/run/x/s"], 16777216, None),
        (["--ws"], 16777216, usual),
        (["--ws", "--limit", "message_bytes=1000"], 1000, usual | {"max_message_size": 1000}),
    ):
        found = ask(*words)[1]["listener"]
        assert (found["max_message_size"], found["websocket"]) == (size, websocket), words
    text = "[serve]\nhttp = ':1'\nws = true\nws_max_message_size = 2000\nws_subprotocol = 'mcp.v2'\n"
    file = private(place / "x.toml", text + "ws_compression = true\n")
    found = ask("--config", file)[1]["listener"]
    assert found["max_message_size"] == 16777216
    assert found["websocket"] == {"max_message_size": 2000, "subprotocol": "mcp.v2", "compression": True}
    file = private(place / "x.toml", "[serve]\nunix = '/run/x/s'\nunix_max_message_size = 2000\n")
    assert ask("--config", file)[1]["listener"]["max_message_size"] == 2000


def test_how_often_the_files_of_tls_are_looked_at(ask: Ask, place: Path) -> None:
    leaf = Authority(place).leaf()
    text = f"[serve]\nhttp = ':1'\ntls_cert = '{leaf.certificate}'\ntls_key = '{leaf.key}'\n"
    for more, seconds in (("", 5.0), ("tls_reload = 60\n", 60.0)):
        file = private(place / "x.toml", text + more)
        assert ask("--config", file)[1]["listener"]["tls"]["reload"] == seconds


def test_a_setting_that_nothing_has_a_use_for_would_not_start(ask: Ask, place: Path) -> None:
    file = private(place / "x.toml", "[serve]\nhttp = ':1'\nws_compression = true\n")
    status, report = ask("--config", file)
    assert status == 1 and report["refusal"] == f"{file}: serve.ws_compression is for serve.ws"


def test_relaxations_and_their_reasons(ask: Ask) -> None:
    words = ["--dangerously-allow-unauthenticated", "a lab", "--tolerate", "accept", "--allow-insecure-http", "h=cable"]
    _, report = ask("--http", ":1", *words, "--dangerously-skip-hygiene", "a terminal")
    assert report["relaxations"].keys() == {
        "dangerously_allow_unauthenticated", "allow_insecure_http_hosts.h", "tolerate.accept",
        "dangerously_skip_hygiene",
    }  # fmt: skip
    assert report["relaxations"]["dangerously_skip_hygiene"] == "a terminal"
    assert report["relaxations"]["dangerously_allow_unauthenticated"] == "a lab"
    assert report["relaxations"]["allow_insecure_http_hosts.h"] == "cable"


@pytest.mark.parametrize(
    "words",
    [
        ["--http", "0.0.0.0:8000"],
        ["--http", "0.0.0.0:8000", "--profile", "conformance"],
        ["--http", ":1", "--public-url", "https://a.example"],
        ["--http", ":1", "--token", "short"],
        ["--http", ":1", "--trusted-proxy", "nonsense"],
        ["--http", ":1", "--tls-cert", "missing.pem", "--tls-key", "missing.key"],
        ["--http", ":1", "--path", "x"],
        ["--limit", "conections=1"],
        ["--config", "missing.toml"],
        ["--ws", ":1", "--unix", "x"],
    ],
)
def test_what_would_not_start_is_said_in_the_words_of_run(
    words: list[str], ask: Ask, capfd: pytest.CaptureFixture[str]
) -> None:
    status, report = ask(*words)
    assert status == 1 and report["starts"] is False
    assert main(["run", "server.py", *words]) == 2
    assert capfd.readouterr().err == f"garrison: {report['refusal']}\n"
    assert main(["doctor", "server.py", *words]) == 1
    assert f"It would not start: {report['refusal']}" in capfd.readouterr().out


def test_a_key_that_others_can_read_would_not_start(ask: Ask, place: Path) -> None:
    leaf = Authority(place).leaf()
    words = ["--http", ":1", "--tls-cert", str(leaf.certificate), "--tls-key", str(leaf.key)]
    assert ask(*words)[0] == 0
    leaf.key.chmod(0o644)
    status, report = ask(*words)
    assert status == 1 and "chmod 600" in report["refusal"]


def test_a_server_that_cannot_be_loaded(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "missing.py", "--json"]) == 1
    assert "no such file" in json.loads(capfd.readouterr().out)["refusal"]
    (place / "server.py").write_text("1 / 0\n")
    assert main(["doctor", "server.py", "--json"]) == 1
    out, err = capfd.readouterr()
    assert "ZeroDivisionError" in err and json.loads(out)["server"] is None
    assert main(["doctor", "server.py"]) == 1
    assert "It would not start: server.py could not be loaded" in capfd.readouterr().out


def test_nothing_is_started(ask: Ask, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    started: list[str] = []
    write(place, ", lifespan=lambda: 1 / 0")
    for name in ("bind", "listen", "connect"):
        monkeypatch.setattr(socket.socket, name, lambda *_, name=name: started.append(name))
    for words in ([], ["--http", ":0"], ["--ws"], ["--unix", str(place / "new" / "s")], ["--http", "unix:new/s"]):
        assert ask(*words)[0] == 0
    assert started == [] and not (place / "new").exists()


def test_a_healthy_server_has_no_warning(ask: Ask, place: Path) -> None:
    write(place, f", legacy='off', state_key='{'ab' * 32}'")
    words = ["--http", ":1", "--audit-log", "log/calls.log"]
    assert ask(*words)[1]["findings"] == [] and not (place / "log").exists()


@pytest.mark.parametrize(
    ("more", "words", "kind"),
    [
        (", http_sse=True", ["--http", ":1"], "http_sse"),
        ("", ["--http", ":1"], "state_key"),
        ("", ["--http", ":1"], "legacy"),
        ("", ["--http", ":1", "--token", "a-token-that-is-seen"], "token_visible"),
        ("", ["--limit", "connections=4096"], "limit"),
        ("", ["--limit", "body_rate=128"], "limit"),
        ("", ["--rate", "principal=480/second,250"], "limit"),
        ("", ["--rate", "completion=20/second,320"], "limit"),
        ("", ["--http", ":1"], "audit"),
        ("", ["--unix", "s"], "audit"),
    ],
)
def test_what_is_doubtful(more: str, words: list[str], kind: str, ask: Ask, place: Path) -> None:
    write(place, more)
    assert kind in kinds(ask(*words)[1])


@pytest.mark.parametrize(
    ("setting", "kind", "benign"),
    [
        ("ws = true\nws_compression = true", "compression", "ws = true\nws_compression = false"),
        ("ws = true\nws_max_message_size = 134217728", "limit", "ws = true\nws_max_message_size = 134217727"),
        ("unix = 's'\nunix_max_message_size = 134217728", "limit", "unix = 's'\nunix_max_message_size = 134217727"),
    ],
)
def test_what_is_doubtful_in_a_listener(setting: str, kind: str, benign: str, ask: Ask, place: Path) -> None:
    file = private(place / "x.toml", f"[serve]\n{setting}\n")
    (found,) = [each for each in ask("--config", file)[1]["findings"] if each["kind"] == kind]
    assert found["level"] == "warning" and f"serve.{setting.split()[3]}" in found["text"]
    file = private(place / "x.toml", f"[serve]\n{benign}\n")
    assert kind not in kinds(ask("--config", file)[1])


@pytest.mark.parametrize(
    ("words", "noted"),
    [
        (["--http", ":1", "--trusted-proxy", "10.0.0.7"], True),
        (["--http", "unix:s", "--trusted-proxy", "unix"], True),
        (["--ws", "--trusted-proxy", "10.0.0.7", "--trusted-proxy", "unix"], True),
        (["--http", ":1"], False),
        (["--http", ":1", "--trusted-proxy", "unix"], False),  # a proxy that cannot be at the other end
        (["--http", "unix:s", "--trusted-proxy", "10.0.0.7"], False),
        (["--unix", "s", "--trusted-proxy", "unix"], False),  # no headers there
    ],
)
def test_what_a_proxy_must_send(words: list[str], noted: bool, ask: Ask) -> None:
    found = [each for each in ask(*words)[1]["findings"] if each["kind"] == "trusted_proxy"]
    assert len(found) == noted
    assert not noted or (found[0]["level"] == "note" and "X-Forwarded-For" in found[0]["text"])


def test_a_relaxation_without_effect(ask: Ask, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--http", ":1", "--dangerously-allow-unauthenticated", "a lab"]
    authority = Authority(place)
    leaf = authority.leaf()
    tls = ["--tls-cert", str(leaf.certificate), "--tls-key", str(leaf.key)]
    for more, idle in (
        ([], False),
        (tls, False),
        ([*tls, "--tls-client-ca", str(authority.pem)], True),
        (["--token", "a-token-of-the-words"], True),
    ):
        _, report = ask(*words, *more)
        assert ("no_effect" in kinds(report)) == idle, more
        assert report["relaxations"] == {"dangerously_allow_unauthenticated": "a lab"}  # it is recorded all the same
    monkeypatch.setenv("GARRISON_TOKEN", "a-token-of-the-environment")
    assert "no_effect" in kinds(ask(*words)[1]) and "no_effect" not in kinds(ask("--http", ":1")[1])


def test_what_is_not_doubtful(ask: Ask, place: Path) -> None:
    write(place, ", legacy='off'")
    words = ["--limit", "connections=4095", "--limit", "body_rate=129", "--timeout", "keep_alive=1000"]
    words += ["--rate", "principal=479/second,1999", "--rate", "most_keys=100000000", "--rate", "heavy=9999/second"]
    assert kinds(ask(*words, "--redact-results", "--hygiene", "strip")[1]) == set()


def test_what_keeps_a_record(ask: Ask, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask("--http", ":1")[1]["audit"] is None
    assert main(["doctor", "server.py"]) == 0
    assert "records      none\n" in capfd.readouterr().out
    write(place, ", audit=__import__('garrison.audit').audit.FunctionSink(print)")
    status, report = ask("--http", ":1")
    assert (status, report["audit"]) == (0, "FunctionSink") and "audit" not in kinds(report)
    _, report = ask("--http", ":1", "--audit-log", "calls.log")  # in place of what the code says
    assert report["audit"] == f"AuditLog, {place / 'calls.log'}" and not (place / "calls.log").exists()
    key = private(place / "key", "ab" * 32)
    status, report = ask("--http", ":1", "--audit-log", "calls.log", "--audit-key", key)
    assert status == 0 and "abab" not in json.dumps(report)
    for refused in (["--audit-key", key], ["--audit-log", "calls.log", "--audit-key", str(place / "server.py")]):
        status, report = ask("--http", ":1", *refused)
        assert status == 1 and report["refusal"]
        assert main(["run", "server.py", "--http", ":1", *refused]) == 2
        assert capfd.readouterr().err == f"garrison: {report['refusal']}\n"


def test_what_tools_were_let_off(ask: Ask, place: Path) -> None:
    tools = """
server.add_tool(lambda: "x", "kind", structured_output=False)
server.add_tool(lambda: "x", "wipe", structured_output=False, destructive=True)
server.add_tool(lambda: "x", "drop", structured_output=False, destructive=True, confirm=False)
server.add_tool(lambda: "x", "paint", structured_output=False, dangerously_raw_text="colours of a terminal")
"""
    (place / "server.py").write_text(SERVER.replace("{more}", ", legacy='off'") + tools)
    found = {each["kind"]: each for each in ask()[1]["findings"]}
    assert found.keys() == {"raw_text", "unconfirmed"}
    assert found["raw_text"]["level"] == "warning" and found["raw_text"]["text"].endswith(" from paint")
    assert found["unconfirmed"]["text"].endswith(" by drop")
    many = "".join(f'server.add_tool(lambda: "x", "t{n}", destructive=True, confirm=False)\n' for n in range(12))
    (place / "server.py").write_text(SERVER.replace("{more}", ", legacy='off'") + many)
    (found,) = ask()[1]["findings"]
    assert found["text"].endswith("t8, t9 and 2 more")


@pytest.mark.parametrize(
    "name",
    [
        "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE", "HTTPS_PROXY", "http_proxy", "ALL_PROXY", "no_proxy",
        "OPENSSL_CONF",
    ],
)  # fmt: skip
def test_variables_that_change_trust_elsewhere(name: str, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "environment" not in kinds(ask()[1])
    monkeypatch.setenv(name, f"http://user:{CANARY}@proxy")
    _, report = ask()
    (found,) = [each for each in report["findings"] if each["kind"] == "environment"]
    assert found["text"].startswith(f"{name} is set") and found["level"] == "warning"
    assert CANARY not in json.dumps(report)


def test_root(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "root" not in kinds(ask()[1])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "root" in kinds(ask()[1])


def test_no_secret_is_printed(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    write(place, f", state_key='{'c0ffee' * 10}{'c0ff'}'")
    token = private(place / "token", CANARY)
    file = private(place / "x.toml", f"serve.token_file = '{token}'\nserve.http = ':1'\n")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{CANARY}@proxy")
    proxied = ["--public-url", f"https://user:{CANARY}@a.example/mcp", "--trusted-proxy", "127.0.0.1"]
    for words in (
        ["--http", ":1", "--token", CANARY],
        ["--http", ":1", "--token-file", token],
        ["--config", file],
        ["--http", ":1", *proxied],
    ):
        for form in ([], ["--json"]):
            refused = words[-len(proxied) :] == proxied  # a public URL names nobody who asks
            assert main(["doctor", "server.py", *words, *form]) == refused
            out, err = capfd.readouterr()
            assert len(out) > 1000
            assert CANARY not in out + err and "c0ffee" not in out + err
    monkeypatch.setenv("GARRISON_TOKEN", CANARY)
    assert main(["doctor", "server.py", "--http", ":1"]) == 0
    out, err = capfd.readouterr()
    assert CANARY not in out + err and "a token, given by GARRISON_TOKEN" in out
    monkeypatch.setenv("GARRISON_TOKEN", "canary short")  # refused, and not repeated
    assert main(["doctor", "server.py", "--http", ":1"]) == 1
    out, err = capfd.readouterr()
    assert "canary" not in out + err


def test_the_text_says_what_the_json_says(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--ws", "--http", ":1", "--limit", "batch=3", "--timeout", "idle=60", "--allowed-host", "a.example"]
    words += ["--rate", "tenant=30/minute,7"]
    assert main(["doctor", "server.py", *words, "--dangerously-allow-unauthenticated", "a lab"]) == 0
    lines = capfd.readouterr().out.splitlines()
    text = [" ".join(line.split()) for line in lines]
    assert lines[0] == "checked 2.0" and lines[-1] == "It would start."
    for line in (
        "serves http and websocket at 127.0.0.1:1",
        "path /mcp",
        "messages up to 16,777,216 bytes",
        "WebSocket subprotocol mcp, messages up to 16,777,216 bytes, not compressed",
        "TLS no",
        "limits.batch 3 command line tighter",
        "limits.message_bytes 16,777,216 default",
        "timeouts.idle 60 s command line looser",
        "allowed_hosts a.example command line looser",
        "allowed_origins none default",
        "dangerously_allow_unauthenticated a lab",
        "hygiene visible default",
        "redact_results no default",
        "rates.principal 60 a second, 250 at once default",
        "rates.tenant 0.5 a second, 7 at once command line tighter",
        "rates.heavy none default",
        "records none",
    ):
        assert line in text, line
    assert any(line.startswith("note handshake revisions are served") for line in text)


def test_the_log_is_left_as_it_was(ask: Ask) -> None:
    before = list(logging.getLogger("garrison").handlers)
    ask("--http", ":1", "--dangerously-allow-unauthenticated", "a lab")
    assert logging.getLogger("garrison").handlers == before


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets there")
@pytest.mark.parametrize("where", [("--unix", "{}"), ("--http", "unix:{}")])
def test_a_socket_in_an_unsafe_place_would_not_start(ask: Ask, place: Path, where: tuple[str, str]) -> None:
    (place / "shared").mkdir()
    (place / "shared").chmod(0o1777)
    option, form = where
    status, report = ask(option, form.format(place / "shared" / "x.sock"))
    assert status == 1 and "others can write" in report["refusal"]
    status, report = ask(option, form.format(place / "shared" / "own" / "x.sock"))
    assert status == 0 and report["starts"]
    assert not (place / "shared" / "own").exists()
