"""Where a client keeps credentials: the platform's keyring, an encrypted file, or memory. Never a plain file.

    store = open_store()

Rules of this room:
- An entry is found by its whole key. One that was moved, swapped or changed does not open.
- What cannot be read is not there, and is never overwritten without being asked.
"""

from __future__ import annotations

from .contract import CredentialStore, StoreError
from .file import FileStore
from .keyring import KeyringStore
from .memory import MemoryStore
from .open import default_path, open_store
from .records import decode_tokens, encode_tokens

__all__ = [
    "CredentialStore",
    "FileStore",
    "KeyringStore",
    "MemoryStore",
    "StoreError",
    "decode_tokens",
    "default_path",
    "encode_tokens",
    "open_store",
]
