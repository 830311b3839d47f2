"""Every option of `garrison run` reaches the server, and the command line comes before the file and the file before the
code."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from garrison import Limits, Rate, Rates, SecurityPolicy, Server, Timeouts
from garrison.cli import main
from garrison.cli.options import parser_for
from garrison.cli.plan import Network, Plan, leaves, make_plan
from garrison.errors import ConfigurationError, InsecureConfigurationError
from garrison.policy.security import TOLERANCES
from garrison.policy.tls import TlsServerConfig
from garrison.policy.toml import ServeSettings
from garrison.policy.transports import UnixSocketConfig, WebSocketConfig
from tests.support.certs import Authority

from .commands import SERVER, TOKEN, garrison

DOCS = Path(__file__).resolve().parents[2] / "docs"
ONE = 'from garrison import Server\nserver = Server("one")\n'


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GARRISON_TOKEN", raising=False)
    return tmp_path


def plan(*words: str, code: SecurityPolicy | None = None) -> Plan:
    options = parser_for("run").parse_intermixed_args(["server.py", *words])
    return make_plan(options, code or SecurityPolicy())


def network(*words: str) -> Network:
    found = plan(*words).network
    assert found is not None
    return found


def settings(place: Path, text: str, name: str = "settings.toml") -> str:
    file = place / name
    file.write_text(text)
    file.chmod(0o600)
    return str(file)


# The policy


POLICY: dict[str, tuple[list[str], Any]] = {
    "profile": (["--profile", "compat"], "compat"),
    "allowed_hosts": (["--allowed-host", "a.example", "--allowed-host", "b:1"], ("a.example", "b:1")),
    "allowed_origins": (["--allowed-origin", "https://a.example"], ("https://a.example",)),
    "trusted_proxies": (["--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "unix"], ("10.0.0.0/8", "unix")),
    "public_url": (["--public-url", "https://a.example/mcp"], "https://a.example/mcp"),
    "tolerate": (["--tolerate", "accept"], ("accept",)),
    "allow_insecure_http_hosts": (["--allow-insecure-http", "a=a test = good"], {"a": "a test = good"}),
    "dangerously_allow_unauthenticated": (["--dangerously-allow-unauthenticated", "a test"], "a test"),
    "dangerously_allow_unsafe_socket_path": (["--dangerously-allow-unsafe-socket-path", "a test"], "a test"),
}
POLICY |= {
    "hygiene": (["--hygiene", "strip"], "strip"),
    "redact_results": (["--redact-results"], True),
    "dangerously_skip_hygiene": (["--dangerously-skip-hygiene", "a test"], "a test"),
}
for _field in dataclasses.fields(Rates):
    POLICY[f"rates.{_field.name}"] = (["--rate", f"{_field.name}=120/minute,30"], Rate(2, 30))
POLICY["rates.most_keys"] = (["--rate", "most_keys=7"], 7)
for _field in dataclasses.fields(Limits):
    POLICY[f"limits.{_field.name}"] = (["--limit", f"{_field.name}=7"], 7)
for _field in dataclasses.fields(Timeouts):
    POLICY[f"timeouts.{_field.name}"] = (["--timeout", f"{_field.name}=0.5"], 0.5)


def test_every_setting_of_the_policy_has_an_option() -> None:
    assert leaves(SecurityPolicy()).keys() == POLICY.keys()


@pytest.mark.parametrize("name", POLICY)
def test_an_option_changes_its_setting_and_no_other(name: str) -> None:
    words, value = POLICY[name]
    code = SecurityPolicy(limits=Limits(batch=9), allowed_hosts=("code.example",))
    found = plan(*words, code=code)
    expected = leaves(code) | {name: value}
    if name == "profile":  # the preset's own value comes with it
        expected["tolerate"] = tuple(TOLERANCES)
    assert leaves(found.policy) == expected
    assert found.sources[name] == "command line"
    others = {source for other, source in found.sources.items() if other not in (name, "tolerate")}
    assert others <= {"default", "code"}


def test_several_limits_at_once() -> None:
    found = plan("--limit", "batch=1", "--limit", "rounds=2", "--timeout", "idle=3").policy
    assert (found.limits, found.timeouts) == (Limits(batch=1, rounds=2), Timeouts(idle=3))


@pytest.mark.parametrize(
    ("code", "profile", "expected"),
    [
        (SecurityPolicy(), "conformance", SecurityPolicy.conformance()),
        (SecurityPolicy.compat(), "strict", SecurityPolicy()),
        (SecurityPolicy.conformance(), "compat", SecurityPolicy.compat()),
        (SecurityPolicy(allowed_hosts=("a",)), "compat", SecurityPolicy.compat(allowed_hosts=("a",))),
        (SecurityPolicy.compat(limits=Limits(batch=1)), "strict", SecurityPolicy(limits=Limits(batch=1))),
        (SecurityPolicy(tolerate=("accept",)), "strict", SecurityPolicy(tolerate=("accept",))),
    ],
)
def test_a_profile_takes_the_place_of_another(code: SecurityPolicy, profile: str, expected: SecurityPolicy) -> None:
    assert plan("--profile", profile, code=code).policy == expected


def test_every_option_is_documented() -> None:
    pages = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("cli.md", "configuration.md"))
    for command in ("run", "call"):
        for word in re.findall(r"(?<![\w-])--[a-z-]+", parser_for(command).format_help()):
            assert f"`{word}`" in pages or f"`{word} " in pages or word == "--help", word


# Where to listen


def test_without_words_it_is_stdio() -> None:
    for words in ([], ["--stdio"]):
        found = plan(*words)
        assert found.network is None and found.unix is None and found.policy == SecurityPolicy()


def test_addresses() -> None:
    assert network("--http", "10.0.0.1:80") == Network("10.0.0.1", 80, None, "/mcp", None, None, True, None)
    assert network("--http", "[::1]:0", "--path", "/x", "--token", TOKEN)[:4] == ("::1", 0, TOKEN, "/x")
    assert network("--ws") == Network("127.0.0.1", 8000, None, "/mcp", None, WebSocketConfig(), False, None)
    assert network("--ws", ":9")[:2] == ("127.0.0.1", 9)
    both = network("--ws", "--http", ":9")
    assert both.http and both.websocket == WebSocketConfig() and both.port == 9
    by_socket = network("--http", "unix:run/s.sock")
    assert by_socket.unix == UnixSocketConfig(os.path.abspath("run/s.sock")) and by_socket.http
    assert plan("--unix", "s.sock").unix == UnixSocketConfig(os.path.abspath("s.sock"))


def test_tls() -> None:
    words = ["--http", ":0", "--tls-cert", "c.pem", "--tls-key", "k.pem"]
    assert network(*words).tls == TlsServerConfig(certificate="c.pem", key="k.pem")
    mutual = network(*words, "--tls-client-ca", "ca.pem", "--tls-minimum", "1.3").tls
    assert mutual == TlsServerConfig(certificate="c.pem", key="k.pem", client_ca="ca.pem", minimum="1.3")


def test_the_token_of_a_file(place: Path) -> None:
    file = place / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    found = plan("--http", ":0", "--token-file", "token")
    assert found.network is not None and (found.network.token, found.token_from) == (TOKEN, "token")
    for mode in (0o640, 0o604, 0o644):
        file.chmod(mode)
        with pytest.raises(InsecureConfigurationError, match="chmod 600"):
            plan("--http", ":0", "--token-file", "token")
    file.chmod(0o600)
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match="no token in it"):
        plan("--http", ":0", "--token-file", "token")


@pytest.mark.attack("ATK-112")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--limit conections=1", "--limit conections: there is no such setting; did you mean connections?"),
        ("--limit connections", "--limit connections: must be NAME=VALUE"),
        ("--limit connections=x", "--limit connections=x: must be a whole number"),
        ("--limit connections=1.5", "--limit connections=1.5: must be a whole number"),
        ("--limit connections=0", "Limits.connections must be a positive integer"),
        ("--timeout 5", "--timeout 5: must be NAME=SECONDS, for instance handler=30"),
        ("--timeout handlr=5", "--timeout handlr: there is no such setting; did you mean handler?"),
        ("--timeout handler=x", "--timeout handler=x: must be a number of seconds"),
        ("--timeout handler=nan", "Timeouts.handler must be a positive number"),
        ("--allow-insecure-http a", "--allow-insecure-http a: must be HOST=REASON"),
        ("--allow-insecure-http a=", "--allow-insecure-http a=: must be HOST=REASON"),
        ("--tolerate x", "'x' is none of"),
        ("--public-url http://a", "must begin with https://"),
        ("--stdio --http :0", "--stdio: not allowed with --http"),
        ("--stdio --ws", "--stdio: not allowed with --ws"),
        ("--unix s --http :0", "--unix: not allowed with --http or --ws"),
        ("--unix s --ws", "--unix: not allowed with --http or --ws"),
        ("--ws :1 --http :0", "give --ws no address"),
        ("--ws nowhere", "--ws nowhere: must be HOST:PORT"),
        ("--http unix:", "UnixSocketConfig.path must be the path of a file"),
        ("--http :0 --path x", "--path x: must start with /"),
        ("--http :0 --tls-cert c", "--tls-cert and --tls-key"),
        ("--http :0 --tls-client-ca c", "--tls-cert and --tls-key"),
        ("--http :0 --tls-minimum 1.3", "--tls-cert and --tls-key"),
        ("--path /x", "--path is for --http and --ws"),
        ("--unix s --token " + TOKEN, "--token is for --http and --ws"),
        ("--stdio --tls-cert c", "--tls-cert is for --http and --ws"),
        ("--http :0 --token a --token-file b", "--token: not allowed with --token-file"),
        ("--config missing.toml", "missing.toml: No such file"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name(words: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(*words.split())
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["--allowd-host", "a"],
        ["--profile", "lax"],
        ["--tls-minimum", "1.1"],
        ["--dangerously-allow-unauthenticated"],
        ["--dangerously-allow-unauthenticated", " "],
        ["--token", ""],
        ["--ws", ":1", "server.py"],  # the target is there already
    ],
)
def test_words_that_are_no_options_are_status_2(
    words: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "server.py").write_text(ONE)
    assert main(["run", "server.py", *words]) == 2
    assert "usage: garrison run" in capsys.readouterr().err


def test_a_target_after_ws_is_taken_for_its_address_and_said_so() -> None:
    assert garrison("run", "--ws", "server.py").returncode == 2


# Command line, file, code


def test_the_file_replaces_the_policy_of_the_code(place: Path) -> None:
    file = settings(place, "allowed_hosts = ['file.example']\n[limits]\nbatch = 3\nrounds = 10\n")
    code = SecurityPolicy(allowed_hosts=("code.example",), allowed_origins=("https://code.example",))
    found = plan("--config", file, "--limit", "threads=2", code=code)
    assert found.policy == SecurityPolicy(allowed_hosts=("file.example",), limits=Limits(batch=3, threads=2))
    assert found.sources["allowed_hosts"] == "file" and found.sources["limits.threads"] == "command line"
    assert found.sources["limits.rounds"] == "file"  # named, though with the default's value
    assert found.sources["allowed_origins"] == "default" and found.replaced == ("allowed_hosts", "allowed_origins")
    assert plan(code=code).sources["allowed_origins"] == "code"


def test_the_command_line_comes_before_the_file(place: Path) -> None:
    text = "profile = 'compat'\nallowed_hosts = ['file']\n[serve]\nhttp = ':1'\nws = true\npath = '/file'\n"
    file = settings(place, text + "tls_cert = 'c.pem'\ntls_key = 'k.pem'")
    found = plan("--config", file)
    assert found.policy == SecurityPolicy.compat(allowed_hosts=("file",))
    tls = TlsServerConfig(certificate=str(place / "c.pem"), key=str(place / "k.pem"))
    assert found.network == Network("127.0.0.1", 1, None, "/file", tls, WebSocketConfig(), True, None)
    found = plan("--config", file, "--http", ":2", "--path", "/word", "--allowed-host", "word", "--tls-key", "w.pem")
    assert found.policy.allowed_hosts == ("word",)
    assert found.network is not None and found.network.websocket is None  # --http says the whole of where to listen
    assert (found.network.port, found.network.path) == (2, "/word")
    assert found.network.tls == TlsServerConfig(certificate=str(place / "c.pem"), key="w.pem")
    assert plan("--config", file, "--stdio").network is None
    assert plan("--config", file, "--unix", "s").unix == UnixSocketConfig(os.path.abspath("s"))


LISTENERS = {
    "stdio": "",
    "http": "http = ':0'\n",
    "ws": "ws = true\n",
    "unix": "unix = 's'\n",
    "http over unix": "http = 'unix:s'\n",
}
NETWORK = {"http", "ws", "http over unix"}
SERVE: dict[str, tuple[str, set[str]]] = {
    "ws_max_message_size": ("1000", {"ws"}),
    "ws_subprotocol": ("'mcp.v2'", {"ws"}),
    "ws_compression": ("true", {"ws"}),
    "unix_max_message_size": ("1000", {"unix"}),
    "socket_group": ("'0'", {"unix", "http over unix"}),
    "socket_user": ("'0'\nsocket_group = '0'", {"unix", "http over unix"}),
    "path": ("'/x'", NETWORK),
    "workers": ("2", NETWORK),
    "token_file": ("'token'", NETWORK),
    "tls_cert": ("'c'\ntls_key = 'k'", NETWORK),
    "tls_key": ("'k'\ntls_cert = 'c'", NETWORK),
    "tls_client_ca": ("'a'\ntls_cert = 'c'\ntls_key = 'k'", NETWORK),
    "tls_minimum": ("'1.3'\ntls_cert = 'c'\ntls_key = 'k'", NETWORK),
    "tls_reload": ("60\ntls_cert = 'c'\ntls_key = 'k'", NETWORK),
}
"""A value of each setting of a listener, with what else it needs, and the listeners that have a use for it."""


def test_every_setting_of_serve_says_where_to_listen_or_is_for_a_listener() -> None:
    assert {field.name for field in dataclasses.fields(ServeSettings)} == {"http", "ws", "unix", *SERVE}


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("name", SERVE)
def test_a_setting_of_the_file_that_nothing_has_a_use_for_is_refused(name: str, listener: str, place: Path) -> None:
    value, listeners = SERVE[name]
    settings(place, TOKEN, "token")
    if listener in listeners:
        found = plan("--config", settings(place, f"[serve]\n{LISTENERS[listener]}{name} = {value}\n"))
        assert found.network or found.unix
        return
    alone = value.partition("\n")[0]
    file = settings(place, f"[serve]\n{LISTENERS[listener]}{name} = {alone}\n")
    with pytest.raises(ConfigurationError) as caught:
        plan("--config", file)
    assert f"{file}: serve.{name} is for serve." in str(caught.value)
    plan("--config", file, "--stdio")  # then the file's listener does not count, nor what was for it


@pytest.mark.parametrize("name", ["tls_client_ca", "tls_minimum", "tls_reload"])
def test_a_setting_of_tls_without_a_certificate_is_refused(name: str, place: Path) -> None:
    file = settings(place, f"[serve]\nhttp = ':0'\n{name} = {SERVE[name][0].partition(chr(10))[0]}\n")
    for words in ([], ["--http", ":1"]):  # a listener of the command line would have used it
        with pytest.raises(ConfigurationError, match=rf"{name} is set.*--tls-cert and --tls-key"):
            plan("--config", file, *words)
    plan("--config", file, "--http", ":1", "--tls-cert", "c", "--tls-key", "k")


def test_what_only_a_file_says_of_a_listener(place: Path) -> None:
    text = "[serve]\nws = true\nws_max_message_size = 1000\nws_subprotocol = 'mcp.v2'\nws_compression = true\n"
    tls = "tls_cert = '/c.pem'\ntls_key = '/k.pem'\ntls_reload = 60\n"
    file = settings(place, text + tls)
    config = WebSocketConfig(max_message_size=1000, subprotocol="mcp.v2", compression=True)
    expected = TlsServerConfig(certificate="/c.pem", key="/k.pem", reload=60)
    for words in ([], ["--ws"], ["--http", ":0", "--ws"]):
        found = plan("--config", file, *words).network
        assert found is not None and (found.websocket, found.tls) == (config, expected)
    file = settings(place, "[serve]\nunix = '/x/s'\nunix_max_message_size = 1000\n")
    for words in ([], ["--unix", "/x/s"]):
        assert plan("--config", file, *words).unix == UnixSocketConfig("/x/s", max_message_size=1000)


def test_the_token_file_of_the_file_comes_before_the_environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = settings(place, "serve.http = ':0'\nserve.token_file = 'token'")
    settings(place, TOKEN, "token")
    monkeypatch.setenv("GARRISON_TOKEN", "another-token-of-mine")
    found = plan("--config", file)
    assert found.network is not None and (found.network.token, found.token_from) == (TOKEN, str(place / "token"))
    found = plan("--config", file, "--token", "a-token-of-the-words")
    assert found.network is not None and found.network.token == "a-token-of-the-words"
    assert plan("--http", ":0").token_from == "GARRISON_TOKEN"


def test_a_file_is_never_looked_for(place: Path) -> None:
    """A file in the working directory, under any likely name, changes nothing."""
    text = "dangerously_allow_unauthenticated = 'planted'\nnonsense = 1\n"
    for name in ("garrison.toml", ".garrison.toml", "settings.toml", "server.toml", "config.toml", "pyproject.toml"):
        settings(place, text, name)
    assert plan("--http", ":0").policy == SecurityPolicy()
    (place / "server.py").write_text(ONE)
    done = garrison("run", "server.py", cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    done = garrison("run", "server.py", "--config", "garrison.toml", cwd=place)
    assert done.returncode == 2 and "garrison.toml: nonsense: there is no such setting" in done.stderr


# The live server


@pytest.mark.parametrize(
    ("words", "called"),
    [
        ([], ("run_stdio", ())),
        (["--unix", "/x/s"], ("run_unix", (UnixSocketConfig("/x/s"),))),
        (["--ws", ":1", "--token", TOKEN, "--limit", "batch=3"], ("run_http", ())),
    ],
)
def test_the_plan_is_what_is_served(
    words: list[str], called: tuple[str, tuple[object, ...]], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from garrison.server import serve

    seen: list[tuple[str, tuple[object, ...], dict[str, object], SecurityPolicy]] = []
    for name in ("run_stdio", "run_unix", "run_http"):

        def note(server: Server, *arguments: object, _name: str = name, **named: object) -> None:
            named.pop("announce", None)
            seen.append((_name, arguments, named, server.policy))

        monkeypatch.setattr(serve, name, note)
    (place / "server.py").write_text(ONE)
    assert main(["run", "server.py", *words]) == 0
    expected = plan(*words)
    ((name, arguments, named, policy),) = seen
    assert (name, arguments, policy) == (*called, expected.policy)
    assert named == ({} if expected.network is None else expected.network._asdict())


BIG = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "x" * 2000})


def test_a_limit_of_the_words_and_of_the_file_reaches_stdio(place: Path) -> None:
    (place / "server.py").write_text(ONE)
    file = settings(place, "limits.message_bytes = 1000")
    for words in (["--limit", "message_bytes=1000"], ["--config", file]):
        done = garrison("run", "server.py", *words, cwd=place, stdin=BIG + "\n")
        assert "larger than 1000 bytes" in json.loads(done.stdout)["error"]["message"], done.stderr
    done = garrison("run", "server.py", cwd=place, stdin=BIG + "\n")
    assert "larger" not in json.loads(done.stdout)["error"]["message"]


@contextlib.contextmanager
def running(*words: str, cwd: Path, token: str | None = TOKEN) -> Generator[str]:
    """`garrison run`: what it says once it listens."""
    environment = dict(os.environ)
    if token is not None:
        environment["GARRISON_TOKEN"] = token
    log = cwd / "said"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "garrison", "run", *words],
            stderr=said, stdin=subprocess.DEVNULL, cwd=cwd, env=environment,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 15
            while "serves MCP at" not in log.read_text():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield log.read_text()
        finally:
            process.terminate()
            process.communicate(timeout=10)
    assert process.returncode == 0, log.read_text()


Talk = Callable[..., "Said"]


class Said(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def talk(capfd: pytest.CaptureFixture[str]) -> Talk:
    """Run a command that is a client, in this process, which is quicker."""

    def run(*words: str) -> Said:
        capfd.readouterr()
        status = main(words)
        out, err = capfd.readouterr()
        return Said(status, out, err)

    return run


def url(said: str, scheme: str) -> str:
    found = re.search(rf"{scheme}://\S+", said)
    assert found, said
    return found[0]


def test_others_can_reach_it_only_with_everything_that_the_refusal_names(place: Path, talk: Talk) -> None:
    (place / "server.py").write_text(SERVER)
    done = talk("run", "server.py", "--http", "0.0.0.0:0")
    assert done.status == 2 and done.err.count("\n") == 1
    for word in ("--tls-cert", "--tls-key", "--trusted-proxy", "--allowed-host", "--token", "GARRISON_TOKEN"):
        assert word in done.err
    authority = Authority(place)
    leaf = authority.leaf()
    words = ["--tls-cert", str(leaf.certificate), "--tls-key", str(leaf.key), "--allowed-host", "localhost"]
    with running("server.py", "--http", "0.0.0.0:0", *words, cwd=place) as said:
        port = re.search(r"https://0\.0\.0\.0:(\d+)/mcp", said)
        assert port and TOKEN not in said, said
        target = f"https://localhost:{port[1]}/mcp"
        call = ["call", target, "add", "a=1", "b=2", "--token", TOKEN]
        for pins in ([], ["--pin", leaf.pin], ["--pin", authority.leaf().pin, "--pin", leaf.pin]):
            done = talk(*call, "--ca", str(authority.pem), *pins)
            assert done.out == "3\n", done.err
        unknown = talk(*call)
        assert unknown.status == 3 and "name its root by --ca FILE" in unknown.err, unknown.err
        other = talk(*call, "--ca", str(authority.pem), "--pin", authority.leaf().pin)
        assert other.status == 3 and "none of --pin: nothing was sent" in other.err, other.err


def test_client_certificates(place: Path, talk: Talk) -> None:
    (place / "server.py").write_text(SERVER)
    authority = Authority(place)
    leaf, mine = authority.leaf(), authority.leaf(["me@example.com"], client=True)
    words = ["--tls-cert", str(leaf.certificate), "--tls-key", str(leaf.key), "--tls-client-ca", str(authority.pem)]
    with running("server.py", "--http", "127.0.0.1:0", *words, cwd=place, token=None) as said:
        assert "every client must show a certificate" in said and "token:" not in said
        call = ["call", url(said, "https"), "add", "a=1", "b=2", "--ca", str(authority.pem)]
        assert talk(*call).status == 3
        done = talk(*call, "--cert", str(mine.certificate), "--key", str(mine.key))
        assert done.out == "3\n", done.err


@pytest.mark.parametrize("words", [["--ws", "127.0.0.1:0"], ["--http", "127.0.0.1:0", "--ws"]])
def test_websocket(words: list[str], place: Path, talk: Talk) -> None:
    (place / "server.py").write_text(SERVER)
    with running("server.py", *words, "--path", "/here", cwd=place) as said:
        target = url(said, "ws")
        assert target.endswith("/here") and said.count("://") == (2 if "--http" in words else 1)
        call = ["call", target, "add", "a=1", "b=2"]
        assert talk(*call, "--token", TOKEN).out == "3\n"
        assert talk(*call).status == 6
        http = talk("call", target.replace("ws:", "http:"), "add", "a=1", "b=2", "--token", TOKEN)
        assert (http.out == "3\n") == ("--http" in words)


def test_a_unix_socket(place: Path, talk: Talk) -> None:
    (place / "server.py").write_text(SERVER)
    place.chmod(0o700)
    path = place / "s.sock"
    with running("server.py", "--unix", "s.sock", cwd=place) as said:
        assert f"unix:{path}" in said and TOKEN not in said
        done = talk("call", f"unix:{path}", "add", "a=1", "b=2")
        assert done.out == "3\n", done.err
        refused = talk("call", f"unix:{path}", "add", "--token", TOKEN)
        assert refused.status == 2 and "--token is for servers with a URL" in refused.err
    assert not path.exists()


def test_http_over_a_unix_socket(place: Path, talk: Talk) -> None:
    (place / "server.py").write_text(SERVER)
    place.chmod(0o700)
    with running("server.py", "--http", "unix:s.sock", cwd=place) as said:
        assert str(place / "s.sock") in said
        call = ["call", "http://localhost/mcp", "add", "a=1", "b=2", "--unix-socket", str(place / "s.sock")]
        done = talk(*call, "--token", TOKEN)
        assert done.out == "3\n", done.err
        assert talk(*call).status == 6


def test_a_file_with_everything_serves(place: Path, talk: Talk) -> None:
    (place / "server.py").write_text(SERVER)
    authority = Authority(place)
    leaf = authority.leaf()
    settings(place, TOKEN, "token")
    text = f"allowed_hosts = ['localhost']\n[serve]\nhttp = '127.0.0.1:0'\ntls_cert = '{leaf.certificate.name}'\n"
    settings(place, text + f"tls_key = '{leaf.key.name}'\ntoken_file = 'token'\n", "site.toml")
    with running("server.py", "--config", "site.toml", cwd=place, token=None) as said:
        call = ["call", url(said, "https"), "add", "a=1", "b=2", "--ca", str(authority.pem), "--token", TOKEN]
        assert talk(*call).out == "3\n" and TOKEN not in said


def test_relaxations_are_said_with_their_reasons(place: Path) -> None:
    """Once: by the log where nobody else has one, else beside the address."""
    (place / "plain.py").write_text(SERVER)
    (place / "logging_.py").write_text("import logging\nlogging.basicConfig(filename='log')\n" + SERVER)
    words = ["--http", "127.0.0.1:0", "--dangerously-allow-unauthenticated", "it is a test"]
    for name in ("plain.py", "logging_.py"):
        with running(name, *words, cwd=place, token=None) as said:
            assert said.count("dangerously_allow_unauthenticated: it is a test") == 1, said
            assert "no token is asked for" in said
    assert "it is a test" in (place / "log").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["http://127.0.0.1:1/mcp", "--cert", "c"], "--cert and --key belong together"),
        (["http://127.0.0.1:1/mcp", "--allow-insecure-http", "h"], "must be HOST=REASON"),
        (["ws://127.0.0.1:1/mcp", "--unix-socket", "s"], "--unix-socket is for http"),
        (["https://127.0.0.1:1/mcp", "--pin", "x"], "Base64 of a SHA-256"),
        (["unix:/x", "--ca", "c"], "--ca is for servers with a URL"),
        (["unix:/x", "--env", "A=b"], "--env is for"),
        (["server.py", "--pin", "x"], "--pin is for servers with a URL"),
        (["server.py", "--allow-insecure-http", "a=b"], "--allow-insecure-http is for servers with a URL"),
        (["unix:relative", "--json"], "unix:"),
    ],
)
def test_options_of_clients_that_do_not_fit(words: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *words]) == 2
    out, err = capfd.readouterr()
    assert said in out + err


def test_plain_http_off_loopback_needs_a_reason(capfd: pytest.CaptureFixture[str]) -> None:
    target = "http://192.0.2.1:9/mcp"  # TEST-NET-1: nobody answers
    assert main(["list", target, "--timeout", "1"]) in (2, 3)
    assert "--allow-insecure-http HOST=REASON" in capfd.readouterr().err
    assert main(["list", target, "--timeout", "0.2", "--allow-insecure-http", "192.0.2.1=a test"]) in (3, 5)
    assert "--allow-insecure-http" not in capfd.readouterr().err
