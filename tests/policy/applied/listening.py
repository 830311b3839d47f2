"""The arguments of what serves: `Server.http`, `run_http`, `unix`, `run_unix` and `asgi`.

What is served inside a program is looked at in this process, and what runs until it is interrupted in one of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from garrison import Client, Server
from garrison.policy.transports import WebSocketConfig
from tests.support.certs import Authority
from tests.support.everywhere import uvicorn_serving
from tests.support.mcp import call, post
from tests.support.ports import free_port
from tests.support.process_server import configured, make
from tests.support.raw_http import TOKEN, Wire, connected, exchange
from tests.support.unix_socket import Lines

from .case import case
from .limits import said_by
from .scene import folder, handshake, socket_folder

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = "tests.support.process_server"


class At:
    """Where something listens."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid

    async def answers(self) -> None:
        """Return when somebody listens: workers start after the address is said."""
        async with asyncio.timeout(5):
            while await status(self) == "nobody":
                await asyncio.sleep(0.02)


Start = Callable[..., AbstractAsyncContextManager[At]]


@asynccontextmanager
async def in_process(**options: Any) -> AsyncIterator[At]:
    """`Server.http`, on a free port unless one is given."""
    async with make().http(**configured({"port": 0, "token": TOKEN, **options})) as running:
        yield At(running.port, os.getpid())


@asynccontextmanager
async def as_process(**options: Any) -> AsyncIterator[At]:
    """`Server.run_http`, on a free port unless one is given."""
    options = {"port": 0, "token": TOKEN, **options}
    async with process("-m", PROGRAM, "run_http", json.dumps(options), ready="Serving MCP at") as (said, pid):
        found = re.search(r":(\d+)/", said)
        yield At(int(found[1]) if found else 0, pid)


@asynccontextmanager
async def process(*words: str, ready: str, cwd: Path = ROOT) -> AsyncIterator[tuple[str, int]]:
    """A program of Python until it is interrupted: what it said up to the line with `ready`, and its process id."""
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=environment(),
    )
    assert running.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(15):
            while ready not in said:
                line = (await running.stderr.readline()).decode()
                assert line, said
                said += line
        yield said, running.pid
    finally:
        if running.returncode is None:
            running.terminate()
        said += (await running.stderr.read()).decode()
        await running.wait()
    # One that is told to end in the moment in which it says that it listens ends by the signal itself.
    assert running.returncode in (0, -signal.SIGTERM), said


def environment() -> dict[str, str]:
    """What a program gets: the code that is tested here, and no token."""
    import garrison

    inherited = {name: value for name, value in os.environ.items() if name != "GARRISON_TOKEN"}
    paths = [str(Path(garrison.__file__).parents[1]), str(ROOT)]
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths)}


async def status(
    at: At, target: str = "/mcp", token: str = TOKEN, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> object:
    """The status of one good call; "nobody" where nobody listens, or nobody speaks what is spoken."""
    data = post(at.port, call("who"), token, host=f"{host}:{at.port}").replace(b"POST /mcp", f"POST {target}".encode())
    try:
        async with connected(at.port, host, **({} if context is None else {"ssl": context})) as wire:
            await wire.send(data)
            return (await wire.response()).status
    except (OSError, asyncio.IncompleteReadError):
        return "nobody"


OTHER = "127.0.0.2" if sys.platform == "linux" else "localhost"


def listeners(owner: object, start: Start) -> None:
    """The cases of what both functions take."""

    @case(owner, "host", default=(200, "nobody"), changed=(OTHER, ("nobody" if OTHER[0] == "1" else 200, 200)))
    async def host(value: str) -> object:
        async with start(host=value) as at:
            if OTHER[0] != "1":  # a machine whose only address of 127.0.0.0/8 is the first: `localhost` has two
                return await status(at), await status(at, host="::1")
            data = post(at.port, call("who"))
            try:
                async with connected(at.port, OTHER) as wire:
                    await wire.send(data)
                    other: object = (await wire.response()).status
            except OSError:
                other = "nobody"
            return await status(at), other

    @case(owner, "port", first=("any", "nobody"), changed=("that one", 200))
    async def port(value: str) -> object:
        that_one = free_port()
        async with start(port=that_one if value == "that one" else 0):
            return await status(At(that_one, 0))

    @case(owner, "token", default=401, changed=(TOKEN, 200))
    async def token(value: str | None) -> object:
        async with start(token=value) as at:
            return await status(at)

    @case(owner, "path", default=(200, 404), changed=("/here", (404, 200)))
    async def path(value: str) -> object:
        async with start(path=value) as at:
            return await status(at), await status(at, "/here")

    @case(owner, "tls", default=(200, "nobody"), changed=("a certificate", ("nobody", 200)))
    async def tls(value: object) -> object:
        with folder() as place:
            authority = Authority(place)
            leaf = authority.leaf()
            context = ssl.create_default_context(cafile=str(authority.pem))
            files = [str(leaf.certificate), str(leaf.key)] if value else None
            async with start(tls=files) as at:
                return await status(at), await status(at, context=context)

    @case(owner, "websocket", default=400, changed=("served", 101))
    async def websocket(value: object) -> object:
        async with start(websocket=value) as at:
            return (await exchange(at.port, handshake(at.port))).status

    @case(owner, "http", default=(101, 200), changed=(False, (101, 426)))
    async def http(value: bool) -> object:
        async with start(http=value, websocket="served") as at:
            return (await exchange(at.port, handshake(at.port))).status, await status(at)

    @case(owner, "unix", default="nobody", changed=("a socket", 200))
    async def unix(value: object) -> object:
        with socket_folder() as place:
            path = str(place / "s")
            async with start(unix=path if value else None):
                try:
                    reader, writer = await asyncio.open_unix_connection(path)
                except OSError:
                    return "nobody"
                wire = Wire(reader, writer)
                await wire.send(post(0, call("who"), host="localhost"))
                found = (await wire.response()).status
                wire.close()
                return found


listeners(Server.http, in_process)
listeners(Server.run_http, as_process)


@case(Server.run_http, "workers", default=True, changed=(2, False))
async def workers(value: int) -> object:
    """Whether the process that was started answers by itself."""
    async with as_process(workers=value) as at:
        await at.answers()
        answer = (await exchange(at.port, post(at.port, call("who")))).json
        return answer["result"]["content"][0]["text"] == str(at.pid)


async def reached(path: str) -> object:
    async with Client(f"unix:{path}") as client:
        return bool(said_by(await client.call_tool("who")))


@case(Server.unix, "socket", first=("one", ["one"]), changed=("other", ["other"]))
async def unix_socket(value: str) -> object:
    with socket_folder() as place:
        async with make().unix(str(place / value)):
            assert await reached(str(place / value))
            return [path.name for path in place.iterdir()]


@case(Server.run_unix, "socket", first=("one", ["one"]), changed=("other", ["other"]))
async def run_unix_socket(value: str) -> object:
    with socket_folder() as place:
        options = json.dumps({"socket": str(place / value)})
        async with process("-m", PROGRAM, "run_unix", options, ready="Serving MCP at"):
            assert await reached(str(place / value))
            return [path.name for path in place.iterdir()]


# Behind an ASGI server


@case(Server.asgi, "path", default=(200, 404), changed=("/here", (404, 200)))
async def asgi_path(value: str) -> object:
    async with uvicorn_serving(make().asgi(path=value, token=TOKEN)) as port:
        return await status(At(port, 0)), await status(At(port, 0), "/here")


@case(Server.asgi, "token", default=401, changed=(TOKEN, 200))
async def asgi_token(value: str | None) -> object:
    async with uvicorn_serving(make().asgi(token=value)) as port:
        return await status(At(port, 0))


@case(Server.asgi, "websocket", default=400, changed=(WebSocketConfig(), 101))
async def asgi_websocket(value: WebSocketConfig | None) -> object:
    async with uvicorn_serving(make().asgi(token=TOKEN, websocket=value), ws="websockets-sansio") as port:
        return (await exchange(port, handshake(port))).status


__all__ = ["At", "Lines", "environment", "process", "reached", "status"]
