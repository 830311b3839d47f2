"""OAuth 2.1 (draft-ietf-oauth-v2-1) as MCP uses it, both sides.

    metadata = ProtectedResourceMetadata("https://mcp.example.com").with_authorization_server("https://auth.example.com")
    server = Server("notes", auth=ResourceServer("https://mcp.example.com/mcp", "https://auth.example.com"))
    client = Client("https://mcp.example.com/mcp", auth=OAuth(client_id="notes-app"))

Here are the types that go over the wire, each usable on its own; `resource` has what protects a server, `client` what
gets tokens, `store` where they are kept.

Rules of this room:
- What a peer sends is checked where it becomes an object: an object of these types keeps what its RFC demands.
- Whatever a peer named is fetched by `SafeFetch`, and by nothing else.
- Secrets (codes, verifiers, tokens, client secrets) print as a mask.
- `import garrison.auth` loads none of it; a name's module is loaded when the name is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .challenge import WwwAuthenticate
    from .client.authentication import ClientSecret, PrivateKeyJwt, PublicClient
    from .client.browser import headless, open_browser
    from .client.endpoint import TokenEndpoint
    from .client.grants import TokenExchange
    from .client.registration import client_metadata_document
    from .client.settings import ClientCredentials, EnterpriseAuthorization, OAuth, WorkloadIdentity
    from .dpop import DpopKey, Nonces, ProofVerifier
    from .errors import OAuthError
    from .metadata import AuthorizationServerMetadata, MetadataError, ProtectedResourceMetadata
    from .pkce import PkceChallenge
    from .requests import AuthorizationConfig, AuthorizationRequest, TokenRequest
    from .resource.api_keys import ApiKeys
    from .resource.certificates import Certificates
    from .resource.grants import Grant
    from .resource.introspection import IntrospectionVerifier
    from .resource.jwt import JwtVerifier
    from .resource.server import ResourceServer
    from .resource.verifier import Confirmation, TokenRefused, TokenVerifier, Verified, VerifierUnavailable
    from .store import CredentialStore, FileStore, KeyringStore, MemoryStore, StoreError, open_store
    from .tokens import CredentialKey, TokenSet

__all__ = [
    "ApiKeys",
    "AuthorizationConfig",
    "AuthorizationRequest",
    "AuthorizationServerMetadata",
    "Certificates",
    "ClientCredentials",
    "ClientSecret",
    "Confirmation",
    "CredentialKey",
    "CredentialStore",
    "DpopKey",
    "EnterpriseAuthorization",
    "FileStore",
    "Grant",
    "IntrospectionVerifier",
    "JwtVerifier",
    "KeyringStore",
    "MemoryStore",
    "MetadataError",
    "Nonces",
    "OAuth",
    "OAuthError",
    "PkceChallenge",
    "PrivateKeyJwt",
    "ProofVerifier",
    "ProtectedResourceMetadata",
    "PublicClient",
    "ResourceServer",
    "StoreError",
    "TokenEndpoint",
    "TokenExchange",
    "TokenRefused",
    "TokenRequest",
    "TokenSet",
    "TokenVerifier",
    "Verified",
    "VerifierUnavailable",
    "WorkloadIdentity",
    "WwwAuthenticate",
    "client_metadata_document",
    "headless",
    "open_browser",
    "open_store",
]

_NAMES: dict[str, tuple[str, ...]] = {
    "challenge": ("WwwAuthenticate",),
    "client.authentication": ("ClientSecret", "PrivateKeyJwt", "PublicClient"),
    "client.browser": ("headless", "open_browser"),
    "client.endpoint": ("TokenEndpoint",),
    "client.grants": ("TokenExchange",),
    "client.registration": ("client_metadata_document",),
    "client.settings": ("ClientCredentials", "EnterpriseAuthorization", "OAuth", "WorkloadIdentity"),
    "dpop": ("DpopKey", "Nonces", "ProofVerifier"),
    "errors": ("OAuthError",),
    "metadata": ("AuthorizationServerMetadata", "MetadataError", "ProtectedResourceMetadata"),
    "pkce": ("PkceChallenge",),
    "requests": ("AuthorizationConfig", "AuthorizationRequest", "TokenRequest"),
    "resource.api_keys": ("ApiKeys",),
    "resource.certificates": ("Certificates",),
    "resource.grants": ("Grant",),
    "resource.introspection": ("IntrospectionVerifier",),
    "resource.jwt": ("JwtVerifier",),
    "resource.server": ("ResourceServer",),
    "resource.verifier": ("Confirmation", "TokenRefused", "TokenVerifier", "Verified", "VerifierUnavailable"),
    "store": ("CredentialStore", "FileStore", "KeyringStore", "MemoryStore", "StoreError", "open_store"),
    "tokens": ("CredentialKey", "TokenSet"),
}
"""The names that each module gives."""

_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # a type checker would otherwise take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
