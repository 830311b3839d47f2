"""Sealed tokens: bytes that a peer carries for us and can neither read, change, outlive nor use elsewhere.

Rules of this file:
- A token opens only under its key, for its purpose, with its binding, before it expires. Whatever else is wrong, the
  answer is one constant error.
- Each purpose has its own key, derived with HKDF (RFC 5869), so that a cursor is never taken for a request state.
- There is no clock here: the caller says what time it is.
- A token has one spelling: unpadded base64url whose unused bits are zero (RFC 4648, section 5).

A token is `version (1) | key id (4) | nonce (12) | AEAD(expires (8) | payload)`; the first 17 bytes and the binding are
the associated data. Version 1 is AES-256-GCM-SIV (RFC 8452); version 2, where OpenSSL lacks that, is AES-256-GCM.
"""

from __future__ import annotations

import os
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from math import isfinite
from struct import Struct
from typing import TYPE_CHECKING, Final, final

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV

__all__ = ["KEY_BYTES", "MAX_TOKEN_CHARS", "SealError", "Sealer", "key_from_text"]

KEY_BYTES: Final = 32
MAX_TOKEN_CHARS: Final = 64 * 1024

_GCM_SIV = 1
_GCM = 2
_KEY_ID = 4
_NONCE = 12
_HEAD = 1 + _KEY_ID + _NONCE
_TAG = 16
_EXPIRES = Struct(">d")
_MAX_TOKEN_BYTES = MAX_TOKEN_CHARS // 4 * 3
_TO_STANDARD = bytes.maketrans(b"-_+/", b"+/..")
_TO_URL = bytes.maketrans(b"+/", b"-_")


class SealError(ValueError):
    """The token does not open here and now. The message is always the same."""

    def __init__(self) -> None:
        super().__init__("token refused")


@final
class Sealer:
    """Seals and opens tokens.

    Args:
        key: 32 random bytes, the same on every replica; None for a key of this process alone.
        previous: older keys whose tokens still open, so that keys can be changed without refusing anyone.

    Raises:
        ConfigurationError: a key is not 32 bytes.
    """

    __slots__ = ("_ciphers", "_ids", "_key", "_keys", "_version")

    def __init__(self, key: bytes | None = None, *, previous: Sequence[bytes] = ()) -> None:
        self._key = os.urandom(KEY_BYTES) if key is None else key
        for each in (self._key, *previous):
            if len(each) != KEY_BYTES:
                raise ConfigurationError(f"a sealing key must be {KEY_BYTES} bytes")
        self._keys = (self._key, *previous)
        self._ids: dict[bytes, bytes] = {}
        self._version = 0
        self._ciphers: dict[tuple[int, bytes, str], AESGCM | AESGCMSIV] = {}

    def __repr__(self) -> str:
        return f"Sealer(key=***, previous={len(self._keys) - 1})"

    def __reduce__(self) -> str:
        raise TypeError("a Sealer holds keys and is not pickled")

    def seal(self, purpose: str, payload: bytes, *, binding: bytes = b"", expires: float) -> str:
        """A token for this payload.

        Args:
            purpose: what kind of token this is; a constant of the program.
            payload: what to carry, secret from the peer.
            binding: what the token belongs to (principal, method, ...); not carried, asked for again by `open`.
            expires: when it stops opening, on the caller's clock, in seconds.

        Raises:
            ValueError: the token would be longer than `MAX_TOKEN_CHARS`, or `expires` is not finite.
        """
        if not isfinite(expires):
            raise ValueError("expires must be finite")
        if _HEAD + _EXPIRES.size + len(payload) + _TAG > _MAX_TOKEN_BYTES:
            raise ValueError(f"a sealed token must not be longer than {MAX_TOKEN_CHARS} characters")
        self._load()
        nonce = os.urandom(_NONCE)
        head = bytes((self._version,)) + next(iter(self._ids)) + nonce
        cipher = self._cipher(self._version, self._key, purpose)
        body = cipher.encrypt(nonce, _EXPIRES.pack(expires) + payload, head + binding)
        return b2a_base64(head + body, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")

    def open(self, purpose: str, token: str, *, binding: bytes = b"", now: float) -> bytes:
        """The payload of a token that was sealed with the same purpose and binding and has not expired at `now`.

        Raises:
            SealError: anything else.
        """
        from cryptography.exceptions import InvalidTag

        raw = _decode(token)
        self._load()
        version, nonce = raw[0], raw[1 + _KEY_ID : _HEAD]
        key = self._ids.get(raw[1 : 1 + _KEY_ID])
        if key is None or version not in (self._version, _GCM):
            raise SealError
        try:
            plain = self._cipher(version, key, purpose).decrypt(nonce, raw[_HEAD:], raw[:_HEAD] + binding)
        except InvalidTag:
            raise SealError from None
        # Written so that a `now` of NaN refuses.
        if not now < _EXPIRES.unpack_from(plain)[0]:
            raise SealError
        return plain[_EXPIRES.size :]

    def _load(self) -> None:
        if self._ids:
            return
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

        try:
            AESGCMSIV(bytes(KEY_BYTES))
        except UnsupportedAlgorithm:
            self._version = _GCM
        else:
            self._version = _GCM_SIV
        ids: dict[bytes, bytes] = {}
        for key in self._keys:
            ids.setdefault(_derive(key, b"key id", _KEY_ID), key)
        self._ids = ids

    def _cipher(self, version: int, key: bytes, purpose: str) -> AESGCM | AESGCMSIV:
        cipher = self._ciphers.get((version, key, purpose))
        if cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV

            derived = _derive(key, b"purpose %d %b" % (version, purpose.encode()), KEY_BYTES)
            cipher = AESGCMSIV(derived) if version == _GCM_SIV else AESGCM(derived)
            self._ciphers[version, key, purpose] = cipher
        return cipher


def key_from_text(text: str) -> bytes:
    """A key from an environment variable or a file: 64 hexadecimal digits, or base64 of 32 bytes in either alphabet.

    Raises:
        ConfigurationError: it is neither. The message does not repeat the text.
    """
    text = text.strip()
    try:
        if len(text) == 2 * KEY_BYTES:
            key = bytes.fromhex(text)
        else:
            padded = text.replace("-", "+").replace("_", "/").rstrip("=")
            key = a2b_base64(padded + "=" * (-len(padded) % 4), strict_mode=True)
    except (Base64Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"a key must be {KEY_BYTES} random bytes, as {2 * KEY_BYTES} hex digits or as base64")
    return key


def _derive(key: bytes, label: bytes, length: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length, salt=None, info=b"garrison sealed " + label).derive(key)


def _decode(token: str) -> bytes:
    if len(token) > MAX_TOKEN_CHARS:
        raise SealError
    try:
        text = token.encode("ascii").translate(_TO_STANDARD)
        raw = a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
    except (Base64Error, ValueError):
        raise SealError from None
    if len(raw) < _HEAD + _EXPIRES.size + _TAG or b2a_base64(raw, newline=False).rstrip(b"=") != text:
        raise SealError
    return raw
