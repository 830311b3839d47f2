"""A host in a file: our TOML, the JSON of desktop clients, references to secrets, and which files are believed."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison import events
from garrison.auth.client.settings import ClientCredentials, OAuth
from garrison.auth.store import FileStore, MemoryStore, StoreError
from garrison.auth.tokens import CredentialKey
from garrison.errors import ConfigurationError, InsecureConfigurationError
from garrison.host.config import HostConfig, HostSettings, config_folder, lines_of, read_config, untrusted
from garrison.host.config_values import keys_of
from garrison.host.host import Host
from garrison.host.references import forget_secret, keep_secret, load_secret, reference_of
from garrison.host.servers import LocalServer, RemoteServer
from garrison.host.state import FolderState, MemoryState
from garrison.policy.secret import Secret
from garrison.policy.tls import TlsClientConfig


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name in ("home", "project"):
        (tmp_path / name).mkdir()


@pytest.fixture
def heard() -> Iterator[list[events.Event]]:
    found: list[events.Event] = []
    stop = events.listen(found.append)
    yield found
    stop()


def written(path: Path, content: object, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def read(path: Path, **more: Any) -> HostConfig:
    return read_config(path, **{"state": MemoryState(), "trusted": True, **more})


def toml(tmp_path: Path, text: str, **more: Any) -> HostConfig:
    return read(written(tmp_path / "project" / "host.toml", text), **more)


def mcp(tmp_path: Path, servers: object, **more: Any) -> HostConfig:
    return read(written(tmp_path / "project" / "mcp.json", {"mcpServers": servers}), **more)


# Our own format.


def test_a_file_gives_servers_rules_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "canary")
    config = toml(
        tmp_path,
        """
        default = "deny"

        [servers.files]
        command = ["bin/server", "--root", "data"]
        env = { API_KEY = { from = "env:MY_KEY" }, LOG_LEVEL = "debug" }
        cwd = "."
        sandbox = "landlock"
        read = ["data", "~/notes", "/srv"]
        network = true
        memory = false
        processes = 7
        labels = ["private"]
        tools = { send = ["outward"] }
        timeout = 5
        dangerously_allow_env = { GIT_DIR = "it works on one repository" }

        [servers.web]
        url = "https://example.com/mcp"
        headers = { X-Team = "blue", X-Api-Key = { from = "env:MY_KEY" } }
        token = { from = "env:MY_KEY" }
        use_instructions = true
        tls = { ca = "ca.pem", key = "key.pem", certificate = "cert.pem", minimum = "1.3" }

        [servers.signed]
        url = "https://example.org/mcp"
        auth = { type = "client-credentials", client_id = "me", secret = { from = "env:MY_KEY" }, scopes = ["a"] }

        [[rules]]
        server = "files"
        tool = "read_*"
        action = "allow"

        [host]
        strict = false
        patience = 30
        roots = ["data"]
        """,
    )
    folder, home = tmp_path / "project", tmp_path / "home"
    files, web, signed = config.servers["files"], config.servers["web"], config.servers["signed"]
    assert isinstance(files, LocalServer) and isinstance(web, RemoteServer) and isinstance(signed, RemoteServer)
    assert files.command == (f"{folder}/bin/server", "--root", "data"), "arguments are as they stand"
    assert files.env == {"API_KEY": Secret("canary"), "LOG_LEVEL": "debug"}
    assert (files.cwd, files.read) == (str(folder), (f"{folder}/data", f"{home}/notes", "/srv"))
    assert (files.sandbox, files.network, files.memory, files.processes) == ("landlock", True, None, 7)
    assert files.open_files == LocalServer(["x"]).open_files
    assert files.labels == ("private",) and files.tools == {"send": ("outward",)} and files.timeout == 5
    assert files.dangerously_allow_env == {"GIT_DIR": "it works on one repository"}
    assert web.token == Secret("canary") and web.headers["X-Api-Key"] == Secret("canary") and web.use_instructions
    assert web.tls == TlsClientConfig(
        ca=f"{folder}/ca.pem", key=f"{folder}/key.pem", certificate=f"{folder}/cert.pem", minimum="1.3"
    )
    assert isinstance(signed.auth, ClientCredentials) and signed.auth.secret == Secret("canary")
    assert config.approvals.default == "deny" and len(config.approvals.rules) == 1
    assert config.options() == {
        "policy": config.approvals,
        "strict": False,
        "patience": 30,
        "roots": (f"{folder}/data",),
    }
    assert config.question is None and "canary" not in repr(config)


def test_sign_in_has_a_short_form(tmp_path: Path) -> None:
    config = toml(tmp_path, '[servers.web]\nurl = "https://example.com"\nauth = "oauth"')
    web = config.servers["web"]
    assert isinstance(web, RemoteServer) and isinstance(web.auth, OAuth)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server.a]", "server: there is no such setting; did you mean servers?"),
        ('[servers.a]\ncomand = ["x"]', "servers.a.comand: there is no such setting; did you mean command?"),
        (
            '[servers.a]\ncommand = ["x"]\nsanbox = "off"',
            "servers.a.sanbox: there is no such setting; did you mean sandbox?",
        ),
        ('[servers.a]\ncommand = ["x"]\nurl = "https://x"', "servers.a: must have either command or url"),
        ("[servers.a]\nnetwork = true", "servers.a: must have either command or url"),
        ('[servers.a]\nurl = "https://x"\nnetwork = true', "servers.a.network: there is no such setting"),
        ('[servers.a]\ncommand = "npx x"', "servers.a.command: must be a list of texts"),
        ('[servers.a]\ncommand = ["x", 1]', "servers.a.command: must be a list of texts"),
        ("[servers.a]\ncommand = []", "servers.a.command: must be a list: the program and its arguments"),
        ('[servers.a]\ncommand = ["x"]\nnetwork = "yes"', "servers.a.network: must be true or false"),
        ('[servers.a]\ncommand = ["x"]\nmemory = 0', "servers.a.memory: must be a whole number above 0, or false"),
        ('[servers.a]\ncommand = ["x"]\nmemory = true', "servers.a.memory: must be a whole number above 0, or false"),
        ('[servers.a]\ncommand = ["x"]\ntimeout = "5"', "servers.a.timeout: must be a number"),
        ('[servers.a]\ncommand = ["x"]\nlabels = ["secret"]', "servers.a: 'secret' is no label"),
        ('[servers.a]\ncommand = ["x"]\nsandbox = "maybe"', "servers.a: LocalServer.sandbox is"),
        ('[servers.a]\ncommand = ["x"]\npolicy = {}', "servers.a.policy: there is no such setting"),
        ('[servers.A]\ncommand = ["x"]', "'A' is no alias"),
        ("[host]\nstict = true", "host.stict: there is no such setting; did you mean strict?"),
        ('[[rules]]\nserver = "a"\ntool = "b"\naction = "alow"', "rules"),
        ('[servers.a]\nurl = "https://x"\nauth = "magic"', "servers.a.auth.type: must be"),
        (
            '[servers.a]\nurl = "https://x"\nauth = { type = "client-credentials" }',
            "servers.a.auth.client_id: must be given",
        ),
        ('[servers.a]\nurl = "https://x"\ntls = { verify = false }', "servers.a.tls.verify: there is no such setting"),
        ("a = [", "not TOML"),
        ("x = 1\nx = 2", "not TOML"),
        ("a = " + "[" * 2000, "not TOML"),
        ("a." * 2000 + "b = 1", "not TOML: nested too deeply"),
        ("a." * 31 + "b = 1", "a: there is no such setting"),
        ("a." * 32 + "b = 1", "not TOML: nested too deeply"),
        ("a = " + "1" * 5000, "not TOML"),
        ("a = 0x" + "f" * 5000, "not TOML"),
        ('[servers.a]\ncommand = ["x"]\ncwd = "~\\u0000"', "servers.a.cwd: must be a path"),
        ('[servers.a]\nurl = "https://x"\nauth = { type = ["oauth"] }', "servers.a.auth.type: must be"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        toml(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/project/host.toml: ") and said in str(caught.value)


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ('token = "canary-1"', "token"),
        ('headers = { X-Api-Key = "canary-1" }', "headers.X-Api-Key"),
        ('headers = { X-Any = "ghp_canaryabcdefghijklmnopqrstuvwxyz0123456" }', "headers.X-Any"),
        ('auth = { type = "client-credentials", client_id = "a", secret = "canary-1" }', "auth.secret"),
    ],
)
def test_a_plain_secret_is_refused_and_not_repeated(tmp_path: Path, line: str, at: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{at}: no secret stands in this file") as caught:
        toml(tmp_path, f'[servers.a]\nurl = "https://x"\n{line}')
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"env\.API_KEY: no secret stands in this file"):
        toml(tmp_path, '[servers.a]\ncommand = ["x"]\nenv = { API_KEY = "canary-1" }')


def test_every_setting_can_stand_in_a_file_or_is_known_not_to() -> None:
    code = {
        LocalServer: {"policy"},
        RemoteServer: {"policy"},
        HostSettings: set[str](),
        TlsClientConfig: set[str](),
        OAuth: {"store", "trust_resource_metadata", "notice", "browser", "approve_scopes"},
        ClientCredentials: {"store", "trust_resource_metadata", "notice"},
    }
    for kind, own in code.items():
        assert {each.name for each in fields(kind)} - keys_of(kind) == own, kind
    of_host = inspect.signature(Host).parameters
    assert {each.name for each in fields(HostSettings)} <= set(of_host)
    assert set(of_host) - {each.name for each in fields(HostSettings)} == {
        *("servers", "approve", "policy", "state", "security", "sample", "sampling", "review", "audit"),
    }, "what else a file could say"


# References.


def test_references_lead_to_the_environment_a_file_or_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "one")
    written(tmp_path / "project" / "key", "two\n")
    store = MemoryStore()
    keep_secret("search/key", Secret("three"), store)
    config = toml(
        tmp_path,
        '[servers.a]\ncommand = ["x"]\nenv = { A = { from = "env:MY_KEY" }, B = { from = "file:key" }, '
        'C = { from = "credential:search/key" } }',
        store=store,
    )
    server = config.servers["a"]
    assert isinstance(server, LocalServer)
    assert server.env == {"A": Secret("one"), "B": Secret("two"), "C": Secret("three")}


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("env:NOT_THERE", "the environment has no NOT_THERE"),
        ("env:A B", "must be credential:NAME, env:NAME or file:PATH"),
        ("vault:x", "must be credential:NAME, env:NAME or file:PATH"),
        ("plain", "must be credential:NAME, env:NAME or file:PATH"),
        ("file:", "must be credential:NAME, env:NAME or file:PATH"),
        ("credential:none", "the credential store has no none"),
        ("file:absent", "No such file"),
        ("file:/dev/zero", "not a regular file"),
        ("file:empty", "is empty"),
    ],
)
def test_a_reference_that_leads_nowhere_names_the_setting(tmp_path: Path, reference: str, said: str) -> None:
    written(tmp_path / "project" / "empty", "\n")
    with pytest.raises(ConfigurationError, match=r"servers\.a\.env\.K\.from: ") as caught:
        toml(tmp_path, f'[servers.a]\ncommand = ["x"]\nenv = {{ K = {{ from = "{reference}" }} }}', store=MemoryStore())
    assert said in str(caught.value)


def test_a_file_with_a_secret_is_for_its_owner_alone(tmp_path: Path, heard: list[events.Event]) -> None:
    key = written(tmp_path / "project" / "key", "canary", 0o640)
    text = '[servers.a]\ncommand = ["x"]\nenv = { K = { from = "file:key" } }'
    with pytest.raises(InsecureConfigurationError, match="can read it"):
        toml(tmp_path, text)
    assert [event.name for event in heard] == ["config.untrusted"]
    key.chmod(0o600)
    assert toml(tmp_path, text).servers


def test_secrets_of_the_store_are_no_sign_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path / "store" / "credentials", b"k" * 32)
    keep_secret("a", Secret("canary"), store)
    assert load_secret("a", store) == Secret("canary") and load_secret("b", store) is None
    assert store.keys() == (CredentialKey("garrison:secret", account="a", kind="key"),)
    assert b"canary" not in (tmp_path / "store" / "credentials").read_bytes()
    assert forget_secret("a", store) and not forget_secret("a", store)
    with pytest.raises(ConfigurationError, match="no name of a credential"):
        keep_secret("a b", Secret("x"), store)


def test_a_secret_is_not_kept_where_it_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.auth.store.open_store", MemoryStore)
    with pytest.raises(StoreError, match="GARRISON_STORE_PASSPHRASE"):
        keep_secret("a", Secret("x"))


@given(st.text())
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    try:
        found = reference_of(text, "at")
    except ConfigurationError as exc:
        assert str(exc).startswith("at: ")
    else:
        assert str(found) == text


# The JSON of desktop clients.


def test_the_json_of_desktop_clients_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "canary")
    config = mcp(
        tmp_path,
        {
            "Brave Search": {
                "command": "npx",
                "args": ["-y", "pkg@1.2.3", "${workspaceFolder}/a", "${userHome}"],
                "env": {"KEY": "${MY_KEY}", "OTHER": "${env:MY_KEY}", "LEVEL": "${LEVEL:-info}", "PLAIN": "x"},
                "garrison": {"network": True, "labels": ["untrusted"]},
            },
            "web": {"type": "http", "url": "https://example.com/mcp", "headers": {"Authorization": "Bearer ${MY_KEY}"}},
            "old": {"type": "sse", "url": "https://example.com/sse", "headers": {"X-Team": "blue"}},
            "off": {"command": "x", "disabled": True},
        },
    )
    assert list(config.servers) == ["brave-search", "web", "old"]
    brave, web = config.servers["brave-search"], config.servers["web"]
    assert isinstance(brave, LocalServer) and isinstance(web, RemoteServer)
    assert brave.command == ("npx", "-y", "pkg@1.2.3", f"{tmp_path}/project/a", f"{tmp_path}/home")
    assert brave.env == {"KEY": Secret("canary"), "OTHER": Secret("canary"), "LEVEL": "info", "PLAIN": "x"}
    assert brave.network and brave.labels == ("untrusted",) and brave.sandbox == "auto"
    assert web.token == Secret("canary") and web.headers == {}
    assert config.notices == ("mcpServers.Brave Search is called brave-search here", "mcpServers.off is disabled")
    assert config.options() == {"policy": config.approvals} and config.approvals.rules == ()


@pytest.mark.parametrize("whole", [{"servers": {"a": {"command": "x"}}}, {"mcp": {"servers": {"a": {"command": "x"}}}}])
def test_editors_spell_it_otherwise(tmp_path: Path, whole: object) -> None:
    path = written(tmp_path / "project" / ".vscode" / "mcp.json", whole)
    assert list(read(path).servers) == ["a"]


def test_a_folder_of_an_editor_is_about_the_one_above(tmp_path: Path) -> None:
    path = written(
        tmp_path / "project" / ".vscode" / "mcp.json",
        {"servers": {"a": {"type": "stdio", "command": "./server", "args": ["${workspaceFolder}"]}}},
    )
    server = read(path).servers["a"]
    assert isinstance(server, LocalServer) and server.command == (f"{tmp_path}/project/server", f"{tmp_path}/project")


def test_plain_secrets_are_taken_and_shown_nowhere(tmp_path: Path) -> None:
    servers = {
        "a": {"command": "x", "env": {"API_KEY": "canary-1", "LOG": "ghp_canaryabcdefghijklmnopqrstuvwxyz0123456"}},
        "b": {"url": "https://x/?api_key=canary9876543210", "headers": {"Authorization": "Bearer canary-2"}},
    }
    config = mcp(tmp_path, servers, trusted=False)
    a, b = config.servers["a"], config.servers["b"]
    assert isinstance(a, LocalServer) and a.env["API_KEY"] == Secret("canary-1")
    assert isinstance(b, RemoteServer) and b.token == Secret("canary-2")
    assert config.notices[:2] == tuple(
        f"mcpServers.a.env.{name}: is a secret in a file; write ${{env:NAME}} or ${{credential:NAME}}"
        for name in ("API_KEY", "LOG")
    )
    assert config.question is not None
    state = MemoryState()
    read_config(tmp_path / "project" / "mcp.json", state=state).trust()
    for text in (config.question.text(), repr(a), repr(config.notices), repr(state.read("files"))):
        assert "canary" not in text
    assert "mcpServers.a.env.API_KEY" in config.question.text()


@pytest.mark.parametrize("reference", ["${env:NOT-A-NAME:-canary}", "${input:key:-canary}", "${env:A B:-a:-canary}"])
def test_the_default_of_a_bad_reference_is_shown_nowhere(tmp_path: Path, reference: str) -> None:
    for entry in ({"command": "x", "env": {"A": reference}}, {"command": "x", "args": [reference]}):
        with pytest.raises(ConfigurationError) as caught:
            mcp(tmp_path, {"a": entry})
        assert reference.partition(":-")[0] in str(caught.value) and "canary" not in str(caught.value)


def test_the_default_of_a_reference_is_shown_unless_it_looks_like_a_key(tmp_path: Path) -> None:
    key = "ghp_canaryabcdefghijklmnopqrstuvwxyz0123456"
    lines = {
        default: lines_of(
            "mcp.json", json.dumps({"mcpServers": {"a": {"env": {"X": f"${{env:X:-{default}}}"}}}}).encode()
        )
        for default in (key, "plain")
    }
    assert lines[key] == ("mcpServers.a.env.X = (a secret, which is not shown)",)
    assert lines["plain"] == ('mcpServers.a.env.X = "${env:X:-plain}"',)


def test_what_others_take_for_approval_approves_nothing(tmp_path: Path) -> None:
    config = mcp(tmp_path, {"a": {"command": "x", "alwaysAllow": ["*"], "autoApprove": True, "icon": "y"}})
    assert config.approvals.rules == () and config.approvals.default == "ask"
    assert [notice.partition(":")[0] for notice in config.notices] == [
        "mcpServers.a.alwaysAllow",
        "mcpServers.a.autoApprove",
        "mcpServers.a.icon",
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"command": "x", "args": ["${env:HOME_KEY}"]}, "mcpServers.a.args: ${env:HOME_KEY} cannot stand here"),
        ({"command": "${X}"}, "mcpServers.a.command: ${X} cannot stand here"),
        ({"url": "https://x/${TOKEN}"}, "mcpServers.a.url: ${TOKEN} cannot stand here"),
        ({"command": "x", "env": {"A": "${input:key}"}}, "mcpServers.a.env.A: ${input:key} is no reference"),
        ({"command": "x", "env": {"A": "${env:NOT_THERE}"}}, "mcpServers.a.env.A: the environment has no NOT_THERE"),
        ({"command": "x", "env": {"A": 1}}, "mcpServers.a.env.A: must be a text"),
        ({"command": "x", "args": "a b"}, "mcpServers.a.args: must be a list of texts"),
        ({"command": ["x"]}, "mcpServers.a.command: must be a text"),
        ({"command": ""}, "mcpServers.a.command: must be a text"),
        ({}, "mcpServers.a: must have either command or url"),
        ({"command": "x", "url": "https://x"}, "mcpServers.a: must have either command or url"),
        ({"command": "x", "type": "http"}, "mcpServers.a.type: http is no way"),
        ({"url": "https://x", "type": "carrier-pigeon"}, "mcpServers.a.type: carrier-pigeon is no way"),
        ({"url": "https://x", "headers": {"authorization": "Basic abc"}}, "authorization: must be Bearer"),
        ({"url": "https://x", "type": ["http"]}, "mcpServers.a.type: ['http'] is no way"),
        ({"command": "x", "cwd": "~\0"}, "a.cwd: must be a path"),
        ({"command": "x", "garrison": {"netwrok": True}}, "a.netwrok: there is no such setting; did you mean network?"),
        ({"command": "x", "garrison": {"command": ["y"]}}, "mcpServers.a.garrison.command: belongs to"),
        ("npx x", "mcpServers.a: must be an object"),
    ],
)
def test_what_is_wrong_in_json_is_named(tmp_path: Path, entry: object, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mcp(tmp_path, {"a": entry})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"mcpServers": {"a": {"command": "x", "command": "y"}}}', "duplicate member name"),
        ('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}', "duplicate member name"),
        ('{"mcpServers": {}, // all of them\n}', "comments and trailing commas are no JSON"),
        ('{"mcpServers": {}, "servers": {}}', "must have one of mcpServers and servers"),
        ('{"tools": {}}', "must have one of mcpServers and servers"),
        ("[]", "must be a JSON object"),
        ("{" * 100, "Invalid JSON"),
        ('{"mcpServers": {"A b": {"command": "x"}, "a-b": {"command": "y"}}}', "another server has the name a-b"),
        ('{"mcpServers": {"1": {"command": "x"}}}', "must begin with a letter"),
    ],
)
def test_json_is_strict(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read(written(tmp_path / "project" / "mcp.json", text))


def test_a_file_beside_it_is_not_found_by_its_name_alone(tmp_path: Path) -> None:
    written(tmp_path / "project" / "server.py", "")
    entry = {"command": "python", "args": ["server.py"]}
    assert "set cwd" in mcp(tmp_path, {"a": entry}).notices[0]
    assert mcp(tmp_path, {"a": {**entry, "cwd": "${workspaceFolder}"}}).notices == ()


# Whom to believe.

LOCAL = '[servers.a]\ncommand = ["x", "y"]\n'


def test_a_file_of_ones_own_is_believed_and_one_of_a_project_is_not(tmp_path: Path) -> None:
    own = written(tmp_path / "home" / ".config" / "garrison" / "host.toml", LOCAL)
    deep = written(tmp_path / "home" / ".config" / "garrison" / "more" / "host.toml", LOCAL)
    project = written(tmp_path / "project" / "host.toml", LOCAL)
    for path in (own, deep):
        assert read(path, trusted=False).question is None
    question = read(project, trusted=False).question
    assert question is not None and question.path == str(project) and not question.changed
    assert question.lines == ('servers.a.command = ["x", "y"]',)
    assert read(project, trusted=True).question is None


def test_where_ones_own_files_are_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert config_folder() == f"{tmp_path}/elsewhere/garrison"
    assert read(written(tmp_path / "elsewhere" / "garrison" / "a.toml", LOCAL), trusted=False).question is None
    assert read(written(tmp_path / "elsewhere" / "garrison-not" / "a.toml", LOCAL), trusted=False).question is not None
    monkeypatch.setenv("XDG_CONFIG_HOME", "project")
    assert config_folder() == f"{tmp_path}/home/.config/garrison"


def test_a_link_in_ones_own_folder_to_a_project_is_the_projects(tmp_path: Path) -> None:
    project = written(tmp_path / "project" / "host.toml", LOCAL)
    folder = tmp_path / "home" / ".config" / "garrison"
    folder.mkdir(parents=True)
    (folder / "host.toml").symlink_to(project)
    assert untrusted(folder / "host.toml", project.read_bytes(), MemoryState()) is not None
    assert read(folder / "host.toml", trusted=False).question is not None


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_a_folder_that_others_can_write_to_is_nobodys_own(tmp_path: Path) -> None:
    path = written(tmp_path / "home" / ".config" / "garrison" / "host.toml", LOCAL)
    path.parent.chmod(0o777)
    assert read(path, trusted=False).question is not None
    path.parent.chmod(0o755)
    assert read(path, trusted=False).question is None


def test_an_approved_file_is_believed_until_one_byte_changes(tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state")
    path = written(tmp_path / "project" / "host.toml", LOCAL)
    config = read_config(path, state=state)
    assert config.question is not None
    config.trust()
    assert read_config(path, state=state).question is None
    written(path, LOCAL.replace('"y"', '"z"'))
    question = read_config(path, state=state).question
    assert question is not None and question.changed
    assert question.lines == (
        'servers.a.command = ["x", "z"]',
        'changed: no more: servers.a.command = ["x", "y"]',
        'changed: new: servers.a.command = ["x", "z"]',
    )
    written(path, LOCAL + "\n")
    question = read_config(path, state=state).question
    assert question is not None and "something that is not shown" in question.lines[-1]
    written(path, LOCAL)
    assert read_config(path, state=state).question is None
    copy = written(tmp_path / "project" / "other.toml", LOCAL)
    assert read_config(copy, state=state).question is not None, "of one path only"


def test_what_was_shown_is_what_is_approved(tmp_path: Path) -> None:
    state = MemoryState()
    path = written(tmp_path / "project" / "host.toml", LOCAL)
    config = read_config(path, state=state)
    written(path, LOCAL.replace('"y"', '"evil"'))
    config.trust()
    assert read_config(path, state=state).question is not None


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o666, 0o620])
def test_a_file_that_others_can_change_is_refused(tmp_path: Path, mode: int, heard: list[events.Event]) -> None:
    path = written(tmp_path / "project" / "host.toml", LOCAL, mode)
    with pytest.raises(InsecureConfigurationError, match="can change it"):
        read(path)
    assert [(event.name, event.decision) for event in heard] == [("config.untrusted", "refused")]
    path.chmod(0o644)
    assert read(path).servers


def test_every_line_shows_what_is_hidden(tmp_path: Path) -> None:
    data = json.dumps({"mcpServers": {"a\u202e": {"command": "x", "args": ["\x1b[2J", "a\nmcpServers.b.command = 1"]}}})
    lines = lines_of("x.json", data.encode())
    assert len(lines) == 2 and all(line.isprintable() and line.isascii() for line in lines)


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_any_servers_are_read_or_refused(value: object) -> None:
    from garrison.host.config_json import read_servers

    with contextlib.suppress(ConfigurationError):
        read_servers({"mcpServers": value}, "x.json", folder="/", lookup=lambda name, at: Secret(name))
    with contextlib.suppress(ConfigurationError):
        assert lines_of("x.json", json.dumps({"mcpServers": value}).encode())
