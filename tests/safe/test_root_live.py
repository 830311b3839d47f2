"""The rows of the catalogue about files against tools of a live server, over HTTP; each with a call that is served."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from garrison import Server
from garrison.safe.paths import SafePath
from garrison.safe.root import SafeRoot
from tests.safe.roots import CANARY, outside_of, tree
from tests.safe.test_root_race import SWAPS, rounds, scene, swapping
from tests.support.mcp import peer

pytestmark = [pytest.mark.app, pytest.mark.skipif(sys.platform == "win32", reason="SafeRoot needs openat")]

ABSENT = "no such file or directory"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tree(tmp_path)


class Files:
    """A caller of a server with two tools over one directory: `read`, of text, and `read_doc`, of a bound path."""

    def __init__(self, calling: Any) -> None:
        self._calling = calling

    async def ask(self, path: object, tool: str = "read") -> tuple[str, bool]:
        """What is said, and whether it is an error."""
        response = await self._calling.request("tools/call", {"name": tool, "arguments": {"path": path}})
        assert CANARY not in str(response) and "Traceback" not in str(response)
        if "error" in response:
            return response["error"]["message"], True
        result = response["result"]
        return result["content"][0]["text"], result.get("isError", False)

    async def refused(self, path: str) -> None:
        """Both tools refuse, with what they say of what is absent, or of every path that is none."""
        assert await self.ask(path) == (ABSENT, True)
        said, is_error = await self.ask(path, "read_doc")
        assert is_error and (said == ABSENT or said.endswith(": is not a path below the root")), said

    async def served(self) -> None:
        """An honest call is answered."""
        for tool in ("read", "read_doc"):
            assert await self.ask("inside.txt", tool) == ("inside", False)
            assert await self.ask("sub/deep/b.md", tool) == ("b", False)
            assert await self.ask("absent", tool) == (ABSENT, True)


@asynccontextmanager
async def files(folder: Path, **options: Any) -> AsyncIterator[Files]:
    """The tools, over HTTP."""
    with SafeRoot(folder, **options) as root:

        class Doc(SafePath, root=root):
            """A file below the root."""

        server = Server("files")

        @server.tool()
        def read(path: str) -> str:
            return root.read_text(path)

        def read_doc(path: Doc) -> str:
            return path.read_text()

        read_doc.__annotations__["path"] = Doc  # the class is local, and its name is not to be found
        server.tool()(read_doc)
        async with peer(server, transport="http") as calling:
            yield Files(calling)


@pytest.mark.attack("ATK-121", transports=("http",))
async def test_traversal(folder: Path) -> None:
    async with files(folder) as calling:
        for path in ("../x", "..\\x", "/etc/passwd", "C:\\x", "~", "file:///etc/passwd", "."):
            assert await calling.ask(path) == (ABSENT, True)
            said, is_error = await calling.ask(path, "read_doc")
            assert is_error and said.endswith("path: is not a path below the root")
        assert await calling.ask("") == (ABSENT, True)
        assert (await calling.ask("", "read_doc"))[1]
        await calling.served()


@pytest.mark.attack("ATK-123", transports=("http",))
async def test_sibling_with_the_same_beginning(folder: Path) -> None:
    async with files(folder) as calling:
        for name in ("data-secret", "database"):
            for path in (str(folder.parent / name / "x"), f"../{name}/x", f"{name}/x"):
                await calling.refused(path)
        await calling.served()


@pytest.mark.attack("ATK-124", transports=("http",))
async def test_links(folder: Path) -> None:
    (folder / "out").symlink_to(outside_of(folder))
    (folder / "chain").symlink_to("out")
    (folder / "up").symlink_to("..")
    (folder / "in").symlink_to("inside.txt")
    for follow in ("never", "within"):
        async with files(folder, follow=follow) as calling:
            for path in ("out", "chain", "up", "up/database/x", "up/data/inside.txt"):
                await calling.refused(path)
            assert await calling.ask("in") == ((ABSENT, True) if follow == "never" else ("inside", False))
            await calling.served()


@SWAPS
@pytest.mark.attack("ATK-124", transports=("http",))
async def test_links_that_come_and_go(swap: str, tmp_path: Path) -> None:
    root, said = scene(tmp_path), Counter[str]()
    async with files(root) as calling:
        with swapping(swap, root):
            for number, _ in enumerate(rounds(150, said, "inside", ABSENT)):
                said[(await calling.ask("dir/file", "read_doc"))[0]] += 1
                await asyncio.sleep(0 if number < 150 else 0.05)  # a pace that no rate minds
    assert said.keys() == {"inside", ABSENT}


@pytest.mark.attack("ATK-125", transports=("http",))
async def test_special_files(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)
        server.bind("socket")
        os.chdir(here)
    (folder / "env").symlink_to("/proc/self/environ")
    if os.geteuid() == 0:
        os.mknod(folder / "device", 0o20666, os.makedev(1, 5))
    with open(folder / "sparse", "wb") as file:
        file.truncate(10 * 1024**3)
    before = threading.active_count()
    async with files(folder) as calling:
        for path in ("fifo", "socket", "env", "device"):
            for _ in range(3):
                await calling.refused(path)
        for tool in ("read", "read_doc"):
            assert await calling.ask("sparse", tool) == ("is larger than 4194304 bytes (SafeRoot.max_bytes)", True)
        await calling.served()
    assert threading.active_count() <= before + 8


@pytest.mark.attack("ATK-126", transports=("http",))
async def test_hard_links_and_mounts(folder: Path) -> None:
    os.link(outside_of(folder), folder / "hard")
    os.chown(outside_of(folder), 65534 if os.geteuid() == 0 else -1, -1)
    async with files(folder) as calling:
        await calling.refused("hard")
        await calling.served()
    if Path("/proc/version").exists():
        async with files(Path("/")) as calling:
            await calling.refused("proc/version")
            await calling.refused("proc/self/environ")
