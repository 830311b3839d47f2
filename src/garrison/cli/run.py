"""`garrison run`: serve what a file defines.

Rules of this file:
- It loads what the file itself would load, and nothing else: no client, no tables.
- Standard output belongs to the protocol; everything said to people goes to standard error.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TypeVar

from ..audit.contract import AuditFailed
from ..errors import ConfigurationError
from .plan import make_plan

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from ..audit.contract import Sink
    from ..server import Server
    from ..server.serve import HttpServing, UnixServing
    from .options import Words
    from .plan import Network, Plan

__all__ = ["audit_of", "load_server", "run"]

_T = TypeVar("_T")


def run(options: Namespace) -> int:
    """Serve until the client goes (stdio) or until interrupted (everything else).

    Returns:
        0 after an orderly end, 2 when nothing could be served as asked.
    """
    try:
        server = load_server(options)
        if server is None:
            return 2
        plan = make_plan(options, server.policy)
        server.policy = plan.policy
        server.audit = audit_of(options, server)
        _serve(server, plan)
    except (AuditFailed, ConfigurationError) as exc:
        print(f"garrison: {exc}", file=sys.stderr)
        return 2
    except OSError as exc:
        where = options.http or options.unix or (options.ws if isinstance(options.ws, str) else "the address")
        print(f"garrison: cannot listen on {where}: {exc.strerror or exc}", file=sys.stderr)
        return 2
    return 0


def audit_of(options: Namespace, server: Server) -> Sink | None:
    """What keeps a record: what the command line names, else the code.

    Raises:
        ConfigurationError: there is a key and no file, or the key cannot be used.
    """
    path: str | None = options.audit_log
    key: str | None = options.audit_key
    if path is None:
        if key is not None:
            raise ConfigurationError("--audit-key: needs --audit-log, the file that it signs")
        return server.audit
    from ..audit import AuditKey, AuditLog

    return AuditLog(path, key=None if key is None else AuditKey.read(key))


def load_server(options: Namespace) -> Server | None:
    """The target's server; None when its code failed, which has then been shown.

    Args:
        options: with the target, and the words that garrison itself has no use for (`Words`).

    Raises:
        ConfigurationError: the target defines no server, or more than one, or has parameters that cannot be options.
        SystemExit: a word is not an option, or help was asked for. It has been printed.
    """
    from .load import Factory, find

    words: Words = options.words
    found = _unless_it_fails(options.target, lambda: find(options.target))
    if not isinstance(found, Factory):
        if found is not None:
            words.finish()
        return found
    from .target_options import add_target_options, given

    taken = add_target_options(words.parser, found)
    arguments = given(words.finish(found.place, taken), found)
    return _unless_it_fails(options.target, lambda: found.made(**arguments))


def _unless_it_fails(target: str, work: Callable[[], _T]) -> _T | None:
    try:
        return work()
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
