"""What a server may ask this client, and who answers: elicitation, sampling, roots.

Rules of this file:
- A capability is declared exactly when its handler is given.
- A question is read into its type before the handler sees it, and the handler's answer is read into its type before it
  is sent; neither side passes anything through.
- Questions of one round run side by side, at most `Limits.in_flight`, each bounded by `Timeouts.ask`.

Spec: 2026-07-28 client/elicitation, client/sampling, client/roots, basic/patterns/mrtr.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from .. import events
from ..errors import ConfigurationError, InputDeclined
from ..protocol import types as t
from .words import refused, said

if TYPE_CHECKING:
    from ..policy import Timeouts

__all__ = ["Answers", "ElicitHandler", "RootsHandler", "SampleHandler", "accept_defaults"]

T = TypeVar("T")

ElicitAnswer = t.ElicitResult | Mapping[str, object]
SampleAnswer = t.CreateMessageResult | Mapping[str, object]
Roots = Sequence[t.Root | str]

ElicitHandler = Callable[[t.ElicitFormParams | t.ElicitUrlParams], ElicitAnswer | Awaitable[ElicitAnswer]]
SampleHandler = Callable[[t.CreateMessageParams], SampleAnswer | Awaitable[SampleAnswer]]
RootsHandler = Callable[[], Roots | Awaitable[Roots]] | Roots

_SETTINGS = {"elicitation/create": "on_elicit", "sampling/createMessage": "on_sample", "roots/list": "on_roots"}
_URL_MODE_SINCE = "2025-11-25"
_ELICITATION_SINCE = "2025-06-18"


def accept_defaults(params: t.ElicitFormParams | t.ElicitUrlParams) -> t.ElicitResult:
    """An elicitation handler that accepts with the defaults of the form.

    Returns:
        `accept` with every default; `decline` for a URL, and for a form with a required field that has no default.
    """
    if isinstance(params, t.ElicitUrlParams):
        return t.ElicitResult(action="decline")
    schema = params.requested_schema
    content: dict[str, object] = {}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        for name, rule in cast("dict[str, object]", properties).items():
            if isinstance(rule, dict) and "default" in rule:
                content[name] = cast("dict[str, object]", rule)["default"]
    required = schema.get("required")
    if isinstance(required, list) and not content.keys() >= set(cast("list[str]", required)):
        return t.ElicitResult(action="decline")
    return t.convert({"action": "accept", "content": content}, t.ElicitResult)


class Answers:
    """The handlers of one client.

    Args:
        on_elicit: answers forms and URLs for the user.
        on_sample: lets a language model write a message.
        on_roots: the roots, or what returns them; each a `Root`, a `file://` URI or a path.
        timeouts: `ask` bounds one answer.
        most: questions of one round.
    """

    def __init__(
        self,
        *,
        on_elicit: ElicitHandler | None,
        on_sample: SampleHandler | None,
        on_roots: RootsHandler | None,
        timeouts: Timeouts,
        most: int = 128,
    ) -> None:
        self._elicit = on_elicit
        self._sample = on_sample
        self._roots = on_roots
        self._patience = timeouts.ask
        self._most = most

    def capabilities(self, version: str, *, modern: bool) -> dict[str, object]:
        """The capabilities as declared in one revision."""
        declared: dict[str, object] = {}
        if self._elicit is not None and version >= _ELICITATION_SINCE:
            declared["elicitation"] = {"form": {}, "url": {}} if version >= _URL_MODE_SINCE else {}
        if self._sample is not None:
            declared["sampling"] = {}
        if self._roots is not None:
            declared["roots"] = {} if modern else {"listChanged": True}
        return declared

    def has(self, method: str) -> bool:
        """True when there is a handler for this question."""
        handler = {
            "elicitation/create": self._elicit,
            "sampling/createMessage": self._sample,
            "roots/list": self._roots,
        }
        return handler.get(method) is not None

    def undeclared(self, method: str) -> None:
        """Record that a server asked for what it was told that nobody answers."""
        setting = _SETTINGS.get(method, "")
        text = f"The server asked for {said(method, 64)}, which was not declared"
        events.record("response.refused", text, setting=setting, about=events.Event("response.refused", method=method))

    async def all(self, requests: Mapping[str, object]) -> dict[str, object]:
        """Answers the questions of one round, by key.

        Raises:
            InputDeclined: there is no handler for one of them; then none is asked.
            ProtocolViolation: a question is not what the protocol allows.
        """
        if len(requests) > self._most:
            raise refused(f"The server asked more than {self._most} questions at once", setting="Limits.in_flight")
        questions: list[tuple[str, str, object]] = []
        for key, request in requests.items():
            fields = cast("dict[str, object]", request) if isinstance(request, dict) else {}
            method = fields.get("method")
            if not isinstance(method, str) or method not in t.ANSWERS:
                raise refused(f"inputRequests.{said(key, 64)}: not a question that a server may ask")
            if not self.has(method):
                self.undeclared(method)
                raise InputDeclined(f"The server asked for {method}, and this client has no handler for it")
            questions.append((key, method, fields.get("params", {})))
        tasks = [asyncio.ensure_future(self.one(method, params)) for _, method, params in questions]
        try:
            answers = await asyncio.gather(*tasks)
        except BaseException:  # the other questions must not outlive the round, whatever ended it
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        return {key: answer for (key, _, _), answer in zip(questions, answers, strict=True)}

    async def one(self, method: str, params: object, version: str = _URL_MODE_SINCE) -> dict[str, object]:
        """Answers one question.

        Args:
            method, params: the question.
            version: the revision it came in, which says what was declared.

        Raises:
            InputDeclined: there is no handler for it, or the handler took longer than `Timeouts.ask`.
            ProtocolViolation: the question is not what the protocol allows, or needs what was not declared.
            ConfigurationError: the handler's answer is not one.
        """
        try:
            async with asyncio.timeout(self._patience):
                return await self._one(method, params, version)
        except TimeoutError:
            raise InputDeclined(f"{method} was not answered within {self._patience:g} s") from None

    async def _one(self, method: str, params: object, version: str) -> dict[str, object]:
        if method == "elicitation/create" and self._elicit is not None:
            question = _read(method, params, t.ElicitParams)
            form = cast("t.ElicitFormParams | t.ElicitUrlParams", question)
            if isinstance(form, t.ElicitUrlParams) and version < _URL_MODE_SINCE:
                raise refused(f"{method}: elicitation.url was not declared", method=method)
            return _answer(method, await _value(self._elicit(form)))
        if method == "sampling/createMessage" and self._sample is not None:
            wanted = _read(method, params, t.CreateMessageParams)
            if wanted.tools is not None or wanted.tool_choice is not None:
                raise refused(f"{method}: sampling.tools was not declared", method=method)
            return _answer(method, await _value(self._sample(wanted)))
        if method == "roots/list" and self._roots is not None:
            roots = cast("Roots", await _value(self._roots())) if callable(self._roots) else self._roots
            return _answer(method, t.ListRootsResult(roots=[_root(root) for root in roots]))
        raise InputDeclined(f"The server asked for {method}, and this client has no handler for it")


def _read(method: str, params: object, kind: type[T]) -> T:
    try:
        return t.convert(params, kind)
    except msgspec.ValidationError as exc:
        raise refused(f"{method}: {said(exc)}", method=method) from None


async def _value(answer: object) -> object:
    return await cast("Awaitable[object]", answer) if isinstance(answer, Awaitable) else answer


def _answer(method: str, value: object) -> dict[str, object]:
    kind = t.ANSWERS[method]
    try:
        plain: object = msgspec.to_builtins(value)
        t.convert(plain, kind)
    except (msgspec.ValidationError, TypeError) as exc:
        raise ConfigurationError(f"the handler's answer to {method} is not a {kind.__name__}: {exc}") from None
    return cast("dict[str, object]", plain)


def _root(root: t.Root | str) -> t.Root:
    if isinstance(root, t.Root):
        return root
    if "://" in root:
        return t.Root(uri=root)
    from pathlib import Path  # lazy: only paths need it

    return t.Root(uri=Path(root).absolute().as_uri())
