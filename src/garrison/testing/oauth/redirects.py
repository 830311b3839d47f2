"""Redirect URIs: which may be registered, and which is a registered one (RFC 9700 section 4.1, RFC 8252 section 7.3).

Rules of this file:
- Compared as written, character by character. The one freedom is the port of `http://127.0.0.1` and `http://[::1]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlencode

from ...auth.urls import check_url, is_loopback_url

__all__ = ["answer_url", "check_redirect_uri", "is_local", "is_registered", "origin_of"]

_LOOPBACK: Final = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?((?:[/?][!-~]*)?)")
_ORIGIN: Final = re.compile(r"(https?://(?:[A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)(?:[/?][!-~]*)?")
_MOST: Final = 2048


def check_redirect_uri(uri: str) -> None:
    """Whether a program may register it.

    Raises:
        ValueError: it is neither https nor http on loopback, has user information or a fragment, or is too long.
    """
    check_url(uri, "redirect_uri")
    if len(uri) > _MOST or not _ORIGIN.fullmatch(uri):
        raise ValueError("redirect_uri must have a plain host, and no more than 2048 characters")


def origin_of(uri: str) -> str:
    """Scheme, host and port as written. Safe inside a header field: letters, digits and `.-:[]/`.

    Raises:
        ValueError: it has none.
    """
    match = _ORIGIN.fullmatch(uri)
    if match is None:
        raise ValueError("redirect_uri has no plain host")
    return match[1]


def is_registered(asked: str, registered: Iterable[str]) -> bool:
    """Whether a redirect URI is one of those that were registered."""
    for uri in registered:
        if asked == uri:
            return True
        here, there = _LOOPBACK.fullmatch(asked), _LOOPBACK.fullmatch(uri)
        if here is not None and there is not None and here.groups() == there.groups():
            return True
    return False


def is_local(uri: str) -> bool:
    """Whether the answer stays on the person's own machine, where every program may be at the port."""
    return is_loopback_url(uri)


def answer_url(uri: str, members: dict[str, str]) -> str:
    """The redirect URI with the members of an answer (RFC 6749 section 4.1.2)."""
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(members)}"
