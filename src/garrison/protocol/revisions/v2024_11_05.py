"""Revision 2024-11-05, as it differs from 2025-03-26.

It has no sound, no batches, no tool annotations, no text in progress, and no capability for completions.
"""

from __future__ import annotations

from ..methods import V2024_11_05
from .changes import Object, as_text, drop
from .v2025_03_26 import REVISION as NEWER

__all__ = ["REVISION"]


def _no_audio(block: Object) -> Object:
    return as_text(block) if block.get("type") == "audio" else block


REVISION = NEWER.older(
    "2024-11-05",
    methods=V2024_11_05,
    audio=False,
    batches=False,
    changes={
        "serverCapabilities": drop("completions"),
        "tool": drop("annotations"),
        "content": _no_audio,
        "samplingContent": _no_audio,
        "notifications/progress": drop("message"),
    },
)
