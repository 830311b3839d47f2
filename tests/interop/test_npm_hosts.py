"""`Host` with the reference servers of npm and a server of the official Python SDK, each in a sandbox.

They mean no harm: nothing grave is found in what they say of their tools, nothing is other at the second start, and
their tools work where nothing but what is declared can be touched.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from garrison import NotApproved, events
from garrison.host import ApprovalPolicy, Host, LocalServer, MemoryState, Rule

from .peers import INSTALLING, THEIRS, npm_tool

pytestmark = [pytest.mark.peer, pytest.mark.client, pytest.mark.timeout(INSTALLING + 60)]

EVERYTHING = ApprovalPolicy([Rule(action="allow", server="*", tool="*", dangerously_ignore_flow="a test's own words")])


class Scene(NamedTuple):
    """A host that has started, and what it asked and told."""

    host: Host
    asked: list[Any]
    told: list[events.Event]

    async def call(self, name: str, **arguments: object) -> str:
        """A call that works: its text."""
        answer = await self.host.call(name, arguments)
        assert not answer.is_error, answer.plain
        return answer.plain


@asynccontextmanager
async def hosting(servers: dict[str, LocalServer], state: Any = None, say: bool = True) -> AsyncIterator[Scene]:
    """A host of these servers, with somebody who says yes, or no, to all that is asked."""
    asked: list[Any] = []
    told: list[events.Event] = []

    def approve(question: Any) -> bool:
        asked.append(question)
        return say

    stop = events.listen(told.append)
    try:
        async with Host(servers, approve=approve, policy=EVERYTHING, state=state or MemoryState()) as host:
            assert host.failures == {}
            yield Scene(host, asked, told)
    finally:
        stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the filesystem server is for; beside it lie a secret, and the place of the memory server."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for each in (inside, outside, tmp_path / "kept"):
        each.mkdir()
    (inside / "note.txt").write_text("line 1\nline 2\n")
    (outside / "secret").write_text("canary-41c9")
    return inside


def servers_for(folder: Path) -> dict[str, LocalServer]:
    kept = folder.parent / "kept"
    return {
        "everything": LocalServer([*npm_tool("mcp-server-everything"), "stdio"]),
        "files": LocalServer([*npm_tool("mcp-server-filesystem"), os.fspath(folder)], write=[folder]),
        # Without a place for it, it would write beside its own code, which it may not.
        "memory": LocalServer(
            npm_tool("mcp-server-memory"), env={"MEMORY_FILE_PATH": os.fspath(kept / "memory.jsonl")}, write=[kept]
        ),
        "thinking": LocalServer(npm_tool("mcp-server-sequential-thinking")),
        "theirs": LocalServer([*THEIRS, "stdio"]),
    }


async def test_real_servers_work_in_a_sandbox_and_raise_no_false_alarm(folder: Path) -> None:
    state = MemoryState()
    async with hosting(servers_for(folder), state) as scene:
        launches = [question for question in scene.asked if question.kind == "launch"]
        assert len(launches) == 5 and all(question.record.confined for question in launches)
        assert not [risk for question in launches for risk in question.risks if risk.level != "low"]
        tools = {tool.name: tool for tool in scene.host.tools()}
        assert {name.partition(".")[0] for name in tools} == servers_for(folder).keys() and scene.host.unshown() == ()
        assert not [
            (name, finding) for name, tool in tools.items() for finding in tool.findings if finding.level == "high"
        ]
        for question in scene.asked:
            if question.kind == "tools":
                assert not [review.name for review in question.tools if review.flags]

        assert await scene.call("everything.echo", message="héllo") == "Echo: héllo"
        assert "5" in await scene.call("everything.get-sum", a=2, b=3)
        assert "image" in await scene.call("everything.get-tiny-image")
        assert "temperature" in await scene.call("everything.get-structured-content", location="Chicago")
        assert await scene.call("files.read_text_file", path=str(folder / "note.txt"), head=1) == "line 1"
        await scene.call("files.write_file", path=str(folder / "more.txt"), content="more\n")
        assert (folder / "more.txt").read_text() == "more\n"
        assert "more.txt" in await scene.call("files.list_directory", path=str(folder))
        entity = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
        await scene.call("memory.create_entities", entities=[entity])
        assert "writes programs" in await scene.call("memory.read_graph")
        thought = {"thought": "One.", "nextThoughtNeeded": False, "thoughtNumber": 1, "totalThoughts": 1}
        assert "thoughtHistoryLength" in await scene.call("thinking.sequentialthinking", **thought)
        assert await scene.call("theirs.add", a=2, b=3) == "5"
        answer = await scene.host.call("theirs.fail")
        assert answer.is_error and "Error executing tool fail" in answer.plain
    benign = {"approval.granted", "call.ended", "policy.relaxed"}  # the rule of these tests is a relaxation
    assert {event.name for event in scene.told} == {"pin.approved", *benign}

    async with hosting(servers_for(folder), state, say=False) as scene:
        assert scene.asked == [] and scene.host.unshown() == ()
        assert {tool.name for tool in scene.host.tools()} == tools.keys()
        assert await scene.call("theirs.add", a=2, b=3) == "5"
        assert "writes programs" in await scene.call("memory.read_graph")
    assert {event.name for event in scene.told} == benign


async def test_the_filesystem_server_cannot_read_outside_even_by_its_own_fault(folder: Path) -> None:
    """It is told that all of the disk is its own: the sandbox knows better."""
    secret = folder.parent / "outside" / "secret"
    command = [*npm_tool("mcp-server-filesystem"), "/"]
    async with hosting({"files": LocalServer(command, read=[folder])}) as scene:
        assert "line 2" in await scene.call("files.read_text_file", path=str(folder / "note.txt"))
        for tool, arguments in (
            ("read_text_file", {"path": str(secret)}),
            ("list_directory", {"path": str(secret.parent)}),
            ("read_text_file", {"path": os.path.expanduser("~/.bashrc")}),
            ("write_file", {"path": str(folder / "new.txt"), "content": "x"}),
        ):
            answer = await scene.host.call(f"files.{tool}", arguments)
            assert answer.is_error and "canary" not in answer.plain, (tool, answer.plain)
            assert "EACCES" in answer.plain or "permission denied" in answer.plain.lower(), answer.plain
        assert not (folder / "new.txt").exists()
    # The twin: without a sandbox it reads all that this user may read.
    async with hosting({"files": LocalServer(command, sandbox="off")}) as scene:
        assert "canary" in await scene.call("files.read_text_file", path=str(secret))


async def test_nobody_says_yes_and_no_server_runs(folder: Path) -> None:
    servers = servers_for(folder)
    async with Host(servers, state=MemoryState()) as host:
        assert host.failures.keys() == servers.keys() and host.tools() == ()
        with pytest.raises(NotApproved):
            await asyncio.wait_for(host.call("everything.echo", {"message": "x"}), 5)
