"""What endpoints read and answer: parameters, scopes, JSON documents, errors.

Rules of this file:
- A parameter stands once (RFC 6749 section 3.1). One that is empty is not there.
- An error is an OAuth error code and a description without anything that was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from ...auth.errors import OAuthError
from ...policy.limits import Limits
from ...protocol.json import decoder
from .http import Reply, Request

__all__ = ["Refusal", "document", "form", "json_reply", "parameters", "scope_words"]

_FIELDS: Final = 64
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")

document = decoder(Limits(json_depth=16, json_nodes=10_000, json_members=1_000, json_items=2_000))
"""A JSON text of a peer as a value. Raises `ParseError`."""


class Refusal(Exception):
    """The request is refused (RFC 6749 sections 4.1.2.1 and 5.2).

    Args:
        error: an `OAuthError`, or another code.
        description: what is wrong, for developers.
        status: of HTTP; where it is not given, 401 for `invalid_client` and 400 for all others.
        headers: further fields of the answer.
    """

    def __init__(
        self, error: str, description: str, *, status: int | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(f"{error}: {description}")
        self.error = str(error)
        self.description = description
        self.status = status or (401 if error == OAuthError.INVALID_CLIENT else 400)
        self.headers = headers

    def reply(self) -> Reply:
        """The answer of an endpoint that programs ask."""
        members = {"error": self.error, "error_description": self.description}
        return json_reply(members, status=self.status, headers=self.headers)


def json_reply(members: object, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """A JSON document that nobody keeps (RFC 6749 section 5.1)."""
    fields = (("Content-Type", "application/json"), ("Cache-Control", "no-store"), ("Pragma", "no-cache"), *headers)
    return Reply(status, msgspec.json.encode(members), fields)


def parameters(text: str) -> Mapping[str, str]:
    """The members of a query or form.

    Raises:
        Refusal: one stands twice, or they are not of `application/x-www-form-urlencoded` in UTF-8.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
    except ValueError:
        raise Refusal(OAuthError.INVALID_REQUEST, "parameters that are not form-encoded UTF-8, or too many") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            code = OAuthError.INVALID_TARGET if name == "resource" else OAuthError.INVALID_REQUEST
            raise Refusal(code, "a parameter stands twice")
        found[name] = value
    return {name: value for name, value in found.items() if value}


def form(request: Request) -> Mapping[str, str]:
    """The members of a posted form.

    Raises:
        Refusal: it is none.
    """
    if request.method != "POST":
        raise Refusal(OAuthError.INVALID_REQUEST, "only POST is served here", status=405, headers=(("Allow", "POST"),))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(OAuthError.INVALID_REQUEST, "the body must be application/x-www-form-urlencoded")
    try:
        return parameters(request.body.decode("ascii"))
    except UnicodeDecodeError:
        raise Refusal(OAuthError.INVALID_REQUEST, "the body is not form-encoded") from None


def scope_words(text: str | None) -> tuple[str, ...]:
    """The scopes of a `scope` parameter, each once.

    Raises:
        Refusal: it is not of RFC 6749 section 3.3.
    """
    if text is None:
        return ()
    if not _SCOPE.fullmatch(text):
        raise Refusal(OAuthError.INVALID_SCOPE, "scope: words with one space between them")
    return tuple(dict.fromkeys(text.split(" ")))
