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
from .plan import make_plan

if TYPE_CHECKING:
    from argparse import Namespace

    from ..server import Server
    from ..server.serve import HttpServing, UnixServing
    from .plan import Network, Plan

__all__ = ["load_server", "run"]


def run(options: Namespace) -> int:
    """Serve until the client goes (stdio) or until interrupted (everything else).

    Returns:
        0 after an orderly end, 2 when nothing could be served as asked.
    """
    try:
        server = load_server(options.target)
        if server is None:
            return 2
        plan = make_plan(options, server.policy)
        server.policy = plan.policy
        _serve(server, plan)
    except ConfigurationError as exc:
        print(f"garrison: {exc}", file=sys.stderr)
        return 2
    except OSError as exc:
        where = options.http or options.unix or (options.ws if isinstance(options.ws, str) else "the address")
        print(f"garrison: cannot listen on {where}: {exc.strerror or exc}", file=sys.stderr)
        return 2
    return 0


def load_server(target: str) -> Server | None:
    """The target's server; None when its code failed, which has then been shown.

    Raises:
        ConfigurationError: the target defines no server, or more than one.
    """
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


def _serve(server: Server, plan: Plan) -> None:
    from ..server import serve

    network = plan.network
    if network is not None:
        serve.run_http(server, **network._asdict(), announce=lambda serving: _announce_http(serving, network))
    elif plan.unix is not None:
        serve.run_unix(server, plan.unix, announce=_announce_unix)
    else:
        if os.isatty(0):
            print(
                f"{server.info.name} speaks MCP on this terminal, for a client that started it. Ctrl-D ends it; "
                "--http 127.0.0.1:8000 serves HTTP.",
                file=sys.stderr,
            )
        serve.run_stdio(server)


def _announce_http(serving: HttpServing, network: Network) -> None:
    """Say where the server is, and whom it believes; and the token, if it was made here, this once."""
    from .style import bold, dim

    urls = [serving.url] if serving.http else []
    if serving.websocket is not None:
        urls.append(serving.websocket_url)
    where = " and ".join(bold(url, sys.stderr) for url in urls)
    lines = [where if serving.unix is None else f"{where} on the Unix socket {bold(serving.unix.path, sys.stderr)}"]
    if serving.server.auth is not None:
        from .protection import takes

        lines.append(f"it takes {takes(serving.server.auth)}")
    elif serving.token_is_new:
        note = dim("(made for this run; set GARRISON_TOKEN to choose one)", sys.stderr)
        lines.append(f"token: {bold(serving.token or '', sys.stderr)}  {note}")
    elif serving.token is None and network.tls is not None and network.tls.client_ca is not None:
        lines.append("no token is asked for: every client must show a certificate")
    elif serving.token is None:
        lines.append("no token is asked for: whoever reaches this address may call it")
    _announce(serving.server, lines)


def _announce_unix(serving: UnixServing) -> None:
    """Say where the socket is, and who may use it."""
    from .style import bold

    users = "programs of this user"
    if serving.config.allowed_uids:
        users += f" and of uid {', '.join(map(str, serving.config.allowed_uids))}"
    _announce(serving.server, [bold(serving.url, sys.stderr), f"{users} may connect"])


def _announce(server: Server, lines: list[str]) -> None:
    """Print the lines, and every relaxation whose record was not printed already for want of another log."""
    from logging import getLogger

    if getLogger("garrison.security").hasHandlers():
        lines += [f"relaxed: {name}: {reason}" for name, reason in server.policy.relaxations.items()]
    print(f"{server.info.name} {server.info.version} serves MCP at " + "\n".join(lines), file=sys.stderr, flush=True)
