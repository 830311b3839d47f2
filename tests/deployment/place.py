"""A server behind nginx, put up from the files of examples/deploy: only names, paths and the port are this test's."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from garrison.policy.tls import TlsClientConfig
from tests.support.certs import Authority
from tests.support.nginx import WORKER, nginx

__all__ = ["NAME", "ROOT", "TOKEN", "Place", "deployed"]

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "examples" / "deploy"
NAME = "mcp.example.test"
TOKEN = "a-token-for-the-deployed-server"
STARTING = 20.0
"""Seconds for the server to listen."""


class Place:
    """Where it is, and what it is made of."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.socket = folder / "run" / "mcp.sock"
        self.log = folder / "server.log"
        self.config = folder / "garrison.toml"
        self.authority = Authority(folder)
        self.tls = TlsClientConfig(ca=self.authority.pem)
        self.url = f"https://{NAME}:{port}/mcp"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        command = [sys.executable, "-m", "garrison", "run", str(Path(__file__).with_name("server.py"))]
        environment = {k: v for k, v in os.environ.items() if k != "GARRISON_TOKEN"}
        environment["PYTHONPATH"] = str(ROOT / "src")
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--config", str(self.config)], env=environment, stdin=subprocess.DEVNULL, stderr=log
            )
        end = time.monotonic() + STARTING
        while b"serves MCP" not in (new := self.log.read_bytes()[said:]):
            if self._process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"the server did not start: {new.decode()}")
            time.sleep(0.02)

    def stop(self, *, kill: bool = False) -> None:
        """Stop the server: as systemd does, or as a crash does."""
        process, self._process = self._process, None
        if process is None:
            return
        (process.kill if kill else process.terminate)()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            raise

    def connect(self, source: str = "127.0.0.1", port: int | None = None) -> ssl.SSLSocket:
        """A TLS connection to nginx."""
        raw = socket.create_connection(("127.0.0.1", port or self.port), 10, source_address=(source, 0))
        return ssl.create_default_context(cafile=self.authority.pem).wrap_socket(raw, server_hostname=NAME)

    def status(self, source: str = "127.0.0.1", port: int | None = None, /, **fields: str) -> int:
        """The status of a POST of `server/discover`, with these header fields beside or in place of the usual."""
        body = b"{}"
        head = {
            "host": f"{NAME}:{self.port}",
            "authorization": f"Bearer {TOKEN}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "content-length": str(len(body)),
            "connection": "close",
            **{name.replace("_", "-"): value for name, value in fields.items()},
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        with self.connect(source, port) as wire:
            wire.sendall(f"POST /mcp HTTP/1.1\r\n{lines}\r\n".encode() + body)
            answer = wire.recv(1 << 16)
        return int(answer.split(b" ", 2)[1])

    def site(self, port: int) -> str:
        """The nginx configuration that the documentation gives, for this place."""
        leaf = self.authority.leaf([NAME])
        return changed(
            DEPLOY / "nginx.conf",
            {
                "/etc/ssl/mcp.example.com/fullchain.pem": str(leaf.certificate),
                "/etc/ssl/mcp.example.com/privkey.pem": str(leaf.key),
                "mcp.example.com;": f"{NAME};",
                "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
                "/run/garrison/mcp.sock": str(self.socket),
            },
        )

    def configure(self, settings: str) -> None:
        """Write the server's files, as the documentation has an administrator do."""
        own_group = {'socket_group = "garrison"\n': "", 'socket_user = "www-data"\n': ""}
        workers = {'socket_group = "garrison"': f'socket_group = "{WORKER}"'}
        self.config.write_text(
            changed(
                DEPLOY / "garrison.toml",
                {
                    '"https://mcp.example.com/mcp"': f'"{self.url}"',
                    '"mcp.example.com"': f'"{NAME}"',
                    "/run/garrison/mcp.sock": str(self.socket),
                    "/etc/garrison/token": str(self.folder / "token"),
                    **(workers if WORKER else own_group),
                },
            )
            + settings
        )
        self.config.chmod(0o644)
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(TOKEN + "\n")
        self.socket.parent.mkdir(mode=0o750)
        if WORKER:
            shutil.chown(self.socket.parent, group=WORKER)


def changed(file: Path, words: dict[str, str]) -> str:
    """The text of a file with words replaced, each of which has to be there."""
    text = file.read_text()
    for old, new in words.items():
        assert old in text, f"{file.name} has no {old}"
        text = text.replace(old, new)
    left = re.findall(r"example\.com|/etc/|/run/garrison/", re.sub(r"#.*", "", text))
    assert not left, f"{file.name}: {left} is not of this test"
    return text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def deployed(settings: str = "") -> Iterator[Place]:
    """The whole of it, with these tables in the server's file, while the block runs."""
    # Not pytest's own folder, which nginx's workers may not enter.
    folder = Path(tempfile.mkdtemp(prefix="garrison-"))
    try:
        folder.chmod(0o755)
        place = Place(folder, free_port())
        place.configure(settings)
        (folder / "nginx").mkdir()
        with nginx(folder / "nginx", place.site(place.port), place.port):
            try:
                place.start()
                yield place
            finally:
                place.stop()
    finally:
        shutil.rmtree(folder)
