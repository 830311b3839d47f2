"""The error codes of OAuth, by their registered names."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["OAuthError"]


class OAuthError(StrEnum):
    """What an authorization server or a protected resource calls an error (IANA: OAuth Extensions Error Registry)."""

    # Of a protected resource: RFC 6750 section 3.1, RFC 9449 section 7.1, RFC 9470 section 3
    INVALID_REQUEST = "invalid_request"
    INVALID_TOKEN = "invalid_token"  # noqa: S105 - the name of an error
    INSUFFICIENT_SCOPE = "insufficient_scope"
    INSUFFICIENT_USER_AUTHENTICATION = "insufficient_user_authentication"
    INVALID_DPOP_PROOF = "invalid_dpop_proof"
    USE_DPOP_NONCE = "use_dpop_nonce"
    # Of a token endpoint: RFC 6749 section 5.2, RFC 8707 section 2
    INVALID_CLIENT = "invalid_client"
    INVALID_GRANT = "invalid_grant"
    UNAUTHORIZED_CLIENT = "unauthorized_client"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    INVALID_SCOPE = "invalid_scope"
    INVALID_TARGET = "invalid_target"
    # Of an authorization endpoint: RFC 6749 section 4.1.2.1, OpenID Connect Core section 3.1.2.6
    ACCESS_DENIED = "access_denied"
    UNSUPPORTED_RESPONSE_TYPE = "unsupported_response_type"
    SERVER_ERROR = "server_error"
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"
    LOGIN_REQUIRED = "login_required"
    CONSENT_REQUIRED = "consent_required"
    INTERACTION_REQUIRED = "interaction_required"
    # Of a registration endpoint: RFC 7591 section 3.2.2
    INVALID_REDIRECT_URI = "invalid_redirect_uri"
    INVALID_CLIENT_METADATA = "invalid_client_metadata"
