"""A browser for the tests of one file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.chromium import Chromium
from tests.support.chromium_oauth import oauth_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with oauth_browser(tmp_path_factory.mktemp("profile")) as running:
        yield running
