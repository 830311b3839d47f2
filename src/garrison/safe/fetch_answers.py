"""What comes of a fetch: a whole answer, or one whose body is read as it comes; and the error where none may.

Rules of this file:
- Bytes are counted as they come, whatever the head says; the one past the cap ends the connection.
- Text is what its charset says, strictly. A charset that hides markup from who looks at the bytes (UTF-7) is none.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from .. import events
from ..errors import ClientError, ProtocolViolation, RequestTimeout, ToolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..gate.untrusted import Untrusted
    from ..transports.http.pool import Pool

__all__ = ["FetchRefused", "FetchStream", "Fetched", "Reading", "refused"]

_CHARSET: Final = re.compile(r";[ \t]*charset[ \t]*=[ \t]*(?:\"([^\"]*)\"|([^\s;\"]*))", re.IGNORECASE)
_CHARSETS: Final = re.compile(
    r"utf-?8|us-ascii|iso-8859-(?:[1-9]|1[013-6])|windows-125[0-8]|utf-16(?:le|be)?|koi8-[ru]|shift_jis|euc-(?:jp|kr)"
    r"|gb2312|gbk|gb18030|big5",
    re.IGNORECASE,
)


class FetchRefused(ClientError, ToolError):
    """The address, a redirect or the kind of the answer is not allowed; nothing was sent to where it leads.

    The message says which rule it breaks, and names no address; the security event does.
    """


def refused(where: str, rule: str, setting: str = "") -> FetchRefused:
    """The error for an address, after its security event."""
    events.record("fetch.refused", f"{where}: {rule}" if where else rule, setting=setting)
    return FetchRefused(f"The address was refused: {rule}" + (f" ({setting})" if setting else ""))


def media_type(headers: Mapping[str, str]) -> str:
    """The media type without its parameters, in lower case; empty where none is said."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


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
        return media_type(self.headers)

    @property
    def text(self) -> str:
        """The body as text: in the charset that the answer names, else in UTF-8; a byte order mark is left out.

        Raises:
            ProtocolViolation: the body is not text of that charset, or the charset is not one of the Web's.
        """
        found = _CHARSET.search(self.headers.get("content-type", ""))
        charset = "utf-8" if found is None else (found[1] or found[2] or "")
        if _CHARSETS.fullmatch(charset) is None:
            raise ProtocolViolation("The answer's charset is not one that is read")
        try:
            text = self.body.decode(charset)
        except UnicodeDecodeError:
            raise ProtocolViolation("The answer is not text of its charset") from None
        return text.removeprefix("\ufeff")

    @property
    def untrusted(self) -> Untrusted[str]:
        """`text` as the words of where it came from. Its source is `url` without the query.

        Raises:
            ProtocolViolation: as `text`.
        """
        from ..gate.untrusted import Untrusted

        return Untrusted(self.text, source=self.url.partition("?")[0])


class Reading:
    """Takes one response, up to a number of bytes. A `transports.http.pool.ResponseHandler`."""

    def __init__(self, origin: str, most: int, media_types: frozenset[str]) -> None:
        self.status = 0
        """0 until the head came."""
        self.headers: Mapping[str, str] = {}
        self._origin = origin
        self._left = self._most = most
        self._media_types = media_types
        self._chunks: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._done = False
        self._error: ClientError | None = None

    async def begin(self) -> None:
        """Wait for the head. Raises `ClientError`."""
        while not self.status:
            await self._wait()

    async def next(self) -> bytes:
        """The next bytes of the body; none at its end. Raises `ClientError`."""
        while not self._chunks:
            if self._done:
                return b""
            await self._wait()
        return self._chunks.popleft()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._news.clear()
        await self._news.wait()

    # What the connection calls.

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._most:
            raise self._too_large()
        if 200 <= status < 300 and self._media_types and media_type(headers) not in self._media_types:
            raise refused(self._origin, "the answer is of another media type", "SafeFetch.media_types")
        self.status = status
        self.headers = MappingProxyType(dict(headers))
        self._news.set()

    def data(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            raise self._too_large()
        self._chunks.append(chunk)
        self._news.set()

    def _too_large(self) -> ProtocolViolation:
        return ProtocolViolation(f"{self._origin}: more than {self._most} bytes (SafeFetch.max_bytes)")

    def done(self) -> None:
        self._done = True
        self._news.set()

    def failed(self, error: ClientError, *, untouched: bool) -> None:
        self._error = error
        self._news.set()


class FetchStream:
    """An answer whose head came, and whose body is read as it comes. Made by `SafeFetch.stream`.

    Its chunks are read once, by `async for` or by `read`. What comes faster than it is read waits in memory, up to
    `SafeFetch.max_bytes`.
    """

    __slots__ = ("_deadline", "_method", "_pool", "_reading", "_seconds", "headers", "status", "url")

    def __init__(self, url: str, reading: Reading, pool: Pool, method: str, *, deadline: float, seconds: float) -> None:
        self.url = url
        """Where it comes from, after redirects."""
        self.status = reading.status
        self.headers = reading.headers
        """Names in lower case; repeated fields joined with commas."""
        self._reading = reading
        self._pool = pool
        self._method = method
        self._deadline = deadline
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"FetchStream(url={self.url!r}, status={self.status})"

    @property
    def media_type(self) -> str:
        """The media type without its parameters, in lower case; empty where none is said."""
        return media_type(self.headers)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, chunk by chunk.

        Raises:
            ConnectionLost, RequestTimeout: it did not come to its end; time that passes between chunks counts too.
            ProtocolViolation: it is larger than `SafeFetch.max_bytes`, or breaks HTTP.
        """
        while chunk := await self._next():
            yield chunk

    async def read(self) -> bytes:
        """The rest of the body. Raises as the chunks do."""
        chunks: list[bytes] = []
        while chunk := await self._next():
            chunks.append(chunk)
        return b"".join(chunks)

    def close(self) -> None:
        """End the connection; what was not read is lost."""
        self._pool.close()

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._reading.next()
        except TimeoutError:
            raise RequestTimeout(self._method, self._seconds) from None
