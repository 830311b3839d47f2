"""Settings from a TOML file: every one can be set, and nothing that is not a setting is let pass."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from garrison import Limits, SecurityPolicy, Timeouts
from garrison.cli.options import parser_for
from garrison.errors import ConfigurationError, InsecureConfigurationError
from garrison.policy.rates import Rate, Rates
from garrison.policy.security import TOLERANCES
from garrison.policy.toml import ServeSettings, Settings, read_toml


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def read(file: Path, text: str | bytes) -> Settings:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    file.chmod(0o600)
    return read_toml(file)


WHOLE = """
profile = "compat"
allowed_hosts = ["mcp.example.com", "mcp.example.com:8443"]
allowed_origins = ["https://app.example.com"]
trusted_proxies = ["10.0.0.0/8", "unix"]
public_url = "https://mcp.example.com/mcp"
tolerate = ["accept"]
hygiene = "strip"
redact_results = true
dangerously_skip_hygiene = "texts of a type setter"
dangerously_allow_unauthenticated = "behind the gateway"
dangerously_allow_unsafe_socket_path = "a container of its own"

[limits]
connections = 1000

[timeouts]
handler = 30
idle = 2.5

[rates]
profile = "public"
principal = { per_second = 0.5, burst = 3 }
tenant = { per_second = 100, burst = 1000 }
completion.burst = 5
most_keys = 500

[allow_insecure_http_hosts]
"10.1.2.3" = "a private network"

[serve]
http = "127.0.0.1:8000"
ws = true
path = "/here"
"""


def test_a_whole_file(file: Path) -> None:
    found = read(file, WHOLE)
    assert found.policy == SecurityPolicy(
        profile="compat",
        limits=Limits(connections=1000),
        timeouts=Timeouts(handler=30, idle=2.5),
        rates=Rates.public(principal=Rate(0.5, 3), tenant=Rate(100, 1000), completion=Rate(5, 5), most_keys=500),
        allowed_hosts=("mcp.example.com", "mcp.example.com:8443"),
        allowed_origins=("https://app.example.com",),
        trusted_proxies=("10.0.0.0/8", "unix"),
        public_url="https://mcp.example.com/mcp",
        tolerate=("accept",),
        hygiene="strip",
        redact_results=True,
        dangerously_skip_hygiene="texts of a type setter",
        allow_insecure_http_hosts={"10.1.2.3": "a private network"},
        dangerously_allow_unauthenticated="behind the gateway",
        dangerously_allow_unsafe_socket_path="a container of its own",
    )
    assert found.serve == ServeSettings(http="127.0.0.1:8000", ws=True, path="/here")
    assert {"profile", "limits.connections", "timeouts.idle", "serve.ws", "tolerate", "rates.tenant"} <= found.named
    assert "limits.threads" not in found.named
    assert SecurityPolicy.from_toml(file) == found.policy
    # no field of the policy is left out above
    assert {field.name for field in dataclasses.fields(SecurityPolicy)} <= {name.split(".")[0] for name in found.named}


def test_the_file_of_the_documentation(file: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    found = read(file, text)
    assert found.policy.timeouts.handler == 30 and found.serve.ws is True
    section = page.split("\n### How to listen\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| (?:`(--[a-z-]+)` )?\|", section, re.MULTILINE)
    options = parser_for("run").parse_args(["server.py"])
    names = [each.name for each in dataclasses.fields(ServeSettings)]
    assert rows == [(name, f"--{name.replace('_', '-')}" if hasattr(options, name) else "") for name in names]
    named = re.findall(r"^\| `([a-z_]+)` \| `--[a-z-]+[ `][^|]* \|$", page, re.MULTILINE)
    assert sorted(named) == sorted(each.name for each in dataclasses.fields(SecurityPolicy))


SERVE: dict[str, object] = {
    "workers": 3,
    "ws_max_message_size": 1000,
    "ws_subprotocol": "mcp.v2",
    "ws_compression": True,
    "unix_max_message_size": 1000,
    "tls_minimum": "1.3",
    "tls_reload": 0.5,
}
"""Values of the settings that are no paths, and are checked."""


def test_an_empty_file_is_the_default(file: Path) -> None:
    found = read(file, "")
    assert found.policy == SecurityPolicy() and found.serve == ServeSettings() and found.named == frozenset()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_every_limit(name: str, file: Path) -> None:
    assert getattr(read(file, f"limits.{name} = 7").policy.limits, name) == 7


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Timeouts)])
def test_every_time_out(name: str, file: Path) -> None:
    assert getattr(read(file, f"[timeouts]\n{name} = 0.5").policy.timeouts, name) == 0.5


@pytest.mark.parametrize("field", dataclasses.fields(Rates), ids=lambda field: field.name)
@pytest.mark.parametrize("profile", [Rates.default, Rates.public])
def test_every_rate(field: dataclasses.Field[Any], profile: Callable[[], Rates], file: Path) -> None:
    text, value = ("7", 7) if field.type == "int" else ("{ per_second = 0.5, burst = 7 }", Rate(0.5, 7))
    rates = read(file, f"[rates]\nprofile = '{profile.__name__}'\n{field.name} = {text}").policy.rates
    assert rates == dataclasses.replace(profile(), **{field.name: value})


@pytest.mark.parametrize("field", dataclasses.fields(ServeSettings), ids=lambda field: field.name)
def test_every_setting_of_serve(field: dataclasses.Field[Any], file: Path) -> None:
    value = SERVE.get(field.name, "/x")
    text = json.dumps(value)
    serve = read(file, f"[serve]\n{field.name} = {text}").serve
    assert dataclasses.asdict(serve) == dataclasses.asdict(ServeSettings()) | {field.name: value}


def test_a_preset_is_what_the_other_keys_change(file: Path) -> None:
    assert read(file, 'profile = "compat"').policy == SecurityPolicy.compat()
    assert read(file, 'profile = "conformance"').policy == SecurityPolicy.conformance()
    assert read(file, 'profile = "compat"\ntolerate = []').policy.tolerate == ()
    assert read(file, 'profile = "strict"').policy == SecurityPolicy.strict()


@pytest.mark.attack("ATK-112")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('alowed_hosts = ["a"]', "alowed_hosts: there is no such setting; did you mean allowed_hosts?"),
        ('allowed_host = ["a"]', "allowed_host: there is no such setting; did you mean allowed_hosts?"),
        ("[limit]\nconnections = 1", "limit: there is no such setting; did you mean limits?"),
        ("[nonsense]\nx = 1", "nonsense: there is no such setting; there are allow_insecure_http_hosts, "),
        ("[limits]\nconections = 1", "limits.conections: there is no such setting; did you mean connections?"),
        ("[timeouts]\nhandlers = 1", "timeouts.handlers: there is no such setting; did you mean handler?"),
        ("[serve]\nhttps = ':1'", "serve.https: there is no such setting; did you mean http?"),
        ("[serve]\nworkers = '2'", "serve.workers: must be a whole number"),
        ("[serve.tls]\ncert = 'x'", "serve.tls: there is no such setting"),
        ("limits.connections.x = 1", "limits.connections: must be a whole number"),
        ('allowed_hosts = "a"', "allowed_hosts: must be a list of texts"),
        ('allowed_hosts = ["a", 1]', "allowed_hosts: must be a list of texts"),
        ("public_url = 1", "public_url: must be a text"),
        ("public_url = 1979-05-27", "public_url: must be a text"),
        ("limits = 1", "limits: must be a table, [limits]"),
        ("serve = 'http'", "serve: must be a table, [serve]"),
        ("[[serve]]\nhttp = ':1'", "serve: must be a table, [serve]"),
        ("[limits]\nconnections = 1.0", "limits.connections: must be a whole number"),
        ("[limits]\nconnections = true", "limits.connections: must be a whole number"),
        ("[limits]\nconnections = '1'", "limits.connections: must be a whole number"),
        ("[limits]\nconnections = 0", "Limits.connections must be a positive integer"),
        ("[timeouts]\nidle = '1'", "timeouts.idle: must be a number"),
        ("[timeouts]\nidle = nan", "Timeouts.idle must be a positive number"),
        ("[timeouts]\nidle = true", "timeouts.idle: must be a number"),
        ("rates = 'public'", "rates: must be a table, [rates]"),
        ("[rates]\nprofile = 'none'", "rates.profile: must be one of default, public"),
        ("[rates]\nprofile = 1", "rates.profile: must be one of default, public"),
        ("[rates]\nprincipals = 1", "rates.principals: there is no such setting; did you mean principal?"),
        ("[rates]\nprincipal = 100", "rates.principal: must be a table, [rates.principal]"),
        ("[rates]\nprincipal = { rate = 1 }", "rates.principal.rate: there is no such setting"),
        ("[rates]\nprincipal.per_second = '1'", "rates.principal.per_second: must be a number"),
        ("[rates]\nprincipal.per_second = true", "rates.principal.per_second: must be a number"),
        ("[rates]\nprincipal.per_second = 0", "rates.principal: Rate.per_second must be a number above 0"),
        ("[rates]\nprincipal.per_second = nan", "rates.principal: Rate.per_second must be a number above 0"),
        ("[rates]\nprincipal.per_second = inf", "rates.principal: Rate.per_second must be a number above 0"),
        ("[rates]\nprincipal.burst = 0", "rates.principal: Rate.burst must be a positive integer"),
        ("[rates]\nprincipal.burst = 1.5", "rates.principal.burst: must be a whole number"),
        ("[rates]\ntenant.burst = 5", "rates.tenant.per_second: must be given"),
        ("[rates]\naddress = { per_second = 5 }", "rates.address.burst: must be given"),
        ("[rates]\naddress = false", "rates.address: must be a table, [rates.address]"),
        ("[rates]\nmost_keys = 0", "Rates.most_keys must be a positive integer"),
        ("[serve]\nws = 1", "serve.ws: must be true, or HOST:PORT"),
        ("[serve]\ntls_cert = true", "serve.tls_cert: must be a text"),
        ("[serve]\nws_max_message_size = '1 MiB'", "serve.ws_max_message_size: must be a whole number"),
        ("[serve]\nws_max_message_size = 1.5", "serve.ws_max_message_size: must be a whole number"),
        ("[serve]\nws_max_message_size = true", "serve.ws_max_message_size: must be a whole number"),
        ("[serve]\nws_max_message_size = 0", "ServeSettings.ws_max_message_size must be a positive integer"),
        ("[serve]\nunix_max_message_size = 0", "ServeSettings.unix_max_message_size must be a positive integer"),
        ("[serve]\nws_subprotocol = ''", "ServeSettings.ws_subprotocol must be one token"),
        ("[serve]\nws_subprotocol = 'a, b'", "ServeSettings.ws_subprotocol must be one token"),
        ('[serve]\nws_subprotocol = "a\\r\\nx: y"', "ServeSettings.ws_subprotocol must be one token"),
        ("[serve]\nws_compression = 'yes'", "serve.ws_compression: must be true or false"),
        (
            "[serve]\nws_compresion = true",
            "serve.ws_compresion: there is no such setting; did you mean ws_compression?",
        ),
        ("[serve]\ntls_minimum = '1.1'", 'ServeSettings.tls_minimum must be "1.2" or "1.3"'),
        ("[serve]\ntls_reload = 0", "ServeSettings.tls_reload must be a positive number of seconds"),
        ("[serve]\ntls_reload = inf", "ServeSettings.tls_reload must be a positive number of seconds"),
        ("[serve]\ntls_reload = '5'", "serve.tls_reload: must be a number"),
        ("profile = 'lax'", "profile: must be one of strict, compat, conformance"),
        ("profile = []", "profile: must be one of strict, compat, conformance"),
        ("tolerate = ['x']", "'x' is none of"),
        ("allow_insecure_http_hosts = ['a']", "allow_insecure_http_hosts: must be a table of texts"),
        ("[allow_insecure_http_hosts]\na = true", "allow_insecure_http_hosts: must be a table of texts"),
        ("[allow_insecure_http_hosts]\na = ' '", "each host needs a written reason"),
        ("dangerously_allow_unauthenticated = true", "dangerously_allow_unauthenticated: must be a text"),
        ("dangerously_allow_unauthenticated = ' '", "must be a text that says something"),
        ("public_url = 'http://a'", "public_url must begin with https://"),
        ("x = ?\n", "not TOML: Invalid value (at line 1"),
        ("\n\nx", "not TOML: Expected '=' after a key"),
        ("a = 1\na = 1\n", "not TOML: Cannot overwrite a value (at line 2"),
        (b"x = 1\ny = '\xff'", "not TOML: not UTF-8 (at line 2)"),
        ("x = " + "[" * 100_000, "not TOML: "),
        ("x = " + "1" * 5_000, "not TOML: a number too long"),
    ],
)
def test_what_is_no_setting_is_refused_by_its_name(text: str | bytes, said: str, file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(file, text)
    assert str(caught.value).startswith(f"{file}: ") and said in str(caught.value)


def test_every_tolerance_can_be_named(file: Path) -> None:
    assert read(file, f"tolerate = {list(TOLERANCES)}").policy.tolerate == tuple(TOLERANCES)


@pytest.mark.parametrize("text", ["token = 'sesame-sesame-sesame'", "[serve]\ntoken = 'sesame-sesame-sesame'"])
def test_a_secret_does_not_stand_in_the_file(text: str, file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"GARRISON_TOKEN, or serve\.token_file") as caught:
        read(file, text)
    assert "sesame" not in str(caught.value)
    assert read(file, "serve.token_file = 'token'").serve.token_file == str(file.parent / "token")


def test_relative_paths_begin_at_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[serve]\nhttp = 'unix:run/s.sock'\nunix = 'u.sock'\ntls_cert = '/etc/c.pem'\ntls_key = 'k.pem'\n"
    serve = read(file, text + "tls_client_ca = 'ca/roots.pem'").serve
    here = file.parent
    assert serve.http == f"unix:{here}/run/s.sock" and serve.unix == f"{here}/u.sock"
    assert (serve.tls_cert, serve.tls_key) == ("/etc/c.pem", f"{here}/k.pem")
    assert serve.tls_client_ca == f"{here}/ca/roots.pem"
    monkeypatch.chdir(here)
    assert read_toml(file.name).serve.unix == "u.sock"
    assert read(file, "[serve]\nhttp = '127.0.0.1:1'\npath = '/x'").serve == ServeSettings(
        http="127.0.0.1:1", path="/x"
    )


@pytest.mark.parametrize(("mode", "said"), [(0o620, "chmod go-w"), (0o602, "chmod go-w"), (0o666, "chmod go-w")])
def test_a_file_that_others_can_change_is_refused(mode: int, said: str, file: Path) -> None:
    file.write_text("")
    file.chmod(mode)
    with pytest.raises(InsecureConfigurationError, match=said):
        read_toml(file)
    file.chmod(0o644)  # that others may read it is no harm: no secret is in it
    assert read_toml(file).policy == SecurityPolicy()


def test_a_file_of_another_user_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(file, "")
    owner = file.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner:
        with pytest.raises(InsecureConfigurationError, match="belongs to another user"):
            read_toml(file)
    else:  # root's files can be read by everybody
        assert read_toml(file).policy == SecurityPolicy()
        os.chown(file, 12345, -1)
        with pytest.raises(InsecureConfigurationError, match=r"another user \(uid 12345\)"):
            read_toml(file)


def test_what_is_no_readable_file_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_toml(file)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        read_toml(tmp_path)
    with pytest.raises(ConfigurationError, match="null"):
        read_toml("a\0b")
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: it must not be waited for
    with pytest.raises(ConfigurationError, match="not a regular file"):
        read_toml(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="larger than 1024 KiB"):
        read(file, "#" * (1024 * 1024 + 1))
    assert read(file, "#" * (1024 * 1024)).named == frozenset()


def test_what_was_opened_is_what_is_checked(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is given to a good file right after everybody's file was opened."""
    read(file, "limits.batch = 3")
    good = tmp_path / "good.toml"
    file.rename(good)
    file.write_text("dangerously_allow_unauthenticated = 'mine now'")
    file.chmod(0o666)
    real = os.open

    def exchange(path: str, *arguments: int) -> int:
        descriptor = real(path, *arguments)
        os.replace(good, file)
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", exchange)
        with pytest.raises(InsecureConfigurationError, match="others can change it"):
            read_toml(file)
    assert read_toml(file).policy == SecurityPolicy(limits=Limits(batch=3))
