"""What is started as a local server, and how it is held: `Launch`.

    Client(Launch(["python", "/srv/notes/server.py"], sandbox="auto", write=["/srv/notes/data"]))

Rules of this file:
- A program is found before it is started: on the whole paths of PATH, never in the working directory.
- It gets the few variables of `INHERITED`, and those that are given; values that a shell would take for a function are
  left out, and so are the folders of PATH that are no whole paths.
- `auto` takes the sandbox that can be had and says so where there is none. One that is named and cannot be had is an
  error.
- Nothing is started here: `prepared` makes the plan that a transport carries out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

from ..errors import ConfigurationError, ConnectionFailed
from ..policy.secret import Secret
from ..transports.stdio_client import INHERITED

if TYPE_CHECKING:
    from ..safe.process import Plan
    from ..safe.sandbox import Sandbox

    Path = str | os.PathLike[str]
    SandboxMode = Literal["auto", "landlock", "bubblewrap", "off"]

__all__ = ["Launch", "Settings", "confinement", "find_program", "launch_of", "touches"]

_MODES: Final = ("auto", "landlock", "bubblewrap", "off")
_BATCH: Final = (".bat", ".cmd")
_NO_SANDBOX: Final = "no sandbox: it may do all that this user may do"
_LONGEST_GRACE: Final = 5.0
"""Seconds between SIGTERM and SIGKILL where this process has ended, and orders nothing more."""


def _no_variables() -> Mapping[str, str | Secret]:
    return MappingProxyType({})


class Settings(Protocol):
    """What `Launch` and the settings of a host have in common."""

    @property
    def command(self) -> Sequence[str]: ...
    @property
    def env(self) -> Mapping[str, str | Secret]: ...
    @property
    def cwd(self) -> Path | None: ...
    @property
    def sandbox(self) -> Sandbox | SandboxMode: ...
    @property
    def read(self) -> Sequence[Path]: ...
    @property
    def write(self) -> Sequence[Path]: ...
    @property
    def execute(self) -> Sequence[Path]: ...
    @property
    def network(self) -> bool: ...
    @property
    def memory(self) -> int | None: ...
    @property
    def processes(self) -> int | None: ...
    @property
    def open_files(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Launch:
    """A program that is started as a server.

    Args:
        command: the program and its arguments; never a command line. A program is a whole path, or a name that is
            looked for on PATH: that of `env`, else this process's.
        env: environment variables beside the few that a program needs (`INHERITED`). A `Secret` is shown to nobody.
        cwd: its folder; this process's when None, or the one of its own.
        own_folder: whether each start gets a new, empty folder, as HOME and TMPDIR, and as `cwd` where that is None. It
            is removed when all of the program has ended. A sandbox that is named by its mode brings one.
        sandbox: a `Sandbox`; or `auto` for the one that can be had here, made of the fields below; `landlock` or
            `bubblewrap` for that one; `off` for none.
        read, write, execute: for a sandbox: files and folders that may be read; read and changed; read and started.
            The system's programs are, and so is the code of this program: its installation, its script's package.
        network: for a sandbox: whether the program may make sockets.
        memory: bytes of data of each process, and of all processes together.
        processes: how many processes it may be, children and theirs. Passing this or `memory` ends it.
        open_files: descriptors of each process.
        cpu: seconds of computing of each process.
        stderr: bytes of standard error that are taken a minute; what is more is counted, and dropped.
        name: what its security events call it.
        check: is called before each start; what it raises ends the attempt.
        program: the file to start, where it was found before; `command[0]` stays what the program is called.

    Raises:
        ConfigurationError: one is not of its form.
    """

    command: Sequence[str]
    env: Mapping[str, str | Secret] = field(default_factory=_no_variables, repr=False, kw_only=True)
    cwd: Path | None = field(default=None, kw_only=True)
    own_folder: bool = field(default=False, kw_only=True)
    sandbox: Sandbox | SandboxMode = field(default="off", kw_only=True)
    read: Sequence[Path] = field(default=(), kw_only=True)
    write: Sequence[Path] = field(default=(), kw_only=True)
    execute: Sequence[Path] = field(default=(), kw_only=True)
    network: bool = field(default=False, kw_only=True)
    memory: int | None = field(default=16 * 1024**3, kw_only=True)
    processes: int | None = field(default=1024, kw_only=True)
    open_files: int | None = field(default=16_384, kw_only=True)
    cpu: int | None = field(default=None, kw_only=True)
    stderr: int = field(default=1024 * 1024, kw_only=True)
    name: str = field(default="", kw_only=True)
    check: Callable[[], None] | None = field(default=None, repr=False, compare=False, kw_only=True)
    program: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        # Callers without a type checker pass anything; a lone string would be taken apart into characters.
        words = cast("Sequence[object]", self.command)
        if isinstance(words, str) or not words or not all(type(word) is str and "\0" not in word for word in words):
            raise ConfigurationError("a local server is given as a list of strings: the program and its arguments")
        object.__setattr__(self, "command", tuple(self.command))
        _check_variables(self.env)
        if isinstance(self.sandbox, str) and self.sandbox not in _MODES:
            raise ConfigurationError(f"Launch.sandbox is a Sandbox, or one of {', '.join(_MODES)}")
        for name in ("memory", "processes", "open_files", "cpu", "stderr"):
            value: object = getattr(self, name)
            if (value is None and name != "stderr") or (type(value) is int and 0 < value < 2**62):
                continue
            raise ConfigurationError(f"Launch.{name} is a positive whole number")
        if not isinstance(self.sandbox, str) and (self.read or self.write or self.execute or self.network):
            raise ConfigurationError("Launch.read, write, execute and network stand in the Sandbox that is given")

    def prepared(self) -> Prepared:
        """Find the program, and settle all that is the same for each start.

        Raises:
            ConfigurationError: a sandbox cannot be had, or a path is not there.
            ConnectionFailed: there is no such program.
        """
        env = _environment(self.env)
        path = env.get("PATH", os.defpath)
        folder, name = os.path.split(find_program(self.command[0], path))
        # Its folder by the name that a sandbox knows; its own stays, since programs act by the name they have.
        called = os.path.join(os.path.realpath(folder), name)
        sandbox = confinement(self, called, path)
        return Prepared(self, self.program or called, (called, *self.command[1:]), env, _whole(self.cwd), sandbox)

    @property
    def confined(self) -> bool:
        """Whether a sandbox is asked for."""
        return self.sandbox != "off"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A launch whose program was found."""

    launch: Launch
    program: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: str | None
    """None is this process's, or the folder of its own."""
    sandbox: Sandbox | None

    @property
    def own_folder(self) -> bool:
        """Whether each start gets a folder of its own."""
        return self.launch.own_folder or (self.launch.confined and isinstance(self.launch.sandbox, str))

    def moved_to(self, folder: str) -> dict[str, str]:
        """The variables by which a program takes a folder for its own, but for those that are given."""
        return {name: folder for name in ("HOME", "TMPDIR", "TEMP", "TMP") if name not in self.launch.env}

    def plan(self, grace: float) -> Plan:
        """For one start: makes its folder.

        Args:
            grace: seconds between SIGTERM and SIGKILL.

        Raises:
            OSError: the folder cannot be made.
        """
        from ..safe.process import Plan

        folder, env = None, dict(self.env)
        if self.own_folder:
            import tempfile  # lazy: only a start with a folder of its own needs it

            folder = os.path.realpath(tempfile.mkdtemp(prefix="garrison-"))
            env |= self.moved_to(folder)
        writable = () if folder is None else (folder,)
        cwd = self.cwd or folder or os.getcwd()
        program, argv, rules = self.program, self.argv, None
        if self.sandbox is not None:
            rules = self.sandbox.landlock(program, writable=writable)
            # In bubblewrap a program is started by its name, which the sandbox shows.
            wrapped, argv = self.sandbox.wrapped(argv[0], argv, cwd, writable=writable)
            program = program if rules is not None else wrapped
        return Plan(
            program,
            argv,
            env,
            cwd,
            _limits(self.launch),
            rules,
            grace=min(grace, _LONGEST_GRACE),
            bounds=_bounds(self.launch),
            folder=folder,
            report=True,
        )


def launch_of(
    settings: Settings,
    program: str = "",
    *,
    name: str = "",
    check: Callable[[], None] | None = None,
) -> Launch:
    """The launch that the settings of a host stand for: with a folder of its own, whatever its sandbox.

    Args:
        settings: such as `LocalServer`.
        program, name, check: as of `Launch`.

    Raises:
        ConfigurationError: as of `Launch`.
    """
    for word in settings.command:
        if type(word) is str and ("\n" in word or "\r" in word):
            raise ConfigurationError("an argument with a line break cannot be shown to whoever approves it")
    return Launch(
        settings.command,
        env=settings.env,
        cwd=settings.cwd,
        own_folder=True,
        sandbox=settings.sandbox,
        read=settings.read,
        write=settings.write,
        execute=settings.execute,
        network=settings.network,
        memory=settings.memory,
        processes=settings.processes,
        open_files=settings.open_files,
        name=name,
        check=check,
        program=program,
    )


def confinement(settings: Settings, program: str, path: str = "") -> Sandbox | None:
    """The sandbox for a program: what is declared, and the code that the program is made of.

    Args:
        settings: of a launch.
        program: its whole path, as it was found.
        path: PATH, for a script that is started by `env`; this process's when empty.

    Returns:
        None where none is asked for, and of `auto`, where none can be had here.

    Raises:
        ConfigurationError: the one that is named cannot be had, or a path is not there.
    """
    mode = settings.sandbox
    if not isinstance(mode, str):
        return mode
    if mode == "off":
        return None
    from ..safe.process import missing
    from ..safe.sandbox import Sandbox
    from .installation import belongings

    if mode == "auto":
        if missing() or Sandbox.lacking("landlock"):
            return None
        mode = "landlock"
    elif lack := missing():
        raise ConfigurationError(f"a sandbox needs {lack}")
    path = path or os.environ.get("PATH", os.defpath)
    code = belongings(program, settings.command[1:], _whole(settings.cwd), path)
    return Sandbox(
        read=tuple(settings.read),
        write=tuple(settings.write),
        execute=(*code, *settings.execute),
        network=settings.network,
        by=mode,
    )


def touches(settings: Settings, program: str) -> str:
    """In one line, what a program may touch.

    Raises:
        ConfigurationError: as of `confinement`.
    """
    sandbox = confinement(settings, program)
    if sandbox is None:
        return _NO_SANDBOX
    return f"{sandbox.described()}; changes a folder of its own, which is removed when it ends"


def find_program(name: str, path: str) -> str:
    """The whole path of a program.

    Args:
        name: a whole path, or a name without a folder.
        path: PATH. Entries that are no whole paths are passed over.

    Raises:
        ConfigurationError: it is a path that depends on the working directory, or a batch file.
        ConnectionFailed: there is none.
    """
    endings = ("",) if sys.platform != "win32" else ("", *os.environ.get("PATHEXT", ".EXE").lower().split(os.pathsep))
    if os.path.isabs(name):
        folders = ("",)
    elif not name or os.path.basename(name) != name or name in (".", ".."):
        raise ConfigurationError(f"{name!r} depends on the working directory: give a whole path, or a name on PATH")
    else:
        folders = tuple(folder for folder in path.split(os.pathsep) if os.path.isabs(folder))
    denied = False
    for folder in folders:
        for ending in endings:
            found = os.path.join(folder, name + ending)
            if os.path.isfile(found):
                if os.access(found, os.X_OK):
                    if sys.platform == "win32" and found.lower().endswith(_BATCH):
                        raise ConfigurationError(f"{found} is a batch file: name the program that it would start")
                    return found
                denied = True
    if denied:
        raise ConnectionFailed(f"{name}: Permission denied")
    where = "" if os.path.isabs(name) else " in the whole paths of PATH"
    raise ConnectionFailed(f"{name}: No such program{where}")


def _whole(cwd: object) -> str | None:
    return None if cwd is None else os.path.abspath(os.fspath(cast("str | os.PathLike[str]", cwd)))


def _check_variables(env: Mapping[str, str | Secret]) -> None:
    for name, value in env.items():
        text = value.reveal() if isinstance(value, Secret) else cast("object", value)
        bad_name = type(name) is not str or not name or "=" in name or "\0" in name
        if bad_name or type(text) is not str or "\0" in text:
            raise ConfigurationError(f"Launch.env: {name!r} is no variable with a text")


def _environment(given: Mapping[str, str | Secret]) -> dict[str, str]:
    found = {name: os.environ[name] for name in INHERITED if name in os.environ}
    if "PATH" in found:
        found["PATH"] = os.pathsep.join(each for each in found["PATH"].split(os.pathsep) if os.path.isabs(each))
    found |= {name: value.reveal() if isinstance(value, Secret) else value for name, value in given.items()}
    return {name: value for name, value in found.items() if not value.lstrip().startswith("()")}


def _limits(launch: Launch) -> dict[str, int]:
    given = {"RLIMIT_DATA": launch.memory, "RLIMIT_NOFILE": launch.open_files, "RLIMIT_CPU": launch.cpu}
    return {"RLIMIT_CORE": 0} | {name: value for name, value in given.items() if value is not None}


def _bounds(launch: Launch) -> dict[str, int] | None:
    given = {"processes": launch.processes, "memory": launch.memory}
    return {name: value for name, value in given.items() if value is not None} or None
