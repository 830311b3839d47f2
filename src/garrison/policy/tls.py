"""TLS settings of both ends: values only; `transports/tls.py` makes contexts of them.

Rules of this file:
- TLS 1.2 is the least there is; certificates and host names are verified, and no setting turns that off.
- Keys and certificates are files. A key that others can read is refused when it is loaded.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigurationError

__all__ = ["TlsClientConfig", "TlsServerConfig", "check_minimum", "check_reload"]

_Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsServerConfig:
    """How a listener proves who it is, and what it asks of clients.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    certificate: _Path
    """PEM file of the certificate, followed by its chain."""
    key: _Path
    """PEM file of the private key; refused if its group or others can read it."""
    client_ca: _Path | None = None
    """PEM file of the roots that client certificates must chain to. Given: every client must show one (mutual TLS)."""
    minimum: Literal["1.2", "1.3"] = "1.2"
    """The oldest version of TLS that is spoken."""
    reload: float = 5.0
    """Seconds between looks at the files. New ones are used for new connections; those that do not fit are not."""

    def __post_init__(self) -> None:
        check_minimum("TlsServerConfig.minimum", self.minimum)
        check_reload("TlsServerConfig.reload", self.reload)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsClientConfig:
    """Whom a client believes, and how it proves who it is.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    ca: _Path | None = None
    """PEM file of the roots to believe, in place of the platform's."""
    certificate: _Path | None = None
    """PEM file of the client's certificate and its chain (mutual TLS)."""
    key: _Path | None = None
    """PEM file of the certificate's private key; refused if its group or others can read it."""
    pins: tuple[str, ...] = ()
    """SHA-256 of public keys (SPKI) in Base64, one of which the server's certificate must have, beside being valid.
    RFC 7469 section 2.4 has the form."""
    minimum: Literal["1.2", "1.3"] = "1.2"
    """The oldest version of TLS that is spoken."""

    def __post_init__(self) -> None:
        check_minimum("TlsClientConfig.minimum", self.minimum)
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("TlsClientConfig.certificate and .key belong together")
        for pin in self.pins:
            try:
                good = len(base64.b64decode(pin, validate=True)) == 32
            except (binascii.Error, ValueError):
                good = False
            if not good:
                raise ConfigurationError("TlsClientConfig.pins: each is the Base64 of a SHA-256, 44 characters")


def check_minimum(setting: str, minimum: str) -> None:
    """Refuse what is no version of TLS that is spoken.

    Raises:
        ConfigurationError: with the setting's name.
    """
    if minimum not in ("1.2", "1.3"):
        raise ConfigurationError(f'{setting} must be "1.2" or "1.3"')


def check_reload(setting: str, seconds: float) -> None:
    """Refuse what is no time between looks at files.

    Raises:
        ConfigurationError: with the setting's name.
    """
    if type(seconds) not in (int, float) or not 0 < seconds < float("inf"):
        raise ConfigurationError(f"{setting} must be a positive number of seconds")
