"""The desk: finds what a request asks for and has it done, once.

Rules of this file:
- A request comes in as a `Call`; what goes out is the encoded result, or a coroutine of it. A call that needs no
  waiting makes no coroutine.
- What a capability does not advertise does not exist: the method is not found, on every transport.
- Arguments are checked before the handler runs. A handler's failure ends its own request and nothing else.
- Nobody here knows which revision a client speaks; `Wire` and the revision's own tables do.

Spec: 2026-07-28 server.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, cast

from ..errors import InvalidArguments, InvalidParams, McpError, MethodNotFound, ResourceNotFound, ToolError
from ..protocol.types import CallToolResult
from ..protocol.uri import UriError, parse_uri
from .ask import Asker, InputRequired
from .call import shown
from .context import Context
from .depends import provide
from .disclosure import disclose
from .results import ToolOutput, prompt_result, resource_result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ..policy import SecurityPolicy
    from ..protocol.sealed import Sealer
    from .call import Call
    from .listings import Listings
    from .registry import Entry, Registry, ResourceEntry, TemplateEntry, ToolEntry
    from .results import Wire
    from .subscriptions import Hub
    from .threads import Workers

__all__ = ["Desk"]

_COMPLETIONS = 100


class Desk:
    """Routes calls to handlers.

    `state` is what the lifespan yielded, `loop`, `workers` and `thread` belong to the loop the server runs on; `start`
    sets them.
    """

    def __init__(
        self,
        registry: Registry,
        listings: Listings,
        wire: Wire,
        hub: Hub,
        policy: SecurityPolicy,
        sealer: Callable[[], Sealer],
    ) -> None:
        self._registry = registry
        self._tools = registry.tools
        self._listings = listings
        self._wire = wire
        self._hub = hub
        self._policy = policy
        self._sealer = sealer
        self.state: object = None
        self._routes: dict[str, Callable[[Call], bytes | Coroutine[object, object, bytes]]] = {
            "tools/call": self._call_tool,
            "tools/list": self._list,
            "resources/list": self._list,
            "resources/templates/list": self._list,
            "prompts/list": self._list,
            "resources/read": self._read_resource,
            "prompts/get": self._get_prompt,
            "completion/complete": self._complete,
            "server/discover": self._discover,
            "subscriptions/listen": self._listen,
        }

    def start(self, loop: asyncio.AbstractEventLoop, workers: Workers, state: object) -> None:
        """Tie the desk to a running loop."""
        self._loop = loop
        self._workers = workers
        self._thread = threading.get_ident()
        self.state = state

    def dispatch(self, call: Call) -> bytes | Coroutine[object, object, bytes]:
        """The encoded result of a call, or a coroutine that gives it.

        Raises:
            McpError: refused before any handler ran.
        """
        route = self._routes.get(call.method)
        if route is None or call.method not in call.revision.methods.client_requests:
            raise MethodNotFound
        return route(call)

    # Tools

    def _call_tool(self, call: Call) -> bytes | Coroutine[object, object, bytes]:
        params = call.params
        name = params.get("name")
        tool = self._tools.get(name) if type(name) is str else None
        if tool is None:
            if not self._tools:
                raise MethodNotFound
            raise InvalidParams(f"Unknown tool: {shown(name)}" if type(name) is str else "params.name must be a string")
        arguments = params.get("arguments")
        try:
            kwargs = tool.signature.bind(cast("dict[str, object] | None", arguments))
        except InvalidArguments as exc:
            if call.revision.input_errors_in_result:
                disclose(exc, "tools/call")
                return self._wire.tool_error(exc.message, call.revision)
            raise
        if not tool.direct:
            call.timeout = tool.timeout or self._policy.timeouts.handler
            return self._run_tool(tool, call, kwargs)
        try:
            return self._tool_result(tool, tool.fn(**kwargs), call)
        except BaseException as exc:  # noqa: BLE001 - a handler's failure ends its own request and nothing else
            return self._tool_failure(tool, exc, call)

    def _tool_result(self, tool: ToolEntry, value: object, call: Call) -> bytes:
        if tool.publishes and type(value) is not ToolOutput and type(value) is not CallToolResult:
            return self._wire.tool_value(tool.signature, value, call.revision)
        return self._wire.tool_output(tool.signature, value, call.revision)

    def _tool_failure(self, tool: ToolEntry, error: BaseException, call: Call) -> bytes:
        if isinstance(error, ToolError):
            return self._wire.tool_error(str(error), call.revision)
        told = disclose(error, f"tool {tool.name}")
        if told is error:
            raise told
        data = cast("dict[str, str]", told.data or {})
        reference = f" (error id {data['errorId']})" if data else ""
        return self._wire.tool_error(told.message + reference, call.revision)

    async def _run_tool(self, tool: ToolEntry, call: Call, kwargs: dict[str, object]) -> bytes:
        try:
            value = await self._run(tool, call, kwargs)
            if isinstance(value, _Questions):
                return value.encoded(self._wire, call)
            return self._tool_result(tool, value, call)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as exc:  # noqa: BLE001 - a handler's failure ends its own request and nothing else
            return self._tool_failure(tool, exc, call)

    # Running a handler

    async def _run(self, entry: Entry, call: Call, kwargs: dict[str, object]) -> object:
        """What the handler returned, or `_Questions` if it asked back."""
        injected = entry.signature.injected
        if not injected:
            return await self._invoke(entry, kwargs)
        asker = Asker(call, self._sealer, self._policy.limits, self._policy.timeouts)
        context: Context[object] = Context(call, asker, self.state, self._loop, self._thread)
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

    async def _invoke(self, entry: Entry, kwargs: dict[str, object]) -> object:
        if entry.signature.is_async:
            return await cast("Awaitable[object]", entry.fn(**kwargs))
        if entry.inline:
            return entry.fn(**kwargs)
        return await self._workers.run(partial(entry.fn, **kwargs))

    async def _safely(self, entry: Entry, call: Call, kwargs: dict[str, object], where: str) -> object:
        call.timeout = entry.timeout or self._policy.timeouts.handler
        try:
            return await self._run(entry, call, kwargs)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as exc:  # a handler's failure ends its own request and nothing else
            if isinstance(exc, ToolError):
                raise McpError(str(exc), code=-32603) from exc
            raise disclose(exc, where) from exc

    # Listings

    def _list(self, call: Call) -> bytes:
        registry = self._registry
        kind = call.method.partition("/")[0]
        offered = {
            "tools": registry.tools,
            "resources": registry.resources or registry.templates,
            "prompts": registry.prompts,
        }[kind]
        if not offered:
            raise MethodNotFound
        return self._listings.page(call.method, call.revision, call.params.get("cursor"))

    def _discover(self, call: Call) -> bytes:
        return self._listings.discover(call.revision)

    async def _listen(self, call: Call) -> bytes:
        offered: set[str] = set()
        registry = self._registry
        if registry.tools:
            offered.add("toolsListChanged")
        if registry.prompts:
            offered.add("promptsListChanged")
        if registry.resources or registry.templates:
            offered |= {"resourcesListChanged", "resourceSubscriptions"}
        result = await self._hub.listen(call, frozenset(offered), self._policy.limits.json_members)
        return self._wire.struct(call.method, result, call.revision)

    # Resources

    def _read_resource(self, call: Call) -> Coroutine[object, object, bytes]:
        registry = self._registry
        if not registry.resources and not registry.templates:
            raise MethodNotFound
        uri = call.params.get("uri")
        if type(uri) is not str:
            raise InvalidParams("params.uri must be a string")
        resource = registry.resources.get(uri)
        if resource is not None:
            return self._run_resource(resource, call, uri, {}, resource.definition.mime_type)
        try:
            parse_uri(uri)
        except UriError as exc:
            raise ResourceNotFound(shown(uri, 256)) from exc
        found = registry.find_template(uri)
        if found is None:
            raise ResourceNotFound(shown(uri, 256))
        template, values = found
        try:
            kwargs = template.bind(uri, values)
        except InvalidArguments as exc:
            raise ResourceNotFound(shown(uri, 256)) from exc
        return self._run_resource(template, call, uri, kwargs, template.definition.mime_type)

    async def _run_resource(
        self,
        entry: ResourceEntry | TemplateEntry,
        call: Call,
        uri: str,
        kwargs: dict[str, object],
        mime_type: str | None,
    ) -> bytes:
        value = await self._safely(entry, call, kwargs, f"resource {shown(uri)}")
        if isinstance(value, _Questions):
            return value.encoded(self._wire, call)
        try:
            result = resource_result(uri, mime_type, value, entry.ttl_ms, entry.cache_scope)
            return self._wire.struct(call.method, result, call.revision)
        except Exception as exc:  # a value that cannot be encoded is the handler's failure
            raise disclose(exc, f"resource {shown(uri)}") from exc

    # Prompts

    def _get_prompt(self, call: Call) -> Coroutine[object, object, bytes]:
        prompts = self._registry.prompts
        if not prompts:
            raise MethodNotFound
        name = call.params.get("name")
        prompt = prompts.get(name) if type(name) is str else None
        if prompt is None:
            raise InvalidParams(
                f"Unknown prompt: {shown(name)}" if type(name) is str else "params.name must be a string"
            )
        kwargs = prompt.signature.bind_text(_text_arguments(call.params.get("arguments")))
        return self._run_prompt(prompt, call, kwargs, prompt.definition.description)

    async def _run_prompt(self, entry: Entry, call: Call, kwargs: dict[str, object], description: str | None) -> bytes:
        value = await self._safely(entry, call, kwargs, "prompt")
        if isinstance(value, _Questions):
            return value.encoded(self._wire, call)
        try:
            return self._wire.struct(call.method, prompt_result(description, value), call.revision)
        except Exception as exc:  # a value that cannot be encoded is the handler's failure
            raise disclose(exc, "prompt") from exc

    # Completion

    async def _complete(self, call: Call) -> bytes:
        if not self._registry.completers:
            raise MethodNotFound
        reference, argument, value, given = _completion(call.params)
        entry = self._registry.completers.get((reference, argument))
        values: list[str] = []
        if entry is None:
            known = reference in self._registry.prompts or reference in self._registry.templates
            if not known:
                raise InvalidParams("params.ref names nothing that this server offers")
        else:
            found = await self._safely(entry, call, entry.bind(value, given), "completion")
            values = [str(item) for item in cast("list[object]", found or [])]
        completion: dict[str, object] = {"values": values[:_COMPLETIONS]}
        if len(values) > _COMPLETIONS:
            completion.update(total=len(values), hasMore=True)
        return self._wire.struct(call.method, {"completion": completion}, call.revision)


class _Questions:
    """Stands for a result while answers are missing."""

    __slots__ = ("_asker",)

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def encoded(self, wire: Wire, call: Call) -> bytes:
        return wire.struct(call.method, self._asker.result(), call.revision)


def _text_arguments(arguments: object) -> dict[str, object]:
    if arguments is None:
        return {}
    if type(arguments) is dict:
        given = cast("dict[str, object]", arguments)
        if all(type(value) is str for value in given.values()):
            return given
    raise InvalidParams("params.arguments must be an object of strings")


def _completion(params: dict[str, object]) -> tuple[str, str, str, dict[str, object]]:
    reference, argument = params.get("ref"), params.get("argument")
    if type(reference) is dict and type(argument) is dict:
        ref, arg = cast("dict[str, object]", reference), cast("dict[str, object]", argument)
        named = ref.get({"ref/prompt": "name", "ref/resource": "uri"}.get(cast("str", ref.get("type")), ""))
        name, value = arg.get("name"), arg.get("value")
        if type(named) is str and type(name) is str and type(value) is str:
            context = params.get("context")
            given = cast("dict[str, object]", context).get("arguments") if type(context) is dict else None
            return named, name, value, _text_arguments(given)
    raise InvalidParams("completion/complete needs params.ref and params.argument with name and value")
