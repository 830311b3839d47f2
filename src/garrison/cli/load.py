"""From `file.py`, `file.py:name` or `module:name` to the server it defines, or to the function that makes it.

Rules of this file:
- The file is loaded under another name than `__main__`, so that its `if __name__ == "__main__"` part does not run.
- While it is loaded, `Server.run`, `run_http` and `run_unix` start nothing: they note that this server is the one to
  run. A file with a bare `server.run()` works both as a program and as a target.
- A file is imported as Python would run it: its folder comes first on the path.
- A target without a server may have a function that makes one, `def serve(...) -> Server`. It is found here, and called
  by who has its arguments.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeVar, cast

from ..errors import ConfigurationError
from ..server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import ModuleType

__all__ = ["Factory", "find", "load"]

_MODULE: Final = "__mcp_server__"
_MARK: Final = "__garrison__"
_Found = TypeVar("_Found")


class Factory(NamedTuple):
    """A function of a target that makes its server."""

    function: Callable[..., Server]
    name: str
    place: str
    """The file or module, as it was named."""

    def made(self, **arguments: object) -> Server:
        """The server that it makes.

        Raises:
            ConfigurationError: it makes something else; and whatever the function raises.
        """
        value: object = self.function(**arguments)
        server = _as_server(value)
        if server is None:
            raise ConfigurationError(f"{self.place}: {self.name}() made a {type(value).__name__}, not a server")
        return server


def load(target: str) -> Server:
    """The one server that a target defines, or makes without arguments. As `find`."""
    found = find(target)
    return found.made() if isinstance(found, Factory) else found


def find(target: str) -> Server | Factory:
    """The one server that a target defines, or the one function that makes it.

    Args:
        target: `file.py`, `file.py:name`, `module` or `module:name`.

    Raises:
        ConfigurationError: there is no such file, module or name, it defines no server, or more than one.
    """
    place, name = _split(target)
    run: list[Server] = []
    with _noting(run):
        module = _load_file(place) if place.endswith(".py") else _load_module(place)
    if name is not None:
        return _named(module, name, target, place)
    started = list({id(server): server for server in run}.values())
    if len(started) == 1:
        return started[0]
    return _only(_servers(module), target) or _only(_factories(module, place), target) or _none(target)


def _split(target: str) -> tuple[str, str | None]:
    if target.endswith(".py"):
        return target, None
    place, colon, name = target.rpartition(":")
    if not colon:
        return target, None
    return place, name


@contextmanager
def _noting(run: list[Server]) -> Generator[None]:
    """Make every server's ways to run write the server down instead."""

    def note(server: Server, *args: object, **options: object) -> None:
        run.append(server)

    real = {name: getattr(Server, name) for name in ("run", "run_http", "run_unix")}
    for name in real:
        setattr(Server, name, note)
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(Server, name, function)


def _load_file(path: str) -> ModuleType:
    from importlib.util import module_from_spec, spec_from_file_location

    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise ConfigurationError(f"{path}: no such file")
    spec = spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path}: not a Python file")
    module = module_from_spec(spec)
    sys.modules[_MODULE] = module  # annotations are looked up in the module of their function
    sys.path.insert(0, os.path.dirname(path))
    sys.argv = [path]
    spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (name + ".").startswith(exc.name + "."):
            raise  # the module is there, and what it imports is not
        raise ConfigurationError(f"no module {name!r} (a file ends with .py)") from None


def _as_server(value: object) -> Server | None:
    if isinstance(value, Server):
        return value
    return Server.of(value) if callable(getattr(type(value), _MARK, None)) else None


def _servers(module: ModuleType) -> dict[str, Server]:
    """The servers among a module's names; one that has two names counts once."""
    found: dict[int, tuple[str, Server]] = {}
    for name, value in tuple(vars(module).items()):
        server = _as_server(value)
        if server is not None:
            found.setdefault(id(server), (name, server))
    return dict(found.values())


def _factories(module: ModuleType, place: str) -> dict[str, Factory]:
    """The functions of a module that say that they return a server."""
    found: dict[str, Factory] = {}
    for name, value in tuple(vars(module).items()):
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__ and _makes_server(value):
            found[name] = Factory(value, name, place)
    return found


def _makes_server(value: object) -> bool:
    if not isinstance(value, FunctionType):
        return False
    said = value.__annotations__.get("return")
    return said is Server or (isinstance(said, str) and said.rpartition(".")[2] == Server.__name__)


def _named(module: ModuleType, name: str, target: str, place: str) -> Server | Factory:
    missing = object()
    value = cast("object", getattr(module, name, missing))
    server = None if value is missing else _as_server(value)
    if server is not None:
        return server
    if isinstance(value, FunctionType) and _makes_server(value):
        return Factory(value, name, place)
    known = ", ".join([*_servers(module), *_factories(module, place)]) or "none"
    what = "there is no such name" if value is missing else f"that is a {type(value).__name__}, not a server"
    raise ConfigurationError(f"{target}: {what}; servers there: {known}")


def _only(found: dict[str, _Found], target: str) -> _Found | None:
    if len(found) > 1:
        choices = ", ".join(f"{target}:{name}" for name in found)
        raise ConfigurationError(f"{target}: more than one server; choose one of {choices}")
    return next(iter(found.values()), None)


def _none(target: str) -> NoReturn:
    raise ConfigurationError(
        f"{target}: no server at the top of the module; put `server = Server(...)`, an instance of an @mcp_server "
        "class, or a function `def serve() -> Server`, there"
    )
