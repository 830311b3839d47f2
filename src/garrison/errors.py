"""Every error Garrison raises, in one tree.

    GarrisonError
    ├── ConfigurationError            a setting or a registration is wrong; raised at start, never at a request
    │   ├── InsecureConfigurationError    a combination of settings that would leave the listener open
    │   └── RegistrationError             a tool, resource or prompt that cannot be published
    ├── McpError                      an answer for the peer: code, message and data may travel
    │   ├── ParseError                    -32700  not JSON, or JSON outside the limits
    │   ├── InvalidRequest                -32600  JSON, but not one JSON-RPC message
    │   │   └── MessageTooLarge               the byte cap was reached while reading
    │   ├── MethodNotFound                -32601  unknown, or belongs to a capability not advertised
    │   ├── InvalidParams                 -32602
    │   │   ├── InvalidArguments              the arguments break the published schema; the handler did not run
    │   │   └── ResourceNotFound              no such resource
    │   │       └── ResourceAccessDenied          there is one, and the peer cannot tell
    │   ├── InternalError                 -32603  constant text and an error id
    │   │   └── RequestCancelled              the peer took the request back; nothing is sent
    │   ├── OutputRefused                 -32603  a result that must not leave: too large, or not of its type
    │   ├── AccessDenied                  403     this caller may not do this
    │   │   └── InsufficientScope             and may with further scopes, which it names
    │   ├── TooManyRequests               429     more under way than one principal may have
    │   │   └── RateLimited                       more in this time than a rate allows, and when to come again
    │   ├── AuditUnavailable              503     what must be recorded cannot be, and so was not done
    │   ├── IdempotencyConflict           409     the same key came with other arguments, or is still at work
    │   ├── HeaderMismatch                -32020  an HTTP header says something else than the body
    │   ├── MissingCapability             -32021  the client did not declare what this needs
    │   └── UnsupportedVersion            -32022
    ├── ToolError                     deliberate text for the model: becomes a result with isError
    ├── Refused                       the transport turned the peer away before any message was read
    │   ├── HostRefused                   421
    │   ├── OriginRefused                 403
    │   ├── Unauthenticated               401
    │   ├── Forbidden                     403
    │   ├── BadRequest                    400, 404, 405, 406, 413, 415, 431: HTTP rules
    │   └── Overloaded                    503  a bounded resource is used up
    └── ClientError                   what a client's caller sees
        ├── ConnectionFailed              could not connect or start the server
        ├── ConnectionLost                was connected; the answer will not come
        ├── RequestTimeout                no answer in time; the request was cancelled
        ├── ProtocolViolation             the peer broke the protocol
        │   └── OutputInvalid                 a result breaks the tool's outputSchema
        ├── HttpError                     an HTTP status that is no MCP answer
        │   └── AuthenticationRequired        401 or 403
        ├── AuthorizationFailed           no token could be had, and why
        ├── RemoteError                   the peer answered with a JSON-RPC error
        ├── InputDeclined                 the server asked for input that no handler gives
        ├── NoSuchTool                    a host shows no tool of this name
        └── NotApproved                   no person and no policy has allowed it; nothing was done
            ├── DefinitionChanged             the tool is not the one that was approved
            └── LaunchRefused                 a local server was not started

What a peer is told is `code`, `message` and `data` of an `McpError`, or `status` and `message` of a `Refused`; the
`__cause__` never leaves the process. `hint` is for the person who runs the program: it names the setting to change.
A `violation` breaks the protocol; too many of them end the connection (`Limits.malformed_per_minute`).
"""

from __future__ import annotations

import math
from typing import ClassVar, Final

__all__ = [
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
    "InsufficientScope",
    "InsecureConfigurationError",
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
]

_LONGEST_WAIT: Final = 86_400


class GarrisonError(Exception):
    """Base of everything Garrison raises on purpose."""


class ConfigurationError(GarrisonError):
    """A setting is wrong. The message names the setting and what it may be."""


class InsecureConfigurationError(ConfigurationError):
    """The settings together would leave the program open. The message names what to change."""


class RegistrationError(ConfigurationError):
    """A tool, resource or prompt cannot be published as written."""


class McpError(GarrisonError):
    """An error answer. Its code, message and data are sent to the peer.

    Args:
        message: what the peer reads; never put a secret or an internal detail here.
        data: optional JSON value for the peer.
        code: JSON-RPC error code; the class's own when not given. Applications choose codes outside -32768..-32000.

    Spec: 2026-07-28 basic, "Error Codes".
    """

    code: int = -32603
    http_status: ClassVar[int] = 200
    event: ClassVar[str | None] = None
    violation: ClassVar[bool] = False
    """The message breaks the protocol, and is counted against its connection."""
    retry_after: int = 0
    """Seconds after which the same request may be tried again; 0 says nothing. HTTP: Retry-After."""
    hint: str = ""
    """The setting that would let it pass, for the log."""
    request_id: int | str | None = None
    """The id to answer with, where it could be read."""

    def __init__(self, message: str, *, data: object = None, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data
        if code is not None:
            self.code = code

    @staticmethod
    def invalid_params(name: str, reason: str) -> InvalidParams:
        """An `InvalidParams` for the named tool, resource or prompt."""
        return InvalidParams(f"{name}: {reason}")

    @staticmethod
    def invalid_request(reason: str) -> InvalidRequest:
        """An `InvalidRequest` with this reason."""
        return InvalidRequest(reason)

    @staticmethod
    def resource_not_found(uri: str) -> ResourceNotFound:
        """A `ResourceNotFound` for this URI."""
        return ResourceNotFound(uri)

    @staticmethod
    def internal(detail: str) -> InternalError:
        """An `InternalError`. The detail goes to the log; the peer reads a constant and an error id."""
        return InternalError(detail=detail)


class ParseError(McpError):
    """The bytes are not strict JSON, or exceed the structure limits."""

    code = -32700
    http_status = 400
    event = "message.malformed"
    violation = True


class InvalidRequest(McpError):
    """The JSON is not one JSON-RPC message of the kind that is allowed here."""

    code = -32600
    http_status = 400
    event = "message.invalid"
    violation = True
    of_notification: bool = False
    """The message was a notification, which is never answered."""


class MessageTooLarge(InvalidRequest):
    """The message passed the byte cap (`Limits.message_bytes`) while it was read; the rest was not kept."""

    http_status = 413
    event = "message.too_large"
    hint = "Limits.message_bytes"

    def __init__(self, limit: int) -> None:
        super().__init__(f"Message larger than {limit} bytes")
        self.limit = limit


class MethodNotFound(McpError):
    """The method does not exist, or belongs to a capability that is not advertised."""

    code = -32601
    http_status = 404

    def __init__(self, message: str = "Method not found", *, data: object = None) -> None:
        super().__init__(message, data=data)


class InvalidParams(McpError):
    """The parameters do not fit the method."""

    code = -32602


class InvalidArguments(InvalidParams):
    """Tool arguments break the published input schema. `problems` name path and rule, never a value."""

    event = "arguments.invalid"

    def __init__(self, tool: str, problems: tuple[str, ...]) -> None:
        super().__init__(f"Invalid arguments for tool {tool!r}: " + "; ".join(problems))
        self.problems = problems


class ResourceNotFound(InvalidParams):
    """No resource has this URI. Spec: 2026-07-28 server/resources, "Error Handling"."""

    def __init__(self, uri: str) -> None:
        super().__init__("Resource not found", data={"uri": uri})
        self.uri = uri


class ResourceAccessDenied(ResourceNotFound):
    """The resource may not be read by this peer, who is told that it does not exist. `reason` is for the log."""

    event = "resource.denied"

    def __init__(self, uri: str, reason: str | None = None) -> None:
        super().__init__(uri)
        self.reason = reason


class InternalError(McpError):
    """Something failed that the peer cannot mend. `error_id` is in the log beside the detail."""

    code = -32603
    http_status = 500

    def __init__(
        self, message: str = "Internal error", *, detail: str | None = None, error_id: str | None = None
    ) -> None:
        super().__init__(message, data={"errorId": error_id} if error_id else None)
        self.detail = detail
        self.error_id = error_id
        self.disclosed = False
        """The log has its cause, and it is what the peer is told."""


class RequestCancelled(InternalError):
    """The peer cancelled the request, or went away. No answer is sent."""


class OutputRefused(McpError):
    """A handler's result must not leave: it is too large, or binary content is not of its declared type.

    Args:
        message: what the peer reads.
        detail: for the log.
        hint: the setting.
    """

    code = -32603
    event = "output.refused"

    def __init__(self, message: str, *, detail: str, hint: str) -> None:
        super().__init__(message)
        self.detail = detail
        self.hint = hint


class AccessDenied(McpError):
    """The caller may not do this. What it may not know of is answered as unknown instead.

    Its code lies outside JSON-RPC's reserved range, as new codes should; it is that of HTTP.
    """

    code = 403
    http_status = 403
    event = "access.denied"

    def __init__(self, message: str = "Access denied", *, data: object = None) -> None:
        super().__init__(message, data=data)


class InsufficientScope(AccessDenied):
    """The caller needs further scopes. On HTTP the challenge names them; elsewhere `data` does.

    Args:
        scopes: all that the operation needs.

    Spec: 2026-07-28 basic/authorization "Runtime Insufficient Scope Errors"; RFC 6750 section 3.1.
    """

    event = "access.insufficient_scope"

    def __init__(self, scopes: tuple[str, ...]) -> None:
        super().__init__("Insufficient scope", data={"scopes": list(scopes)})
        self.scopes = scopes


class TooManyRequests(McpError):
    """More is under way than one peer may have; the handler did not run, and the request may be sent again.

    Args:
        hint: the setting that was reached.

    Its code lies outside JSON-RPC's reserved range, as new codes should; it is that of HTTP, RFC 6585 section 4.
    """

    code = 429
    http_status = 429
    event = "limit.reached"
    retry_after = 1

    def __init__(self, hint: str) -> None:
        super().__init__("Too many requests under way")
        self.hint = hint


class RateLimited(TooManyRequests):
    """More requests came in this time than a rate allows; the handler did not run.

    Args:
        seconds: after which the same request passes. The peer reads it rounded up, in `data` and in Retry-After.
        hint: the setting that was reached.
    """

    def __init__(self, seconds: float, hint: str) -> None:
        super().__init__(hint)
        self.message = "Rate limit exceeded"
        self.args = (self.message,)
        self.retry_after = max(1, math.ceil(seconds)) if seconds < _LONGEST_WAIT else _LONGEST_WAIT
        self.data = {"retryAfter": self.retry_after}


class AuditUnavailable(McpError):
    """A call that must be on record cannot be recorded now, so it was not done.

    Its code lies outside JSON-RPC's reserved range, as new codes should; it is that of HTTP.
    """

    code = 503
    http_status = 503
    event = "audit.unavailable"
    hint = "Server(audit=)"
    retry_after = 5

    def __init__(self) -> None:
        super().__init__("Not done: it could not be recorded")


class IdempotencyConflict(McpError):
    """A key that stands for one deed came with other arguments, or while that deed is under way.

    Its code lies outside JSON-RPC's reserved range, as new codes should; it is that of HTTP.
    """

    code = 409
    http_status = 409
    event = "call.conflict"


class HeaderMismatch(McpError):
    """An HTTP header is missing, malformed, or differs from the body. Spec: 2026-07-28 streamable-http."""

    code = -32020
    http_status = 400
    event = "header.mismatch"
    violation = True


class MissingCapability(McpError):
    """The client did not declare a capability that this request needs.

    Args:
        required: the capabilities as a `ClientCapabilities` object, for instance `{"sampling": {}}`.
    """

    code = -32021
    http_status = 400

    def __init__(self, required: dict[str, object]) -> None:
        names = ", ".join(sorted(required))
        super().__init__(f"Missing required client capability: {names}", data={"requiredCapabilities": required})
        self.required = required


class UnsupportedVersion(McpError):
    """The server does not speak the requested protocol version."""

    code = -32022
    http_status = 400

    def __init__(self, requested: str, supported: tuple[str, ...]) -> None:
        super().__init__("Unsupported protocol version", data={"supported": list(supported), "requested": requested})
        self.requested = requested
        self.supported = supported


class ToolError(GarrisonError):
    """Raised by a tool to tell the model what went wrong. The text is sent, as a result with `isError`."""

    missing: ClassVar[bool] = False
    """What was asked for is not there, or not for this caller. A resource whose handler raises it is not found."""


class Refused(GarrisonError):
    """The transport turned the peer away. `message` is sent; `hint` names the setting and is only logged."""

    status: int = 400
    event: ClassVar[str] = "http.refused"
    retry_after: int = 0
    """Seconds after which the same request may be tried again; 0 says nothing. HTTP: Retry-After."""
    challenge: bytes = b""
    """HTTP header lines that say which credential is needed, each ended with CRLF."""
    allow: bytes = b""
    """With 405: the methods that are served there; empty for those of the endpoint."""
    reply: bytes = b""
    """HTTP header lines that the answer carries beside its own."""
    peer: str = ""
    """The address of who was refused, for the log."""
    told: bool = False
    """It is on record already, by whoever knows more of it than the peer is told."""

    def __init__(self, message: str, *, hint: str = "", status: int | None = None) -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint
        if status is not None:
            self.status = status


class HostRefused(Refused):
    """The Host header is not one this listener answers to. RFC 9110 section 7.4."""

    status = 421
    event = "host.refused"


class OriginRefused(Refused):
    """The Origin header is not on the list. Spec: 2026-07-28 streamable-http, "Security & Endpoint"."""

    status = 403
    event = "origin.refused"


class Unauthenticated(Refused):
    """The request carries no valid token."""

    status = 401
    event = "auth.refused"
    challenge = b"www-authenticate: Bearer\r\n"


class Forbidden(Refused):
    """The request carries a valid token that does not allow it."""

    status = 403
    event = "auth.forbidden"


class BadRequest(Refused):
    """The request breaks an HTTP rule; `status` says which."""

    event = "http.bad_request"


class Overloaded(Refused):
    """A bounded resource is used up; try again later."""

    status = 503
    event = "limit.reached"
    retry_after: int = 1


class ClientError(GarrisonError):
    """What a client's caller sees when a request does not end with a result."""


class ConnectionFailed(ClientError):
    """No connection was made: wrong address, refused, or the server process did not start."""


class ConnectionLost(ClientError):
    """The connection ended while an answer was due. The request may or may not have been carried out."""


class RequestTimeout(ClientError):
    """No answer in time. The server was told that the request is cancelled. `setting` is what would allow more."""

    def __init__(self, method: str, seconds: float, *, setting: str = "set timeout= on the call or the client") -> None:
        super().__init__(f"{method} was not answered within {seconds:g} s ({setting})")
        self.method = method
        self.seconds = seconds


class ProtocolViolation(ClientError):
    """The peer sent something the protocol does not allow."""


class OutputInvalid(ProtocolViolation):
    """The structured content of a tool result breaks the tool's own outputSchema."""


class HttpError(ClientError):
    """The server answered with an HTTP status that carries no MCP answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class AuthenticationRequired(HttpError):
    """The server wants a token it did not get (401), or one that allows more (403)."""


class AuthorizationFailed(ClientError):
    """No token could be had: discovery, registration, consent or the token endpoint ended without one.

    Args:
        message: what happened and what to do. Words of a peer stand in it only cleaned and short.
        error: the OAuth error code, where an authorization server named one.
    """

    def __init__(self, message: str, *, error: str | None = None) -> None:
        super().__init__(message)
        self.error = error


class RemoteError(ClientError):
    """The peer answered with a JSON-RPC error. Code, message and data are the peer's words: untrusted text."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data


class InputDeclined(ClientError):
    """The server asked for elicitation, sampling or roots, and this client has no handler for it."""


class NoSuchTool(ClientError):
    """A host shows no tool of this name. Names are whole: `alias.tool`, never the tool alone."""


class NotApproved(ClientError):
    """No person and no policy has allowed this; nothing was sent, started or shown."""


class DefinitionChanged(NotApproved):
    """The tool is not the one that was approved; it is blocked until somebody has seen the difference and agrees."""


class LaunchRefused(NotApproved):
    """A local server was not started: what would be started was not approved, or may not be."""
