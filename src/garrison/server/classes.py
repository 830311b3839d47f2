"""A server written as a class: `@mcp_server` on the class, `@tool`, `@resource` and `@prompt` on its methods.

    @mcp_server(name="files", version="1.0.0")
    class Files:
        @tool(description="Read a file")
        async def read(self, path: str) -> ToolOutput: ...

    Server.of(Files()).run()

Rules of this file:
- Decorators only mark; an instance's methods are registered when its server is asked for, once per instance.
- Methods of base classes count, and a subclass may replace them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from ..errors import RegistrationError
from .app import Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from .options import PromptOptions, ResourceOptions, ServerOptions, ToolOptions

__all__ = ["completion", "mcp_server", "prompt", "resource", "server_of", "tool"]

F = TypeVar("F", bound="Callable[..., object]")
C = TypeVar("C", bound=type)
_MARK = "__garrison__"
_SERVER = "__garrison_server__"


def _mark(add: Callable[[Server, Callable[..., object]], None]) -> Callable[[F], F]:
    def mark(fn: F) -> F:
        marks = getattr(fn, _MARK, ())
        setattr(fn, _MARK, (*marks, add))
        return fn

    return mark


def tool(name: str | None = None, **options: Unpack[ToolOptions]) -> Callable[[F], F]:
    """Mark a method as a tool; see `Server.tool`."""
    return _mark(lambda server, method: server.add_tool(method, name, **options))


def resource(uri_pattern: str, **options: Unpack[ResourceOptions]) -> Callable[[F], F]:
    """Mark a method as a resource or a family of resources; see `Server.resource`."""
    return _mark(lambda server, method: server.add_resource(method, uri_pattern, **options))


def prompt(name: str | None = None, **options: Unpack[PromptOptions]) -> Callable[[F], F]:
    """Mark a method as a prompt; see `Server.prompt`."""
    return _mark(lambda server, method: server.add_prompt(method, name, **options))


def completion(reference: str, argument: str) -> Callable[[F], F]:
    """Mark a method as a completion; see `Server.completion`."""
    return _mark(lambda server, method: cast("None", server.completion(reference, argument)(method)))


def mcp_server(*, name: str, version: str = "0.1.0", **options: Unpack[ServerOptions]) -> Callable[[C], C]:
    """Mark a class as a server; `Server.of(instance)` gives the server of an instance.

    Args:
        name, version: how it names itself to clients.
        options: as for `Server`.
    """

    def mark(cls: C) -> C:
        def make() -> Server:
            return Server(name, version, **options)

        setattr(cls, _MARK, make)
        return cls

    return mark


def server_of(instance: object) -> Server:
    """The server of an instance, made at the first call.

    Raises:
        RegistrationError: the class is not marked, or one of its methods cannot be published.
    """
    kept = cast("dict[str, object] | None", getattr(instance, "__dict__", None))
    server = None if kept is None else cast("Server | None", kept.get(_SERVER))
    if server is not None:
        return server
    make = cast("Callable[[], Server] | None", getattr(type(instance), _MARK, None))
    if make is None:
        raise RegistrationError(f"{type(instance).__name__} is no server: put @mcp_server(name=...) on the class")
    if kept is None:
        raise RegistrationError(f"{type(instance).__name__} has __slots__ and no __dict__ to keep its server in")
    server = make()
    for attribute in _attributes(type(instance)):
        marks = cast(
            "tuple[Callable[[Server, Callable[..., object]], None], ...]",
            getattr(getattr(type(instance), attribute, None), _MARK, ()),
        )
        for add in marks:
            add(server, cast("Callable[..., object]", getattr(instance, attribute)))
    kept[_SERVER] = server  # with the instance, so that both go together
    return server


def _attributes(cls: type) -> list[str]:
    """Attribute names in the order of definition, base classes first."""
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        names.update(dict.fromkeys(base.__dict__))
    return list(names)
