"""The fuzzers, in short: every kept input is given to its target, the oracles notice a broken parser, and targets run
under coverage for a moment. `python -m fuzz` runs them for long; see fuzz/README.md."""

from __future__ import annotations

import html
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from fuzz import engine
from fuzz.oracle import Finding
from garrison.errors import GarrisonError

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {
    *(
        "duplex",
        "edge",
        "envelope",
        "headers",
        "heads",
        "json",
        "lines",
        "mirrors",
        "proxies",
        "response",
        "sealed",
        "sse",
    ),
    *("challenge", "documents", "dpop", "jwt", "redirect"),
    *("definitions", "differences", "host_config", "patterns"),
    *("archives", "audit", "commands", "paths", "redactor", "sanitiser", "sql", "templates"),
    *("upgrade", "uri", "uritemplate", "websocket", "websocket_client"),
}


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: libFuzzer ends it, and the targets leave traces in what the package remembers."""
    command = [sys.executable, "-m", "fuzz", *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50)


def test_nobody_has_lost_a_target() -> None:
    assert set(engine.names()) == TARGETS


def test_every_kept_input_is_stood() -> None:
    done = fuzz("all", "--replay")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {
        name: (int(count), int(bad)) for name, count, bad in re.findall(r"(\w+): (\d+) inputs, (\d+) bad", done.stdout)
    }
    assert counts.keys() == TARGETS
    assert all(count > 8 and not bad for count, bad in counts.values()), counts


def test_what_is_kept_is_small() -> None:
    for name in TARGETS:
        kept = engine.corpus(name)
        assert 0 < len(kept) <= engine.KEPT, name
        assert max(path.stat().st_size for path in kept) <= engine.LONGEST, name


@pytest.mark.parametrize(
    ("name", "attribute", "broken"),
    [
        ("json", "_decoders", lambda decoders: [(limits, json.loads) for limits, _ in decoders]),
        ("json", "encode", lambda encode: lambda value: b"null"),
        ("envelope", "parse_message", lambda parse: _with_integers(parse)),
        ("lines", "LineReader", lambda reader: _without_carriage_returns(reader)),
        ("sse", "encode_event", lambda encode: lambda data, **fields: b"data: %b\r\n\r\n" % data),
        ("headers", "decode_value", lambda decode: lambda text: text),
        ("headers", "encode_value", lambda encode: lambda value: value),
        ("mirrors", "check_params", lambda check: lambda mirrors, arguments, get: None),
        ("uri", "percent_decode", lambda decode: lambda text: text),
        ("uritemplate", "is_uri_text", lambda ask: lambda text: False),
        ("proxies", "_proxies.client", lambda client: lambda fields, proxy: str(fields).partition(",")[0]),
        ("sealed", "Sealer.open", lambda opened: lambda self, purpose, token, **more: b""),
        ("upgrade", "accept", lambda accept: lambda head, config: b"sec-websocket-accept: x\r\n"),
        ("edge", "talk", lambda talk: _one_byte_less(talk)),
        ("heads", "KnownHeads.match", lambda match: _any_length(match)),
        ("response", "Connection.on_body", lambda take: lambda self, data: None),
        ("websocket", "LIMITS", lambda limits: replace(limits, message_bytes=131)),
        ("websocket", "LIMITS", lambda limits: replace(limits, fragments=5)),
        ("websocket_client", "WebSocketConnection._deliver", lambda take: lambda self, text: self._on_text(text)),
        ("duplex", "DuplexConnection._refuse", lambda refuse: lambda self, error, send: None),
        ("challenge", "WwwAuthenticate.parse", lambda parse: lambda *values: parse(values[0])),
        ("challenge", "WwwAuthenticate.__str__", lambda write: lambda self: write(self).replace('\\"', '"')),
        ("jwt", "_keys.current", lambda current: lambda now: _believing(current(now))),
        ("jwt", "_strict._rules", lambda rules: replace(rules, tenant_claim=None)),
        ("jwt", "_verifier._rules", lambda rules: replace(rules, audience=frozenset())),
        ("dpop", "ProofVerifier._claims", lambda claims: lambda self, given, *more: (given.get("jti", "1"), 1e6)),
        ("dpop", "verifier", lambda make: _forgetful(make)),
        ("redirect", "Attempt._used", lambda used: property(lambda self: False, lambda self, value: None)),
        ("redirect", "Attempt.take", lambda take: lambda self, query: take(self, _once(query))),
        ("redirect", "_SAID", lambda said: {**said, "iss": "It was https://evil.example"}),
        (
            "documents",
            "ProtectedResourceMetadata.read",
            lambda read: lambda data, asked: read(data, _named(data, asked)),
        ),
        (
            "documents",
            "KeySet.read",
            lambda read: lambda data, algorithms: read(data.replace(b"oct", b"x").replace(b'"k"', b'"K"'), algorithms),
        ),
        (
            "documents",
            "TokenEndpoint._failure",
            lambda fail: lambda self, answer, sent, what: fail(self, answer, set(), what),
        ),
        ("documents", "SealedFile.get", lambda get: lambda self, key: b"value of 0"),
        ("archives", "SafeArchive.read_all", lambda read: lambda self: dict(list(read(self).items())[1:])),
        ("audit", "encode", lambda encode: msgspec.json.encode),
        ("audit", "read_line", lambda read: lambda line: read(line.replace(b'"text"', b'"error"'))),
        ("paths", "Glob.is_match", lambda ask: lambda self, state: bool(state)),
        ("paths", "broken_rule", lambda rule: lambda text: rule(text.replace("..", "x"))),
        ("redactor", "redact", lambda redact: lambda text: text),
        ("sanitiser", "visible", lambda visible: lambda text: text),
        ("sql", "Checker.check", lambda check: lambda self, text: SimpleNamespace(text=text)),
        ("definitions", "scan", lambda scan: lambda definition, **more: scan({**definition, "zz": ""}, **more)),
        ("definitions", "check_names", lambda check: lambda tools: check(tools)._replace(refused={})),
        ("differences", "canonical", lambda canonical: lambda value: json.dumps(value).encode()),
        ("differences", "difference", lambda difference: lambda old, new: difference(old, new)[1:]),
        ("differences", "definition_digest", lambda digest: lambda value, instructions: digest({}, instructions)),
        ("host_config", "read_config", lambda read: lambda path, **more: replace(read(path, **more), question=None)),
        ("host_config", "lines_of", lambda lines: lambda path, data: (lines(path, data) and ascii(data),)),
        ("patterns", "ArgumentPattern.surely", lambda surely: lambda self, arguments: self.perhaps(arguments)),
        ("patterns", "ArgumentPattern.perhaps", lambda perhaps: lambda self, arguments: self.surely(arguments)),
        ("templates", "SafeTemplate.render", lambda render: lambda self, **v: html.unescape(render(self, **v))),
    ],
)
def test_the_oracle_notices(
    name: str, attribute: str, broken: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.events._seen", {})
    module: Any = importlib.import_module(f"fuzz.targets.{name}")
    inputs = [data for _, data in engine.inputs(name)]
    assert not any(wrong(module, data) for data in inputs)
    *path, last = attribute.split(".")
    where: Any = module
    for part in path:
        where = getattr(where, part)
    monkeypatch.setattr(where, last, broken(getattr(where, last)))
    assert any(wrong(module, data) for data in inputs)


def wrong(target: Any, data: bytes) -> bool:
    """True if the target does not stand an input."""
    try:
        target.check(data)
    except (Finding, GarrisonError, ValueError, TypeError, KeyError):
        return True
    return False


def _with_integers(parse: Any) -> Any:
    """Takes 1.0 for an id."""

    def lax(value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("id"), float):
            value = {**value, "id": int(value["id"])}
        return parse(value)

    return lax


def _without_carriage_returns(reader: Any) -> Any:
    """Leaves a CR where a chunk ends with it."""

    class Broken:
        def __init__(self, limit: int) -> None:
            self._reader = reader(limit)
            self._tail = b""

        def feed(self, chunk: bytes) -> Any:
            return self._reader.feed(chunk.removesuffix(b"\r"))

        def close(self) -> Any:
            return self._reader.close()

    return Broken


def _one_byte_less(talk: Any) -> Any:
    """Loses the last byte of what comes in more than one piece."""

    def broken(here: Any, chunks: list[bytes], **more: Any) -> Any:
        return talk(here, [*chunks[:-1], chunks[-1][:-1]] if len(chunks) > 1 else chunks, **more)

    return broken


def _any_length(match: Any) -> Any:
    """Known heads that do not ask whether the body is complete."""

    def lax(self: Any, data: bytes) -> Any:
        end = data.find(b"\r\n\r\n")
        known = self._whole.get(data[:end]) or self._assemble(data[:end])
        return None if end < 0 or known is None else (known[0], data[end + 4 :])

    return lax


def _believing(keys: Any) -> Any:
    """Keys that verify whatever they are shown."""
    return SimpleNamespace(named=keys.named, find=lambda kid, algorithm: lambda signed, signature: True)


def _forgetful(make: Any) -> Any:
    """Verifiers of proofs that remember none."""

    def forgetting(**more: Any) -> Any:
        return SimpleNamespace(
            nonces=make(**more).nonces, check=lambda *one, **other: make(**more).check(*one, **other)
        )

    return forgetting


def _once(query: str) -> str:
    """A query without what stands twice in it."""
    return "&".join(dict.fromkeys(query.split("&")))


def _named(data: bytes, asked: str) -> str:
    """The resource that a document names, whatever was asked for."""
    try:
        return json.loads(data)["resource"]
    except (ValueError, TypeError, KeyError):
        return asked


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no build for this Python")
@pytest.mark.parametrize("name", ["envelope", "duplex"])
def test_a_target_runs_for_a_moment(name: str, tmp_path: Path) -> None:
    """One without a loop and one with; `python -m fuzz all` runs each."""
    done = fuzz(name, "--seconds", "1", "--runs", "300", "--into", str(tmp_path))
    assert done.returncode == 0 and "Done " in done.stderr, done.stdout + done.stderr
    assert list((tmp_path / "found").iterdir()) == []
