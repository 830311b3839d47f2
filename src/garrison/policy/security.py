"""`SecurityPolicy`: all security settings of a server or client in one frozen value.

Rules of this file:
- Everything is closed but what is listed. A default is a value, not a switch.
- A relaxation is an explicit act: a field `dangerously_*` or `allow_insecure_*` with a written reason. `relaxations`
  lists them, and they are recorded when a server or client starts.
- The presets are the same class with other values: `strict` (the default), `compat` for older peers, `conformance` for
  the official suite, which is served on loopback only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, cast

from ..errors import ConfigurationError
from .limits import Limits, Timeouts
from .rates import Rates

if TYPE_CHECKING:
    import os
    from typing import TypedDict, Unpack

    class _Fields(TypedDict, total=False):
        limits: Limits
        timeouts: Timeouts
        allowed_hosts: tuple[str, ...]
        allowed_origins: tuple[str, ...]
        trusted_proxies: tuple[str, ...]
        public_url: str
        tolerate: tuple[str, ...]
        rates: Rates
        hygiene: Hygiene
        redact_results: bool
        dangerously_skip_hygiene: str
        allow_insecure_http_hosts: Mapping[str, str]
        dangerously_allow_unauthenticated: str
        dangerously_allow_unsafe_socket_path: str


__all__ = ["TOLERANCES", "Hygiene", "Profile", "SecurityPolicy"]

Profile = Literal["strict", "compat", "conformance"]
Hygiene = Literal["visible", "strip"]

TOLERANCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "accept": "a POST whose Accept header does not list both application/json and text/event-stream",
        "unknown_members": "a JSON-RPC message with members that JSON-RPC does not name",
        "duplicate_keys": "a JSON object that has a member twice; the last one counts",
    }
)
"""What `SecurityPolicy.tolerate` may name, and what each lets pass."""

_DANGEROUS: Final = (
    "dangerously_allow_unauthenticated",
    "dangerously_allow_unsafe_socket_path",
    "dangerously_skip_hygiene",
)
_NO_REASONS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityPolicy:
    """All security settings of a server or client in one value.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    profile: Profile = "strict"
    """The preset this policy began as; `conformance` is refused on addresses that others can reach."""
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    allowed_hosts: tuple[str, ...] = ()
    """Values of the Host header that are answered beside the loopback names, each `host:port`, or `host` for that name
    alone and with the listener's own port."""
    allowed_origins: tuple[str, ...] = ()
    """Values of the Origin header that are answered beside the listener's own, each `scheme://host[:port]`. Pages of
    these origins may read the answers (CORS)."""
    trusted_proxies: tuple[str, ...] = ()
    """Peers whose forwarded headers are believed: addresses, networks as `10.0.0.0/8`, or `unix` for whoever may
    connect to the Unix socket. Declaring one says that it terminates TLS."""
    public_url: str = ""
    """The https URL by which clients reach the endpoint; what the server says of its own address comes from here."""
    tolerate: tuple[str, ...] = ()
    """Departures from the protocol that are let pass; see `TOLERANCES`."""
    rates: Rates = field(default_factory=Rates)
    """How often callers on network listeners may call."""
    hygiene: Hygiene = "visible"
    """What becomes of control characters and invisible ones in text that leaves: `visible` writes them out, `strip`
    leaves them out."""
    redact_results: bool = False
    """True: what looks like a key or token is masked in results too, as it always is in errors and logs."""
    dangerously_skip_hygiene: str = ""
    """Why text leaves with control and invisible characters as they are. Empty: it does not."""
    allow_insecure_http_hosts: Mapping[str, str] = field(default_factory=lambda: _NO_REASONS)
    """Host -> why it may be spoken to, or served, without TLS off loopback."""
    dangerously_allow_unauthenticated: str = ""
    """Why this listener needs no token. Empty: a token is asked for."""
    dangerously_allow_unsafe_socket_path: str = ""
    """Why a Unix socket may lie where others can replace or reach it. Empty: it may not."""

    def __post_init__(self) -> None:
        if self.profile not in ("strict", "compat", "conformance"):
            raise ConfigurationError('SecurityPolicy.profile must be "strict", "compat" or "conformance"')
        for name in ("allowed_hosts", "allowed_origins", "trusted_proxies", "tolerate"):
            value: object = getattr(self, name)
            if type(value) is not tuple or not all(
                type(item) is str and item for item in cast("tuple[object, ...]", value)
            ):
                raise ConfigurationError(f"SecurityPolicy.{name} must be a tuple of texts")
        for name in ("public_url", *_DANGEROUS):
            value = getattr(self, name)
            if type(value) is not str or (value and not value.strip()):
                raise ConfigurationError(f"SecurityPolicy.{name} must be a text that says something")
        if self.hygiene not in ("visible", "strip"):
            raise ConfigurationError('SecurityPolicy.hygiene must be "visible" or "strip"')
        if type(self.redact_results) is not bool:
            raise ConfigurationError("SecurityPolicy.redact_results must be true or false")
        unknown = set(self.tolerate) - TOLERANCES.keys()
        if unknown:
            raise ConfigurationError(
                f"SecurityPolicy.tolerate: {min(unknown)!r} is none of {', '.join(sorted(TOLERANCES))}"
            )
        reasons = cast("object", self.allow_insecure_http_hosts)
        if not isinstance(reasons, Mapping):
            raise ConfigurationError("SecurityPolicy.allow_insecure_http_hosts must map hosts to reasons")
        for host, why in cast("Mapping[object, object]", reasons).items():
            if not (type(host) is str and host and type(why) is str and why.strip()):
                raise ConfigurationError("SecurityPolicy.allow_insecure_http_hosts: each host needs a written reason")
        object.__setattr__(self, "allow_insecure_http_hosts", MappingProxyType(dict(self.allow_insecure_http_hosts)))
        if self.public_url and not self.public_url.startswith("https://"):
            raise ConfigurationError("SecurityPolicy.public_url must begin with https://")

    @classmethod
    def strict(cls, **changes: Unpack[_Fields]) -> SecurityPolicy:
        """The defaults, with the changes that are named."""
        return cls(**changes)

    @classmethod
    def compat(cls, **changes: Unpack[_Fields]) -> SecurityPolicy:
        """For peers that are older or sloppier than the specification: tolerates all that `TOLERANCES` lists."""
        changes.setdefault("tolerate", tuple(TOLERANCES))
        return cls(profile="compat", **changes)

    @classmethod
    def conformance(cls, **changes: Unpack[_Fields]) -> SecurityPolicy:
        """For the official conformance suite, which sends no token. Refused off loopback."""
        changes.setdefault("dangerously_allow_unauthenticated", "the conformance suite sends no token")
        return cls(profile="conformance", **changes)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> SecurityPolicy:
        """The policy of a TOML file; its keys are the names of these fields.

        Args:
            path: the file. None is ever looked for by itself.

        Raises:
            ConfigurationError: the file cannot be read, or has a key or value that is not a setting.
        """
        from .toml import read_toml

        return read_toml(path).policy

    @property
    def relaxations(self) -> Mapping[str, str]:
        """Each relaxation that this policy allows, and the reason given for it, whether or not a listener needs it."""
        found = {name: reason for name in _DANGEROUS if (reason := str(getattr(self, name)))}
        found |= {f"allow_insecure_http_hosts.{host}": why for host, why in self.allow_insecure_http_hosts.items()}
        found |= {f"tolerate.{name}": TOLERANCES[name] for name in self.tolerate}
        return found
