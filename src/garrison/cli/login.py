"""`garrison login`, `logout` and `whoami`: a person's sign-ins at MCP servers.

Rules of this file:
- No token, code or secret is printed, in no form. What is printed is whom a token is for, from whom, and how long.
- A login takes no old token for a new one: it always asks, and what it gets takes the place of what was there.
- A logout deletes in any case. Where the token could not be revoked, the exit status says so.

Spec: MCP 2026-07-28 basic/authorization; RFC 7009.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..auth.client.browser import MAX_ADDRESS, Headless, open_browser
from ..auth.client.held import covers
from ..auth.client.session import Authorizer
from ..auth.client.settings import OAuth
from ..auth.store import StoreError
from ..auth.tokens import CredentialKey
from ..client import Client
from ..errors import AuthorizationFailed, ConfigurationError, GarrisonError
from ..policy.secret import Secret
from .failures import NOT_REVOKED, OK, quiet, report
from .signins import (
    ACCOUNT,
    SECRET_VARIABLE,
    Details,
    How,
    SignIn,
    View,
    best,
    find,
    http_url,
    login_words,
    sign_ins,
    store_to_keep,
    stores,
    used_again,
    where,
)
from .style import bold, emit_json, safe, table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from ..auth.store import CredentialStore
    from ..policy.tls import TlsClientConfig

__all__ = ["login", "logout", "whoami"]


def login(options: Namespace) -> int:
    """`garrison login URL`"""
    return _ended(_login, options)


def logout(options: Namespace) -> int:
    """`garrison logout URL`"""
    return _ended(_logout, options)


def whoami(options: Namespace) -> int:
    """`garrison whoami [URL]`"""
    return _ended(_whoami, options)


def _ended(command: Callable[[Namespace], int], options: Namespace) -> int:
    quiet()
    try:
        return command(options)
    except StoreError as exc:
        return report(AuthorizationFailed(f"the credential store: {exc}"), as_json=options.json)
    except GarrisonError as exc:
        return report(exc, as_json=options.json, target=options.url or "")


def _say(text: str) -> None:
    print(safe(text), file=sys.stderr, flush=True)


def _tls(options: Namespace) -> TlsClientConfig | None:
    if options.ca is None:
        return None
    from ..policy.tls import TlsClientConfig

    return TlsClientConfig(ca=options.ca)


# What is shown


@dataclass(frozen=True, slots=True)
class Shown:
    """A sign-in as it is shown. The names of these fields are those of `--json`."""

    server: str
    issuer: str
    account: str
    client_id: str
    scopes: list[str] | None
    """Sorted; None where the authorization server did not say."""
    expires_at: str | None
    """The end of the access token, as ISO 8601; None where the authorization server did not say."""
    renewable: bool
    """A new access token is had without a page, for as long as the authorization server likes."""
    bound: bool
    """The token is of no use without a key that is kept beside it (DPoP)."""
    readable: bool
    store: str


def _shown(found: SignIn) -> Shown:
    key, tokens = found.key, found.tokens
    ends = None if tokens is None else tokens.expires_at
    scopes = None if tokens is None or tokens.scopes is None else sorted(tokens.scopes)
    return Shown(
        key.resource,
        key.issuer,
        key.account,
        key.client_id,
        scopes,
        None if ends is None else _iso(ends),
        tokens is not None and tokens.refresh_token is not None,
        tokens is not None and tokens.token_type == "DPoP",  # noqa: S105 - a type
        tokens is not None,
        where(found.store),
    )


def _iso(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _lasts(found: SignIn, now: float) -> str:
    """How long a sign-in is good, for people."""
    tokens = found.tokens
    if tokens is None:
        return "not readable"
    renewed = ", renewed by itself" if tokens.refresh_token is not None else ""
    if tokens.expires_at is None:
        return "not said" + renewed
    left = tokens.expires_at - now
    if left > 0:
        return f"in {_span(left)}{renewed}"
    return "renewed at the next use" if renewed else f"ended {_span(-left)} ago"


def _span(seconds: float) -> str:
    """A length of time in its largest unit: `54 min`."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# Login


def _login(options: Namespace) -> int:
    _check_words(options)
    store = store_to_keep(options.store)
    client = _Client.of(options, store)
    key = asyncio.run(_signed_in(options, client, View(store)))
    how = client.ways.get(key.client_id, "dynamic")
    Details(how, client.secret if how == "id" else None, client.private_hosts).keep(store, key)
    for other in sign_ins(store):
        if (other.key.resource, other.key.account) == (key.resource, key.account) and other.key != key:
            _say(f"This takes the place of the client {other.key.client_id} of {other.key.issuer}, which is signed out")
            asyncio.run(_revoked(other, options))
    found = next(each for each in sign_ins(store) if each.key == key)
    if options.json:
        emit_json(asdict(_shown(found)))
        return OK
    print(bold(safe(f"Signed in to {key.resource}"), sys.stdout))
    scopes = _shown(found).scopes
    for label, text in (
        ("issuer", key.issuer),
        ("account", key.account),
        ("client", key.client_id),
        ("scopes", "not said" if scopes is None else " ".join(scopes) or "none"),
        ("ends", _lasts(found, time.time())),
        ("kept in", where(store)),
    ):
        print(f"{label:<9}{safe(text)}")
    return OK


def _check_words(options: Namespace) -> None:
    if options.client_id is None and options.ask_client_secret:
        raise ConfigurationError("--ask-client-secret is nothing without --client-id")


@dataclass(frozen=True, slots=True)
class _Client:
    """As whom this program signs in."""

    client_id: str | None
    secret: Secret | None
    document: str | None
    issuer: str | None
    private_hosts: tuple[str, ...]

    @classmethod
    def of(cls, options: Namespace, store: CredentialStore) -> _Client:
        """What the words say; where they say nothing, the client that is signed in there already."""
        hosts = tuple(options.private_host)
        if options.client_id is None and options.client_metadata_url is None and not options.allow_dynamic_registration:
            found = best(sign_ins(store), options.url, options.account or ACCOUNT)
            if found is not None and options.issuer in (None, found.key.issuer):
                key, details = found.key, Details.of(found)
                return cls(
                    key.client_id if details.how == "id" else None,
                    details.client_secret,
                    key.client_id if details.how == "document" else None,
                    key.issuer,
                    hosts or details.private_hosts,
                )
        return cls(options.client_id, _client_secret(options), options.client_metadata_url, options.issuer, hosts)

    @property
    def ways(self) -> dict[str | None, How]:
        """How the client of an id is known, where that was not by a dynamic registration."""
        return {self.document: "document", self.client_id: "id"}


def _client_secret(options: Namespace) -> Secret | None:
    """The client's secret: from the environment or the person, and never from the command line."""
    if options.client_id is None:
        return None
    if not options.ask_client_secret:
        given = os.environ.get(SECRET_VARIABLE)
        return Secret(given) if given else None
    from getpass import getpass

    try:
        given = getpass(f"Client secret of {options.client_id}: ", stream=sys.stderr)
    except EOFError:
        given = ""
    if not given:
        raise ConfigurationError("no client secret was given")
    return Secret(given)


async def _signed_in(options: Namespace, known: _Client, store: View) -> CredentialKey:
    """Have the server ask for a token, and the person give one. What it is kept under.

    Raises:
        AuthorizationFailed: there is no token, or it could not be kept, which the person has been told.
    """
    url: str = options.url
    auth = OAuth(
        known.client_id,
        known.secret,
        client_metadata_url=known.document,
        allow_dynamic_registration=options.allow_dynamic_registration,
        redirect_uri=options.redirect_uri,
        scopes=options.scope,
        issuer=known.issuer,
        account=options.account or ACCOUNT,
        private_hosts=known.private_hosts,
        store=store,
        browser=_headless() if options.headless else _shown_page,
        timeout=options.timeout,
        notice=_say,
    )
    async with Client(url, auth=auth, tls=_tls(options)) as client:
        if client.whoami is None:
            await client.discover()
        if client.whoami is None and client.server_capabilities.tools is not None:
            await client.list_tools()
        who = client.whoami
    if who is None:
        raise ConfigurationError(f"{url} asks for no token: there is nothing to sign in to")
    key = CredentialKey(who.issuer, who.resource, who.client_id, who.account)
    kept = store.keys()
    if key not in kept:
        raise AuthorizationFailed(f"signed in to {who.resource}, but the tokens could not be kept")
    return key


def _headless() -> Headless:
    # Whoever asked for it reads the address and answers, on a terminal or by a pipe.
    return Headless(out=sys.stderr, prompt=lambda: sys.stdin.readline(MAX_ADDRESS + 1))


async def _shown_page(url: str) -> bool | str:
    """The desktop's browser; where there is none, a person at the terminal takes its place."""
    if not await open_browser(url):
        return await _headless()(url) if sys.stdin.isatty() else False
    _say(f"Sign in at {urlsplit(url).netloc}, in the browser. If no page opens there, open this one:\n\n{url}\n")
    return True


# Logout


def _logout(options: Namespace) -> int:
    found = find(options.url, options.account, options.store)
    if found is None:
        raise _nobody(options.url, options.account)
    revoked = asyncio.run(_revoked(found, options))
    if options.json:
        emit_json({"server": found.key.resource, "account": found.key.account, "revoked": revoked})
    else:
        end = "its tokens are revoked and deleted" if revoked else "its tokens are deleted here"
        print(safe(f"Signed out of {found.key.resource}: {end}"))
    return OK if revoked else NOT_REVOKED


async def _revoked(found: SignIn, options: Namespace) -> bool:
    """Revoke and delete the tokens of a sign-in. False where they were not revoked, which the person is told."""
    revoked = False
    try:
        if found.tokens is not None:
            settings = used_again(found, found.key.resource, tls=_tls(options), notice=_say)
            authorizer = Authorizer(found.key.resource, settings)
            revoked = await authorizer.sign_out()
            left = found.store.keys()
            if revoked and found.key in left:
                revoked = False  # it was not even looked at, as where the key that it is bound to has gone
                _say(f"The tokens were not revoked at {found.key.issuer}: the key that they are bound to is not there")
    except (AuthorizationFailed, ConfigurationError, StoreError) as exc:
        _say(f"The tokens were not revoked at {found.key.issuer}: {exc}")
    finally:
        found.forget()
    return revoked


def _nobody(url: str, account: str | None = None) -> AuthorizationFailed:
    return AuthorizationFailed(f"nobody is signed in to {url}: {login_words(url, account)}")


# Whoami


def _whoami(options: Namespace) -> int:
    found: list[SignIn] = []
    try:
        for store in stores(options.store):
            found += sign_ins(store)
    except AuthorizationFailed as exc:  # the file is locked; what is elsewhere is shown all the same
        if not found:
            raise
        _say(str(exc))
    if options.url is not None:
        found = [each for each in found if covers(each.key.resource, http_url(options.url))]
        if not found:
            raise _nobody(options.url)
    if options.json:
        emit_json([asdict(_shown(each)) for each in found])
    elif found:
        now = time.time()
        rows = [
            [
                each.key.resource,
                each.key.issuer,
                each.key.account,
                each.key.client_id,
                " ".join(_shown(each).scopes or ()),
                _lasts(each, now),
            ]
            for each in found
        ]
        table("Sign-ins", ("server", "issuer", "account", "client", "scopes", "ends"), rows)
    else:
        _say("No sign-ins.")
    return OK
