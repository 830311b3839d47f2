"""Ports that nobody is given by chance: below those that the system hands out, since other tests ask it for some."""

from __future__ import annotations

import secrets
import socket

__all__ = ["free_port"]

_HERE = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def free_port() -> int:
    """A TCP port on which nothing listened a moment ago, on 127.0.0.1 and, where there is one, on ::1."""
    places = [(family, host) for family, host in _HERE if _free(family, host, 0)]
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        if all(_free(family, host, port) for family, host in places):
            return port


def _free(family: socket.AddressFamily, host: str, port: int) -> bool:
    try:
        with socket.socket(family) as probe:
            probe.bind((host, port))
    except OSError:
        return False
    return True
