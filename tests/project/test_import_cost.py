"""What is loaded when: modules are counted, because times on a shared machine are not steady."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}

STDIO_SERVER = """
import atexit, json, sys
atexit.register(lambda: sys.stderr.write("\\nMODULES " + json.dumps(sorted(sys.modules)) + "\\n"))
from garrison import Server

server = Server("budget")

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

server.run()
"""


def python(*arguments: str, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, *arguments], input=stdin, capture_output=True, timeout=30, cwd=cwd)


def loaded(modules: set[str], *names: str) -> set[str]:
    """Those of `modules` that are one of `names` or inside it."""
    return {module for module in modules for name in names if module == name or module.startswith(name + ".")}


def test_import_garrison_loads_no_room_and_no_dependency() -> None:
    code = "import sys; before = set(sys.modules); import garrison; print('\\n'.join(set(sys.modules) - before))"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.decode().split())
    assert "garrison" in modules
    heavy = ["asyncio", "ssl", "cryptography", "jsonschema_rs", "httptools", "msgspec", "jiter", "inspect", "logging"]
    assert loaded(modules, *heavy) == set()
    assert {module for module in modules if module.startswith("garrison.")} == set()
    assert len(modules) < 20, sorted(modules)


def test_a_stdio_server_loads_only_what_a_call_needs(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(STDIO_SERVER)
    call = {"name": "add", "arguments": {"a": 19, "b": 23}, "_meta": META}
    request = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call}
    done = python("server.py", stdin=json.dumps(request).encode() + b"\n", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["id"] == 7 and "42" in json.dumps(answer["result"])
    (line,) = [line for line in done.stderr.decode().splitlines() if line.startswith("MODULES ")]
    modules = set(json.loads(line.removeprefix("MODULES ")))
    assert "garrison.server" in modules
    not_needed = ["garrison.transports.http", "garrison.client", "garrison.auth", "garrison.cli", "garrison.testing"]
    not_needed += ["httptools", "cryptography", "truststore", "pydantic", "rich", "http.client", "urllib.request"]
    assert loaded(modules, *not_needed) == set()
