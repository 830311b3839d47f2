"""Running programs for whoever asks: operations are written down beforehand, and a caller fills their slots.

    git = SafeCommand("/usr/bin/git", {"log": ["log", "--max-count={count}"]}, slots={"count": range(1, 101)})
    result = await git.run("log", count=5)

Rules of this file:
- The program is one file, named by its whole path, which nobody but its owner can change. There is no shell, and no
  search in PATH or the working directory.
- An argument is written by the author, or is one value in a typed slot (`command_template`).
- The program gets the environment, folder, input and limits that stand here, and nothing of this process.
- What it starts ends with it, and all of it within its time and its room for output (`process`).
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import stat
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from .. import events
from ..errors import ConfigurationError, ToolError
from ..policy.secret import Secret
from .command_template import Kind, SafeArgument, Slot, SlotError, Template
from .process import CommandFailed, Outcome, Plan, check_platform, run_process
from .sandbox import Sandbox

__all__ = [
    "CommandFailed",
    "CommandLimits",
    "CommandRefused",
    "CommandResult",
    "CommandTimeout",
    "SafeArgument",
    "SafeCommand",
    "Sandbox",
    "Slot",
]

_FOLDERS: Final = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin")
_CLEAN: Final = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOADING: Final = re.compile(
    r"(LD|DYLD|PYTHON|PERL5|RUBY|GCONV|MALLOC|GLIBC)_?.*|BASH_ENV|BASH_FUNC.*|ENV|IFS|SHELLOPTS|BASHOPTS|NODE_OPTIONS|"
    r"NODE_PATH|PERLLIB|PS4|JAVA_TOOL_OPTIONS|JDK_JAVA_OPTIONS|_JAVA_OPTIONS|CLASSPATH"
)
"""Variables by which code gets into a program."""
_SHELLS: Final = frozenset(
    {"sh", "bash", "rbash", "dash", "ash", "zsh", "ksh", "ksh93", "mksh", "fish", "csh", "tcsh", "busybox", "toybox"}
    | {"pwsh", "powershell", "nu", "elvish", "xonsh"}
)
_CODE: Final = {
    "python": ("-c",),
    "pypy": ("-c",),
    "perl": ("-e", "-E"),
    "ruby": ("-e",),
    "node": ("-e", "-p", "--eval", "--print"),
    "php": ("-r", "-B", "-R", "-E"),
    "lua": ("-e",),
}
"""Interpreters, and the options after which they take code."""


class CommandRefused(ToolError):
    """The operation does not exist, or a value does not fit its slot; nothing was started. No value stands in it."""


class CommandTimeout(ToolError):
    """The program did not end in time; it and all it started were ended."""

    def __init__(self, command: str, seconds: float) -> None:
        super().__init__(f"{command} did not end within {seconds:g} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What came of a program that ran, whatever its status."""

    status: int
    """The exit status; the negated number of a signal where one ended it."""
    stdout: str
    """What is not UTF-8 is replaced."""
    stderr: str
    """The end of it, up to `max_errors`."""
    truncated: bool = False
    """There was more output than `max_output`: it is cut, and the program was ended."""

    @property
    def ok(self) -> bool:
        """The program ended with status 0, and all of its output is here."""
        return self.status == 0 and not self.truncated


@dataclass(frozen=True, slots=True)
class CommandLimits:
    """What the system holds a program to, by setrlimit(2); None leaves what this process has. No core is ever dumped.

    Each holds for every process of the command on its own, but `processes`: that counts all of the user's, on the whole
    machine, and does not hold for root.

    Raises:
        ConfigurationError: one is no positive whole number.
    """

    cpu: int | None = None
    """Seconds of computing."""
    memory: int | None = None
    """Bytes of address space. Runtimes that reserve more than they use (Go, Java, Node.js) do not start under it."""
    file_size: int | None = None
    """Bytes of a file that it writes."""
    open_files: int | None = 1024
    processes: int | None = None

    def __post_init__(self) -> None:
        for name in _RLIMITS:
            value: object = getattr(self, name)
            if value is not None and (type(value) is not int or not 0 < value < 2**62):
                raise ConfigurationError(f"CommandLimits.{name} is a positive whole number, or None")

    def named(self) -> dict[str, int]:
        """By the names of `resource`."""
        given = {rlimit: getattr(self, name) for name, rlimit in _RLIMITS.items()}
        return {"RLIMIT_CORE": 0} | {rlimit: value for rlimit, value in given.items() if value is not None}


_RLIMITS: Final = {
    "cpu": "RLIMIT_CPU",
    "memory": "RLIMIT_AS",
    "file_size": "RLIMIT_FSIZE",
    "open_files": "RLIMIT_NOFILE",
    "processes": "RLIMIT_NPROC",
}


class SafeCommand:
    """A program, and what it may be asked to do.

    Args:
        program: its whole path. `SafeCommand.find` makes one of a name.
        operations: by name, the arguments: one text each, in which `{slot}` stands for a value, and `{slot*}` as a
            whole argument for any number of them.
        slots: by name, the type of each slot: `str`, `int`, a `range`, a compiled pattern, a list of texts, an `Enum`
            of texts, a `Parameter` class such as `SafePath`; or a `Slot` of one of these with exceptions.
        cwd: the folder it runs in.
        env: environment variables beside PATH, LANG and HOME; a `Secret` is revealed to the program alone.
        inherit: names of variables of this process that it gets too.
        timeout: seconds in all.
        max_output: bytes of standard output; with more, the program ends.
        max_errors: bytes of standard error, of which the end is kept.
        limits: what the system holds it to.
        sandbox: what it may touch; None for what this process may.

    Raises:
        ConfigurationError: the program is not there, can be changed by others, or is a shell; or a template, slot,
            variable or setting is not of its form.
    """

    def __init__(
        self,
        program: str | os.PathLike[str],
        operations: Mapping[str, Sequence[str]],
        *,
        slots: Mapping[str, Kind | Slot] | None = None,
        cwd: str | os.PathLike[str] = "/",
        env: Mapping[str, str | Secret] | None = None,
        inherit: Sequence[str] = (),
        timeout: float = 10.0,
        max_output: int = 256 * 1024,
        max_errors: int = 64 * 1024,
        limits: CommandLimits | None = None,
        sandbox: Sandbox | None = None,
    ) -> None:
        check_platform()
        self._named = os.fspath(program)
        self._program = _resolved(self._named)
        self._label = os.path.basename(self._named)
        made = {name: kind if isinstance(kind, Slot) else _slot(name, kind) for name, kind in (slots or {}).items()}
        if not operations:
            raise ConfigurationError(f"SafeCommand({self._label!r}): no operations")
        self._templates = {name: Template(name, words, made) for name, words in operations.items()}
        self._check_slots(made)
        self._check_code()
        self._cwd = _folder(cwd)
        self._env = {**_CLEAN, **_variables(env or {}, inherit)}
        if not 0 < timeout < math.inf:
            raise ConfigurationError("SafeCommand.timeout must be a positive number of seconds")
        for name, value in (("max_output", max_output), ("max_errors", max_errors)):
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"SafeCommand.{name} must be a positive number of bytes")
        self._timeout = timeout
        self._max_output = max_output
        self._max_errors = max_errors
        self._limits = (limits or CommandLimits()).named()
        self._sandbox = sandbox

    @staticmethod
    def find(name: str) -> str:
        """The whole path of a program of the system: of /usr/bin, /bin, /usr/local/bin, /usr/sbin or /sbin.

        Raises:
            ConfigurationError: none of them has it, or it is no mere name.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
            raise ConfigurationError("SafeCommand.find takes the name of a program, without a folder")
        for folder in _FOLDERS:
            path = f"{folder}/{name}"
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        raise ConfigurationError(f"SafeCommand.find: no {name} in {', '.join(_FOLDERS)}")

    @property
    def program(self) -> str:
        """The file that is run, symbolic links followed."""
        return self._program

    @property
    def operations(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._templates)

    def arguments(self, operation: str, /, **values: object) -> tuple[str, ...]:
        """The arguments that `run` would give to the program, which is not run.

        Raises:
            CommandRefused: as `run`.
        """
        template = self._templates.get(operation) if isinstance(operation, str) else None  # pyright: ignore[reportUnnecessaryIsInstance] - of a model
        if template is None:
            self._refuse(f"no such operation; there are: {', '.join(self._templates)}", "SafeCommand.operations")
        try:
            return template.arguments(values)
        except SlotError as exc:
            self._refuse(f"{operation}: {exc}", "SafeCommand.slots")

    async def run(self, operation: str, /, *, stdin: bytes = b"", **values: object) -> CommandResult:
        """Run an operation. Cancelling it ends the program and all it started.

        Args:
            operation: its name.
            stdin: the program's input; it has none otherwise.
            values: one for each slot of the operation.

        Returns:
            What came of it, whatever the status.

        Raises:
            CommandRefused: there is no such operation, or a value breaks a rule of its slot.
            CommandTimeout: it did not end within `timeout`.
            CommandFailed: it could not be started.
        """
        if type(stdin) is not bytes:  # values may come from a mapping, whose names nobody looked at
            raise TypeError("stdin= takes bytes")
        arguments = self.arguments(operation, **values)
        outcome = await run_process(
            self._plan(arguments),
            stdin,
            timeout=self._timeout,
            max_output=self._max_output,
            max_errors=self._max_errors,
        )
        return self._result(operation, outcome)

    def run_sync(self, operation: str, /, *, stdin: bytes = b"", **values: object) -> CommandResult:
        """As `run`, for a thread without an event loop.

        Raises:
            RuntimeError: there is one.
        """
        return _blocking(self.run(operation, stdin=stdin, **values))

    def _plan(self, arguments: tuple[str, ...]) -> Plan:
        try:
            _check_owned(self._program)
        except (ConfigurationError, OSError) as exc:
            raise CommandFailed(f"{self._label}: {exc}") from exc
        program, argv, sandbox = self._program, (self._named, *arguments), None
        if self._sandbox is not None:
            sandbox = self._sandbox.landlock(program)
            program, argv = self._sandbox.wrapped(program, argv, self._cwd)
        return Plan(program, argv, self._env, self._cwd, self._limits, sandbox)

    def _result(self, operation: str, outcome: Outcome) -> CommandResult:
        command = f"{self._label} {operation}"
        if outcome.timed_out:
            events.record("command.ended", f"{command} did not end in time", setting="SafeCommand.timeout")
            raise CommandTimeout(command, self._timeout)
        if outcome.truncated:
            events.record("command.ended", f"{command} wrote too much", setting="SafeCommand.max_output")
        stdout, stderr = (data.decode("utf-8", "replace") for data in (outcome.stdout, outcome.stderr))
        return CommandResult(outcome.status, stdout, stderr, outcome.truncated)

    def _refuse(self, text: str, setting: str) -> NoReturn:
        events.record("command.refused", f"{self._label}: {text}", setting=setting)
        raise CommandRefused(f"{self._label}: {text}")

    def _check_slots(self, slots: Mapping[str, Slot]) -> None:
        used = {slot for template in self._templates.values() for slot in template.slots}
        for name in slots:
            if name not in used:
                raise ConfigurationError(f"SafeCommand.slots: {name!r} stands in no operation")
        if "stdin" in used:
            raise ConfigurationError("SafeCommand: a slot cannot be named stdin, which is an argument of run()")

    def _check_code(self) -> None:
        """Refuse what would hand a caller's text to an interpreter as code."""
        names = {self._label, os.path.basename(self._program)}
        if names & _SHELLS:
            raise ConfigurationError(f"SafeCommand: {self._named} is a shell; name the program that it would start")
        for name in names:
            options = _CODE.get(re.sub(r"[0-9.]*$", "", name), ())
            for operation, template in self._templates.items():
                if options and template.free_after(options):
                    raise ConfigurationError(f"operation {operation!r}: a slot after {options[0]} would be code")


def _blocking(work: Coroutine[object, object, CommandResult]) -> CommandResult:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise RuntimeError("run_sync() was called in an event loop; use await run()")


def _slot(name: str, kind: Kind) -> Slot:
    try:
        return Slot(kind)
    except ConfigurationError as exc:
        raise ConfigurationError(f"SafeCommand.slots[{name!r}]: {exc}") from None


def _resolved(path: str) -> str:
    """The file that a path names, which is one to run."""
    if not os.path.isabs(path):
        raise ConfigurationError("SafeCommand: the program is named by its whole path (see SafeCommand.find)")
    try:
        found = os.path.realpath(path, strict=True)
        _check_owned(found)
    except OSError as exc:
        raise ConfigurationError(f"SafeCommand: {path}: {exc.strerror}") from None
    if not os.access(found, os.X_OK):
        raise ConfigurationError(f"SafeCommand: {path} cannot be executed")
    return found


def _check_owned(path: str) -> None:
    """Raise `ConfigurationError` where somebody else could put another file in this one's place."""
    about = os.lstat(path)
    if not stat.S_ISREG(about.st_mode):
        raise ConfigurationError(f"SafeCommand: {path} is not a regular file")
    mine = (0, os.geteuid())
    part: str = path
    while True:
        others_write = about.st_mode & 0o022 and not (stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX)
        if others_write or about.st_uid not in mine:
            raise ConfigurationError(f"SafeCommand: {part} can be changed by others (owner, or mode go+w)")
        if part == "/":
            return
        part = part.rpartition("/")[0] or "/"
        about = os.lstat(part)


def _folder(path: str | os.PathLike[str]) -> str:
    found: str = os.path.abspath(os.fspath(path))
    if not os.path.isdir(found):
        raise ConfigurationError("SafeCommand.cwd is no folder")
    return found


def _variables(env: Mapping[str, str | Secret], inherit: Sequence[str]) -> dict[str, str]:
    if isinstance(inherit, str):
        raise ConfigurationError("SafeCommand.inherit is a list of names")
    found: dict[str, str] = {name: os.environ[name] for name in inherit if name in os.environ}
    for name, value in env.items():
        found[name] = value.reveal() if isinstance(value, Secret) else value
    for name in (*inherit, *env):
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"SafeCommand.env: {name!r} is no name of a variable")
        if _LOADING.fullmatch(name):
            raise ConfigurationError(f"SafeCommand.env: {name} would load code into the program")
    for name, value in found.items():
        if type(value) is not str or "\0" in value:
            raise ConfigurationError(f"SafeCommand.env: {name} is not a text")
    return found
