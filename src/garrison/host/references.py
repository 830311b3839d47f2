"""Where a configuration has secrets: not in it. `credential:NAME`, `env:NAME` and `file:PATH`.

    keep_secret("search-key", Secret("..."))          # once
    env = { API_KEY = { from = "credential:search-key" } }

Rules of this file:
- A reference is followed when a configuration is read; what it leads to is a `Secret` from then on.
- An error names the setting and the reference, and never what it led to.
- A file with a secret can be read by its owner alone.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import ConfigurationError
from ..policy.secret import Secret

if TYPE_CHECKING:
    from ..auth.store import CredentialStore
    from ..auth.tokens import CredentialKey

__all__ = ["Reference", "forget_secret", "keep_secret", "load_secret", "reference_of", "resolve"]

_FORMS: Final = "credential:NAME, env:NAME or file:PATH"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SECRET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/-]{0,127}", re.ASCII)
_ISSUER: Final = "garrison:secret"
"""In the place of an issuer, which is an https URL: no sign-in has this one."""


class Reference(NamedTuple):
    """Where a secret is."""

    kind: str
    """`credential`, `env` or `file`."""
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def reference_of(text: object, at: str) -> Reference:
    """The reference that a text is.

    Args:
        text: `credential:NAME`, `env:NAME` or `file:PATH`.
        at: the setting, for the error.

    Raises:
        ConfigurationError: it is none of these.
    """
    kind, colon, name = text.partition(":") if isinstance(text, str) else ("", "", "")
    good = {"credential": _SECRET, "env": _VARIABLE}.get(kind)
    if not colon or (good.fullmatch(name) is None if good else kind != "file" or not name or "\0" in name):
        raise ConfigurationError(f"{at}: must be {_FORMS}")
    return Reference(kind, name)


def resolve(reference: Reference, at: str, *, folder: str, store: CredentialStore | None = None) -> Secret:
    """The secret that a reference leads to.

    Args:
        reference: of `reference_of`.
        at: the setting, for errors.
        folder: where relative paths begin.
        store: the credential store; `open_store()` when None.

    Raises:
        ConfigurationError: there is none, or it is empty.
        InsecureConfigurationError: others can read or change the file.
        StoreError: the credential store cannot be used.
    """
    if reference.kind == "env":
        text = os.environ.get(reference.name, "")
        if not text:
            raise ConfigurationError(f"{at}: the environment has no {reference.name}")
        return Secret(text)
    if reference.kind == "credential":
        found = load_secret(reference.name, store)
        if found is None:
            raise ConfigurationError(
                f"{at}: the credential store has no {reference.name}; put it there with "
                f"garrison.host.references.keep_secret({reference.name!r}, ...)"
            )
        return found
    from ..policy.files import read_guarded  # lazy: most configurations name no file

    path = os.path.join(folder, os.path.expanduser(reference.name))
    try:
        text = read_guarded(path, secret=True).decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{at}: {path} is not UTF-8") from None
    except ConfigurationError as exc:
        raise type(exc)(f"{at}: {exc}") from None
    if not text:
        raise ConfigurationError(f"{at}: {path} is empty")
    return Secret(text)


def keep_secret(name: str, secret: Secret, store: CredentialStore | None = None) -> None:
    """Put a secret into the credential store, for `credential:NAME`.

    Args:
        name: letters, digits and `._@/-`.
        secret: up to 64 KiB.
        store: `open_store()` when None.

    Raises:
        ConfigurationError: the name is none.
        StoreError: the store cannot be used, or keeps nothing beyond this process.
    """
    from ..auth.store import MemoryStore, StoreError

    key = _key(name)
    opened = _opened(store)
    if store is None and isinstance(opened, MemoryStore):
        raise StoreError(
            "there is no keyring, and no key for a file: set GARRISON_STORE_PASSPHRASE, or install garrison[keyring]"
        )
    opened.save(key, secret.reveal().encode())


def load_secret(name: str, store: CredentialStore | None = None) -> Secret | None:
    """The secret of a name in the credential store, or None.

    Raises:
        ConfigurationError: the name is none.
        StoreError: the store cannot be used.
    """
    value = _opened(store).load(_key(name))
    return Secret(value.decode()) if value else None


def forget_secret(name: str, store: CredentialStore | None = None) -> bool:
    """Delete a secret from the credential store. False if there was none.

    Raises:
        ConfigurationError: the name is none.
        StoreError: the store cannot be used.
    """
    return _opened(store).delete(_key(name))


def _opened(store: CredentialStore | None) -> CredentialStore:
    if store is not None:
        return store
    from ..auth.store import open_store  # lazy: it may load a keyring

    return open_store()


def _key(name: str) -> CredentialKey:
    from ..auth.tokens import CredentialKey

    if _SECRET.fullmatch(name) is None:
        raise ConfigurationError(f"{name!r} is no name of a credential: letters, digits and ._@/-, 128 in all")
    return CredentialKey(_ISSUER, account=name, kind="key")
