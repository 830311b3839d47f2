"""Where a server's Unix socket may lie, who may connect to it, and how the lines on it are served."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("no Unix sockets here", allow_module_level=True)

from garrison import Server
from garrison.errors import ConfigurationError, ConnectionFailed, InsecureConfigurationError
from garrison.policy.transports import UnixSocketConfig
from garrison.transports import unix
from garrison.transports.unix import BoundSocket, bind, check_peer, check_place, connect
from tests.support.edge import Counting
from tests.support.mcp import call, until
from tests.support.unix_socket import lines

NOBODY = 65534
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root becomes somebody else; see the twin with a fake uid"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, of which all above is as on every machine: `/tmp` is sticky."""
    path = Path(tempfile.mkdtemp(prefix="g"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def umask() -> Iterator[None]:
    """None at all."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def served(path: Path, **more: Any) -> BoundSocket:
    return bind(UnixSocketConfig(str(path), **more))


# Where it lies


@pytest.mark.attack("ATK-075")
@pytest.mark.usefixtures("umask")
def test_the_socket_is_its_owners_alone_whatever_the_umask(folder: Path) -> None:
    os.chmod(folder, 0o755)
    for path in (folder / "s.sock", folder / "new" / "newer" / "s.sock"):
        bound = served(path)
        assert mode(path) == 0o600
        bound.close()
        assert not path.exists()
    assert mode(folder / "new") == mode(folder / "new" / "newer") == 0o700
    assert os.umask(0) == 0, "the umask is as it was"


def test_its_mode_is_right_before_anybody_can_connect(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    listen = socket.socket.listen

    class Watched(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            seen.append(mode(address))

        def listen(self, backlog: int = 0) -> None:
            seen.append(mode(folder / "s"))
            listen(self, backlog)

    monkeypatch.setattr(unix.socket, "socket", Watched)
    served(folder / "s", mode=0o660).close()
    assert seen == [0o600, 0o660]


@pytest.mark.usefixtures("umask")
def test_a_group_may_be_let_in(folder: Path) -> None:
    group = os.getgroups()[0] if os.getgroups() else os.getegid()
    bound = served(folder / "d" / "s", mode=0o660, group=group)
    made = os.stat(bound.path)
    assert (mode(bound.path), made.st_gid) == (0o660, group)
    assert (mode(folder / "d"), os.stat(folder / "d").st_gid) == (0o710, group)
    bound.close()
    with pytest.raises(ConfigurationError, match="group"):
        served(folder / "d" / "s", group="no such group")


def test_a_directory_that_cannot_be_is_an_error_of_the_setting(folder: Path) -> None:
    (folder / "file").write_text("")
    for path in (folder / "file" / "s", folder / "file" / "d" / "s"):
        for reason in ("", "a test"):
            with pytest.raises(ConfigurationError, match=r"UnixSocketConfig\.path"):
                bind(UnixSocketConfig(str(path)), unsafe_reason=reason)


def test_a_relative_path_stays_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    bound = bind(UnixSocketConfig("s.sock"))
    monkeypatch.chdir("/")
    assert bound.path == str(folder / "s.sock")
    bound.close()
    assert not (folder / "s.sock").exists()


def test_a_path_may_be_as_long_as_the_system_takes(folder: Path) -> None:
    longest = 107 if sys.platform == "linux" else 103
    name = "s" * (longest - len(str(folder)) - 1)
    served(folder / name).close()
    with pytest.raises(ConfigurationError, match=rf"path=.*longer than {longest} bytes"):
        served(folder / (name + "s"))


@pytest.mark.attack("ATK-077")
def test_an_abstract_socket_is_refused() -> None:
    with pytest.raises(InsecureConfigurationError, match=r"UnixSocketConfig\.path"):
        bind(UnixSocketConfig("@mcp"))
    with pytest.raises(ConfigurationError, match=r"UnixSocketConfig\.path"):
        bind(UnixSocketConfig("\0mcp"))


@pytest.mark.attack("ATK-077")
@pytest.mark.parametrize(
    ("above", "parent", "fits"),
    [
        (0o755, 0o700, True),
        (0o755, 0o755, True),
        (0o1777, 0o700, True),  # as in /tmp
        (0o755, 0o777, False),
        (0o755, 0o770, False),
        (0o755, 0o1777, False),  # anybody can be there first
        (0o777, 0o700, False),
        (0o770, 0o700, False),
    ],
    ids=lambda value: oct(value) if type(value) is int else None,
)
def test_a_place_where_others_can_write_is_refused(folder: Path, above: int, parent: int, fits: bool) -> None:
    (folder / "a" / "p").mkdir(parents=True)
    os.chmod(folder / "a", above)
    os.chmod(folder / "a" / "p", parent)
    path = folder / "a" / "p" / "s"
    if fits:
        served(path).close()
        return
    with pytest.raises(InsecureConfigurationError, match="dangerously_allow_unsafe_socket_path"):
        served(path)
    assert not path.exists()
    bind(UnixSocketConfig(str(path)), unsafe_reason="a test").close()


@needs_root
def test_a_place_that_belongs_to_somebody_else_is_refused(folder: Path) -> None:
    (folder / "a" / "p").mkdir(parents=True)
    for theirs in (folder / "a" / "p", folder / "a"):
        os.chown(theirs, NOBODY, -1)
        with pytest.raises(InsecureConfigurationError, match="another user"):
            served(folder / "a" / "p" / "s")
        os.chown(theirs, 0, -1)
    served(folder / "a" / "p" / "s").close()


def test_a_linked_directory_is_judged_by_where_it_leads(folder: Path) -> None:
    (folder / "bad" / "p").mkdir(parents=True)
    (folder / "good").mkdir()
    os.chmod(folder / "bad", 0o777)
    (folder / "to-bad").symlink_to(folder / "bad" / "p")
    (folder / "to-good").symlink_to(folder / "good")
    with pytest.raises(InsecureConfigurationError):
        served(folder / "to-bad" / "s")
    served(folder / "to-good" / "s").close()


@pytest.mark.attack("ATK-076")
@pytest.mark.parametrize(
    "there", ["link", "link to a socket", "link to a stale socket", "dangling link", "file", "directory", "pipe"]
)
def test_what_lies_there_already_is_left_alone(folder: Path, there: str) -> None:
    path, victim = folder / "s", folder / "victim"
    victim.write_text("precious")
    bound = None
    if there == "link":
        path.symlink_to(victim)
    elif there == "link to a socket":
        bound = served(folder / "real")
        path.symlink_to(folder / "real")
    elif there == "link to a stale socket":
        stale(folder / "real")
        path.symlink_to(folder / "real")
    elif there == "dangling link":
        path.symlink_to(folder / "nothing")
    elif there == "file":
        path.write_text("mine")
    elif there == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = os.lstat(path)
    expected = r"UnixSocketConfig\.path.*symbolic link" if "link" in there else r"UnixSocketConfig\.path"
    with pytest.raises(ConfigurationError, match=expected):
        served(path)
    assert os.lstat(path) == before
    assert victim.read_text() == "precious"
    assert not (folder / "nothing").exists()
    if bound is not None:
        bound.close()


def stale(path: Path) -> None:
    """A socket that was left behind."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(folder: Path) -> None:
    path = folder / "s"
    stale(path)
    first = served(path)
    with pytest.raises(ConfigurationError, match="already served"):
        served(path)
    first.socket.close()  # as after a crash
    second = served(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    second.close()
    assert not path.exists()


def test_a_server_that_takes_nobody_is_not_stale(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as full:
        full.bind(str(path))
        full.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(str(path))
        with pytest.raises(ConfigurationError, match="already served"):
            served(path)
        for one in waiting:
            one.close()


@needs_root
def test_a_stale_socket_of_somebody_else_is_left_alone(folder: Path) -> None:
    stale(folder / "s")
    os.chown(folder / "s", NOBODY, -1)
    with pytest.raises(InsecureConfigurationError, match="another user"):
        served(folder / "s")
    assert (folder / "s").exists()


def test_only_the_socket_that_was_made_here_is_removed(folder: Path) -> None:
    bound = served(folder / "s")
    (folder / "s").unlink()
    bound.close()
    bound = served(folder / "s")
    (folder / "s").rename(folder / "mine")
    (folder / "s").write_text("somebody else's")
    bound.close()
    assert (folder / "s").read_text() == "somebody else's"


def test_servers_of_one_directory_start_one_after_the_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(unix, "_PATIENCE", 3)
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    stale(folder / "s")
    before = os.lstat(folder / "s")
    with pytest.raises(ConfigurationError, match="locked"):
        served(folder / "s")
    assert os.lstat(folder / "s") == before
    monkeypatch.setattr(unix.time, "sleep", lambda seconds: fcntl.flock(other, fcntl.LOCK_UN))
    served(folder / "s").close()
    os.close(other)


def test_servers_that_start_at_once_do_not_remove_each_others_socket(folder: Path) -> None:
    program = (
        "import sys, time\n"
        "from garrison.policy.transports import UnixSocketConfig\n"
        "from garrison.transports.unix import bind\n"
        "try: kept = bind(UnixSocketConfig(sys.argv[1]))\n"
        "except Exception as exc: print(exc)\n"
        "else: print('served')\n"
        "sys.stdout.flush(); sys.stdin.read()\n"
    )
    stale(folder / "s")
    many = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder / "s")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [one.stdout.readline().strip() for one in many if one.stdout is not None]
    for one in many:
        one.communicate("")
    assert sorted("served" if word == "served" else word[-14:] for word in said) == ["already served"] * 3 + ["served"]


# Who connects


@asynccontextmanager
async def accepted(bound: BoundSocket) -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(bound.path)
    server, _ = bound.socket.accept()
    yield client, server
    client.close()
    server.close()


async def test_who_connects_is_known_and_this_user_may(folder: Path) -> None:
    bound = served(folder / "s")
    async with accepted(bound) as (_, server):
        peer = bound.admit(server)
        assert (peer.address, peer.uid) == ("unix", os.geteuid())
    bound.close()


async def test_another_user_is_refused_unless_he_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unix, "peer_uid", lambda sock: NOBODY)
    bound, open_to = served(folder / "s"), served(folder / "t", allowed_uids=(NOBODY,))
    async with accepted(bound) as (_, server):
        with pytest.raises(PermissionError):
            bound.admit(server)
        with pytest.raises(PermissionError):
            check_peer(server)
        assert open_to.admit(server).uid == NOBODY
    assert {record.event for record in caplog.records} == {"peer.refused"}  # type: ignore[attr-defined]
    bound.close()
    open_to.close()


AS_NOBODY = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as client:
    try:
        client.connect(sys.argv[1])
        client.send(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\\n')
        print("got", client.recv(1000).decode() or "nothing")
    except OSError as exc:
        print(type(exc).__name__)
"""


@needs_root
@pytest.mark.attack("ATK-075")
@pytest.mark.usefixtures("umask")
async def test_a_program_of_another_user_does_not_get_in(folder: Path) -> None:
    """By the directory, then by the mode, then by the kernel's word on who it is."""
    os.chmod(folder, 0o755)
    counting = Counting()

    async def tried(path: Path) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", AS_NOBODY, str(path), stdout=subprocess.PIPE, cwd="/"
        )
        out, _ = await process.communicate()
        return out.decode().strip()

    async with lines(counting, served(folder / "d" / "s")) as wires:
        assert await tried(folder / "d" / "s") == "PermissionError"
        os.chmod(folder / "d", 0o755)
        assert await tried(folder / "d" / "s") == "PermissionError"
        os.chmod(folder / "d" / "s", 0o666)
        assert await tried(folder / "d" / "s") in ("got nothing", "ConnectionResetError", "BrokenPipeError")
        assert not wires.ends.guests
        await (await wires.connect()).alive()
    async with lines(counting, served(folder / "s", allowed_uids=(NOBODY,))) as wires:
        os.chmod(folder / "s", 0o666)
        assert (await tried(folder / "s")).startswith("got {")


@pytest.mark.parametrize("there", ["nothing", "link", "file", "stale"])
def test_a_client_does_not_connect_to_what_is_no_served_socket(folder: Path, there: str) -> None:
    bound = served(folder / "real")
    path = folder / "s"
    if there == "link":
        path.symlink_to(folder / "real")
    elif there == "file":
        path.write_text("")
    elif there == "stale":
        stale(path)
    with pytest.raises(ConnectionFailed, match=str(path)):
        connect(UnixSocketConfig(str(path)))
    connect(UnixSocketConfig(str(folder / "real"))).close()
    bound.close()


def test_a_client_asks_who_serves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = served(folder / "s")
    monkeypatch.setattr(unix, "peer_uid", lambda sock: NOBODY)
    with pytest.raises(ConnectionFailed, match="allowed_uids"):
        connect(UnixSocketConfig(bound.path))
    connect(UnixSocketConfig(bound.path, allowed_uids=(NOBODY,))).close()
    bound.close()


# Before it is made, and when it could not be


def test_a_place_can_be_judged_before_anything_is_made(folder: Path) -> None:
    check_place(UnixSocketConfig(str(folder / "run" / "more" / "x.sock")))
    assert not (folder / "run").exists()
    (folder / "open").mkdir()
    (folder / "open").chmod(0o1777)
    path = str(folder / "open" / "x.sock")
    for judge in (check_place, bind):
        with pytest.raises(InsecureConfigurationError, match="others can write"):
            judge(UnixSocketConfig(path))
    check_place(UnixSocketConfig(str(folder / "open" / "own" / "x.sock")))  # which is made for its owner alone
    check_place(UnixSocketConfig(path), unsafe_reason="a test")
    with pytest.raises(ConfigurationError, match="group"):
        check_place(UnixSocketConfig(str(folder / "x.sock"), group="no-such-group-here"))


@pytest.mark.parametrize("framing", ["lines", "http"])
async def test_a_lifespan_that_fails_leaves_no_socket(folder: Path, framing: str) -> None:
    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    path = folder / "x.sock"
    server = Server("x", lifespan=failing)
    config = UnixSocketConfig(str(path))
    serving = server.unix(config) if framing == "lines" else server.http(unix=config)
    with pytest.raises(RuntimeError, match="no database"):
        async with serving:
            pass
    assert not path.exists()


async def test_a_server_that_is_ending_does_not_remove_the_next_ones_socket(folder: Path) -> None:
    counting = Counting(shutdown=0.5)
    config = UnixSocketConfig(str(folder / "x.sock"))
    first, second = counting.server.unix(config), Counting().server.unix(config)
    await first.start()
    reader, writer = await asyncio.open_unix_connection(config.path)
    writer.write(json.dumps(call("slow", {"seconds": 0.3})).encode() + b"\n")
    await until(lambda: counting.ran == ["slow"])
    ending = asyncio.ensure_future(first.close())
    await asyncio.sleep(0.05)
    assert not os.path.lexists(config.path)
    await second.start()
    assert b"slow" in await reader.readline()  # what ran has ended in peace
    await ending
    assert os.path.lexists(config.path)
    await second.close()
    writer.close()
