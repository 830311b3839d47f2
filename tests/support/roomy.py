"""Room for tests that are about something else: rates and sizes above whatever they send.

Rules of this file:
- The controls stay on; what is here are values. A test takes no more of them than it has to.
- A test of a limit, of a rate, or of what becomes of a text takes none.
"""

from __future__ import annotations

import dataclasses

from garrison import Limits
from garrison.policy.rates import Rate, Rates

__all__ = ["RAW_TEXT", "ROOMY_RATES", "roomy"]

ROOMY_RATES = Rates(principal=Rate(1e6, burst=1_000_000), completion=Rate(1e6, burst=1_000_000))
"""Whoever asks may ask as often as the test likes."""

RAW_TEXT = "the test is about framing"
"""For `dangerously_skip_hygiene`: what a handler says goes through the framing as it is."""

_LARGE = 64 * 1024 * 1024


def roomy(limits: Limits | None = None) -> Limits:
    """These limits, with arguments and results as large as a message may be."""
    return dataclasses.replace(
        limits or Limits(), argument_chars=_LARGE, output_block_bytes=_LARGE, output_bytes=_LARGE
    )
