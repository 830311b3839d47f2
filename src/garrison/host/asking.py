"""What one server may ask of a host, and what it is answered: forms, pages, a language model, folders.

    asking = Asking("files", consent, elicit=True, roots=["/srv/data"])
    Client(target, on_elicit=asking.on_elicit, on_sample=asking.on_sample, on_roots=asking.on_roots)

Rules of this file:
- What nobody allowed does not exist: without a handler the capability is not declared, and who asks gets an error.
- What nobody should be asked is declined before anybody is: a form for a secret, a page that misleads, a question too
  many.
- A server is called by its alias, which is chosen here; what it calls itself is shown nowhere.
- A page is neither fetched nor opened. A yes says that the person may visit it.

Spec: 2026-07-28 client/elicitation, client/sampling, client/roots, basic/patterns/mrtr.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, final

from .. import events
from ..errors import NotApproved
from ..gate.hygiene import visible
from ..protocol import types as t
from .addresses import check_page
from .forms import MAX_MESSAGE, check_form
from .questions import FormQuestion, UrlQuestion
from .roots import Roots
from .sampling import SampleHandler, Sampler, SamplingBudget

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable

    from .consent import Consent

    ElicitHandler = Callable[[t.ElicitFormParams | t.ElicitUrlParams], Awaitable[t.ElicitResult]]
    RootsHandler = Callable[[], Awaitable[list[t.Root]]]

__all__ = ["MAX_QUESTIONS", "QUESTION_SECONDS", "Asking", "SampleHandler"]

MAX_QUESTIONS: Final = 20
"""Forms and pages of one server that are looked at in `QUESTION_SECONDS`, the declined ones among them."""
QUESTION_SECONDS: Final = 600.0

_DECLINE: Final = t.ElicitResult(action="decline")
_ACCEPT: Final = t.ElicitResult(action="accept")


@final
class Asking:
    """The handlers of one server.

    Args:
        alias: what the host calls it.
        consent: asks somebody.
        elicit: whether it may ask the person to fill in forms and to visit pages.
        sample: lets a language model write for it; None refuses.
        budget: how much of that.
        roots: folders that it may be told; none declares nothing.
        dangerously_allow_roots: why folders are among them that hold everything or credentials.

    Raises:
        ConfigurationError: a folder is none, or not one that servers are told of.
    """

    __slots__ = ("_alias", "_consent", "_times", "on_elicit", "on_roots", "on_sample")

    def __init__(
        self,
        alias: str,
        consent: Consent,
        *,
        elicit: bool = False,
        sample: SampleHandler | None = None,
        budget: SamplingBudget | None = None,
        roots: Sequence[str | os.PathLike[str]] = (),
        dangerously_allow_roots: str = "",
    ) -> None:
        self._alias = alias
        self._consent = consent
        self._times: deque[float] = deque()
        self.on_elicit: ElicitHandler | None = self._elicit if elicit else None
        self.on_sample: Sampler | None = None if sample is None else Sampler(alias, consent, sample, budget)
        self.on_roots: RootsHandler | None = None
        if roots:
            self.on_roots = Roots(alias, consent, roots, dangerously_allow_roots=dangerously_allow_roots)

    async def _elicit(self, params: t.ElicitFormParams | t.ElicitUrlParams) -> t.ElicitResult:
        """The answer to a form or a page: `accept` where somebody agreed, else `decline`."""
        try:
            self._count()
            if isinstance(params, t.ElicitUrlParams):
                return await self._page(params)
            return await self._form(params)
        except NotApproved as exc:
            return self._declined(str(exc))

    async def _form(self, params: t.ElicitFormParams) -> t.ElicitResult:
        form = check_form(params.message, params.requested_schema)
        verdict = await self._consent.ask(
            FormQuestion(
                server=self._alias, reasons=form.reasons, message=params.message, schema=params.requested_schema
            )
        )
        if not verdict.allowed:
            return _DECLINE
        return t.convert({"action": "accept", "content": form.content(verdict.edited)}, t.ElicitResult)

    async def _page(self, params: t.ElicitUrlParams) -> t.ElicitResult:
        if len(params.message) > MAX_MESSAGE:
            raise NotApproved(f"the message about the page has more than {MAX_MESSAGE} characters")
        page = check_page(params.url)
        verdict = await self._consent.ask(
            UrlQuestion(
                server=self._alias, message=params.message, url=params.url, host=page.host, warnings=page.warnings
            )
        )
        return _ACCEPT if verdict.allowed else _DECLINE

    def _count(self) -> None:
        """Count a question. Raises `NotApproved` where there were too many."""
        now = asyncio.get_running_loop().time()
        while self._times and now - self._times[0] >= QUESTION_SECONDS:
            self._times.popleft()
        if len(self._times) >= MAX_QUESTIONS:
            raise NotApproved(f"it asked {MAX_QUESTIONS} times in {QUESTION_SECONDS:g} s")
        self._times.append(now)

    def _declined(self, why: str) -> t.ElicitResult:
        text = f"{self._alias} asked somebody for input, and was declined: {visible(why)}"
        about = events.Event("elicitation.refused", server=self._alias, method="elicitation/create")
        events.record("elicitation.refused", text, about=about)
        return _DECLINE
