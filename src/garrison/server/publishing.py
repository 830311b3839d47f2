"""Publishing functions as tools, resources and prompts: the half of `Server` that registers.

Rules of this file:
- Decorators give the function back unchanged.
- What cannot be published as written is an error here, which names the function and the remedy.

Spec: 2026-07-28 server/tools, server/resources, server/prompts, server/utilities/completion.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from ..errors import RegistrationError
from ..protocol.types import Prompt, PromptArgument, Resource, ResourceTemplate, Tool
from .bounds import Bounds
from .depends import is_injected
from .registry import Completer, PromptEntry, Registry, ResourceEntry, TemplateEntry, ToolEntry
from .rules import rule_of
from .signature import Signature
from .tool_policy import annotations_of, policy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Unpack

    from ..policy import SecurityPolicy
    from ..protocol.types import Icon
    from .options import PromptOptions, ResourceOptions, ToolOptions

__all__ = ["Publisher"]

F = TypeVar("F", bound="Callable[..., object]")


class Publisher:
    """Registers functions.

    Args:
        policy: whose bounds hold for arguments.
        protected: whether what declares no rule is for nobody.
        ruled: whether there are rules at all.
    """

    def __init__(self, policy: SecurityPolicy, *, protected: bool, ruled: bool) -> None:
        self._policy = policy
        self.registry = Registry()
        self.registry.ruled = ruled
        self._protected = protected

    @property
    def policy(self) -> SecurityPolicy:
        """Limits, time-outs and what else is allowed. Another one holds for what is started afterwards."""
        return self._policy

    @policy.setter
    def policy(self, policy: SecurityPolicy) -> None:
        before, self._policy = self._bounds, policy
        if self._bounds != before:
            self.registry.rebound(self._bounds)

    @property
    def _bounds(self) -> Bounds:
        limits = self.policy.limits
        return Bounds(limits.argument_chars, limits.argument_items)

    def tool(self, name: str | None = None, **options: Unpack[ToolOptions]) -> Callable[[F], F]:
        """Publish a function as a tool: `@server.tool()`.

        Args:
            name: the tool's name; the function's own when not given.
            options: see `ToolOptions`.

        Raises:
            RegistrationError: the function cannot be published as written.
        """

        def register(fn: F) -> F:
            self.add_tool(fn, name, **options)
            return fn

        return register

    def add_tool(self, fn: Callable[..., object], name: str | None = None, **options: Unpack[ToolOptions]) -> None:
        """Publish a function as a tool; see `tool`."""
        named = name or _name_of(fn)
        reading = partial(
            Signature.of,
            fn,
            name=named,
            inject=is_injected,
            strict=not options.get("coerce", False),
            input_schema=options.get("input_schema"),
            output_schema=options.get("output_schema"),
            structured_output=options.get("structured_output", True),
        )
        signature = reading(bounds=self._bounds)
        annotations = annotations_of(named, options)
        definition = Tool(
            name=named,
            title=options.get("title"),
            description=options.get("description") or signature.description,
            input_schema=signature.input_schema,
            output_schema=signature.output_schema,
            annotations=annotations,
            icons=_listed(options.get("icons")),
            meta=options.get("meta"),
        )
        policy = policy_of(named, options, annotations)
        entry = ToolEntry(definition, fn, signature, options.get("timeout"), options.get("inline", False), policy)
        entry.reading = reading
        entry.rule = rule_of(f"tool {named!r}", options)
        self.registry.add_tool(entry)

    def resource(self, uri: str, **options: Unpack[ResourceOptions]) -> Callable[[F], F]:
        """Publish a function as a resource, or as a family of resources where the URI is a template.

        Args:
            uri: a URI, or an RFC 6570 template whose variables are parameters of the function.
            options: see `ResourceOptions`.

        Raises:
            RegistrationError: the URI or the function cannot be published as written.
        """

        def register(fn: F) -> F:
            self.add_resource(fn, uri, **options)
            return fn

        return register

    def add_resource(self, fn: Callable[..., object], uri: str, **options: Unpack[ResourceOptions]) -> None:
        """Publish a function as a resource; see `resource`."""
        name = options.get("name") or _name_of(fn)
        reading = partial(Signature.of, fn, name=name, inject=is_injected, structured_output=False)
        signature = reading(bounds=self._bounds)
        timeout, inline = options.get("timeout"), options.get("inline", False)
        ttl_ms, scope = options.get("ttl_ms", 0), options.get("cache_scope", "private")
        description = options.get("description") or signature.description
        rule = rule_of(f"resource {uri!r}", options)
        if scope == "public" and (self._protected if rule is None else rule.binds):
            raise RegistrationError(f'resource {uri!r}: cache_scope="public" needs public=True on a protected server')
        if "{" in uri:
            template = ResourceTemplate(
                uri_template=uri,
                name=name,
                title=options.get("title"),
                description=description,
                mime_type=options.get("mime_type"),
                annotations=options.get("annotations"),
                icons=_listed(options.get("icons")),
                meta=options.get("meta"),
            )
            family = TemplateEntry(template, fn, signature, timeout, inline, ttl_ms, scope)
            family.rule, family.reading = rule, reading
            self.registry.add_template(family)
            return
        if signature.parameters:
            raise RegistrationError(f"resource {uri!r}: parameter {signature.parameters[0].name!r} is in no template")
        resource = Resource(
            uri=uri,
            name=name,
            title=options.get("title"),
            description=description,
            mime_type=options.get("mime_type"),
            annotations=options.get("annotations"),
            icons=_listed(options.get("icons")),
            size=options.get("size"),
            meta=options.get("meta"),
        )
        entry = ResourceEntry(resource, fn, signature, timeout, inline, ttl_ms, scope)
        entry.rule = rule
        self.registry.add_resource(entry)

    def prompt(self, name: str | None = None, **options: Unpack[PromptOptions]) -> Callable[[F], F]:
        """Publish a function as a prompt: it returns text, a `PromptMessage`, content, or a list of these.

        Args:
            name: the prompt's name; the function's own when not given.
            options: see `PromptOptions`.

        Raises:
            RegistrationError: the function cannot be published as written.
        """

        def register(fn: F) -> F:
            self.add_prompt(fn, name, **options)
            return fn

        return register

    def add_prompt(self, fn: Callable[..., object], name: str | None = None, **options: Unpack[PromptOptions]) -> None:
        """Publish a function as a prompt; see `prompt`."""
        named = name or _name_of(fn)
        reading = partial(Signature.of, fn, name=named, inject=is_injected, structured_output=False)
        signature = reading(bounds=self._bounds)
        arguments = signature.text_arguments().listed
        definition = Prompt(
            name=named,
            title=options.get("title"),
            description=options.get("description") or signature.description,
            arguments=[
                PromptArgument(name=a.name, description=a.description, required=a.required or None) for a in arguments
            ]
            or None,
            icons=_listed(options.get("icons")),
            meta=options.get("meta"),
        )
        entry = PromptEntry(definition, fn, signature, options.get("timeout"), options.get("inline", False))
        entry.rule, entry.reading = rule_of(f"prompt {named!r}", options), reading
        self.registry.add_prompt(entry)
        for argument in arguments:
            if argument.choices and (named, argument.name) not in self.registry.completers:
                self._complete_from(named, argument.name, argument.choices)

    def completion(self, reference: str, argument: str) -> Callable[[F], F]:
        """Complete one argument of a prompt, or one variable of a resource template.

        The function takes `value: str`, what was typed so far, may take `arguments: dict[str, str]`, what is filled in
        already, and returns a list of texts, the likeliest first.

        Args:
            reference: the prompt's name or the template.
            argument: the argument's or variable's name.
        """

        def register(fn: F) -> F:
            signature = Signature.of(
                fn, name=argument, inject=is_injected, bounds=self._bounds, structured_output=False
            )
            self.registry.completers.pop((reference, argument), None)
            self.registry.add_completer(reference, argument, Completer(fn, signature))
            return fn

        return register

    def _complete_from(self, reference: str, argument: str, choices: tuple[str, ...]) -> None:
        async def complete(value: str) -> list[str]:
            return [choice for choice in choices if choice.startswith(value)]

        self.completion(reference, argument)(complete)

    def remove_tool(self, name: str) -> None:
        """Take a tool away; who listens is told. Raises `KeyError` if there is none of this name."""
        self.registry.remove("tool", name)

    def remove_resource(self, uri: str) -> None:
        """Take a resource or a resource template away. Raises `KeyError` if there is none."""
        self.registry.remove("template" if uri in self.registry.templates else "resource", uri)

    def remove_prompt(self, name: str) -> None:
        """Take a prompt away. Raises `KeyError` if there is none of this name."""
        self.registry.remove("prompt", name)


def _name_of(fn: Callable[..., object]) -> str:
    name = cast("str | None", getattr(fn, "__name__", None))
    if name is None or name == "<lambda>":
        raise RegistrationError(f"{fn!r} has no name: set name=...")
    return name


def _listed(icons: Sequence[Icon] | None) -> list[Icon] | None:
    return None if icons is None else list(icons)
