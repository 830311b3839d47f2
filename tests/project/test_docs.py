"""The documentation says what is so: examples run, and tables equal the live objects.

The examples of a page run in order and share their names and an empty folder, as a reader would type them: `python`
blocks in this process, `sh` blocks with bash. `Server.run` returns at once. An example that cannot run here has
`<!-- not run: reason -->` on the line above its fence; Python must still compile.

Every limit and time-out stands in docs/limits.md with its default, beside the secure defaults, and every rate in
docs/rate-limits.md; every security event stands in docs/threats.md. So do the settings of a host on its pages.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from garrison import (
    Client,
    InsecureConfigurationError,
    Limits,
    Rate,
    Rates,
    SecurityPolicy,
    Server,
    Timeouts,
    TlsClientConfig,
    TlsServerConfig,
    UnixSocketConfig,
    WebSocketConfig,
    events,
)
from garrison.cli.checkup import Listener, Tls, WebSocket
from garrison.cli.protection import Protection
from garrison.client.launching import Launch
from garrison.host import Host, LocalServer, Rule, SamplingBudget
from tests.attacks.catalogue import CASES
from tests.policy.applied.case import default_of, names_of
from tests.support.certs import Authority
from tests.transports.asgi import ask, scope

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "garrison"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROSE = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>python|sh)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: *(?P<reason>.*?) *-->\s*\Z")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
ROW = re.compile(r"^\| (?P<first>[^|]+?) +\| (?P<second>[^|]+?) +\|", re.MULTILINE)


class Example(NamedTuple):
    line: int
    kind: str
    code: str
    reason: str | None
    """Why it is not run; None when it is."""


def examples(text: str) -> list[Example]:
    found: list[Example] = []
    for match in FENCE.finditer(text):
        indent = len(match["indent"])
        code = "".join(line[indent:] if line.strip() else "\n" for line in match["code"].splitlines(keepends=True))
        mark = NOT_RUN.search(text, 0, match.start())
        line = text.count("\n", 0, match.start()) + 1
        found.append(Example(line, match["kind"], code, mark["reason"] if mark else None))
    return found


def run_examples(text: str, name: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "__main__"}
    security = logging.getLogger("garrison.security")
    handlers = list(security.handlers)
    try:
        _run(examples(text), name, names)
    finally:  # what an example set up for its program is nothing to the other tests
        security.handlers[:] = handlers
    return names


def _run(found: list[Example], name: str, names: dict[str, object]) -> None:
    for example in found:
        code = (
            compile("\n" * example.line + example.code, name, "exec", dont_inherit=True) if is_python(example) else ""
        )
        if example.reason is not None:
            assert len(example.reason) >= 10, f"{name}:{example.line}: say why it is not run"
        elif is_python(example):
            exec(code, names)
        else:
            run_shell(example.code, f"{name}:{example.line}")


def is_python(example: Example) -> bool:
    return example.kind == "python"


def run_shell(code: str, name: str) -> None:
    """A block of commands, as bash runs it in this folder; `garrison` and `python` are those of the tests."""
    first = code.split()[0]
    if shutil.which(first) is None:
        pytest.skip(f"{name}: {first} is not installed")
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, f"{name}: {done.stderr}"


@pytest.fixture
def no_blocking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Server, "run", lambda self, *args, **kwargs: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who listens on a page listens no longer than that."""
    monkeypatch.setattr(events, "_listeners", events._listeners)


@pytest.mark.usefixtures("no_blocking", "unheard")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path) -> None:
    run_examples(page.read_text(encoding="utf-8"), str(page))


@pytest.mark.usefixtures("no_blocking")
async def test_the_first_example_is_ten_lines_and_answers() -> None:
    first = examples((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    assert first.reason is None and len(first.code.splitlines()) == 10
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(first.code, "README.md", "exec", dont_inherit=True), names)
    server = names["server"]
    assert isinstance(server, Server)
    async with Client(server) as client:
        result = await client.call_tool("add", {"a": 19, "b": 23})
    assert result.structured_content == {"result": 42}


def test_an_example_that_fails_is_reported_with_its_line() -> None:
    page = "text\n\n```python\nx = 1\n```\n\n```python\nassert x == 1\nraise KeyError\n```\n"
    with pytest.raises(KeyError) as caught:
        run_examples(page, "page.md")
    assert caught.traceback[-1].lineno == 8  # counted from 0


@pytest.mark.usefixtures("no_blocking")
def test_commands_run_in_the_folder_of_the_page() -> None:
    page = "```sh\necho 7 > written\n```\n\n```python\nfrom pathlib import Path\nx = Path('written').read_text()\n```\n"
    assert run_examples(page, "page.md")["x"] == "7\n"
    for failing in ("false | cat", "false\ntrue"):
        with pytest.raises(AssertionError, match=r"page\.md:1"):
            run_examples(f"```sh\n{failing}\n```\n", "page.md")


def test_an_example_may_be_left_out_with_a_reason_only() -> None:
    page = "<!-- not run: needs a listener on port 8000 -->\n```python\nraise KeyError\n```\n"
    assert "x" not in run_examples(page, "page.md")
    with pytest.raises(AssertionError, match="say why"):
        run_examples(page.replace("needs a listener on port 8000", ""), "page.md")
    with pytest.raises(SyntaxError):
        run_examples(page.replace("raise", "raise raise"), "page.md")


@pytest.mark.usefixtures("no_blocking")
def test_a_mounted_protected_server_has_its_metadata_where_clients_look() -> None:
    names: Any = run_examples((ROOT / "docs" / "asgi.md").read_text(encoding="utf-8"), "asgi.md")
    where = urlsplit(names["guarded"].auth.metadata_url).path

    async def statuses(*paths: str) -> list[int]:
        async with names["notes"]:
            asked = [scope("127.0.0.1:8000", ("127.0.0.1", 8000), method="GET", path=path) for path in paths]
            return [await ask(names["protected"], each) for each in asked]

    assert asyncio.run(statuses(where, "/tools/mcp", where + "/x")) == [200, 401, 404]


# Links


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_every_link_to_another_page_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other.read_text(encoding="utf-8")), target


def test_every_page_is_reached_from_the_readme() -> None:
    found: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.suffix == ".md" and page not in found:
            found.add(page)
            targets = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
            waiting += [(page.parent / target.partition("#")[0]).resolve() for target in targets if "://" not in target]
    assert set(PROSE) <= found


# Tables


def table(page: str, heading: str) -> list[tuple[str, str]]:
    """The first two cells of each row of a section's table, without its head."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = text.split(f"\n{heading}\n")[1].split("\n## ")[0]
    return ROW.findall(section)[1:]


def shown(name: str, value: float) -> str:
    """A default as the tables write it."""
    if not name.endswith("_bytes"):
        return f"{value:,}" if isinstance(value, int) else f"{value:g} s"
    mebibytes, rest = divmod(value, 1024 * 1024)
    return f"{value / 1024:g} KiB" if rest else f"{mebibytes:g} MiB"


@pytest.mark.parametrize(("heading", "kind"), [("## Limits", Limits), ("## Time-outs", Timeouts)])
def test_every_limit_and_time_out_is_documented_with_its_default(heading: str, kind: type[Limits | Timeouts]) -> None:
    values = kind()
    expected = [(f"`{field.name}`", shown(field.name, getattr(values, field.name))) for field in fields(kind)]
    assert table("limits.md", heading) == expected


def shown_rate(rate: Rate | int | None) -> str:
    """A default as the table of rates writes it."""
    if isinstance(rate, int):
        return f"{rate:,}"
    if rate is None:
        return "none"
    if rate.per_second < 1:
        return f"{rate.per_second * 60:g} a minute, {rate.burst} at once"
    if rate.burst >= 1024 * 1024:
        return f"{rate.per_second / 1024:g} KiB a second, {rate.burst / 1024 / 1024:g} MiB at once"
    return f"{rate.per_second:g} a second, {rate.burst} at once"


def test_every_rate_is_documented_with_its_defaults() -> None:
    text = (ROOT / "docs" / "rate-limits.md").read_text(encoding="utf-8")
    cells = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ", text.split("| counts |\n")[1].split("\n\n")[0], re.MULTILINE
    )
    usual, public = Rates(), Rates.public()
    names = [field.name for field in fields(Rates)]
    assert cells == [(name, shown_rate(getattr(usual, name)), shown_rate(getattr(public, name))) for name in names]


def test_every_field_of_the_policy_is_documented() -> None:
    named = [name for first, _ in table("configuration.md", "## In code") for name in re.findall(r"`(\w+)`", first)]
    presets = {"strict", "compat", "conformance"}
    assert sorted(set(named) - presets) == sorted(field.name for field in fields(SecurityPolicy))


def rows_of(page: str, heading: str) -> dict[str, str]:
    """The settings that a section's tables name, each with the text of the second column."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").split(f"\n{heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ?([^|]*?) ?\|", text, re.MULTILINE)
    return {name: second for first, second in rows for name in re.findall(r"`(\w+)`", first)}


def number(text: str) -> float | None:
    """The number that a cell of a table begins with or ends with; None where there is none."""
    match = re.search(r"(\d[\d, ]*)( [KMG]iB)?(?: s)?$", text)
    sizes = {None: 1, " KiB": 1024, " MiB": 1024**2, " GiB": 1024**3}
    return float(re.sub("[, ]", "", match[1])) * sizes[match[2]] if match else None


@pytest.mark.parametrize(
    ("page", "heading", "kind", "unsaid"),
    [
        ("host.md", "## Servers", LocalServer, ()),
        ("host.md", "## Settings", Host, ("servers",)),
        ("approvals.md", "## Rules", Rule, ()),
        ("host-questions.md", "## A language model for servers", SamplingBudget, ()),
        ("sandboxing.md", "## `Launch`", Launch, ("name", "program")),  # for a host, which knows both
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_setting_of_a_host_is_documented_with_its_default(
    page: str, heading: str, kind: Any, unsaid: tuple[str, ...]
) -> None:
    settings = names_of(kind)
    told = rows_of(page, heading)
    assert sorted(told) == sorted(set(settings) - set(unsaid))
    for name, text in told.items():
        value = None if text in ("needed", "") else default_of(kind, name)
        assert type(value) not in (int, float) or number(text) == value, f"{name}: {text}"


def default(function: Any, name: str) -> Any:
    return inspect.signature(function).parameters[name].default


async def as_tools() -> tuple[bool, bool, bool]:
    """Whether a tool refuses an unknown argument, takes a text for a number, and asks before it destroys."""
    server = Server("x")
    server.add_tool(len_of, "take")
    server.add_tool(len_of, "wipe", destructive=True)
    async with Client(server) as client:
        closed = await client.call_tool("take", {"n": 1, "m": 1})
        text = await client.call_tool("take", {"n": "1"})
    return bool(closed.is_error), not text.is_error, server.registry.tools["wipe"].asks


def len_of(n: int) -> int:
    return n


def test_the_secure_defaults_are_those_of_live_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from garrison.transports.tls import client_context, server_context

    monkeypatch.delenv("GARRISON_TOKEN", raising=False)
    policy, limits, timeouts = SecurityPolicy(), Limits(), Timeouts()
    serving, again = Server("x").http(), Server("x").http()
    leaf = Authority(tmp_path).leaf()
    at_server = server_context(TlsServerConfig(certificate=leaf.certificate, key=leaf.key))
    at_client = client_context(TlsClientConfig(ca=leaf.certificate))
    both = (at_server, at_client)
    older = {cipher["name"] for context in both for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"}
    rows = dict(table("limits.md", "## Secure defaults"))

    def held(what: str, says: str, so: bool) -> None:
        assert rows.pop(what) == says
        assert so, what

    host = default(Server.run_http, "host")
    held("address", host, host == serving._host)
    token = serving.token or ""
    new = serving.token_is_new and len(token) == 43 and token != again.token
    held("bearer token", "asked for; a new one of 256 bits at each start", new)
    held("Host", "loopback names with the listener's port", policy.allowed_hosts == () and policy.public_url == "")
    held("Origin", "the listener's own", policy.allowed_origins == ())
    held("trusted proxies", "none", policy.trusted_proxies == ())
    held("plain http and ws to other machines", "refused at both ends", policy.allow_insecure_http_hosts == {})
    with pytest.raises(InsecureConfigurationError):
        Server("x").http("0.0.0.0", token="t" * 16)
    least = {context.minimum_version for context in both}
    held("TLS, oldest version", default(TlsServerConfig, "minimum"), least == {ssl.TLSVersion.TLSv1_2})
    good = re.compile(r"ECDHE-(RSA|ECDSA)-(AES(128|256)-GCM-SHA\d+|CHACHA20-POLY1305)")
    suites = bool(older) and all(good.fullmatch(name) for name in older)
    held("TLS 1.2 cipher suites", "ECDHE with AES-GCM or ChaCha20", suites)
    verified = at_client.verify_mode is ssl.CERT_REQUIRED and at_client.check_hostname
    held("the server's certificate and its name", "verified", verified)
    held("message size", shown("message_bytes", limits.message_bytes), WebSocketConfig().max_message_size is None)
    rates = policy.rates.principal
    calls = f"{rates.per_second:g} a second, {rates.burst} at once"
    held("how often one principal may call over a network", calls, True)
    bounds = f"{limits.argument_chars:,} code points, {limits.argument_items:,} items"
    held("texts and arrays of arguments without a bound of their own", bounds, True)
    closed, coerced, confirmed = asyncio.run(as_tools())
    held("unknown arguments, and text for numbers", "refused", closed and not coerced)
    held("control and invisible characters in what leaves", "written out", policy.hygiene == "visible")
    held("what looks like a key, in errors and logs", "masked", not policy.redact_results)
    held("a tool that destroys something", "confirmed by who asked", confirmed)
    held("one run of a handler", shown("handler", timeouts.handler), True)
    patience = f"{shown('request', timeouts.request)}, with progress {shown('request_max', timeouts.request_max)}"
    held("a client's request", patience, default(Client.__init__, "timeout") is None)
    held("duplicate keys, unknown members, other departures", "refused", policy.tolerate == ())
    off = serving.websocket is None and not WebSocketConfig().compression
    held("WebSocket", "not served; without compression", off)
    held("HTTP+SSE of 2024-11-05", "not served", not Server("x").http_sse)
    held("Unix socket, mode", f"{UnixSocketConfig('/x').mode:04o}", True)
    texts = (".py", ".pyc", ".typed", ".md", ".txt")
    foreign = [path for path in SOURCES.rglob("*") if path.is_file() and path.suffix not in texts]
    held("native code of its own", "none", foreign == [])
    assert rows == {}, "rows that nothing is held against"


def event_names() -> set[str]:
    """Every name that the sources give an event: what `record` is called with, what `_replace(name=)` says, and what
    stands in an `event` of an error or in a variable of that kind.
    """
    names: set[str] = set()
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for value in _naming(node):
                for part in ast.walk(value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        names.add(part.value)
    return {name for name in names if re.fullmatch(r"[a-z]+\.[a-z_]+", name)}


def _naming(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions in which a piece of source names an event."""
    match node:
        case ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called)):
            if node.args and called in ("record", "_record", "_count"):
                yield node.args[0]
            if called == "_replace":
                yield from (keyword.value for keyword in node.keywords if keyword.arg == "name")
        case ast.AnnAssign(target=ast.Name(id="event" | "_EVENTS"), value=ast.expr() as value):
            yield value
        case ast.Assign(targets=[ast.Name(id="event" | "_EVENTS")]):
            yield node.value
        case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id="name"), *_])], value=ast.Tuple(elts=[name, *_])):
            yield name
        case _:
            pass


def test_every_security_event_is_documented() -> None:
    names = event_names()
    assert {"host.refused", "tls.reloaded", "message.malformed", "limit.reached", "call.ended", "sql.refused"} <= names
    assert [first.strip("`") for first, _ in table("threats.md", "## Security events")] == sorted(names)
    assert set(re.findall(r"`([a-z]+\.[a-z_]+)`", (events.__doc__ or "").partition("Names:")[2])) == names


def test_everything_that_the_doctor_says_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    members, kinds = text.split("\n| member | content |\n")[1].split("\n| kind of finding | when |\n")
    found: set[str] = set()
    for name in ("checkup.py", "protection.py"):
        for node in ast.walk(ast.parse((SOURCES / "cli" / name).read_text(encoding="utf-8"))):
            parts = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
            match parts:  # level, kind and text
                case [ast.Constant(value="warning" | "note"), ast.Constant(value=str(kind)), _]:
                    found.add(kind)
                case _:
                    pass
    named = [name for first, _ in ROW.findall(kinds) for name in re.findall(r"`([a-z_]+)`", first)]
    assert {"limit", "undeclared"} <= found and sorted(named) == sorted(found)
    rows = dict(ROW.findall(members))
    told = {name: re.findall(r"`([a-z_]+)`", rows[f"`{name}`"]) for name in ("listener", "protection")}
    assert sorted(told["listener"]) == sorted(
        field.name for kind in (Listener, WebSocket, Tls) for field in fields(kind)
    )
    assert told["protection"] == [field.name for field in fields(Protection)]


def test_every_attack_that_a_page_names_is_in_the_catalogue() -> None:
    known = {case.id for case in CASES}
    named = {number for page in PROSE for number in re.findall(r"ATK-\d+", page.read_text(encoding="utf-8"))}
    assert named and named <= known, named - known
    assert f"{len(CASES)} attacks" in (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
