"""Grants without a person at a browser: a program's own credential, a platform's assertion, one token for another.

Rules of this file:
- The identity provider and the authorization server are those of the configuration. What an MCP server says of them
  can end an exchange, and never leads one elsewhere.
- What is refused is refused: no grant is tried in place of another.
- An assertion is used at once, for the one request that it was got for, and not kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, final

from ...errors import ConfigurationError
from ...policy.secret import Secret
from ..requests import TokenRequest
from ..urls import check_url
from .words import refused

if TYPE_CHECKING:
    from ..metadata import ProtectedResourceMetadata
    from ..tokens import TokenSet
    from .endpoint import TokenEndpoint

__all__ = [
    "ACCESS_TOKEN",
    "ID_JAG",
    "ID_TOKEN",
    "JWT",
    "SAML2",
    "EnterpriseGrant",
    "TokenExchange",
    "client_credentials",
    "jwt_bearer",
]

_TYPE: Final = "urn:ietf:params:oauth:token-type:"
ACCESS_TOKEN: Final = _TYPE + "access_token"
"""Kinds of tokens (RFC 8693 section 3)."""
ID_TOKEN: Final = _TYPE + "id_token"
JWT: Final = _TYPE + "jwt"
SAML2: Final = _TYPE + "saml2"
ID_JAG: Final = _TYPE + "id-jag"
"""An identity assertion for another authorization server (draft-ietf-oauth-identity-assertion-authz-grant)."""


def _joined(scopes: Iterable[str]) -> str | None:
    return " ".join(scopes) or None


async def client_credentials(endpoint: TokenEndpoint, resource: str, *, scopes: Iterable[str] = ()) -> TokenSet:
    """A token for the client itself (RFC 6749 section 4.4; MCP extension oauth-client-credentials).

    Args:
        endpoint: where, and who asks.
        resource: the identifier of the MCP server.
        scopes: what to ask for; none leaves it to the server.

    Raises:
        As `TokenEndpoint.request`; ValueError: `resource` or a scope is not of its form.
    """
    return await endpoint.request(TokenRequest.client_credentials(resource, scope=_joined(scopes)))


async def jwt_bearer(
    endpoint: TokenEndpoint, assertion: Secret, resource: str, *, scopes: Iterable[str] = ()
) -> TokenSet:
    """A token for whom a JWT of another party names: a workload of a platform, say (RFC 7523 section 2.1, SEP-1933).

    Args:
        endpoint: where, and who asks.
        assertion: the JWT. It goes to the token endpoint and nowhere else.
        resource: the identifier of the MCP server.
        scopes: what to ask for; none leaves it to the server.

    Raises:
        As `TokenEndpoint.request`; ValueError: a part is not of its form.
    """
    return await endpoint.request(TokenRequest.jwt_bearer(assertion.reveal(), resource, scope=_joined(scopes)))


@final
class TokenExchange:
    """Gets tokens for the servers behind one's own, in place of handing on what a caller sent (RFC 8693).

    Args:
        endpoint: where, and who asks.
        subject_token_type: what the tokens are that are given.
    """

    def __init__(self, endpoint: TokenEndpoint, *, subject_token_type: str = ACCESS_TOKEN) -> None:
        self._endpoint = endpoint
        self._kind = subject_token_type

    async def exchange(
        self,
        subject_token: Secret,
        *,
        audience: str | None = None,
        resource: str | None = None,
        scopes: Iterable[str] = (),
    ) -> TokenSet:
        """An access token for another server, about the same person.

        Args:
            subject_token: the token of the caller. It goes to the token endpoint and nowhere else.
            audience, resource: the other server, by its name or by its URL; one of them at least.
            scopes: what to ask for; none leaves it to the authorization server.

        Raises:
            As `TokenEndpoint.request`; AuthorizationFailed also where the answer is no access token, or the very
            token that was given; ValueError: a part is not of its form.
        """
        request = TokenRequest.token_exchange(
            subject_token.reveal(),
            self._kind,
            audience=audience,
            resource=resource,
            scope=_joined(scopes),
            requested_token_type=ACCESS_TOKEN,
        )
        found = await self._endpoint.request(request)
        issuer = self._endpoint.server.issuer
        if found.issued_token_type not in (ACCESS_TOKEN, JWT):
            raise refused(f"The answer of {issuer} cannot be used: issued_token_type is no access token")
        if found.access_token == subject_token:
            raise refused(f"The answer of {issuer} cannot be used: it is the token that was to be exchanged")
        return found


@final
class EnterpriseGrant:
    """A token that a company's identity provider vouches for (MCP extension enterprise-managed-authorization, SEP-990).

    All of this comes from whoever runs the client, and nothing of it from an MCP server.

    Args:
        idp: the identity provider, and how this client is known there.
        endpoint: the authorization server of the MCP server, and how this client is known there.
        resource: the identifier of the MCP server.
        subject_token_type: `ID_TOKEN` or `SAML2`.

    Raises:
        ConfigurationError: a part is not of its form.
    """

    def __init__(
        self, idp: TokenEndpoint, endpoint: TokenEndpoint, resource: str, *, subject_token_type: str = ID_TOKEN
    ) -> None:
        try:
            check_url(resource, "EnterpriseGrant.resource")
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None
        if subject_token_type not in (ID_TOKEN, SAML2):
            raise ConfigurationError("EnterpriseGrant.subject_token_type must be ID_TOKEN or SAML2")
        self._idp = idp
        self._endpoint = endpoint
        self._resource = resource
        self._kind = subject_token_type

    async def request(
        self,
        subject_token: Secret,
        *,
        scopes: Iterable[str] = (),
        metadata: ProtectedResourceMetadata | None = None,
    ) -> TokenSet:
        """Exchange what the person signed in with for an assertion, and that for a token.

        Args:
            subject_token: the ID token or SAML assertion. It goes to the identity provider and nowhere else.
            scopes: what to ask for; none leaves it to the servers.
            metadata: what the MCP server says of itself, where it was asked. When that names another resource or not
                the configured authorization server, nothing is sent.

        Raises:
            As `TokenEndpoint.request` and `TokenEndpoint.assertion`; ValueError: a part is not of its form.
        """
        issuer = self._endpoint.server.issuer
        if metadata is not None:
            if metadata.resource != self._resource:
                raise refused("The MCP server is another resource than the configured one", setting="resource")
            if issuer not in metadata.authorization_servers:
                raise refused(f"The MCP server does not take tokens of {issuer}, the configured one", setting="issuer")
        scope = _joined(scopes)
        exchange = TokenRequest.token_exchange(
            subject_token.reveal(),
            self._kind,
            audience=issuer,
            resource=self._resource,
            scope=scope,
            requested_token_type=ID_JAG,
        )
        assertion = await self._idp.assertion(exchange, ID_JAG)
        return await self._endpoint.request(TokenRequest.jwt_bearer(assertion.reveal(), self._resource, scope=scope))
