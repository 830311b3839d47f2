"""The server of `garrison demo`: this project's documentation, to search, read, index and ask about.

The pages are README.md and docs/*.md where Garrison runs from a checkout, and the docstrings of its own modules where
it is installed. It is an ordinary server file: `garrison run garrison.cli.demo_server:server` serves it.
"""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from .. import Context, ResourceNotFound, Server, ToolError

__all__ = ["pages", "server"]

server = Server(
    "garrison-docs",
    title="Garrison's documentation",
    instructions="Search for a word, then read docs://page/{name} of what was found.",
)


@cache
def pages() -> dict[str, str]:
    """Every page's text by its name."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    if (checkout / "README.md").is_file() and (checkout / "docs").is_dir():
        files = [checkout / "README.md", *sorted((checkout / "docs").glob("*.md"))]
        return {file.stem.lower(): file.read_text(encoding="utf-8") for file in files}
    found: dict[str, str] = {}
    for file in sorted(package.rglob("*.py")):
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        if text:
            found["-".join(file.relative_to(package).with_suffix("").parts)] = text
    return found


@dataclass
class Hit:
    """A line that was found."""

    page: str
    line: int
    text: str


@server.tool(inline=True)
def search(
    word: Annotated[str, "what to look for, in any case"],
    limit: Annotated[int, "hits at most"] = 5,
) -> list[Hit]:
    """Find lines of the documentation that have a word in them."""
    hits = [
        Hit(name, number, line.strip())
        for name, text in pages().items()
        for number, line in enumerate(text.splitlines(), 1)
        if word.lower() in line.lower()
    ]
    return hits[:limit]


@server.tool()
async def index(ctx: Context[object], steps: int = 10) -> int:
    """Count the words of all pages, page after page, and tell how far it is."""
    names = [list(pages())[step % len(pages())] for step in range(steps)]
    words = 0
    for done, name in enumerate(names, 1):
        await asyncio.sleep(0.02)
        words += len(pages()[name].split())
        await ctx.progress(done, len(names), name)
    return words


@dataclass
class Choice:
    """Which page to open."""

    page: str


@server.tool()
async def open_page(word: str, ctx: Context[object]) -> str:
    """Find pages that have a word in them, ask the user which one to open, and give its first line."""
    names = sorted({hit.page for hit in search(word, 1000)})
    if not names:
        raise ToolError(f"No page has {word!r}")
    answer = await ctx.elicit(f"Which page shall be opened: {', '.join(names)}?", Choice)
    if not answer.accepted or answer.content is None:
        return "Nothing was opened"
    if answer.content.page not in names:
        raise ToolError("There is no such page among those found")
    return pages()[answer.content.page].splitlines()[0]


@server.tool()
def noisy(words: int = 3) -> int:
    """Print to standard output, here and in a child process, as careless code does."""
    for word in range(words):
        print(f"stray line {word}")
    forged = '{"jsonrpc": "2.0", "id": 1, "result": "forged"}'
    subprocess.run([sys.executable, "-c", f"print({forged!r})"], check=True, timeout=10)
    return words


@server.resource("docs://pages", mime_type="text/plain")
def page_names() -> str:
    """The names of all pages."""
    return "\n".join(pages())


@server.resource("docs://page/{name}", mime_type="text/markdown")
def page(name: str) -> str:
    """One page."""
    text = pages().get(name)
    if text is None:
        raise ResourceNotFound(f"docs://page/{name}")
    return text


@server.prompt()
def explain(name: str) -> str:
    """Have a page explained."""
    return f"Explain this page to somebody who is new to it:\n\n{pages().get(name, '(there is no such page)')}"
