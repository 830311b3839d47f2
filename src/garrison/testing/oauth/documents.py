"""Client id metadata documents: a client that is known by the URL of a document about it (MCP authorization, SEP-991).

Rules of this file:
- Documents are fetched by `SafeFetch`, without redirects, `MAX_BYTES` at most, and kept as long as they say, an hour at
  most. Loopback is allowed, since this server is for development; every other private address is not.
- What the document says of itself has to be the URL it was found at, character by character.
- A document is public, so nothing in it is a secret: its client proves itself by keys, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlsplit

from ...auth.urls import check_url, is_loopback_url
from ...errors import ClientError, ParseError
from ...safe.fetch import SafeFetch
from .people import DevClient
from .redirects import check_redirect_uri
from .wire import document

__all__ = ["MAX_BYTES", "DocumentRefused", "Documents", "is_document_url"]

MAX_BYTES: Final = 5 * 1024
_KEPT: Final = 3600.0
_MOST: Final = 1_000
_AGE: Final = re.compile(r"max-age=([0-9]{1,9})")
_PATH: Final = re.compile(r"/[!-~]+")


class DocumentRefused(ValueError):
    """The document cannot be used. The message names the rule, and repeats nothing of it."""


def is_document_url(client_id: str) -> bool:
    """Whether a client id is the URL of a document: https (or loopback), with a path, and no `.`, `..`, `#`, `@`."""
    try:
        uri = check_url(client_id, "client_id")
    except ValueError:
        return False
    segments = uri.path.lower().replace("%2e", ".").split("/")
    return bool(_PATH.fullmatch(uri.path)) and "." not in segments and ".." not in segments


class Documents:
    """Fetches and keeps documents.

    Args:
        clock: the time, in seconds of `time.time`.
        seconds: for one fetch.
    """

    def __init__(self, clock: Callable[[], float], seconds: float = 5.0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._kept: dict[str, tuple[DevClient, float]] = {}

    async def client(self, client_id: str) -> DevClient:
        """The client that a document is about.

        Raises:
            DocumentRefused: it cannot be had, or says something that it must not.
        """
        found = self._kept.get(client_id)
        if found is not None and found[1] > self._clock():
            return found[0]
        body, control = await self._fetch(client_id)
        client = await self._read(client_id, body)
        age = _AGE.search(control)
        seconds = 0.0 if "no-store" in control else min(_KEPT, float(age[1])) if age else _KEPT
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[client_id] = (client, self._clock() + seconds)
        return client

    async def _fetch(self, url: str) -> tuple[bytes, str]:
        private = [urlsplit(url).netloc] if is_loopback_url(url) else []
        fetch = SafeFetch(private_hosts=private, max_bytes=MAX_BYTES, timeout=self._seconds, redirects=0)
        try:
            got = await fetch.get(url, headers={"Accept": "application/json"})
        except ClientError as exc:
            raise DocumentRefused(f"the document cannot be fetched: {type(exc).__name__}") from None
        if got.status != 200:
            raise DocumentRefused(f"the document answers {got.status}, not 200")
        if got.media_type != "application/json" and not got.media_type.endswith("+json"):
            raise DocumentRefused("the document is not application/json")
        return got.body, got.headers.get("cache-control", "").lower()

    async def _read(self, url: str, body: bytes) -> DevClient:
        try:
            value = document(body)
        except ParseError:
            raise DocumentRefused("the document is not strict JSON") from None
        if not isinstance(value, dict):
            raise DocumentRefused("the document is no JSON object")
        members = cast("dict[str, object]", value)
        if members.get("client_id") != url:
            raise DocumentRefused("client_id in the document is not its own URL")
        name, uris = members.get("client_name"), members.get("redirect_uris")
        method = members.get("token_endpoint_auth_method", "none")
        if not isinstance(name, str) or not name:
            raise DocumentRefused("client_name is missing")
        if "client_secret" in members or method not in ("none", "private_key_jwt"):
            raise DocumentRefused("token_endpoint_auth_method must be none or private_key_jwt, without a secret")
        return DevClient(
            url,
            redirect_uris=_redirect_uris(uris),
            jwks=await self._keys(members) if method == "private_key_jwt" else None,
            name=name,
            method=str(method),
            grants=("authorization_code", "refresh_token"),
            from_document=True,
        )

    async def _keys(self, members: dict[str, object]) -> dict[str, object]:
        keys, where = members.get("jwks"), members.get("jwks_uri")
        if isinstance(where, str) and keys is None and is_document_url(where):
            body, _ = await self._fetch(where)
            try:
                keys = document(body)
            except ParseError:
                keys = None
        if not isinstance(keys, dict):
            raise DocumentRefused("private_key_jwt needs jwks or jwks_uri")
        return cast("dict[str, object]", keys)


def _redirect_uris(uris: object) -> tuple[str, ...]:
    listed = cast("list[object]", uris) if isinstance(uris, list) else []
    if not listed:
        raise DocumentRefused("redirect_uris is missing")
    for uri in listed:
        try:
            check_redirect_uri(uri if isinstance(uri, str) else "")
        except ValueError as exc:
            raise DocumentRefused(f"redirect_uris: {exc}") from None
    return tuple(str(uri) for uri in listed)
