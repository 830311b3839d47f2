"""The command server and its vulnerable twin, attacked by one script, and by a repository that starts programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from garrison import Client

from .running import BOTH, CANARY, OVER, file_of, said, talking

pytestmark = [pytest.mark.app, pytest.mark.peer]
SANDBOXES = ("landlock", "bubblewrap")


def git(root: Path, *words: str) -> None:
    who = ("-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "core.hooksPath=/dev/null")
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


@pytest.fixture(autouse=True, scope="module")
def programs() -> None:
    """What the example runs, and both ways to hold it. What is missing is a failure, never a skip."""
    missing = [package for name, package in (("git", "git"), ("bwrap", "bubblewrap")) if shutil.which(name) is None]
    if missing:
        pytest.fail(f'apt-get install {" ".join(missing)} (or leave these tests out: pytest -m "not peer")')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository, with a secret beside it and a link to where that lies."""
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    (repository / "a.txt").write_text("one\n")
    git(repository, "add", "a.txt")
    git(repository, "commit", "--quiet", "--message=the first")
    (repository / "b.txt").write_text("two\n")
    private = tmp_path / "private"
    private.mkdir()
    (private / "key").write_text(CANARY + "\n")
    for folder in (private, private / "inner"):
        folder.mkdir(exist_ok=True)
        (folder / CANARY).write_text("its name alone is the secret")
    (repository / "elsewhere").symlink_to(private)
    (repository / ".git" / "info" / "exclude").write_text("elsewhere\n")
    return repository


async def benign(client: Client) -> list[str]:
    """What an honest client does."""
    return [
        await said(client.call_tool("list_files", {"path": "b.txt", "order": "size"})),
        await said(client.call_tool("status", {})),
        await said(client.call_tool("log", {"count": 1})),
        await said(client.call_tool("version", {})),
    ]


WAYS: dict[str, tuple[str, dict[str, object]]] = {
    "a semicolon": ("list_files", {"path": "; cat ../private/key"}),
    "a substitution": ("list_files", {"path": "a.txt && echo $(cat ../private/key)"}),
    "backticks": ("list_files", {"path": "a.txt && echo `cat ../private/key`"}),
    "a line break": ("list_files", {"path": "a.txt\ncat ../private/key"}),
    "a pipe": ("list_files", {"path": "a.txt | cat ../private/key"}),
    "another directory": ("list_files", {"path": "../private"}),
    "an absolute path": ("list_files", {"path": "/proc/self/cwd/../private"}),
    "an option": ("list_files", {"path": "--recursive .."}),
    "through a link": ("list_files", {"path": "elsewhere/inner"}),
    "a link and its parent": ("list_files", {"path": "elsewhere/../private"}),
    "a choice that is none": ("list_files", {"order": "size; cat ../private/key"}),
    "a number that is none": ("log", {"count": "1; cat ../private/key"}),
    "an option after a number": ("log", {"count": "1 --no-index -p; cat ../private/key"}),
}


@pytest.mark.attack("ATK-132")
@pytest.mark.attack("ATK-133")
@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("which", BOTH)
async def test_one_script_against_both(which: str, over: str, root: Path) -> None:
    async with talking(file_of(which, "commands"), "--root", str(root), over=over) as client:
        came = {way: await said(client.call_tool(tool, arguments)) for way, (tool, arguments) in WAYS.items()}
        leaked = {way for way, text in came.items() if CANARY in text}
        assert leaked == (set() if which == "example" else set(came))
        assert "the first" in (await benign(client))[2]  # it is alive


@pytest.mark.parametrize("over", OVER)
async def test_honest_calls_get_the_same_from_both(over: str, root: Path) -> None:
    answers: list[list[str]] = []
    for which in BOTH:
        async with talking(file_of(which, "commands"), "--root", str(root), over=over) as client:
            answers.append(await benign(client))
    assert answers[0] == answers[1]
    assert answers[0][1] == "## main\n?? b.txt\n"


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_honest_calls_in_every_sandbox(sandbox: str, root: Path) -> None:
    words = ("--root", str(root), "--sandbox", sandbox)
    async with talking(file_of("example", "commands"), *words, over="stdio") as client:
        size, status, log, version = await benign(client)
        assert "b.txt" in size and status == "## main\n?? b.txt\n" and "the first" in log and "NAME=" in version
        assert "elsewhere" in await said(client.call_tool("list_files", {}))


HOSTILE = {
    "a monitor": ["config", "core.fsmonitor", "touch ../started-by-monitor; cp ../private/key got;:"],
    "a filter": ["config", "filter.evil.clean", "touch ../started-by-filter; cat ../private/key > got; cat"],
}


async def look(client: Client, root: Path) -> set[str]:
    """Have the state of a hostile repository shown; what its programs left behind."""
    for words in HOSTILE.values():
        git(root, *words)
    (root / ".git" / "info" / "attributes").write_text("*.txt filter=evil\n")
    (root / "a.txt").write_text("eno\n")  # of the same size: its content has to be looked at
    await said(client.call_tool("status", {}))
    left = {path.name for path in root.parent.glob("started-by-*")}
    return left | ({"got"} if (root / "got").exists() and CANARY in (root / "got").read_text() else set())


@pytest.mark.attack("ATK-132")
@pytest.mark.parametrize("sandbox", [*SANDBOXES, ""])
async def test_a_repository_that_starts_programs(sandbox: str, root: Path) -> None:
    """Without a word for a sandbox it is the twin that looks at the repository."""
    which, words = ("example", ("--sandbox", sandbox)) if sandbox else ("twin", ())
    async with talking(file_of(which, "commands"), "--root", str(root), *words, over="stdio") as client:
        left = await look(client, root)
    assert left == (set() if sandbox else {"started-by-monitor", "started-by-filter", "got"})
