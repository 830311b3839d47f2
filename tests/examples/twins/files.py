"""VULNERABLE ON PURPOSE: the file server without its protections, for the tests to attack. Never run it for anybody."""

import os
from pathlib import Path

from garrison import Server
from garrison.safe import FileInfo


def serve(root: Path = Path("."), write: bool = False) -> Server:
    server = Server("files-vulnerable")

    def below(path: str) -> str:
        return os.path.join(root, path)  # UNSAFE: `..`, absolute paths and links lead anywhere

    def about(path: str) -> FileInfo:
        found = os.stat(below(path))
        is_dir = os.path.isdir(below(path))
        return FileInfo(path, is_dir, 0 if is_dir else found.st_size, found.st_mtime)

    @server.tool()
    def list_files(path: str | None = None) -> list[FileInfo]:
        names = sorted(os.listdir(below(path or "")))
        return [about(os.path.join(path or "", name)) for name in names]

    @server.tool()
    def read_file(path: str) -> str:
        return Path(below(path)).read_text()

    @server.tool()
    def file_info(path: str) -> FileInfo:
        return about(path)

    @server.tool()
    def search_files(text: str, pattern: str = "**") -> list[dict[str, str | int]]:
        found: list[dict[str, str | int]] = []
        for folder, _, names in os.walk(root, followlinks=True):  # UNSAFE: into other trees
            for name in sorted(names):
                path = Path(folder, name)
                for number, line in enumerate(path.read_text().splitlines(), 1):
                    if text in line:
                        found.append({"path": str(path.relative_to(root)), "line": number, "text": line})
        return found

    @server.resource("file:///{+path}", mime_type="text/plain")
    def file(path: str) -> str:
        return Path(below(path)).read_text()

    if write:

        @server.tool()
        def create_file(path: str, text: str) -> str:
            Path(below(path)).write_text(text)  # UNSAFE: anywhere, and over what is there
            return f"{path} is made"

        @server.tool()
        def replace_file(path: str, text: str) -> str:
            Path(below(path)).write_text(text)
            return f"{path} is replaced"

        @server.tool()
        def delete_file(path: str) -> str:
            os.remove(below(path))  # UNSAFE: nobody is asked
            return f"{path} is deleted"

    return server
