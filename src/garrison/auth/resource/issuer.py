"""What an issuer publishes of itself: fetched, and taken only in the form that its RFC gives it.

Rules of this file:
- No redirect is followed: what decides who is let in comes from the address that was asked, or from nowhere.
- The hosts that the operator named may be at private addresses, as an authorization server inside a company is. Those
  that a document names may not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ..metadata import MAX_BYTES, AuthorizationServerMetadata
from ..urls import authorization_server_urls, check_url

if TYPE_CHECKING:
    from ...safe.fetch import Fetched, SafeFetch

__all__ = ["DocumentError", "document_of", "fetch_document", "issuer_fetch", "issuer_metadata"]

_SECONDS: Final = 5.0
_JSON: Final = re.compile(r"application/(?:[a-z0-9!#$&^_.-]++\+)?json")


class DocumentError(ValueError):
    """What an issuer published cannot be used. The message repeats nothing of it."""


def issuer_fetch(*urls: str | None) -> SafeFetch:
    """The fetcher that is used where none is given.

    Args:
        urls: the addresses in the operator's settings.

    Raises:
        ConfigurationError: one has no host.
    """
    from ...safe.fetch import SafeFetch

    hosts = [check_url(url, "url").authority or "" for url in urls if url is not None]
    return SafeFetch(private_hosts=hosts, max_bytes=MAX_BYTES, timeout=_SECONDS, redirects=0)


def document_of(answer: Fetched) -> bytes:
    """The JSON document in an answer.

    Raises:
        DocumentError: the answer is not a 200 with one.
    """
    if answer.status != 200:
        raise DocumentError(f"the answer has status {answer.status}")
    if not _JSON.fullmatch(answer.media_type):
        raise DocumentError("the answer is not JSON")
    if len(answer.body) > MAX_BYTES:
        raise DocumentError(f"the answer has more than {MAX_BYTES} bytes")
    return answer.body


async def fetch_document(fetch: SafeFetch, url: str) -> bytes:
    """A JSON document of an issuer.

    Raises:
        ClientError: there is no answer.
        DocumentError: it is not a JSON document.
    """
    return document_of(await fetch.get(url, headers={"Accept": "application/json"}, redirects=0))


async def issuer_metadata(fetch: SafeFetch, issuer: str) -> AuthorizationServerMetadata:
    """The metadata of an issuer (RFC 8414 section 3, OpenID Connect Discovery section 4).

    Raises:
        ClientError: there is no answer.
        DocumentError: none of its well-known addresses has the metadata of this issuer.
    """
    problem = ""
    for url in authorization_server_urls(issuer):
        try:
            return AuthorizationServerMetadata.read(await fetch_document(fetch, url), issuer)
        except ValueError as exc:
            problem = str(exc)
    raise DocumentError(f"no metadata of the issuer was found; the last place: {problem}")
