"""The sign-ins that `garrison login` keeps: where they are, how one is found, and what a client is made of from it.

Rules of this file:
- A command that was not asked to sign in never asks a person for a page: where a new authorization is needed, it ends
  with the words of the `garrison login` that gives it.
- One sign-in at a time is in view: what else the store has does not decide which token goes where.
- What belongs to a sign-in beside its tokens (the client's secret, hosts that were allowed) is kept where they are.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, final

import msgspec

from ..auth.client.held import covers
from ..auth.client.registration import Registered
from ..auth.client.settings import OAuth
from ..auth.store import CredentialStore, FileStore, KeyringStore, StoreError, decode_tokens, default_path, open_store
from ..auth.store.file import MIN_PASSPHRASE
from ..auth.store.open import KEY_VARIABLE, PASSPHRASE_VARIABLE
from ..auth.tokens import CredentialKey
from ..errors import AuthorizationFailed, ConfigurationError
from ..policy.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..auth.tokens import TokenSet
    from ..policy.tls import TlsClientConfig

__all__ = [
    "ACCOUNT",
    "SECRET_VARIABLE",
    "STORE_VARIABLE",
    "Details",
    "SignIn",
    "View",
    "best",
    "find",
    "http_url",
    "login_words",
    "sign_ins",
    "store_to_keep",
    "stores",
    "used_again",
    "where",
]

ACCOUNT: Final = "default"
SECRET_VARIABLE: Final = "GARRISON_CLIENT_SECRET"  # noqa: S105 - its name, not the secret
STORE_VARIABLE: Final = "GARRISON_STORE"
_CHOICES: Final = ("keyring", "file")

How = Literal["id", "document", "dynamic"]


# Stores


@final
class View:
    """A store in which of all tokens only some are seen: those that are named, and those that are kept through it.

    Args:
        store: the whole store.
        seen: the keys of tokens that are seen.
    """

    def __init__(self, store: CredentialStore, seen: Iterable[CredentialKey] = ()) -> None:
        self._store = store
        self._seen = set(seen)

    def _sees(self, key: CredentialKey) -> bool:
        return key.kind != "token" or key in self._seen

    def load(self, key: CredentialKey) -> bytes | None:
        return self._store.load(key) if self._sees(key) else None

    def save(self, key: CredentialKey, value: bytes) -> None:
        self._store.save(key, value)
        self._seen.add(key)

    def delete(self, key: CredentialKey) -> bool:
        return self._sees(key) and self._store.delete(key)

    def keys(self) -> tuple[CredentialKey, ...]:
        return tuple(filter(self._sees, self._store.keys()))

    def lock(self, key: CredentialKey) -> AbstractContextManager[None]:
        return self._store.lock(key)


def where(store: CredentialStore) -> str:
    """A store in words."""
    if isinstance(store, FileStore):
        return f"the encrypted file {store.path}"
    return f"the keyring ({store.backend})" if isinstance(store, KeyringStore) else "memory"


def _preferred(option: str | None) -> Literal["keyring", "file"] | None:
    """The store that was chosen, by the option or the environment.

    Raises:
        ConfigurationError: there is no such one.
    """
    chosen = option or os.environ.get(STORE_VARIABLE) or None
    if chosen is None:
        return None
    if chosen not in _CHOICES:
        raise ConfigurationError(f"{STORE_VARIABLE} must be keyring or file")
    return "keyring" if chosen == "keyring" else "file"


def stores(option: str | None = None) -> Iterator[CredentialStore]:
    """The stores that there are, one after the other, so that the next is opened only where it is needed.

    Raises:
        ConfigurationError: what the environment says of them is wrong.
        StoreError: the chosen one cannot be opened.
        AuthorizationFailed: the file is there, and nothing that opens it.
    """
    preferred = _preferred(option)
    if preferred != "file":
        try:
            yield KeyringStore()
        except StoreError:
            if preferred == "keyring":
                raise
    if preferred != "keyring" and os.path.exists(default_path()):
        yield _file(new=False)


def store_to_keep(option: str | None = None) -> CredentialStore:
    """The store for a new sign-in: the keyring, else the encrypted file.

    Raises:
        ConfigurationError, StoreError, AuthorizationFailed: as `stores`; or there is neither.
    """
    preferred = _preferred(option)
    if preferred != "file":
        try:
            return KeyringStore()
        except StoreError as exc:
            if preferred == "keyring":
                raise
            if not _has_key() and not _can_ask():
                raise AuthorizationFailed(
                    f"tokens cannot be kept: {exc}; or set {PASSPHRASE_VARIABLE} or {KEY_VARIABLE} for an encrypted "
                    "file"
                ) from None
    return _file(new=not os.path.exists(default_path()))


def _has_key() -> bool:
    return bool(os.environ.get(KEY_VARIABLE) or os.environ.get(PASSPHRASE_VARIABLE))


def _can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _file(*, new: bool) -> CredentialStore:
    """The encrypted file, by the environment's key or a passphrase of the person."""
    if _has_key():
        return open_store("file")
    path = default_path()
    if not _can_ask():
        raise AuthorizationFailed(f"{path} is locked: set {PASSPHRASE_VARIABLE} or {KEY_VARIABLE}, or use a terminal")
    from getpass import getpass

    if not new:
        given = getpass(f"Passphrase of {path}: ", stream=sys.stderr)
    else:
        given = getpass(f"A new passphrase for {path}, {MIN_PASSPHRASE} characters or more: ", stream=sys.stderr)
        if given != getpass("The same again: ", stream=sys.stderr):
            raise ConfigurationError("the two passphrases differ")
    if len(given) < MIN_PASSPHRASE:
        raise ConfigurationError(f"a passphrase has {MIN_PASSPHRASE} characters or more")
    return FileStore(path, Secret(given))


# What is kept of a sign-in


@dataclass(frozen=True, slots=True)
class Details:
    """What a sign-in needs beside its tokens."""

    how: How
    """How the client is known: by its id, by a document, or because it registered itself."""
    client_secret: Secret | None = field(default=None, repr=False)
    private_hosts: tuple[str, ...] = ()

    def keep(self, store: CredentialStore, key: CredentialKey) -> None:
        """Keep it beside the tokens of a key.

        Raises:
            StoreError: the store cannot be used.
        """
        secret = None if self.client_secret is None else self.client_secret.reveal()
        store.save(replace(key, kind="client"), msgspec.json.encode(_Kept(self.how, secret, self.private_hosts)))

    @classmethod
    def of(cls, found: SignIn) -> Details:
        """What is kept beside the tokens of a sign-in; a guess where another program signed in.

        Raises:
            StoreError: the store cannot be used, or what is there is not of this version.
        """
        key, store = found.key, found.store
        kept = store.load(replace(key, kind="client"))
        if kept is not None:
            try:
                read = msgspec.json.decode(kept, type=_Kept)
            except msgspec.DecodeError:
                raise StoreError(f"what is kept of {key.resource} is not readable: log out, and in again") from None
            return cls(read.how, Secret(read.client_secret) if read.client_secret else None, read.private_hosts)
        if key.client_id.startswith("https://"):
            return cls("document")
        known = store.load(CredentialKey(key.issuer, account=key.account, kind="client"))
        registered = None if known is None else Registered.from_json(known, key.issuer, 0.0)
        return cls("dynamic" if registered is not None and registered.client.client_id == key.client_id else "id")


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    how: How
    client_secret: str | None
    private_hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignIn:
    """The tokens of one account at one server, and where they are."""

    store: CredentialStore
    key: CredentialKey
    tokens: TokenSet | None
    """None where they cannot be read."""

    def forget(self) -> None:
        """Delete the tokens, and what only they needed.

        Raises:
            StoreError: the store cannot be used.
        """
        key, store = self.key, self.store
        store.delete(key)
        store.delete(replace(key, kind="client"))
        left = store.keys()
        tokens = {(each.issuer, each.account) for each in left if each.kind == "token"}
        if (key.issuer, key.account) not in tokens:
            for kind in ("client", "key"):
                store.delete(CredentialKey(key.issuer, account=key.account, kind=kind))


def sign_ins(store: CredentialStore) -> list[SignIn]:
    """All of a store.

    Raises:
        StoreError: it cannot be used.
    """
    found: list[SignIn] = []
    for key in sorted(store.keys(), key=lambda key: (key.resource, key.account, key.issuer, key.client_id)):
        if key.kind != "token":
            continue
        try:
            value = store.load(key)
            tokens = None if value is None else decode_tokens(value)
        except StoreError:
            tokens = None
        found.append(SignIn(store, key, tokens))
    return found


def http_url(url: str) -> str:
    """The URL that a token is compared with: that of a WebSocket is the URL of its handshake."""
    return "http" + url[2:] if url[:2].lower() == "ws" else url


def find(url: str, account: str | None = None, store: str | None = None) -> SignIn | None:
    """The sign-in of an account at a server; None where nobody is signed in there.

    Raises:
        AuthorizationFailed: other accounts are; or as `stores`.
        ConfigurationError, StoreError: as `stores`.
    """
    account, others = account or ACCOUNT, set[str]()
    for each in stores(store):
        here = sign_ins(each)
        found = best(here, url, account)
        if found is not None:
            return found
        others |= {found.key.account for found in here if covers(found.key.resource, http_url(url))}
    if not others:
        return None
    choice = " or ".join(f"--account {shlex.quote(each)}" for each in sorted(others))
    raise AuthorizationFailed(f"nobody is signed in to {url} as {account}; there is {choice}")


def best(every: Iterable[SignIn], url: str, account: str) -> SignIn | None:
    """The one whose resource covers a URL most closely; of several, the newest."""
    target = http_url(url)
    fitting = [found for found in every if found.key.account == account and covers(found.key.resource, target)]
    return max(fitting, key=lambda found: (len(found.key.resource), _ends(found)), default=None)


def _ends(found: SignIn) -> float:
    """When its token ends; of several, the newest one ends last."""
    tokens = found.tokens
    return 0.0 if tokens is None else tokens.expires_at or float("inf")


# Using one


def login_words(url: str, account: str | None = None, scopes: Iterable[str] = ()) -> str:
    """The command that signs in."""
    words = ["garrison", "login", url]
    if account not in (None, ACCOUNT):
        words += ["--account", account]
    for scope in scopes:
        words += ["--scope", scope]
    return shlex.join(words)


def used_again(
    found: SignIn, url: str, *, tls: TlsClientConfig | None = None, notice: Callable[[str], None] | None = None
) -> OAuth:
    """A client's `auth` for a sign-in that is there: it renews the token, and asks nobody.

    Args:
        found: of `find`.
        url: the server, for the words of an error.
        tls: whom to believe of the authorization server.
        notice: is told what the person should know.

    Raises:
        StoreError: the store cannot be used.
    """
    key, details = found.key, Details.of(found)
    had: frozenset[str] = (found.tokens.scopes if found.tokens is not None else None) or frozenset()

    def no_page(_: str) -> bool:
        # As if the person had said no, so that nothing is taken for a fault of the client.
        raise AuthorizationFailed(
            f"the sign-in at {url} has ended; sign in again: {login_words(url, key.account)}", error="access_denied"
        )

    def no_more(more: frozenset[str]) -> bool:
        raise AuthorizationFailed(
            f"{url} wants further scopes; sign in with them: {login_words(url, key.account, sorted(had | more))}",
            error="access_denied",
        )

    how = details.how
    secret = details.client_secret or (Secret(given) if (given := os.environ.get(SECRET_VARIABLE)) else None)
    return OAuth(
        key.client_id if how == "id" else None,
        secret if how == "id" else None,
        client_metadata_url=key.client_id if how == "document" else None,
        issuer=key.issuer,
        account=key.account,
        store=View(found.store, [key]),
        private_hosts=details.private_hosts,
        tls=tls,
        browser=no_page,
        approve_scopes=no_more,
        notice=notice,
    )
