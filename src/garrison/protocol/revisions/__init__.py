"""The revisions of the protocol. Inside, everything has the shape of the newest; here is the door to the others."""

from __future__ import annotations

from . import v2024_11_05, v2025_03_26, v2025_06_18, v2025_11_25, v2026_07_28
from .revision import Revision

__all__ = ["LATEST", "LEGACY", "VERSIONS", "Revision", "get"]

_REVISIONS = {
    module.REVISION.version: module.REVISION
    for module in (v2026_07_28, v2025_11_25, v2025_06_18, v2025_03_26, v2024_11_05)
}

LATEST = "2026-07-28"
VERSIONS = tuple(_REVISIONS)
"""Every revision, newest first."""
LEGACY = tuple(version for version, revision in _REVISIONS.items() if not revision.modern)
"""The revisions with a handshake, newest first."""


def get(version: str) -> Revision | None:
    """The revision with this date, or None when there is none."""
    return _REVISIONS.get(version)
