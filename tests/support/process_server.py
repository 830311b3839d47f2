"""A server that tests serve in processes of its own: `python -m tests.support.process_server METHOD OPTIONS`.

`make` gives one that several processes may serve; its `who` says which of them answers. `OPTIONS` are the arguments of
`METHOD` as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from garrison import SecurityPolicy, Server, Timeouts


def make() -> Server:
    """The server."""
    policy = SecurityPolicy(timeouts=Timeouts(shutdown=0.2))
    server = Server("s", policy=policy, state_key="ab" * 32, legacy="stateless")

    @server.tool(inline=True)
    def who() -> str:
        return str(os.getpid())

    return server


def configured(options: dict[str, Any]) -> dict[str, Any]:
    """Options as they come from another process, with their objects: `tls` is a certificate and its key, `websocket`
    anything, `unix` a path."""
    from garrison.policy.tls import TlsServerConfig
    from garrison.policy.transports import UnixSocketConfig, WebSocketConfig

    found = dict(options)
    if found.get("tls") is not None:
        certificate, key = found["tls"]
        found["tls"] = TlsServerConfig(certificate=certificate, key=key)
    if found.get("websocket") is not None:
        found["websocket"] = WebSocketConfig()
    if found.get("unix") is not None:
        found["unix"] = UnixSocketConfig(found["unix"])
    return found


if __name__ == "__main__":
    getattr(make(), sys.argv[1])(**configured(json.loads(sys.argv[2])))
