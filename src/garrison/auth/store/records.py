"""What is kept, as bytes: token sets, and the names of entries.

Rules of this file:
- One object has one spelling, so that the bytes of a name can bind what is kept under it.
- What is read is exactly what was written: an unknown member, a wrong type or another version is an error.
"""

from __future__ import annotations

from math import isfinite
from typing import Final, Literal, TypeVar

import msgspec

from ...errors import ParseError
from ...policy.limits import Limits
from ...policy.secret import Secret
from ...protocol.json import decoder, encode
from ..tokens import CredentialKey, TokenSet
from .contract import MAX_VALUE_BYTES, StoreError

__all__ = ["check_value", "decode_key", "decode_tokens", "encode_key", "encode_tokens"]

_MAX_KEY_BYTES: Final = 8 * 1024

T = TypeVar("T", bound=msgspec.Struct)

_decode = decoder(Limits(json_depth=4, json_nodes=2_000, json_members=16, json_items=1_000))


class _Tokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1] = msgspec.field(name="tokens")
    access_token: str
    token_type: Literal["Bearer", "DPoP"]
    expires_at: float | None
    refresh_token: str | None
    scopes: tuple[str, ...] | None
    issued_token_type: str | None

    def __repr__(self) -> str:
        return "_Tokens(***)"


class _Name(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    issuer: str
    resource: str
    client_id: str
    account: str
    kind: Literal["token", "client", "key"]


def encode_tokens(tokens: TokenSet) -> bytes:
    """A token set as a store keeps it. The secrets in it are plain: hand it to a store and to nothing else.

    Raises:
        StoreError: a text in it is no Unicode, `expires_at` is not finite, or it is larger than a store takes.
    """
    if tokens.expires_at is not None and not isfinite(tokens.expires_at):
        raise StoreError("tokens: expires_at must be finite")
    record = _Tokens(
        version=1,
        access_token=tokens.access_token.reveal(),
        token_type=tokens.token_type,
        expires_at=tokens.expires_at,
        refresh_token=None if tokens.refresh_token is None else tokens.refresh_token.reveal(),
        scopes=None if tokens.scopes is None else tuple(sorted(tokens.scopes)),
        issued_token_type=tokens.issued_token_type,
    )
    value = _encoded(record, "tokens")
    check_value(value)
    return value


def decode_tokens(value: bytes) -> TokenSet:
    """The token set in what a store kept.

    Raises:
        StoreError: it is not what `encode_tokens` wrote.
    """
    record = _read(value, _Tokens, "tokens")
    try:
        return TokenSet(
            access_token=Secret(record.access_token),
            token_type=record.token_type,
            expires_at=record.expires_at,
            refresh_token=None if record.refresh_token is None else Secret(record.refresh_token),
            scopes=None if record.scopes is None else frozenset(record.scopes),
            issued_token_type=record.issued_token_type,
        )
    except ValueError:  # an empty secret
        raise _unreadable("tokens") from None


def encode_key(key: CredentialKey) -> bytes:
    """The one spelling of a key: what entries are found by, and bound to.

    Raises:
        StoreError: a text in it is no Unicode, or it is longer than 8 KiB.
    """
    name = _encoded(_Name(key.issuer, key.resource, key.client_id, key.account, key.kind), "credential key")
    if len(name) > _MAX_KEY_BYTES:
        raise StoreError(f"credential key: longer than {_MAX_KEY_BYTES} bytes")
    return name


def decode_key(name: bytes) -> CredentialKey:
    """The key of a spelling. White space around it does not count.

    Raises:
        StoreError: it is none.
    """
    read = _read(name, _Name, "credential key")
    return CredentialKey(read.issuer, read.resource, read.client_id, read.account, kind=read.kind)


def check_value(value: bytes) -> None:
    """Raises `StoreError` where a value is larger than a store takes."""
    if len(value) > MAX_VALUE_BYTES:
        raise StoreError(f"the credential is {len(value)} bytes; a store takes {MAX_VALUE_BYTES}")


def _encoded(record: msgspec.Struct, what: str) -> bytes:
    try:
        return encode(record)
    except UnicodeEncodeError:  # it carries the text
        raise StoreError(f"{what}: not Unicode") from None


def _read(data: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(_decode(data), kind)
    except (ParseError, msgspec.ValidationError):
        raise _unreadable(what) from None


def _unreadable(what: str) -> StoreError:
    return StoreError(f"{what}: not readable by this version of Garrison; delete the entry and log in again")
