"""Running handlers: the half of the desk that waits, and so needs an event loop.

Rules of this file:
- Every coroutine here gives an encoded result or raises an `McpError`. A handler's failure ends its own request and
  nothing else: whatever it raises is caught here, `KeyboardInterrupt` and `MemoryError` included.
- A handler that asked back has no result yet; its questions are encoded in its place.
- What stands before a tool that destroys something stands in one order: what was done before is not done again, whoever
  asked confirms it, and it is on record. Only then it begins.

Spec: 2026-07-28 server; basic/patterns/mrtr.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, cast

from ..errors import McpError, ResourceNotFound, ToolError
from ..protocol.revisions import LATEST, get
from .ask import Asker, InputRequired
from .call import shown
from .context import Context
from .depends import provide
from .disclosure import disclose, for_model
from .results import prompt_result, resource_result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..policy import SecurityPolicy
    from ..protocol.revisions import Revision
    from .call import Call
    from .idempotency import Deed, Outcomes
    from .recording import Audit
    from .registry import Completer, Entry, PromptEntry, ResourceEntry, TemplateEntry, ToolEntry
    from .results import Wire
    from .states import States
    from .subscriptions import Hub, MayRead
    from .threads import Workers

__all__ = ["Performer"]

_COMPLETIONS = 100
_NEWEST = cast("Revision", get(LATEST))


class Performer:
    """Runs handlers on one event loop; `start` says which.

    Args:
        wire, hub, policy, states: of the server.
        audit: of the server, if it has one.
        outcomes: gives what remembers calls with an idempotency key: one for all performers of a server. Each has a
            memory of its own when None.
    """

    def __init__(
        self,
        wire: Wire,
        hub: Hub,
        policy: SecurityPolicy,
        states: States,
        audit: Audit | None = None,
        outcomes: Callable[[], Outcomes] | None = None,
    ) -> None:
        self._wire = wire
        self._hub = hub
        self._policy = policy
        self._states = states
        self._audit = audit
        self._remembering = outcomes
        self._outcomes: Outcomes | None = None

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
            if tool.policy.guarded:
                return await self._guarded(tool, call, kwargs)
            if signature.is_async and not signature.injected:  # the shortest way for the commonest tool
                call.began = True
                value = await cast("Awaitable[object]", tool.fn(**kwargs))
            else:
                value = await self._run(tool, call, kwargs)
            return self._tool_result(tool, value, call)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as exc:  # noqa: BLE001 - see the rules
            return self._wire.tool_failure(tool.name, exc, call)

    def _tool_result(self, tool: ToolEntry, value: object, call: Call) -> bytes:
        if type(value) is _Questions:
            return value.encoded(self._wire, call)
        return self._wire.tool_result(tool, value, call.revision)

    async def _guarded(self, tool: ToolEntry, call: Call, kwargs: dict[str, object]) -> bytes:
        """The result of a tool before which something stands."""
        if tool.policy.idempotent_by is not None:
            from .idempotency import deed_of

            deed = deed_of(tool, call)
            if deed is not None:
                return await self._once(tool, call, kwargs, deed)
        return self._tool_result(tool, await self._allowed(tool, call, kwargs), call)

    async def _once(self, tool: ToolEntry, call: Call, kwargs: dict[str, object], deed: Deed) -> bytes:
        """The result of a deed: of its handler, or of the call that had the same key before."""
        from .idempotency import MemoryOutcomes, done_once, shaped

        if self._outcomes is None:
            self._outcomes = MemoryOutcomes() if self._remembering is None else self._remembering()
        value: object = None

        async def do() -> bytes | None:
            nonlocal value
            try:
                value = await self._allowed(tool, call, kwargs)
                return None if type(value) is _Questions else self._wire.tool_result(tool, value, _NEWEST)
            except ToolError as exc:
                if not call.began:
                    raise
                return self._wire.tool_error(for_model(exc, f"tool {tool.name}", call), _NEWEST)

        result = await done_once(self._outcomes, deed, call, do)
        return self._tool_result(tool, value, call) if result is None else shaped(result, call.revision)

    async def _allowed(self, tool: ToolEntry, call: Call, kwargs: dict[str, object]) -> object:
        """What a tool returned, once whoever asked has confirmed it and it is on record; or `_Questions`."""
        asker: Asker | None = None
        if tool.policy.confirm:
            from .confirmation import confirm

            asker = self._asker(tool, call)
            try:
                await confirm(asker, tool, call, kwargs)
            except InputRequired:
                return _Questions(asker)
        if tool.policy.destructive and self._audit is not None:
            self._audit.require(call)
        return await self._run(tool, call, kwargs, asker)

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
            raise disclose(exc, f"resource {shown(uri)}", call) from exc

    async def prompt(self, entry: PromptEntry, call: Call, kwargs: dict[str, object]) -> bytes:
        """The result of a prompt."""
        value = await self._safely(entry, call, kwargs, "prompt")
        if isinstance(value, _Questions):
            return value.encoded(self._wire, call)
        try:
            return self._wire.struct(call.method, prompt_result(entry.definition.description, value), call.revision)
        except Exception as exc:  # a value that cannot be encoded is the handler's failure
            raise disclose(exc, "prompt", call) from exc

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

    def _asker(self, entry: Entry, call: Call) -> Asker:
        return Asker(call, self._states, self._policy.limits, self._policy.timeouts, once=entry.once)

    async def _run(self, entry: Entry, call: Call, kwargs: dict[str, object], asker: Asker | None = None) -> object:
        """What the handler returned, or `_Questions` if it asked back."""
        injected = entry.signature.injected
        if not injected:
            call.began = True
            return await self._invoke(entry, kwargs)
        if asker is None:
            asker = self._asker(entry, call)
        call.began = True
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
                if exc.missing and call.method == "resources/read":
                    raise ResourceNotFound(shown(str(call.params["uri"]), 256)) from exc
                raise McpError(str(exc), code=-32603) from exc
            raise disclose(exc, where, call) from exc


class _Questions:
    """Stands for a result while answers are missing."""

    __slots__ = ("_asker",)

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def encoded(self, wire: Wire, call: Call) -> bytes:
        return wire.struct(call.method, self._asker.result(), call.revision)
