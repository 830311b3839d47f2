"""Revision 2026-07-28: the newest, whose shape the message types have. Nothing is translated."""

from __future__ import annotations

from ..methods import V2026_07_28
from .revision import Revision

__all__ = ["REVISION"]

REVISION = Revision(version="2026-07-28", methods=V2026_07_28)
