"""TLS of both ends: contexts made of files, what a certificate says, and what a failure means.

Rules of this file:
- TLS 1.2 is the least there is, with ephemeral keys and AEAD only; no compression, no renegotiation, no session tickets
  (a resumed session would not be asked for its certificate again, and their keys would live as long as the process).
- The environment changes nothing: roots are the files that OpenSSL was built to look for, or else the well-known
  bundles, without `SSL_CERT_FILE` and `SSL_CERT_DIR`; and no keys are logged for `SSLKEYLOGFILE`.
- A file is opened once, and OpenSSL reads what was opened and checked. Keys never become Python objects.
- A context that serves is never loaded into. New files make a new context, which is used once all of it is good.
- This module is imported where TLS is first needed; `cryptography` where a certificate is first read.

TLS itself is OpenSSL's, as the interpreter brings it; CPython has no other.

Spec: RFC 8446; RFC 9325; RFC 5280; RFC 9525 (names); RFC 7469 section 2.4 (pins).
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from typing import TYPE_CHECKING, Final, cast

from .. import events
from ..errors import ConfigurationError, ConnectionFailed, ConnectionLost, InsecureConfigurationError
from ..policy.files import opened
from ..policy.tls import TlsClientConfig, TlsServerConfig

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from ..errors import ClientError

    _Path = str | os.PathLike[str]

__all__ = [
    "Rotation",
    "certificate_name",
    "check_pins",
    "client_context",
    "ended",
    "explain",
    "peer_certificate",
    "server_context",
]

_ALPN: Final = ("http/1.1",)
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: RFC 9325 section 4.2. Those of TLS 1.3 are all good, and not chosen here."""
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_MOST: Final = 1024 * 1024
"""Bytes of a certificate with its chain."""
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Gentoo
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",  # older RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, OpenBSD
    "/usr/local/share/certs/ca-root-nss.crt",  # FreeBSD
)
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""How OpenSSL finds a root in a directory without reading the others."""


def server_context(config: TlsServerConfig, alpn: Sequence[str] = _ALPN) -> ssl.SSLContext:
    """The context of a listener.

    Args:
        config: its files.
        alpn: the protocols that it speaks. RFC 7301.

    Raises:
        ConfigurationError: a file cannot be used; the message names the setting.
        InsecureConfigurationError: others can read the key, or change a file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, config.minimum, alpn)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    context.num_tickets = 0
    _load_pair(context, "TlsServerConfig", config.certificate, config.key)
    if config.client_ca is not None:
        _load_roots(context, "TlsServerConfig.client_ca", config.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: TlsClientConfig | ssl.SSLContext | None = None) -> ssl.SSLContext:
    """The context of a client: it verifies the server's certificate and its name.

    Args:
        tls: whom to believe; the platform's roots when not given. A context that was made elsewhere is looked at, and
            used as it is.

    Raises:
        ConfigurationError: a file cannot be used, or there are no roots; the message names the setting.
        InsecureConfigurationError: others can read the key or change a file, or the given context verifies nothing.
    """
    if isinstance(tls, ssl.SSLContext):
        return _checked(tls)
    config = TlsClientConfig() if tls is None else tls
    context = _platform_context() if config.ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context, config.minimum, _ALPN)
    if config.ca is not None:
        _load_roots(context, "TlsClientConfig.ca", config.ca)
    if config.certificate is not None and config.key is not None:
        _load_pair(context, "TlsClientConfig", config.certificate, config.key)
    return context


class Rotation:
    """A listener's context, replaced when its files are.

    New connections use `context`; those that are open, or still in their handshake, keep the one they began with.

    Args:
        config: the files.
        alpn: as for `server_context`.

    Raises:
        ConfigurationError: as for `server_context`; only here. Later on, files that do not fit are not used.
    """

    def __init__(self, config: TlsServerConfig, alpn: Sequence[str] = _ALPN) -> None:
        self._config = config
        self._alpn = alpn
        self._used: tuple[tuple[int, ...], ...] = self._marks()
        self._complaint = ""
        self.context = server_context(config, alpn)
        """For the next connection."""

    def look(self) -> None:
        """Takes new files, if there are any and they fit each other. Costs a `stat` of each; never raises.

        While they do not fit, as when only one of a pair has been replaced, the old context stays in use, and every
        look tries again. What is wrong is recorded once (`tls.failed`), and so is a success (`tls.reloaded`).
        """
        marks = self._marks()
        if marks == self._used:
            self._complaint = ""
            return
        try:
            context = server_context(self._config, self._alpn)
        except ConfigurationError as exc:
            if str(exc) != self._complaint:
                self._complaint = str(exc)
                events.record("tls.failed", f"{exc}; what was read before stays in use", setting="TlsServerConfig")
            return
        # The marks were taken before the files were read: what changed meanwhile is seen by the next look.
        self.context, self._used, self._complaint = context, marks, ""
        events.record("tls.reloaded", "new connections get the new certificate", setting="TlsServerConfig")

    def _marks(self) -> tuple[tuple[int, ...], ...]:
        """What changes with the files. The time of change is in it, because it also tells of a key laid open."""
        config = self._config
        marks: list[tuple[int, ...]] = []
        for path in (config.certificate, config.key, config.client_ca):
            try:
                found = os.stat(path) if path is not None else None
            except OSError:
                found = None
            marks.append(
                (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) if found else ()
            )
        return tuple(marks)


# What the other side showed.


def check_pins(ssl_object: ssl.SSLObject | ssl.SSLSocket, pins: Sequence[str]) -> None:
    """Compares the server's key with the pins. To be called after the handshake, before anything is written.

    Args:
        ssl_object: what `transport.get_extra_info("ssl_object")` gives.
        pins: of `TlsClientConfig.pins`; none: nothing is compared.

    Raises:
        ConnectionFailed: the key has none of them.

    Spec: RFC 7469 section 2.4, the leaf's key only.
    """
    if not pins:
        return
    import hashlib
    from base64 import b64decode
    from hmac import compare_digest

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import load_der_x509_certificate

    shown = ssl_object.getpeercert(binary_form=True)
    if shown is None:
        raise ConnectionFailed("The server showed no certificate to compare with TlsClientConfig.pins")
    key = load_der_x509_certificate(shown).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    if not sum(compare_digest(digest, b64decode(pin)) for pin in pins):
        raise ConnectionFailed(
            "The server's key is none of TlsClientConfig.pins: nothing was sent. If the server has a new key, get its "
            "pin from whoever runs it, and not over this connection"
        )


def peer_certificate(transport: asyncio.BaseTransport) -> Mapping[str, object] | None:
    """The verified certificate of the other side, as `ssl.SSLSocket.getpeercert` gives it; None where none was asked
    for, or the connection is not TLS."""
    return transport.get_extra_info("peercert") or None


def certificate_name(certificate: Mapping[str, object]) -> str | None:
    """The identity in a verified certificate, as one text: its first URI, else DNS name, else mail address; the common
    name only of a certificate that has no subjectAltName. None: there is no such name, or it cannot be printed.

    Spec: RFC 5280 section 4.2.1.6; RFC 9525 section 2 (common names are the past).
    """
    alternatives = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    subject = cast("tuple[tuple[tuple[str, str], ...], ...]", certificate.get("subject", ()))
    names = alternatives or tuple(pair for group in subject for pair in group)
    for kind in ("URI", "DNS", "email") if alternatives else ("commonName",):
        for found, value in names:
            if found == kind:
                return value if value and value.isprintable() else None
    return None


_CERTIFICATE_FAULTS: Final[Mapping[int, str]] = {
    9: "is not valid yet (are the clocks right?)",
    10: "has expired; whoever runs the server has to renew it",
    18: "is self-signed; if that is known, believe it by tls=TlsClientConfig(ca=FILE)",
    19: "leads to a root that is not believed; if that is known, believe it by tls=TlsClientConfig(ca=FILE)",
    20: "leads to no root that is believed; if it should, name its root by tls=TlsClientConfig(ca=FILE)",
    21: "leads to no root that is believed; if it should, name its root by tls=TlsClientConfig(ca=FILE)",
    62: "is for another host; use a name that it is for",
    64: "is for another address; use a name that it is for",
}
"""By the numbers of `X509_verify_cert_error_string`."""
_CLIENT_UNKNOWN: Final = "the server wants a client certificate; give one by tls=TlsClientConfig(certificate=, key=)"
_CLIENT_REFUSED: Final = "the server refused the client certificate of TlsClientConfig.certificate"
_TOO_OLD: Final = "the server speaks no version of TLS that is allowed (TlsClientConfig.minimum)"
_NOT_TLS: Final = "the server does not speak TLS on this port"
_FAULTS: Final[Mapping[str, str]] = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _CLIENT_UNKNOWN,
    "SSLV3_ALERT_BAD_CERTIFICATE": _CLIENT_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _CLIENT_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _CLIENT_REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _CLIENT_REFUSED,
    "TLSV1_ALERT_UNKNOWN_CA": _CLIENT_REFUSED,
    "NO_PROTOCOLS_AVAILABLE": _TOO_OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _TOO_OLD,
    "UNSUPPORTED_PROTOCOL": _TOO_OLD,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the server agreed to no cipher of ours, or wants a client certificate "
    "(tls=TlsClientConfig(certificate=, key=))",
    "HTTP_REQUEST": _NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": _NOT_TLS,
    "RECORD_LAYER_FAILURE": _NOT_TLS,
    "WRONG_VERSION_NUMBER": _NOT_TLS,
}
"""By the names that OpenSSL gives to its reasons."""


def explain(error: ssl.SSLError) -> str:
    """What a failed handshake means to the client's user, and which setting helps. Nothing in it is the server's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = _CERTIFICATE_FAULTS.get(error.verify_code)
        return f"the server's certificate {why or f'was not accepted: {error.verify_message}'}"
    reason = getattr(error, "reason", None) or ""
    return _FAULTS.get(reason) or f"TLS failed ({reason or type(error).__name__})"


def ended(what: str, error: Exception | None, *, fresh: bool) -> ClientError:
    """What the end of a client's connection means to the request that was under way.

    Args:
        what: how to say that it ended.
        error: what the loop knows.
        fresh: nothing ever came on this connection. With TLS 1.3 a server that refuses the client's certificate, or
            misses it, says so only after the client's side of the handshake is done; many just go.
    """
    if isinstance(error, ssl.SSLError):
        why = explain(error)
        return ConnectionFailed(why) if fresh else ConnectionLost(f"{what}: {why}")
    if fresh:
        what += "; if the server wants a client certificate, give one by tls=TlsClientConfig(certificate=, key=)"
    return ConnectionLost(what)


# Contexts.


def _harden(context: ssl.SSLContext, minimum: str, alpn: Sequence[str]) -> None:
    context.minimum_version = _VERSIONS[minimum]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # What Python's own default context does from 3.13 on: RFC 5280 to the letter; any listed certificate is an anchor.
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(list(alpn))


def _checked(context: ssl.SSLContext) -> ssl.SSLContext:
    """A context that somebody else made, if it is one to connect with."""
    if context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname:
        raise InsecureConfigurationError(
            "tls=: this SSLContext does not verify the server; to believe a private root, use TlsClientConfig(ca=FILE)"
        )
    if context.minimum_version < ssl.TLSVersion.TLSv1_2:
        raise InsecureConfigurationError("tls=: set minimum_version of this SSLContext to ssl.TLSVersion.TLSv1_2")
    return context


def _platform_context() -> ssl.SSLContext:
    """An unhardened context with the platform's roots."""
    if sys.platform in ("darwin", "win32"):
        import truststore  # asks the system's own verifier, which reads no environment

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    paths = ssl.get_default_verify_paths()
    files = (paths.openssl_cafile, *_BUNDLES)
    folder = os.path.realpath(paths.openssl_capath)
    hashed = _is_hashed(folder)
    if hashed:
        context.load_verify_locations(capath=folder)  # costs nothing: a root is read when it is needed
        # A bundle in that very folder is made of what is there, and takes 20 ms to read.
        files = tuple(name for name in files[:1] if os.path.dirname(os.path.realpath(name)) != folder)
    file = next((name for name in files if os.path.isfile(name)), None)
    if file is not None:
        context.load_verify_locations(cafile=file)
    elif not hashed:
        raise ConfigurationError(
            "This system has no root certificates where they are looked for: install ca-certificates, or name a file "
            "by tls=TlsClientConfig(ca=FILE)"
        )
    return context


def _is_hashed(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(_HASHED.fullmatch(entry.name) for entry in entries)
    except OSError:
        return False


# Files.


def _load_roots(context: ssl.SSLContext, setting: str, path: _Path) -> None:
    with opened(path, f"{setting}: {os.fspath(path)}", public=True) as descriptor:
        try:
            context.load_verify_locations(cafile=_name(descriptor, path))
        except ssl.SSLError:
            raise ConfigurationError(f"{setting}: {os.fspath(path)} holds no certificates in PEM") from None
    if not context.cert_store_stats()["x509"]:
        raise ConfigurationError(f"{setting}: {os.fspath(path)} holds no certificates in PEM")


def _load_pair(context: ssl.SSLContext, owner: str, certificate: _Path, key: _Path) -> None:
    def password() -> str:
        # Without this, OpenSSL would ask on the terminal.
        raise ConfigurationError(f"{owner}.key: {os.fspath(key)} is encrypted; store it decrypted, with mode 0600")

    with (
        opened(certificate, f"{owner}.certificate: {os.fspath(certificate)}", public=True) as chain,
        opened(key, f"{owner}.key: {os.fspath(key)}", secret=True) as secret,
    ):
        _check_dates(chain, certificate, f"{owner}.certificate")
        try:
            context.load_cert_chain(_name(chain, certificate), _name(secret, key), password)
        except ssl.SSLError as exc:
            reason = exc.reason or ""
            if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
                fault = f"{owner}.key: {os.fspath(key)} is not the key of {os.fspath(certificate)}"
            elif reason.startswith(("EE_", "CA_")):
                fault = f"{owner}.certificate: {os.fspath(certificate)} is too weak for OpenSSL ({reason})"
            else:
                fault = f"{owner}.key: {os.fspath(key)} is no private key in PEM"
            raise ConfigurationError(fault) from None


def _name(descriptor: int, path: _Path) -> str:
    """A name by which OpenSSL opens the very file that was checked; the path where the system has no such name."""
    through = f"/dev/fd/{descriptor}"
    return through if os.path.exists(through) else os.fspath(path)


def _check_dates(descriptor: int, path: _Path, setting: str) -> None:
    from datetime import UTC, datetime

    from cryptography.x509 import load_pem_x509_certificates

    content = os.read(descriptor, _MOST)
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        certificate = load_pem_x509_certificates(content)[0]
    except ValueError:
        raise ConfigurationError(f"{setting}: {os.fspath(path)} holds no certificate in PEM") from None
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc <= now:
        ended = certificate.not_valid_after_utc
        raise ConfigurationError(f"{setting}: {os.fspath(path)} expired on {ended:%Y-%m-%d}; renew it")
    if certificate.not_valid_before_utc > now:
        begins = certificate.not_valid_before_utc
        raise ConfigurationError(f"{setting}: {os.fspath(path)} is valid from {begins:%Y-%m-%d} on, and not yet")
