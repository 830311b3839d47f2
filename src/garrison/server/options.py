"""What may be said about a server, and about what it offers, beside names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

from .rules import AccessOptions, Authorize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from ..audit.contract import Sink
    from ..auth.resource.server import ResourceServer
    from ..gate.shared_rates import SharedRates
    from ..policy import SecurityPolicy
    from ..policy.rates import Rate
    from ..protocol.types import Annotations, CacheScope, Icon, ServerCapabilities, ToolAnnotations
    from .idempotency import Outcomes
    from .states import Replays

__all__ = ["PromptOptions", "ResourceOptions", "ServerOptions", "ToolOptions"]


class ToolOptions(AccessOptions, total=False):
    """What may be said about a tool beside its name."""

    title: str
    """A name for people."""
    description: str
    """What it does; the docstring's first paragraph when not given."""
    annotations: ToolAnnotations
    """Hints about its behaviour, which clients do not have to believe."""
    icons: Sequence[Icon]
    meta: dict[str, object]
    """The definition's `_meta`."""
    input_schema: Mapping[str, object]
    """JSON Schema 2020-12, published as it is instead of what the signature says."""
    output_schema: Mapping[str, object]
    structured_output: bool
    """False: no outputSchema, text only."""
    timeout: float
    """Seconds for one run; `Timeouts.handler` when not given."""
    inline: bool
    """A synchronous function runs on the event loop instead of in a thread: only for what returns at once."""
    coerce: bool
    """True: text is converted to numbers and booleans where the parameter wants them."""
    destructive: bool
    """It destroys or changes something for good. Published as an annotation; who asked confirms each call, and while
    calls cannot be recorded it is not done."""
    confirm: bool | str
    """Whether who asked confirms each call, or the words in which to ask; as `destructive` says where not given."""
    idempotent_by: str
    """The parameter whose value names one deed: a call that repeats it gets the first result, and does nothing."""
    rate: Rate
    """How often one caller may call it, beside `SecurityPolicy.rates`."""
    cost: int
    """How many calls one counts for."""
    concurrency: int
    """Calls of it under way at once, all callers together."""
    dangerously_raw_text: str
    """Why its text leaves with control and invisible characters as they are."""
    inert_markdown: bool
    """Images, links and HTML in its text are written so that nothing fetches or follows them."""


class ResourceOptions(AccessOptions, total=False):
    """What may be said about a resource beside its URI."""

    name: str
    title: str
    description: str
    mime_type: str
    annotations: Annotations
    icons: Sequence[Icon]
    size: int
    """Bytes, where known; not for templates."""
    meta: dict[str, object]
    timeout: float
    inline: bool
    ttl_ms: int
    """How long clients may keep the contents, in milliseconds."""
    cache_scope: CacheScope
    """Whether the contents are the same for everybody."""


class PromptOptions(AccessOptions, total=False):
    """What may be said about a prompt beside its name."""

    title: str
    description: str
    icons: Sequence[Icon]
    meta: dict[str, object]
    timeout: float
    inline: bool


class ServerOptions(TypedDict, total=False):
    """What may be said about a server beside its name and version; see `Server`."""

    title: str
    description: str
    icons: Sequence[Icon]
    website_url: str
    instructions: str
    lifespan: Callable[[], AbstractAsyncContextManager[object]]
    policy: SecurityPolicy
    state_key: bytes | str | Sequence[bytes | str]
    replays: Replays
    page_size: int
    ttl_ms: int
    cache_scope: CacheScope
    legacy: Literal["sessions", "stateless", "off"]
    http_sse: bool
    capabilities: ServerCapabilities
    auth: ResourceServer
    authorize: Authorize
    audit: Sink
    rate_store: SharedRates
    outcomes: Outcomes
