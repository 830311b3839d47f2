"""Client certificates as identities (mutual TLS): which names may come in, and as whom.

Rules of this file:
- The transport verified the certificate, up to a root of `TlsServerConfig.client_ca`. That alone lets nobody in: its
  name has to be listed.
- A name is compared as it is written. There are no wildcards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast, final

from ...errors import ConfigurationError
from ...policy.principal import Principal
from .grants import Grant

__all__ = ["CertificateCredential", "Certificates"]

_KIND: Final = "certificate"


class Certificates:
    """Who is who, by the name in the verified client certificate.

    Args:
        grants: by name: the certificate's first URI, else DNS name, else mail address; the common name only of a
            certificate that has no subjectAltName.

    Raises:
        ConfigurationError: there is none, or a name or grant is not of its form.
    """

    __slots__ = ("_known",)

    def __init__(self, grants: Mapping[str, Grant]) -> None:
        self._known: dict[str, Grant] = dict(grants)
        if not self._known:
            raise ConfigurationError("Certificates: at least one name is needed")
        for name, grant in cast("dict[object, object]", self._known).items():
            if type(name) is not str or not name or not name.isprintable():
                raise ConfigurationError("Certificates: each name is a printable text that is not empty")
            if type(grant) is not Grant:
                raise ConfigurationError("Certificates: each value is a Grant")

    def principal(self, name: str) -> Principal | None:
        """Who has this name in the verified certificate; None where it is not listed.

        Args:
            name: as `transports.tls.certificate_name` gives it.
        """
        grant = self._known.get(name)
        return None if grant is None else grant.principal(_KIND)

    def revoke(self, name: str) -> bool:
        """Let nobody in by this name, from now on. False if it was not listed."""
        return self._known.pop(name, None) is not None

    def __repr__(self) -> str:
        return f"Certificates({', '.join(sorted(self._known))})"


@final
class CertificateCredential:
    """A certificate that was shown, as long as it lasts and its name is listed.

    Args:
        certificates, name: where it has to be listed.
        expires: when it ends, in seconds of `time.time`.
        recheck: seconds after which to look again.
    """

    __slots__ = ("_certificates", "_expires", "_name", "_recheck")

    def __init__(self, certificates: Certificates, name: str, expires: float, recheck: float) -> None:
        self._certificates = certificates
        self._name = name
        self._expires = expires
        self._recheck = recheck

    def left(self, now: float) -> float:
        """See `transports.peer.Credential`."""
        if self._certificates.principal(self._name) is None:
            return 0.0
        return min(self._expires - now, self._recheck)
