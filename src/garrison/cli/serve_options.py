"""The words of the commands that serve: where to listen, and every setting of the policy.

Rules of this file:
- A word that was not given is None (or an empty list), so that what the file and the code say stays.
- A relaxation is a word with a reason; without one it is an error.
- The name of an option is that of its field, in the singular where the option may be repeated.
"""

from __future__ import annotations

import argparse

__all__ = ["add_serve_options"]


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Add everything that says how a server listens and what it allows."""
    _listening(parser)
    _tls(parser)
    _policy(parser)
    _audit(parser)


def _listening(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where to listen")
    group.add_argument("--config", metavar="FILE", help="a TOML file with settings; none is ever looked for")
    group.add_argument("--stdio", action="store_true", help="standard input and output (the default)")
    group.add_argument("--http", metavar="HOST:PORT", help="HTTP; port 0 takes a free one; or unix:PATH")
    group.add_argument(
        "--ws",
        metavar="HOST:PORT",
        nargs="?",
        const=True,
        help="WebSocket, on 127.0.0.1:8000 unless said otherwise; with --http, on the same listener",
    )
    group.add_argument("--unix", metavar="PATH", help="a Unix socket, one message per line as on stdio")
    group.add_argument("--socket-group", metavar="GROUP", help="who may open the Unix socket beside its owner")
    group.add_argument("--socket-user", metavar="USER", help="who of them may connect: the proxy's user")
    group.add_argument("--path", help="the endpoint's path in HTTP and WebSocket (default: /mcp)")
    group.add_argument("--workers", metavar="COUNT", type=int, help="processes that serve HTTP together (default: 1)")
    group.add_argument(
        "--token",
        metavar="TOKEN",
        type=_said,
        help="the bearer token that clients must send; other users may see it in the list of processes, which "
        "GARRISON_TOKEN and --token-file spare you. A new one is made and printed when none is given",
    )
    group.add_argument("--token-file", metavar="FILE", help="a file with the token, which only you can read")


def _tls(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("TLS")
    group.add_argument("--tls-cert", metavar="FILE", help="the certificate and its chain (PEM)")
    group.add_argument("--tls-key", metavar="FILE", help="its private key (PEM), which only you can read")
    group.add_argument("--tls-client-ca", metavar="FILE", help="ask every client for a certificate of these roots")
    group.add_argument("--tls-minimum", choices=("1.2", "1.3"), help="the oldest version of TLS (default: 1.2)")


def _policy(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("policy", "Each replaces what the file, or the server's code, says.")
    group.add_argument("--profile", choices=("strict", "compat", "conformance"), help="the preset to begin with")
    for option, field, metavar, text in (
        ("--allowed-host", "allowed_hosts", "NAME", "a Host header to answer beside the loopback names"),
        ("--allowed-origin", "allowed_origins", "ORIGIN", "an Origin header to answer beside the listener's own"),
        ("--trusted-proxy", "trusted_proxies", "ADDRESS", "an address, network, or unix: its forwarded headers count"),
        ("--tolerate", "tolerate", "NAME", "a departure from the protocol to let pass"),
        ("--limit", "limits", "NAME=VALUE", "a field of Limits"),
        ("--timeout", "timeouts", "NAME=SECONDS", "a field of Timeouts"),
        ("--rate", "rates", "NAME=RATE", "a field of Rates, as principal=120/minute,30: a rate, and so many at once"),
        ("--allow-insecure-http", "allow_insecure_http_hosts", "HOST=REASON", "serve this host without TLS, and why"),
    ):
        group.add_argument(
            option, dest=field, metavar=metavar, type=_said, action="append", help=f"{text}; may be repeated"
        )
    group.add_argument("--public-url", metavar="URL", help="the https URL by which clients reach the endpoint")
    group.add_argument("--hygiene", choices=("visible", "strip"), help="what becomes of hidden characters in results")
    group.add_argument(
        "--redact-results",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="mask what looks like a key or token in results too",
    )
    for option, text in (
        ("--dangerously-skip-hygiene", "let hidden characters in results through, and say why"),
        ("--dangerously-allow-unauthenticated", "ask clients for no token, and say why not"),
        ("--dangerously-allow-unsafe-socket-path", "allow a Unix socket where others can replace it, and say why"),
    ):
        group.add_argument(option, metavar="REASON", type=_said, help=text)


def _audit(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("audit", "In place of what the server's code says.")
    group.add_argument("--audit-log", metavar="FILE", help="keep a record of refusals and calls in this file")
    group.add_argument("--audit-key", metavar="FILE", help="the key that signs it, which only you can read")


def _said(text: str) -> str:
    from argparse import ArgumentTypeError

    if not text.strip():
        raise ArgumentTypeError("must say something")
    return text
