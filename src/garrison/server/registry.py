"""What a server offers: tools, resources, resource templates, prompts and completions, found by name.

Rules of this file:
- A name is registered once; a second registration raises, and so does a name outside `[A-Za-z0-9_.-]{1,128}`.
- Listings keep the order of registration, so that clients and models can cache them.
- Every change counts `revision` up and is told to `changed`; what is encoded from a listing is kept until then.

Spec: 2026-07-28 server/tools, server/resources, server/prompts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from ..errors import RegistrationError
from ..protocol.headers import MirrorError, mirrors
from ..protocol.types import Prompt, Resource, ResourceTemplate, Tool
from .depends import provider_of
from .sensitive import looks_secret
from .tool_policy import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..protocol.headers import Mirror
    from ..protocol.types import CacheScope
    from .bounds import Bounds
    from .rules import Rule
    from .signature import Signature
    from .tool_policy import ToolPolicy

__all__ = [
    "Completer",
    "Entry",
    "Listed",
    "PromptEntry",
    "Registry",
    "ResourceEntry",
    "TemplateEntry",
    "ToolEntry",
    "check_name",
]

E = TypeVar("E", bound="Entry")

_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,128}")


def check_name(kind: str, name: str) -> str:
    """The name, if it may be one.

    Raises:
        RegistrationError: characters outside A-Z a-z 0-9 _ . - or a length outside 1 to 128.
    """
    if _NAME.fullmatch(name) is None:
        raise RegistrationError(f"{kind} name {name!r}: use 1 to 128 of A-Z a-z 0-9 _ . - (set name=...)")
    return name


class Entry:
    """What all registered functions have in common."""

    __slots__ = ("asks", "fn", "inline", "keyed", "once", "provided", "reading", "rule", "signature", "timeout")

    def __init__(self, fn: Callable[..., object], signature: Signature, timeout: float | None, inline: bool) -> None:
        if inline and signature.is_async:
            raise RegistrationError("inline=True is for functions written with def; async def already runs on the loop")
        self.fn = fn
        self.signature = signature
        self.timeout = timeout
        self.inline = inline
        self.reading: Callable[..., Signature] | None = None
        """Reads the signature of the function anew, with other `bounds`; None where there is nothing to bound."""
        self.rule: Rule | None = None
        """Who may use it; None where nothing was said."""
        self.once = False
        """A state of it opens once."""
        self.asks = False
        """Who calls it is asked first."""
        self.keyed = False
        """It is done once for an idempotency key."""
        self.provided = any(provider_of(annotation) is not None for _, annotation in signature.injected)


class ToolEntry(Entry):
    """A tool: its definition and the function behind it."""

    __slots__ = ("definition", "direct", "mirrors", "name", "policy", "publishes")

    def __init__(
        self,
        definition: Tool,
        fn: Callable[..., object],
        signature: Signature,
        timeout: float | None,
        inline: bool,
        policy: ToolPolicy = PLAIN,
    ) -> None:
        super().__init__(fn, signature, timeout, inline)
        self.name = check_name("tool", definition.name)
        self.definition = definition
        self.policy = policy
        key = policy.idempotent_by
        if key is not None and not any(p.name == key for p in signature.parameters):
            raise RegistrationError(f"tool {self.name!r}: idempotent_by={key!r} is none of its parameters")
        hints = definition.annotations
        irreversible = hints is not None and (hints.destructive_hint is True or hints.idempotent_hint is False)
        self.asks = bool(policy.confirm)
        self.once = irreversible or self.asks
        self.keyed = policy.idempotent_by is not None
        self.direct = inline and not signature.injected and not policy.guarded and policy.concurrency is None
        self.publishes = signature.output_schema is not None
        try:
            self.mirrors: tuple[Mirror, ...] = mirrors(definition.input_schema)
        except MirrorError as exc:
            raise RegistrationError(f"tool {self.name!r}: {exc}") from exc
        for mirror in self.mirrors:
            if looks_secret(mirror.path[-1]):
                raise RegistrationError(
                    f"tool {self.name!r}: parameter {mirror.path[-1]!r} looks like a secret, and headers are seen by "
                    "every proxy; remove its x-mcp-header"
                )


class ResourceEntry(Entry):
    """A resource at one URI."""

    __slots__ = ("cache_scope", "definition", "ttl_ms")

    def __init__(
        self,
        definition: Resource,
        fn: Callable[..., object],
        signature: Signature,
        timeout: float | None,
        inline: bool,
        ttl_ms: int,
        cache_scope: CacheScope,
    ) -> None:
        super().__init__(fn, signature, timeout, inline)
        from ..protocol.uri import UriError, parse_uri

        try:
            parse_uri(definition.uri)
        except UriError as exc:
            raise RegistrationError(f"resource {definition.uri!r}: {exc}") from exc
        self.definition = definition
        self.ttl_ms = ttl_ms
        self.cache_scope: CacheScope = cache_scope


class TemplateEntry(Entry):
    """Resources whose URIs fit a template."""

    __slots__ = ("_wanted", "cache_scope", "definition", "template", "ttl_ms")

    def __init__(
        self,
        definition: ResourceTemplate,
        fn: Callable[..., object],
        signature: Signature,
        timeout: float | None,
        inline: bool,
        ttl_ms: int,
        cache_scope: CacheScope,
    ) -> None:
        super().__init__(fn, signature, timeout, inline)
        from ..protocol.uritemplate import UriTemplate

        try:
            self.template = UriTemplate(definition.uri_template)
        except ValueError as exc:
            raise RegistrationError(f"resource template {definition.uri_template!r}: {exc}") from exc
        self.definition = definition
        self.ttl_ms = ttl_ms
        self.cache_scope: CacheScope = cache_scope
        names = {parameter.name for parameter in signature.parameters}
        unknown = sorted(
            p.name for p in signature.parameters if p.required and p.name not in {*self.template.variables, "uri"}
        )
        if unknown:
            raise RegistrationError(
                f"resource template {definition.uri_template!r}: parameter {unknown[0]!r} is no variable of it"
            )
        self._wanted = names
        signature.text_arguments()

    def bind(self, uri: str, values: dict[str, str | list[str]]) -> dict[str, object]:
        """Keyword arguments for the handler, which takes the variables it names, and `uri` if it names that.

        Raises:
            InvalidArguments: a variable does not fit its parameter's type.
        """
        given: dict[str, object] = {"uri": uri, **values}
        return self.signature.bind_text({name: value for name, value in given.items() if name in self._wanted})


class PromptEntry(Entry):
    """A prompt."""

    __slots__ = ("definition",)

    def __init__(
        self, definition: Prompt, fn: Callable[..., object], signature: Signature, timeout: float | None, inline: bool
    ) -> None:
        super().__init__(fn, signature, timeout, inline)
        check_name("prompt", definition.name)
        self.definition = definition


Listed = ToolEntry | ResourceEntry | TemplateEntry | PromptEntry
"""What stands in a listing."""


class Completer(Entry):
    """A function that completes one argument of a prompt or one variable of a template.

    It takes `value: str`, what was typed, and may take `arguments: dict[str, str]`, what is filled in already.
    """

    __slots__ = ("_wanted",)

    def __init__(self, fn: Callable[..., object], signature: Signature) -> None:
        super().__init__(fn, signature, None, inline=False)
        self._wanted = {parameter.name for parameter in signature.parameters}
        if not self._wanted <= {"value", "arguments"}:
            raise RegistrationError(f"completion {signature.name}: takes value: str and arguments: dict[str, str] only")

    def bind(self, value: str, arguments: dict[str, object]) -> dict[str, object]:
        """Keyword arguments for the function."""
        given: dict[str, object] = {"value": value, "arguments": arguments}
        return {name: item for name, item in given.items() if name in self._wanted}


class Registry:
    """Everything a server offers. `changed` is called with the name of a capability after each change of it."""

    def __init__(self) -> None:
        self.tools: dict[str, ToolEntry] = {}
        self.resources: dict[str, ResourceEntry] = {}
        self.templates: dict[str, TemplateEntry] = {}
        self.prompts: dict[str, PromptEntry] = {}
        self.completers: dict[tuple[str, str], Completer] = {}
        self.ruled = False
        """Something that was registered has a rule."""
        self.changed: Callable[[str], None] = lambda kind: None

    def add_tool(self, entry: ToolEntry) -> None:
        """Raises `RegistrationError` for a name that is taken."""
        self._add(self.tools, entry.name, entry, "tool", "tools")

    def add_resource(self, entry: ResourceEntry) -> None:
        """Raises `RegistrationError` for a URI that is taken."""
        self._add(self.resources, entry.definition.uri, entry, "resource", "resources")

    def add_template(self, entry: TemplateEntry) -> None:
        """Raises `RegistrationError` for a template that is taken."""
        self._add(self.templates, entry.definition.uri_template, entry, "resource template", "resources")

    def add_prompt(self, entry: PromptEntry) -> None:
        """Raises `RegistrationError` for a name that is taken."""
        self._add(self.prompts, entry.definition.name, entry, "prompt", "prompts")

    def add_completer(self, reference: str, argument: str, entry: Completer) -> None:
        """Raises `RegistrationError` for an argument that has a completer."""
        if (reference, argument) in self.completers:
            raise RegistrationError(f"argument {argument!r} of {reference!r} has a completion already")
        self.completers[(reference, argument)] = entry
        self.changed("completions")

    def entries(self) -> Iterable[tuple[str, Entry]]:
        """Everything that callers can name, with what to call it in a message."""
        yield from ((f"tool {name!r}", entry) for name, entry in self.tools.items())
        yield from ((f"resource {uri!r}", entry) for uri, entry in self.resources.items())
        yield from ((f"resource template {uri!r}", entry) for uri, entry in self.templates.items())
        yield from ((f"prompt {name!r}", entry) for name, entry in self.prompts.items())

    def rebound(self, bounds: Bounds) -> None:
        """Read every signature again: other bounds hold for arguments whose author set none."""
        for _, entry in self.entries():
            if entry.reading is not None:
                entry.signature = entry.reading(bounds=bounds)
                if isinstance(entry, ToolEntry):
                    schema = entry.signature.input_schema
                    entry.definition = msgspec.structs.replace(entry.definition, input_schema=schema)
        self.changed("tools")

    def remove(self, kind: str, name: str) -> None:
        """Take a tool, resource, template or prompt away.

        Raises:
            KeyError: there is none of this name.
        """
        table = {"tool": self.tools, "resource": self.resources, "template": self.templates, "prompt": self.prompts}[
            kind
        ]
        del table[name]
        self.changed({"tool": "tools", "prompt": "prompts"}.get(kind, "resources"))

    def _add(self, table: dict[str, E], name: str, entry: E, kind: str, group: str) -> None:
        if name in table:
            raise RegistrationError(f"{kind} {name!r} is registered twice")
        table[name] = entry
        self.ruled = self.ruled or entry.rule is not None
        self.changed(group)

    def find_template(
        self, uri: str, known: Callable[[TemplateEntry], bool]
    ) -> tuple[TemplateEntry, dict[str, str | list[str]]] | None:
        """The first template, in order of registration, that this URI fits and that is known, with its variables."""
        for entry in tuple(self.templates.values()):  # a handler's thread may register meanwhile
            values = entry.template.match(uri)
            if values is not None and known(entry):
                return entry, values
        return None
