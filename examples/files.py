"""The files below one directory.

    uv run garrison run examples/files.py --root docs
    uv run garrison run examples/files.py --root notes --write --http 127.0.0.1:8000

Whatever a path says, and whatever becomes of the tree, nothing outside the directory is read or changed. With
`--write`, the user is asked before a file is replaced or deleted.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Annotated

from msgspec import Meta

from garrison import Server, ToolError
from garrison.safe import FileInfo, PathRefused, SafePath, SafeRoot

MOST_MATCHES = 100
LONGEST_LINE = 300


@dataclass
class Match:
    """A line that was found."""

    path: str
    line: int
    text: str


def serve(root: Path = Path("."), write: bool = False, max_bytes: int = 1024 * 1024) -> Server:
    """The files below one directory.

    Args:
        root: the directory
        write: files may be made, replaced and deleted, after the user has said yes
        max_bytes: most bytes of a file
    """
    files = SafeRoot(root, write=write, max_bytes=max_bytes)
    server = Server("files", instructions="Paths are relative to one directory, with / between names.")

    class Entry(SafePath, root=files):
        """A path below the directory: `guide/start.md`."""

    @server.tool()
    def list_files(path: Entry | None = None) -> list[FileInfo]:
        """List a directory; without a path, the topmost one."""
        return files.list(path)

    @server.tool()
    def read_file(path: Entry) -> str:
        """Read a text file."""
        return path.read_text()

    @server.tool()
    def file_info(path: Entry) -> FileInfo:
        """Tell the size of a file or directory, and when it changed last."""
        return path.info()

    @server.tool()
    def search_files(text: Annotated[str, Meta(min_length=1, max_length=200)], pattern: str = "**") -> list[Match]:
        """Find lines with this text, 100 at most, in the files that match a pattern such as `guide/**/*.md`."""
        lines = (
            Match(info.path, number, line[:LONGEST_LINE])
            for info in files.glob(pattern)
            for number, line in enumerate(_lines(files, info), 1)
            if text in line
        )
        return list(islice(lines, MOST_MATCHES))

    @server.resource("file:///{+path}", name="file", mime_type="text/plain")
    def file(path: str) -> str:
        """A text file."""
        return files.read_text(path)

    if not write:
        return server
    making = Lock()  # held while a name is looked for and then made

    @server.tool()
    def create_file(path: Entry, text: str) -> str:
        """Make a new text file, in a directory that is there."""
        with making:
            if path.exists():
                raise ToolError("exists already; replace_file replaces it")
            path.write_text(text)
        return f"{path} is made"

    @server.tool(destructive=True, confirm="Replace the content of this file?")
    def replace_file(path: Entry, text: str) -> str:
        """Replace the content of a text file."""
        path.info()  # one that is there
        path.write_text(text)
        return f"{path} is replaced"

    @server.tool(destructive=True, confirm="Delete this file?")
    def delete_file(path: Entry) -> str:
        """Delete a file."""
        path.remove()
        return f"{path} is deleted"

    return server


def _lines(files: SafeRoot, info: FileInfo) -> list[str]:
    """The lines of a file; none of what is no text, or too large."""
    try:
        return [] if info.is_dir else files.read_text(info.path).splitlines()
    except PathRefused:
        return []


if __name__ == "__main__":
    serve().run()
