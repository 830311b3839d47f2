"""Fetching what a peer named: the one way out for addresses that were not chosen by who runs the program.

Rules of this file:
- A name is looked up once, every address of it is judged, and the connection goes to a judged one: a name that changes
  its answer between look and leap leads nowhere. One address that is not public refuses the name.
- Public means: https, the scheme's own port, and an address of the public Internet. What else may be reached is listed
  by host and port, never by a switch.
- Each hop of a redirect is judged anew. It stays with https, and the caller's header fields stay with their origin.
- Bytes, time and hops are bounded; content codings, cookies, netrc and proxies of the environment do not exist here.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from .. import events
from ..errors import ClientError, ConfigurationError, ConnectionFailed, ProtocolViolation, RequestTimeout
from ..policy.limits import Limits, Timeouts
from ..transports.http.url import Endpoint, UrlError, parse_endpoint
from .addresses import is_address, is_public

if TYPE_CHECKING:
    import ssl

    from ..policy.tls import TlsClientConfig

__all__ = ["FetchRefused", "Fetched", "SafeFetch"]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRIED: Final = 4
"""Addresses of one name that are tried."""
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")
_OWN: Final = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "accept-encoding"}
)
_HOST_PORT: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}|\*))?")
_EVERY: Final = 0
"""In place of a port: all of them."""

Resolver = Callable[[str, int], Awaitable[Iterable[str]]]
"""From a host and a port to its numeric addresses. Raises `OSError` where there are none."""


class FetchRefused(ClientError):
    """The address, a redirect or the kind of the answer is not allowed; nothing was sent to where it leads."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, whatever its status."""

    url: str
    """Where it came from, after redirects."""
    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case; repeated fields joined with commas."""
    body: bytes = field(repr=False)

    @property
    def media_type(self) -> str:
        """The media type without its parameters, in lower case; empty where none is said."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class SafeFetch:
    """Fetches from the public Internet, and from what is listed.

    Args:
        hosts: the hosts that may be asked; None for every public one.
        private_hosts: `host`, `host:port` or `host:*` of what may be asked although its address is not public or its
            port not the scheme's own. On loopback, plain http is spoken to them as well.
        max_bytes: most bytes of an answer's body.
        timeout: seconds for all of a fetch: names, connections, redirects and body.
        redirects: hops that a `get` follows at most.
        media_types: the media types that an answer may have; empty for every one.
        tls: whom to believe, in place of the platform's roots.
        resolver: looks up names, in place of the system's resolver.

    Raises:
        ConfigurationError: an argument is not of its form.
    """

    def __init__(
        self,
        *,
        hosts: Iterable[str] | None = None,
        private_hosts: Iterable[str] = (),
        max_bytes: int = 1024 * 1024,
        timeout: float = 10.0,
        redirects: int = 3,
        media_types: Iterable[str] = (),
        tls: TlsClientConfig | ssl.SSLContext | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._hosts = None if hosts is None else frozenset(_host(host, "hosts", port=False)[0] for host in hosts)
        self._private = frozenset(_host(host, "private_hosts") for host in private_hosts)
        if type(max_bytes) is not int or max_bytes < 1:
            raise ConfigurationError("SafeFetch.max_bytes must be a positive integer")
        if not 0 < timeout < float("inf"):
            raise ConfigurationError("SafeFetch.timeout must be a positive number of seconds")
        if type(redirects) is not int or redirects < 0:
            raise ConfigurationError("SafeFetch.redirects must be a number of hops, or 0")
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._redirects = redirects
        self._media_types = frozenset(each.lower() for each in media_types)
        self._tls = tls
        self._context: TlsClientConfig | ssl.SSLContext | None = None
        self._resolve = resolver or _system_resolver

    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        same_origin: bool = False,
        redirects: int | None = None,
    ) -> Fetched:
        """Fetch a URL.

        Args:
            url: where from.
            headers: further header fields. They go to the origin of `url` and to no other one.
            same_origin: follow redirects within the origin only.
            redirects: hops to follow at most, in place of the object's own.

        Returns:
            The answer. With no hops allowed, a redirect is an answer like any other.

        Raises:
            FetchRefused: the address or the way to it is not allowed, or the answer's media type.
            ConnectionFailed, ConnectionLost, RequestTimeout: there is no whole answer.
            ProtocolViolation: the answer is not HTTP/1.1, is compressed, or larger than `max_bytes`.
        """
        most = self._redirects if redirects is None else redirects
        given = _fields(headers)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._follow(self._endpoint(url), given, most, same_origin=same_origin)
        except TimeoutError:
            raise RequestTimeout("GET", self._timeout) from None

    async def post(
        self, url: str, body: bytes, *, media_type: str, headers: Mapping[str, str] | None = None
    ) -> Fetched:
        """Post a body. No redirect is followed: what is posted is for one address.

        Args:
            url: where to.
            body, media_type: what, and what it is.
            headers: further header fields.

        Raises:
            As `get`.
        """
        given = _fields({**(headers or {}), "Content-Type": media_type})
        try:
            async with asyncio.timeout(self._timeout):
                return await self._ask(self._endpoint(url), b"POST", given, body)
        except TimeoutError:
            raise RequestTimeout("POST", self._timeout) from None

    async def _follow(
        self, endpoint: Endpoint, given: tuple[tuple[str, str], ...], most: int, *, same_origin: bool
    ) -> Fetched:
        for left in range(most, -1, -1):
            answer = await self._ask(endpoint, b"GET", given, None)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None or most == 0:
                return answer
            if not left:
                break
            try:
                there = endpoint.join(location)
            except UrlError as exc:
                raise _refused(f"a redirect of {endpoint.origin}: {exc}") from None
            if there.scheme != endpoint.scheme:
                raise _refused(f"{endpoint.origin} redirects to another scheme")
            if there.origin != endpoint.origin:
                if same_origin:
                    raise _refused(f"{endpoint.origin} redirects to another origin")
                given = ()
            endpoint = self._judged(there)
        raise _refused(f"{endpoint.origin}: more than {most} redirects", "SafeFetch.redirects")

    def _endpoint(self, url: str) -> Endpoint:
        try:
            return self._judged(parse_endpoint(url))
        except UrlError as exc:
            raise _refused(str(exc)) from None

    def _judged(self, endpoint: Endpoint) -> Endpoint:
        """Scheme, host and port, before the name is looked up."""
        if self._is_private(endpoint):
            if not endpoint.secure and not endpoint.loopback:
                raise _refused(f"{endpoint.origin}: plain http is for loopback")
            return endpoint
        if not endpoint.secure:
            raise _refused(f"{endpoint.origin}: only https is fetched")
        if self._hosts is not None and endpoint.host not in self._hosts:
            raise _refused(f"{endpoint.origin} is not on the list", "SafeFetch.hosts")
        if endpoint.port != 443:
            raise _refused(f"{endpoint.origin}: only port 443 is asked", "SafeFetch.private_hosts")
        return endpoint

    def _is_private(self, endpoint: Endpoint) -> bool:
        default = 443 if endpoint.secure else 80
        named: set[tuple[str, int | None]] = {(endpoint.host, endpoint.port), (endpoint.host, _EVERY)}
        if endpoint.port == default:
            named.add((endpoint.host, None))
        return not named.isdisjoint(self._private)

    async def _addresses(self, endpoint: Endpoint) -> list[str]:
        """The judged addresses of a host."""
        try:
            numeric = is_address(endpoint.host)
            found = [endpoint.host] if numeric else await self._resolve(endpoint.host, endpoint.port)
            found = list(dict.fromkeys(found))
        except OSError as exc:
            raise ConnectionFailed(f"{endpoint.origin}: {exc.strerror or 'the name is not known'}") from None
        if not found:
            raise ConnectionFailed(f"{endpoint.origin}: the name has no address")
        if not self._is_private(endpoint) and not all(map(is_public, found)):
            raise _refused(f"{endpoint.origin} is at an address that is not public", "SafeFetch.private_hosts")
        return found[:_TRIED]

    async def _ask(
        self, endpoint: Endpoint, method: bytes, given: tuple[tuple[str, str], ...], body: bytes | None
    ) -> Fetched:
        """One request to one of the judged addresses."""
        from ..transports.http.pool import Pool

        failed: ConnectionFailed | None = None
        for address in await self._addresses(endpoint):
            pool = Pool(
                endpoint,
                limits=Limits(),
                timeouts=Timeouts(connect=self._timeout),
                most=1,
                tls=self._trust() if endpoint.secure else None,
                address=address,
            )
            try:
                connection = await pool.connection()
                reading = _Reading(endpoint, self._max_bytes, self._media_types)
                if not connection.send(_request(endpoint, method, given, body), reading):
                    raise ConnectionFailed(f"{endpoint.origin} closed the connection at once")
                return await reading.answer
            except ConnectionFailed as exc:
                failed = exc
            finally:
                pool.close()
        raise failed or ConnectionFailed(endpoint.origin)

    def _trust(self) -> TlsClientConfig | ssl.SSLContext:
        """The context, made once; what has pins is checked by them for each connection."""
        if self._context is None:
            from ..transports.tls import client_context

            tls = self._tls
            self._context = tls if tls is not None and getattr(tls, "pins", ()) else client_context(tls)
        return self._context


class _Reading:
    """Takes one response, up to a number of bytes. A `transports.http.pool.ResponseHandler`."""

    def __init__(self, endpoint: Endpoint, most: int, media_types: frozenset[str]) -> None:
        self.answer: asyncio.Future[Fetched] = asyncio.get_running_loop().create_future()
        self._endpoint = endpoint
        self._most = most
        self._media_types = media_types
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._body = bytearray()

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status
        self._headers = MappingProxyType(dict(headers))
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._most:
            raise self._too_large()
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if 200 <= status < 300 and self._media_types and kind not in self._media_types:
            raise _refused(f"{self._endpoint.origin} answers with another media type", "SafeFetch.media_types")

    def data(self, chunk: bytes) -> None:
        if len(self._body) + len(chunk) > self._most:
            raise self._too_large()
        self._body += chunk

    def _too_large(self) -> ProtocolViolation:
        return ProtocolViolation(f"{self._endpoint.origin}: more than {self._most} bytes (SafeFetch.max_bytes)")

    def done(self) -> None:
        if not self.answer.done():
            url = self._endpoint.origin + self._endpoint.target
            self.answer.set_result(Fetched(url, self._status, self._headers, bytes(self._body)))

    def failed(self, error: ClientError, *, untouched: bool) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


def _refused(text: str, setting: str = "") -> FetchRefused:
    events.record("fetch.refused", text, setting=setting)
    return FetchRefused(f"{text} ({setting})" if setting else text)


def _request(endpoint: Endpoint, method: bytes, given: tuple[tuple[str, str], ...], body: bytes | None) -> bytes:
    names = {name.lower() for name, _ in given}
    fields = [("Host", endpoint.authority), ("Connection", "close"), *given]
    fields += [("Accept", "*/*")] if "accept" not in names else []
    fields += [("User-Agent", "garrison")] if "user-agent" not in names else []
    fields += [("Content-Length", str(len(body)))] if body is not None else []
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, endpoint.target.encode("ascii"), lines, body or b"")


def _fields(headers: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    for name, value in (headers or {}).items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ConfigurationError("headers=: a name or value is none of RFC 9110")
        if name.lower() in _OWN:
            raise ConfigurationError(f"headers=: {name} is set by SafeFetch itself")
    return tuple((headers or {}).items())


def _host(text: str, setting: str, *, port: bool = True) -> tuple[str, int | None]:
    match = _HOST_PORT.fullmatch(text.lower())
    named = match[2] if match is not None else None
    if match is None or (named is not None and not (port and (named == "*" or 0 < int(named) < 65536))):
        forms = ", host:port or host:*" if port else ""
        raise ConfigurationError(f"SafeFetch.{setting}: each is a host{forms}, as in a URL")
    return match[1].strip("[]"), None if named is None else _EVERY if named == "*" else int(named)


async def _system_resolver(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]
