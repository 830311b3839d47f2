"""`FetchUrl`: a URL as a parameter of a tool, bound to the `SafeFetch` that may ask it.

    web = SafeFetch(hosts=["api.example.com"])

    class Page(FetchUrl, fetch=web):
        "A page of the API."

    @server.tool()
    async def read(page: Page) -> str:
        return (await page.get()).text

Rules of this file:
- When arguments are checked, the URL is judged by its text alone: form, scheme, host and port. Nothing is looked up.
- It is no `str`, so that it is fetched by a `SafeFetch` and handed to nothing else by mistake.
- What becomes of a fetch is told in words that hold nothing of the address or the answer.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from ..errors import (
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    ProtocolViolation,
    RequestTimeout,
    ToolError,
)
from ..transports.http.url import UrlError, parse_endpoint
from .fetch_answers import Fetched, FetchRefused, FetchStream
from .parameter import Parameter, ParameterError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping
    from typing import ClassVar, Self

    from .fetch import SafeFetch

__all__ = ["FetchUrl"]

_LONGEST: Final = 2048


class FetchUrl(Parameter):
    """An absolute URL that may be fetched.

    Args:
        text: the URL.

    Raises:
        ParameterError: it is no URL, or one that the `SafeFetch` it is bound to refuses by its text.

    A subclass made with `fetch=` is bound: `get` and `stream` fetch with that object. Of one that is not bound, the
    form alone is judged; `await web.get(str(url))` fetches it.
    """

    _fetch: ClassVar[SafeFetch | None] = None
    __slots__ = ("_text",)

    def __init_subclass__(cls, *, fetch: SafeFetch | None = None, **more: object) -> None:
        super().__init_subclass__(**more)
        if fetch is not None:
            cls._fetch = fetch

    def __init__(self, text: str) -> None:
        problem = _problem(text) if self._fetch is None else self._fetch.problem(text)
        if problem:
            raise ParameterError(f"is not a URL that may be fetched: {problem}")
        self._text = text

    @classmethod
    def json_schema(cls) -> dict[str, object]:
        """A string of at most 2048 characters that is a URI."""
        return {"type": "string", "format": "uri", "minLength": 1, "maxLength": _LONGEST}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The URL that a string is. Raises `ParameterError`."""
        if not isinstance(value, str):
            raise ParameterError("is not a URL")
        return cls(value)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._text!r})"

    def __eq__(self, other: object) -> bool:
        """Whether both are the same text."""
        return self._text == other._text if isinstance(other, FetchUrl) else NotImplemented

    def __hash__(self) -> int:
        return hash((FetchUrl, self._text))

    async def get(self, *, headers: Mapping[str, str] | None = None) -> Fetched:
        """Fetch it. See `SafeFetch.get`.

        Raises:
            FetchRefused: where it leads is not allowed.
            ToolError: there is no whole answer; the model reads why, in constant words.
            ConfigurationError: the class is bound to no `SafeFetch`.
        """
        with _told():
            return await self._bound().get(self._text, headers=headers)

    @asynccontextmanager
    async def stream(self, *, headers: Mapping[str, str] | None = None) -> AsyncGenerator[FetchStream, None]:
        """Fetch it and read the body as it comes. See `SafeFetch.stream`; raises as `get`."""
        with _told():
            async with self._bound().stream(self._text, headers=headers) as answer:
                yield answer

    @classmethod
    def _bound(cls) -> SafeFetch:
        if cls._fetch is None:
            raise ConfigurationError(
                f"{cls.__name__} is bound to no SafeFetch: class Page(FetchUrl, fetch=web), or web.get(str(url))"
            )
        return cls._fetch


def _problem(text: str) -> str:
    try:
        parse_endpoint(text)
    except UrlError as exc:
        return str(exc)
    return ""


@contextmanager
def _told() -> Generator[None, None, None]:
    """Errors of the way as words for the model."""
    try:
        yield
    except FetchRefused:
        raise
    except RequestTimeout as exc:
        raise ToolError("The address did not answer in time") from exc
    except ProtocolViolation as exc:
        raise ToolError("The answer is too large, compressed, or not HTTP") from exc
    except (ConnectionFailed, ConnectionLost) as exc:
        raise ToolError("The address could not be reached, or the connection broke") from exc
