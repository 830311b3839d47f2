"""How each way of `settings.py` gets a token: who this client is to an authorization server, and what it asks there.

Rules of this file:
- A way is what the user configured; what a server says can end it, and never makes it another one.
- A client that was registered beforehand is known to one authorization server. The first one it is used with is that
  one, where the user named none.
- A key that tokens are bound to is one per authorization server and account.

Spec: MCP 2026-07-28 basic/authorization "Client Registration Approaches", "Authorization Server Binding"; RFC 9449.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar, cast

from ...errors import AuthorizationFailed, ConfigurationError
from ...policy.secret import Secret
from ..errors import OAuthError
from ..metadata import AuthorizationServerMetadata
from ..tokens import CredentialKey
from .authentication import ClientSecret, PrivateKeyJwt, PublicClient
from .code_flow import authorize
from .discovery import Discovered, canonical_resource, discover, discover_resource, discover_server, fetch_for
from .endpoint import TokenEndpoint
from .grants import EnterpriseGrant, client_credentials, jwt_bearer
from .held import Held
from .keeping import Keeping
from .loopback import RedirectListener
from .registration import ClientRegistration, Registered
from .settings import Assertion, AuthSettings, ClientCredentials, EnterpriseAuthorization, OAuth, WorkloadIdentity
from .words import refused

if TYPE_CHECKING:
    from ..challenge import WwwAuthenticate
    from ..dpop import DpopKey
    from ..requests import TokenRequest
    from ..tokens import TokenSet
    from .authentication import ClientAuthentication

__all__ = ["AnyWay", "Way", "way_for"]

_CALLBACK: Final = "http://127.0.0.1/callback"
"""The redirect URI of a client that is registered and says no other; its port is free (RFC 8252 section 7.3)."""
_ALGORITHM: Final = "ES256"
"""What a `DpopKey` signs with."""
_BOUND: Final = frozenset({"DPoP"})
"""The types of tokens that are of use with a key only."""

S = TypeVar("S", bound=AuthSettings)


class Way(ABC, Generic[S]):
    """One way to a token, for one MCP server.

    Args:
        url: the MCP server.
        settings: what the user gave.
        clock: the time, in seconds of `time.time`.
        tell: what the user should know goes here.
        count: is called before a person is asked; what it raises ends the attempt.
    """

    interactive = False
    """Whether it asks a person."""

    def __init__(
        self,
        url: str,
        settings: S,
        *,
        clock: Callable[[], float],
        tell: Callable[[str], None],
        count: Callable[[], None],
    ) -> None:
        self.url = url
        self.settings = settings
        self.clock = clock
        self.tell = tell
        self.count = count
        self.fetch = fetch_for(url, private_hosts=settings.private_hosts, tls=settings.tls)
        self._home = settings.issuer
        self._keeping: Keeping | None = None
        self._keys: dict[str, DpopKey] = {}
        self.check()

    # What a way is.

    def check(self) -> None:
        """Looks at what can be known of the settings before they are used.

        Raises:
            ConfigurationError: something of it cannot be.
        """

    @property
    @abstractmethod
    def client_id(self) -> str | None:
        """The id of this client, where it is the same at every authorization server that there may be."""

    @abstractmethod
    async def client(self, server: AuthorizationServerMetadata, client_id: str) -> ClientAuthentication:
        """The client that is known to a server by this id.

        Raises:
            AuthorizationFailed: this client is not, or not any more.
        """

    @abstractmethod
    async def obtain(self, found: Discovered, scopes: Sequence[str], *, offered: bool) -> Held:
        """A new grant.

        Args:
            found: of `discover`.
            scopes: what to ask for.
            offered: whether the MCP server has said that it takes tokens bound to a key.

        Raises:
            AuthorizationFailed: there is none, and why.
            ClientError: a server that is needed for it cannot be reached.
        """

    # What all have in common.

    async def keeping(self) -> Keeping:
        """Where tokens are kept."""
        if self._keeping is None:
            store = self.settings.store
            if store is None and self.interactive:
                from ..store import open_store

                store = await asyncio.to_thread(open_store, notice=self.tell)
            elif store is None:
                from ..store import MemoryStore

                store = MemoryStore()
            self._keeping = Keeping(store)
        return self._keeping

    async def discover(self, challenge: WwwAuthenticate | None, used: str | None) -> Discovered:
        """What the MCP server and its authorization server say of themselves.

        Args:
            challenge: what it answered.
            used: the authorization server that is used so far; it is kept as long as the MCP server names it.

        Raises:
            AuthorizationFailed: as `discovery.discover`.
        """
        settings, trust = self.settings, self.settings.trust_resource_metadata
        legacy = isinstance(settings, OAuth) and settings.legacy_discovery
        if used is None or settings.issuer is not None or legacy:
            issuer = settings.issuer
            return await discover(self.fetch, self.url, challenge, issuer=issuer, trust=trust, legacy=legacy)
        metadata = await discover_resource(self.fetch, self.url, challenge, trust=trust)
        named = metadata.authorization_servers
        server = await discover_server(self.fetch, used if used in named else named[0])
        return Discovered(metadata.resource, server, metadata)

    async def key(self, found: Discovered) -> CredentialKey | None:
        """What its token is kept under; None for a client that is not registered yet."""
        return None if self.client_id is None else self._key(found, self.client_id)

    def _key(self, found: Discovered, client_id: str) -> CredentialKey:
        return CredentialKey(found.server.issuer, found.resource, client_id, self.settings.account)

    async def stored(self, key: CredentialKey, tokens: TokenSet, like: Held | None = None) -> Held | None:
        """A token of the store, to be used. None where the key that it is bound to is gone.

        Args:
            key, tokens: of the store.
            like: the token that it replaces.
        """
        bound = tokens.token_type in _BOUND
        dpop = await self._dpop_key(key.issuer, make=False) if bound else None
        if bound and dpop is None:
            return None
        if key.client_id == self.client_id:
            self._home = self._home or key.issuer
        endpoint = None if like is None else like.endpoint
        return self._held(key, tokens, "stored", dpop=dpop, endpoint=endpoint)

    async def endpoint(self, key: CredentialKey, dpop: DpopKey | None) -> TokenEndpoint:
        """Where a token that was kept is renewed and revoked.

        Raises:
            AuthorizationFailed: as `discovery.discover_server` and `client`.
        """
        server = await discover_server(self.fetch, key.issuer)
        return self._endpoint(server, await self.client(server, key.client_id), dpop)

    async def _granted(self, found: Discovered, client: ClientAuthentication, offered: bool) -> TokenEndpoint:
        """Where a new grant is asked for."""
        dpop = await self._dpop_key(found.server.issuer, make=True) if self._binds(found, offered) else None
        demanded = found.metadata is not None and found.metadata.dpop_bound_access_tokens_required
        return self._endpoint(found.server, client, dpop, demanded=demanded)

    def _endpoint(
        self,
        server: AuthorizationServerMetadata,
        client: ClientAuthentication,
        dpop: DpopKey | None,
        *,
        demanded: bool = False,
    ) -> TokenEndpoint:
        """Where tokens are had. One that is not bound is taken unless that is `demanded`, or set."""
        lax = self.settings.dpop == "auto" and not demanded
        return TokenEndpoint(self.fetch, server, client, dpop=dpop, allow_bearer=lax, clock=self.clock)

    def _held(
        self,
        key: CredentialKey,
        tokens: TokenSet,
        origin: Literal["stored", "renewed", "new"],
        *,
        dpop: DpopKey | None,
        endpoint: TokenEndpoint | None,
    ) -> Held:
        return Held(
            key,
            tokens,
            origin,
            dpop=dpop if tokens.token_type in _BOUND else None,
            endpoint=endpoint,
            renewable=not self.interactive,
            now=self.clock(),
        )

    def _new(self, found: Discovered, endpoint: TokenEndpoint, tokens: TokenSet) -> Held:
        key = self._key(found, endpoint.client.client_id)
        return self._held(key, tokens, "new", dpop=self._keys.get(key.issuer), endpoint=endpoint)

    def at_home(self, issuer: str) -> bool:
        """Whether an authorization server is the one that knows the client that was registered beforehand."""
        self._home = self._home or issuer
        return self._home == issuer

    def _only_at_home(self, issuer: str) -> None:
        if not self.at_home(issuer):
            raise refused(
                f"{self.url} names the authorization server {issuer}, and the credential of this client is for "
                f"{self._home}: set issuer= to the new one if the change is meant",
                setting=f"{type(self.settings).__name__}.issuer",
            )

    def _binds(self, found: Discovered, offered: bool) -> bool:
        """Whether to ask for tokens that are bound to a key."""
        mode, metadata = self.settings.dpop, found.metadata
        demanded = metadata is not None and metadata.dpop_bound_access_tokens_required
        if mode == "off" and demanded:
            raise refused(
                f"{self.url} takes tokens that are bound to a key, and no others",
                setting=f"{type(self.settings).__name__}.dpop",
            )
        if mode != "auto" or demanded:
            return mode == "require" or demanded
        listed = () if metadata is None else metadata.dpop_signing_alg_values_supported or ()
        return (offered or _ALGORITHM in listed) and _ALGORITHM in (
            found.server.dpop_signing_alg_values_supported or ()
        )

    async def _dpop_key(self, issuer: str, *, make: bool) -> DpopKey | None:
        from ..dpop import DpopKey

        known = self._keys.get(issuer)
        if known is not None:
            return known
        keeping, place = await self.keeping(), CredentialKey(issuer, account=self.settings.account, kind="key")
        kept = await keeping.load(place)
        if kept is None and not make:
            return None
        try:
            key = DpopKey.generate() if kept is None else DpopKey.load(Secret(kept.decode()))
        except (ConfigurationError, ValueError):
            raise AuthorizationFailed(
                f"The DPoP key of {issuer} in the credential store cannot be read; delete it and sign in again"
            ) from None
        if kept is None:
            await keeping.save(place, key.export().reveal().encode())
        self._keys[issuer] = key
        return key


class _Person(Way[OAuth]):
    """Somebody signs in."""

    interactive = True

    @property
    def client_id(self) -> str | None:
        return self.settings.client_id

    async def key(self, found: Discovered) -> CredentialKey | None:
        settings = self.settings
        if settings.client_id is not None and self.at_home(found.server.issuer):
            return self._key(found, settings.client_id)
        if settings.client_metadata_url is not None and found.server.client_id_metadata_document_supported:
            return self._key(found, settings.client_metadata_url)
        kept = await self._registered(found.server.issuer)
        return None if kept is None else self._key(found, kept.client.client_id)

    async def client(self, server: AuthorizationServerMetadata, client_id: str) -> ClientAuthentication:
        settings = self.settings
        if client_id == settings.client_id and self.at_home(server.issuer):
            return self._preregistered(server, client_id)
        if client_id == settings.client_metadata_url:
            return PublicClient(client_id)
        kept = await self._registered(server.issuer)
        if kept is None or kept.client.client_id != client_id:
            raise AuthorizationFailed(
                f"This client is not known to {server.issuer} any more", error=OAuthError.INVALID_CLIENT
            )
        return kept.client

    async def obtain(self, found: Discovered, scopes: Sequence[str], *, offered: bool) -> Held:
        settings, server = self.settings, found.server
        before = await self._registered(server.issuer)
        try:
            async with AsyncExitStack() as stack:
                listener = await stack.enter_async_context(await self._listener(server, before))
                client = await self._known(server, listener.redirect_uri, scopes, before)
                endpoint = await self._granted(found, client, offered)
                answer = await authorize(
                    server,
                    client.client_id,
                    found.resource,
                    listener=listener,
                    browser=self._opened,
                    scopes=scopes,
                    timeout=settings.timeout,
                )
                return self._new(found, endpoint, await endpoint.request(answer.request))
        except AuthorizationFailed as exc:
            if before is not None and exc.error != OAuthError.ACCESS_DENIED:
                # The server may have forgotten the client, which it can tell the browser only.
                await (await self.keeping()).forget(self._place(server.issuer))
            raise

    async def _opened(self, url: str) -> bool | str:
        """Sends the person to a page."""
        self.count()
        browser = self.settings.browser
        if browser is None:
            from .browser import open_browser as browser
        found = browser(url)
        return await found if isinstance(found, Awaitable) else found

    def _preregistered(self, server: AuthorizationServerMetadata, client_id: str) -> ClientAuthentication:
        secret = cast("Secret | None", self.settings.client_secret)  # what its own constructor made of it
        if secret is None:
            return PublicClient(client_id)
        known = server.token_endpoint_auth_methods_supported
        post = "client_secret_post" in known and "client_secret_basic" not in known
        return ClientSecret(client_id, secret, method="client_secret_post" if post else "client_secret_basic")

    async def _listener(self, server: AuthorizationServerMetadata, before: Registered | None) -> RedirectListener:
        settings = self.settings
        if settings.redirect_uri is not None:
            return RedirectListener(settings.redirect_uri)
        if settings.client_id is not None and self.at_home(server.issuer):
            return RedirectListener(_CALLBACK)
        if settings.client_metadata_url is not None and server.client_id_metadata_document_supported:
            return RedirectListener(_CALLBACK)
        return RedirectListener(before.redirect_uri if before is not None else None)

    async def _known(
        self, server: AuthorizationServerMetadata, redirect_uri: str, scopes: Sequence[str], before: Registered | None
    ) -> ClientAuthentication:
        settings = self.settings
        home = settings.client_id if self.at_home(server.issuer) else None
        if home is None and before is not None and before.redirect_uri == redirect_uri:
            return before.client
        registration = ClientRegistration(
            client=None if home is None else self._preregistered(server, home),
            issuer=server.issuer,
            metadata_document=settings.client_metadata_url,
            allow_dynamic_registration=settings.allow_dynamic_registration,
            client_name=settings.client_name,
        )
        registered = await registration.register(self.fetch, server, redirect_uri, scopes)
        if registered.how == "dynamic":
            await (await self.keeping()).save(self._place(server.issuer), registered.to_json())
        return registered.client

    async def _registered(self, issuer: str) -> Registered | None:
        """What an earlier dynamic registration gave."""
        kept = await (await self.keeping()).load(self._place(issuer))
        return None if kept is None else Registered.from_json(kept, issuer, self.clock())

    def _place(self, issuer: str) -> CredentialKey:
        return CredentialKey(issuer, account=self.settings.account, kind="client")


class _Program(Way[ClientCredentials]):
    """A credential of the program's own."""

    def check(self) -> None:
        self._client = _keyed(self.settings)

    @property
    def client_id(self) -> str | None:
        return self.settings.client_id

    async def client(self, server: AuthorizationServerMetadata, client_id: str) -> ClientAuthentication:
        self._only_at_home(server.issuer)
        return self._client

    async def obtain(self, found: Discovered, scopes: Sequence[str], *, offered: bool) -> Held:
        client = await self.client(found.server, self.settings.client_id)
        endpoint = await self._granted(found, client, offered)
        return self._new(found, endpoint, await client_credentials(endpoint, found.resource, scopes=scopes))


class _Workload(Way[WorkloadIdentity]):
    """A signed identity of the platform."""

    @property
    def client_id(self) -> str | None:
        return self.settings.client_id or ""

    async def client(self, server: AuthorizationServerMetadata, client_id: str) -> ClientAuthentication:
        self._only_at_home(server.issuer)
        return PublicClient(client_id) if client_id else _Nameless()

    async def obtain(self, found: Discovered, scopes: Sequence[str], *, offered: bool) -> Held:
        client = await self.client(found.server, self.settings.client_id or "")
        endpoint = await self._granted(found, client, offered)
        assertion = await _asked(self.settings.assertion, "WorkloadIdentity.assertion")
        return self._new(found, endpoint, await jwt_bearer(endpoint, assertion, found.resource, scopes=scopes))


class _Enterprise(Way[EnterpriseAuthorization]):
    """The company's identity provider."""

    def check(self) -> None:
        public = self.settings.secret is None and self.settings.key is None
        self._client = PublicClient(self.settings.client_id) if public else _keyed(self.settings)

    @property
    def client_id(self) -> str | None:
        return self.settings.client_id

    async def client(self, server: AuthorizationServerMetadata, client_id: str) -> ClientAuthentication:
        self._only_at_home(server.issuer)
        return self._client

    async def obtain(self, found: Discovered, scopes: Sequence[str], *, offered: bool) -> Held:
        settings = self.settings
        endpoint = await self._granted(found, await self.client(found.server, settings.client_id), offered)
        secret = cast("Secret | None", settings.idp_client_secret)  # what its own constructor made of it
        idp = TokenEndpoint(
            self.fetch,
            AuthorizationServerMetadata(
                issuer=settings.idp.partition("?")[0],
                token_endpoint=settings.idp,
                token_endpoint_auth_methods_supported=("none", "client_secret_basic"),
            ),
            PublicClient(settings.idp_client_id) if secret is None else ClientSecret(settings.idp_client_id, secret),
            clock=self.clock,
        )
        grant = EnterpriseGrant(idp, endpoint, settings.resource or canonical_resource(self.url))
        subject = await _asked(settings.id_token, "EnterpriseAuthorization.id_token")
        return self._new(found, endpoint, await grant.request(subject, scopes=scopes, metadata=found.metadata))


class _Nameless:
    """A client that an authorization server knows by its assertion alone (RFC 7521 section 4.1)."""

    client_id = ""
    method = "none"

    def apply(
        self, request: TokenRequest, server: AuthorizationServerMetadata, endpoint: str, now: float
    ) -> tuple[TokenRequest, dict[str, str]]:
        """Adds nothing."""
        return request, {}


AnyWay = Way[OAuth] | Way[ClientCredentials] | Way[WorkloadIdentity] | Way[EnterpriseAuthorization]


def way_for(
    url: str,
    settings: AuthSettings,
    *,
    clock: Callable[[], float],
    tell: Callable[[str], None],
    count: Callable[[], None],
) -> AnyWay:
    """The way of these settings; the other arguments are those of `Way`.

    Raises:
        ConfigurationError: they are none, or a value of theirs cannot be used.
    """
    if isinstance(settings, OAuth):
        return _Person(url, settings, clock=clock, tell=tell, count=count)
    if isinstance(settings, ClientCredentials):
        return _Program(url, settings, clock=clock, tell=tell, count=count)
    if isinstance(settings, WorkloadIdentity):
        return _Workload(url, settings, clock=clock, tell=tell, count=count)
    if isinstance(settings, EnterpriseAuthorization):
        return _Enterprise(url, settings, clock=clock, tell=tell, count=count)
    raise ConfigurationError("auth= must be OAuth, ClientCredentials, WorkloadIdentity or EnterpriseAuthorization")


def _keyed(settings: ClientCredentials | EnterpriseAuthorization) -> ClientAuthentication:
    if settings.key is not None:
        return PrivateKeyJwt(settings.client_id, settings.key, algorithm=settings.algorithm, key_id=settings.key_id)
    return ClientSecret(settings.client_id, settings.secret or "", method=settings.method)


async def _asked(give: Assertion, name: str) -> Secret:
    """What the user's function gives.

    Raises:
        AuthorizationFailed: it failed, or gave nothing. Its own error stands in the cause.
    """
    try:
        given = give()
        given = await given if isinstance(given, Awaitable) else given
        return given if isinstance(given, Secret) else Secret(given)
    except Exception as exc:  # the user's function: whatever it raises ends the attempt, and not the client
        raise AuthorizationFailed(f"{name} gave no token ({type(exc).__name__})") from exc
