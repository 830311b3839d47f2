"""Files that configure a host, TOML and the JSON of desktop clients: a configuration or a refusal that names what is
wrong, and what stands in the place of a secret, or is had from where a reference leads, is shown by neither.

The input is the file. `$K` stands for a key in it; a reference to the variable `FUZZED`, the file `secret` or the
credential `fuzzed` leads to another one."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from unittest.mock import patch

from fuzz.oracle import agree, hold
from garrison.auth.store import MemoryStore
from garrison.errors import ConfigurationError, GarrisonError
from garrison.host.config import HostConfig, lines_of, read_config, untrusted
from garrison.host.references import keep_secret
from garrison.host.servers import LocalServer, RemoteServer, check_alias
from garrison.host.state import MemoryState
from garrison.policy.secret import Secret

_KEY = "ghp_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
_HAD = "xoxb-Z9y8X7w6V5u4T3s2R1q0P9o8N7m6L5k4J3i2"
_TABLE = b'[servers.a]\ncommand=["x","-y"]\n'
SEEDS = (
    _TABLE + b'env={A="b",API_KEY={from="env:FUZZED"}}\nread=["~/x","y"]\nlabels=["private"]\nmemory=false\n',
    _TABLE + b'env={API_KEY="$K"}\n',
    _TABLE + b'cwd="~\\u0000x"\n[servers.a.tools]\nx=["outward"]\n',
    b'[servers.w]\nurl="https://a.example/mcp"\ntoken={from="file:secret"}\nheaders={X-A="b"}\nauth={type=[]}\n',
    b'[servers.w]\nurl="https://a.example/mcp"\nauth={type="oauth",client_id="c",client_secret={from="credential:fuzzed"}}\n',
    b'[servers.w]\nurl="https://a"\nauth={type="client-credentials",client_id="c",secret={from="env:FUZZED"}}\ntls={ca="x"}\n',
    b'[host]\nscan="off"\npatience=nan\nfresh=1e400\nroots=["."]\ndefault="deny"\n',
    b'default="deny"\n[[rules]]\naction="allow"\nserver="a"\ntool="read_*"\narguments={path="/d/**",n=1}\nuntil=2030-01-01\n',
    b'[[rules]]\naction="allow"\nserver="a"\ntool="t"\narguments={d=2030-01-01,t=07:32:00,i=inf,n=[nan]}\n',
    b'[[rules]]\naction="deny"\nserver="a"\ntool="t"\narguments={n=0x%b}\n' % (b"f" * 3700),
    b"a=" + b"1" * 4310,
    b"a=" + b"[" * 2000,
    b'[[rules]]\naction="deny"\nserver="a"\ntool="t"\narguments.' + b"a." * 1500 + b"b=1",
    b'{"mcpServers":{"My Files":{"command":"npx","args":["-y","x"],"env":{"A":"${env:FUZZED}","TOKEN":"$K"}}}}',
    b'{"mcpServers":{"a":{"url":"https://a/mcp","type":"http","headers":{"Authorization":"Bearer ${file:secret}"}}}}',
    b'{"mcpServers":{"a":{"url":"https://a/mcp","headers":{"Authorization":"$K","X":"${env:N-O:-$K}"},"type":[]}}}',
    b'{"servers":{"a":{"command":"x","env":{"A":"${env:N-O:-$K}"}}}}',
    b'{"mcp":{"servers":{"a":{"command":"${workspaceFolder}/x","cwd":"~\\u0000","autoApprove":["*"],"trust":true}}}}',
    b'{"mcpServers":{"a":{"command":"x","garrison":{"network":true,"auth":"oauth"},"disabled":false,"\\u202e":1}}}',
    b'{"mcpServers":{"a":{"command":"x","env":{"A":"${credential:fuzzed}","B":"${env:NONE:-$K}","C":"${HOME}"}}}}',
)
WORDS = (
    *b"[servers.a] [host] [[rules]] [servers.a.tools] command= env={ from= url= token= headers={".split(),
    *b'auth= type= tls={ ca= "env:FUZZED" "file:secret" "credential:fuzzed" "oauth"'.split(),
    *b'"client-credentials" client_id= secret= key= cwd= read=[ labels=[ memory= timeout= nan inf'.split(),
    *b'1e400 0xff 2030-01-01 07:32:00 true false \\u0000 \\u202e \'\' """ ~ ~x $K {"mcpServers":'.split(),
    *b'{"servers": "command": "args": "env": "headers": "Authorization": "Bearer "url": "type":'.split(),
    *b'"garrison": "disabled": "autoApprove": "cwd": ${env: ${file: ${credential:'.split(),
    *b'${workspaceFolder} ${input: :- } action="allow" action="deny" server= tool= arguments={'.split(),
    *b'until= default="ask" "https://a/** ** roots=["."]'.split(),
)
_SHOWN = "shown: "
_ELSEWHERE = re.compile(rf"\A{_SHOWN}|\$\{{(?:(?!:-)[^}}])*{_KEY}")
"""A key where everything is shown, or as the name in a reference."""
_ALONE = re.compile(rf"(?:(?<![\w-])|(?<=:-)){_KEY}(?![\w-])")
"""A key that is not a part of another word, as redaction sees it."""


@cache
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _write(folder, "secret", _HAD.encode())
    return folder


@cache
def _store() -> MemoryStore:
    store = MemoryStore()
    keep_secret("fuzzed", Secret(_HAD), store)
    return store


def _write(folder: str, name: str, data: bytes) -> str:
    path = os.path.join(folder, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    return path


def check(data: bytes) -> None:
    data = data.replace(b"$K", _KEY.encode())
    path = _write(_folder(), "host", data)
    found = [text for text in standing(data) if _KEY in text]
    shielded = not any(map(_ELSEWHERE.search, found))
    alone = shielded and not any(_KEY in _ALONE.sub("", text) for text in found)
    with patch.dict(os.environ, {"FUZZED": _HAD, "HOME": _folder(), "XDG_CONFIG_HOME": _folder() + "/none"}):
        state = MemoryState()
        config = read(path, state, shielded)
        lines = listed(path, data, alone)
        hold(config is None or lines is not None, "what is read cannot be shown")
        if config is not None:
            checked(config, shielded)
            question = config.question
            hold(question is not None and not question.changed, "believed unasked")
            agree("asked once", (config.trust(), untrusted(path, data, state))[1], None)
            agree("the next time", read_config(path, state=state, store=_store()).question, None)
            again = untrusted(path, data + b"\n", state)
            hold(again is not None and again.changed, "believed after a change")


def read(path: str, state: MemoryState, shielded: bool) -> HostConfig | None:
    """A configuration, or None after an error that says which file it is about."""
    try:
        return read_config(path, state=state, store=_store())
    except GarrisonError as error:
        text = str(error)
        unseen(text, shielded)
        hold(path in text or not isinstance(error, ConfigurationError), "which file", text)
        return None


def listed(path: str, data: bytes, shielded: bool) -> tuple[str, ...] | None:
    """What somebody is shown, each on a line; None after an error."""
    try:
        lines = lines_of(path, data)
    except ConfigurationError as error:
        unseen(str(error), shielded)
        return None
    unseen("\n".join(lines), shielded)
    for line in lines:
        hold(line.isprintable(), "not on a line", line)
    return lines


def checked(config: HostConfig, shielded: bool) -> None:
    """Of servers that their classes know, under names that are aliases, with secrets that print as masks."""
    for alias, server in config.servers.items():
        check_alias(alias)
        hold(type(server) in (LocalServer, RemoteServer), "of another class", server)
    unseen(repr(replace(config, question=None)), shielded)
    unseen(repr(config.options()), shielded)
    unseen("\n".join(config.notices), shielded)


def unseen(text: str, shielded: bool) -> None:
    """No secret is in a text: neither one that a reference led to nor, where it is nowhere else, one of the file."""
    hold(_HAD not in text, "what a reference led to is shown", text)
    hold(not shielded or _KEY not in text, "a key is shown", text)


def standing(data: bytes) -> list[str]:
    """The texts of a file: those in the place of secrets as they are, all others behind the mark of what is shown."""
    try:
        return [*texts(json.loads(data) if data.lstrip()[:1] == b"{" else tomllib.loads(data.decode()), ())]
    except (ValueError, RecursionError):
        return [_SHOWN + data.decode(errors="replace")]


def texts(value: object, path: tuple[str, ...]) -> Iterator[str]:
    """Those of a value; `servers.ALIAS.env.NAME` is a place of secrets."""
    if isinstance(value, str):
        secret = len(path) == 4 and path[0] in ("servers", "mcpServers") and path[2] in ("env", "headers")
        yield value if secret else _SHOWN + value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield _SHOWN + name
            yield from texts(each, (*path, name))
    elif isinstance(value, list):
        for each in value:
            yield from texts(each, (*path, ""))
