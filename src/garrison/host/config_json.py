"""The `mcpServers` JSON of desktop clients, turned into the tables of our own format.

    {"mcpServers": {"files": {"command": "npx", "args": ["-y", "..."], "env": {"KEY": "${env:KEY}"}},
                    "web": {"type": "http", "url": "https://example.com/mcp", "headers": {...}}}}

Rules of this file:
- The same form under `servers` is taken too. Members that are not known are left alone, and a notice says so.
- What other clients understand as an approval (`autoApprove`, `alwaysAllow`, `trust`) is never one here.
- Secrets come from `env` and `headers`. A reference in an argument or an address may name folders and nothing else:
  every process of the machine can see arguments.
- What the format has no word for stands in the member `garrison` of a server, with the keys of our own format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, cast

from ..errors import ConfigurationError, ParseError
from ..gate.hygiene import visible
from ..gate.redaction import redact, redact_value
from ..policy.limits import Limits
from ..policy.secret import Secret
from .references import reference_of

__all__ = ["Entries", "parse_json", "read_servers", "servers_of"]

_LIMITS: Final = Limits(json_depth=16, json_nodes=20_000)
_ROOTS: Final = ("mcpServers", "servers")
_MEMBERS: Final = frozenset({"command", "args", "env", "cwd", "type", "url", "headers", "disabled", "garrison"})
_SPELLINGS: Final = {"serverUrl": "url", "httpUrl": "url", "transport": "type"}
"""Members that some clients spell otherwise."""
_LOCAL: Final = frozenset({"stdio", "local"})
_REMOTE: Final = frozenset({"http", "sse", "streamable-http", "streamableHttp", "streamable_http", "ws", "websocket"})
_APPROVING: Final = frozenset({"autoApprove", "alwaysAllow", "autoAllow", "trust", "trusted", "alwaysApprove"})
_REFERENCE: Final = re.compile(r"\$\{([^{}]*)\}")
_NAMED: Final = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.ASCII | re.DOTALL)
_BEARER: Final = re.compile(r"bearer +(\S+)", re.IGNORECASE)

_Lookup = Callable[[str, str], Secret]
"""Gives the secret of a reference, for the setting that is named second."""


class Entries(NamedTuple):
    """What such a file says."""

    tables: dict[str, dict[str, object]]
    """By alias, what our own format would have."""
    notices: tuple[str, ...]
    """For the person: what was left alone, renamed, or would better be a reference."""


def parse_json(data: bytes, name: str) -> dict[str, object]:
    """The object in a JSON file.

    Raises:
        ConfigurationError: it is not strict JSON (a member stands twice, a comment), or no object.
    """
    from ..protocol.json import decoder  # lazy: a TOML file needs none

    try:
        value = decoder(_LIMITS)(data)
    except ParseError as exc:
        raise ConfigurationError(f"{name}: {exc} (comments and trailing commas are no JSON)") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{name}: must be a JSON object with mcpServers")
    return cast("dict[str, object]", value)


def servers_of(whole: Mapping[str, object], name: str) -> tuple[str, dict[str, object]]:
    """The member that holds the servers, and what it holds.

    Raises:
        ConfigurationError: there is none, or there are two.
    """
    inner = whole.get("mcp")
    if isinstance(inner, dict) and not any(root in whole for root in _ROOTS):
        whole = cast("dict[str, object]", inner)
    found = [root for root in _ROOTS if root in whole]
    if len(found) != 1:
        raise ConfigurationError(f"{name}: must have one of {' and '.join(_ROOTS)}")
    return found[0], _table(whole[found[0]], found[0])


def read_servers(whole: Mapping[str, object], name: str, *, folder: str, lookup: _Lookup) -> Entries:
    """The servers of such a file.

    Args:
        whole: of `parse_json`.
        name: of the file, for errors.
        folder: the workspace: what `${workspaceFolder}` stands for.
        lookup: gives secrets.

    Raises:
        ConfigurationError: an entry is not of its form. The message names it.
    """
    root, servers = servers_of(whole, name)
    tables: dict[str, dict[str, object]] = {}
    notices: list[str] = []
    for given, value in servers.items():
        at = f"{root}.{visible(given)}"
        entry = {_SPELLINGS.get(key, key): each for key, each in _table(value, at).items()}
        if entry.get("disabled") is True or entry.get("enabled") is False:
            notices.append(f"{at} is disabled")
            continue
        alias = _alias(given, at)
        if alias in tables:
            raise ConfigurationError(f"{at}: another server has the name {alias}")
        if alias != given:
            notices.append(f"{at} is called {alias} here")
        tables[alias] = _Entry(at, entry, folder, lookup, notices).table()
    return Entries(tables, tuple(notices))


class _Entry:
    """One server, being read."""

    def __init__(self, at: str, entry: dict[str, object], folder: str, lookup: _Lookup, notices: list[str]) -> None:
        self.at = at
        self.entry = entry
        self.folder = folder
        self.lookup = lookup
        self.notices = notices

    def table(self) -> dict[str, object]:
        entry, at = self.entry, self.at
        kind = entry.get("type")
        if ("command" in entry) == ("url" in entry):
            raise ConfigurationError(f"{at}: must have either command or url")
        known = _LOCAL if "command" in entry else _REMOTE
        if kind is not None and not (isinstance(kind, str) and kind in known):
            raise ConfigurationError(f"{at}.type: {visible(str(kind))} is no way to a server with these members")
        self._left_alone()
        found = dict(_table(entry.get("garrison", {}), f"{at}.garrison"))
        for key in ("command", "url", "env", "headers", "token"):
            if key in found:
                raise ConfigurationError(f"{at}.garrison.{key}: belongs to {at} itself")
        if "command" in entry:
            return found | self._local()
        return found | self._remote()

    def _local(self) -> dict[str, object]:
        args = self.entry.get("args", [])
        if not isinstance(args, list):
            raise ConfigurationError(f"{self.at}.args: must be a list of texts")
        words = [self.entry["command"], *cast("list[object]", args)]
        command = [self._plain(word, "args" if place else "command") for place, word in enumerate(words)]
        if redact_value(command) is not command:
            self.notices.append(f"{self.at}.args: has what looks like a key, and every process can see it; use env")
        found: dict[str, object] = {"command": command, "env": self._variables("env")}
        if "cwd" in self.entry:
            found["cwd"] = self._plain(self.entry["cwd"], "cwd")
        elif any(os.path.isfile(os.path.join(self.folder, word)) for word in command[1:] if not os.path.isabs(word)):
            self.notices.append(
                f"{self.at}: an argument is the name of a file in {self.folder}, and the server starts in an empty "
                "folder: write the whole path, or set cwd"
            )
        return found

    def _remote(self) -> dict[str, object]:
        found: dict[str, object] = {"url": self._plain(self.entry["url"], "url")}
        headers = self._variables("headers")
        for name in [name for name in headers if name.lower() == "authorization"]:
            value = headers.pop(name)
            match = _BEARER.fullmatch(value.reveal() if isinstance(value, Secret) else value)
            if match is None:
                raise ConfigurationError(f"{self.at}.headers.{name}: must be Bearer and a token")
            found["token"] = Secret(match[1])
        return found | {"headers": headers}

    def _left_alone(self) -> None:
        known = _MEMBERS | {"enabled"}
        for key in self.entry:
            if key in _APPROVING:
                self.notices.append(f"{self.at}.{key}: approves nothing here; see rules of our own format")
            elif key not in known:
                self.notices.append(f"{self.at}.{visible(key)}: is not known, and left alone")

    def _variables(self, member: str) -> dict[str, str | Secret]:
        found: dict[str, str | Secret] = {}
        for name, value in _table(self.entry.get(member, {}), f"{self.at}.{member}").items():
            at = f"{self.at}.{member}.{visible(name)}"
            if not isinstance(value, str):
                raise ConfigurationError(f"{at}: must be a text")
            text, secret = self._expanded(value, at)
            if not secret and redact_value({name: text}) != {name: text}:
                self.notices.append(f"{at}: is a secret in a file; write ${{env:NAME}} or ${{credential:NAME}}")
                secret = True
            found[name] = Secret(text) if secret and text else text
        return found

    def _expanded(self, text: str, at: str) -> tuple[str, bool]:
        """The text with references followed, and whether one of them led to a secret."""
        secret = False

        def follow(match: re.Match[str]) -> str:
            nonlocal secret
            name = match[1]
            place = self._place(name)
            if place is not None:
                return place
            if name.startswith(("credential:", "file:")):
                secret = True
                return self.lookup(str(reference_of(name, at)), at).reveal()
            named = _NAMED.fullmatch(name)
            if named is None:
                raise ConfigurationError(
                    f"{at}: {_unfollowed(name)} is no reference that is followed here; there are ${{env:NAME}}, "
                    "${credential:NAME} and ${file:PATH}"
                )
            if named[2] is not None and not os.environ.get(named[1]):
                return named[2]
            secret = True
            return self.lookup(f"env:{named[1]}", at).reveal()

        return _REFERENCE.sub(follow, text), secret

    def _plain(self, value: object, member: str) -> str:
        """A text in which references to folders are followed."""
        at = f"{self.at}.{member}"
        if not isinstance(value, str) or (not value and member == "command"):
            raise ConfigurationError(f"{at}: must be {'a list of texts' if member == 'args' else 'a text'}")

        def follow(match: re.Match[str]) -> str:
            place = self._place(match[1])
            if place is None:
                raise ConfigurationError(
                    f"{at}: {_unfollowed(match[1])} cannot stand here, where it would be shown and seen by other "
                    "programs; give it to the server in env or headers"
                )
            return place

        return _REFERENCE.sub(follow, value)

    def _place(self, name: str) -> str | None:
        if name in ("workspaceFolder", "workspaceRoot"):
            return self.folder
        if name in ("userHome", "HOME", "env:HOME", "USERPROFILE", "env:USERPROFILE"):
            return os.path.expanduser("~")
        return os.sep if name in ("pathSeparator", "/") else None


def _unfollowed(name: str) -> str:
    """A reference in an error: without its default, which may be a secret."""
    return visible(redact(f"${{{name.partition(':-')[0]}}}"))


def _alias(given: str, at: str) -> str:
    """The alias that a server gets: its name here, in small letters and without what an alias cannot have."""
    alias = re.sub(r"[^a-z0-9_]+", "-", given.lower()).strip("-_")[:32].strip("-")
    if not alias or not alias[0].isalpha():
        raise ConfigurationError(f"{at}: the name must begin with a letter, a to z")
    return alias


def _table(value: object, at: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{at}: must be an object")
    return cast("dict[str, object]", value)
