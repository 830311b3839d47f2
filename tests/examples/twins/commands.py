"""VULNERABLE ON PURPOSE: the command server without its protections, for tests to attack. Never run it for anybody."""

import subprocess
from pathlib import Path

from garrison import Server, ToolError


def serve(root: Path = Path(".")) -> Server:
    server = Server("commands-vulnerable")

    def shell(line: str) -> str:
        done = subprocess.run(line, shell=True, cwd=root, capture_output=True, text=True)  # UNSAFE: a shell reads it
        if done.returncode:
            raise ToolError(done.stderr)
        return done.stdout

    @server.tool()
    def list_files(path: str = "", order: str = "name") -> str:
        return shell(f"LC_ALL=C.UTF-8 ls -lan --sort={order.replace('name', 'version')} {path}")

    @server.tool()
    def status() -> str:
        return shell("git status --short --branch")

    @server.tool()
    def log(count: int | str = 10) -> str:
        return shell(f"git log --oneline --max-count={count}")

    @server.tool()
    def version() -> str:
        return shell("cat /etc/os-release")

    return server
