"""What would be started, written down whole: `record_of`, and what was approved before: `Launches`.

    record = record_of(server)                  # the program found, the files in the command digested
    launches.check("files", record, server)     # a runner that fetches what nobody fixed is refused
    changes = launches.changes("files", record)   # (): as approved; None: never was; else what is different
    launches.approve("files", record)
    verify(record)                              # right before the start: still the same files

Rules of this file:
- The program is found before anybody is asked: on the absolute folders of this process's PATH, never in the working
  directory. What is approved is a file, not a name.
- A record holds names of environment variables and never their values.
- Everything that is approved is shown, each argument on a line of its own, in quotes that cannot be forged.
- What differs in one byte is another launch. What the server may write itself is not digested, unless it is code.

Spec: 2026-07-28 basic/security_best_practices, "Local MCP Server Compromise".
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn, cast

import msgspec

from .. import events
from ..client.launching import confinement
from ..errors import LaunchRefused
from ..gate.hygiene import visible
from ..policy.secret import Secret
from .risks import LOOKALIKE, UNPINNED, Risk, risks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .servers import LocalServer
    from .state import State

    _Digest = Callable[[str, int], str]

__all__ = ["UNCONFINED", "LaunchRecord", "Launches", "Risk", "as_recorded", "quoted", "record_of", "risks_of", "verify"]

UNCONFINED: Final = "none: it may do all that you may do"
"""`LaunchRecord.sandbox` of a program that nothing holds."""

_MOST_CODE: Final = 1024**3
_MOST_DATA: Final = 64 * 1024**2
_MOST_FILES: Final = 64
_BLOCK: Final = 1024 * 1024
_CODE: Final = frozenset(
    {".py", ".pyz", ".pyc", ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx", ".jar", ".war", ".rb", ".pl"}
    | {
        ".php",
        ".lua",
        ".sh",
        ".bash",
        ".zsh",
        ".fish",
        ".ps1",
        ".bat",
        ".cmd",
        ".exe",
        ".dll",
        ".so",
        ".dylib",
        ".wasm",
    }
    | {".r", ".jl", ".go", ".cs", ".groovy", ".kts", ".exs", ".node"}
)
"""Endings of files that are run or loaded."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LOADING: Final = re.compile(
    r"LD_.*|DYLD_.*|PYTHON.*|GIT_.*|BASH_FUNC.*|PERL5.*|RUBY(OPT|LIB|SHELL).*|MALLOC_.*|GCONV_PATH|GLIBC_TUNABLES|"
    r"NODE_OPTIONS|NODE_PATH|NODE_REPL_EXTERNAL_MODULE|BASH_ENV|ENV|ZDOTDIR|IFS|PS4|SHELLOPTS|BASHOPTS|PERLLIB|"
    r"PROMPT_COMMAND|JAVA_TOOL_OPTIONS|JDK_JAVA_OPTIONS|_JAVA_OPTIONS|CLASSPATH|DOTNET_STARTUP_HOOKS|"
    r"LUA_INIT.*|PHPRC|PHP_INI_SCAN_DIR|ELECTRON_RUN_AS_NODE|OPENSSL_CONF|OPENSSL_ENGINES|OPENSSL_MODULES|COMSPEC"
)
"""Variables by which code gets into a program."""
_HARMLESS: Final = frozenset({"PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE"})
"""Of these, the ones that say how output is written, and load nothing."""
_BATCH: Final = (".bat", ".cmd")
_SHEBANG: Final = re.compile(rb"#![ \t]*(\S+)(?:[ \t]+([^\r\n]*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRecord:
    """One start of one program, as somebody is asked about it."""

    program: str
    """The file that is run: absolute, links followed."""
    argv: tuple[str, ...]
    """All of its arguments. The first is the absolute path by which the program was found."""
    cwd: str
    """Its folder, links followed; empty for a new one of its own."""
    env: tuple[str, ...]
    """The names of the variables that are set for it, sorted."""
    files: Mapping[str, str]
    """By path, links followed, `sha256:` and the digest of the program, what interprets it and each file that the
    arguments name; or why there is none."""
    sandbox: str
    """In one line, what it may touch; `UNCONFINED` where nothing holds it."""
    reads: tuple[str, ...] = ()
    """Files and folders that it is given to read or start."""
    writes: tuple[str, ...] = ()
    """Files and folders that it is given to change."""

    @property
    def confined(self) -> bool:
        """Whether a sandbox holds it."""
        return self.sandbox != UNCONFINED

    def lines(self) -> list[str]:
        """All of it, for a person."""
        found = [f"program: {quoted(self.program)}"]
        if self.argv[0] != self.program:
            found.append(f"found as: {quoted(self.argv[0])}")
        found += [f"argument {place}: {quoted(text)}" for place, text in enumerate(self.argv[1:], 1)]
        if len(self.argv) == 1:
            found.append("arguments: none")
        found.append(f"folder: {quoted(self.cwd)}" if self.cwd else "folder: a new, empty one of its own")
        found.append(f"environment: {', '.join(self.env)} (names only)" if self.env else "environment: nothing added")
        found.append(f"sandbox: {visible(self.sandbox)}")
        found += [f"file {quoted(path)}: {digest}" for path, digest in self.files.items()]
        return found

    def digest(self) -> str:
        """`sha256:` and the digest over all of it."""
        from hashlib import sha256  # lazy: only what is started needs it

        return f"sha256:{sha256(msgspec.json.encode(_kept(self), order='sorted')).hexdigest()}"


def quoted(text: str) -> str:
    """A text in quotes, so that no two texts look the same and nothing of it is hidden.

    JSON's escapes for quotes and backslashes; `\\uXXXX` for what is neither printable ASCII nor seen as a letter or
    digit.
    """
    return '"' + "".join(_shown(char) for char in text) + '"'


def record_of(server: LocalServer, *, alias: str = "", sandbox: str | None = None) -> LaunchRecord:
    """What `server` would start, now.

    Args:
        server: the settings.
        alias: for the security event of a refusal.
        sandbox: what it may touch, in one line; that of `client.launching.confinement` when None.

    Raises:
        ConfigurationError: the sandbox that is named cannot be had, or a path of it is not there.
        LaunchRefused: there is no such program; an argument has a line break or NUL; or a variable would load code
            into the program. The event is `launch.refused`.
    """
    words = _words(server, alias)
    named, program = _found(words[0], alias)
    argv = (named, *words[1:])
    cwd = _folder(server.cwd, alias)
    reads, starts, writes = _paths(server.read), _paths(server.execute), _paths(server.write)
    return LaunchRecord(
        program=program,
        argv=argv,
        cwd=cwd,
        env=_variables(server, alias),
        files=_files(program, argv, cwd, writes, alias, _remembered),
        sandbox=_sandbox_line(server, named) if sandbox is None else sandbox,
        reads=(*reads, *starts),
        writes=writes,
    )


def verify(record: LaunchRecord, *, alias: str = "") -> None:
    """Look once more, right before the start: the program, its folder and all files are those of the record.

    Raises:
        LaunchRefused: one is not. The event is `launch.refused`.
    """
    if _real(record.argv[0]) != record.program:
        _refuse(
            alias, f"{quoted(record.argv[0])} leads to another program than the one that was approved", "Host(approve=)"
        )
    if record.cwd and _real(record.cwd) != record.cwd:
        _refuse(alias, f"the folder {quoted(record.cwd)} is not the one that was approved", "Host(approve=)")
    for path in (*record.reads, *record.writes):
        if os.path.realpath(path) != path:
            _refuse(alias, f"{quoted(path)} leads somewhere else than when it was approved", "Host(approve=)")
    now = _files(record.program, record.argv, record.cwd, record.writes, alias, _digest)
    for change in _changed_files(record.files, now):
        _refuse(alias, change, "Host(approve=)")


def as_recorded(server: LocalServer, record: LaunchRecord, *, alias: str = "") -> LocalServer:
    """The settings with the program, folders and files that the record has, in the place of names and links.

    Raises:
        LaunchRefused: a path that it is given leads somewhere else by now. The event is `launch.refused`.
    """
    reads, starts, writes = _paths(server.read), _paths(server.execute), _paths(server.write)
    if (*reads, *starts) != record.reads or writes != record.writes:
        _refuse(alias, "a path that it is given leads somewhere else than when it was approved", "Host(approve=)")
    return replace(server, command=record.argv, cwd=record.cwd or None, read=reads, execute=starts, write=writes)


class Launches:
    """What was approved to be started, by alias, in the record `launches` of a state.

    Args:
        state: where approvals are kept.
        strict: whether a package runner is refused that fetches what nobody has fixed, or what has a name to be
            mistaken for another. Otherwise it is a risk that is shown.
    """

    __slots__ = ("_state", "_strict")

    def __init__(self, state: State, strict: bool = True) -> None:
        self._state = state
        self._strict = strict

    def check(self, alias: str, record: LaunchRecord, settings: LocalServer) -> tuple[Risk, ...]:
        """The risks of a launch.

        Raises:
            LaunchRefused: one of them is that a runner fetches what nobody has fixed, or what has a name to be mistaken
                for another, and the settings give no reason for it (`LocalServer.dangerously_allow_unpinned`). The
                event is `launch.refused`.
        """
        risks = risks_of(record)
        for risk in risks:
            if risk.rule in (UNPINNED, LOOKALIKE) and self._strict and not settings.dangerously_allow_unpinned:
                _refuse(
                    alias,
                    f"{risk.text}; name the exact version of the right package, or give a reason: "
                    "LocalServer.dangerously_allow_unpinned",
                    "Host(strict=)",
                )
        return risks

    def changes(self, alias: str, record: LaunchRecord) -> tuple[str, ...] | None:
        """What is other than when it was approved: () nothing; None: it never was.

        Raises:
            StateError: what was kept cannot be read.
        """
        try:
            old = msgspec.convert(self._state.read("launches").get(alias), _Kept)
        except msgspec.ValidationError:  # nothing, or of no form that stands for an approval
            return None
        return _difference(old, _kept(record))

    def approve(self, alias: str, record: LaunchRecord) -> None:
        """Keep that this may be started, until something of it changes.

        Raises:
            StateError: it cannot be kept.
        """
        with self._state.changing("launches") as launches:
            launches[alias] = msgspec.to_builtins(_kept(record))

    def forget(self, alias: str) -> bool:
        """Ask again at the next start. False where nothing was approved.

        Raises:
            StateError: it cannot be kept.
        """
        with self._state.changing("launches") as launches:
            return launches.pop(alias, None) is not None


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    program: str
    argv: list[str]
    cwd: str
    env: list[str]
    files: dict[str, str]
    sandbox: str
    reads: list[str]
    writes: list[str]


def _kept(record: LaunchRecord) -> _Kept:
    return _Kept(
        record.program,
        list(record.argv),
        record.cwd,
        list(record.env),
        dict(record.files),
        record.sandbox,
        list(record.reads),
        list(record.writes),
    )


def _difference(old: _Kept, new: _Kept) -> tuple[str, ...]:
    found: list[str] = []
    if old.program != new.program:
        found.append(f"the program was {quoted(old.program)}, is {quoted(new.program)}")
    found += _changed_words(old.argv, new.argv)
    if old.cwd != new.cwd:
        was, now = [quoted(cwd) if cwd else "one of its own" for cwd in (old.cwd, new.cwd)]
        found.append(f"the folder was {was}, is {now}")
    found += [f"the environment has {name} too" for name in new.env if name not in old.env]
    found += [f"the environment has {name} no more" for name in old.env if name not in new.env]
    found += _changed_files(old.files, new.files)
    if old.sandbox != new.sandbox:
        found.append(f"the sandbox was: {visible(old.sandbox)}; is: {visible(new.sandbox)}")
    for what in ("reads", "writes"):
        was, now = cast("list[str]", getattr(old, what)), cast("list[str]", getattr(new, what))
        if was != now:
            found.append(f"it {what}: was {' '.join(map(quoted, was))}, is {' '.join(map(quoted, now))}")
    return tuple(found)


def _changed_words(old: Sequence[str], new: Sequence[str]) -> list[str]:
    if list(old) == list(new):
        return []
    from difflib import SequenceMatcher  # lazy: only a changed launch needs it

    found: list[str] = []
    for how, begin, end, first, last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        was, now = [" ".join(map(quoted, words)) for words in (old[begin:end], new[first:last])]
        if how == "replace":
            found.append(f"the arguments had {was}, have {now} in its place")
        elif how == "delete":
            found.append(f"the arguments have no more: {was}")
        elif how == "insert":
            found.append(f"the arguments have more: {now}")
    return found


def _changed_files(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    found = [f"the file {quoted(path)} is no longer there, or no longer named" for path in old if path not in new]
    for path, digest in new.items():
        if path not in old:
            found.append(f"the file {quoted(path)} was not there, or not named, when this was approved")
        elif old[path] != digest:
            found.append(f"the file {quoted(path)} is not the one that was approved")
    return found


# What stands in the settings.


def _words(server: LocalServer, alias: str) -> tuple[str, ...]:
    words = tuple(server.command)
    for place, word in enumerate(cast("tuple[object, ...]", words)):
        if type(word) is not str:
            _refuse(alias, f"argument {place} of the command is not a text", "LocalServer.command")
        if any(char in word for char in "\0\n\r"):
            _refuse(
                alias, f"argument {place} of the command has a line break or NUL: {quoted(word)}", "LocalServer.command"
            )
    return words


def _found(name: str, alias: str) -> tuple[str, str]:
    """The absolute path by which a program is found, and the file that it leads to."""
    if os.path.isabs(name):
        located = name
    elif os.sep in name or (os.altsep or os.sep) in name or not name or name in (".", ".."):
        _refuse(alias, f"the program {quoted(name)} is neither a name nor an absolute path", "LocalServer.command")
    else:
        located = _on_path(name)
        if located is None:
            _refuse(alias, f"there is no program {quoted(name)} in the absolute folders of PATH", "LocalServer.command")
    folder, last = os.path.split(located)
    located = os.path.join(_real(folder) or folder, last)  # as the sandbox knows it
    program = _real(located)
    if program is None or not os.path.isfile(program) or not os.access(program, os.X_OK):
        _refuse(alias, f"{quoted(located)} is no program", "LocalServer.command")
    if sys.platform == "win32" and program.lower().endswith(_BATCH):
        _refuse(alias, f"{quoted(program)} is a batch file: name what it would start", "LocalServer.command")
    return located, program


def _on_path(name: str) -> str | None:
    endings = ("",) if sys.platform != "win32" else ("", *os.environ.get("PATHEXT", ".EXE").lower().split(os.pathsep))
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if not os.path.isabs(folder):  # empty ones too: they stand for the working directory
            continue
        for ending in endings:
            path = os.path.join(folder, name + ending)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    return None


def _folder(cwd: object, alias: str) -> str:
    if cwd is None:
        return ""
    found = _real(os.path.abspath(os.fspath(cast("str", cwd))))
    if found is None or not os.path.isdir(found):
        _refuse(alias, f"its folder {quoted(str(cwd))} is not there", "LocalServer.cwd")
    return found


def _variables(server: LocalServer, alias: str) -> tuple[str, ...]:
    for name, value in server.env.items():
        if _NAME.fullmatch(name) is None:
            _refuse(alias, f"{quoted(name)} is no name of a variable", "LocalServer.env")
        text = value.reveal() if isinstance(value, Secret) else cast("object", value)
        if type(text) is not str or "\0" in text:
            _refuse(alias, f"the variable {name} is not a text", "LocalServer.env")
        spelled = name.upper()
        if _LOADING.fullmatch(spelled) and spelled not in _HARMLESS and not server.dangerously_allow_env.get(name):
            _refuse(
                alias,
                f"the variable {name} would load code into the program; where it must, give a reason: "
                f"LocalServer.dangerously_allow_env[{name!r}]",
                "LocalServer.dangerously_allow_env",
            )
        if text.lstrip().startswith("()"):
            _refuse(alias, f"the value of the variable {name} is that of a shell's function", "LocalServer.env")
    return tuple(sorted(server.env))


def _paths(paths: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(os.path.realpath(os.fspath(path)) for path in paths))


def _sandbox_line(server: LocalServer, called: str) -> str:
    sandbox = confinement(server, called)
    if sandbox is None:
        return UNCONFINED
    return f"{sandbox.described()}; changes a folder of its own, which is removed when it ends"


# Files.


def _files(
    program: str, argv: tuple[str, ...], cwd: str, writes: tuple[str, ...], alias: str, digest: _Digest
) -> dict[str, str]:
    """Digests of the program, of what interprets it, and of the files that the arguments name."""
    code = [program, *_interpreters(program)]
    data: list[str] = []
    texts = [text for word in argv[1:] for text in (word, word.partition("=")[2])]
    folders = [text for text in texts if os.path.isabs(text) and os.path.isdir(text)]
    for word in argv[1:]:
        for path in _named_by(word, cwd, folders):
            (code if _is_code(path) else data).append(path)
    whole = dict.fromkeys(code, _MOST_CODE)
    whole |= {path: _MOST_DATA for path in data if path not in whole and not _is_below(path, writes)}
    if len(whole) > _MOST_FILES:
        _refuse(alias, f"the arguments name more than {_MOST_FILES} files", "LocalServer.command")
    found: dict[str, str] = {}
    for path, most in whole.items():
        try:
            found[path] = digest(path, most)
        except OSError as exc:
            found[path] = f"not digested: {exc.strerror or type(exc).__name__}"
        except OverflowError:
            if most == _MOST_CODE:
                _refuse(alias, f"{quoted(path)} is larger than {_MOST_CODE >> 20} MiB", "LocalServer.command")
            found[path] = f"not digested: larger than {_MOST_DATA >> 20} MiB"
    return found


def _named_by(word: str, cwd: str, folders: Sequence[str]) -> list[str]:
    """The regular files that an argument may name: `path`, `--option=path`, `@path`, `file:` and a path."""
    texts = [word, word.partition("=")[2], word.removeprefix("file://"), word.removeprefix("@")]
    found: list[str] = []
    for text in dict.fromkeys(text for text in texts if text):
        if os.path.isabs(text):
            places = [text]
        else:
            # `uv --directory /server run main.py`: what is code below a folder that is named, is meant by this name.
            places = [os.path.join(cwd, text)] if cwd else []
            places += [os.path.join(folder, text) for folder in folders if _ending(text) in _CODE]
        for place in places:
            path = _real(place)
            if path is not None and os.path.isfile(path):
                found.append(path)
    return list(dict.fromkeys(found))


def _is_code(path: str) -> bool:
    if _ending(path) in _CODE:
        return True
    try:
        with open(path, "rb", opener=_careful) as file:
            return bool(os.fstat(file.fileno()).st_mode & 0o111) or file.read(2) == b"#!"
    except OSError:
        return False


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def _interpreters(program: str) -> list[str]:
    """What a script names in its first line, `#!`, as the system finds it."""
    try:
        with open(program, "rb", opener=_careful) as file:
            match = _SHEBANG.match(file.read(512))
    except OSError:
        return []
    if match is None:
        return []
    found = [_real(os.fsdecode(match[1]))]
    if os.path.basename(match[1]) == b"env":
        words = os.fsdecode(match[2] or b"").split()
        named = next((word for word in words if not word.startswith("-") and "=" not in word), "")
        found.append(_real(_on_path(named) or "") if named and os.sep not in named else _real(named))
    return [path for path in found if path]


def _real(path: str) -> str | None:
    if not os.path.isabs(path):
        return None
    try:
        return os.path.realpath(path, strict=True)
    except (OSError, ValueError):
        return None


_seen: dict[tuple[str, int], tuple[tuple[int, ...], str]] = {}
"""Digests by path and limit, with what identified the file. `verify` does not use them."""


def _remembered(path: str, most: int) -> str:
    about = os.stat(path)
    marks = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    known = _seen.get((path, most))
    if known is None or known[0] != marks:
        if len(_seen) > 256:
            _seen.clear()
        known = _seen[path, most] = (marks, _digest(path, most))
    return known[1]


def _digest(path: str, most: int) -> str:
    """The digest of a regular file. Raises `OSError`, and `OverflowError` where it has more than so many bytes."""
    from hashlib import sha256  # lazy: only what is started needs it

    whole, left = sha256(), most
    with open(path, "rb", buffering=0, opener=_careful) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "not a regular file")
        while block := file.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise OverflowError
            whole.update(block)
    return f"sha256:{whole.hexdigest()}"


def _careful(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))


def _shown(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if " " <= char <= "~" or (char.isalnum() and visible(f"a{char}a") == f"a{char}a"):
        return char
    return "".join(f"\\u{unit:04x}" for unit in memoryview(char.encode("utf-16-le", "surrogatepass")).cast("H"))


def _refuse(alias: str, text: str, setting: str) -> NoReturn:
    """Raises `LaunchRefused`, and tells of it."""
    whole = f"{alias} was not started: {text}" if alias else f"not started: {text}"
    events.record("launch.refused", whole, setting=setting, about=events.Event("launch.refused", server=alias))
    raise LaunchRefused(whole)
