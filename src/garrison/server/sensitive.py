"""Names and labels that speak of a secret: what may neither be asked for in a form nor be mirrored into a header.

Spec: 2026-07-28 client/elicitation (no secrets in form mode); server/tools, "x-mcp-header".
"""

from __future__ import annotations

import re

__all__ = ["looks_secret"]

_SECRET = re.compile(
    r"pass[ _-]?(?:word|wd|phrase|code)|secret|credential|(?:private|api|access)[ _-]?key|\btokens?\b|_token|token_"
    r"|credit[ _-]?card|card[ _-]?(?:number|no\b)|\biban\b|pin[ _-]?(?:code|number)|security[ _-]?code"
    r"|\bcvv\b|\bcvc\b|\botp\b|\bpwd\b|\bssn\b",
    re.IGNORECASE,
)


def looks_secret(text: str) -> bool:
    """True if a parameter or field of this name, title or description holds a password, key or token."""
    return _SECRET.search(text) is not None
