"""On whose behalf code runs: which host, and which of its servers; for the events that it causes.

Rules of this file:
- Tasks know it from whoever made them, so that what a connection finds out later is told of its host too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from .. import events

__all__ = ["acted", "acting", "of_server"]

P = ParamSpec("P")
R = TypeVar("R")

acting: ContextVar[object] = ContextVar("garrison.host.acting", default=None)
"""The host."""


class _Acting(Protocol):
    @property
    def actor(self) -> object: ...


S = TypeVar("S", bound=_Acting)


def acted(
    method: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Awaitable[R]]:
    """Has a coroutine method run on behalf of `actor`."""

    @wraps(method)
    async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        token = acting.set(self.actor)
        try:
            return await method(self, *args, **kwargs)
        finally:
            acting.reset(token)

    return run


@contextmanager
def of_server(alias: str) -> Generator[None]:
    """Has events that name no server be about this one."""
    about = events.Event("", server=alias)
    token = events.cause.set(lambda: about)
    try:
        yield
    finally:
        events.cause.reset(token)
