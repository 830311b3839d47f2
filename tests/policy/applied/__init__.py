"""Cases that show of every setting that it is applied. What a case is: `case.py`."""

from . import auth, client, limits, listening, security, server, serving, timeouts, tls, transports

__all__ = [
    "auth",
    "client",
    "limits",
    "listening",
    "security",
    "server",
    "serving",
    "timeouts",
    "tls",
    "transports",
]
