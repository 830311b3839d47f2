"""Metadata of protected resources (RFC 9728) and of authorization servers (RFC 8414, OpenID Connect Discovery).

Rules of this file:
- A document counts only for the identifier that it was asked for: `read` compares the two as they are written.
- Every address in it is https, or http on loopback; one that is not makes the document unusable.
- Members that are not known are left out; a known one of a wrong type makes the document unusable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec

from ..errors import ParseError
from ..policy.limits import Limits
from ..protocol.json import decoder
from .urls import check_issuer, check_url

__all__ = ["MAX_BYTES", "AuthorizationServerMetadata", "MetadataError", "ProtectedResourceMetadata"]

MAX_BYTES: Final = 256 * 1024
"""Bytes of a document."""

_decode = decoder(Limits(json_depth=16, json_nodes=10_000, json_members=1_000, json_items=2_000))
T = TypeVar("T")


class MetadataError(ValueError):
    """The document cannot be used. The message names the member and never repeats what a peer wrote."""


class ProtectedResourceMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a protected resource says of itself (RFC 9728 section 2).

    Raises:
        ValueError: an address is not https or not loopback, or a value is not allowed.
    """

    resource: str
    """The identifier of the resource: what clients name in `resource=`, and tokens in `aud`."""
    authorization_servers: tuple[str, ...] = ()
    """Issuers of whom tokens are taken."""
    scopes_supported: tuple[str, ...] | None = None
    """The scopes that a client needs for ordinary work; nothing broader."""
    bearer_methods_supported: tuple[str, ...] = msgspec.field(default_factory=lambda: ("header",))
    """How a token may be sent: `header` alone."""
    resource_name: str | None = None
    """For people."""
    resource_documentation: str | None = None
    """A page for developers."""
    jwks_uri: str | None = None
    """Keys of the resource itself."""
    dpop_signing_alg_values_supported: tuple[str, ...] | None = None
    """Algorithms of DPoP proofs (RFC 9449 section 5.1)."""
    dpop_bound_access_tokens_required: bool = False
    """Tokens are taken with a DPoP proof only."""
    tls_client_certificate_bound_access_tokens: bool = False
    """Tokens are bound to client certificates (RFC 8705)."""

    def __post_init__(self) -> None:
        check_url(self.resource, "resource")
        for issuer in self.authorization_servers:
            check_issuer(issuer, "authorization_servers")
        for name in ("resource_documentation", "jwks_uri"):
            url: str | None = getattr(self, name)
            if url is not None:
                check_url(url, name)

    def with_authorization_server(self, issuer: str) -> ProtectedResourceMetadata:
        """The same, with one more authorization server."""
        return msgspec.structs.replace(self, authorization_servers=(*self.authorization_servers, issuer))

    def with_scopes(self, scopes: Iterable[str]) -> ProtectedResourceMetadata:
        """The same, with these scopes."""
        return msgspec.structs.replace(self, scopes_supported=tuple(scopes))

    def to_json(self) -> bytes:
        """The document. Its `authorization_servers` and `bearer_methods_supported` are always there.

        Raises:
            MetadataError: no authorization server is named, which MCP demands.
        """
        if not self.authorization_servers:
            raise MetadataError("authorization_servers: at least one is needed")
        members: dict[str, object] = {**msgspec.to_builtins(self)}
        members["bearer_methods_supported"] = self.bearer_methods_supported
        return msgspec.json.encode(members)

    @classmethod
    def read(cls, document: bytes, resource: str) -> ProtectedResourceMetadata:
        """The metadata in a document that was found for a resource.

        Args:
            document: its bytes.
            resource: the identifier that it was looked up for; RFC 9728 section 3.3 demands the same one inside.

        Raises:
            MetadataError: it is none, it is of another resource, or it names no authorization server.
        """
        found = _read(document, cls)
        if found.resource != resource:
            raise MetadataError("resource: the document is of another resource")
        if not found.authorization_servers:
            raise MetadataError("authorization_servers: none is named")
        return found


class AuthorizationServerMetadata(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What an authorization server says of itself (RFC 8414 section 2).

    Raises:
        ValueError: an address is neither https nor loopback.
    """

    issuer: str
    """The identifier of the server: `iss` of its tokens and answers."""
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    jwks_uri: str | None = None
    registration_endpoint: str | None = None
    revocation_endpoint: str | None = None
    introspection_endpoint: str | None = None
    pushed_authorization_request_endpoint: str | None = None
    scopes_supported: tuple[str, ...] | None = None
    response_types_supported: tuple[str, ...] = ()
    grant_types_supported: tuple[str, ...] = ("authorization_code", "implicit")
    """What RFC 8414 says where it is absent."""
    code_challenge_methods_supported: tuple[str, ...] | None = None
    """PKCE methods. Absent: the server may not know PKCE."""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    token_endpoint_auth_signing_alg_values_supported: tuple[str, ...] | None = None
    dpop_signing_alg_values_supported: tuple[str, ...] | None = None
    authorization_response_iss_parameter_supported: bool = False
    """Answers name their issuer (RFC 9207 section 3)."""
    client_id_metadata_document_supported: bool = False
    """A client may be known by the URL of a document about it."""

    def __post_init__(self) -> None:
        check_issuer(self.issuer, "issuer")
        for name in _ENDPOINTS:
            url: str | None = getattr(self, name)
            if url is not None:
                check_url(url, name)

    @property
    def has_pkce(self) -> bool:
        """Whether it says that it checks PKCE with S256. MCP clients go no further where it does not."""
        return "S256" in (self.code_challenge_methods_supported or ())

    def to_json(self) -> bytes:
        """The document."""
        return msgspec.json.encode(
            {**msgspec.to_builtins(self), "response_types_supported": self.response_types_supported}
        )

    @classmethod
    def read(cls, document: bytes, issuer: str) -> AuthorizationServerMetadata:
        """The metadata in a document that was found for an issuer.

        Args:
            document: its bytes.
            issuer: the identifier that it was looked up for; RFC 8414 section 3.3 demands the same one inside.

        Raises:
            MetadataError: it is none, or it is of another issuer.
        """
        found = _read(document, cls)
        if found.issuer != issuer:
            raise MetadataError("issuer: the document is of another issuer")
        return found


_ENDPOINTS: Final = (
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "registration_endpoint",
    "revocation_endpoint",
    "introspection_endpoint",
    "pushed_authorization_request_endpoint",
)


def _read(document: bytes, kind: type[T]) -> T:
    if len(document) > MAX_BYTES:
        raise MetadataError(f"metadata of more than {MAX_BYTES} bytes")
    try:
        return msgspec.convert(_decode(document), kind)
    except ParseError as exc:
        raise MetadataError(exc.message) from None
    except msgspec.ValidationError as exc:
        # Its text is ours or msgspec's: the rule and the path, never a value.
        raise MetadataError(str(exc)) from None
