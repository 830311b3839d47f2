"""The words of every command: a table of commands, and the options of each.

Rules of this file:
- Options that several commands share are added by one function, so that they mean the same everywhere.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = ["COMMANDS", "Command", "parser_for", "usage"]


class Command(NamedTuple):
    """One command: where it lives and what it takes."""

    summary: str
    module: str
    function: str
    add_options: Callable[[argparse.ArgumentParser], None]
    talks: bool = False
    """True when it is a client of a target."""
    epilog: str = ""


def usage() -> str:
    """The commands, for people who ask what there is."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: garrison COMMAND ...", "", *lines, "", "garrison COMMAND --help says more."])


def parser_for(name: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"garrison {name}",
        description=command.summary[0].upper() + command.summary[1:] + ".",
        epilog=command.epilog or None,
        formatter_class=_formatter,
        allow_abbrev=False,
    )
    command.add_options(parser)
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Help as wide as the terminal. A width that is given spares argparse the import of `shutil`."""
    try:
        columns = os.get_terminal_size().columns
    except (OSError, ValueError):
        columns = 80
    return argparse.HelpFormatter(prog, width=min(max(columns, 40), 100) - 2)


def _run(parser: argparse.ArgumentParser) -> None:
    from .serve_options import add_serve_options

    parser.add_argument("target", metavar="TARGET", help="file.py, file.py:name, module, or module:name")
    add_serve_options(parser)


def _doctor(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    parser.add_argument("--json", action="store_true", help=_JSON)


def _reach(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a URL (https, wss, or http and ws on loopback), unix:PATH, a file.py, or a command line in quotes "
        "or after --",
    )


def _talk(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("connection")
    group.add_argument("--token", metavar="TOKEN", help="the bearer token (default: GARRISON_TOKEN, else your sign-in)")
    group.add_argument(
        "--header", metavar="'NAME: VALUE'", action="append", default=[], help="a further HTTP header; may be repeated"
    )
    group.add_argument(
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="an environment variable of a started server, which inherits few; may be repeated",
    )
    group.add_argument(
        "--era", choices=("auto", "modern", "legacy"), default="auto", help="which protocol to speak (default: auto)"
    )
    group.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, help="how long one request may take (default: 60)"
    )
    group.add_argument("--verbose", action="store_true", help="show what a started server writes on standard error")
    group.add_argument("--ca", metavar="FILE", help="the roots to believe (PEM), in place of the platform's")
    group.add_argument("--cert", metavar="FILE", help="a certificate to show to the server (PEM)")
    group.add_argument("--key", metavar="FILE", help="its private key (PEM), which only you can read")
    group.add_argument(
        "--pin",
        metavar="BASE64",
        action="append",
        default=[],
        help="the SHA-256 of the server's public key (SPKI); may be repeated: one must fit",
    )
    group.add_argument("--unix-socket", metavar="PATH", help="reach an http URL by this Unix socket")
    group.add_argument(
        "--allow-insecure-http",
        metavar="HOST=REASON",
        action="append",
        default=[],
        help="talk to this host without TLS, and say why; may be repeated",
    )
    _kept(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help=_JSON)


def _kept(parser: argparse.ArgumentParser, *, account: bool = True) -> None:
    group = parser.add_argument_group("sign-ins", "What `garrison login` keeps.")
    if account:
        group.add_argument("--account", metavar="NAME", help="which of your accounts at the server (default: default)")
    group.add_argument("--store", choices=("keyring", "file"), help="where (default: GARRISON_STORE, or what there is)")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError("must be above 0 and at most 86400")
    return value


def _questions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--yes", action="store_true", help="answer the server's forms with their defaults instead of asking you"
    )
    parser.add_argument("--progress", action="store_true", help="show progress as lines when there is no terminal")


def _list(parser: argparse.ArgumentParser) -> None:
    _reach(parser)
    _talk(parser)


def _call(parser: argparse.ArgumentParser) -> None:
    _reach(parser)
    parser.add_argument("name", metavar="TOOL")
    parser.add_argument("arguments", metavar="name=value", nargs="*", help="arguments, read as the tool's schema says")
    parser.add_argument("--json-args", metavar="OBJECT", help="arguments as one JSON object")
    _questions(parser)
    _talk(parser)


def _read(parser: argparse.ArgumentParser) -> None:
    _reach(parser)
    parser.add_argument("uri", metavar="URI")
    _questions(parser)
    _talk(parser)


def _prompt(parser: argparse.ArgumentParser) -> None:
    _reach(parser)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("arguments", metavar="name=value", nargs="*")
    _questions(parser)
    _talk(parser)


def _login(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="the MCP server: https, or http on loopback; or wss, ws")
    group = parser.add_argument_group("the client", "As whom this program is known to the authorization server.")
    group.add_argument("--client-id", metavar="ID", help="the id under which it is registered there")
    group.add_argument(
        "--ask-client-secret",
        action="store_true",
        help="its secret, where it has one, is asked for; or set GARRISON_CLIENT_SECRET",
    )
    group.add_argument("--client-metadata-url", metavar="URL", help="the https URL of a document about it: its id")
    group.add_argument("--redirect-uri", metavar="URI", help="the registered address of the answer, on loopback")
    group.add_argument(
        "--allow-dynamic-registration", action="store_true", help="let it register itself, which MCP deprecates"
    )
    group = parser.add_argument_group("the sign-in")
    group.add_argument("--scope", metavar="S", action="append", help="ask for this scope; may be repeated")
    group.add_argument("--issuer", metavar="URL", help="the one authorization server to use")
    group.add_argument("--headless", action="store_true", help="print the page's address, and read that of its end")
    group.add_argument(
        "--timeout", metavar="SECONDS", type=_patience, default=300.0, help="how long you have (default: 300)"
    )
    _kept(parser)
    _authority(parser)
    parser.add_argument("--json", action="store_true", help=_JSON)


def _logout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="the MCP server")
    _kept(parser)
    _authority(parser, hosts=False)
    parser.add_argument("--json", action="store_true", help=_JSON)


def _whoami(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", nargs="?", help="the MCP server (default: all)")
    _kept(parser, account=False)
    parser.add_argument("--json", action="store_true", help=_JSON)


def _authority(parser: argparse.ArgumentParser, *, hosts: bool = True) -> None:
    group = parser.add_argument_group("connection")
    if hosts:
        group.add_argument(
            "--private-host",
            metavar="HOST[:PORT]",
            action="append",
            default=[],
            help="an authorization server that is not on the public Internet; may be repeated",
        )
    group.add_argument("--ca", metavar="FILE", help="the roots to believe (PEM), in place of the platform's")


def _patience(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError("must be above 0 and at most 3600")
    return value


_JSON: Final = "print JSON: on one line, or indented on a terminal"


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--auth", action="store_true", help="sign in at a protected server, then attack what OAuth is for"
    )
    parser.add_argument("--fast", action="store_true", help="fewer steps of progress, and no large messages")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


_STATUSES: Final = (
    "Exit status: 0 done, 1 the tool failed, 2 wrong usage, 3 no connection, 4 protocol error, 5 timed out, "
    "6 authentication required, 130 interrupted."
)
_SIGN_IN: Final = "Exit status: 0 done, 2 wrong usage, 3 no connection, 5 timed out, 6 no token could be had."

COMMANDS: Final[dict[str, Command]] = {
    "run": Command("serve what a Python file defines", ".run", "run", _run),
    "doctor": Command(
        "show how a server would be served, what it allows, and what is doubtful",
        ".doctor",
        "doctor",
        _doctor,
        epilog="Starts nothing. Exit status: 0 it would start, 1 it would not, 2 wrong usage.",
    ),
    "list": Command("show a server's tools, resources and prompts", ".talk", "list_", _list, True, _STATUSES),
    "call": Command("call a tool", ".talk", "call", _call, True, _STATUSES),
    "read": Command("read a resource", ".talk", "read", _read, True, _STATUSES),
    "prompt": Command("get a prompt", ".talk", "prompt", _prompt, True, _STATUSES),
    "discover": Command("show what a server is and offers", ".talk", "discover", _list, True, _STATUSES),
    "login": Command("sign in to a server that wants it", ".login", "login", _login, epilog=_SIGN_IN),
    "logout": Command(
        "revoke and delete the tokens of a sign-in",
        ".login",
        "logout",
        _logout,
        epilog="Exit status: 0 done, 1 deleted and not revoked, 2 wrong usage, 6 there is no such sign-in.",
    ),
    "whoami": Command("show the sign-ins that are kept", ".login", "whoami", _whoami),
    "demo": Command("talk to a real server, then attack it, and show every answer", ".demo", "demo", _demo),
}
"""Every command, in the order of the help."""
