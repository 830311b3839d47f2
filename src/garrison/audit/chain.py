"""What makes a change visible: a hash from record to record, and a key that signs some of them.

Rules of this file:
- The hash of a record is SHA-256 over the hash before it and the record's own bytes, so that one cannot be changed,
  dropped or moved without every later one.
- Who can write the file can compute such hashes anew. He cannot compute a `mac`: HMAC-SHA256 over the same bytes, by a
  key of that one file, derived from the `AuditKey`.
- Digests of arguments have another key, derived as well: who has the log alone cannot try what the arguments were.

There is no file and no clock here.
"""

from __future__ import annotations

import hmac
import os
from binascii import hexlify
from hashlib import sha256
from typing import Final, final

from ..errors import ConfigurationError
from ..policy.secret import Secret

__all__ = ["HASH_CHARS", "NO_HASH", "AuditKey", "linked", "mac_of", "with_mac"]

HASH_CHARS: Final = 64
NO_HASH: Final = bytes(32)
"""What stands for the hash before the first record of all."""
_KEY_BYTES: Final = 32


@final
class AuditKey:
    """The key of an audit log. Keep it where those who may write the log cannot read it.

    Args:
        key: 32 random bytes; or a `Secret` with them as 64 hex digits or base64.

    Raises:
        ConfigurationError: it is neither.
    """

    __slots__ = ("_key", "id")

    def __init__(self, key: bytes | Secret) -> None:
        if isinstance(key, Secret):
            from ..protocol.sealed import key_from_text

            key = key_from_text(key.reveal())
        elif type(key) is not bytes or len(key) != _KEY_BYTES:
            raise ConfigurationError(f"AuditKey: {_KEY_BYTES} random bytes, or a Secret with them in hex or base64")
        self._key = key
        self.id: str = self._derived(b"id").hex()[:16]
        """Tells keys apart, and nothing of the key itself."""

    def __repr__(self) -> str:
        return f"AuditKey(***, id={self.id!r})"

    def __reduce__(self) -> str:
        raise TypeError("an AuditKey is not pickled")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> AuditKey:
        """The key in a file, as 64 hex digits or base64, that only its owner can read.

        Raises:
            ConfigurationError: there is no such file, or no key in it.
            InsecureConfigurationError: others can read or change it.
        """
        from ..policy.files import read_guarded
        from ..protocol.sealed import key_from_text

        try:
            return cls(key_from_text(read_guarded(os.fspath(path), secret=True).decode("ascii", "replace")))
        except ConfigurationError as exc:
            if os.fspath(path) in str(exc):
                raise
            raise ConfigurationError(f"{os.fspath(path)}: {exc}") from None

    def for_file(self, identity: str) -> bytes:
        """The key of the one file that has this id."""
        return self._derived(b"file " + identity.encode())

    def for_arguments(self) -> bytes:
        """The key of the digests of arguments: the same in every file of this key, so that calls can be compared."""
        return self._derived(b"arguments")

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.digest(self._key, b"garrison audit v1 " + purpose, "sha256")


def linked(before: bytes, body: bytes) -> tuple[bytes, bytes]:
    """A record's line and its hash.

    Args:
        before: the hash of the record before it.
        body: the record as a JSON object.
    """
    digest = sha256(before + body).digest()
    return b'%b,"hash":"%b"}\n' % (body[:-1], hexlify(digest)), digest


def with_mac(key: bytes, before: bytes, body: bytes) -> bytes:
    """A record's JSON object with its `mac` as the last member."""
    return b'%b,"mac":"%b"}' % (body[:-1], mac_of(key, before, body).encode())


def mac_of(key: bytes, before: bytes, body: bytes) -> str:
    """The `mac` of a record that follows this hash, in hex."""
    return hmac.digest(key, before + body, "sha256").hex()
