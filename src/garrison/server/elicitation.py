"""Questions to the user: forms and web pages, with the checks of their answers.

Spec: 2026-07-28 client/elicitation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from ..errors import ConfigurationError
from ..protocol.schema import Schema, SchemaError
from .ask import Question

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["form_question", "url_question"]

_ACTIONS: Final = frozenset({"accept", "decline", "cancel"})


def form_question(
    message: str, schema: type[object] | dict[str, object]
) -> tuple[Question, Callable[[dict[str, object]], object]]:
    """The question, and the function that makes the handler's value of an accepted answer."""
    from .forms import check_form, elicit_schema, elicit_value

    if isinstance(schema, dict):
        check_form(schema)
        requested = schema

        def build(content: dict[str, object]) -> object:
            return content
    else:
        form = schema
        requested = elicit_schema(form)

        def build(content: dict[str, object]) -> object:
            return elicit_value(form, content)

    try:
        validator = Schema(requested)
    except SchemaError as exc:
        raise ConfigurationError(f"elicit: {exc}") from exc

    def check(answer: dict[str, object]) -> str | None:
        action = answer.get("action")
        if action not in _ACTIONS:
            return "unknown action"
        if action != "accept":
            return None
        content = answer.get("content")
        if type(content) is not dict:
            return "accepted without content"
        problems = validator.problems(cast("dict[str, object]", content))
        return "; ".join(problems) or None

    params: dict[str, object] = {"mode": "form", "message": message, "requestedSchema": requested}
    return Question("elicit", "elicitation/create", params, ("elicitation", "form"), check), build


def url_question(message: str, url: str) -> Question:
    """The question to open a page.

    Raises:
        ConfigurationError: not an absolute http(s) URL.
    """
    from ..protocol.uri import UriError, parse_uri

    try:
        parsed = parse_uri(url)
    except UriError as exc:
        raise ConfigurationError(f"elicit_url: {exc}") from exc
    if parsed.scheme not in ("https", "http") or not parsed.authority:
        raise ConfigurationError("elicit_url: the URL must be absolute, https or http")

    def check(answer: dict[str, object]) -> str | None:
        return None if answer.get("action") in _ACTIONS else "unknown action"

    params: dict[str, object] = {"mode": "url", "message": message, "url": url}
    return Question("elicit_url", "elicitation/create", params, ("elicitation", "url"), check)
