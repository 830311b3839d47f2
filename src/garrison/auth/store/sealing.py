"""The file of an encrypted store: its header, its keys, and entries that open only under their own names.

Rules of this file:
- Names and values are sealed with AES-256-GCM, each under a key of its purpose (HKDF, RFC 5869) and a random nonce. The
  whole header is associated data of both; the whole name is that of its value. A value that was moved to another name,
  or an entry to another file, does not open.
- The header says which key is asked for, and has a seal of its own, so that a wrong passphrase is told from damage.
- What scrypt (RFC 7914) is to cost stands in the header, and is held to bounds before it is computed.
- An entry that was not asked for is carried on as it is, without being opened.

The file is JSON: `{"header": {...}, "check": seal, "entries": [{"name": seal, "value": seal}]}`; a seal is
`nonce (12) | AES-GCM(plain)`, in base64.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal, final

import msgspec

from ...errors import ParseError
from ...policy.limits import Limits
from ...policy.secret import Secret
from ...protocol.json import decoder, encode
from ..tokens import CredentialKey
from .contract import StoreError
from .folder import refused
from .records import decode_key, encode_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KEY_BYTES", "MAX_FILE_BYTES", "Keyholder", "SealedFile"]

KEY_BYTES: Final = 32
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_MOST_ENTRIES: Final = 1_000
_SALT: Final = 16
_NONCE: Final = 12
_NAME_BLOCK: Final = 256

_COST: Final = 17
"""log2 of scrypt's N: 128 MiB, and a third of a second, for each guess."""
_COSTS: Final = range(15, 20)
_R: Final = 8
_P: Final = 1

_decode = decoder(Limits(json_depth=5, json_nodes=4_000, json_members=8, json_items=_MOST_ENTRIES))


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    key: Literal["random", "scrypt"]
    salt: bytes
    cost: int = 0


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: bytes
    value: bytes


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    header: _Header
    check: bytes
    entries: tuple[_Entry, ...]


@final
class Keyholder:
    """What the person gave, and what was derived from it.

    Args:
        key: 32 random bytes, or a passphrase.
    """

    __slots__ = ("_derived", "_key")

    def __init__(self, key: bytes | Secret) -> None:
        self._key = key
        self._derived: dict[bytes, _Seals] = {}

    def new_header(self) -> _Header:
        """For a new file."""
        if isinstance(self._key, Secret):
            return _Header(1, "scrypt", os.urandom(_SALT), _COST)
        return _Header(1, "random", os.urandom(_SALT))

    def seals(self, header: _Header, path: str) -> _Seals:
        """What opens the file of a header. A passphrase takes a third of a second, the first time.

        Raises:
            StoreError: the file asks for the other kind of key, or for more work than is reasonable.
        """
        context = encode(header)
        seals = self._derived.get(context)
        if seals is None:
            seals = _Seals(self._master(header, path), header.salt, context)
            self._derived = {context: seals}
        return seals

    def _master(self, header: _Header, path: str) -> bytes:
        if isinstance(self._key, bytes):
            if header.key != "random":
                raise refused(f"{path} was made with a passphrase; open it with that, or move it away")
            return self._key
        if header.key != "scrypt":
            raise refused(f"{path} was made with a key of {KEY_BYTES} bytes; open it with that, or move it away")
        if header.cost not in _COSTS:
            raise refused(f"{path}: its header asks for unreasonable work; move it away and log in again")
        return _stretched(self._key, header)


@final
class _Seals:
    """Seals of one file, one for each purpose."""

    __slots__ = ("_ciphers", "_context")

    def __init__(self, master: bytes, salt: bytes, context: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        def cipher(purpose: str) -> AESGCM:
            info = b"garrison credentials " + purpose.encode()
            return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=salt, info=info).derive(master))

        self._context = context
        self._ciphers: dict[str, AESGCM] = {purpose: cipher(purpose) for purpose in ("check", "name", "value")}

    def close(self, purpose: Literal["check", "name", "value"], plain: bytes, binding: bytes = b"") -> bytes:
        """A seal of some bytes."""
        nonce = os.urandom(_NONCE)
        return nonce + self._ciphers[purpose].encrypt(nonce, plain, self._context + binding)

    def open(self, purpose: Literal["check", "name", "value"], seal: bytes, binding: bytes = b"") -> bytes | None:
        """What was sealed, or None where it was not sealed for this."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._ciphers[purpose].decrypt(seal[:_NONCE], seal[_NONCE:], self._context + binding)
        except (InvalidTag, ValueError):  # the latter: too short to be a seal
            return None


@final
class SealedFile:
    """The content of a store's file, while it is looked at or changed.

    Args:
        holder: the key.
        path: what errors call the file.
        data: its bytes; None for a new one.

    Raises:
        StoreError: it is no such file, the key is another, or it was changed by somebody without the key.
    """

    __slots__ = ("_check", "_entries", "_header", "_path", "_seals")

    def __init__(self, holder: Keyholder, path: str, data: bytes | None) -> None:
        self._path = path
        self._entries: dict[CredentialKey, _Entry] = {}
        if data is None:
            self._header = holder.new_header()
            self._seals = holder.seals(self._header, path)
            self._check = self._seals.close("check", b"")
            return
        file = self._read(data)
        self._header, self._check = file.header, file.check
        self._seals = holder.seals(file.header, path)
        if self._seals.open("check", file.check) is None:
            raise refused(f"{path}: the key or passphrase is wrong; give the right one, or move the file away")
        for entry in file.entries:
            self._entries[self._name(entry)] = entry
        if len(self._entries) != len(file.entries):
            raise self._damaged()

    def get(self, key: CredentialKey) -> bytes | None:
        """The value of a key, or None.

        Raises:
            StoreError: there is one, and it does not open under this name.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        value = self._seals.open("value", entry.value, encode_key(key))
        if value is None:
            raise refused(f"{self._path}: an entry was changed or moved; delete it and log in again")
        return value

    def put(self, key: CredentialKey, value: bytes) -> None:
        """Set the value of a key.

        Raises:
            StoreError: the file is full, or an older value is there that cannot be read.
        """
        if self.get(key) is None and len(self._entries) >= _MOST_ENTRIES:
            raise StoreError(f"{self._path}: {_MOST_ENTRIES} entries are the most; delete some")
        name = encode_key(key)
        padded = name.ljust(-(-len(name) // _NAME_BLOCK) * _NAME_BLOCK)  # its length would say which server it is
        self._entries[key] = _Entry(self._seals.close("name", padded), self._seals.close("value", value, name))

    def drop(self, key: CredentialKey) -> bool:
        """Take a key away, whether its value opens or not."""
        return self._entries.pop(key, None) is not None

    def keys(self) -> tuple[CredentialKey, ...]:
        """The keys in it."""
        return tuple(self._entries)

    def to_bytes(self) -> bytes:
        """The file.

        Raises:
            StoreError: it would be too large to be read again.
        """
        data = encode(_File(self._header, self._check, tuple(self._entries.values())))
        if len(data) > MAX_FILE_BYTES:
            raise StoreError(f"{self._path}: {MAX_FILE_BYTES // 1024} KiB are the most; delete some entries")
        return data

    def _read(self, data: bytes) -> _File:
        try:
            return msgspec.convert(_decode(data), _File)
        except (ParseError, msgspec.ValidationError):
            raise self._damaged() from None

    def _name(self, entry: _Entry) -> CredentialKey:
        name = self._seals.open("name", entry.name)
        if name is None:
            raise self._damaged()
        return decode_key(name)

    def _damaged(self) -> StoreError:
        return refused(f"{self._path}: damaged or changed; move it away and log in again")


def _stretched(passphrase: Secret, header: _Header) -> bytes:
    from unicodedata import normalize

    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    text = normalize("NFC", passphrase.reveal())  # RFC 8265 section 4.2: keyboards differ in how they compose letters
    kdf = Scrypt(salt=header.salt, length=KEY_BYTES, n=2**header.cost, r=_R, p=_P)
    return kdf.derive(text.encode("utf-8", "surrogatepass"))
