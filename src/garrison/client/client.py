"""`Client`: one server, whichever revision it speaks and however it is reached.

Rules of this file:
- A method here words a request, lets `Conversation` carry it, and `Results` read what comes. It knows no transport.
- Whatever a server sends ends in a typed result or one `ClientError`; the client stays usable after it.
- A request is carried out at most once unless doing it twice changes nothing: only then is it sent again by itself.

Spec: 2026-07-28 server/tools, server/resources, server/prompts, server/utilities, basic/patterns/mrtr.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from ..errors import ClientError, ConfigurationError, RemoteError, ToolError
from ..policy import SecurityPolicy
from ..protocol import types as t
from .catalogue import Catalogue
from .conversation import Answered, Conversation
from .handlers import Answers
from .negotiation import allowed_versions
from .results import Results
from .subscriptions import Subscription
from .targets import Reach, authorizer_for, settle, transport_for
from .words import said_lines

if TYPE_CHECKING:
    import os
    import ssl

    from ..auth.client.held import SignedIn
    from ..auth.client.settings import AuthSettings
    from ..policy.tls import TlsClientConfig
    from ..protocol.envelope import Notification
    from ..safe.sandbox import Sandbox
    from .handlers import ElicitHandler, RootsHandler, SampleHandler
    from .http import Challenge
    from .launching import SandboxMode
    from .negotiation import Era
    from .targets import Target

__all__ = ["Client"]

_HEADER_MISMATCH: Final = -32020

_log = logging.getLogger("garrison.client")


ProgressHandler = Callable[[t.ProgressParams], object]


class Client:
    """A client of one MCP server.

        async with Client("https://example.com/mcp", token=token) as client:
            result = await client.call_tool("add", {"a": 1, "b": 2})

    Args:
        target: a URL (https, or http on loopback; wss, or ws on loopback), `unix:` and the path of a socket, a list of
            program and arguments, a server object, or a transport. In place of a text or a list, the configuration
            object: `HttpTransportConfig`, `WebSocketConfig`, `UnixSocketConfig`, `Launch`.
        name, version: what the client calls itself.
        token: a bearer token, sent to the origin of the URL only.
        headers: further HTTP headers.
        timeout: seconds for one request; `policy.timeouts.request` by default. Progress starts it anew, up to
            `policy.timeouts.request_max`.
        policy: limits and time-outs, and the hosts that may be spoken to without TLS.
        era: `modern` and `legacy` rule the other era out; `auto` finds out.
        versions: the revisions that may be spoken; all by default.
        on_elicit, on_sample, on_roots: answer the server's questions; each declares its capability. Functions may be
            `async`. `on_roots` may be a list of `Root`, `file://` URIs or paths.
        on_log, on_progress, on_notification: hear log messages, progress of any call, and every notification.
        log_level: the least severe log message the server should send; none are asked for by default.
        cache: whether results that the server calls fresh are used again.
        proxy: `http://host:port` of an HTTP proxy for https.
        tls: a `TlsClientConfig`, or an `ssl.SSLContext`, in place of the platform's trust store.
        challenge: is asked for a new Authorization value when the server answers 401 or 403.
        auth: how to get tokens, in place of `token` and `challenge`: `OAuth`, `ClientCredentials`, `WorkloadIdentity`
            or `EnterpriseAuthorization`. For https and wss. What it fetches does not go through `proxy`.
        env, cwd: environment variables and directory of a local server. It inherits PATH, HOME and the like only.
        sandbox: what a local server may touch: a `Sandbox`; `auto` for one that shows it the system and its own code,
            where such a one can be had; `landlock` or `bubblewrap` for that one. None by default. `Launch` has more.
        on_stderr: gets what a local server writes on standard error, up to 1 MiB a minute: untrusted bytes.

    Raises:
        ConfigurationError: an argument is wrong.
        ConnectionFailed: (on entering) the server cannot be reached, or speaks no common revision.
        AuthorizationFailed: (on entering, and of any request) `auth` got no token, and why.
    """

    def __init__(
        self,
        target: Target,
        *,
        name: str = "garrison",
        version: str | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        policy: SecurityPolicy | None = None,
        era: Era = "auto",
        versions: Sequence[str] | None = None,
        on_elicit: ElicitHandler | None = None,
        on_sample: SampleHandler | None = None,
        on_roots: RootsHandler | None = None,
        on_log: Callable[[t.LoggingMessageParams], object] | None = None,
        on_progress: ProgressHandler | None = None,
        on_notification: Callable[[Notification], object] | None = None,
        log_level: t.LoggingLevel | None = None,
        cache: bool = True,
        proxy: str | None = None,
        tls: ssl.SSLContext | TlsClientConfig | None = None,
        challenge: Challenge | None = None,
        auth: AuthSettings | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        sandbox: Sandbox | SandboxMode | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> None:
        if version is None:
            from .. import __version__ as version
        target, policy = settle(target, policy or SecurityPolicy())
        self._authorizer = authorizer_for(target, auth, token=token, challenge=challenge, tls=tls)
        reach = Reach(
            policy=policy,
            token=token,
            headers=headers,
            proxy=proxy,
            tls=tls,
            challenge=challenge,
            auth=self._authorizer,
            env=env,
            cwd=cwd,
            sandbox=sandbox,
            on_stderr=on_stderr,
        )
        self._limits = policy.limits
        self._on_log, self._on_progress, self._on_notification = on_log, on_progress, on_notification
        self._conversation = Conversation(
            lambda: transport_for(target, reach),
            policy=policy,
            versions=allowed_versions(versions, era),
            info={"name": name, "version": version},
            timeout=timeout,
            answers=Answers(
                on_elicit=on_elicit,
                on_sample=on_sample,
                on_roots=on_roots,
                timeouts=policy.timeouts,
                most=policy.limits.in_flight,
            ),
            log_level=log_level,
            on_notification=self._heard,
            on_missed=self._missed,
        )
        self._catalogue = Catalogue(most=policy.limits.tools)
        self._results = Results(
            self._conversation,
            policy=policy,
            timeout=timeout,
            cache=cache,
            whoami=lambda: self.whoami,
            on_progress=on_progress,
            on_other=self._catalogue.forget,
        )
        self._learning = asyncio.Lock()

    # Connection.

    async def __aenter__(self) -> Client:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def connect(self) -> None:
        """Connects and agrees on a revision; does nothing when connected.

        Raises:
            ConnectionFailed, AuthenticationRequired, HttpError, ConnectionLost, ProtocolViolation: as the names say.
        """
        await self._conversation.ready()

    async def aclose(self) -> None:
        """Ends the connection and a local server. May be called twice, from any task; requests under way end with
        `ConnectionLost`, and so does a sign-in."""
        if self._authorizer is not None:
            await self._authorizer.aclose()
        await self._conversation.aclose()

    @property
    def whoami(self) -> SignedIn | None:
        """Who this client is to the server by `auth=`; None before there is a token. It holds no token."""
        return None if self._authorizer is None else self._authorizer.whoami

    async def sign_out(self) -> bool:
        """Forgets the token of `auth=`, here and in its store, and has it revoked (RFC 7009).

        Returns:
            False where its authorization server did not revoke it, so that it ends by itself.

        Raises:
            AuthorizationFailed: the store cannot be used.
        """
        try:
            return True if self._authorizer is None else await self._authorizer.sign_out()
        finally:
            self._results.recognize()

    # What is known of the server.

    @property
    def protocol_version(self) -> str:
        """The revision that is spoken. Raises `ConnectionLost` before the client is connected, like its neighbours."""
        return self._conversation.agreed().revision.version

    @property
    def server_info(self) -> t.Implementation | None:
        """What the server calls itself: untrusted text."""
        return self._conversation.agreed().server_info

    @property
    def server_capabilities(self) -> t.ServerCapabilities:
        """What the server offers."""
        return self._conversation.agreed().capabilities

    @property
    def instructions(self) -> str | None:
        """What the server says about its use: untrusted text."""
        return self._conversation.agreed().instructions

    @property
    def tools_version(self) -> int:
        """Another number whenever the server's tools are, or may be, other than they were: it said so, or it was
        started anew."""
        return self._catalogue.changes

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many messages arrived that belonged to nothing, by kind."""
        link = self._conversation.link
        return dict(link.dropped) if link is not None else {}

    # Requests.

    async def discover(
        self, *, timeout: float | None = None, meta: Mapping[str, object] | None = None
    ) -> t.DiscoverResult:
        """What the server speaks and offers. Of an older server: what it said in its handshake."""
        link = await self._conversation.ready()
        if link.modern:
            return await self._results.fetch("server/discover", {}, None, t.DiscoverResult, timeout, meta)
        known = self._conversation.agreed()
        return t.DiscoverResult(
            supported_versions=[known.revision.version],
            capabilities=known.capabilities,
            instructions=known.instructions,
        )

    async def ping(self, *, timeout: float | None = None, meta: Mapping[str, object] | None = None) -> None:
        """Asks for a sign of life: `ping`, or `server/discover` where there is no ping."""
        link = await self._conversation.ready()
        await self._ask("server/discover" if link.modern else "ping", {}, timeout, meta, safe=True)

    async def list_tools(
        self, cursor: str | None = None, *, timeout: float | None = None, meta: Mapping[str, object] | None = None
    ) -> t.ListToolsResult:
        """One page of tools. Over HTTP, tools with invalid `x-mcp-header` annotations are left out."""
        result = await self._results.page("tools/list", cursor, t.ListToolsResult, timeout, meta)
        return self._catalogue.learn(result, mirrored=self._conversation.mirrors)

    async def list_resources(
        self, cursor: str | None = None, *, timeout: float | None = None, meta: Mapping[str, object] | None = None
    ) -> t.ListResourcesResult:
        """One page of resources."""
        return await self._results.page("resources/list", cursor, t.ListResourcesResult, timeout, meta)

    async def list_resource_templates(
        self, cursor: str | None = None, *, timeout: float | None = None, meta: Mapping[str, object] | None = None
    ) -> t.ListResourceTemplatesResult:
        """One page of resource templates."""
        return await self._results.page(
            "resources/templates/list", cursor, t.ListResourceTemplatesResult, timeout, meta
        )

    async def list_prompts(
        self, cursor: str | None = None, *, timeout: float | None = None, meta: Mapping[str, object] | None = None
    ) -> t.ListPromptsResult:
        """One page of prompts."""
        return await self._results.page("prompts/list", cursor, t.ListPromptsResult, timeout, meta)

    async def tools(
        self, *, timeout: float | None = None, meta: Mapping[str, object] | None = None
    ) -> AsyncIterator[t.Tool]:
        """All tools, page by page: up to `Limits.tools`, from up to `Limits.pages` pages, within `Timeouts.listing`.

        Raises:
            ProtocolViolation: there are more, one is larger than `Limits.definition_bytes`, or the pages have no end.
            RequestTimeout: they take longer.
        """
        self._results.recognize()
        changes = self._catalogue.changes
        async for page in self._results.pages("tools/list", t.ListToolsResult, timeout, meta):
            for tool in self._catalogue.learn(page, mirrored=self._conversation.mirrors).tools:
                yield tool
        self._catalogue.learnt(changes)

    async def resources(
        self, *, timeout: float | None = None, meta: Mapping[str, object] | None = None
    ) -> AsyncIterator[t.Resource]:
        """All resources, page by page, up to `Limits.listed`; otherwise as `tools`."""
        async for page in self._results.pages("resources/list", t.ListResourcesResult, timeout, meta):
            for resource in page.resources:
                yield resource

    async def resource_templates(
        self, *, timeout: float | None = None, meta: Mapping[str, object] | None = None
    ) -> AsyncIterator[t.ResourceTemplate]:
        """All resource templates, page by page, up to `Limits.listed`; otherwise as `tools`."""
        async for page in self._results.pages("resources/templates/list", t.ListResourceTemplatesResult, timeout, meta):
            for template in page.resource_templates:
                yield template

    async def prompts(
        self, *, timeout: float | None = None, meta: Mapping[str, object] | None = None
    ) -> AsyncIterator[t.Prompt]:
        """All prompts, page by page, up to `Limits.listed`; otherwise as `tools`."""
        async for page in self._results.pages("prompts/list", t.ListPromptsResult, timeout, meta):
            for prompt in page.prompts:
                yield prompt

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        on_progress: ProgressHandler | None = None,
        meta: Mapping[str, object] | None = None,
        raise_on_error: bool = False,
    ) -> t.CallToolResult:
        """Calls a tool.

        Args:
            name, arguments: of the tool.
            timeout: seconds; the client's by default.
            on_progress: hears the progress of this call.
            meta: members for `_meta` beside the protocol's own.
            raise_on_error: raises `ToolError` where the tool failed, in place of a result with `is_error`.

        Raises:
            RemoteError: the server answered with an error.
            OutputInvalid: the structured content breaks the tool's output schema.
            RequestTimeout, ConnectionLost, ProtocolViolation, HttpError, InputDeclined: there is no result.
        """
        given: Mapping[str, object] = {} if arguments is None else arguments
        on_progress = on_progress or self._on_progress
        try:
            raw = await self._call_tool(name, given, timeout, meta, on_progress)
        except RemoteError as exc:
            if exc.code != _HEADER_MISMATCH or not self._conversation.mirrors:
                raise
            await self._learn(name, fresh=True)  # the tool's headers may have changed since it was listed
            raw = await self._call_tool(name, given, timeout, meta, on_progress)
        result = self._results.read("tools/call", raw, t.CallToolResult)
        if not self._catalogue.knows(name) and (
            result.structured_content is not t.UNSET or self._catalogue.knew_output(name)
        ):
            try:
                await self._learn(name, fresh=False)
            except ClientError as exc:
                # The tool was called and has its result; that its listing cannot be had must not hide it.
                _log.warning("The output schema of %.128r is not known: %s", name, exc)
                self._catalogue.give_up()
        self._catalogue.check(name, result)
        if raise_on_error and result.is_error:
            texts = [part.text for part in result.content if isinstance(part, t.TextContent)]
            raise ToolError(said_lines("\n".join(texts)))
        return result

    async def _call_tool(
        self,
        name: str,
        arguments: Mapping[str, object],
        timeout: float | None,
        meta: Mapping[str, object] | None,
        on_progress: ProgressHandler | None,
    ) -> dict[str, object]:
        answered = await self._conversation.ask(
            "tools/call",
            {"name": name, "arguments": arguments},
            timeout=timeout,
            meta=meta,
            headers=self._catalogue.headers(name, arguments),
            on_progress=on_progress,
        )
        return answered.raw

    async def read_resource(
        self, uri: str, *, timeout: float | None = None, meta: Mapping[str, object] | None = None
    ) -> t.ReadResourceResult:
        """The contents of a resource."""
        return await self._results.fetch("resources/read", {"uri": uri}, uri, t.ReadResourceResult, timeout, meta)

    async def get_prompt(
        self,
        name: str,
        arguments: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> t.GetPromptResult:
        """The messages of a prompt."""
        params: dict[str, object] = {"name": name}
        if arguments is not None:
            params["arguments"] = arguments
        answered = await self._ask("prompts/get", params, timeout, meta, safe=True)
        return self._results.read("prompts/get", answered.raw, t.GetPromptResult)

    async def complete(
        self,
        ref: t.PromptReference | t.ResourceTemplateReference,
        argument_name: str,
        value: str,
        context: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> t.Completion:
        """Suggestions for an argument of a prompt or a variable of a resource template.

        Args:
            ref: the prompt or template.
            argument_name, value: what is being filled in, and what is typed so far.
            context: the arguments that are settled already.
        """
        params: dict[str, object] = {"ref": t.to_dict(ref), "argument": {"name": argument_name, "value": value}}
        if context is not None:
            params["context"] = {"arguments": context}
        answered = await self._ask("completion/complete", params, timeout, meta, safe=True)
        return self._results.read("completion/complete", answered.raw, t.CompleteResult).completion

    async def request(
        self,
        method: str,
        params: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """Any request; the result as it came. `params` is without `_meta`."""
        return (await self._ask(method, params or {}, timeout, meta)).raw

    async def set_log_level(
        self, level: t.LoggingLevel, *, timeout: float | None = None, meta: Mapping[str, object] | None = None
    ) -> None:
        """Asks for log messages from this level on: with every request from now on, or once of an older server."""
        if level not in t.LOGGING_LEVELS:
            raise ConfigurationError(f"the level must be one of {', '.join(t.LOGGING_LEVELS)}")
        link = await self._conversation.ready()
        self._conversation.log_level = level
        if link.modern:
            link.want_log(level)
        else:
            await self._ask("logging/setLevel", {"level": level}, timeout, meta, safe=True)

    async def send_roots_changed(self) -> None:
        """Tells an older server that the roots are others now; a modern one asks when it needs them."""
        link = await self._conversation.ready()
        if not link.modern:
            await link.notify("notifications/roots/list_changed")

    def subscribe(
        self,
        *,
        tools: bool = False,
        prompts: bool = False,
        resources_list: bool = False,
        resources: Sequence[str] = (),
    ) -> Subscription:
        """Listens for changes. Use the result with `async with` and `async for`.

        Args:
            tools, prompts, resources_list: whether the lists are others.
            resources: URIs whose contents are listened to.
        """
        wanted = t.SubscriptionFilter(
            tools_list_changed=tools or None,
            prompts_list_changed=prompts or None,
            resources_list_changed=resources_list or None,
            resource_subscriptions=list(resources) or None,
        )
        return Subscription(wanted, self._conversation.source, most=self._limits.subscription_events)

    async def _ask(
        self,
        method: str,
        params: Mapping[str, object],
        timeout: float | None,
        meta: Mapping[str, object] | None,
        *,
        safe: bool = False,
    ) -> Answered:
        return await self._conversation.ask(
            method, params, timeout=timeout, meta=meta, safe=safe, on_progress=self._on_progress
        )

    async def _learn(self, name: str, *, fresh: bool) -> None:
        """Lists the tools for what must be known of this one: once for each change, however many calls wait for it."""
        if fresh:
            self._catalogue.forget()
            self._results.changed("notifications/tools/list_changed")
        async with self._learning:
            if not self._catalogue.complete and not self._catalogue.knows(name):
                async for _ in self.tools():
                    pass

    # What the conversation tells.

    def _heard(self, notification: Notification) -> None:
        method, params = notification.method, notification.params
        uri = params.get("uri")
        self._results.changed(method, uri if isinstance(uri, str) else None)
        if method == "notifications/tools/list_changed":
            self._catalogue.forget()
        link = self._conversation.link
        if link is None:
            return
        if method == "notifications/message" and self._on_log is not None:
            try:
                message = t.convert(params, t.LoggingMessageParams)
            except msgspec.ValidationError:
                link.drop("malformed")
            else:
                link.run_callback(self._on_log, message)
        if self._on_notification is not None:
            link.run_callback(self._on_notification, notification)

    def _missed(self) -> None:
        self._catalogue.forget()
        self._results.clear()
