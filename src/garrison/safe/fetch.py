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
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError, ConnectionFailed, RequestTimeout
from ..policy.limits import Limits, Timeouts
from ..transports.http.url import Endpoint, UrlError, parse_endpoint
from .addresses import is_address, is_public
from .fetch_answers import Fetched, FetchRefused, FetchStream, Reading, refused

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator

    from ..policy.tls import TlsClientConfig

__all__ = ["FetchRefused", "FetchStream", "Fetched", "SafeFetch"]

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
_NOT_PUBLIC: Final = "the host is at an address that is not public"

Resolver = Callable[[str, int], Awaitable[Iterable[str]]]
"""From a host and a port to its numeric addresses. Raises `OSError` where there are none."""


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
        deadline = self._deadline()
        stream = await self._get(url, headers, deadline, same_origin=same_origin, redirects=redirects)
        try:
            return await self._whole(stream)
        finally:
            stream.close()

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        same_origin: bool = False,
        redirects: int | None = None,
    ) -> AsyncGenerator[FetchStream, None]:
        """Fetch a URL and read its body as it comes. The connection ends with the block.

            async with fetch.stream(url) as answer:
                async for chunk in answer: ...

        Args:
            url, headers, same_origin, redirects: as for `get`.

        Raises:
            As `get`; for the body, from the iteration. `timeout` and `max_bytes` hold over all of it.
        """
        deadline = self._deadline()
        stream = await self._get(url, headers, deadline, same_origin=same_origin, redirects=redirects)
        try:
            yield stream
        finally:
            stream.close()

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
        deadline = self._deadline()
        try:
            async with asyncio.timeout_at(deadline):
                stream = await self._ask(self._endpoint(url), b"POST", given, body, deadline)
        except TimeoutError:
            raise RequestTimeout("POST", self._timeout) from None
        try:
            return await self._whole(stream)
        finally:
            stream.close()

    def problem(self, url: str) -> str:
        """Why a URL is refused before anything is looked up: its form, scheme, host and port. Empty if it is not.

        What `get` does not refuse may still lead to an address that it does.
        """
        try:
            endpoint = parse_endpoint(url)
        except UrlError as exc:
            return str(exc)
        rule, setting = self._rule(endpoint)
        return f"{rule} ({setting})" if setting else rule

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout

    async def _whole(self, stream: FetchStream) -> Fetched:
        return Fetched(stream.url, stream.status, stream.headers, await stream.read())

    async def _get(
        self,
        url: str,
        headers: Mapping[str, str] | None,
        deadline: float,
        *,
        same_origin: bool,
        redirects: int | None,
    ) -> FetchStream:
        """The last answer of the way, its body not read yet."""
        most = self._redirects if redirects is None else redirects
        given = _fields(headers)
        try:
            async with asyncio.timeout_at(deadline):
                return await self._follow(self._endpoint(url), given, most, deadline, same_origin=same_origin)
        except TimeoutError:
            raise RequestTimeout("GET", self._timeout) from None

    async def _follow(
        self,
        endpoint: Endpoint,
        given: tuple[tuple[str, str], ...],
        most: int,
        deadline: float,
        *,
        same_origin: bool,
    ) -> FetchStream:
        for left in range(most, -1, -1):
            stream = await self._ask(endpoint, b"GET", given, None, deadline)
            location = stream.headers.get("location")
            if stream.status not in _REDIRECTS or location is None or most == 0:
                return stream
            stream.close()
            if not left:
                break
            try:
                there = endpoint.join(location)
            except UrlError as exc:
                raise refused(endpoint.origin, f"a redirect: {exc}") from None
            if there.scheme != endpoint.scheme:
                raise refused(endpoint.origin, "a redirect to another scheme")
            if there.origin != endpoint.origin:
                if same_origin:
                    raise refused(endpoint.origin, "a redirect to another origin")
                given = ()
            endpoint = self._judged(there)
        raise refused(endpoint.origin, f"more than {most} redirects", "SafeFetch.redirects")

    def _endpoint(self, url: str) -> Endpoint:
        try:
            return self._judged(parse_endpoint(url))
        except UrlError as exc:
            raise refused("", str(exc)) from None

    def _judged(self, endpoint: Endpoint) -> Endpoint:
        rule, setting = self._rule(endpoint)
        if rule:
            raise refused(endpoint.origin, rule, setting)
        return endpoint

    def _rule(self, endpoint: Endpoint) -> tuple[str, str]:
        """The rule that scheme, host or port break, and its setting, before the name is looked up."""
        if self._is_private(endpoint):
            return ("", "") if endpoint.secure or endpoint.loopback else ("plain http is for loopback", "")
        if not endpoint.secure:
            return "only https is fetched", ""
        if self._hosts is not None and endpoint.host not in self._hosts:
            return "the host is not on the list", "SafeFetch.hosts"
        if endpoint.port != 443:
            return "only port 443 is asked", "SafeFetch.private_hosts"
        if is_address(endpoint.host) and not is_public(endpoint.host):
            return _NOT_PUBLIC, "SafeFetch.private_hosts"
        return "", ""

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
            raise refused(endpoint.origin, _NOT_PUBLIC, "SafeFetch.private_hosts")
        return found[:_TRIED]

    async def _ask(
        self,
        endpoint: Endpoint,
        method: bytes,
        given: tuple[tuple[str, str], ...],
        body: bytes | None,
        deadline: float,
    ) -> FetchStream:
        """One request to one of the judged addresses, up to the head of its answer."""
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
            reading = Reading(endpoint.origin, self._max_bytes, self._media_types)
            try:
                connection = await pool.connection()
                if not connection.send(_request(endpoint, method, given, body), reading):
                    raise ConnectionFailed(f"{endpoint.origin} closed the connection at once")
                await reading.begin()
            except ConnectionFailed as exc:
                failed = exc
                pool.close()
            except BaseException:  # the connection must not outlive the attempt
                pool.close()
                raise
            else:
                url = endpoint.origin + endpoint.target
                return FetchStream(url, reading, pool, method.decode(), deadline=deadline, seconds=self._timeout)
        raise failed or ConnectionFailed(endpoint.origin)

    def _trust(self) -> TlsClientConfig | ssl.SSLContext:
        """The context, made once; what has pins is checked by them for each connection."""
        if self._context is None:
            from ..transports.tls import client_context

            tls = self._tls
            self._context = tls if tls is not None and getattr(tls, "pins", ()) else client_context(tls)
        return self._context


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
