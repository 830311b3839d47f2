"""The words of every command: a table of commands, and the options of each.

Rules of this file:
- Options that several commands share are added by one function, so that they mean the same everywhere.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


__all__ = ["COMMANDS", "Command", "Words", "parsed", "parser_for", "usage"]


class Command(NamedTuple):
    """One command: where it lives and what it takes."""

    summary: str
    module: str
    function: str
    add_options: Callable[[argparse.ArgumentParser], None]
    talks: bool = False
    """True when it is a client of a target."""
    epilog: str = ""
    serves: bool = False
    """True when its target may have options of its own."""


def usage() -> str:
    """The commands, for people who ask what there is."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: garrison COMMAND ...", "", *lines, "", "garrison COMMAND --help says more."])


class _Parser(argparse.ArgumentParser):
    """While help is asked for, nobody is told what is wrong with the other words."""

    helping = False

    def error(self, message: str) -> NoReturn:
        if self.helping:
            self.print_help()
            self.exit()
        super().error(message)


class Words(NamedTuple):
    """The words of a command whose target may have options of its own, which are known when it is loaded."""

    parser: argparse.ArgumentParser
    said: list[str]
    """All of them, but those that ask for help."""
    unknown: list[str]
    """Those that are no options of garrison's own, and what follows them."""
    helping: bool

    def finish(self, place: str = "", taken: Sequence[str] = ()) -> argparse.Namespace:
        """Read all words, or print the help.

        Args:
            place: the target.
            taken: its options, which the parser has now.

        Raises:
            SystemExit: help was printed, or what is wrong.
        """
        if taken:
            self.parser.usage = f"{self.parser.prog} {place} [OPTION ...]".replace("%", "%%")
        if self.helping:
            self.parser.print_help()
            self.parser.exit()
        options, unknown = self.parser.parse_known_intermixed_args(self.said) if taken else (None, self.unknown)
        if unknown:
            more = f"; {place} takes {', '.join(taken)}" if taken else ""
            self.parser.error(f"unrecognized arguments: {' '.join(unknown)}{more}")
        return options or argparse.Namespace()


def parsed(name: str, words: Sequence[str]) -> argparse.Namespace:
    """The options of one command; of one that serves, also its `Words`, as `words`.

    Raises:
        SystemExit: help was printed, or what is wrong with the words.
    """
    parser = parser_for(name)
    if not COMMANDS[name].serves:
        return parser.parse_intermixed_args(words)
    said = [word for word in words if word not in ("-h", "--help")]
    parser.helping = len(said) < len(words)
    options, unknown = parser.parse_known_intermixed_args(said)
    options.words = Words(parser, said, unknown, parser.helping)
    return options


def parser_for(name: str) -> _Parser:
    """The parser of one command."""
    command = COMMANDS[name]
    parser = _Parser(
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
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--auth", action="store_true", help="sign in at a protected server, then attack what OAuth is for"
    )
    kind.add_argument(
        "--host", action="store_true", help="attack a model with many servers, without a host and with one"
    )
    parser.add_argument("--fast", action="store_true", help="fewer steps of progress, and no large messages")
    parser.add_argument("--audit", metavar="FILE", help="its audit log (default: in a new temporary folder)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def _audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("verify", "tail", "report"), help="what to do")
    parser.add_argument("file", metavar="FILE", help="the log that is written; its older files are found beside it")
    group = parser.add_argument_group("verify", "Whether the log is as it was written; if not, from which record on.")
    group.add_argument(
        "--key",
        metavar="FILE",
        action="append",
        default=[],
        help="the file with the log's key (default: the key in GARRISON_AUDIT_KEY); may be repeated",
    )
    group.add_argument("--closed", action="store_true", help="the log has to end with its closing mark")
    group.add_argument("--head", metavar="HASH", help="a hash kept elsewhere, which has to be in the log")
    group = parser.add_argument_group("tail", "The last records.")
    group.add_argument("-f", "--follow", action="store_true", help="go on with those to come")
    group.add_argument("-n", "--lines", metavar="N", type=int, default=20, help="how many (default: 20)")
    group.add_argument("--event", metavar="NAME", help="of these events; `*` stands for anything")
    group.add_argument("--principal", metavar="WHO", help="of whom; `*` stands for anything")
    group.add_argument("--since", metavar="WHEN", help="no older ones: 10m, 2h, 3d, or a time as 2026-07-28T12:00")
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print JSON: for tail, a record a line")


def _pins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "diff", "approve", "forget"), help="what to do")
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="a tool as ALIAS.TOOL, or ALIAS for all of a server (default: all)"
    )
    parser.add_argument(
        "--state", metavar="FOLDER", help="where the host keeps its state (default: the platform's place)"
    )
    group = parser.add_argument_group("list", "What was approved, and what waits for it.")
    group.add_argument("--check", action="store_true", help="exit with 1 if something waits")
    group = parser.add_argument_group("approve", "Shows what waits and asks about each.")
    group.add_argument(
        "--digest", metavar="SHA256", help="approve this definition and no other; `diff` shows its digest"
    )
    group.add_argument("--yes", action="store_true", help="ask nobody; with one NAME and --digest only")
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help=_JSON)


def _host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG", help="a host.toml, or the JSON with mcpServers that desktop clients use"
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "show", "call", "approve", "shell"),
        help="what a model is shown and what not; exactly what it is shown; call a tool; ask about what waits; a "
        "prompt for all of that (default: shell on a terminal, else list)",
    )
    parser.add_argument(
        "words",
        metavar="NAME|name=value",
        nargs="*",
        default=[],
        help="for call and show: ALIAS.TOOL; for call: its arguments",
    )
    parser.add_argument(
        "--state", metavar="FOLDER", help="where the host keeps its state (default: the platform's place)"
    )
    parser.add_argument(
        "--trust", action="store_true", help="believe CONFIG unasked, though it is not in your configuration folder"
    )
    group = parser.add_argument_group("call")
    group.add_argument("--json-args", metavar="OBJECT", help="arguments as one JSON object")
    group.add_argument(
        "--yes", action="store_true", help="allow this call as it stands there; it allows no program and no definition"
    )
    group.add_argument("--timeout", metavar="SECONDS", type=_seconds, help="how long it may take (default: 60)")
    group.add_argument("--progress", action="store_true", help="show progress as lines when there is no terminal")
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help=_JSON)


def _new(parser: argparse.ArgumentParser) -> None:
    from .new import TEMPLATES

    parser.add_argument("name", metavar="NAME", help="of the directory that is made here, and of the project")
    default, *_ = TEMPLATES
    begins = "; ".join(f"{name}: {template.summary}" for name, template in TEMPLATES.items())
    parser.add_argument(
        "--from",
        dest="template",
        choices=tuple(TEMPLATES),
        default=default,
        help=f"what it begins with (default: {default}). {begins}",
    )


_STATUSES: Final = (
    "Exit status: 0 done, 1 the tool failed, 2 wrong usage, 3 no connection, 4 protocol error, 5 timed out, "
    "6 authentication required, 130 interrupted."
)
_SIGN_IN: Final = "Exit status: 0 done, 2 wrong usage, 3 no connection, 5 timed out, 6 no token could be had."

COMMANDS: Final[dict[str, Command]] = {
    "run": Command("serve what a Python file defines", ".run", "run", _run, serves=True),
    "doctor": Command(
        "show how a server would be served, what it allows, and what is doubtful",
        ".doctor",
        "doctor",
        _doctor,
        epilog="Starts nothing. Exit status: 0 it would start, 1 it would not, 2 wrong usage.",
        serves=True,
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
    "audit": Command(
        "verify, show or sum up an audit log",
        ".audit",
        "audit",
        _audit,
        epilog="Exit status: 0 done, 1 the log was changed, 2 wrong usage, or no such log.",
    ),
    "host": Command(
        "hold many servers for one model, and ask you before anything happens",
        ".host",
        "host",
        _host,
        epilog="Exit status: 0 done, 1 something waits for approval, a server cannot be used, or the tool failed, 2 "
        "wrong usage, 3 no connection, 4 protocol error, 5 timed out, 6 authentication required, 7 not approved, or "
        "changed since it was, 130 interrupted.",
    ),
    "pins": Command(
        "show and approve what servers say of their tools",
        ".pins",
        "pins",
        _pins,
        epilog="Starts nothing. Exit status: 0 done, 1 something waits for approval, 2 wrong usage, or no such tool.",
    ),
    "new": Command(
        "make a directory with a server, its tests and its project",
        ".new",
        "new",
        _new,
        epilog="Exit status: 0 made, 2 wrong usage, or there is such a directory already.",
    ),
    "demo": Command("talk to a real server, then attack it, and show every answer", ".demo", "demo", _demo),
}
"""Every command, in the order of the help."""
