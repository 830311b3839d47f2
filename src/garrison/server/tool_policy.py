"""What a tool says of itself beside its schema: what it may destroy, how often it may run, and what its text may hold.

Rules of this file:
- A tool that destroys something is confirmed by who asked for it. The way round is an explicit `confirm=False`.
- What contradicts itself is an error at registration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ..errors import RegistrationError
from ..protocol.types import ToolAnnotations

if TYPE_CHECKING:
    from ..policy.rates import Rate
    from .options import ToolOptions

__all__ = ["PLAIN", "ToolPolicy", "annotations_of", "policy_of"]


class ToolPolicy:
    """What holds for the calls of one tool."""

    __slots__ = (
        "concurrency",
        "confirm",
        "cost",
        "destructive",
        "guarded",
        "idempotent_by",
        "inert_markdown",
        "metered",
        "rate",
        "raw_text",
    )

    def __init__(
        self,
        *,
        destructive: bool = False,
        confirm: bool | str = False,
        idempotent_by: str | None = None,
        rate: Rate | None = None,
        cost: int = 1,
        concurrency: int | None = None,
        raw_text: str = "",
        inert_markdown: bool = False,
    ) -> None:
        self.destructive = destructive
        """It is not done while it cannot be recorded."""
        self.confirm = confirm
        """Whether who asked confirms it first, or the words in which it is asked."""
        self.idempotent_by = idempotent_by
        """The parameter whose value stands for one deed."""
        self.rate = rate
        self.cost = cost
        self.concurrency = concurrency
        self.raw_text = raw_text
        """Why its text leaves as it is; empty where it is cleaned."""
        self.inert_markdown = inert_markdown
        self.guarded = destructive or bool(confirm) or idempotent_by is not None
        """Something stands between the call and the handler."""
        self.metered = rate is not None or cost != 1 or concurrency is not None
        """It has limits of its own."""


PLAIN: Final = ToolPolicy()
_OPTIONS: Final = frozenset(
    {
        "destructive",
        "confirm",
        "idempotent_by",
        "rate",
        "cost",
        "concurrency",
        "dangerously_raw_text",
        "inert_markdown",
    }
)


def annotations_of(name: str, options: ToolOptions) -> ToolAnnotations | None:
    """The annotations that are published: those given, and what `destructive=` says.

    Raises:
        RegistrationError: the two contradict each other.
    """
    given, destructive = options.get("annotations"), options.get("destructive")
    if destructive is None:
        return given
    if type(destructive) is not bool:
        raise RegistrationError(f"tool {name!r}: destructive= is True or False")
    given = given or ToolAnnotations()
    said = given.destructive_hint
    if (said is not None and said is not destructive) or (destructive and given.read_only_hint):
        raise RegistrationError(f"tool {name!r}: destructive={destructive} contradicts its annotations")
    return msgspec.structs.replace(given, destructive_hint=destructive)


def policy_of(name: str, options: ToolOptions, annotations: ToolAnnotations | None) -> ToolPolicy:
    """What the options of a registration say.

    Args:
        name: of the tool, for errors.
        options: as given.
        annotations: as published.

    Raises:
        RegistrationError: a value is not of its form, or they contradict each other.
    """
    destructive = annotations is not None and annotations.destructive_hint is True
    if not destructive and not (_OPTIONS & options.keys()):
        return PLAIN
    confirm, key = options.get("confirm", destructive), options.get("idempotent_by")
    cost, concurrency = options.get("cost", 1), options.get("concurrency")
    raw, inert = options.get("dangerously_raw_text", ""), options.get("inert_markdown", False)
    if type(confirm) not in (bool, str) or (isinstance(confirm, str) and not confirm.strip()):
        raise RegistrationError(f"tool {name!r}: confirm= is True, False, or the words in which to ask")
    if type(cost) is not int or cost < 1:
        raise RegistrationError(f"tool {name!r}: cost= is a positive integer")
    if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
        raise RegistrationError(f"tool {name!r}: concurrency= is a positive integer")
    if type(raw) is not str or (raw and not raw.strip()):
        raise RegistrationError(f"tool {name!r}: dangerously_raw_text= needs a written reason")
    if raw and inert:
        raise RegistrationError(f"tool {name!r}: inert_markdown= cleans what dangerously_raw_text= leaves as it is")
    return ToolPolicy(
        destructive=destructive,
        confirm=confirm,
        idempotent_by=key,
        rate=options.get("rate"),
        cost=cost,
        concurrency=concurrency,
        raw_text=raw,
        inert_markdown=inert,
    )
