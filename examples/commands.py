"""A few programs, run for whoever asks: files are listed, and a repository's state and history shown.

    uv run garrison run examples/commands.py
    uv run garrison run examples/commands.py --root ../project --sandbox bubblewrap

There is no shell. What a caller may choose stands in typed slots; the programs see the directory for reading, and no
network, where this system has a sandbox.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from garrison import ConfigurationError, Server, ToolError
from garrison.safe import CommandLimits, CommandResult, SafeCommand, SafePath, SafeRoot, Sandbox

RELEASE = str(Path("/etc/os-release").resolve())
Order = Literal["name", "size", "time"]
SORT: dict[Order, str] = {"name": "version", "size": "size", "time": "time"}
GIT = ["--no-optional-locks", "--no-pager", "-c", "core.fsmonitor=false", "-c", "log.showSignature=false"]
"""A repository's settings name programs to start. These are not started; the sandbox holds those that are."""


def serve(root: Path = Path("."), sandbox: Literal["auto", "landlock", "bubblewrap", "none"] = "auto") -> Server:
    """A few programs over one directory: ls, git and cat.

    Args:
        root: the directory
        sandbox: what the programs are held by; auto takes Landlock where it is to be had
    """
    files, root = SafeRoot(root), root.resolve()
    kept = _sandbox(root, sandbox)
    limits = CommandLimits(cpu=5, file_size=1024 * 1024)
    ls = SafeCommand(
        SafeCommand.find("ls"),
        {"all": ["-lan", "--sort={order}"], "one": ["-lan", "--sort={order}", "--", "{path}"]},
        slots={"order": list(SORT.values()), "path": SafePath},
        cwd=root,
        limits=limits,
        sandbox=kept,
    )
    git = SafeCommand(
        SafeCommand.find("git"),
        {
            "status": [*GIT, "status", "--short", "--branch", "--ignore-submodules=all"],
            "log": [*GIT, "log", "--oneline", "--max-count={count}"],
        },
        slots={"count": range(1, 101)},
        cwd=root,
        env={
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(root.parent),
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_NO_LAZY_FETCH": "1",
        },
        limits=limits,
        sandbox=kept,
    )
    cat = SafeCommand(SafeCommand.find("cat"), {"version": ["--", RELEASE]}, limits=limits, sandbox=kept)
    server = Server("commands")

    class Entry(SafePath, root=files):
        """A path below the directory: `src/main.c`."""

    @server.tool()
    async def list_files(path: Entry | None = None, order: Order = "name") -> str:
        """List a file or directory; without a path, the topmost one."""
        if path is None:
            return said(await ls.run("all", order=SORT[order]))
        path.info()  # no link leads there; what changes after this, the sandbox holds
        return said(await ls.run("one", path=path, order=SORT[order]))

    @server.tool()
    async def status() -> str:
        """What is changed in the repository."""
        return said(await git.run("status"))

    @server.tool()
    async def log(count: Annotated[int, Meta(ge=1, le=100)] = 10) -> str:
        """The last commits of the repository."""
        return said(await git.run("log", count=count))

    @server.tool()
    async def version() -> str:
        """Which system this is."""
        return said(await cat.run("version"))

    return server


def said(result: CommandResult) -> str:
    """What a program said, if all went well.

    Raises:
        ToolError: it did not, with what it said of that.
    """
    if result.ok:
        return result.stdout
    raise ToolError("too much output" if result.truncated else result.stderr.strip() or f"status {result.status}")


def _sandbox(root: Path, wanted: Literal["auto", "landlock", "bubblewrap", "none"]) -> Sandbox | None:
    if wanted == "none":
        return None
    try:
        return Sandbox(read=[root, RELEASE], by="bubblewrap" if wanted == "bubblewrap" else "landlock")
    except ConfigurationError as exc:
        if wanted != "auto":
            raise
        print(f"no sandbox: {exc}", file=sys.stderr)
        return None


if __name__ == "__main__":
    serve().run()
