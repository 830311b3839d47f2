"""`Server`: what a program makes, registers its functions with, and runs.

Rules of this file:
- What it registers stands in `publishing`.
- Nothing is started by making a server. What it runs on is chosen by `run`, `run_http`, `asgi` or `connect_memory`.

Spec: 2026-07-28 server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal
from weakref import WeakSet

from ..errors import ConfigurationError
from ..gate.admission import Admission
from ..policy import SecurityPolicy
from ..protocol.revisions import LATEST, VERSIONS
from ..protocol.types import Implementation
from .capabilities import Offer
from .core import Core
from .desk import Desk
from .listings import Listings, implementation
from .publishing import Publisher
from .recording import Audit
from .results import Wire
from .runner import Runner
from .subscriptions import Hub

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from ..audit.contract import Sink
    from ..auth.resource.server import ResourceServer
    from ..gate.shared_rates import SharedRates
    from ..policy.principal import Principal
    from ..policy.tls import TlsServerConfig
    from ..policy.transports import UnixSocketConfig, WebSocketConfig
    from ..protocol.sealed import Sealer
    from ..protocol.types import CacheScope, Icon, ServerCapabilities
    from .access import AccessControl
    from .asgi import AsgiApp
    from .idempotency import Outcomes
    from .memory import MemoryConnection
    from .rules import Authorize
    from .serve import HttpServing, UnixServing
    from .states import Replays, States

__all__ = ["Server"]

_MOST_KEYS: Final = 2


class Server(Publisher):
    """An MCP server.

    Args:
        name: how it names itself to clients.
        version: its version.
        title, description, icons, website_url: further words about it, for people.
        instructions: how a model should use it.
        lifespan: a function that returns an async context manager, entered when the server starts and left when it
            ends; what it yields is `ctx.state`.
        policy: limits, time-outs and what else is allowed.
        state_key: 32 bytes, or their Base64 or hexadecimal text, that seal what travels through clients. Needed where
            several processes serve the same clients; a random key otherwise. To change keys without refusing anyone,
            give two: the new one seals, and what the old one sealed still opens.
        replays: remembers which answers to a tool that destroys something were used, which they are once. A memory of
            this process when not given; several processes that serve the same clients need one that they share.
        page_size: items on a page of a listing; None puts all on one.
        ttl_ms: how long clients may keep listings, in milliseconds.
        cache_scope: "public" where listings are the same for everybody.
        legacy: whether handshake revisions are served: with "sessions", "stateless" (nothing can be asked back over
            HTTP), or "off".
        http_sse: serve the HTTP+SSE transport of 2024-11-05 too, at `/sse` and `/messages/` beside the endpoint, for
            clients that know no newer one. Needs `legacy="sessions"`.
        capabilities: what is offered; the rest is not found, even where something is registered for it. Everything that
            is registered when not given.
        auth: what protects the server on HTTP and WebSocket: whose tokens are taken. On stdio and in memory there is
            nobody to ask.
        authorize: the policy function of what declares no rule of its own.
        audit: keeps a record of what was refused and of every call; `garrison.audit` has sinks.
        rate_store: counts `SecurityPolicy.rates` for several processes that serve the same callers.
        outcomes: remembers what was done under which idempotency key. A memory of this process when not given.

    Raises:
        ConfigurationError: a value is not what it should be.
    """

    def __init__(
        self,
        name: str,
        version: str = "0.1.0",
        *,
        title: str | None = None,
        description: str | None = None,
        icons: Sequence[Icon] | None = None,
        website_url: str | None = None,
        instructions: str | None = None,
        lifespan: Callable[[], AbstractAsyncContextManager[object]] | None = None,
        policy: SecurityPolicy | None = None,
        state_key: bytes | str | Sequence[bytes | str] | None = None,
        replays: Replays | None = None,
        page_size: int | None = None,
        ttl_ms: int = 60_000,
        cache_scope: CacheScope = "private",
        legacy: Literal["sessions", "stateless", "off"] = "sessions",
        http_sse: bool = False,
        capabilities: ServerCapabilities | None = None,
        auth: ResourceServer | None = None,
        authorize: Authorize | None = None,
        audit: Sink | None = None,
        rate_store: SharedRates | None = None,
        outcomes: Outcomes | None = None,
    ) -> None:
        if page_size is not None and page_size < 1:
            raise ConfigurationError("page_size must be at least 1, or None")
        if legacy not in ("sessions", "stateless", "off"):
            raise ConfigurationError('legacy must be "sessions", "stateless" or "off"')
        if cache_scope not in ("public", "private"):
            raise ConfigurationError('cache_scope must be "public" or "private"')
        if ttl_ms < 0:
            raise ConfigurationError("ttl_ms must not be negative")
        if http_sse and legacy != "sessions":
            raise ConfigurationError('http_sse needs legacy="sessions"')
        if auth is not None and cache_scope == "public":
            raise ConfigurationError('cache_scope="public": what a protected server lists differs by caller')
        self.info = Implementation(
            name=name,
            version=version,
            title=title,
            description=description,
            icons=list(icons) if icons is not None else None,
            website_url=website_url,
        )
        super().__init__(
            policy if policy is not None else SecurityPolicy(),
            protected=auth is not None,
            ruled=auth is not None or authorize is not None,
        )
        self.legacy = legacy
        self.http_sse = http_sse
        self.auth = auth
        self._authorize = authorize
        self.audit = audit
        self._rate_store = rate_store
        self._outcomes = outcomes
        self._shared_outcomes = outcomes is not None
        self._lifespan = lifespan
        self._state_key = state_key
        self._sealer: Sealer | None = None
        self._replays = replays
        self._shared_replays = replays is not None
        self._wire = Wire(implementation(self.info), lambda: self.policy)
        self.offer = Offer(self.registry, capabilities)
        self._audience = name if auth is None else auth.resource
        self._listings = Listings(
            self.registry,
            self.offer,
            self._wire,
            self._seal,
            self._audience,
            page_size=page_size,
            ttl_ms=ttl_ms,
            cache_scope=cache_scope,
            instructions=instructions,
            versions=VERSIONS if legacy != "off" else (LATEST,),
        )
        self._hubs: WeakSet[Hub] = WeakSet()
        self.registry.changed = self._changed
        if state_key is not None:
            self._seal()

    def __repr__(self) -> str:
        return f"Server({self.info.name!r})"

    @property
    def has_replays(self) -> bool:
        """Whether a memory of what was used was given that other processes can share."""
        return self._shared_replays

    @property
    def has_outcomes(self) -> bool:
        """Whether a memory of what was done was given that other processes can share."""
        return self._shared_outcomes

    @property
    def has_rate_store(self) -> bool:
        """Whether rates are counted where other processes count too."""
        return self._rate_store is not None

    @property
    def has_default_rule(self) -> bool:
        """Whether what declares no rule has one all the same."""
        return self._authorize is not None

    @property
    def has_state_key(self) -> bool:
        """Whether a key was given that other processes can share."""
        return self._state_key is not None

    @classmethod
    def of(cls, instance: object) -> Server:
        """The server of an instance of a class that `@mcp_server` marks."""
        from .classes import server_of

        return server_of(instance)

    def _seal(self) -> Sealer:
        if self._sealer is None:
            from ..protocol.sealed import Sealer, key_from_text

            given = self._state_key
            every = [given] if given is None or isinstance(given, str | bytes) else [*given]
            if not 1 <= len(every) <= _MOST_KEYS:
                raise ConfigurationError(f"state_key: one key, or the new and the old one; not {len(every)}")
            keys = [key_from_text(key) if isinstance(key, str) else key for key in every]
            self._sealer = Sealer(keys[0], previous=[key for key in keys[1:] if key is not None])
        return self._sealer

    def _states(self) -> States:
        from .states import States, UsedStates

        if self._replays is None:
            self._replays = UsedStates()
        return States(self._seal, self._audience, self._replays, self.policy.timeouts.state)

    def _remembered(self) -> Outcomes:
        if self._outcomes is None:
            from .idempotency import MemoryOutcomes

            self._outcomes = MemoryOutcomes()
        return self._outcomes

    def _changed(self, kind: str) -> None:
        self.offer.changed()
        self._listings.changed()
        if self.offer.tells(kind):
            for hub in tuple(self._hubs):
                hub.list_changed(kind)

    def resource_updated(self, uri: str, *, tenant: str | None = None) -> None:
        """Tell the clients that subscribed to this URI, and may read it, that its contents have changed.

        Args:
            uri: which resource.
            tenant: whose, where the same URI is something else for each tenant; None tells all.
        """
        for hub in tuple(self._hubs):
            hub.resource_updated(uri, tenant)

    # Running

    def _access(self) -> AccessControl:
        """What applies the rules; loaded where there are some."""
        from .access import AccessControl

        if self.auth is None:
            return AccessControl(closed=False, default=self._authorize)
        return AccessControl(closed=True, default=self._authorize, granted=self.auth.granted)

    def core(self) -> Core:
        """A new running form of this server, for a transport to start."""
        policy, name = self.policy, self.info.name
        hub = Hub(policy.limits.subscriptions, policy.timeouts.handler, policy.limits.subscriptions_per_principal)
        self._hubs.add(hub)
        self._wire.start()
        admission = Admission(policy.rates, shared=self._rate_store)
        audit = None if self.audit is None else Audit(name, self.audit)
        desk = Desk(
            self.registry,
            self.offer,
            self._access,
            self._listings,
            self._wire,
            hub,
            policy,
            self._states,
            admission,
            audit,
            self._remembered,
        )
        return Core(
            policy=policy,
            registry=self.registry,
            listings=self._listings,
            offer=self.offer,
            hub=hub,
            desk=desk,
            runner=Runner(name, desk, admission, self._wire.outgoing, policy.limits.in_flight_per_principal),
            audit=audit,
            rate_store=self._rate_store,
            legacy=self.legacy != "off",
            lifespan=None if self._lifespan is None else self._lifespan(),
        )

    def run(self) -> None:
        """Serve one client on standard input and output until it goes."""
        from .serve import run_stdio

        run_stdio(self)

    def run_http(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        token: str | None = None,
        path: str = "/mcp",
        tls: TlsServerConfig | None = None,
        websocket: WebSocketConfig | None = None,
        http: bool = True,
        unix: UnixSocketConfig | None = None,
        workers: int = 1,
    ) -> None:
        """Serve HTTP, WebSocket or both until interrupted.

        Args:
            host: the address. One that others can reach needs TLS or a trusted proxy, a credential and `allowed_hosts`.
            port: 0 lets the system choose.
            token: the bearer token that clients must send; `GARRISON_TOKEN` or a new random one when not given. It is
                printed once, with the URL. None is made where clients show certificates.
            path: the endpoint.
            tls: the certificate to serve with.
            websocket: serve WebSocket at the endpoint too.
            http: False: serve WebSocket only.
            unix: listen on this Unix socket, for a proxy on the same machine, in place of host and port.
            workers: processes that serve together. More than one need a `state_key`, and no sessions.

        Raises:
            InsecureConfigurationError: others could reach it unprotected; the message says what to set.
            ConfigurationError: settings contradict each other, or a file cannot be used.
            OSError: the address cannot be had.
        """
        from .serve import run_http

        run_http(
            self,
            host,
            port,
            token=token,
            path=path,
            tls=tls,
            websocket=websocket,
            http=http,
            unix=unix,
            workers=workers,
        )

    def http(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        token: str | None = None,
        path: str = "/mcp",
        tls: TlsServerConfig | None = None,
        websocket: WebSocketConfig | None = None,
        http: bool = True,
        unix: UnixSocketConfig | None = None,
    ) -> HttpServing:
        """Serve HTTP inside a program's own event loop: `async with server.http(port=0) as serving: ...`.

        The arguments and errors are those of `run_http`; nothing is printed, `serving.url` and `serving.token` say it.
        """
        from .serve import HttpServing

        return HttpServing(self, host, port, token=token, path=path, tls=tls, websocket=websocket, http=http, unix=unix)

    def run_unix(self, socket: UnixSocketConfig | str) -> None:
        """Serve clients on a Unix socket, one message per line, until interrupted.

        Args:
            socket: the path, or more about it. Peers must run as this user, or as one of `allowed_uids`.

        Raises:
            ConfigurationError: the socket cannot lie there; the message says why.
            OSError: the address cannot be had.
        """
        from .serve import run_unix

        run_unix(self, _unix(socket))

    def unix(self, socket: UnixSocketConfig | str) -> UnixServing:
        """Serve a Unix socket inside a program's own event loop: `async with server.unix(path) as serving: ...`.

        The argument and errors are those of `run_unix`.
        """
        from .serve import UnixServing

        return UnixServing(self, _unix(socket))

    def asgi(
        self, *, path: str = "/mcp", token: str | None = None, websocket: WebSocketConfig | None = None
    ) -> AsgiApp:
        """This server as an ASGI application, to run under an ASGI server or mount in another application.

        Hosts that are not in `SecurityPolicy.allowed_hosts` are answered only where the host server says that the
        connection came to a loopback address, and under loopback names with that address's port.

        Args:
            path: the endpoint's path below where the application is mounted.
            token: the bearer token that clients must send; `GARRISON_TOKEN` or a new random one when not given. Give
                one where several processes serve the same clients.
            websocket: serve WebSocket at the endpoint too.

        Raises:
            ConfigurationError: the token is too short or has characters that a header cannot carry.
        """
        from .asgi import AsgiApp

        return AsgiApp(self, path=path, token=token, websocket=websocket)

    async def connect_memory(self, principal: Principal | None = None) -> MemoryConnection:
        """A connection to this server in this process, for `Client(server)` and tests.

        Args:
            principal: on whose behalf; who started this process when not given.
        """
        from .memory import MemoryConnection

        return await MemoryConnection.open(self, principal)


def _unix(socket: UnixSocketConfig | str) -> UnixSocketConfig:
    if not isinstance(socket, str):
        return socket
    from ..policy.transports import UnixSocketConfig

    return UnixSocketConfig(socket)
