"""What every test can count on: coroutine tests run on a fresh event loop, with a deadline."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.support")

TEST_SECONDS = 30.0

# Tests start hundreds of programs: what one has compiled, the next finds, whatever the environment says of bytecode.
# It is kept beside pytest's cache, so that nothing is written next to the sources.
BYTECODE = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(BYTECODE)
sys.dont_write_bytecode = False


def _blocking(function: Callable[..., Awaitable[object]]) -> Callable[..., None]:
    @functools.wraps(function)
    def run(*args: object, **kwargs: object) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(TEST_SECONDS):
                await function(*args, **kwargs)

        asyncio.run(bounded(), debug=False)

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs `async def` tests, also those whose arguments hypothesis draws."""
    function: Any = pyfuncitem.obj  # a test is any callable, with attributes that plugins put on it
    property_test = getattr(function, "hypothesis", None)
    if property_test is not None and inspect.iscoroutinefunction(property_test.inner_test):
        property_test.inner_test = _blocking(property_test.inner_test)
        return None
    if not inspect.iscoroutinefunction(function):
        return None
    names = inspect.signature(function).parameters
    _blocking(function)(**{name: value for name, value in pyfuncitem.funcargs.items() if name in names})
    return True


@pytest.fixture(autouse=True)
def uncounted_events() -> None:
    """Events of one test are not counted for the next: only so many a second are written."""
    from garrison import events

    events._seen.clear()


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listened a moment ago, and that nobody is given by chance."""
    from tests.support.ports import free_port

    return free_port()


_LONGEST = (
    "attacks/app/",
    "safe/test_sql.py",
    "cli/test_demo",
    "audit/",
    "oauth/",
    "browser/",
    "policy/test_configured",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that two workers end together."""
    items.sort(key=lambda item: not any(name in item.path.as_posix() for name in _LONGEST))
