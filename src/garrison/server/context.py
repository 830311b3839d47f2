"""`Context`: what a handler may know and do beside its arguments.

Rules of this file:
- A handler gets a context by annotating a parameter with `Context`. It cannot be set by arguments.
- `progress` and `log` send at once and may be awaited for back-pressure; both may be called from a worker thread.
- Everything else that is awaited works from a worker thread through `ctx.wait(...)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

import msgspec

from ..errors import ConfigurationError, GarrisonError
from ..protocol.types import (
    LOGGING_LEVELS,
    CreateMessageResult,
    Implementation,
    ListRootsResult,
    Root,
    SamplingMessage,
    TextContent,
    convert,
)
from .ask import Question, declares

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
    from concurrent.futures import Future

    from ..policy.principal import Principal
    from ..policy.secret import Secret
    from ..protocol.types import LoggingLevel, ModelPreferences, Tool, ToolChoice
    from .ask import Asker
    from .call import Call

__all__ = ["Context", "Elicited"]

T = TypeVar("T")
S = TypeVar("S")


class Elicited(Generic[T]):
    """The user's answer: `action` is accept, decline or cancel; `content` is set only when accepted."""

    __slots__ = ("action", "content")

    def __init__(self, action: str, content: T | None) -> None:
        self.action = action
        self.content = content

    @property
    def accepted(self) -> bool:
        """True if the user agreed."""
        return self.action == "accept"

    def __repr__(self) -> str:
        return f"Elicited(action={self.action!r}, content={self.content!r})"


class _Sent:
    """Awaitable that returns once the peer has room again. Not awaiting it is allowed."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __await__(self) -> Generator[object, None, None]:
        yield  # one turn of the loop: a handler that reports in a tight loop lets others be served
        yield from self._call.channel.drain().__await__()


class Context(Generic[S]):
    """The running request. `Context[MyState]` types what the server's lifespan yielded."""

    __slots__ = ("_asker", "_call", "_loop", "_over", "_progress", "_state", "_thread", "_waiting")

    def __init__(self, call: Call, asker: Asker, state: object, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        self._call = call
        self._asker = asker
        self._state = state
        self._loop = loop
        self._thread = thread
        self._progress: float | None = None
        self._over = False
        self._waiting: Future[object] | None = None

    @property
    def state(self) -> S:
        """What the server's `lifespan` yielded."""
        return cast("S", self._state)

    @property
    def request_id(self) -> int | str:
        """The JSON-RPC id of this request."""
        return self._call.id

    @property
    def protocol_version(self) -> str:
        """The protocol revision this client speaks."""
        return self._call.revision.version

    @property
    def principal(self) -> Principal:
        """Who is asking, as verified by the listener; its `subject` is "local" on stdio and in memory."""
        return self._call.principal

    async def upstream_token(self, resource: str, *, audience: str | None = None, scopes: Iterable[str] = ()) -> Secret:
        """A token with which to call another server for this caller, got by token exchange (RFC 8693).

        The caller's own token is for this server alone and is never handed on.

        Args:
            resource: the URL of the other server (RFC 8707).
            audience: its name, where the authorization server wants one.
            scopes: what to ask for.

        Raises:
            ConfigurationError: there is no `ResourceServer(exchange=...)`, or the caller showed no token.
            AuthorizationFailed: the authorization server gives none.
        """
        from ..auth.resource.authenticator import TokenCredential

        credential = self._call.credential
        if not isinstance(credential, TokenCredential):
            raise ConfigurationError("upstream_token: this caller showed no token that could be exchanged")
        return await credential.upstream(resource, audience, frozenset(scopes))

    @property
    def client_info(self) -> Implementation | None:
        """How the client names itself. Not verified: for display and logs only."""
        info = self._call.client_info
        try:
            return None if info is None else convert(info, Implementation)
        except msgspec.ValidationError:
            return None

    @property
    def client_capabilities(self) -> dict[str, object]:
        """What the client declared for this request."""
        return self._call.capabilities

    @property
    def meta(self) -> dict[str, object]:
        """The request's `_meta`."""
        meta = self._call.params.get("_meta")
        return cast("dict[str, object]", meta) if type(meta) is dict else {}

    def client_supports(self, *path: str) -> bool:
        """True if the client declared the capability, for instance `client_supports("elicitation", "url")`."""
        return declares(self._call.capabilities, path)

    # Messages that do not wait for an answer

    def _send(self, method: str, params: dict[str, object]) -> _Sent:
        import threading

        if self._call.looks is not None:
            params = self._call.looks.params(params)
        if threading.get_ident() == self._thread:
            self._call.channel.notify(method, params)
        else:
            self._loop.call_soon_threadsafe(self._call.channel.notify, method, params)
        return _Sent(self._call)

    def progress(self, progress: float, total: float | None = None, message: str | None = None) -> Awaitable[None]:
        """Tell the client how far the work is. Nothing is sent if it did not ask, or if `progress` did not grow.

        Spec: 2026-07-28 basic/patterns/progress.
        """
        call = self._call
        if call.progress_token is None or (self._progress is not None and progress <= self._progress):
            return _Sent(call)
        self._progress = progress
        params: dict[str, object] = {"progressToken": call.progress_token, "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        return self._send("notifications/progress", params)

    def log(self, level: LoggingLevel, data: object, logger: str | None = None) -> Awaitable[None]:
        """Send a log message on this request's stream, if the client asked for this level.

        Spec: 2026-07-28 server/utilities/logging.
        """
        call = self._call
        if call.log_level is None or LOGGING_LEVELS[level] < call.log_level:
            return _Sent(call)
        params: dict[str, object] = {"level": level, "data": msgspec.to_builtins(data)}
        if logger is not None:
            params["logger"] = logger
        return self._send("notifications/message", params)

    def debug(self, data: object) -> Awaitable[None]:
        """`log("debug", data)`"""
        return self.log("debug", data)

    def info(self, data: object) -> Awaitable[None]:
        """`log("info", data)`"""
        return self.log("info", data)

    def warning(self, data: object) -> Awaitable[None]:
        """`log("warning", data)`"""
        return self.log("warning", data)

    def error(self, data: object) -> Awaitable[None]:
        """`log("error", data)`"""
        return self.log("error", data)

    def close_stream(self) -> None:
        """End this request's HTTP stream now; a client of 2025-11-25 comes back for the rest. Else no effect."""
        self._call.channel.close_stream()

    # Questions

    async def elicit(self, message: str, schema: type[T] | dict[str, object], *, key: str | None = None) -> Elicited[T]:
        """Ask the user to fill in a form.

        Args:
            message: what the user reads.
            schema: a dataclass, TypedDict or struct with flat fields, or a JSON Schema object of primitives.
            key: the question's name; needed when the order of questions can change between runs.

        Raises:
            MissingCapability: the client cannot show forms.

        Spec: 2026-07-28 client/elicitation.
        """
        from .elicitation import form_question

        question, build = form_question(message, schema)
        answer = await self._asker.ask(question, _own(key))
        action = cast("str", answer["action"])
        content = build(cast("dict[str, object]", answer.get("content") or {})) if action == "accept" else None
        return Elicited(action, cast("T | None", content))

    async def elicit_url(self, message: str, url: str, *, key: str | None = None) -> Elicited[None]:
        """Ask the user to open a web page, for what must not pass through the client.

        `accept` means that the user agreed, not that the page is done with.

        Raises:
            MissingCapability: the client cannot open pages.
        """
        from .elicitation import url_question

        answer = await self._asker.ask(url_question(message, url), _own(key))
        return Elicited(cast("str", answer["action"]), None)

    async def sample(
        self,
        messages: str | Sequence[SamplingMessage],
        *,
        max_tokens: int,
        system_prompt: str | None = None,
        temperature: float | None = None,
        stop_sequences: Sequence[str] | None = None,
        model_preferences: ModelPreferences | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
        metadata: dict[str, object] | None = None,
        key: str | None = None,
    ) -> CreateMessageResult:
        """Ask the client's model.

        Raises:
            MissingCapability: the client offers no sampling, or none with tools.

        Spec: 2026-07-28 client/sampling.
        """
        if isinstance(messages, str):
            messages = [SamplingMessage(role="user", content=TextContent(messages))]
        optional: dict[str, object] = {
            "systemPrompt": system_prompt,
            "temperature": temperature,
            "stopSequences": list(stop_sequences) if stop_sequences is not None else None,
            "modelPreferences": model_preferences,
            "tools": list(tools) if tools is not None else None,
            "toolChoice": tool_choice,
            "metadata": metadata,
        }
        params: dict[str, object] = {"messages": list(messages), "maxTokens": max_tokens}
        params.update((name, value) for name, value in optional.items() if value is not None)
        capability = ("sampling",) if tools is None else ("sampling", "tools")
        plain = cast("dict[str, object]", msgspec.to_builtins(params))
        question = Question("sample", "sampling/createMessage", plain, capability, _fits(CreateMessageResult))
        return convert(await self._asker.ask(question, _own(key)), CreateMessageResult)

    async def list_roots(self, *, key: str | None = None) -> list[Root]:
        """The folders the client opens to this server.

        Raises:
            MissingCapability: the client has no roots.

        Spec: 2026-07-28 client/roots.
        """
        question = Question("roots", "roots/list", {}, ("roots",), _fits(ListRootsResult))
        return list(convert(await self._asker.ask(question, _own(key)), ListRootsResult).roots)

    async def once(self, key: str, fn: Callable[[], Awaitable[T]] | Callable[[], T]) -> T:
        """Do something with an effect once, though asking back runs the handler again.

        Once in a chain of rounds: a client that answers the same question again begins another chain from there. What
        must never happen twice needs a record of its own on the server.

        Args:
            key: the name of the effect in this handler.
            fn: a function without arguments; what it returns must be JSON.
        """
        return cast("T", await self._asker.once(key, fn))

    def wait(self, awaitable: Coroutine[object, object, T]) -> T:
        """Wait, in a worker thread, for something of this context: `ctx.wait(ctx.elicit(...))`.

        Raises:
            GarrisonError: called on the event loop's thread, where `await` is the word.
        """
        import asyncio
        import threading

        if threading.get_ident() == self._thread:
            awaitable.close()
            raise GarrisonError("ctx.wait() is for worker threads; in an async handler write await")
        future = asyncio.run_coroutine_threadsafe(awaitable, self._loop)
        self._waiting = cast("Future[object]", future)
        if self._over:
            future.cancel()
        return future.result()

    def end(self) -> None:
        """The request is over: a worker thread that still waits in `wait` is let go. Called by the server."""
        self._over = True
        if self._waiting is not None:
            self._waiting.cancel()


def _own(key: str | None) -> str | None:
    """The key of a handler's question.

    Raises:
        ValueError: it begins as the keys of the server's own questions do.
    """
    if key is not None and key.startswith("garrison."):
        raise ValueError('key= of a question does not begin with "garrison."')
    return key


def _fits(shape: type[object]) -> Callable[[dict[str, object]], str | None]:
    def check(answer: dict[str, object]) -> str | None:
        try:
            convert(answer, shape)
        except msgspec.ValidationError:
            return f"not a {shape.__name__}"
        return None

    return check
