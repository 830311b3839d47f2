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
        AuthenticationRequired,
        AuthorizationFailed,
        BadRequest,
        ClientError,
        ConfigurationError,
        ConnectionFailed,
        ConnectionLost,
        Forbidden,
        GarrisonError,
        HeaderMismatch,
        HostRefused,
        HttpError,
        InputDeclined,
        InsecureConfigurationError,
        InsufficientScope,
        InternalError,
        InvalidArguments,
        InvalidParams,
        InvalidRequest,
        McpError,
        MessageTooLarge,
        MethodNotFound,
        MissingCapability,
        OriginRefused,
        OutputInvalid,
        Overloaded,
        ParseError,
        ProtocolViolation,
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
    from .policy import Limits, SecurityPolicy, Timeouts
    from .policy.principal import Principal
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

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "AuthenticationRequired",
    "AuthorizationFailed",
    "BadRequest",
    "Client",
    "ClientError",
    "ConfigurationError",
    "ConnectionFailed",
    "ConnectionLost",
    "Context",
    "Depends",
    "Forbidden",
    "GarrisonError",
    "Handles",
    "HeaderMismatch",
    "HostRefused",
    "HttpError",
    "HttpTransportConfig",
    "InputDeclined",
    "InsecureConfigurationError",
    "InsufficientScope",
    "InternalError",
    "InvalidArguments",
    "InvalidParams",
    "InvalidRequest",
    "Limits",
    "McpError",
    "MessageTooLarge",
    "MethodNotFound",
    "MissingCapability",
    "OriginRefused",
    "OutputInvalid",
    "Overloaded",
    "ParseError",
    "Principal",
    "ProtocolViolation",
    "Refused",
    "RegistrationError",
    "RemoteError",
    "RequestCancelled",
    "RequestTimeout",
    "ResourceAccessDenied",
    "ResourceContents",
    "ResourceNotFound",
    "Secret",
    "SecurityPolicy",
    "Server",
    "Timeouts",
    "TlsClientConfig",
    "TlsServerConfig",
    "TooManyRequests",
    "ToolError",
    "ToolOutput",
    "Unauthenticated",
    "UnixSocketConfig",
    "UnsupportedVersion",
    "WebSocketConfig",
    "__version__",
    "completion",
    "mcp_server",
    "prompt",
    "resource",
    "tool",
    "types",
]

_NAMES: dict[str, tuple[str, ...]] = {
    "client": ("Client",),
    "errors": (
        "AccessDenied",
        "AuthenticationRequired",
        "AuthorizationFailed",
        "BadRequest",
        "ClientError",
        "ConfigurationError",
        "ConnectionFailed",
        "ConnectionLost",
        "Forbidden",
        "GarrisonError",
        "HeaderMismatch",
        "HostRefused",
        "HttpError",
        "InputDeclined",
        "InsecureConfigurationError",
        "InsufficientScope",
        "InternalError",
        "InvalidArguments",
        "InvalidParams",
        "InvalidRequest",
        "McpError",
        "MessageTooLarge",
        "MethodNotFound",
        "MissingCapability",
        "OriginRefused",
        "OutputInvalid",
        "Overloaded",
        "ParseError",
        "ProtocolViolation",
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
    "policy": ("Limits", "SecurityPolicy", "Timeouts"),
    "policy.principal": ("Principal",),
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
