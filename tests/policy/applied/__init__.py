"""Cases that show of every setting that it is applied. What a case is: `case.py`."""

from . import (
    audit,
    auth,
    client,
    launching,
    limits,
    listening,
    rates,
    safe,
    security,
    server,
    serving,
    timeouts,
    tls,
    tools,
    transports,
)

__all__ = [
    "audit",
    "auth",
    "client",
    "launching",
    "limits",
    "listening",
    "rates",
    "safe",
    "security",
    "server",
    "serving",
    "timeouts",
    "tls",
    "tools",
    "transports",
]
