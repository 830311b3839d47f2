"""The application of `garrison demo`: files, a database, a program and money, each behind the helper that guards it.

It is an ordinary server. What it may touch lies in a folder made for the run; beside it lies what nobody may read.
"""

from __future__ import annotations

import sqlite3
import sys
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Final

from ..errors import ToolError
from ..policy import SecurityPolicy, Timeouts
from ..policy.rates import Rate
from ..safe.archives import SafeArchive
from ..safe.command import SafeCommand
from ..safe.fetch import SafeFetch
from ..safe.root import SafeRoot
from ..safe.sql import SafeSQL
from ..safe.xml_documents import parse_xml
from ..server.app import Server

if TYPE_CHECKING:
    from pathlib import Path

    from ..server.recording import Sink

__all__ = ["BESIDE", "application", "furnish"]

BESIDE: Final = "the-secret-beside-it"
"""What lies where no tool may reach."""
_ECHO: Final = "import sys; print(sys.argv[1])"


def furnish(folder: Path) -> None:
    """Put down what the application works on, and what lies beside it."""
    (folder / "docs").mkdir()
    (folder / "docs" / "page.md").write_text("a page")
    (folder / "docs-private").mkdir()
    (folder / "docs-private" / "key").write_text(BESIDE)
    (folder / "docs" / "link.md").symlink_to("../docs-private/key")
    with closing(sqlite3.connect(folder / "shop.db")) as shop, shop:
        for table in ("users", "keys"):
            shop.execute(f"CREATE TABLE {table} (id TEXT, name TEXT)")
        shop.execute("INSERT INTO users VALUES ('1', 'ann'), ('2', 'bob')")
        shop.execute("INSERT INTO keys VALUES ('1', ?)", (BESIDE,))


def application(folder: Path, audit: Sink | None) -> Server:
    """The server.

    Args:
        folder: one that was furnished.
        audit: keeps its records.
    """
    server = Server("garrison-shop", audit=audit, policy=SecurityPolicy(timeouts=Timeouts(shutdown=0.5)))
    docs = SafeRoot(folder / "docs")
    shop = SafeSQL(str(folder / "shop.db"), tables={"users": ["id", "name"]})
    web = SafeFetch(hosts=["example.com"], timeout=2)
    echo = SafeCommand(sys.executable, {"echo": ["-I", "-c", _ECHO, "{word}"]}, slots={"word": str})
    decoders: dict[str, Callable[[str], str]] = {
        "tar": lambda data: ", ".join(member.path for member in SafeArchive(b64decode(data)).members()),
        "xml": lambda data: parse_xml(data).text or "",
    }

    @server.tool()
    def read(path: str) -> str:
        """Read a page."""
        return docs.read_text(path)

    @server.tool()
    async def look_up(table: str, id: str) -> int:
        """Count the rows with an id."""
        return len(await shop.select(table, where={"id": id}))

    @server.tool()
    async def fetch(url: str) -> str:
        """Read a page of the web."""
        return (await web.get(url)).text

    @server.tool()
    async def run(operation: str, word: str) -> str:
        """Run a program that says a word."""
        return (await echo.run(operation, word=word)).stdout.strip()

    @server.tool()
    def decode(kind: str, data: str) -> str:
        """Look into an archive or a document."""
        if kind not in decoders:
            raise ToolError("tar or xml")
        return decoders[kind](data)

    @server.tool()
    def say(word: str, times: int = 1) -> str:
        """Say a word."""
        return word * times

    @server.tool()
    def fail() -> str:
        """Fail, with a secret in what is raised."""
        raise RuntimeError(f"{folder}: password={BESIDE}")

    @server.tool(destructive=True, idempotent_by="key")
    async def pay(to: str, cents: int, key: str) -> str:
        """Send money."""
        return f"{cents} to {to}"

    @server.tool(rate=Rate(0.1, burst=3))
    def report() -> str:
        """What costs a lot."""
        return "a report"

    return server
