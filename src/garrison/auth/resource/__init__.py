"""A protected server: it checks the tokens that clients show (RFC 6750, RFC 9728).

Rules of this room:
- A credential is checked by what issued it: each issuer has its own keys, its own audience and its own verifier, and
  what one of them says of a subject means nothing to another.
- What cannot be checked is refused.
"""

from __future__ import annotations

from .api_keys import ApiKeys
from .certificates import Certificates
from .grants import Grant
from .introspection import IntrospectionVerifier
from .jwks import JwksCache
from .jwt import JwtVerifier
from .verifier import Confirmation, TokenRefused, TokenVerifier, Verified, VerifierUnavailable

__all__ = [
    "ApiKeys",
    "Certificates",
    "Confirmation",
    "Grant",
    "IntrospectionVerifier",
    "JwksCache",
    "JwtVerifier",
    "TokenRefused",
    "TokenVerifier",
    "Verified",
    "VerifierUnavailable",
]
