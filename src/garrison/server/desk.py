"""The desk: finds what a request asks for and has it done, once.

Rules of this file:
- A request comes in as a `Call`; what goes out is the encoded result, or a coroutine of it. A call that needs no
  waiting makes no coroutine, and what runs coroutines is loaded with the first.
- What a capability does not advertise does not exist: the method is not found, on every transport.
- Arguments are checked before the handler runs. A handler's failure ends its own request and nothing else.
- Nobody here knows which revision a client speaks; `Wire` and the revision's own tables do.

Spec: 2026-07-28 server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..errors import InvalidArguments, InvalidParams, MethodNotFound, ResourceNotFound
from .call import shown
from .disclosure import disclose

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from ..policy import SecurityPolicy
    from ..protocol.sealed import Sealer
    from .call import Call
    from .listings import Listings
    from .perform import Performer
    from .registry import Entry, Registry
    from .results import Wire
    from .subscriptions import Hub
    from .threads import Workers

__all__ = ["Desk"]


class Desk:
    """Routes calls to handlers."""

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
        self._performer: Performer | None = None
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
        """Tie the desk to a running loop. `state` is what the lifespan yielded."""
        self._perform().start(loop, workers, state)

    def _perform(self, call: Call | None = None, entry: Entry | None = None) -> Performer:
        """What runs handlers; sets the call's time for one run."""
        if call is not None and entry is not None:
            call.timeout = entry.timeout or self._policy.timeouts.handler
        if self._performer is None:
            from .perform import Performer

            self._performer = Performer(self._wire, self._hub, self._policy, self._sealer)
        return self._performer

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
            return self._perform(call, tool).tool(tool, call, kwargs)
        try:
            return self._wire.tool_result(tool, tool.fn(**kwargs), call.revision)
        except BaseException as exc:  # noqa: BLE001 - a handler's failure ends its own request and nothing else
            return self._wire.tool_failure(tool.name, exc, call.revision)

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

    def _listen(self, call: Call) -> Coroutine[object, object, bytes]:
        offered: set[str] = set()
        registry = self._registry
        if registry.tools:
            offered.add("toolsListChanged")
        if registry.prompts:
            offered.add("promptsListChanged")
        if registry.resources or registry.templates:
            offered |= {"resourcesListChanged", "resourceSubscriptions"}
        return self._perform().listen(call, frozenset(offered))

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
            return self._perform(call, resource).resource(resource, call, uri, {})
        from ..protocol.uri import UriError, parse_uri

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
        return self._perform(call, template).resource(template, call, uri, kwargs)

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
        return self._perform(call, prompt).prompt(prompt, call, kwargs)

    # Completion

    def _complete(self, call: Call) -> bytes | Coroutine[object, object, bytes]:
        registry = self._registry
        if not registry.completers:
            raise MethodNotFound
        reference, argument, value, given = _completion(call.params)
        entry = registry.completers.get((reference, argument))
        if entry is not None:
            return self._perform(call, entry).complete(entry, call, entry.bind(value, given))
        if reference not in registry.prompts and reference not in registry.templates:
            raise InvalidParams("params.ref names nothing that this server offers")
        return self._wire.struct(call.method, {"completion": {"values": list[str]()}}, call.revision)


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
