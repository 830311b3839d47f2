"""`Launch` and `LocalServer`: what is said of a program, seen from within it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from garrison import Client, SecurityPolicy, Timeouts, events
from garrison.client.launching import Launch
from garrison.errors import LaunchRefused
from garrison.host import LocalServer
from tests.client.fakes import listening

from .case import case
from .doer import doer, starting
from .hosting import hosting
from .limits import said_by
from .scene import folder, outcome

POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=1.0))


class Ask(Protocol):
    """Starts a server and says what its tool says, or the name of the error."""

    def __call__(self, settings: dict[str, Any], what: str, **arguments: Any) -> Awaitable[object]: ...


async def of_client(settings: dict[str, Any], what: str, **arguments: Any) -> object:
    heard = settings.pop("heard", None)

    async def call() -> str:
        async with Client(Launch(**settings), policy=POLICY, on_stderr=heard) as client:
            return said_by(await client.call_tool("do", {"what": what, **arguments}))

    return await outcome(call())


async def of_host(settings: dict[str, Any], what: str, **arguments: Any) -> object:
    async def call() -> str:
        async with hosting({"x": LocalServer(**settings)}, security=POLICY) as (host, _):
            return (await host.call("x.do", {"what": what, **arguments})).plain

    return await outcome(call())


def both(
    name: str, *, launch: dict[str, Any], local: dict[str, Any], peer: bool = False
) -> Callable[[Callable[[Ask, Any], Awaitable[object]]], None]:
    """A case of `Launch`, and one of `LocalServer`."""

    def add(observe: Callable[[Ask, Any], Awaitable[object]]) -> None:
        case(Launch, name, peer=peer, **launch)(partial(observe, of_client))
        case(LocalServer, name, peer=peer, **local)(partial(observe, of_host))

    return add


def alike(name: str, **expected: Any) -> Callable[[Callable[[Ask, Any], Awaitable[object]]], None]:
    """The same of both."""
    return both(name, launch=expected, local=expected)


@alike("command", first=(["a"], "a"), changed=(["b"], "b"))
async def command(ask: Ask, value: list[str]) -> object:
    with folder() as place:
        return await ask({"command": starting(place, *value)}, "argument")


@alike("env", default="", changed=({"A_SETTING": "a value"}, "a value"))
async def env(ask: Ask, value: Any) -> object:
    with folder() as place:
        return await ask({"command": starting(place), "env": value}, "variable", name="A_SETTING")


@both(
    "cwd",
    launch={"default": os.path.basename(os.getcwd()), "changed": ("given", "given")},
    local={"default": "a new one", "changed": ("given", "given")},
)
async def cwd(ask: Ask, value: Any) -> object:
    with folder() as place:
        (place / "given").mkdir()
        found = await ask({"command": starting(place), "cwd": place / "given" if value else None}, "folder")
        return "a new one" if str(found).startswith("garrison-") else found


CONFINED = {"default": "secret", "changed": ("auto", "PermissionError")}
FREED = {"default": "PermissionError", "changed": ("off", "secret")}


@both("sandbox", launch=CONFINED, local=FREED, peer=True)
async def sandbox(ask: Ask, value: Any) -> object:
    with folder() as place, folder() as other:
        (other / "f").write_text("secret")
        return await ask({"command": starting(place), "sandbox": value}, "read", path=str(other / "f"))


def letting_case(name: str, what: str, seen: str) -> None:
    """What a sandbox lets a program have beside what it is made of."""

    @both(
        name,
        launch={"default": "PermissionError", "changed": ("the folder", seen)},
        local={"default": "PermissionError", "changed": ("the folder", seen)},
        peer=True,
    )
    async def observe(ask: Ask, value: object) -> object:
        with folder() as place, folder() as other:
            path = other / "f"
            path.write_text("#!/bin/sh\necho ran\n")
            path.chmod(0o755)
            settings = {"command": starting(place), "sandbox": "landlock", name: (other,) if value else ()}
            return await ask(settings, what, path=str(path))


letting_case("read", "read", "#!/bin/sh\necho ran\n")
letting_case("write", "write", "written")
letting_case("execute", "run", "ran\n")


@both(
    "network",
    launch={"default": "PermissionError", "changed": (True, "connected")},
    local={"default": "PermissionError", "changed": (True, "connected")},
    peer=True,
)
async def network(ask: Ask, value: bool) -> object:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    with folder() as place:
        async with listening(greet) as port:
            settings = {"command": starting(place), "sandbox": "landlock", "network": value}
            return await ask(settings, "connect", port=port)


def bound_case(name: str, changed: tuple[int, str], what: str, **arguments: Any) -> None:
    """A limit that this is not too much for by default, and is with a lower one."""

    @alike(name, default="had", changed=changed)
    async def observe(ask: Ask, value: int | None) -> object:
        with folder() as place:
            return await ask({"command": starting(place), name: value}, what, **arguments)


bound_case("memory", (100 * 1024**2, "MemoryError"), "allocate", size=200 * 1024**2)
bound_case("processes", (2, "ConnectionLost"), "fork", number=4)
bound_case("open_files", (32, "OSError"), "files", number=64)


# What only `Launch` has


@case(Launch, "cpu", default="had", changed=(1, "ConnectionLost"))
async def cpu(value: int | None) -> object:
    with folder() as place:
        return await of_client({"command": starting(place), "cpu": value}, "compute", seconds=1.2)


@case(Launch, "own_folder", default=False, changed=(True, True))
async def own_folder(value: bool) -> object:
    with folder() as place:
        found = await of_client({"command": starting(place), "own_folder": value}, "home")
        return str(found).startswith("garrison-")


@case(Launch, "stderr", default=2000, changed=(100, 100))
async def stderr(value: int) -> object:
    heard: list[bytes] = []
    with folder() as place:
        settings = {"command": starting(place), "stderr": value, "heard": heard.append}
        assert await of_client(settings, "errors", size=2000) == "had"
    return b"".join(heard).count(b"e")


@case(Launch, "name", default=False, changed=("mine", True))
async def name(value: str) -> object:
    """What a security event calls it."""
    told: list[events.Event] = []
    stop = events.listen(told.append)
    try:
        with folder() as place:
            command = [str(doer(place))]
            assert await of_client({"command": command, "name": value, "processes": 1}, "fork", number=2) != "had"
    finally:
        stop()
    ours = [event for event in told if event.name == "launch.limited" and event.target == command[0]]
    return any(event.server == "mine" for event in ours)


def never() -> None:
    raise LaunchRefused("not today")


@case(Launch, "check", default="a", changed=(never, "LaunchRefused"))
async def check(value: Any) -> object:
    with folder() as place:
        return await of_client({"command": starting(place, "a"), "check": value}, "argument")


@case(Launch, "program", default="", changed=("other", "other"))
async def program_of(value: str) -> object:
    """Which of two scripts is started under the name of the first."""
    with folder() as place:
        doer(place, "one")
        (place / "other").write_text((place / "one").read_text().replace("return sys.argv[-1]", "return 'other'"))
        (place / "other").chmod(0o755)
        settings = {"command": [str(place / "one"), ""], "program": str(place / value) if value else ""}
        return await of_client(settings, "argument")


# What only `LocalServer` has


@case(LocalServer, "dangerously_allow_env", default="LaunchRefused", changed=({"NODE_OPTIONS": "a test"}, "--x"))
async def allow_env(value: Any) -> object:
    with folder() as place:
        settings = {"command": starting(place), "env": {"NODE_OPTIONS": "--x"}, "dangerously_allow_env": value}
        return await of_host(settings, "variable", name="NODE_OPTIONS")


@case(LocalServer, "dangerously_allow_unpinned", default="LaunchRefused", changed=("a test", "a-package"))
async def allow_unpinned(value: str) -> object:
    with folder() as place:
        command = [str(doer(place, "uvx")), "a-package"]
        settings = {"command": command, "sandbox": "off", "dangerously_allow_unpinned": value}
        return await of_host(settings, "argument")


__all__ = ["of_client", "of_host"]
