"""How often anybody may ask: frozen values whose defaults leave an honest agent alone.

    Rate(60, burst=250)                     # 60 a second, 250 at once
    Rate.of("120/minute", burst=30)         # the same in other words: 2 a second, 30 at once
    Rates()                                 # the default
    Rates.public()                          # for servers that anybody may call

Rules of this file:
- There is always a rate. It can be raised above any load; there is no value that switches it off.
- A rate has no windows with edges: it fills up steadily, and never lets more pass in any time than its burst and what
  the time is worth.
- Who is counted is who was verified. An address counts for those of whom nothing was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    class _Fields(TypedDict, total=False):
        principal: Rate
        address: Rate | None
        tenant: Rate | None
        completion: Rate
        heavy: Rate | None
        output_bytes: Rate | None
        most_keys: int


__all__ = ["Rate", "Rates"]

_SECONDS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
_FASTEST: Final = 1e9


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second for as long as one likes, and so many at once.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    per_second: float
    """How many a second; 0.1 is one in ten seconds. At most 1e9."""
    burst: int
    """How many may come at once, after a time of rest."""

    def __post_init__(self) -> None:
        if type(self.per_second) not in (int, float) or not 0 < self.per_second <= _FASTEST:
            raise ConfigurationError("Rate.per_second must be a number above 0, and at most 1e9")
        if type(self.burst) is not int or self.burst < 1:
            raise ConfigurationError("Rate.burst must be a positive integer")
        object.__setattr__(self, "per_second", float(self.per_second))

    @classmethod
    def of(cls, text: str, burst: int | None = None) -> Rate:
        """The rate that a text says.

        Args:
            text: a whole number and a unit, as `120/minute`; units are `second`, `minute`, `hour` and `day`.
            burst: how many at once; the number of the text when not given.

        Raises:
            ConfigurationError: it is not of this form, or is no rate.
        """
        number, _, unit = text.partition("/")
        seconds = _SECONDS.get(unit)
        if seconds is None or not (number.isascii() and number.isdigit()):
            raise ConfigurationError(f"Rate.of: a number and one of {', '.join(_SECONDS)}, as 120/minute")
        return cls(int(number) / seconds, int(number) if burst is None else burst)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How often the callers of a server may ask. Whoever started the server is not counted.

    Each limit counts for itself, and a call passes only where all of them let it; one that is refused is charged to
    none. What is refused gets error 429 with the seconds to wait, before its handler runs.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    principal: Rate = Rate(60, 250)
    """Requests of one principal (issuer, tenant and subject), or of one address where nobody is asked who they are, or
    all have one token. A tool counts as many as its `cost=`."""
    address: Rate | None = None
    """Requests that come from one IPv4 address or IPv6 /64, all its principals together."""
    tenant: Rate | None = None
    """Requests of one tenant of an issuer, all its principals together."""
    completion: Rate = Rate(20, 40)
    """`completion/complete` of one principal, beside `principal`."""
    heavy: Rate | None = None
    """Calls of one principal to one tool that has a `cost=` and no `rate=` of its own."""
    output_bytes: Rate | None = None
    """Bytes of the answers to one principal. They are counted when they leave: who has had more may call again when the
    time has paid for it."""
    most_keys: int = 100_000
    """Callers that each limit tells apart. When as many have something to pay, newcomers share what is left."""

    def __post_init__(self) -> None:
        for name in ("principal", "address", "tenant", "completion", "heavy", "output_bytes"):
            value: object = getattr(self, name)
            if type(value) is not Rate and (value is not None or name in ("principal", "completion")):
                optional = "" if name in ("principal", "completion") else " or None"
                raise ConfigurationError(f"Rates.{name} must be a Rate{optional}")
        if type(self.most_keys) is not int or self.most_keys < 1:
            raise ConfigurationError("Rates.most_keys must be a positive integer")

    @classmethod
    def default(cls, **changes: Unpack[_Fields]) -> Rates:
        """The defaults, with the changes that are named: room for 200 calls at once, and 50 a second after that."""
        return cls(**changes)

    @classmethod
    def public(cls, **changes: Unpack[_Fields]) -> Rates:
        """For a server that anybody may call: 120 calls a minute, 30 at once, and a limit for each address as well."""
        preset = cls(
            principal=Rate(2, 30),
            address=Rate(4, 60),
            completion=Rate(5, 20),
            heavy=Rate(10 / 60, 5),
            output_bytes=Rate(256 * 1024, 64 * 1024 * 1024),
        )
        return replace(preset, **changes)
