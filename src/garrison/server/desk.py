"""The desk: finds what a request asks for and has it done, once.

Rules of this file:
- A request comes in as a `Call`; what goes out is the encoded result, or a coroutine of it. A call that needs no
  waiting makes no coroutine, and what runs coroutines is loaded with the first.
- What is not offered does not exist: the method is not found, on every transport. Neither does what a caller may not
  know of, which goes the same way as what is not there.
- Arguments are checked before the handler runs. A handler's failure ends its own request and nothing else.
- Nobody here knows which revision a client speaks; `Wire` and the revision's own tables do.

Spec: 2026-07-28 server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar, cast

from ..errors import InvalidArguments, InvalidParams, McpError, MethodNotFound, ResourceNotFound
from .call import shown
from .disclosure import disclose

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from ..gate.admission import Admission
    from ..policy import SecurityPolicy
    from ..policy.principal import Principal
    from .access import AccessControl
    from .call import Call
    from .capabilities import Offer
    from .idempotency import Outcomes
    from .listings import Listings
    from .perform import Performer
    from .recording import Audit
    from .registry import Completer, Entry, PromptEntry, Registry, ResourceEntry, TemplateEntry, ToolEntry
    from .results import Wire
    from .states import States
    from .subscriptions import Hub
    from .threads import Workers

__all__ = ["Desk"]

E = TypeVar("E", bound="Entry")

_REFERENCES: Final = {"ref/prompt": ("prompts", "name"), "ref/resource": ("resources", "uri")}
_NO_REFERENCE: Final = "params.ref names nothing that this server offers"


class Desk:
    """Routes calls to handlers.

    Args:
        registry, offer: what there is, and what of it is offered.
        access: makes what applies the rules, once there are some.
        listings, wire, hub, policy: of the server.
        states: makes what seals the states of requests.
        admission: how often who may call which tool.
        audit: of the server, if it has one.
        outcomes: gives what remembers calls with an idempotency key.
    """

    def __init__(
        self,
        registry: Registry,
        offer: Offer,
        access: Callable[[], AccessControl],
        listings: Listings,
        wire: Wire,
        hub: Hub,
        policy: SecurityPolicy,
        states: Callable[[], States],
        admission: Admission,
        audit: Audit | None = None,
        outcomes: Callable[[], Outcomes] | None = None,
    ) -> None:
        self._registry = registry
        self._tools = registry.tools
        self._offer = offer
        self._make_access = access
        self._made_access: AccessControl | None = None
        self._listings = listings
        self._wire = wire
        self._hub = hub
        self._policy = policy
        self._states = states
        self._admission = admission
        self._audit = audit
        self._outcomes = outcomes
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

            self._performer = Performer(
                self._wire, self._hub, self._policy, self._states(), self._audit, self._outcomes
            )
        return self._performer

    def dispatch(self, call: Call) -> bytes | Coroutine[object, object, bytes]:
        """The encoded result of a call, or a coroutine that gives it.

        Raises:
            McpError: refused before any handler ran.
        """
        route = self._routes.get(call.method)
        if route is None or call.method not in call.revision.methods.client_requests:
            raise MethodNotFound
        if call.method in self._offer.missing:
            raise MethodNotFound
        if call.log_level is not None and "logging" not in self._offer.names:
            call.log_level = None
        return route(call)

    # Who may

    @property
    def _access(self) -> AccessControl:
        if self._made_access is None:
            self._made_access = self._make_access()
        return self._made_access

    def _known(self, call: Call, entry: E) -> E | None:
        """The entry; None where the caller may not know of it, which goes on as if it were not there.

        Raises:
            InsufficientScope: it may, with further scopes.
        """
        return entry if not self._registry.ruled or self._access.knows(call.principal, entry) else None

    def _is_asked(self, call: Call, entry: Entry) -> bool:
        """Whether a policy function has a say. What it decides about is part of the call's time."""
        if not self._registry.ruled or not self._access.asks(call.principal, entry):
            return False
        self._perform(call, entry)
        return True

    def may_read(self, principal: Principal, uri: str) -> bool | Awaitable[bool]:
        """Whether somebody may read a URI, and so hear of its changes."""
        if not self._registry.ruled:
            return True
        resource = self._registry.resources.get(uri)
        if resource is not None:
            return self._access.may_read(resource, principal, uri, {})
        try:
            found = self._registry.find_template(uri, lambda entry: self._access.knows(principal, entry))
            if found is None:
                return False
            template, values = found
            return self._access.may_read(template, principal, uri, {**values, **template.bind(uri, values)})
        except McpError:  # it is not read either
            return False

    # Tools

    def _call_tool(self, call: Call) -> bytes | Coroutine[object, object, bytes]:
        params = call.params
        name = params.get("name")
        if type(name) is not str:
            raise InvalidParams("params.name must be a string")
        tool = self._tools.get(name)
        ruled = self._registry.ruled
        if ruled and tool is not None:
            tool = self._known(call, tool)
        if tool is None:
            raise InvalidParams(f"Unknown tool: {shown(name)}")
        if tool.policy.metered:
            return self._call_metered(call, tool)
        return self._call_known(call, tool)

    def _call_known(self, call: Call, tool: ToolEntry) -> bytes | Coroutine[object, object, bytes]:
        if self._registry.ruled and self._is_asked(call, tool):
            return self._ask_about_tool(call, tool)
        try:
            kwargs = _tool_arguments(call, tool)
        except InvalidArguments as exc:
            return self._invalid(exc, call)
        return self._run_tool(call, tool, kwargs)

    def _call_metered(self, call: Call, tool: ToolEntry) -> bytes | Coroutine[object, object, bytes]:
        """Call a tool that has limits of its own."""
        limits, admission = tool.policy, self._admission
        call.timeout = tool.timeout or self._policy.timeouts.handler
        if admission.shared is None:
            admission.take_tool(call.principal, call.address, tool.name, limits.cost, limits.rate)
            return self._call_known(call, tool) if limits.concurrency is None else self._call_among(call, tool)
        return self._call_shared(call, tool)

    async def _call_shared(self, call: Call, tool: ToolEntry) -> bytes:
        limits = tool.policy
        await self._admission.take_tool_shared(call.principal, call.address, tool.name, limits.cost, limits.rate)
        if limits.concurrency is not None:
            return await self._call_among(call, tool)
        outcome = self._call_known(call, tool)
        return outcome if isinstance(outcome, bytes) else await outcome

    async def _call_among(self, call: Call, tool: ToolEntry) -> bytes:
        """Call a tool of which only so many calls may be under way."""
        most = tool.policy.concurrency or 0
        self._admission.acquire(tool.name, most)
        try:
            outcome = self._call_known(call, tool)
            return outcome if isinstance(outcome, bytes) else await outcome
        finally:
            self._admission.release(tool.name)

    async def _ask_about_tool(self, call: Call, tool: ToolEntry) -> bytes:
        unknown = InvalidParams(f"Unknown tool: {shown(tool.name)}")
        try:
            kwargs = await self._access.ask(call, tool, tool.name, lambda: _tool_arguments(call, tool), unknown)
        except InvalidArguments as exc:
            return self._invalid(exc, call)
        outcome = self._run_tool(call, tool, kwargs)
        return outcome if isinstance(outcome, bytes) else await outcome

    def _run_tool(
        self, call: Call, tool: ToolEntry, kwargs: dict[str, object]
    ) -> bytes | Coroutine[object, object, bytes]:
        if not tool.direct:
            return self._perform(call, tool).tool(tool, call, kwargs)
        call.began = True
        try:
            return self._wire.tool_result(tool, tool.fn(**kwargs), call.revision)
        except BaseException as exc:  # noqa: BLE001 - a handler's failure ends its own request and nothing else
            return self._wire.tool_failure(tool.name, exc, call)

    def _invalid(self, error: InvalidArguments, call: Call) -> bytes:
        """Arguments that break the schema: a result that the model reads, or in older revisions an error."""
        if not call.revision.input_errors_in_result:
            raise error
        disclose(error, "tools/call", call)
        return self._wire.tool_error(error.message, call.revision)

    # Listings

    def _list(self, call: Call) -> bytes | Coroutine[object, object, bytes]:
        cursor = call.params.get("cursor")
        if not self._registry.ruled:
            return self._listings.page(call.method, call.revision, cursor, call.principal, None)
        names = self._access.listed(call.principal, call.method, self._listings.entries(call.method))
        if isinstance(names, frozenset):
            return self._listings.page(call.method, call.revision, cursor, call.principal, names)
        call.timeout = self._policy.timeouts.handler
        return self._list_after(names, call, cursor)

    async def _list_after(self, names: Awaitable[frozenset[str]], call: Call, cursor: object) -> bytes:
        return self._listings.page(call.method, call.revision, cursor, call.principal, await names)

    def _discover(self, call: Call) -> bytes:
        return self._listings.discover(call.revision)

    def _listen(self, call: Call) -> Coroutine[object, object, bytes]:
        return self._perform().listen(call, self._offer.listening(), self.may_read)

    # Resources

    def _read_resource(self, call: Call) -> Coroutine[object, object, bytes]:
        registry = self._registry
        uri = call.params.get("uri")
        if type(uri) is not str:
            raise InvalidParams("params.uri must be a string")
        resource = registry.resources.get(uri)
        if resource is not None:
            resource = self._known(call, resource)
        if resource is not None:
            if self._is_asked(call, resource):
                return self._ask_about_resource(call, resource, uri, {}, {})
            return self._perform(call, resource).resource(resource, call, uri, {})
        from ..protocol.uri import UriError, parse_uri

        try:
            parse_uri(uri)
        except UriError as exc:
            raise ResourceNotFound(shown(uri, 256)) from exc
        found = registry.find_template(uri, lambda entry: self._known(call, entry) is not None)
        if found is None:
            raise ResourceNotFound(shown(uri, 256))
        template, values = found
        try:
            kwargs = template.bind(uri, values)
        except InvalidArguments as exc:
            raise ResourceNotFound(shown(uri, 256)) from exc
        if self._is_asked(call, template):
            return self._ask_about_resource(call, template, uri, kwargs, {**values, **kwargs})
        return self._perform(call, template).resource(template, call, uri, kwargs)

    async def _ask_about_resource(
        self,
        call: Call,
        entry: ResourceEntry | TemplateEntry,
        uri: str,
        kwargs: dict[str, object],
        variables: dict[str, object],
    ) -> bytes:
        missing = ResourceNotFound(shown(uri, 256))
        await self._access.ask(call, entry, uri, lambda: variables, missing, missing)
        return await self._perform(call, entry).resource(entry, call, uri, kwargs)

    # Prompts

    def _get_prompt(self, call: Call) -> Coroutine[object, object, bytes]:
        name = call.params.get("name")
        if type(name) is not str:
            raise InvalidParams("params.name must be a string")
        prompt = self._registry.prompts.get(name)
        if prompt is not None:
            prompt = self._known(call, prompt)
        if prompt is None:
            raise InvalidParams(f"Unknown prompt: {shown(name)}")
        if self._is_asked(call, prompt):
            return self._ask_about_prompt(call, prompt, name)
        return self._perform(call, prompt).prompt(prompt, call, _prompt_arguments(call, prompt))

    async def _ask_about_prompt(self, call: Call, prompt: PromptEntry, name: str) -> bytes:
        unknown = InvalidParams(f"Unknown prompt: {shown(name)}")
        kwargs = await self._access.ask(call, prompt, name, lambda: _prompt_arguments(call, prompt), unknown)
        return await self._perform(call, prompt).prompt(prompt, call, kwargs)

    # Completion

    def _complete(self, call: Call) -> bytes | Coroutine[object, object, bytes]:
        kind, reference, argument, value, given = _completion(call.params)
        table: Mapping[str, Entry] = self._registry.prompts if kind == "prompts" else self._registry.templates
        completed = table.get(reference) if kind in self._offer.names else None
        if completed is not None:
            completed = self._known(call, completed)
        if completed is None:
            raise InvalidParams(_NO_REFERENCE)
        completer = self._registry.completers.get((reference, argument))
        if self._is_asked(call, completed):
            return self._ask_about_completion(call, completed, reference, completer, argument, value, given)
        return self._completed(call, completer, value, given)

    async def _ask_about_completion(
        self,
        call: Call,
        completed: Entry,
        reference: str,
        completer: Completer | None,
        argument: str,
        value: str,
        given: dict[str, object],
    ) -> bytes:
        unknown = InvalidParams(_NO_REFERENCE)
        await self._access.ask(call, completed, reference, lambda: {**given, argument: value}, unknown, unknown)
        outcome = self._completed(call, completer, value, given)
        return outcome if isinstance(outcome, bytes) else await outcome

    def _completed(
        self, call: Call, completer: Completer | None, value: str, given: dict[str, object]
    ) -> bytes | Coroutine[object, object, bytes]:
        if completer is None:
            return self._wire.struct(call.method, {"completion": {"values": list[str]()}}, call.revision)
        return self._perform(call, completer).complete(completer, call, completer.bind(value, given))


def _tool_arguments(call: Call, tool: ToolEntry) -> dict[str, object]:
    if call.match is not None:
        call.match()
    return tool.signature.bind(cast("dict[str, object] | None", call.params.get("arguments")))


def _prompt_arguments(call: Call, prompt: PromptEntry) -> dict[str, object]:
    return prompt.signature.bind_text(_text_arguments(call.params.get("arguments")))


def _text_arguments(arguments: object) -> dict[str, object]:
    if arguments is None:
        return {}
    if type(arguments) is dict:
        given = cast("dict[str, object]", arguments)
        if all(type(value) is str for value in given.values()):
            return given
    raise InvalidParams("params.arguments must be an object of strings")


def _completion(params: dict[str, object]) -> tuple[str, str, str, str, dict[str, object]]:
    reference, argument = params.get("ref"), params.get("argument")
    if type(reference) is dict and type(argument) is dict:
        ref, arg = cast("dict[str, object]", reference), cast("dict[str, object]", argument)
        type_ = ref.get("type")
        kind, member = _REFERENCES.get(type_, ("", "")) if type(type_) is str else ("", "")
        named = ref.get(member)
        name, value = arg.get("name"), arg.get("value")
        if type(named) is str and type(name) is str and type(value) is str:
            context = params.get("context")
            given = cast("dict[str, object]", context).get("arguments") if type(context) is dict else None
            return kind, named, name, value, _text_arguments(given)
    raise InvalidParams("completion/complete needs params.ref and params.argument with name and value")
