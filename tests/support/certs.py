"""Certificates for tests: a small authority that makes whatever a test wants, good or bad, as files of mode 0600."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["LOCAL_NAMES", "Authority", "Leaf"]

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_DAY = timedelta(days=1)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Leaf:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path
    pin: str
    """SHA-256 of the public key, as `TlsClientConfig.pins` wants it."""

    def replace(self, other: Leaf) -> None:
        """Puts the content of another into these files, the certificate first."""
        for mine, theirs in ((self.certificate, other.certificate), (self.key, other.key)):
            write(mine, theirs.read_bytes())


class Authority:
    """A root and what it issues. `pem` is the file that makes a peer believe it."""

    def __init__(self, folder: Path, name: str = "Test Authority") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = self._key.public_key()
        builder = (
            _builder(self._name, self._name, public)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(root=True), critical=True)
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.pem = folder / f"authority-{next(_numbers)}.pem"
        write(self.pem, self._certificate.public_bytes(Encoding.PEM))

    def leaf(
        self,
        names: Sequence[str] = LOCAL_NAMES,
        *,
        subject: str | None = None,
        client: bool = False,
        days: tuple[float, float] = (-1, 1),
        self_signed: bool = False,
        password: bytes | None = None,
    ) -> Leaf:
        """A certificate and its key.

        Args:
            names: of hosts, addresses, URIs (with `://`) or mailboxes (with `@`).
            subject: the common name; the first of the names when not given.
            client: for clients instead of servers.
            days: from when to when it is valid, in days from now.
            self_signed: signed by its own key and not by this authority.
            password: encrypts the key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject or names[0])])
        signer, issuer = (key, name) if self_signed else (self._key, self._name)
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            _builder(name, issuer, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(root=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_name(n) for n in names]), critical=False)
        number = next(_numbers)
        certificate = self._folder / f"leaf-{number}.pem"
        write(certificate, builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM))
        lock = BestAvailableEncryption(password) if password is not None else NoEncryption()
        secret = self._folder / f"leaf-{number}.key"
        write(secret, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return Leaf(certificate, secret, base64.b64encode(hashlib.sha256(spki).digest()).decode())


def write(path: Path, content: bytes) -> None:
    """Replaces a file in place; a new one has mode 0600."""
    path.touch(mode=0o600)
    path.write_bytes(content)


def _builder(
    name: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: tuple[float, float] = (-1, 1)
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, name, public, x509.random_serial_number())
    builder = builder.not_valid_before(now + days[0] * _DAY).not_valid_after(now + days[1] * _DAY)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)


def _usage(*, root: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not root,
        key_cert_sign=root,
        crl_sign=root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.GeneralName:
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    if "@" in text:
        return x509.RFC822Name(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
