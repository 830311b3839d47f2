"""Who asks over HTTP: what a listener takes for a proof of it.

Rules of this file:
- A credential is taken from the Authorization field, or from the connection's own certificate, and from nowhere else.
- Secrets are compared in constant time.
"""

from __future__ import annotations

import hmac
import time
from typing import TYPE_CHECKING, Protocol

from ..errors import Unauthenticated
from ..policy.principal import ANONYMOUS, HOLDER, Principal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..transports.http.exchange import Head
    from ..transports.peer import Credential

__all__ = ["Authenticator", "Certified", "NobodyAsked", "OneToken"]


class Authenticator(Protocol):
    """Finds out who asks."""

    lasting: bool
    """Its verdict depends on the head alone."""

    def authenticate(self, head: Head) -> None:
        """Say in the head who sends it (`principal`), and by what (`credential`); or in `pending` when to ask again.

        Raises:
            Refused: nobody who may ask.
        """
        ...


class NobodyAsked:
    """Takes everybody."""

    lasting = True

    def authenticate(self, head: Head) -> None:
        head.principal = ANONYMOUS


class OneToken:
    """Takes the one token of a listener.

    Args:
        token: it.
    """

    lasting = True

    def __init__(self, token: str) -> None:
        self._authorization = b"Bearer " + token.encode()
        self._token = token.encode()

    def authenticate(self, head: Head) -> None:
        given = head.fields.get(b"authorization", b"")
        if not hmac.compare_digest(given, self._authorization):
            scheme, _, token = given.partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(token, self._token):
                raise Unauthenticated(
                    "A bearer token is required", hint="the token printed at start, --token, GARRISON_TOKEN"
                )
        head.principal = HOLDER


class Certified:
    """Takes who is named by a client certificate that was verified.

    Args:
        identity: the name in a certificate.
        until: makes the credential that ends at a time.
        token: asked for besides; None asks for none.
    """

    lasting = False

    def __init__(
        self,
        identity: Callable[[Mapping[str, object]], str | None],
        until: Callable[[float], Credential],
        token: str | None,
    ) -> None:
        self._identity = identity
        self._until = until
        self._token = None if token is None else OneToken(token)

    def authenticate(self, head: Head) -> None:
        if self._token is not None:
            self._token.authenticate(head)
        peer = head.peer
        name = None if peer.certificate is None else self._identity(peer.certificate)
        credential = self._until(peer.expires)
        if credential.left(time.time()) <= 0.0:
            raise Unauthenticated("The client's certificate has expired", hint="TlsServerConfig.client_ca")
        if name is None:
            raise Unauthenticated("The client's certificate names nobody", hint="TlsServerConfig.client_ca")
        head.principal = Principal(f"certificate:{name}")
        head.credential = credential
