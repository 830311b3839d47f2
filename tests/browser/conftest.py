"""One browser for all pages, and sites of attackers and of friends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.chromium import Chromium, chromium

from .scene import events
from .site import NAMES

__all__ = ["browser", "events"]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("profile"), *NAMES) as running:
        yield running
