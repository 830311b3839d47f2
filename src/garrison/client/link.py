"""One conversation with one server: ids, time, and who gets which message.

Rules of this file:
- A call is a future in a table, not a task. One timer serves all of them: it stands at the earliest deadline.
- An answer to an unknown, finished or other stream's call is dropped and counted; nothing a server sends can end a call
  that it was not asked to answer.
- Progress that does not grow, or comes faster than `Limits.progress_rate`, is dropped and moves no deadline.
- Every call ends: by its answer, its deadline, its cancellation, or the end of the connection.
- No id can be known before its request is seen: an answer cannot be prepared, nor one meant for another connection.
- The constant part of `_meta` is encoded once.

Spec: 2026-07-28 basic, basic/patterns/cancellation, basic/patterns/progress.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

import msgspec

from .. import events
from ..errors import (
    AuthenticationRequired,
    ClientError,
    ConfigurationError,
    ConnectionLost,
    HttpError,
    InputDeclined,
    InvalidRequest,
    ParseError,
    ProtocolViolation,
    RequestTimeout,
)
from ..protocol import types as t
from ..protocol.envelope import (
    Notification,
    Request,
    encode_error,
    encode_notification,
    encode_result,
    parser,
)
from ..protocol.json import decoder, encode, encode_text
from .transport import Call
from .words import remote_error, said

if TYPE_CHECKING:
    from ..policy import Limits, Timeouts
    from ..protocol.revisions import Revision
    from .handlers import Answers
    from .transport import ClientTransport

__all__ = ["SUBSCRIPTION_ID", "Link"]

SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"
_RESERVED: Final = "io.modelcontextprotocol/"
_NO_ANSWER: Final = frozenset({401, 405})
"""Statuses that say something about HTTP, whatever error their body holds."""
_NOT_FOR_CLIENTS: Final = frozenset({"notifications/initialized", "notifications/roots/list_changed"})
_INFINITE: Final = float("inf")
_COUNT_BITS: Final = 28

_log = logging.getLogger("garrison.client")


class _Reports:
    """The progress reports of one call."""

    __slots__ = ("_due", "_latest")

    def __init__(self) -> None:
        self._due = 0.0
        self._latest = -_INFINITE

    def accept(self, progress: float, now: float, rate: int) -> bool:
        """True for one that says more than those before it, and is not one too many."""
        due = max(self._due, now) + 1.0 / rate
        if progress <= self._latest or due - now > 1.0 + 1e-9:
            return False
        self._due, self._latest = due, progress
        return True


class Link:
    """The correlation of one client with one transport.

    Args:
        transport: attached here.
        limits, timeouts, tolerate: the client's policy.
        info: the client's `Implementation`, as a dict.
        answers: answers the server's questions.
        on_notification: hears every notification but progress and cancellation.
        on_lost: hears that the connection ended.
    """

    def __init__(
        self,
        transport: ClientTransport,
        *,
        limits: Limits,
        timeouts: Timeouts,
        info: Mapping[str, object],
        answers: Answers,
        on_notification: Callable[[Notification], None],
        on_lost: Callable[[ConnectionLost], None],
        tolerate: Sequence[str] = (),
    ) -> None:
        self.transport = transport
        self.dropped: Counter[str] = Counter()
        """What arrived and was not for anyone, by kind."""
        self.revision: Revision | None = None
        self.info = info
        self._limits = limits
        self._timeouts = timeouts
        self._answers = answers
        self._on_notification = on_notification
        self._on_lost = on_lost
        self._decode = decoder(limits, duplicate_keys="duplicate_keys" in tolerate)
        self._parse = parser(unknown_members="unknown_members" in tolerate)
        self._calls: dict[int, Call] = {}
        self._reports: dict[int, _Reports] = {}
        """Of calls that want progress, once there was some."""
        self._ids = _random_ids()
        self._constant = b""
        self._methods: dict[str, bytes] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._callbacks: set[asyncio.Task[None]] = set()
        self._questions: dict[int | str, asyncio.Task[None]] = {}
        self._log_level: str | None = None
        self._closed = False
        transport.attach(self)

    @property
    def modern(self) -> bool:
        """True when requests carry their own metadata."""
        return self.revision is not None and self.revision.modern

    # Wording.

    def speak(self, revision: Revision) -> None:
        """Uses this revision from now on."""
        self.revision = revision
        self.transport.agree(revision.version, modern=revision.modern)
        self._word()

    def want_log(self, level: str | None) -> None:
        """Puts the log level on every request (modern revisions)."""
        self._log_level = level
        self._word()

    def _word(self) -> None:
        self._constant = b""
        if self.revision is not None and self.revision.modern:
            meta: dict[str, object] = {
                f"{_RESERVED}protocolVersion": self.revision.version,
                f"{_RESERVED}clientInfo": self.info,
                f"{_RESERVED}clientCapabilities": self._answers.capabilities(self.revision.version, modern=True),
            }
            if self._log_level is not None:
                meta[f"{_RESERVED}logLevel"] = self._log_level
            self._constant = encode(meta)[1:-1]

    def call(
        self,
        method: str,
        params: Mapping[str, object],
        *,
        timeout: float | None = None,
        meta: Mapping[str, object] | None = None,
        headers: Sequence[tuple[str, str]] = (),
        safe: bool = False,
        stream: bool = False,
        on_progress: Callable[[t.ProgressParams], object] | None = None,
        on_event: Callable[[Notification], None] | None = None,
    ) -> Call:
        """A request, worded and numbered, not yet sent. `params` is without `_meta`; times are in seconds.

        Raises:
            ConfigurationError: `meta` holds a member that the protocol fills in.
        """
        number = next(self._ids)
        parts = [self._constant] if self._constant else []
        if on_progress is not None:
            parts.append(b'"progressToken":%d' % number)
        if meta:
            for key in meta:
                if key.startswith(_RESERVED) or key == "progressToken":
                    raise ConfigurationError(f"meta=: {key} is set by the client itself")
            parts.append(encode(meta)[1:-1])
        name: object = None
        if self.revision is not None:
            member = self.revision.methods.names.get(method)
            name = params.get(member) if member is not None else None
            if not self.revision.modern:
                params = self.revision.request(method, dict(params))
        rest = encode(params)
        if parts:
            body = b'{"_meta":{%b}%b%b' % (b",".join(parts), b"," if len(rest) > 2 else b"", rest[1:])
        else:
            body = rest
        spelled = self._methods.get(method)
        if spelled is None:
            spelled = self._methods[method] = encode_text(method)
        return Call(
            number,
            method,
            b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":%b}' % (number, spelled, body),
            asyncio.get_running_loop().create_future(),
            timeout=_INFINITE if stream else self._timeouts.request if timeout is None else timeout,
            name=name if isinstance(name, str) else None,
            headers=headers,
            safe=safe,
            stream=stream,
            on_progress=on_progress,
            on_event=on_event,
        )

    # Calls.

    async def run(self, call: Call) -> dict[str, object]:
        """Sends a call and waits for its result, which is unread.

        Raises:
            RemoteError: the server answered with an error.
            RequestTimeout: it did not answer in time.
            ConnectionLost, HttpError, ProtocolViolation: there is no answer to be had.
        """
        if self._closed:
            raise ConnectionLost("The client is closed")
        self._check_size(call.body)
        now = asyncio.get_running_loop().time()
        call.deadline = now + call.timeout
        call.latest = max(now + self._timeouts.request_max, call.deadline)
        self._calls[call.id] = call
        self._arm(call.deadline)
        try:
            waiting = self.transport.send(call)
            if waiting is not None:
                async with asyncio.timeout_at(None if call.stream else call.deadline):
                    await waiting
            return await call.future
        except asyncio.CancelledError:
            self._abandon(call, "The client no longer waits")
            raise
        except TimeoutError:
            if not call.future.done():
                self._abandon(call, "Time-out")
            raise RequestTimeout(call.method, call.timeout) from None
        finally:
            self._calls.pop(call.id, None)
            if call.on_progress is not None:
                self._reports.pop(call.id, None)
            if call.future.done() and not call.future.cancelled():
                call.future.exception()  # marks it as seen where sending failed first

    def _check_size(self, message: bytes) -> None:
        most = self._limits.message_bytes
        if len(message) > most:
            raise ClientError(f"The message is larger than {most} bytes and was not sent (Limits.message_bytes)")

    def abandon(self, call: Call) -> None:
        """Ends a subscription from this side."""
        if call.id in self._calls:
            self._abandon(call, "The client no longer listens")
            self.fail(call, ConnectionLost("The subscription was closed"))

    async def notify(self, method: str, params: Mapping[str, object] | None = None) -> None:
        """Sends a notification."""
        message = encode_notification(method, params)
        self._check_size(message)
        waiting = self.transport.post(message)
        if waiting is not None:
            async with asyncio.timeout(self._timeouts.request):
                await waiting

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """A task that ends with this link at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def run_callback(self, callback: Callable[..., object], *arguments: object) -> None:
        """Calls a user's function, and lets it run on its own where it returns something to await.

        A server that reports faster than the function takes it is not queued for: what comes meanwhile is dropped.
        """
        if len(self._callbacks) >= self._limits.in_flight:
            self.drop("report")
            return
        try:
            result = callback(*arguments)
        except Exception:  # noqa: BLE001 - a user's callback must not break the connection that it only listens to
            _log.exception("A callback of the client failed")
            return
        if isinstance(result, Awaitable):
            task = self.spawn(_logged(cast("Awaitable[object]", result)))
            self._callbacks.add(task)
            task.add_done_callback(self._callbacks.discard)

    async def aclose(self) -> None:
        """Fails what waits, ends the tasks, closes the transport."""
        self._closed = True
        self.lost(ConnectionLost("The client was closed"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._timeouts.shutdown)
        await self.transport.aclose()

    # What the transport tells.

    def receive(self, data: bytes, call: Call | None) -> None:
        """Reads and delivers one message."""
        try:
            value = self._decode(data)
        except ParseError as exc:
            if call is None:
                self.drop("malformed")
            else:
                self.fail(call, ProtocolViolation(f"{call.method}: {said(exc)}"))
            return
        if type(value) is list and self.revision is not None and self.revision.batches:
            for item in cast("list[object]", value)[: self._limits.batch]:
                self._take(item, call, len(data))
        else:
            self._take(cast("object", value), call, len(data))

    def too_large(self) -> None:
        """A message was dropped by the frame reader; when only one call waits it was surely that one's."""
        self.drop("too large")
        waiting = [call for call in self._calls.values() if not call.stream]
        if len(waiting) == 1:
            text = f"The answer is larger than {self._limits.message_bytes} bytes (Limits.message_bytes)"
            self.fail(waiting[0], ProtocolViolation(text))

    def refused(self, call: Call, status: int, body: bytes) -> None:
        """An HTTP error status: its body may still be a JSON-RPC error."""
        # In the older era 404 says that the session is gone, whatever the body says.
        if body.lstrip()[:1] == b"{" and (self.modern or status != 404):
            try:
                message = self._parse(self._decode(body))
            except (ParseError, InvalidRequest):
                pass
            else:
                error = getattr(message, "error", None)
                # A refusal of the listener answers no request; one of the server's own rules does.
                answered = (call.id,) if status == 403 else (None, call.id)
                if error is not None and getattr(message, "id", None) in answered and status not in _NO_ANSWER:
                    self._settle(call, message)
                    return
        if status in (401, 403):
            why = "it wants a token; give token= or auth=" if status == 401 else "it is not allowed"
            self.fail(call, AuthenticationRequired(status, f"The server refused {call.method}: {why} ({status})"))
        else:
            self.fail(call, HttpError(status, f"The server answered {call.method} with HTTP status {status}"))

    def fail(self, call: Call, error: ClientError) -> None:
        """Ends one call without a result."""
        if not call.future.done():
            call.future.set_exception(error)
            if isinstance(error, ProtocolViolation):
                about = events.Event("response.refused", method=call.method)
                events.record("response.refused", str(error), about=about)

    def lost(self, error: ConnectionLost) -> None:
        """Ends all calls without a result."""
        for call in tuple(self._calls.values()):
            if not call.future.done():
                # Each waiter gets an exception of its own: a shared one would collect all their tracebacks.
                call.future.set_exception(ConnectionLost(*error.args))
        for task in self._questions.values():
            task.cancel()
        self._on_lost(error)

    # Messages.

    def _take(self, value: object, call: Call | None, size: int) -> None:
        try:
            message = self._parse(value)
        except InvalidRequest as exc:
            identifier = cast("dict[object, object]", value).get("id") if type(value) is dict else None
            owner = call or (self._calls.get(identifier) if type(identifier) is int else None)
            if owner is None:
                self.drop("malformed")
            else:
                self.fail(owner, ProtocolViolation(f"{owner.method}: {said(exc)}"))
            return
        if type(message) is Notification:
            self._notified(message, call)
        elif type(message) is Request:
            self._asked(message)
        else:
            identifier = getattr(message, "id", None)
            target = self._calls.get(identifier) if identifier is not None else call or self._only_waiting()
            if target is None or (call is not None and target is not call) or target.future.done():
                self.drop("answer")
                return
            target.size = size
            self._settle(target, message)

    def _only_waiting(self) -> Call | None:
        """The call that an error without an id must mean: the server could not read its id, and no other one waits."""
        waiting = [call for call in self._calls.values() if not call.stream]
        return waiting[0] if len(waiting) == 1 else None

    def _settle(self, call: Call, message: object) -> None:
        if call.future.done():
            return
        error = getattr(message, "error", None)
        if error is None:
            call.future.set_result(cast("dict[str, object]", getattr(message, "result", None)))
            return
        code, text, data = error.code, error.message, error.data
        if self.revision is not None and not self.revision.modern:
            code, text, data = self.revision.upgrade_error(code, text, data)
        call.future.set_exception(remote_error(code, text, data))

    def _notified(self, message: Notification, call: Call | None) -> None:
        params = message.params
        if message.method == "notifications/progress":
            self._progressed(params)
            return
        if message.method == "notifications/cancelled":
            self._cancelled(params)
            return
        if message.method in _NOT_FOR_CLIENTS:
            self.drop("notification")
            return
        meta = params.get("_meta")
        owner = cast("dict[str, object]", meta).get(SUBSCRIPTION_ID) if type(meta) is dict else None
        if owner is None and call is not None and call.stream:
            owner = call.id
        if owner is not None:
            target = self._calls.get(owner) if type(owner) is int else None
            if target is None or target.on_event is None or (call is not None and target is not call):
                self.drop("subscription")
                return
            target.on_event(message)
        self._on_notification(message)

    def _progressed(self, params: dict[str, object]) -> None:
        token = params.get("progressToken")
        call = self._calls.get(token) if type(token) is int else None
        if call is None or call.on_progress is None or call.future.done():
            self.drop("progress")
            return
        try:
            progress = t.convert(params, t.ProgressParams)
        except msgspec.ValidationError:
            self.drop("malformed")
            return
        now = asyncio.get_running_loop().time()
        if not self._reports.setdefault(call.id, _Reports()).accept(progress.progress, now, self._limits.progress_rate):
            self.drop("progress")
            return
        call.deadline = min(now + call.timeout, call.latest)
        self.run_callback(call.on_progress, progress)

    def _cancelled(self, params: dict[str, object]) -> None:
        """The server ends a subscription, or (older revisions) takes a question back."""
        identifier = params.get("requestId")
        call = self._calls.get(identifier) if type(identifier) is int else None
        if call is not None and call.stream:
            self.fail(call, ConnectionLost("The server ended the subscription"))
        elif not self.modern and isinstance(identifier, int | str) and identifier in self._questions:
            self._questions[identifier].cancel()

    # Questions of older servers.

    def _asked(self, request: Request) -> None:
        if self.modern or self.revision is None or request.id in self._questions:
            self.drop("request")
        elif len(self._questions) >= self._limits.in_flight:
            # Who asks so much and does not read what is answered gets no answer at all.
            if len(self._tasks) > 3 * self._limits.in_flight:
                self.drop("request")
            else:
                self.spawn(self._reply(encode_error(request.id, -32603, "Too many requests at once")))
        else:
            task = self.spawn(self._answer(request, self.revision))
            self._questions[request.id] = task
            task.add_done_callback(lambda _: self._answered(request.id))

    def _answered(self, identifier: int | str) -> None:
        self._questions.pop(identifier, None)
        if not self._questions:
            # The clock stood still for the calls while somebody was asked.
            now = asyncio.get_running_loop().time()
            for call in self._calls.values():
                call.deadline = min(now + call.timeout, call.latest)

    async def _answer(self, request: Request, revision: Revision) -> None:
        method = request.method
        if method == "ping":
            reply = encode_result(request.id, b"{}")
        elif method not in revision.methods.server_requests or not self._answers.has(method):
            self.drop("undeclared")
            self._answers.undeclared(method)
            reply = encode_error(request.id, -32601, "Method not found")
        else:
            try:
                params = revision.upgrade_params(method, request.params)
                result = await self._answers.one(method, params, revision.version)
                reply = encode_result(request.id, encode(revision.result(method, result)))
            except ProtocolViolation:
                reply = encode_error(request.id, -32602, "Invalid params")
            except InputDeclined:
                reply = encode_error(request.id, -32603, "The request was not answered")
            except Exception:  # noqa: BLE001 - the handler is the user's; the server gets an answer and no detail
                _log.exception("The handler for %s failed", method)
                reply = encode_error(request.id, -32603, "Internal error")
        if len(reply) > self._limits.message_bytes:
            _log.warning("The answer to %s is larger than Limits.message_bytes, and was not sent", method)
            reply = encode_error(request.id, -32603, "The answer is too large")
        await self._reply(reply)

    async def _reply(self, message: bytes) -> None:
        try:
            waiting = self.transport.post(message)
            if waiting is not None:
                async with asyncio.timeout(self._timeouts.request):
                    await waiting
        except (ClientError, TimeoutError) as exc:
            _log.warning("An answer to the server was not delivered: %s", exc)

    # Time.

    def _arm(self, deadline: float) -> None:
        if deadline == _INFINITE:
            return
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        earliest = _INFINITE
        for call in tuple(self._calls.values()):
            deadline = call.latest if self._questions else call.deadline
            if deadline <= now:
                if not call.future.done():
                    self._abandon(call, "Time-out")
                    call.future.set_exception(RequestTimeout(call.method, call.timeout))
            else:
                earliest = min(earliest, call.deadline if call.deadline > now else now + 1.0)
        self._arm(earliest)

    def _abandon(self, call: Call, reason: str) -> None:
        """Stops waiting, and tells the server where the transport does not. `initialize` is never cancelled."""
        told = self.transport.cancel(call)
        if told or self._closed or self.transport.down or call.method == "initialize":
            return
        message = encode_notification("notifications/cancelled", {"requestId": call.id, "reason": reason})
        self.spawn(self._reply(message))

    def drop(self, kind: str) -> None:
        """Counts a message that is for nobody."""
        self.dropped[kind] += 1
        if self.dropped[kind] == 1:
            text = f"The server sent something that belongs to nothing ({kind}); further ones are only counted"
            _log.warning("%s", text)


def _random_ids() -> Iterator[int]:
    """Ids below 2**53: a count that starts anywhere makes them unique, and 25 random bits above it unpredictable."""
    count = secrets.randbits(_COUNT_BITS)
    while True:
        for bits in memoryview(secrets.token_bytes(1024)).cast("I"):
            count = (count + 1) % 2**_COUNT_BITS
            yield (bits >> 7) << _COUNT_BITS | count


async def _logged(work: Awaitable[object]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - a user's callback must not break the connection that it only listens to
        _log.exception("A callback of the client failed")
