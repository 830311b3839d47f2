"""Streamable HTTP, the client's side, in all revisions that have it.

Rules of this file:
- A request whose connection is free is written at once, by plain calls. Everything rare (connecting, redirects, a
  challenge, a stream to be taken up again) is a task of this transport and ends with it.
- Headers never leave the configured origin: redirects are followed once, with 307 or 308, within the same origin.
- With `auth=` the header lines that authorize a request are made for it, after its head, and never kept: where a token
  may go, and which one, is the `Authorizer`'s to say. A call's clock stands still while it asks for a token.
- A request is sent twice only if the server cannot have carried it out, or if doing it twice changes nothing. One that
  was refused with 429 or 503 and a short `Retry-After` was not carried out: it is sent again when the server says.
- Sessions, the stream of GET and resumption exist only after a handshake.
- A stream that broke is opened again after a time with some jitter: the server's, within bounds, and longer for each
  time that nothing came.

Spec: 2026-07-28 and 2025-11-25 basic/transports; RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Final

from ..errors import (
    AuthenticationRequired,
    ClientError,
    ConfigurationError,
    ConnectionLost,
    HttpError,
    ProtocolViolation,
)
from ..protocol.headers import encode_value
from ..transports.http.pool import Pool
from ..transports.http.url import Endpoint, UrlError, parse_endpoint
from .http_response import Body, EventStream, PostResponse
from .outbound import allow_plain, request_headers

if TYPE_CHECKING:
    import ssl

    from ..auth.client.session import Authorizer
    from ..policy import Limits, Timeouts
    from ..policy.tls import TlsClientConfig
    from ..policy.transports import UnixSocketConfig
    from ..transports.http.pool import Connection
    from .transport import Call, Receiver

__all__ = ["Challenge", "HttpSettings", "StreamableHttp"]

Challenge = Callable[[int, Mapping[str, str]], Awaitable[str | None]]
"""Gets the status (401 or 403) and headers of a refusal; returns a new Authorization value, or None to give up."""

_VALUE = re.compile(r"[\x20-\x7e\t]*")
_SAID_HERE: Final = frozenset({"accept", "content-encoding", "content-type", "last-event-id"})
_SESSION = re.compile(r"[\x21-\x7e]{1,1024}")
_SECONDS = re.compile(r"[0-9]{1,4}")
_VERSION_HEADER_SINCE: Final = "2025-06-18"
_RETRY: Final = 1.0
"""Seconds before a broken stream is taken up again, where the server names no time."""
_SHORTEST_RETRY: Final = 0.1
_LONGEST_RETRY: Final = 60.0
"""Seconds between which a server's own time is honoured."""
_LONGEST_ID: Final = 1024
_HEARD: Final = 0.5
"""Seconds for the server's own stream to open before the first call."""
_MOST_RESUMES: Final = 10
"""Times in a row that a stream is taken up again and brings nothing."""
_MOST_CHALLENGES: Final = 3
_MOST_ROUNDS: Final = 8
"""Times that a request is sent again for `auth=`, whose own counts end before this one does."""
_MOST_WAITS: Final = 3
"""Times that a request is sent again because the server asked for patience."""
_LONGEST_WAIT: Final = 5
"""Seconds of patience; who asks for more has refused."""

_log = logging.getLogger("garrison.client")


def _patience(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds after which a refused request may be sent again: what the server said, and some jitter. None: never."""
    text = headers.get("retry-after", "").strip()
    if status not in (429, 503) or not _SECONDS.fullmatch(text) or int(text) > _LONGEST_WAIT:
        return None
    return int(text) + 0.05 + secrets.randbelow(450) / 1000


def _pause(retry: int | None, idle: int) -> float:
    """Seconds before a stream is opened again.

    Args:
        retry: milliseconds that the server named.
        idle: how often in a row it brought nothing.
    """
    base = _RETRY if retry is None else max(retry / 1000, _SHORTEST_RETRY)
    return min(base * 2 ** min(idle, 5), _LONGEST_RETRY) * (1.005 + secrets.randbelow(100) / 1000)


class HttpSettings:
    """Where an HTTP transport connects and what every request says.

    Args:
        url: the MCP endpoint.
        limits, timeouts: the client's policy.
        token: sent as `Authorization: Bearer`.
        headers: further headers.
        proxy: see `Pool`.
        tls: see `Pool`.
        challenge: asked for a token when the server refuses.
        auth: gets tokens by itself, in place of `token` and `challenge`.
        insecure_hosts: host -> why it may be spoken to without TLS off loopback.
        unix_socket: see `Pool`; plain http is in order there, whatever the host.

    Raises:
        ConfigurationError: the URL, a header or the token is not one; or as `Pool`.
        ConnectionFailed: plain http to a host that is neither loopback nor named.
    """

    def __init__(
        self,
        url: str,
        *,
        limits: Limits,
        timeouts: Timeouts,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        tls: TlsClientConfig | ssl.SSLContext | None = None,
        challenge: Challenge | None = None,
        auth: Authorizer | None = None,
        insecure_hosts: Mapping[str, str] | None = None,
        unix_socket: UnixSocketConfig | None = None,
    ) -> None:
        try:
            self.endpoint = parse_endpoint(url)
        except UrlError as exc:
            raise ConfigurationError(f"the URL of the server: {exc}") from None
        self._url = self.endpoint.origin + self.endpoint.target
        if unix_socket is None:
            allow_plain(self.endpoint, insecure_hosts or {})
        added = request_headers(headers, token, reserved=_SAID_HERE)
        self.limits = limits
        self.timeouts = timeouts
        self.challenge = challenge
        self.auth = auth
        self.authorization = f"Bearer {token}" if token is not None else None
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in added if name != "Authorization")
        self.pool = Pool(self.endpoint, limits=limits, timeouts=timeouts, proxy=proxy, tls=tls, unix_socket=unix_socket)

    def head(self, verb: str, extra: str, endpoint: Endpoint | None = None) -> bytes:
        """A request head without its last line break; `extra` is header lines."""
        return self.opening(verb, self.credential(verb, endpoint) + extra, endpoint)

    def opening(self, verb: str, extra: str, endpoint: Endpoint | None = None) -> bytes:
        """The same without what authorizes the request."""
        target = (endpoint or self.endpoint).target
        first = f"{verb} {target} HTTP/1.1\r\nHost: {self.endpoint.authority}\r\nAccept-Encoding: identity\r\n"
        return f"{first}{self._fixed}{extra}".encode("ascii")

    def credential(self, verb: str, endpoint: Endpoint | None = None) -> str:
        """The header lines that authorize one request."""
        if self.auth is not None:
            return self.auth.lines(verb, self.url(endpoint))
        return f"Authorization: {self.authorization}\r\n" if self.authorization is not None else ""

    def url(self, endpoint: Endpoint | None = None) -> str:
        """The address of a request."""
        return self._url if endpoint is None else endpoint.origin + endpoint.target

    def same_origin(self, reference: str) -> Endpoint | None:
        """The endpoint that a server's reference names, or None when it is another origin's or no URL."""
        try:
            endpoint = self.endpoint.join(reference)
        except (UrlError, ValueError):
            return None
        return endpoint if endpoint.origin == self.endpoint.origin else None

    async def write(self, request: bytes, handler: Body | EventStream, *, extra: bool = False) -> Connection:
        """Sends a request on a free connection."""
        while True:
            connection = await self.pool.connection(extra=extra)
            if connection.send(request, handler):
                return connection

    async def exchange(self, verb: str, extra: str, body: bytes = b"", endpoint: Endpoint | None = None) -> Body:
        """One request whose whole response is awaited, within `Timeouts.request`.

        A token that has ended is renewed for it; nobody is asked to sign in for it.
        """
        auth = self.auth
        if auth is not None and auth.due:
            await auth.prepare()
        rounds = 0
        while True:
            sent = self.credential(verb, endpoint)
            response = await self._exchange(verb, sent + extra, body, endpoint)
            rounds += 1
            if not await self.renewed(rounds, response.status, response.headers, sent, endpoint):
                return response

    async def renewed(
        self, rounds: int, status: int, headers: Mapping[str, str], sent: str, endpoint: Endpoint | None = None
    ) -> bool:
        """Whether a request that nobody waits for is to be sent again, with another token, after this many answers."""
        if self.auth is None or rounds > _MOST_ROUNDS:
            return False
        url = self.url(endpoint)
        self.auth.heard(status, headers)
        return await self.auth.challenged(status, headers, url=url, sent=sent, person=False)

    async def _exchange(self, verb: str, extra: str, body: bytes, endpoint: Endpoint | None) -> Body:
        response = Body(self.limits.message_bytes)
        length = f"Content-Length: {len(body)}\r\n" if body or verb == "POST" else ""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self.timeouts.request):
                head = self.opening(verb, extra + length + "\r\n", endpoint)
                connection = await self.write(head + body, response)
                await response.ended
        except TimeoutError:
            raise ConnectionLost(f"{verb} was not answered within {self.timeouts.request:g} s") from None
        finally:
            if connection is not None and not (response.ended.done() and not response.ended.cancelled()):
                connection.abort()
        return response


class StreamableHttp:
    """One endpoint that takes POST. See `HttpSettings` for the arguments."""

    http = True
    down = False

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self.session: str | None = None
        self._receiver: Receiver | None = None
        self._version = ""
        self._modern = True
        self._heads: dict[str, bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = False
        self._opened = asyncio.Event()
        self.credential = 0
        """Grows whenever another credential is sent than before."""

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def open(self) -> None:
        pass

    def agree(self, version: str, *, modern: bool) -> None:
        self._version, self._modern = version, modern
        self._heads.clear()

    def send(self, call: Call) -> Awaitable[None] | None:
        if self._receiver is None:
            raise ConnectionLost("The transport is not attached")
        if call.method == "initialize":
            self.session = None
            self._heads.clear()
        auth = self.settings.auth
        heard = None if auth is None else self._heard_of
        response = PostResponse(call, self._receiver, self.settings.limits.message_bytes, self._again, heard)
        call.handle = response
        connection = None if call.stream or (auth is not None and auth.due) else self.settings.pool.idle()
        if connection is not None:
            response.connection = connection
            if connection.send(self._request(call, response), response):
                return None
        return self._send(call, response)

    def post(self, message: bytes) -> Awaitable[None] | None:
        return self._post(message)

    def cancel(self, call: Call) -> bool:
        if isinstance(call.handle, PostResponse):
            call.handle.cancel()
        return self._modern

    async def aclose(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self.settings.timeouts.shutdown)
        if self.session is not None:
            extra, self.session = self._state(), None
            try:
                async with asyncio.timeout(self.settings.timeouts.shutdown):
                    await self.settings.exchange("DELETE", extra)
            except (ClientError, TimeoutError):
                pass  # the session ends without us
        self.settings.pool.close()

    def listen(self) -> Awaitable[None] | None:
        """Opens the stream of GET; a server that has none is left alone (2025 revisions).

        A question that a server sends before there is a stream is lost, so that no call should be made earlier. Some
        servers send no head before the first event: they are not waited for long.
        """
        if self._listening:
            return None
        self._listening = True
        self._opened.clear()
        self._spawn(self._listen())
        return self._heard()

    async def _heard(self) -> None:
        try:
            async with asyncio.timeout(_HEARD):
                await self._opened.wait()
        except TimeoutError:
            _log.info("The server's own stream was not opened within %g s", _HEARD)

    # Requests.

    def _request(self, call: Call, response: PostResponse) -> bytes:
        endpoint = response.target
        head = self._heads.get(call.method) if endpoint is None else None
        if head is None:
            extra = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
            if call.method != "initialize":
                extra += self._state()
            if self._modern:
                extra += f"Mcp-Method: {encode_value(call.method)}\r\n"
            make = self.settings.head if self.settings.auth is None else self.settings.opening
            head = make("POST", extra + "Content-Length: ", endpoint)
            if endpoint is None:
                self._heads[call.method] = head
        if self.settings.auth is not None:
            response.sent = self.settings.credential("POST", endpoint)
        lines = response.sent
        if self._modern and (call.name is not None or call.headers):
            lines += "".join(f"{name}: {value}\r\n" for name, value in call.headers)
            if call.name is not None:
                lines += f"Mcp-Name: {encode_value(call.name)}\r\n"
        if not lines:
            return b"%b%d\r\n\r\n%b" % (head, len(call.body), call.body)
        return b"%b%d\r\n%b\r\n%b" % (head, len(call.body), lines.encode("ascii"), call.body)

    def _state(self) -> str:
        """Header lines that depend on what was agreed."""
        lines = ""
        if self._version >= _VERSION_HEADER_SINCE:
            lines += f"MCP-Protocol-Version: {self._version}\r\n"
        if self.session:
            lines += f"Mcp-Session-Id: {self.session}\r\n"
        return lines

    async def _send(self, call: Call, response: PostResponse) -> None:
        auth = self.settings.auth
        while True:
            if auth is not None and auth.due:
                await auth.prepare()
            connection = await self.settings.pool.connection(extra=call.stream)
            if call.future.done():
                self.settings.pool.release(connection)
                return
            response.restart(connection)
            if connection.send(self._request(call, response), response):
                return

    async def _post(self, message: bytes) -> None:
        extra = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n" + self._state()
        response = await self.settings.exchange("POST", extra, message)
        for _ in range(_MOST_WAITS):
            wait = _patience(response.status, response.headers)
            if wait is None:
                break
            await asyncio.sleep(wait)
            response = await self.settings.exchange("POST", extra, message)
        if response.status >= 400:
            raise HttpError(response.status, f"The server refused a message with HTTP status {response.status}")

    # Responses that are not the answer.

    def _again(self, response: PostResponse, error: ClientError | None, untouched: bool) -> bool:
        """Carries a call on when its response brought no answer. False when there is nothing to be done."""
        call, status = response.call, response.status
        if error is None and status in (307, 308):
            endpoint = self.settings.same_origin(response.headers.get("location", ""))
            if endpoint is None or response.tries:
                return False
            response.target = endpoint
            return self._go_on(response, self._send(call, response))
        if error is None and status in (401, 403):
            if self.settings.auth is not None and response.tries < _MOST_ROUNDS:
                return self._go_on(response, self._authorized(call, response, self.settings.auth))
            if self.settings.challenge is not None and response.tries < _MOST_CHALLENGES:
                return self._go_on(response, self._challenged(call, response, status, response.headers))
            return False
        wait = _patience(status, response.headers) if error is None else None
        if wait is not None:
            if response.tries >= _MOST_WAITS or asyncio.get_running_loop().time() + wait >= call.deadline:
                return False
            return self._go_on(response, self._send_after(wait, call, response))
        if untouched and call.safe and not response.tries:
            return self._go_on(response, self._send(call, response))
        parser = response.parser
        if (
            parser is not None
            and parser.last_event_id
            and not self._modern
            and not isinstance(error, ProtocolViolation)
        ):
            return self._go_on(response, self._resume(call, response))
        return False

    async def _send_after(self, wait: float, call: Call, response: PostResponse) -> None:
        await asyncio.sleep(wait)
        await self._send(call, response)

    def _go_on(self, response: PostResponse, work: Coroutine[object, object, None]) -> bool:
        response.tries += 1
        response.task = self._spawn(self._guarded(response.call, work))
        return True

    async def _guarded(self, call: Call, work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except ClientError as exc:
            if self._receiver is not None:
                self._receiver.fail(call, exc)

    async def _authorized(self, call: Call, response: PostResponse, auth: Authorizer) -> None:
        """Asks for a token, and sends the call again where there is one."""
        status, url = response.status, self.settings.url(response.target)
        asking = asyncio.ensure_future(auth.challenged(status, response.headers, url=url, sent=response.sent))
        loop = asyncio.get_running_loop()
        try:
            while not asking.done():
                call.deadline = max(call.deadline, loop.time() + call.timeout)
                call.latest = max(call.latest, call.deadline)
                await asyncio.wait((asking,), timeout=min(1.0, call.timeout / 2))
        finally:
            asking.cancel()
        if asking.result():
            self.credential += 1
            await self._send(call, response)
        elif self._receiver is not None:
            self._receiver.refused(call, status, b"")

    def _heard_of(self, response: PostResponse) -> None:
        if self.settings.auth is not None:
            self.settings.auth.heard(response.status, response.headers)

    async def _challenged(self, call: Call, response: PostResponse, status: int, headers: Mapping[str, str]) -> None:
        if self.settings.challenge is None or self._receiver is None:
            return
        try:
            value = await self.settings.challenge(status, headers)
            if value is not None:
                self.authorize(value)
        except ClientError:
            raise
        except Exception as exc:  # the user's function: what it raises must end the call that waits for it
            raise AuthenticationRequired(status, f"{call.method}: challenge= failed ({type(exc).__name__})") from exc
        if value is None:
            self._receiver.refused(call, status, b"")
            return
        await self._send(call, response)

    def authorize(self, value: str) -> None:
        """Uses this Authorization value from now on."""
        if not _VALUE.fullmatch(value):
            raise ConfigurationError("the Authorization value holds characters that a header must not hold")
        self.credential += value != self.settings.authorization
        self.settings.authorization = value
        self._heads.clear()

    def greeted(self, call: Call) -> None:
        """Takes the session of a server that answered `initialize`.

        Raises:
            ProtocolViolation: the session id is not visible ASCII.
        """
        response = call.handle
        session = response.headers.get("mcp-session-id") if isinstance(response, PostResponse) else None
        if session is not None and not _SESSION.fullmatch(session):
            raise ProtocolViolation("Mcp-Session-Id holds characters that it must not hold")
        self.session = session
        self._heads.clear()

    # Streams of the older revisions.

    async def _resume(self, call: Call, response: PostResponse) -> None:
        """Takes up the stream of a POST by GET until the answer has come."""
        parser = response.parser
        last, retry = (parser.last_event_id, parser.retry) if parser is not None else ("", None)
        idle = 0
        for _ in range(_MOST_RESUMES):
            await asyncio.sleep(_pause(retry, idle))
            stream = await self._get(last)
            if call.future.done():
                return
            if stream.status >= 400:
                break
            last, retry = stream.last or last, stream.retry if stream.retry is not None else retry
            idle = 0 if stream.events else idle + 1
        raise ConnectionLost(f"{call.method}: the event stream ended before the answer")

    async def _listen(self) -> None:
        last, retry, idle = "", None, 0
        while idle < _MOST_RESUMES:
            try:
                stream = await self._get(last)
            except ClientError as exc:
                _log.info("The server's own stream could not be opened: %s", exc)
                idle += 1
            else:
                if stream.status >= 400:
                    break
                last, retry = stream.last or last, stream.retry if stream.retry is not None else retry
                idle = 0 if stream.events else idle + 1
            self._opened.set()
            await asyncio.sleep(_pause(retry, idle))
        self._listening = False
        self._opened.set()

    async def _get(self, last: str) -> _Ended:
        extra = "Accept: text/event-stream\r\n" + self._state()
        if last:
            if len(last) > _LONGEST_ID or not _VALUE.fullmatch(last):
                raise ProtocolViolation("An event id is longer than a header may be, or holds what none may hold")
            extra += f"Last-Event-ID: {last}\r\n"
        auth = self.settings.auth
        if auth is not None and auth.due:
            await auth.prepare()
        rounds = 0
        while True:
            stream = EventStream(self.settings.limits.message_bytes, self._deliver, self._opened.set)
            sent = self.settings.credential("GET")
            request = self.settings.opening("GET", sent + extra + "\r\n")
            connection = await self.settings.write(request, stream, extra=True)
            try:
                status = await stream.ended
            finally:
                connection.abort()
            rounds += 1
            if not await self.settings.renewed(rounds, status, stream.headers, sent):
                return _Ended(status, stream.events, stream.parser.last_event_id, stream.parser.retry)

    def _deliver(self, event: str, data: bytes) -> None:
        if event == "message" and self._receiver is not None:
            self._receiver.receive(data, None)

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Ended:
    """How a stream of GET ended, and from where the next goes on."""

    __slots__ = ("events", "last", "retry", "status")

    def __init__(self, status: int, events: int, last: str, retry: int | None) -> None:
        self.status = status
        self.events = events
        self.last = last
        self.retry = retry
