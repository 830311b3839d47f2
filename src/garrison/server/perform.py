"""Running handlers: the half of the desk that waits, and so needs an event loop.

Rules of this file:
- Every coroutine here gives an encoded result or raises an `McpError`. A handler's failure ends its own request and
  nothing else: whatever it raises is caught here, `KeyboardInterrupt` and `MemoryError` included.
- A handler that asked back has no result yet; its questions are encoded in its place.

Spec: 2026-07-28 server; basic/patterns/mrtr.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, cast

from ..errors import McpError, ToolError
from .ask import Asker, InputRequired
from .call import shown
from .context import Context
from .depends import provide
from .disclosure import disclose
from .results import prompt_result, resource_result

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..policy import SecurityPolicy
    from .call import Call
    from .registry import Completer, Entry, PromptEntry, ResourceEntry, TemplateEntry, ToolEntry
    from .results import Wire
    from .states import States
    from .subscriptions import Hub, MayRead
    from .threads import Workers

__all__ = ["Performer"]

_COMPLETIONS = 100


class Performer:
    """Runs handlers on one event loop; `start` says which."""

    def __init__(self, wire: Wire, hub: Hub, policy: SecurityPolicy, states: States) -> None:
        self._wire = wire
        self._hub = hub
        self._policy = policy
        self._states = states

    def start(self, loop: asyncio.AbstractEventLoop, workers: Workers, state: object) -> None:
        """Tie the performer to a running loop."""
        self._loop = loop
        self._workers = workers
        self._state = state
        self._thread = threading.get_ident()

    async def tool(self, tool: ToolEntry, call: Call, kwargs: dict[str, object]) -> bytes:
        """The result of a tool."""
        try:
            signature = tool.signature
            if signature.is_async and not signature.injected:  # the shortest way for the commonest tool
                value = await cast("Awaitable[object]", tool.fn(**kwargs))
            else:
                value = await self._run(tool, call, kwargs)
            if type(value) is _Questions:
                return value.encoded(self._wire, call)
            return self._wire.tool_result(tool, value, call.revision)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as exc:  # noqa: BLE001 - see the rules
            return self._wire.tool_failure(tool.name, exc, call.revision)

    async def resource(
        self,
        entry: ResourceEntry | TemplateEntry,
        call: Call,
        uri: str,
        kwargs: dict[str, object],
    ) -> bytes:
        """The result of reading a resource."""
        value = await self._safely(entry, call, kwargs, f"resource {shown(uri)}")
        if isinstance(value, _Questions):
            return value.encoded(self._wire, call)
        try:
            result = resource_result(uri, entry.definition.mime_type, value, entry.ttl_ms, entry.cache_scope)
            return self._wire.struct(call.method, result, call.revision)
        except Exception as exc:  # a value that cannot be encoded is the handler's failure
            raise disclose(exc, f"resource {shown(uri)}") from exc

    async def prompt(self, entry: PromptEntry, call: Call, kwargs: dict[str, object]) -> bytes:
        """The result of a prompt."""
        value = await self._safely(entry, call, kwargs, "prompt")
        if isinstance(value, _Questions):
            return value.encoded(self._wire, call)
        try:
            return self._wire.struct(call.method, prompt_result(entry.definition.description, value), call.revision)
        except Exception as exc:  # a value that cannot be encoded is the handler's failure
            raise disclose(exc, "prompt") from exc

    async def complete(self, entry: Completer, call: Call, kwargs: dict[str, object]) -> bytes:
        """The result of a completion."""
        found = await self._safely(entry, call, kwargs, "completion")
        values = [str(item) for item in cast("list[object]", found or [])]
        completion: dict[str, object] = {"values": values[:_COMPLETIONS]}
        if len(values) > _COMPLETIONS:
            completion.update(total=len(values), hasMore=True)
        return self._wire.struct(call.method, {"completion": completion}, call.revision)

    async def listen(self, call: Call, offered: frozenset[str], may_read: MayRead) -> bytes:
        """The result of `subscriptions/listen`, once it has ended."""
        result = await self._hub.listen(call, offered, self._policy.limits.json_members, may_read)
        return self._wire.struct(call.method, result, call.revision)

    async def _run(self, entry: Entry, call: Call, kwargs: dict[str, object]) -> object:
        """What the handler returned, or `_Questions` if it asked back."""
        injected = entry.signature.injected
        if not injected:
            return await self._invoke(entry, kwargs)
        asker = Asker(call, self._states, self._policy.limits, self._policy.timeouts, once=entry.once)
        context: Context[object] = Context(call, asker, self._state, self._loop, self._thread)
        try:
            if not entry.provided:
                for parameter, _ in injected:
                    kwargs[parameter] = context
                return await self._invoke(entry, kwargs)
            async with AsyncExitStack() as stack:
                for parameter, annotation in injected:
                    kwargs[parameter] = await provide(annotation, context, stack)
                return await self._invoke(entry, kwargs)
        except InputRequired:
            return _Questions(asker)
        except BaseExceptionGroup as group:
            if group.split(InputRequired)[1] is None:
                return _Questions(asker)
            raise
        finally:
            context.end()

    async def _invoke(self, entry: Entry, kwargs: dict[str, object]) -> object:
        if entry.signature.is_async:
            return await cast("Awaitable[object]", entry.fn(**kwargs))
        if entry.inline:
            return entry.fn(**kwargs)
        return await self._workers.run(partial(entry.fn, **kwargs))

    async def _safely(self, entry: Entry, call: Call, kwargs: dict[str, object], where: str) -> object:
        try:
            return await self._run(entry, call, kwargs)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as exc:  # a handler's failure ends its own request and nothing else
            if isinstance(exc, ToolError):
                raise McpError(str(exc), code=-32603) from exc
            raise disclose(exc, where) from exc


class _Questions:
    """Stands for a result while answers are missing."""

    __slots__ = ("_asker",)

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def encoded(self, wire: Wire, call: Call) -> bytes:
        return wire.struct(call.method, self._asker.result(), call.revision)
