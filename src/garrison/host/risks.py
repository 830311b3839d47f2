"""What is risky about a launch, in plain words: `risks_of(record)`.

Rules of this file:
- It advises whoever is asked. What holds a program is its sandbox; what fixes it, the digests of its record.
- A risk says what it is and what it is about, and quotes the argument.
- Tables say which programs are shells, wrappers and package runners; a command that another one starts, and one in the
  text that a shell is given, is looked at like the first.

Spec: 2026-07-28 basic/security_best_practices, "Local MCP Server Compromise".
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ..gate.hygiene import visible
from .runners import INSTALLS, STARTING, fetch_of, is_exact, is_local, lookalike, name_of, namesake, program_of

if TYPE_CHECKING:
    from .launches import LaunchRecord

__all__ = ["LOOKALIKE", "UNPINNED", "Risk", "risks_of"]

LOOKALIKE: Final = "runner.lookalike"
"""The rule of a risk: what is fetched has a name that can be mistaken for another's."""
UNPINNED: Final = "runner.unpinned"
"""The rule of a risk: what is fetched and run can be another tomorrow."""


class Risk(NamedTuple):
    """One thing to know before a program is started."""

    level: Literal["high", "medium", "low"]
    text: str
    """What it is, with the argument that it is about."""
    rule: str = ""
    """Its stable name."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SHELLS: Final = _set("sh bash rbash dash ash zsh ksh mksh fish csh tcsh pwsh powershell cmd nu elvish xonsh")
_SHELL_CODE: Final = re.compile(r"-[a-zA-Z]*c|--command|-[cC]ommand|/[cCkK]")
_POWERSHELL_CODE: Final = re.compile(r"-(?:c|command|e|ec|enc|encodedcommand)", re.IGNORECASE)
_ROOT: Final = _set("sudo doas pkexec su runas gosu su-exec run0")
_WRAPPERS: Final = _ROOT | _set(
    "env nice ionice nohup setsid stdbuf timeout xvfb-run time chrt taskset unbuffer command exec strace ltrace script "
    "busybox toybox dotenv cross-env dotenvx direnv firejail systemd-run mise asdf"
)
_CODE_OPTIONS: Final = {
    **dict.fromkeys(("python", "pypy", "py"), _set("-c")),
    **dict.fromkeys(("node", "bun"), _set("-e -p -pe --eval --print")),
    "perl": _set("-e -E"),
    "ruby": _set("-e"),
    "php": _set("-r"),
    "lua": _set("-e"),
    "osascript": _set("-e"),
}
_PYTHONS: Final = _set("python pypy py")
_DOWNLOAD: Final = r"(?:curl|wget|aria2c|http|https|iwr|irm|Invoke-WebRequest|Invoke-RestMethod)"
_PIPED: Final = re.compile(
    rf"\b{_DOWNLOAD}\b[^\n]*\|\s*(?:\S*/)?(?:sudo\s+)?(?:\S*/)?(?:ba|z|da|k|fi|c|tc)?sh\b|"
    rf"\b{_DOWNLOAD}\b[^\n]*\|\s*(?:sudo\s+)?(?:\S*/)?(?:env\s+)?(?:python|node|perl|ruby|php|iex|deno|bun|pwsh)|"
    rf"(?:\$\(|`|<\()\s*{_DOWNLOAD}\b|\b(?:eval|iex|Invoke-Expression)\b[^\n]*\b{_DOWNLOAD}\b|"
    rf"\b{_DOWNLOAD}\b[^\n]*(?:&&|;)[^\n]*(?:\bsh\b|\bbash\b|\bpython|\bnode\b|chmod\s+\S*x|\./)|"
    r"base64\s+(?:-d|-D|--decode)[^\n]*\|",
    re.IGNORECASE,
)

_SECRETS: Final = _set(
    ".ssh .aws .gnupg .kube .docker .azure .config/gcloud .config/gh .config/op .password-store .netrc .npmrc .pypirc "
    ".git-credentials .pgpass .my.cnf .vault-token .terraform.d .local/share/keyrings .local/share/garrison "
    ".local/state/garrison .config/garrison .mozilla .thunderbird .config/google-chrome .config/chromium .bash_history "
    ".zsh_history Library/Keychains Library/Cookies Library/Mail Library/Messages .bitcoin .ethereum .electrum "
    ".cargo/credentials"
)
"""Below a person's own folder: what holds credentials and what is nobody else's."""
_SYSTEM: Final = _set("/etc /root /proc /sys /dev /boot /var/run /run /var/log /private/etc /home /Users")
_OF_SYSTEM: Final = "that is not yours alone"
_SOCKETS: Final = re.compile(r"(?:docker|containerd|podman|crio)\.sock\b")
_INDEXES: Final = re.compile(
    r"(?:NPM_CONFIG_|npm_config_|PIP_|UV_|YARN_|BUN_CONFIG_|GOPROXY|GOFLAGS|GONOSUMDB|GONOSUMCHECK|GOINSECURE|DENO_|"
    r"DOCKER_HOST|CARGO_|NUGET_).*"
)
_TRUST: Final = re.compile(
    r"NODE_TLS_REJECT_UNAUTHORIZED|NODE_EXTRA_CA_CERTS|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|"
    r"(?:https?|all|no)_proxy",
    re.IGNORECASE,
)


def risks_of(record: LaunchRecord) -> tuple[Risk, ...]:
    """What is risky about a launch, the worst first."""
    found: list[Risk] = []
    for look in _LOOKS:
        found += look(record)
    order = ("high", "medium", "low")
    return tuple(sorted(dict.fromkeys(found), key=lambda risk: order.index(risk.level)))


# Commands.


def _commands(argv: Sequence[str], depth: int = 0) -> Iterator[tuple[str, ...]]:
    """A command, and those that it starts as far as its words tell."""
    if not argv or depth > 8:
        return
    yield tuple(argv)
    name = program_of(argv[0])
    if name in _WRAPPERS:
        for place in range(1, len(argv)):
            inner = program_of(argv[place])
            if inner in _WRAPPERS or inner in _SHELLS or inner in _CODE_OPTIONS or inner in STARTING:
                yield from _commands(argv[place:], depth + 1)
                return
    text = _shell_text(argv)
    if text is not None:
        for words in _split(text):
            yield from _commands(words, depth + 1)


def _shell_text(argv: Sequence[str]) -> str | None:
    """The text that a shell is given to carry out."""
    name = program_of(argv[0])
    if name not in _SHELLS:
        return None
    code = _POWERSHELL_CODE if name in ("pwsh", "powershell") else _SHELL_CODE
    for place, word in enumerate(argv[1:], 1):
        if code.fullmatch(word):
            return " ".join(argv[place + 1 :])
        if not word.startswith(("-", "+", "/")) and argv[place - 1] not in ("-o", "+o", "-O", "+O"):
            return None  # a script: what follows is for it
    return None


def _split(text: str) -> list[list[str]]:
    """The commands of a shell's text, as far as they can be told apart without being a shell."""
    from shlex import shlex  # lazy: only shells are read so

    lexer = shlex(text, posix=True, punctuation_chars=";|&()\n`")
    lexer.whitespace_split, lexer.commenters, lexer.whitespace = True, "", " \t\r"
    commands: list[list[str]] = [[]]
    try:
        for word in lexer:
            if word and set(word) <= set(";|&()\n`"):
                commands.append([])
            elif commands[-1] or "=" not in word or word.startswith("-"):  # NAME=value before a command
                commands[-1].append(word.removeprefix("$"))
    except ValueError:  # an open quote
        return [text.split()]
    return [command for command in commands if command]


def _shells(record: LaunchRecord) -> Iterator[Risk]:
    for argv in _commands(record.argv):
        name = program_of(argv[0])
        text = _shell_text(argv)
        if text is not None:
            yield Risk("high", f"a shell ({name}) carries out a text: {_say(text)}", "shell")
            if _PIPED.search(text):
                yield Risk("high", "that text downloads something, or hides it, and runs it", "download")
        if name in _ROOT:
            yield Risk("high", f"{name} starts it with the rights of another user", "privileges")
        for place, word in enumerate(argv[1:], 1):
            if word in _CODE_OPTIONS.get(name, ()):
                yield Risk(
                    "medium",
                    f"{name} runs code that stands in its arguments: {_say(' '.join(argv[place + 1 :]))}",
                    "code",
                )
                break
        yield from _undigested(name, argv)


def _undigested(name: str, argv: Sequence[str]) -> Iterator[Risk]:
    if name in _PYTHONS and "-m" in argv[1:-1]:
        module = argv[argv.index("-m") + 1]
        if module not in STARTING:
            yield Risk("low", f"the module {_say(module)} is found by Python: its files are not digested", "undigested")
    elif name in ("node", "bun", "deno", *_PYTHONS):
        first = next((word for word in argv[1:] if not word.startswith("-")), "")
        if os.path.isabs(first) and os.path.isdir(first):
            yield Risk("low", f"{_say(first)} is a folder: its files are not digested", "undigested")
    elif name == "uv" and "run" in argv:
        yield Risk("low", "uv run fetches the packages that the project names", "undigested")


def _runners(record: LaunchRecord) -> Iterator[Risk]:
    for argv in _commands(record.argv):
        joined = " ".join((program_of(argv[0]), *argv[1:]))
        plain = re.sub(r"^\w+ -m ", "", joined)
        if INSTALLS.match(plain):
            yield Risk("high", f"it installs packages each time that it starts: {_say(joined)}", UNPINNED)
        fetch = fetch_of(argv)
        if fetch is None:
            continue
        by_name = fetch.form in ("npm", "pypi")
        for package in fetch.packages:
            said = f"{fetch.runner} fetches and runs {_say(package)}"
            if not fetch.offline and not is_exact(fetch.form, package):
                fixed = "digest" if fetch.form == "image" else "version"
                yield Risk("high", f"{said}, whose {fixed} is not fixed", UNPINNED)
            elif not fetch.offline and by_name and not is_local(package):
                yield Risk("low", f"{said}; what that needs in turn is not fixed", "runner")
            if by_name:
                yield from _looks(package)
        if fetch.form == "image":
            yield from _containers(fetch.runner, fetch.arguments)
        if fetch.form == "deno" and {"-A", "--allow-all"} & set(fetch.arguments):
            yield Risk("medium", "deno gives it all permissions", "permissions")


def _containers(name: str, arguments: Sequence[str]) -> Iterator[Risk]:
    yield Risk("low", f"the sandbox of this host does not hold what {name} starts", "container")
    joined = " ".join(arguments)
    if "--privileged" in arguments or re.search(r"--cap-add[= ](?:ALL|SYS_ADMIN)\b|--pid[= ]host\b", joined):
        yield Risk("high", "the container has the rights of this machine's administrator", "container")
    if re.search(r"--(?:network|net)[= ]host\b", joined):
        yield Risk("medium", "the container is on this machine's own network", "container")


def _looks(package: str) -> Iterator[Risk]:
    name = name_of(package)
    if not package.isascii():
        yield Risk("high", f"the name {_say(package)} has letters that look like others", LOOKALIKE)
    elif known := lookalike(package):
        yield Risk("high", f"{_say(name)} is not {known}, whose name is much like it", LOOKALIKE)
    elif known := namesake(name):
        yield Risk("medium", f"{_say(name)} is not {known}, whose name it has in part", "namesake")


# Paths.


def _places(record: LaunchRecord) -> Iterator[Risk]:
    home = os.path.realpath(os.path.expanduser("~"))
    words = [word for argv in _commands(record.argv) for word in argv[1:]]
    given = [(word, "an argument names") for word in words]
    given += [(path, "it may change") for path in record.writes] + [(path, "it may read") for path in record.reads]
    if record.cwd:
        given.append((record.cwd, "it starts in"))
    for text, how in given:
        if _SOCKETS.search(text):
            yield Risk("high", f"{how} {_say(text)}: who has that socket has the whole machine", "path")
            continue
        for path in _paths_in(text, home):
            what = _sensitive(path, home)
            if what:
                level = "medium" if how == "it starts in" or what == _OF_SYSTEM else "high"
                yield Risk(level, f"{how} {_say(text)}: {what}", "path")
                break


def _paths_in(text: str, home: str) -> Iterator[str]:
    """The absolute paths in an argument: it, what stands after `=`, and the parts around `:` (`-v /:/host`)."""
    if "://" in text and not text.startswith("file://"):
        return
    value = text.removeprefix("file://")
    for part in (
        value,
        value.partition("=")[2],
        *value.split(":"),
        *value.partition("=")[2].split(":"),
        *value.split(","),
    ):
        for prefix in ("~", "$HOME", "${HOME}", "%USERPROFILE%"):
            if part == prefix or part.startswith((f"{prefix}/", f"{prefix}\\")):
                part = home + part[len(prefix) :].replace("\\", "/")
        if os.path.isabs(part) and "\0" not in part:
            yield os.path.normpath(part)
            yield os.path.realpath(part)


def _sensitive(path: str, home: str) -> str:
    if path in ("/", "//") or re.fullmatch(r"[A-Za-z]:[\\/]*", path):
        return "that is every file"
    if path == home:
        return "that is all of your own folder"
    if home.startswith(path + os.sep):
        return "that holds your own folder"
    if path.startswith(home + os.sep):
        below = path[len(home) + 1 :]
        if any(below == secret or below.startswith(f"{secret}/") for secret in _SECRETS):
            return "that holds credentials or what is private"
        return ""
    if any(path == folder or path.startswith(f"{folder}/") for folder in _SYSTEM) and path != os.devnull:
        return _OF_SYSTEM
    return ""


def _owners(record: LaunchRecord) -> Iterator[Risk]:
    if os.name != "posix":
        return
    for path in record.files:
        what = "the program" if path == record.program else "the file"
        other = _owned_by_others(path)
        if other:
            yield Risk("high", f"{what} {_say(path)} can be changed by others: {other}", "owner")
    if record.cwd and _owned_by_others(record.cwd):
        yield Risk("medium", f"others can put files into its folder {_say(record.cwd)}", "owner")


def _owned_by_others(path: str) -> str:
    """The part of a path that others may change, and why; empty where there is none."""
    mine = (0, os.geteuid())
    part = path
    while True:
        try:
            about = os.lstat(part)
        except OSError:
            return f"{_say(part)} cannot be looked at"
        if about.st_uid not in mine:
            return f"{_say(part)} belongs to another user (uid {about.st_uid})"
        if about.st_mode & 0o002 and not (
            stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX and part != path
        ):
            return f"{_say(part)} has mode {stat.S_IMODE(about.st_mode):04o}"
        above = os.path.dirname(part)
        if above == part:
            return ""
        part = above


def _surroundings(record: LaunchRecord) -> Iterator[Risk]:
    if not record.confined:
        yield Risk("high", "nothing confines it: it may do all that you may do", "sandbox")
    for name in record.env:
        if name.upper() == "PATH":
            yield Risk("medium", "PATH is set for it: what it starts by name is looked for there", "environment")
        elif _INDEXES.fullmatch(name):
            yield Risk("medium", f"{name} is set for it, and may say where packages come from", "environment")
        elif _TRUST.fullmatch(name):
            yield Risk(
                "medium", f"{name} is set for it, and says whom it believes or through whom it speaks", "environment"
            )


_LOOKS: Final[tuple[Callable[[LaunchRecord], Iterator[Risk]], ...]] = (
    _shells,
    _runners,
    _places,
    _owners,
    _surroundings,
)


def _say(text: str) -> str:
    shown = visible(text)
    return (
        shown if len(shown) <= 200 else f"{shown[:130]} [... {len(shown) - 190} characters not shown ...] {shown[-60:]}"
    )
