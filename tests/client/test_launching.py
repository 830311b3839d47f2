"""What is started as a local server: found, held, shown what it is made of, and given back."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison import Client, SecurityPolicy, Timeouts, events
from garrison.client import installation, starting
from garrison.client.installation import belongings
from garrison.client.launching import Launch, confinement, find_program, launch_of, touches
from garrison.errors import ConfigurationError, ConnectionFailed, LaunchRefused
from garrison.policy.secret import Secret
from garrison.safe import process
from garrison.safe.sandbox import Sandbox
from tests.client.fakes import program
from tests.interop.peers import npm_tool
from tests.safe.programs import alive, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="holds POSIX programs")

linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock, /proc")
SOURCE = str(Path(__file__).parents[2] / "src")
SERVER = """
import resource
def limits():
    return {name: resource.getrlimit(getattr(resource, name)) for name in
            ("RLIMIT_CORE", "RLIMIT_DATA", "RLIMIT_NOFILE", "RLIMIT_CPU")}
for m in messages():
    if m.get("method") == "server/discover": discover(m)
    elif m.get("method") == "tools/call":
        name = m["params"]["name"]
        if name == "exit": os._exit(1)
        text(m, json.dumps({"env": dict(os.environ), "cwd": os.getcwd(), "limits": limits(), "argv": sys.argv,
                            "pid": os.getpid(), "sid": os.getsid(0), "umask": os.umask(0o077)}))
"""


def quick() -> SecurityPolicy:
    return SecurityPolicy(timeouts=Timeouts(shutdown=1.0, connect=10.0))


async def ask(client: Client) -> Any:
    result: Any = await client.call_tool("x")
    return json.loads(result.content[0].text)


@pytest.fixture
def told() -> Iterator[list[events.Event]]:
    found: list[events.Event] = []
    stop = events.listen(found.append)
    yield found
    stop()


# The value


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": "python server.py"},
        {"command": []},
        {"command": ["a", 1]},
        {"command": ["a\0"]},
        {"env": {"A": 1}},
        {"env": {"A=B": "1"}},
        {"env": {"": "1"}},
        {"env": {"A": "\0"}},
        {"sandbox": "strong"},
        {"memory": 0},
        {"memory": True},
        {"processes": -1},
        {"open_files": 1.5},
        {"cpu": "1"},
        {"stderr": None},
    ],
)
def test_a_launch_that_is_not_of_its_form_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Launch(**{"command": ["a"], **wrong})


@linux
def test_what_stands_in_a_sandbox_is_not_said_beside_it() -> None:
    fields: list[dict[str, Any]] = [{"read": ["/"]}, {"write": ["/"]}, {"execute": ["/"]}, {"network": True}]
    for more in fields:
        with pytest.raises(ConfigurationError, match="stand in the Sandbox"):
            Launch(["a"], sandbox=Sandbox(), **more)


def test_each_argument_has_its_kind_of_server() -> None:
    launch = Launch(["a"])
    for name, value in {"env": {}, "cwd": "/", "sandbox": "auto"}.items():
        with pytest.raises(ConfigurationError, match=f"{name}="):
            Client(launch, **{name: value})
    for target in ("https://example.com/", "unix:/s"):
        with pytest.raises(ConfigurationError, match="sandbox="):
            Client(target, sandbox="auto")
        with pytest.raises(ConfigurationError, match="on_stderr="):
            Client(target, on_stderr=print)
    assert Client(launch, on_stderr=print) and Client(["a"], env={}, cwd="/", sandbox="off", on_stderr=print)
    wrong: Any = "strong"
    with pytest.raises(ConfigurationError, match="sandbox"):
        Client(["a"], sandbox=wrong)


def test_no_secret_is_shown_and_the_program_gets_it() -> None:
    launch = Launch(["a"], env={"TOKEN": Secret("s3cret"), "PLAIN": "plain"})
    assert "s3cret" not in repr(launch) and "plain" not in repr(launch)

    async def main() -> None:
        launch = Launch(program(SERVER), env={"TOKEN": Secret("s3cret")})
        async with Client(launch, policy=quick()) as client:
            assert (await ask(client))["env"]["TOKEN"] == "s3cret"

    asyncio.run(main())


def test_a_program_is_found_on_whole_paths_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tool"
    path.write_text("#!/bin/sh\n")
    with pytest.raises(ConnectionFailed, match="Permission denied"):
        find_program("tool", str(tmp_path))
    path.chmod(0o755)
    assert find_program("tool", f".::relative:{tmp_path}:/bin") == find_program(str(path), "") == str(path)
    for missing, where in (("tool", ".::relative"), (str(tmp_path / "absent"), ""), ("tool", "")):
        with pytest.raises(ConnectionFailed, match="No such program"):
            find_program(missing, where)
    for relative in ("./tool", "a/tool", "..", ".", ""):
        with pytest.raises(ConfigurationError, match="whole path"):
            find_program(relative, str(tmp_path))


def test_batch_files_are_refused_where_a_shell_would_read_their_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tool.cmd", "other.BAT", "good.exe"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("PATHEXT", ".EXE:.CMD" if os.pathsep == ":" else ".EXE;.CMD")
    for name in ("tool", "tool.cmd", str(tmp_path / "other.BAT")):
        with pytest.raises(ConfigurationError, match="batch file"):
            find_program(name, str(tmp_path))
    assert find_program("good", str(tmp_path)).endswith("good.exe")


# What it is made of


def tree(folder: Path, *files: str) -> Path:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(0o755)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with other things in it."""
    home = tree(tmp_path / "home" / "me", ".ssh/id_rsa", "notes.txt", "server.py", "keep/tool")
    monkeypatch.setenv("HOME", str(home))
    return home


def shown(place: Path, *command: str, **options: Any) -> set[str]:
    return {os.path.relpath(each, place) for each in belongings(command[0], command[1:], **options)}


def test_a_virtual_environment_is_shown_with_what_it_is_made_from(place: Path) -> None:
    base = tree(place / "pythons/3.13", "bin/python3.13", "lib/python3.13/os.py", "share/doc")
    venv = tree(place / "app/.venv", "lib/python3.13/site-packages/x.py", "bin/tool")
    (venv / "pyvenv.cfg").write_text(f"home = {base}/bin\nversion = 3.13\n")
    (venv / "bin/python").symlink_to(base / "bin/python3.13")
    made = {"app/.venv/bin", "app/.venv/lib", "app/.venv/pyvenv.cfg", "pythons/3.13/bin", "pythons/3.13/lib"}
    assert shown(place, f"{venv}/bin/python", "-m", "pkg") == made
    (venv / "bin/tool").write_text(f"#!{venv}/bin/python\n")
    assert shown(place, f"{venv}/bin/tool") == made
    # As tools are installed for a person: a link among his programs.
    tree(place / ".local/bin").mkdir(parents=True)
    (place / ".local/share").mkdir()
    (place / ".local/bin/tool").symlink_to(venv / "bin/tool")
    assert shown(place, f"{place}/.local/bin/tool") == made | {".local/bin"}


def test_a_node_server_is_shown_with_its_packages(place: Path) -> None:
    node = tree(place / ".nvm/v22", "bin/node", "lib/node_modules/npm/index.js", "share/x") / "bin/node"
    tree(place / "app", "package.json", "src/deep/server.js", "node_modules/zod/index.js", "node_modules/.bin/x")
    tree(place / "app/node_modules/@scope/server/dist", "index.js")
    own = {".nvm/v22/bin", ".nvm/v22/lib"}
    packaged = f"{place}/app/node_modules/@scope/server/dist/index.js"
    assert shown(place, str(node), packaged) == own | {"app/node_modules"}
    assert shown(place, str(node), "--flag", f"{place}/app/src/deep/server.js", f"{place}/notes.txt") == own | {"app"}
    assert shown(place, str(node), "src/deep/server.js", cwd=f"{place}/app") == own | {"app"}
    script = place / "app/node_modules/@scope/server/dist/index.js"
    script.write_text("#!/usr/bin/env -S node --flag\n")
    (place / "app/node_modules/.bin/server").symlink_to(script)
    found = shown(place, f"{place}/app/node_modules/.bin/server", path=f"{node.parent}:relative")
    assert found == own | {"app/node_modules"}


def test_no_folder_with_other_things_is_shown(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.tempfile, "gettempdir", lambda: str(place.parent))
    for script in (place / "server.py", place.parent / "x.py", Path("/tmp") / "garrison-test-x.py"):
        script.touch()
        try:
            assert belongings("/usr/bin/python3", [str(script)]) == (str(script),)
        finally:
            script.unlink()
    (place / "package.json").touch()
    tree(place, "code/server.js", "code/lib.js", "data.json")
    assert shown(place, "/usr/bin/node", f"{place}/code/server.js") == {"code"}
    assert shown(place, "/usr/bin/cat", f"{place}/data.json") == {"data.json"}  # no script: the file alone
    assert shown(place, f"{place}/keep/tool") == {"keep/tool"}
    assert belongings("/usr/bin/cat", ["/data", "x", "--y"]) == belongings("/bin/true", []) == ()


@linux
def test_a_confinement_is_what_is_declared_and_the_code(place: Path) -> None:
    tree(place, "code/server.py", "data/x")
    command = ["/usr/bin/python3", f"{place}/code/server.py"]
    launch = Launch(command, sandbox="auto", read=[place / "notes.txt"], write=[place / "data"], network=True)
    sandbox = confinement(launch, command[0])
    assert sandbox is not None and sandbox.network and sandbox.by == "landlock"
    assert list(sandbox.execute) == [f"{place}/code"] and list(sandbox.read) == [place / "notes.txt"]
    line = touches(launch, command[0])
    assert line == (
        f"landlock: has the network; reads and starts programs of the system; reads {place}/notes.txt; "
        f"reads and starts {place}/code; changes {place}/data; "
        "changes a folder of its own, which is removed when it ends"
    )
    assert touches(launch_of(launch), command[0]) == line and "\n" not in line
    assert confinement(Launch(command), command[0]) is None
    assert touches(Launch(command), command[0]).startswith("no sandbox")
    with pytest.raises(ConfigurationError, match="absent"):
        confinement(Launch(command, sandbox="auto", read=[place / "absent"]), command[0])
    given = Sandbox(read=["/etc/hosts"])
    assert confinement(Launch(command, sandbox=given), command[0]) is given


async def test_where_there_is_no_sandbox_auto_says_so_and_a_named_one_is_an_error(
    told: list[events.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sandbox, "lacking", staticmethod(lambda by="landlock": "no Landlock here"))
    async with Client(Launch(program(SERVER), sandbox="auto", name="mine"), policy=quick()) as client:
        found = await ask(client)
    assert os.path.basename(found["cwd"]).startswith("garrison-")
    (event,) = [event for event in told if event.name == "launch.limited"]
    assert (event.server, event.decision, event.setting) == ("mine", "noted", "Launch.sandbox")
    from garrison.safe import sandbox

    monkeypatch.setattr(sandbox, "_BUBBLEWRAP", "/absent/bwrap")
    with pytest.raises(ConfigurationError, match="bwrap"):
        await Client(program(SERVER), sandbox="bubblewrap").connect()


# How it is held


async def test_each_limit_reaches_the_program(tmp_path: Path) -> None:
    launch = Launch(program(SERVER), memory=2**30, open_files=100, cpu=50, cwd=tmp_path)
    async with Client(launch, policy=quick()) as client:
        found = await ask(client)
    want = {"RLIMIT_CORE": [0, 0], "RLIMIT_DATA": [2**30] * 2, "RLIMIT_NOFILE": [100] * 2, "RLIMIT_CPU": [50] * 2}
    assert found["limits"] == want
    assert (found["cwd"], found["sid"], found["umask"]) == (str(tmp_path), found["pid"], 0o077)
    async with Client(program(SERVER), policy=quick()) as client:
        found = await ask(client)
    assert found["limits"]["RLIMIT_DATA"] == [16 * 2**30] * 2 and found["limits"]["RLIMIT_CORE"] == [0, 0]
    assert found["cwd"] == os.getcwd() and found["env"]["HOME"] == os.environ["HOME"]


async def test_a_host_gives_each_start_a_folder_of_its_own_and_takes_it_back(tmp_path: Path) -> None:
    class Settings:
        command = program(SERVER)
        env = {"TMPDIR": str(tmp_path)}
        cwd = None
        sandbox: Any = "off"
        read = write = execute = ()
        network = False
        memory, processes, open_files = 2**31, 128, 256

    (tmp_path / "server.py").write_text(Settings.command[2])
    Settings.command = [sys.executable, str(tmp_path / "server.py")]
    launch = launch_of(Settings(), sys.executable, name="mine")
    assert (launch.memory, launch.processes, launch.open_files, launch.name) == (2**31, 128, 256, "mine")
    async with Client(launch, policy=quick()) as client:
        first = await ask(client)
        assert first["cwd"] == first["env"]["HOME"] and first["env"]["TMPDIR"] == str(tmp_path)
        (Path(first["cwd"]) / "deep/er").mkdir(parents=True)
        (Path(first["cwd"]) / "link").symlink_to(tmp_path)
        with pytest.raises(Exception, match="exit code 1"):
            await client.call_tool("exit")
        second = await ask(client)
    assert first["cwd"] != second["cwd"]
    await until(lambda: not os.path.exists(first["cwd"]) and not os.path.exists(second["cwd"]), 5)
    assert (tmp_path / "server.py").exists()


async def test_the_check_of_a_launch_is_made_before_each_start() -> None:
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise LaunchRefused("it is another file now")

    async with Client(Launch(program(SERVER), check=check), policy=quick()) as client:
        with pytest.raises(Exception, match="exit code 1"):
            await client.call_tool("exit")
        with pytest.raises(LaunchRefused):
            await ask(client)
        assert await ask(client)
    assert len(calls) == 3


async def test_the_file_that_was_found_is_started_under_the_name_that_was_given(tmp_path: Path) -> None:
    tree(tmp_path, "bin/python")
    (tmp_path / "bin/python").unlink()
    (tmp_path / "bin/python").symlink_to(os.path.realpath(sys.executable))
    (tmp_path / "pyvenv.cfg").write_text(f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
    body = program(SERVER.replace("json.dumps(", "sys.prefix or (", 1))
    launch = Launch([str(tmp_path / "bin/python"), *body[1:]], program=os.path.realpath(sys.executable))
    async with Client(launch, policy=quick()) as client:
        result: Any = await client.call_tool("x")
    assert result.content[0].text == str(tmp_path)  # a virtual environment is known by its name


@pytest.mark.parametrize("what", ["absent", "folder", "text"])
async def test_what_cannot_be_started_fails_at_once_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    if what == "text":
        (tmp_path / "text").write_bytes(b"\0no program")
        (tmp_path / "text").chmod(0o755)
    elif what == "folder":
        (tmp_path / "folder").mkdir()
    before = set(Path("/tmp").glob("garrison-*"))
    begun = time.monotonic()
    with pytest.raises(ConnectionFailed, match=what):
        await Client(Launch([str(tmp_path / what)], own_folder=True)).connect()
    with pytest.raises(ConnectionFailed, match="folder"):
        await Client(Launch(program(SERVER), cwd=tmp_path / "nowhere", own_folder=True)).connect()
    assert time.monotonic() - begun < 3
    await until(lambda: not set(Path("/tmp").glob("garrison-*")) - before, 3)


async def test_a_start_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    body = f"open({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    task = asyncio.ensure_future(Client(program(body), policy=quick()).connect())
    await until(lambda: note.exists() and note.read_text(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not alive(int(note.read_text())), 5)


@linux
async def test_the_folder_goes_with_a_client_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(program(SERVER)[2])
    code = """
import asyncio, json, sys
from garrison import Client
async def main():
    client = Client([sys.executable, sys.argv[1]], sandbox="auto")
    await client.connect()
    print((await client.call_tool("x")).content[0].text, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    arguments = [sys.executable, "-c", code, str(tmp_path / "server.py")]
    with subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": SOURCE}, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        found = json.loads(await asyncio.to_thread(parent.stdout.readline))
        assert os.path.isdir(found["cwd"])
        parent.kill()
    await until(lambda: not os.path.exists(found["cwd"]) and not alive(found["pid"]), 10)


async def test_without_a_supervisor_a_server_is_started_and_ended_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "missing", lambda: "another system")
    assert isinstance(starting.starter_for(Launch(["a"]), Timeouts()), starting.UnheldStarter)
    async with Client(Launch(program(SERVER), own_folder=True, env={"MINE": "1"}), policy=quick()) as client:
        found = await ask(client)
        assert found["env"]["MINE"] == "1" and found["sid"] == found["pid"]
        assert found["cwd"] == os.path.realpath(found["env"]["TMPDIR"]) != os.getcwd()
    assert not os.path.exists(found["cwd"]) and not alive(found["pid"])
    async with Client(Launch(program(SERVER), sandbox="auto"), policy=quick()) as client:
        assert await ask(client)
    with pytest.raises(ConfigurationError, match="a sandbox needs another system"):
        await Client(program(SERVER), sandbox="landlock").connect()


async def test_many_start_and_end_at_once() -> None:
    async def one() -> int:
        async with Client(program(SERVER), policy=quick()) as client:
            return (await ask(client))["pid"]

    pids = await asyncio.gather(*(one() for _ in range(8)))
    assert len(set(pids)) == 8 and not any(map(alive, pids))


# Real servers


@linux
@pytest.mark.peer
@pytest.mark.timeout(300)
@pytest.mark.parametrize("by", ["auto", "bubblewrap"])
async def test_real_servers_work_in_a_sandbox(tmp_path: Path, by: Any) -> None:
    def launch(command: list[str], **options: Any) -> Launch:
        return Launch(command, sandbox=by, memory=2**31, processes=128, open_files=256, **options)

    async with Client(launch(npm_tool("mcp-server-everything"))) as client:
        result: Any = await client.call_tool("echo", {"message": "hello"})
        assert "hello" in result.content[0].text
    data, other = tmp_path / "data", tmp_path / "other"
    data.mkdir()
    other.mkdir()
    command = npm_tool("mcp-server-filesystem")
    async with Client(launch([*command, str(data), str(other)], write=[data], read=[other])) as client:
        for folder, allowed in ((data, True), (other, False)):
            await client.call_tool("write_file", {"path": str(folder / "x"), "content": "written"})
            assert (folder / "x").exists() == allowed
