"""`ServeSettings`: how `garrison run --config FILE` listens, as a process and seen from outside."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from garrison.policy.toml import ServeSettings
from tests.support.certs import Authority
from tests.support.mcp import call, modern, post
from tests.support.raw_http import TOKEN, connected, exchange
from tests.support.websocket import RSV1, TEXT, WebSocketWire, frame, message

from .case import case
from .listening import At, Lines, environment, process, reached, status
from .scene import folder, handshake, socket_folder
from .tls import met, serial, trusting

SERVER = """
from tests.support.process_server import make
server = make()
"""
STRANGER = 54321
GROUP = str(os.getegid()) if sys.platform != "win32" else ""
LONG = """
@server.tool(inline=True)
def long() -> str:
    return "x" * 3000
"""
OFFER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
ANOTHER_USER = f"""
from garrison.transports import unix
unix.peer_uid = lambda sock: {STRANGER}
"""


def written(place: Path, settings: dict[str, object], more: str = "") -> list[str]:
    """The words that serve a file with these settings; one that is None is left out, since TOML has no word for it."""
    (place / "server.py").write_text(SERVER + more)
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if value is not None]
    for name, content in (("settings.toml", "\n".join(["[serve]", *lines])), ("token", TOKEN)):
        file = place / name
        file.write_text(content)
        file.chmod(0o600)
    return ["-m", "garrison", "run", "server.py", "--config", "settings.toml"]


@asynccontextmanager
async def run(place: Path, settings: dict[str, object], more: str = "") -> AsyncIterator[At]:
    """`garrison run` with these settings, once it listens."""
    words = written(place, settings, more)
    async with process(*words, ready="serves MCP at", cwd=place) as (said, pid):
        found = re.search(r":(\d+)/", said)
        yield At(int(found[1]) if found else 0, pid)


def http(**more: object) -> dict[str, object]:
    return {"http": "127.0.0.1:0", "token_file": "token", **more}


async def on_stdio(place: Path, settings: dict[str, object]) -> object:
    """Where a server that is left alone on a pipe answers: "stdio", or its exit status where it does not serve."""
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *written(place, settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=place,
        env=environment(),
    )
    out, _ = await running.communicate(json.dumps(modern("server/discover")).encode() + b"\n")
    return "stdio" if b'"supportedVersions"' in out else running.returncode


@case(ServeSettings, "http", default="stdio", changed=("127.0.0.1:0", 200))
async def http_address(value: str) -> object:
    with folder() as place:
        if not value:
            return await on_stdio(place, {"http": value})
        async with run(place, http(http=value)) as at:
            return await status(at)


@case(ServeSettings, "ws", default=(400, 200), changed=(True, (101, 200)))
async def ws(value: bool) -> object:
    with folder() as place:
        async with run(place, http(ws=value)) as at:
            return (await exchange(at.port, handshake(at.port))).status, await status(at)


@case(ServeSettings, "ws", first=(True, (101, 200)), changed=("127.0.0.1:0", (101, 426)))
async def ws_alone(value: bool | str) -> object:
    with folder() as place:
        async with run(place, http(ws=value, http="" if isinstance(value, str) else "127.0.0.1:0")) as at:
            return (await exchange(at.port, handshake(at.port))).status, await status(at)


@asynccontextmanager
async def websocket(settings: dict[str, object], more: str = "", **fields: str) -> AsyncIterator[tuple[Any, Any]]:
    """The answer to a handshake with these fields, and what follows it."""
    with folder() as place:
        async with run(place, http(ws=True, **settings), more) as at, connected(at.port) as wire:
            await wire.send(handshake(at.port, **fields))
            yield await wire.head(), WebSocketWire(wire.reader, wire.writer)


@case(ServeSettings, "ws_max_message_size", default="answered", changed=(2000, 1009))
async def ws_max_message_size(value: int | None) -> object:
    """What comes of a message of 3000 bytes: an answer, or the code with which the connection is closed."""
    async with websocket({"ws_max_message_size": value}) as (_, wire):
        await wire.send(frame(json.dumps(call("who")).ljust(3000)))
        found = await wire.frame()
        return "answered" if found.opcode == TEXT and "result" in found.json else found.code


@case(ServeSettings, "ws_subprotocol", default=(101, "mcp"), changed=("mcp.v2", (400, None)))
async def ws_subprotocol(value: str) -> object:
    async with websocket({"ws_subprotocol": value}) as (answer, _):
        return answer.status, answer.get("sec-websocket-protocol")


@case(ServeSettings, "ws_subprotocol", first=("mcp", 400), changed=("mcp.v2", 101))
async def another_ws_subprotocol(value: str) -> object:
    async with websocket({"ws_subprotocol": value}, sec_websocket_protocol="mcp.v2") as (answer, _):
        return answer.status


@case(ServeSettings, "ws_compression", default=(False, 0), changed=(True, (True, RSV1)))
async def ws_compression(value: bool) -> object:
    """Whether it is agreed to, and a long answer is compressed."""
    async with websocket({"ws_compression": value}, LONG, sec_websocket_extensions=OFFER) as (answer, wire):
        await wire.send(message(call("long")))
        found = await wire.frame()
        assert found.json["result"]["content"][0]["text"] == "x" * 3000
        return answer.get("sec-websocket-extensions") is not None, found.first & RSV1


@case(ServeSettings, "unix", default="stdio", changed=("s", True))
async def unix(value: str) -> object:
    with socket_folder() as place:
        if not value:
            return await on_stdio(place, {"unix": value})
        async with run(place, {"unix": value}):
            return await reached(str(place / value))


@case(ServeSettings, "unix_max_message_size", default="answered", changed=(2000, -32600))
async def unix_max_message_size(value: int | None) -> object:
    """What comes of a line of 3000 bytes: an answer, or the code of an error."""
    with socket_folder() as place:
        async with run(place, {"unix": "s", "unix_max_message_size": value}):
            line = Lines(*await asyncio.open_unix_connection(str(place / "s")))
            try:
                found = await line.ask(json.dumps(call("who")).ljust(3000).encode() + b"\n")
                return "answered" if "result" in found else found["error"]["code"]
            finally:
                line.writer.close()


@case(ServeSettings, "socket_group", default=0o600, changed=(GROUP, 0o660))
async def socket_group(value: str) -> object:
    with socket_folder() as place:
        async with run(place, {"unix": "s", "socket_group": value}):
            return stat.S_IMODE((place / "s").lstat().st_mode)


@case(ServeSettings, "socket_user", default=b"", changed=(str(STRANGER), b"answered"))
async def socket_user(value: str) -> object:
    with socket_folder() as place:
        settings: dict[str, object] = {"unix": "s", "socket_group": GROUP, "socket_user": value}
        async with run(place, settings, ANOTHER_USER):
            line = Lines(*await asyncio.open_unix_connection(str(place / "s")))
            try:
                await line.send(call("who"))
                return b"answered" if b'"result"' in await line.reader.readline() else b""
            except ConnectionError:
                return b""
            finally:
                line.writer.close()


@case(ServeSettings, "path", default=(200, 404), changed=("/here", (404, 200)))
async def path(value: str) -> object:
    with folder() as place:
        async with run(place, http(path=value)) as at:
            return await status(at), await status(at, "/here")


@case(ServeSettings, "workers", default=True, changed=(2, False))
async def workers(value: int) -> object:
    """Whether the process that was started answers by itself."""
    with folder() as place:
        async with run(place, http(workers=value)) as at:
            await at.answers()
            answer = (await exchange(at.port, post(at.port, call("who")))).json
            return answer["result"]["content"][0]["text"] == str(at.pid)


@case(ServeSettings, "token_file", default=401, changed=("token", 200))
async def token_file(value: str) -> object:
    with folder() as place:
        async with run(place, http(token_file=value)) as at:
            return await status(at)


@case(ServeSettings, "tls_cert", default="plain", changed=("other", "other"))
async def tls_cert(value: str) -> object:
    return await certified("tls_cert", value)


@case(ServeSettings, "tls_key", default="plain", changed=("other", "other"))
async def tls_key(value: str) -> object:
    return await certified("tls_key", value)


@case(ServeSettings, "tls_cert", first=("one", "one"), changed=("wrong", 2))
async def wrong_tls_cert(value: str) -> object:
    return await certified("tls_cert", value)


@case(ServeSettings, "tls_key", first=("one", "one"), changed=("wrong", 2))
async def wrong_tls_key(value: str) -> object:
    return await certified("tls_key", value)


async def certified(name: str, value: str) -> object:
    """Which certificate is shown: of two pairs, of which the setting `name` may be the wrong half; "plain" for none."""
    with folder() as place:
        authority = Authority(place)
        leaves = {"one": authority.leaf(), "other": authority.leaf()}
        settings: dict[str, object] = {}
        if value:
            leaf = leaves.get(value, leaves["one"])
            settings = {"tls_cert": leaf.certificate.name, "tls_key": leaf.key.name}
            if value == "wrong":
                wrong = leaves["other"]
                settings[name] = wrong.certificate.name if name == "tls_cert" else wrong.key.name
                return await on_stdio(place, http(**settings))
        async with run(place, http(**settings)) as at:
            if await status(at) == 200:
                return "plain"
            found = await met(at.port, trusting(authority))
            return next(name for name, leaf in leaves.items() if serial(leaf) == found)


async def shaken(newest: ssl.TLSVersion | None = None, **settings: object) -> object:
    """How a handshake ends: "served" or "refused"."""
    with folder() as place:
        authority = Authority(place)
        leaf = authority.leaf()
        files: dict[str, object] = {"tls_cert": leaf.certificate.name, "tls_key": leaf.key.name}
        if settings.get("tls_client_ca"):
            settings["tls_client_ca"] = authority.pem.name
        async with run(place, http(**files, **settings)) as at:
            found = await met(at.port, trusting(authority, newest))
            return "served" if found == serial(leaf) else found


@case(ServeSettings, "tls_client_ca", default="served", changed=("given", "refused"))
async def tls_client_ca(value: str) -> object:
    return await shaken(tls_client_ca=value)


@case(ServeSettings, "tls_minimum", default="served", changed=("1.3", "refused"))
async def tls_minimum(value: Any) -> object:
    return await shaken(ssl.TLSVersion.TLSv1_2, tls_minimum=value)


@case(ServeSettings, "tls_reload", default="old", changed=(0.01, "new"))
async def tls_reload(value: float) -> object:
    """Which certificate is shown shortly after it was replaced."""
    with folder() as place:
        authority = Authority(place)
        leaf, new = authority.leaf(), authority.leaf()
        old = serial(leaf)
        files: dict[str, object] = {"tls_cert": leaf.certificate.name, "tls_key": leaf.key.name}
        async with run(place, http(**files, tls_reload=value)) as at:
            await asyncio.sleep(0.6)  # the first look after the start is over
            leaf.replace(new)
            await asyncio.sleep(0.6)
            found = await met(at.port, trusting(authority))
            return {old: "old", serial(new): "new"}[found]  # type: ignore[index]
