"""OAuth 2.1 (draft-ietf-oauth-v2-1) as MCP uses it: the types that go over the wire, each usable on its own.

    metadata = ProtectedResourceMetadata("https://mcp.example.com").with_authorization_server("https://auth.example.com")

Rules of this room:
- What a peer sends is checked where it becomes an object: an object of these types keeps what its RFC demands.
- Nothing here opens a connection or knows the time; who calls does.
- Secrets (codes, verifiers, tokens, client secrets) print as a mask.
"""

from __future__ import annotations

from .challenge import WwwAuthenticate
from .errors import OAuthError
from .metadata import AuthorizationServerMetadata, MetadataError, ProtectedResourceMetadata
from .pkce import PkceChallenge
from .requests import AuthorizationConfig, AuthorizationRequest, TokenRequest

__all__ = [
    "AuthorizationConfig",
    "AuthorizationRequest",
    "AuthorizationServerMetadata",
    "MetadataError",
    "OAuthError",
    "PkceChallenge",
    "ProtectedResourceMetadata",
    "TokenRequest",
    "WwwAuthenticate",
]
