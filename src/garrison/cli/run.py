"""`garrison run`: serve what a file defines.

Rules of this file:
- It loads what the file itself would load, and nothing else: no client, no tables.
- Standard output belongs to the protocol; everything said to people goes to standard error.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import Namespace

    from ..server import Server
    from ..server.serve import HttpServing

__all__ = ["parse_address", "run"]


def run(options: Namespace) -> int:
    """Serve until the client goes (stdio) or until interrupted (HTTP).

    Returns:
        0 after an orderly end, 2 when nothing could be served as asked.
    """
    try:
        server = _server(options.target)
        if server is None:
            return 2
        if options.dangerously_allow_unauthenticated:
            from dataclasses import replace

            reason: str = options.dangerously_allow_unauthenticated
            server.policy = replace(server.policy, dangerously_allow_unauthenticated=reason)
        if options.http is None:
            _run_stdio(server)
        else:
            _run_http(server, options.http, options.path, options.token)
    except ConfigurationError as exc:
        print(f"garrison: {exc}", file=sys.stderr)
        return 2
    except OSError as exc:
        print(f"garrison: cannot listen on {options.http}: {exc.strerror or exc}", file=sys.stderr)
        return 2
    return 0


def _server(target: str) -> Server | None:
    """The target's server; None when its code failed, which has then been shown."""
    from .load import load

    try:
        return load(target)
    except ConfigurationError:
        raise
    except (Exception, SystemExit):  # noqa: BLE001 - the file's own mistake, shown as Python would show it
        import traceback

        traceback.print_exc()
        print(f"garrison: {target} could not be loaded", file=sys.stderr)
        return None


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[V6]:PORT` or `:PORT`.

    Raises:
        ConfigurationError: it is none of these.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigurationError(f"--http {text}: must be HOST:PORT, for instance 127.0.0.1:8000")
    return host or "127.0.0.1", int(port)


def _run_stdio(server: Server) -> None:
    from ..server.serve import run_stdio

    if os.isatty(0):
        print(
            f"{server.info.name} speaks MCP on this terminal, for a client that started it. Ctrl-D ends it; "
            "--http 127.0.0.1:8000 serves HTTP.",
            file=sys.stderr,
        )
    run_stdio(server)


def _run_http(server: Server, address: str, path: str, token: str | None) -> None:
    from ..server.serve import run_http

    host, port = parse_address(address)
    if not path.startswith("/") or any(c <= " " or c > "~" or c in "?#" for c in path):
        raise ConfigurationError(f"--path {path}: must start with / and have no spaces, ? or #")
    run_http(server, host, port, token=token, path=path, announce=_announce)


def _announce(serving: HttpServing) -> None:
    """Say where the server is; and the token, if it was made here, this once."""
    from .style import bold, dim

    info = serving.server.info
    lines = [f"{info.name} {info.version} serves MCP at {bold(serving.url, sys.stderr)}"]
    if serving.token_is_new:
        note = dim("(made for this run; set GARRISON_TOKEN to choose one)", sys.stderr)
        lines.append(f"token: {bold(serving.token or '', sys.stderr)}  {note}")
    elif serving.token is None:
        lines.append("no token is asked for: every program on this machine may call it")
    print("\n".join(lines), file=sys.stderr, flush=True)
