"""What a server fills into a handler's parameters: the `Context`, and whatever `Depends` provides.

    @asynccontextmanager
    async def database(ctx: Context): ...

    @server.tool()
    async def count(table: str, db: Annotated[Database, Depends(database)]) -> int: ...

Rules of this file:
- A provider takes nothing, or one parameter annotated `Context`. It may be a function, a coroutine function, or a
  function that returns a context manager, synchronous or not; a manager is left when the handler has ended.
- A provided parameter is in no schema, and no argument can set it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, cast, get_args, get_origin

from ..errors import RegistrationError
from .context import Context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack

__all__ = ["Depends", "is_injected", "provide", "provider_of"]


class Depends:
    """Marks a parameter as provided: `Annotated[Database, Depends(get_database)]`.

    Args:
        provider: gives the value, once per call of the handler.

    Raises:
        RegistrationError: the provider wants arguments it cannot get.
    """

    __slots__ = ("provider", "wants_context")

    def __init__(self, provider: Callable[..., object]) -> None:
        self.provider = provider
        required = [
            parameter
            for parameter in inspect.signature(provider).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        if len(required) > 1:
            raise RegistrationError(f"Depends({provider!r}): a provider takes nothing, or the Context")
        self.wants_context = bool(required)


def provider_of(annotation: object) -> Depends | None:
    """The `Depends` in an annotation."""
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            if isinstance(extra, Depends):
                return extra
    return None


def is_injected(annotation: object) -> bool:
    """True for what the server fills."""
    return annotation is Context or get_origin(annotation) is Context or provider_of(annotation) is not None


async def provide(annotation: object, context: Context[object], stack: AsyncExitStack) -> object:
    """The value of a provided parameter; what has to be left again is entered in `stack`."""
    depends = provider_of(annotation)
    if depends is None:
        return context
    value = depends.provider(context) if depends.wants_context else depends.provider()
    if inspect.isawaitable(value):
        value = await cast("Awaitable[object]", value)
    if hasattr(value, "__aenter__"):
        return await stack.enter_async_context(cast("AbstractAsyncContextManager[object]", value))
    if hasattr(value, "__enter__") and hasattr(value, "__exit__"):
        return stack.enter_context(cast("AbstractContextManager[object]", value))
    return value
