"""Garrison: servers and clients of the Model Context Protocol.

Rules of this file:
- `import garrison` loads none of the rooms; a name's module is loaded when the name is first used (PEP 562).
- Every public name stands three times: in `__all__`, in `_NAMES` for the running program, and in the `TYPE_CHECKING`
  block for type checkers. A test keeps the three equal.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers know the name; importing `typing` would cost more than this file
if TYPE_CHECKING:
    from . import types
    from .client import Client
    from .errors import (
        AccessDenied,
        AuditUnavailable,
        AuthenticationRequired,
        AuthorizationFailed,
        BadRequest,
        ClientError,
        ConfigurationError,
        ConnectionFailed,
        ConnectionLost,
        DefinitionChanged,
        Forbidden,
        GarrisonError,
        HeaderMismatch,
        HostRefused,
        HttpError,
        IdempotencyConflict,
        InputDeclined,
        InsecureConfigurationError,
        InsufficientScope,
        InternalError,
        InvalidArguments,
        InvalidParams,
        InvalidRequest,
        LaunchRefused,
        McpError,
        MessageTooLarge,
        MethodNotFound,
        MissingCapability,
        NoSuchTool,
        NotApproved,
        OriginRefused,
        OutputInvalid,
        OutputRefused,
        Overloaded,
        ParseError,
        ProtocolViolation,
        RateLimited,
        Refused,
        RegistrationError,
        RemoteError,
        RequestCancelled,
        RequestTimeout,
        ResourceAccessDenied,
        ResourceNotFound,
        ToolError,
        TooManyRequests,
        Unauthenticated,
        UnsupportedVersion,
    )
    from .gate.hygiene import sanitize_for_llm
    from .gate.rates import RateLimiter
    from .gate.shared_rates import SharedRates
    from .gate.untrusted import Untrusted
    from .host import ApprovalPolicy, Host, LocalServer, RemoteServer, Rule
    from .policy import Limits, SecurityPolicy, Timeouts
    from .policy.principal import Principal
    from .policy.rates import Rate, Rates
    from .policy.secret import Secret
    from .policy.tls import TlsClientConfig, TlsServerConfig
    from .policy.transports import HttpTransportConfig, UnixSocketConfig, WebSocketConfig
    from .server import (
        Context,
        Depends,
        Handles,
        ResourceContents,
        Server,
        ToolOutput,
        completion,
        mcp_server,
        prompt,
        resource,
        tool,
    )
    from .server.idempotency import MemoryOutcomes, Outcome, Outcomes
    from .server.links import LinkRefused, Links

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "ApprovalPolicy",
    "AuditUnavailable",
    "AuthenticationRequired",
    "AuthorizationFailed",
    "BadRequest",
    "Client",
    "ClientError",
    "ConfigurationError",
    "ConnectionFailed",
    "ConnectionLost",
    "Context",
    "DefinitionChanged",
    "Depends",
    "Forbidden",
    "GarrisonError",
    "Handles",
    "HeaderMismatch",
    "Host",
    "HostRefused",
    "HttpError",
    "HttpTransportConfig",
    "IdempotencyConflict",
    "InputDeclined",
    "InsecureConfigurationError",
    "InsufficientScope",
    "InternalError",
    "InvalidArguments",
    "InvalidParams",
    "InvalidRequest",
    "LaunchRefused",
    "Limits",
    "LinkRefused",
    "Links",
    "LocalServer",
    "McpError",
    "MemoryOutcomes",
    "MessageTooLarge",
    "MethodNotFound",
    "MissingCapability",
    "NoSuchTool",
    "NotApproved",
    "OriginRefused",
    "Outcome",
    "Outcomes",
    "OutputInvalid",
    "OutputRefused",
    "Overloaded",
    "ParseError",
    "Principal",
    "ProtocolViolation",
    "Rate",
    "RateLimited",
    "RateLimiter",
    "Rates",
    "Refused",
    "RegistrationError",
    "RemoteError",
    "RemoteServer",
    "RequestCancelled",
    "RequestTimeout",
    "ResourceAccessDenied",
    "ResourceContents",
    "ResourceNotFound",
    "Rule",
    "Secret",
    "SecurityPolicy",
    "Server",
    "SharedRates",
    "Timeouts",
    "TlsClientConfig",
    "TlsServerConfig",
    "TooManyRequests",
    "ToolError",
    "ToolOutput",
    "Unauthenticated",
    "UnixSocketConfig",
    "UnsupportedVersion",
    "Untrusted",
    "WebSocketConfig",
    "__version__",
    "completion",
    "mcp_server",
    "prompt",
    "resource",
    "sanitize_for_llm",
    "tool",
    "types",
]

_NAMES: dict[str, tuple[str, ...]] = {
    "client": ("Client",),
    "errors": (
        "AccessDenied",
        "AuditUnavailable",
        "AuthenticationRequired",
        "AuthorizationFailed",
        "BadRequest",
        "ClientError",
        "ConfigurationError",
        "ConnectionFailed",
        "ConnectionLost",
        "DefinitionChanged",
        "Forbidden",
        "GarrisonError",
        "HeaderMismatch",
        "HostRefused",
        "HttpError",
        "IdempotencyConflict",
        "InputDeclined",
        "InsecureConfigurationError",
        "InsufficientScope",
        "InternalError",
        "InvalidArguments",
        "InvalidParams",
        "InvalidRequest",
        "LaunchRefused",
        "McpError",
        "MessageTooLarge",
        "MethodNotFound",
        "MissingCapability",
        "NoSuchTool",
        "NotApproved",
        "OriginRefused",
        "OutputInvalid",
        "OutputRefused",
        "Overloaded",
        "ParseError",
        "ProtocolViolation",
        "RateLimited",
        "Refused",
        "RegistrationError",
        "RemoteError",
        "RequestCancelled",
        "RequestTimeout",
        "ResourceAccessDenied",
        "ResourceNotFound",
        "TooManyRequests",
        "ToolError",
        "Unauthenticated",
        "UnsupportedVersion",
    ),
    "gate.hygiene": ("sanitize_for_llm",),
    "gate.rates": ("RateLimiter",),
    "gate.shared_rates": ("SharedRates",),
    "gate.untrusted": ("Untrusted",),
    "host": ("ApprovalPolicy", "Host", "LocalServer", "RemoteServer", "Rule"),
    "policy": ("Limits", "SecurityPolicy", "Timeouts"),
    "policy.principal": ("Principal",),
    "policy.rates": ("Rate", "Rates"),
    "policy.secret": ("Secret",),
    "policy.tls": ("TlsClientConfig", "TlsServerConfig"),
    "policy.transports": ("HttpTransportConfig", "UnixSocketConfig", "WebSocketConfig"),
    "server": (
        "Context",
        "Depends",
        "Handles",
        "ResourceContents",
        "Server",
        "ToolOutput",
        "completion",
        "mcp_server",
        "prompt",
        "resource",
        "tool",
    ),
    "server.idempotency": ("MemoryOutcomes", "Outcome", "Outcomes"),
    "server.links": ("LinkRefused", "Links"),
}
"""The names that each module gives."""

_MODULES = {"types": "types"}
"""Modules that are public by their name."""

_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # a type checker would otherwise take any name for one of ours

    def __getattr__(name: str) -> object:
        if name in _MODULE_OF:
            value: object = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        elif name in _MODULES:
            value = import_module(f".{_MODULES[name]}", __name__)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
