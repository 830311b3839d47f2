"""A certified authorization server: npm's `oidc-provider`, in a process of its own on loopback.

    with oauth_provider(clients=[...], resources={"https://mcp.example.com/mcp": "read write"}) as provider:
        print(provider.issuer)

Rules of this file:
- It is installed once, by npm, into `.interop-tools/oauth-provider`. A test that cannot have it fails, and says why.
- It ends with the block, and with the process that started it.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.interop.peers import INSTALLING, ROOT, STARTING, node

__all__ = ["CLIENTS", "INSTALLING", "REDIRECT", "RESOURCE", "Provider", "oauth_provider"]

SOURCES = ROOT / "tests" / "oauth" / "provider"
TOOLS = ROOT / ".interop-tools" / "oauth-provider"
RESOURCE = "https://mcp.example.com/mcp"
REDIRECT = "http://127.0.0.1/callback"
CLIENTS: tuple[dict[str, Any], ...] = (
    {
        "client_id": "desktop",
        "client_name": "A desktop program",
        "application_type": "native",
        "token_endpoint_auth_method": "none",
        "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    },
    {
        "client_id": "service",
        "client_secret": "the secret: of a service",
        "token_endpoint_auth_method": "client_secret_basic",
        "redirect_uris": [],
        "grant_types": ["client_credentials"],
        "response_types": [],
    },
)
"""A public client that signs people in, on any port of loopback; and a confidential one that is its own subject."""


@dataclass
class Provider:
    """A running server."""

    issuer: str
    process: subprocess.Popen[bytes] = field(repr=False)
    said: deque[str] = field(default_factory=lambda: deque(maxlen=200), repr=False)
    """What it wrote to standard error: the errors that it answered with, and why; the grants that it gave."""

    @property
    def grants(self) -> list[str]:
        """The types of the grants that it gave, the oldest first."""
        lines = [line.split() for line in tuple(self.said)]
        return [words[1] for words in lines if words[:1] == ["grant.success"]]


@contextmanager
def oauth_provider(
    *,
    clients: Sequence[Mapping[str, Any]] = CLIENTS,
    resources: Mapping[str, str] | None = None,
    opaque: Sequence[str] = (),
    scopes: Sequence[str] = (),
    documents: Mapping[str, Mapping[str, Any]] | None = None,
    dpop_nonces: bool = False,
    registration: bool = True,
    offline: bool = False,
    token_seconds: int = 300,
) -> Iterator[Provider]:
    """A server on a free port.

    Args:
        clients: registered ones (RFC 7591 metadata with `client_id`).
        resources: identifiers of resources, each with its scopes; `RESOURCE` with `read write` where none is given.
        opaque: identifiers of those whose tokens are no JWTs.
        scopes: what clients may register for, beside `openid` and `offline_access`.
        documents: client id metadata documents by their https URL; they are not fetched from anywhere else.
        dpop_nonces: DPoP proofs need a nonce.
        registration: clients may register themselves.
        offline: a refresh token needs the scope `offline_access`.
        token_seconds: how long an access token is good.

    Fails the test if it cannot be installed or does not start.
    """
    setup = {
        "clients": list(clients),
        "resources": dict(resources or {RESOURCE: "read write"}),
        "opaque": list(opaque),
        "scopes": list(scopes),
        "documents": dict(documents or {}),
        "dpopNonces": dpop_nonces,
        "registration": registration,
        "offline": offline,
        "tokenSeconds": token_seconds,
    }
    with subprocess.Popen(
        [node(), str(installed() / "server.mjs")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        provider = Provider("", child)
        reading = threading.Thread(target=_listen, args=(child.stderr, provider.said), daemon=True)
        reading.start()
        try:
            child.stdin.write(json.dumps(setup).encode() + b"\n")
            child.stdin.flush()
            ready, _, _ = select.select([child.stdout], [], [], STARTING)
            line = child.stdout.readline() if ready else b""
            if not line:
                child.kill()
                reading.join(2)
                pytest.fail("oidc-provider did not start: " + "\n".join(provider.said))
            provider.issuer = json.loads(line)["issuer"]
            yield provider
        finally:
            child.stdin.close()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
            reading.join(2)


def _listen(stream: Any, said: deque[str]) -> None:
    for line in stream:
        said.append(line.decode("utf-8", "replace").rstrip())


def installed() -> Path:
    """Where the server and what it needs are; installed when they are not there, by one process at a time.

    Fails the test if npm cannot install it.
    """
    TOOLS.mkdir(parents=True, exist_ok=True)
    wanted = (SOURCES / "package.json").read_bytes()
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _copy(SOURCES / "server.mjs", TOOLS / "server.mjs")
        stamp = TOOLS / "installed"
        if not stamp.exists() or stamp.read_bytes() != wanted:
            _copy(SOURCES / "package.json", TOOLS / "package.json")
            _install(TOOLS)
            stamp.write_bytes(wanted)
    return TOOLS


def _copy(source: Path, target: Path) -> None:
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)


def _install(folder: Path) -> None:
    home = Path(node()).parent
    npm = (home if os.name == "nt" else home.parent / "lib") / "node_modules" / "npm" / "bin" / "npm-cli.js"
    environment = {**os.environ, "PATH": f"{home}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [node(), str(npm), "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    began = time.monotonic()
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=INSTALLING)
    except subprocess.TimeoutExpired:
        pytest.fail(f"npm did not install oidc-provider into {folder} within {time.monotonic() - began:.0f} s")
    if done.returncode != 0:
        pytest.fail(f"npm could not install oidc-provider into {folder}:\n{done.stderr[-2000:]}")
