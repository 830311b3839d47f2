"""`garrison run`: finds the one server, serves it once, and starts nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from garrison import ConfigurationError, SecurityPolicy, Server
from garrison.cli.load import load
from garrison.cli.plan import parse_address

from .commands import SERVER, TOKEN, garrison, served

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
LIST = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}) + "\n"
ONE = 'from garrison import Server\none = Server("one")\n'
TWO = ONE + 'two = Server("two")\n'
CLASS = """
from garrison import mcp_server, tool

@mcp_server(name="as-class")
class Files:
    @tool()
    def read(self) -> str:
        return ""

"""


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(tmp_path)


def found(source: str, name: str = "") -> Server:
    Path("server.py").write_text(source)
    return load("server.py" + name)


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "one.run()\n",
        'if __name__ == "__main__":\n    raise SystemExit(9)\n',
        "one.run_http(port=1)\n",
        "one.run_unix('/nowhere/at/all')\n",
        "uno = one\n",
    ],
)
def test_the_one_server_of_a_file_is_found_and_not_started(ending: str) -> None:
    assert found(ONE + ending).info.name == "one"


def test_the_server_that_the_file_itself_runs_is_meant() -> None:
    assert found(TWO + "two.run()\n").info.name == "two"


def test_a_server_that_only_runs_inside_a_function_is_meant() -> None:
    assert (
        found("def main():\n    from garrison import Server\n    Server('inside').run()\nmain()\n").info.name
        == "inside"
    )


def test_a_name_chooses_among_several() -> None:
    assert found(TWO, ":two").info.name == "two"
    with pytest.raises(ConfigurationError, match=r"server\.py:one, server\.py:two"):
        load("server.py")
    with pytest.raises(ConfigurationError, match="no such name; servers there: one, two"):
        load("server.py:three")


def test_an_instance_of_a_marked_class_is_a_server() -> None:
    assert found(CLASS + "files = Files()\n").info.name == "as-class"
    with pytest.raises(ConfigurationError, match="no server at the top"):
        found(CLASS)
    with pytest.raises(ConfigurationError, match="that is a type, not a server"):
        load("server.py:Files")


def test_running_works_again_after_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Server.run, Server.run_http
    found(ONE + "one.run()\n")
    with pytest.raises(ZeroDivisionError):
        found("1 / 0\n")
    assert (Server.run, Server.run_http) == before


def test_a_module_is_named_without_py(tmp_path: Path) -> None:
    (tmp_path / "named_for_this_test.py").write_text(ONE)
    assert load("named_for_this_test:one").info.name == "one"
    with pytest.raises(ConfigurationError, match="no module 'there_is_none'"):
        load("there_is_none:one")


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:8000", ("127.0.0.1", 8000)), ("[::1]:80", ("::1", 80)), (":0", ("127.0.0.1", 0))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["8000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize("command", [["server.py"], ["-m", "garrison", "run", "server.py"]])
def test_a_bare_run_serves_once_as_a_program_and_as_a_target(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    done = subprocess.run([sys.executable, *command], input=LIST, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    (answer,) = done.stdout.splitlines()
    assert "add" in [tool["name"] for tool in json.loads(answer)["result"]["tools"]]
    assert done.stderr == ""


def test_serving_stdio_loads_no_client_no_http_and_no_tables(tmp_path: Path) -> None:
    listing = "import atexit, sys\natexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))\n"
    (tmp_path / "server.py").write_text(listing + ONE)
    done = garrison("run", "server.py", stdin=LIST)
    assert done.returncode == 0 and '"id":1' in done.stdout
    modules = set(done.stderr.split())
    assert "garrison.server.app" in modules
    not_needed = {"garrison.client", "garrison.cli.talk", "garrison.cli.style", "rich", "httptools", "shutil"}
    assert modules & not_needed == set()


def test_http_says_the_url_and_a_new_token_once(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    with served("server.py", "--path", "/here", cwd=tmp_path, token=None) as (url, said):
        token = re.search(r"token: (\S+)", said)
        assert token is not None and len(token[1]) >= 32 and said.count(token[1]) == 1
        assert url.endswith("/here") and "tests 1.2.3" in said
        assert garrison("call", url, "add", "a=1", "b=2", "--token", token[1]).stdout == "3\n"
        assert garrison("call", url, "add", "a=1", "b=2").returncode == 6


def test_without_uvloop_a_refusal_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("import sys\nsys.modules['uvloop'] = None\n" + SERVER)
    with served("server.py", cwd=tmp_path) as (url, _):
        assert garrison("list", url).returncode == 6
        assert garrison("list", url, "--token", TOKEN).returncode == 0


def test_a_given_token_is_not_printed(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    with served("server.py", cwd=tmp_path) as (url, said):
        assert TOKEN not in said
        assert garrison("list", url, "--token", TOKEN).returncode == 0


def test_without_a_token_only_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    assert garrison("run", "server.py", "--http", ":0", "--dangerously-allow-unauthenticated").returncode == 2
    words = ["--dangerously-allow-unauthenticated", "a test"]
    server = load("server.py")
    assert server.policy == SecurityPolicy()
    monkeypatch.delenv("GARRISON_TOKEN", raising=False)
    process = subprocess.Popen(
        [sys.executable, "-m", "garrison", "run", "server.py", "--http", ":0", *words],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = "".join(process.stderr.readline() for _ in range(3))
        assert "dangerously_allow_unauthenticated: a test" in said and "no token is asked for" in said
        url = re.search(r"http://\S+", said)
        assert url is not None and garrison("call", url[0], "add", "a=1", "b=2").stdout == "3\n"
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.py"], "no such file"),
        (["broken.py"], "ZeroDivisionError"),
        (["empty.py"], "no server at the top"),
        (["one.py", "--http", "0.0.0.0:0"], "--tls-cert FILE --tls-key FILE"),
        (["one.py", "--http", ":0", "--token", "short"], "at least 16"),
        (["one.py", "--http", ":0", "--path", "mcp"], "must start with /"),
        (["one.py", "--stdio", "--http", ":0"], "not allowed with"),
        ([], "required: TARGET"),
    ],
)
def test_what_cannot_be_served_is_said_with_status_2(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "one.py").write_text(ONE)
    done = garrison("run", *words)
    assert done.returncode == 2 and said in done.stderr and done.stdout == ""
