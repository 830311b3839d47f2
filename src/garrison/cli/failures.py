"""How a command that talks to a server ends: exit statuses, and one line that says what to do.

    0    done
    1    the tool answered that it failed (`isError`); in `logout`, the tokens were deleted and not revoked; in `host`,
         something waits for approval, or a server cannot be used
    2    the command was used wrongly
    3    no connection: it could not be made, or it was lost
    4    the server answered with a protocol error, or broke the protocol
    5    no answer in time
    6    authentication is required, or no token could be had
    7    in `host`: not approved, or no longer what was approved; nothing was done
    130  interrupted

The numbers are an interface: they do not change.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from ..errors import (
    AuthenticationRequired,
    AuthorizationFailed,
    ClientError,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    GarrisonError,
    HttpError,
    NoSuchTool,
    NotApproved,
    RemoteError,
    RequestTimeout,
)
from .style import emit_json, safe

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AUTHENTICATION",
    "NOT_APPROVED",
    "NOT_REVOKED",
    "NO_CONNECTION",
    "OK",
    "PROTOCOL",
    "TIMED_OUT",
    "TOOL_FAILED",
    "USAGE",
    "WAITS",
    "quiet",
    "report",
    "status_of",
    "worded",
]

OK: Final = 0
TOOL_FAILED: Final = 1
NOT_REVOKED: Final = 1
WAITS: Final = 1
USAGE: Final = 2
NO_CONNECTION: Final = 3
PROTOCOL: Final = 4
TIMED_OUT: Final = 5
AUTHENTICATION: Final = 6
NOT_APPROVED: Final = 7

_STATUSES: Final[tuple[tuple[type[GarrisonError], int], ...]] = (
    (ConfigurationError, USAGE),
    (NoSuchTool, USAGE),
    (NotApproved, NOT_APPROVED),
    (AuthenticationRequired, AUTHENTICATION),
    (AuthorizationFailed, AUTHENTICATION),
    (RequestTimeout, TIMED_OUT),
    (HttpError, NO_CONNECTION),
    (ConnectionFailed, NO_CONNECTION),
    (ConnectionLost, NO_CONNECTION),
    (ClientError, PROTOCOL),
)
"""The first class that fits decides."""


def _no_connection(error: GarrisonError, target: str) -> str:
    return "is the server running, and is the URL or command right?"


def _timed_out(error: GarrisonError, target: str) -> str:
    return "allow more with --timeout SECONDS"


def _authentication(error: GarrisonError, target: str) -> str:
    if not isinstance(error, AuthenticationRequired):
        return ""  # it says itself what to do
    if error.status == 403:
        return "the token does not allow this (or this program's Host or Origin is not on the server's list)"
    return f"sign in with `garrison login {target or 'URL'}`, or pass the server's token with --token or GARRISON_TOKEN"


_ADVICE: Final[dict[int, Callable[[GarrisonError, str], str]]] = {
    NO_CONNECTION: _no_connection,
    TIMED_OUT: _timed_out,
    AUTHENTICATION: _authentication,
}


_OPTIONS: Final = (
    ("tls=TlsClientConfig(ca=FILE)", "--ca FILE"),
    ("tls=TlsClientConfig(certificate=, key=)", "--cert FILE and --key FILE"),
    ("TlsClientConfig.pins", "--pin"),
    ("TlsClientConfig.ca", "--ca"),
    ("TlsClientConfig.certificate", "--cert"),
    ("TlsClientConfig.key", "--key"),
    ("SecurityPolicy.allow_insecure_http_hosts", "--allow-insecure-http HOST=REASON"),
    ("set client_id; or let it register itself with allow_dynamic_registration=True",
     "give --client-id; or let it register itself with --allow-dynamic-registration"),
    ("set client_id", "give --client-id"),
    ("set issuer= to", "sign in anew with --issuer of"),
    ("set browser=headless", "give --headless"),
    ("OAuth.client_metadata_url", "--client-metadata-url"),
    ("OAuth.redirect_uri", "--redirect-uri"),
    ("OAuth.account", "--account"),
    ("OAuth.scopes", "--scope"),
    ("OAuth.issuer", "--issuer"),
    ("SafeFetch.private_hosts", "--private-host HOST"),
    ("`await host.review()`, or `garrison pins approve", "`garrison host CONFIG approve`, or `garrison pins approve"),
    ("see it with `garrison host`, or say trusted=True", "`garrison host` at a terminal shows it and asks, or --trust"),
    ("(Host(approve=))", "(no terminal; --yes is a yes to the call as it stands there)"),
    ("(issuer)", "(--issuer)"),
    ("(timeout)", "(--timeout)"),
)  # fmt: skip
"""What an error names in Python, and what it is called here."""


def status_of(error: GarrisonError) -> int:
    """The exit status for what ended a command."""
    return next((number for kind, number in _STATUSES if isinstance(error, kind)), PROTOCOL)


def worded(error: GarrisonError | str, target: str = "", status: int = OK) -> str:
    """A text for the command line, in one line.

    Args:
        error: an error, which gets advice where it names no option itself; or a text.
        target: the server's URL, for advice.
        status: of the error; found by its class when 0.
    """
    return " ".join(
        _worded(error, status or (status_of(error) if isinstance(error, GarrisonError) else OK), target).split()
    )


def _worded(error: GarrisonError | str, status: int, target: str) -> str:
    text = str(error)
    if isinstance(error, RequestTimeout):  # its own words name a parameter, not an option
        text = f"{error.method} was not answered within {error.seconds:g} s"
    for name, option in _OPTIONS:
        if name in text:
            return text.replace(name, option)
    advice = _ADVICE[status](error, target) if isinstance(error, GarrisonError) and status in _ADVICE else ""
    return f"{text}; {advice}" if advice else text


def quiet() -> None:
    """Leave out the log of security events on standard error: what they refuse ends the command, which says so."""
    import logging

    logging.getLogger("garrison.security").addHandler(logging.NullHandler())


def report(error: GarrisonError, *, as_json: bool, log: str = "", target: str = "", status: int = OK) -> int:
    """Say how it failed: one line on standard error, or an object on standard output.

    Args:
        error: what ended the command.
        as_json: print the object.
        log: the end of what a started server wrote on standard error; shown when there was no connection.
        target: the server's URL, for advice.
        status: the exit status; found by the error's class when 0.

    Returns:
        The exit status.
    """
    status = status or status_of(error)
    if as_json:
        content: dict[str, object] = {"kind": type(error).__name__, "message": str(error), "status": status}
        if isinstance(error, RemoteError):
            content |= {"message": error.message, "code": error.code}
            if error.data is not None:
                content["data"] = error.data
        emit_json({"error": content})
        return status
    if log and status == NO_CONNECTION:
        print(safe(log).rstrip(), file=sys.stderr)
    print(f"garrison: {safe(worded(error, target, status))}", file=sys.stderr)
    return status
