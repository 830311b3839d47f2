"""What tests and a developer's own machine need, and production never does.

    from garrison.testing import DevAuthorizationServer, User

    async with DevAuthorizationServer(users=[User("alice")]) as authorization:
        print(authorization.issuer)

Rules of this room:
- Nothing of it serves anybody but this machine: what listens, listens on loopback.
- `import garrison.testing` loads none of it; a name's module is loaded when the name is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .oauth.http import Reply, Request
    from .oauth.people import DevClient, TrustedIssuer, User
    from .oauth.server import DevAuthorizationServer

__all__ = ["DevAuthorizationServer", "DevClient", "Reply", "Request", "TrustedIssuer", "User"]

_NAMES = {
    "DevAuthorizationServer": "oauth.server",
    "DevClient": "oauth.people",
    "Reply": "oauth.http",
    "Request": "oauth.http",
    "TrustedIssuer": "oauth.people",
    "User": "oauth.people",
}


def __getattr__(name: str) -> object:
    module = _NAMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
