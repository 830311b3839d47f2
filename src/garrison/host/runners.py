"""How package runners are called (`npx`, `uvx`, `docker run` and others), and which packages they would fetch.

Rules of this file:
- Tables say how a runner's own arguments are told from those of the package.
- A package is fixed by an exact version, a commit or a digest; a tag or a range is another package tomorrow.
- Which names are like well-known ones is judged by letters alone: nothing is asked of a registry.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

__all__ = [
    "INSTALLS",
    "STARTING",
    "Fetch",
    "fetch_of",
    "is_exact",
    "is_local",
    "lookalike",
    "name_of",
    "namesake",
    "program_of",
]

_Form = Literal["npm", "pypi", "image", "go", "deno", "nuget"]


class Fetch(NamedTuple):
    """What a runner is told to run."""

    runner: str
    """What it is called, as `uv tool run`."""
    form: _Form
    """Whose packages these are."""
    packages: tuple[str, ...]
    """As they stand in the arguments, with versions."""
    offline: bool
    """Whether it is told not to fetch."""
    arguments: tuple[str, ...]
    """All after its name."""


class _Runner(NamedTuple):
    """How a package runner is called: `npx [options] package [arguments]`."""

    form: _Form
    names: frozenset[str] = frozenset()
    """Options that name a package, so that the first argument is a command of it."""
    more: frozenset[str] = frozenset()
    """Options that name further packages."""
    valued: frozenset[str] = frozenset()
    """Options whose value is the next argument."""
    flags: frozenset[str] | None = None
    """Where it is known instead: the options that have no value; every other one has."""
    local: frozenset[str] = frozenset()
    """Options that keep it from fetching."""
    runs_files: bool = False
    """Its first argument is a file or a command, and no package."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NPX: Final = _Runner(
    "npm",
    names=_set("-p --package"),
    valued=_set("-w --workspace --prefix --cache --registry --userconfig --loglevel -c --call --script-shell -C --dir"),
    local=_set("--no-install --no --offline"),
)
_UVX: Final = _Runner(
    "pypi",
    names=_set("--from --spec"),
    more=_set("--with --with-editable"),
    valued=_set(
        "-p --python --index --default-index --index-url -i --extra-index-url --find-links -f --directory --project "
        "--cache-dir --config-file --env-file --with-requirements -c --constraints --overrides --exclude-newer "
        "--resolution --prerelease --index-strategy --keyring-provider --link-mode --refresh-package -P "
        "--upgrade-package --color --pip-args --python-platform -w --torch-backend"
    ),
    local=_set("--offline"),
)
_DOCKER: Final = _Runner(
    "image",
    flags=_set(
        "-i -t -d --rm --init --privileged --read-only -q --quiet -P --publish-all --interactive --tty --detach "
        "--no-healthcheck --oom-kill-disable --replace --rmi --no-hosts --use-api-socket"
    ),
)
_GO: Final = _Runner("go", valued=_set("-C -mod -modfile -tags -ldflags -gcflags -exec -p -o"))
_DENO: Final = _Runner(
    "deno", valued=_set("-c --config --import-map --lock --cert --location --seed --env-file --preload -L --log-level")
)
_DNX: Final = _Runner("nuget", valued=_set("--source --add-source --configfile --version -v --verbosity"))

_RUNNERS: Final[dict[tuple[str, ...], _Runner]] = {
    ("npx",): _NPX,
    ("pnpx",): _NPX,
    ("bunx",): _NPX,
    ("npm", "exec"): _NPX,
    ("npm", "x"): _NPX,
    ("pnpm", "dlx"): _NPX,
    ("yarn", "dlx"): _NPX,
    ("bun", "x"): _NPX,
    ("uvx",): _UVX,
    ("uv", "tool", "run"): _UVX,
    ("uv", "x"): _UVX,
    ("pipx", "run"): _UVX,
    ("docker", "run"): _DOCKER,
    ("docker", "container", "run"): _DOCKER,
    ("podman", "run"): _DOCKER,
    ("podman", "container", "run"): _DOCKER,
    ("nerdctl", "run"): _DOCKER,
    ("uv", "run"): _UVX._replace(runs_files=True, names=frozenset()),
    ("go", "run"): _GO,
    ("deno", "run"): _DENO,
    ("deno", "serve"): _DENO,
    ("deno", "x"): _DENO,
    ("dnx",): _DNX,
    ("dotnet", "dnx"): _DNX,
    ("dotnet", "tool", "exec"): _DNX,
}
"""The words of a command -> how the rest is read."""
INSTALLS: Final = re.compile(
    r"(?:pip|uv pip|pipx|npm|pnpm|yarn|bun|cargo|gem|brew|apt|apt-get|go|conda|uv tool|dotnet tool) "
    r"(?:install|i|add|ci|get|inject)(?: |\Z)"
)
"""A command, its words joined, that puts packages in place."""
_GLOBALS: Final = _set("--directory --project --prefix -C --cwd --dir --config-file --cache-dir --context -c -H --host")
"""Options with a value that may stand between a runner and its words."""

_EXACT: Final = {
    "npm": re.compile(r"v?\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII),
    "pypi": re.compile(r"\d[0-9A-Za-z.!+]*(?<![.x])", re.ASCII),
    "go": re.compile(r"v\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?|[0-9a-f]{40}", re.ASCII),
    "nuget": re.compile(r"\d+(?:\.\d+){1,3}(?:-[0-9A-Za-z.-]+)?", re.ASCII),
}
_COMMIT: Final = re.compile(r"[#@][0-9a-f]{40}(?:#.*)?\Z", re.ASCII)
_DIGEST: Final = re.compile(r"@sha256:[0-9a-f]{64}\Z", re.ASCII)

STARTING: Final = frozenset(key[0] for key in _RUNNERS) | {"pip", "uv", "pipx"}
"""Names of programs that this file knows."""

_KNOWN: Final = _set(
    "@modelcontextprotocol/inspector @playwright/mcp @upstash/context7-mcp @notionhq/notion-mcp-server @stripe/mcp "
    "@supabase/mcp-server-supabase @sentry/mcp-server @azure/mcp @browsermcp/mcp @cloudflare/mcp-server-cloudflare "
    "@brave/brave-search-mcp-server @hubspot/mcp-server @heroku/mcp-server @elastic/mcp-server-elasticsearch "
    "@mongodb-js/mongodb-mcp-server mongodb-mcp-server chrome-devtools-mcp mcp-remote firecrawl-mcp tavily-mcp "
    "exa-mcp-server figma-developer-mcp desktop-commander mcp-server-fetch mcp-server-git mcp-server-time "
    "mcp-server-sqlite mcp-server-qdrant mcp-atlassian markitdown-mcp blender-mcp fastmcp duckduckgo-mcp-server "
    "mcp-proxy mcp-server-kubernetes mcp-server-docker postmark-mcp"
) | {
    f"@modelcontextprotocol/server-{name}"
    for name in _set(
        "everything filesystem memory sequential-thinking github gitlab postgres slack puppeteer brave-search redis "
        "google-maps gdrive"
    )
}
"""Packages that many know, beside whose names others might be chosen."""
_WORDS_OF_A_NAME: Final = re.compile(r"[-_.]+")
_TWINS: Final = str.maketrans("015", "ols")


def fetch_of(argv: Sequence[str]) -> Fetch | None:
    """What a command fetches, where it is one of a package runner."""
    found = _runner(argv)
    if found is None:
        return None
    runner, name, arguments = found
    packages, offline = _packages(runner, arguments)
    return Fetch(name, runner.form, tuple(packages), offline, tuple(arguments))


def is_local(package: str) -> bool:
    """Whether a package is a file or folder of this machine."""
    return package.startswith((".", "/", "~", "file:", "C:\\", "link:", "workspace:"))


def program_of(word: str) -> str:
    """The name of a program, without folder, ending and version."""
    name = os.path.basename(word.replace("\\", "/")).lower()
    for ending in (".exe", ".cmd", ".bat", "-cli.js", ".ps1"):
        name = name.removesuffix(ending)
    return re.sub(r"\A(python|pypy|pip)[23]?(?:\.\d+)?\Z", r"\1", name)


def _runner(argv: Sequence[str]) -> tuple[_Runner, str, list[str]] | None:
    """The runner that a command is, what it is called, and its own arguments."""
    words, rest = [program_of(argv[0])], list(argv[1:])
    if words[0] in ("python", "pypy", "py") and rest[:1] == ["-m"] and len(rest) > 1:
        words, rest = [rest[1]], rest[2:]
    while True:
        runner = _RUNNERS.get(tuple(words))
        if runner is not None:
            return runner, " ".join(words), rest
        while rest and rest[0].startswith("-"):
            del rest[: 2 if rest[0] in _GLOBALS else 1]
        if not rest or not any(key[: len(words) + 1] == (*words, rest[0]) for key in _RUNNERS):
            return None
        words.append(rest.pop(0))


def _packages(runner: _Runner, arguments: Sequence[str]) -> tuple[list[str], bool]:
    """What a runner is told to run, and whether it is kept from fetching."""
    named: list[str] = []
    more: list[str] = []
    local, place, first, version = False, 0, "", ""
    while place < len(arguments):
        word = arguments[place]
        place += 1
        if word == "--" or not word.startswith("-"):
            first = word if word != "--" else next(iter(arguments[place:]), "")
            break
        option, given, value = word.partition("=")
        has_value = (
            option in runner.names | runner.more | runner.valued
            if runner.flags is None
            else option not in runner.flags and not re.fullmatch(r"-[itdqP]+", option)
        )
        if has_value and not given:
            value = next(iter(arguments[place:]), "")
            place += 1
        if option in runner.names:
            named.append(value)
        elif option in runner.more:
            more.append(value)
        elif option == "--version" and runner.form == "nuget":
            version = value
        local = local or option in runner.local
    if runner.form == "nuget" and "--version" in arguments[place:-1]:
        version = arguments[arguments.index("--version", place) + 1]
    if not named and first and not runner.runs_files:
        named.append(f"{first}@{version}" if version else first)
    return [*named, *more], local


def is_exact(form: str, package: str) -> bool:
    """Whether a package is fixed: an exact version, a commit, a digest, or what is here already."""
    if form == "image":
        return _DIGEST.search(package) is not None
    if is_local(package):
        return True
    if form == "deno":
        kind, _, rest = package.partition(":")
        if kind in ("npm", "jsr"):
            return _EXACT["npm"].fullmatch(rest.lstrip("/").rpartition("@")[2].partition("/")[0]) is not None
        return kind not in ("http", "https", "data", "blob")
    if form == "go" and package.endswith(".go"):
        return True
    if "://" in package or package.startswith(("git+", "github:", "gitlab:", "bitbucket:", "git@", "gist:")):
        return _COMMIT.search(package) is not None
    if form == "npm" and "/" in package.removeprefix("@") and not package.startswith("@"):  # owner/repository
        return _COMMIT.search(package) is not None
    if form == "pypi":
        name, equals, version = package.partition("==")
        version = version.lstrip("=") if equals else name.partition("@")[2]
        return _EXACT["pypi"].fullmatch(version.strip()) is not None and "," not in package
    return _EXACT[form].fullmatch(package[1:].partition("@")[2].removeprefix("=")) is not None


# Names of packages.


def lookalike(package: str) -> str | None:
    """The well-known package that a name could be mistaken for, by a letter or two; None where there is none."""
    name = name_of(package)
    if name in _KNOWN or not name:
        return None
    plain = _plain(name)
    most = 2 if len(plain) >= 12 else 1
    return next((known for known in sorted(_KNOWN) if _is_near(plain, _plain(known), most)), None)


def namesake(name: str) -> str | None:
    """The well-known package that has this name too, in a scope of its own."""
    if name in _KNOWN:
        return None
    base = name.rpartition("/")[2]
    scoped = (known for known in sorted(_KNOWN) if known.startswith("@") and known.count("-"))
    for known in scoped:
        if base == known[1:].replace("/", "-") or (base == known.rpartition("/")[2] and base != "mcp-server"):
            return known
    return None


def name_of(package: str) -> str:
    """The name alone, without a version, extras or a path."""
    if "://" in package or is_local(package):
        return ""
    scope = "@" if package.startswith("@") else ""
    return scope + re.split(r"[@=<>!~\[; ]", package.removeprefix("@"), maxsplit=1)[0].lower()


def _plain(name: str) -> str:
    return _WORDS_OF_A_NAME.sub("-", name).translate(_TWINS)


def _is_near(one: str, other: str, most: int) -> bool:
    """Whether so many letters, changed, left out, put in or swapped, make one of the other (optimal alignment)."""
    if abs(len(one) - len(other)) > most:
        return False
    before: list[int] = []
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, 1):
        fresh = [place]
        for at, theirs in enumerate(other, 1):
            cost = min(row[at] + 1, fresh[at - 1] + 1, row[at - 1] + (letter != theirs))
            if before and at > 1 and letter == other[at - 2] and one[place - 2] == theirs:
                cost = min(cost, before[at - 2] + 1)
            fresh.append(cost)
        before, row = row, fresh
    return row[-1] <= most
