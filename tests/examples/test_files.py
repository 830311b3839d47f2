"""The file server and its vulnerable twin, attacked by one script: the twin gives all away, the example nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from garrison import Client

from .running import BOTH, CANARY, OVER, accept, decline, file_of, said, talking

pytestmark = pytest.mark.app


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory to serve, with what must not be had around it and ways to it inside."""
    data = tmp_path / "data"
    (data / "guide").mkdir(parents=True)
    (data / "guide" / "start.md").write_text("# Start\nRead this first.\n")
    (data / "Äpfel 🍎.txt").write_text("Äpfel und Birnen\n")
    private = tmp_path / "data-private"
    private.mkdir()
    (private / "key").write_text(CANARY)
    (private / CANARY).write_text("its name alone is the secret")
    (data / "notes.md").symlink_to("../data-private/key")
    (data / "elsewhere").symlink_to("../data-private")
    (data / "second.md").symlink_to("notes.md")
    os.link(private / "key", data / "linked.md")
    return data


async def benign(client: Client) -> list[str]:
    """What an honest client does."""
    return [
        await said(client.call_tool("list_files", {"path": "guide"})),
        await said(client.call_tool("read_file", {"path": "guide/start.md"})),
        await said(client.call_tool("read_file", {"path": "Äpfel 🍎.txt"})),
        await said(client.call_tool("file_info", {"path": "guide"})),
        await said(client.call_tool("search_files", {"text": "first"})),
        await said(client.read_resource("file:///guide/start.md")),
        await said(client.read_resource("file:///%C3%84pfel%20%F0%9F%8D%8E.txt")),
    ]


async def attack(client: Client, root: Path) -> dict[str, str]:
    """Every way to the canary, and what came of it."""
    ways = {
        "the parent": "../data-private/key",
        "up from below": "guide/../../data-private/key",
        "an absolute path": str(root.parent / "data-private" / "key"),
        "a link": "notes.md",
        "a link to a link": "second.md",
        "through a linked directory": "elsewhere/key",
        "a hard link": "linked.md",
        "the directory of the process": f"../../../../../../../../proc/self/root{root.parent}/data-private/key",
    }
    came = {way: await said(client.call_tool("read_file", {"path": path})) for way, path in ways.items()}
    came["the names of another directory"] = await said(client.call_tool("list_files", {"path": "../data-private"}))
    came["the names behind a link"] = await said(client.call_tool("list_files", {"path": "elsewhere"}))
    came["a search through links"] = await said(client.call_tool("search_files", {"text": "canary"}))
    came["a link as a resource"] = await said(client.read_resource("file:///notes.md"))
    return came


@pytest.mark.attack("ATK-121")
@pytest.mark.attack("ATK-123")
@pytest.mark.attack("ATK-124")
@pytest.mark.attack("ATK-126")
@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("which", BOTH)
async def test_one_script_against_both(which: str, over: str, root: Path) -> None:
    async with talking(file_of(which, "files"), "--root", str(root), over=over) as client:
        came = await attack(client, root)
        leaked = {way for way, text in came.items() if CANARY in text}
        assert leaked == (set() if which == "example" else set(came))
        assert "Read this first." in (await benign(client))[1]  # it is alive, and as useful as before


@pytest.mark.parametrize("over", OVER)
async def test_honest_calls_get_the_same_from_both(over: str, root: Path) -> None:
    (root / "linked.md").unlink()
    for link in ("notes.md", "second.md", "elsewhere"):
        (root / link).unlink()
    answers: list[list[str]] = []
    for which in BOTH:
        async with talking(file_of(which, "files"), "--root", str(root), over=over) as client:
            answers.append(await benign(client))
    assert answers[0] == answers[1]
    assert "Äpfel und Birnen\n" in answers[0]


@pytest.mark.attack("ATK-121")
@pytest.mark.attack("ATK-122")
@pytest.mark.attack("ATK-129")
async def test_what_is_refused_reads_as_what_is_absent(root: Path) -> None:
    os.mkfifo(root / "pipe")
    async with talking(file_of("example", "files"), "--root", str(root), over="http") as client:
        absent = await said(client.read_resource("file:///absent"))
        for path in (
            "%2e%2e/data-private/key",
            "%252e%252e/data-private/key",
            "..%2fdata-private%2fkey",
            "%c0%ae%c0%ae/data-private/key",
            "guide/..%00/start.md",
            "%EF%BC%8E%EF%BC%8E/data-private/key",
            "guide%5cstart.md",
            "pipe",
            "notes.md",
            "linked.md",
        ):
            assert await said(client.read_resource(f"file:///{path}")) == absent, path
        same = {await said(client.call_tool("read_file", {"path": p})) for p in ("absent", "pipe", "notes.md", "x/y")}
        assert len(same) == 1


async def plant(client: Client, root: Path) -> set[str]:
    """Every way to write or delete what nobody allowed, and which of them went through."""
    outside = root.parent / "data-private"
    (outside / "victim").write_text("as it was")
    (root / "victim.md").write_text("as it was")
    (root / "to_victim").symlink_to(outside / "victim")
    went: set[str] = set()
    await said(client.call_tool("create_file", {"path": "../data-private/planted", "text": CANARY}))
    await said(client.call_tool("create_file", {"path": "elsewhere/planted too", "text": CANARY}))
    went |= {name for name in ("planted", "planted too") if (outside / name).exists()}
    await said(client.call_tool("create_file", {"path": "victim.md", "text": CANARY}))
    if (root / "victim.md").read_text() == CANARY:
        went.add("made over what was there")
    await said(client.call_tool("replace_file", {"path": "to_victim", "text": CANARY}))
    if (outside / "victim").read_text() == CANARY:
        went.add("replaced through a link")
    await said(client.call_tool("delete_file", {"path": "victim.md"}))
    if not (root / "victim.md").exists():
        went.add("deleted, and the user said no")
    await said(client.call_tool("delete_file", {"path": "../data-private/victim"}))
    if not (outside / "victim").exists():
        went.add("deleted outside")
    return went


@pytest.mark.attack("ATK-121")
@pytest.mark.attack("ATK-124")
@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("which", BOTH)
async def test_one_script_that_writes_against_both(which: str, over: str, root: Path) -> None:
    words = ("--root", str(root), "--write")
    async with talking(file_of(which, "files"), *words, over=over, on_elicit=decline) as client:
        went = await plant(client, root)
    assert len(went) == (0 if which == "example" else 6), went


@pytest.mark.parametrize("over", OVER)
async def test_a_user_who_agrees_gets_it_done(over: str, root: Path) -> None:
    words = ("--root", str(root), "--write")
    async with talking(file_of("example", "files"), *words, over=over, on_elicit=accept) as client:
        assert await said(client.call_tool("create_file", {"path": "new.md", "text": "one"})) == "new.md is made"
        assert "exists already" in await said(client.call_tool("create_file", {"path": "new.md", "text": "two"}))
        assert (root / "new.md").read_text() == "one"
        await client.call_tool("replace_file", {"path": "new.md", "text": "three"})
        assert (root / "new.md").read_text() == "three"
        assert "no such file" in await said(client.call_tool("replace_file", {"path": "none.md", "text": "x"}))
        await client.call_tool("delete_file", {"path": "new.md"})
        assert not (root / "new.md").exists()


async def test_without_write_nothing_that_writes_is_offered(root: Path) -> None:
    async with talking(file_of("example", "files"), "--root", str(root), over="stdio") as client:
        names = {tool.name async for tool in client.tools()}
    assert names == {"list_files", "read_file", "file_info", "search_files"}
