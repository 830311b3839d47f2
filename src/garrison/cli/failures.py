"""How a command that talks to a server ends: exit statuses, and one line that says what to do.

    0    done
    1    the tool answered that it failed (`isError`)
    2    the command was used wrongly
    3    no connection: it could not be made, or it was lost
    4    the server answered with a protocol error, or broke the protocol
    5    no answer in time
    6    authentication is required
    130  interrupted

The numbers are an interface: they do not change.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from ..errors import (
    AuthenticationRequired,
    ClientError,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    GarrisonError,
    HttpError,
    RemoteError,
    RequestTimeout,
)
from .style import emit_json, safe

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AUTHENTICATION", "NO_CONNECTION", "OK", "PROTOCOL", "TIMED_OUT", "TOOL_FAILED", "USAGE", "report"]

OK: Final = 0
TOOL_FAILED: Final = 1
USAGE: Final = 2
NO_CONNECTION: Final = 3
PROTOCOL: Final = 4
TIMED_OUT: Final = 5
AUTHENTICATION: Final = 6

_STATUSES: Final[tuple[tuple[type[GarrisonError], int], ...]] = (
    (ConfigurationError, USAGE),
    (AuthenticationRequired, AUTHENTICATION),
    (RequestTimeout, TIMED_OUT),
    (HttpError, NO_CONNECTION),
    (ConnectionFailed, NO_CONNECTION),
    (ConnectionLost, NO_CONNECTION),
    (ClientError, PROTOCOL),
)
"""The first class that fits decides."""


def _authentication(error: GarrisonError) -> str:
    refused = isinstance(error, AuthenticationRequired) and error.status == 403
    if refused:
        return "the token does not allow this (or this program's Host or Origin is not on the server's list)"
    return "pass the server's token with --token, or set GARRISON_TOKEN"


_ADVICE: Final[dict[int, Callable[[GarrisonError], str]]] = {
    NO_CONNECTION: lambda error: "is the server running, and is the URL or command right?",
    TIMED_OUT: lambda error: "allow more with --timeout SECONDS",
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
)
"""What an error names in Python, and what it is called here."""


def _worded(error: GarrisonError, status: int) -> str:
    """The error's text for the command line, with advice where it names no option itself."""
    text = str(error)
    if isinstance(error, RequestTimeout):  # its own words name a parameter, not an option
        text = f"{error.method} was not answered within {error.seconds:g} s"
    for name, option in _OPTIONS:
        if name in text:
            return text.replace(name, option)
    return f"{text}; {_ADVICE[status](error)}" if status in _ADVICE else text


def report(error: GarrisonError, *, as_json: bool, log: str = "") -> int:
    """Say how it failed: one line on standard error, or an object on standard output.

    Args:
        error: what ended the command.
        as_json: print the object.
        log: the end of what a started server wrote on standard error; shown when there was no connection.

    Returns:
        The exit status.
    """
    status = next((number for kind, number in _STATUSES if isinstance(error, kind)), PROTOCOL)
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
    print(f"garrison: {safe(' '.join(_worded(error, status).split()))}", file=sys.stderr)
    return status
