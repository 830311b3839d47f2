"""What the tests of a server's features share: revisions, transports, a server and the text of a result."""

from __future__ import annotations

from typing import Any

import pytest

from garrison import SecurityPolicy, Server, Timeouts
from tests.support.mcp import REVISIONS, TRANSPORTS

everywhere = pytest.mark.parametrize("transport", TRANSPORTS)
always = pytest.mark.parametrize("revision", REVISIONS)

POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=0.2, handler=5, ask=5))


def make(**options: Any) -> Server:
    options.setdefault("policy", POLICY)
    return Server("test", "1.2.3", **options)


def text(result: dict[str, Any]) -> str:
    return "".join(block["text"] for block in result["content"])
