"""Arguments and URIs that are not what a tool or template says: refused before any handler runs, on every transport.

Rules of this file:
- An input is the text that is sent. `args` is the JSON of arguments, `uri` a resource's URI.
- Refused: the dispatch log is as it was, nothing of the input is repeated, and others are served.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import pytest

from garrison import RegistrationError, Server
from tests.attacks.app.sut import CANARY, DOORS, Sut, answered
from tests.support.everywhere import META, Door, call, door
from tests.support.mcp import peer

pytestmark = pytest.mark.app

TELLTALES = ("Traceback", "http://", "https://", "site-packages", "msgspec", ".py", "/tmp/", "/home/")


def args(tool: str, given: str) -> str:
    """A call of a tool."""
    return call(tool, given, "7")


def uri(text: str) -> str:
    """A resource is read."""
    return (
        f'{{"jsonrpc":"2.0","id":7,"method":"resources/read","params":{{"uri":{json.dumps(text)},"_meta":{{{META}}}}}}}'
    )


def archive(name: str) -> str:
    """A tar file with one member."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    return base64.b64encode(made.getvalue()).decode()


class Attack(NamedTuple):
    """A row of the catalogue."""

    id: str
    inputs: list[str]
    twins: list[tuple[str, str]]
    """What is served, and the line of it in the dispatch log."""
    word: str = "failed"
    """The verdict on each input."""


ADDED = (args("add", '{"a":1,"b":2}'), "add")
SCALED = (args("scale", '{"x":12}'), "scale")
ECHOED = (args("echo", '{"text":"x"}'), "echo")
KEYS = ("__proto__", "__class__", "self", "ctx", "cls", "return", "constructor", "**kwargs")
ATTACKS = [
    Attack(
        "ATK-115",
        [
            args("add", '{"a":"1","b":true}'), args("add", '{"a":"1","b":2}'), args("add", '{"a":1,"b":true}'),
            args("add", '{"a":1.5,"b":2}'), args("add", '{"a":null,"b":2}'), args("add", '{"a":[1],"b":2}'),
            args("add", '{"a":1}'), args("scale", '{"x":"12"}'), args("scale", '{"x":false}'),
            args("echo", '{"text":1}'), args("echo", '{"text":null}'), args("echo", "{}"),
            args("total", '{"numbers":"1,2"}'), args("total", '{"numbers":{"0":1}}'),
            args("total", '{"numbers":["1"]}'),
            args("total", '{"numbers":[1],"note":{"k":1}}'),
        ],
        [ADDED, SCALED, ECHOED, (args("total", '{"numbers":[1,2],"note":{"k":"v"}}'), "total")],
    ),
    Attack(
        "ATK-116", [args("echo", '{"text":"x","admin":true}'), args("total", '{"numbers":[],"Numbers":[]}')], [ECHOED]
    ),
    Attack(
        "ATK-117",
        [args("scale", f'{{"x":1,{json.dumps(key)}:{value}}}') for key in KEYS for value in ("{}", '"root"', "null")],
        [SCALED],
    ),
    Attack(
        "ATK-118",
        [
            args("add", f'{{"a":"{CANARY}","b":2}}'), args("total", f'{{"numbers":["{CANARY}"]}}'),
            args("total", f'{{"numbers":[1],"note":{{"k":["{CANARY}"]}}}}'),
            args("scale", f'{{"x":{{"v":"{CANARY}"}}}}'),
            args("decode", f'{{"kind":"{CANARY}","data":"x"}}'), args("doc", f'{{"path":"../{CANARY}"}}'),
            args("page", f'{{"url":"gopher://{CANARY}/"}}'),
        ],
        [ADDED, (args("doc", '{"path":"a.txt"}'), "doc")],
    ),
    Attack(
        "ATK-127",
        [
            uri("db://users/1/../../x"), uri("db://a%2fb/c"), uri("db://users/1/2"), uri("db://users/1/"),
            uri("db://users//1"), uri("db://users/"), uri("db://keys/1"), uri("db://users%2f1/x"), uri("db://users/1?x=1"),
            uri("db://users/1#x"), uri("db:///users/1"),
        ],
        [(uri("db://users/1"), "row"), (uri("db://orders/7"), "row")],
        "-32602",
    ),
    Attack(
        "ATK-129",
        [
            uri("file://evil@host/x"), uri("file:///a\\b"), uri("file:///a\tb"), uri("file:///a\nb"), uri("FiLe:///a.txt"),
            uri("gopher://x/y"), uri("http://127.0.0.1/"), uri("javascript:alert(1)"), uri("file:///a b"), uri(""),
            uri("/"),
            uri("file:a.txt"),
        ],
        [(uri("file:///a.txt"), "file")],
        "-32602",
    ),
    Attack(
        "ATK-149",
        [
            args("echo", json.dumps({"text": "x" * 65_537})), args("echo", json.dumps({"text": "\u00e9" * 65_537})),
            args("total", json.dumps({"numbers": [0] * 1001})),
            args("total", json.dumps({"numbers": [], "note": {"k": "x" * 65_537}})),
        ],
        [
            (args("echo", json.dumps({"text": "x" * 65_536})), "echo"),
            (args("total", json.dumps({"numbers": [0] * 1000})), "total"),
        ],
    ),
]  # fmt: skip


async def alive(at: Door, sut: Sut) -> None:
    """Somebody else is served."""
    sut.ran.clear()
    assert (await answered(at, args("echo", '{"text":"alive"}'))).word == "answered"
    assert sut.ran == ["echo"]


@pytest.mark.parametrize(
    ("attack", "kind"),
    [
        pytest.param(attack, kind, id=f"{attack.id}-{kind}", marks=pytest.mark.attack(attack.id))
        for attack in ATTACKS
        for kind in DOORS
    ],
)
async def test_no_handler_sees_it(attack: Attack, kind: str, tmp_path: Path) -> None:
    sut = Sut(tmp_path)
    async with door(kind, sut.server) as at:
        for text in attack.inputs:
            answer = await answered(at, text)
            # Before 2026-07-28 what is not found has a code of its own.
            word = "-32002" if kind == "session" and attack.word == "-32602" else attack.word
            assert answer.word == word, (text[:120], answer)
            assert answer.json["id"] == 7
            told = answer.data.decode()
            assert CANARY not in told, text[:120]
            if attack.word == "failed":
                assert not [each for each in TELLTALES if each in told], told[:200]
            assert sut.ran == [], text[:120]
        for text, ran in attack.twins:
            answer = await answered(at, text)
            assert (answer.word, sut.ran) == ("answered", [ran]), (text[:120], answer.data[:300])
            sut.ran.clear()
        await alive(at, sut)


@pytest.mark.attack("ATK-115", transports=DOORS)
@pytest.mark.parametrize("kind", DOORS)
async def test_a_float_is_no_integer_and_no_text_is_a_number(kind: str, tmp_path: Path) -> None:
    """1.0 is an integer to JSON Schema; a handler that says `int` gets an int or is not run."""
    kinds: list[type] = []
    sut = Sut(tmp_path)

    @sut.server.tool()
    def typed(a: int) -> str:
        kinds.append(type(a))
        return "x"

    async with door(kind, sut.server) as at:
        for number in ("1.0", "1e0", "-0.0"):
            await answered(at, args("typed", f'{{"a":{number}}}'))
        assert set(kinds) <= {int}
        assert (await answered(at, args("typed", '{"a":1}'))).word == "answered"
        assert kinds[-1] is int


@pytest.mark.attack("ATK-123", transports=DOORS)
@pytest.mark.attack("ATK-121", transports=DOORS)
@pytest.mark.parametrize("kind", DOORS)
async def test_paths_that_lead_out(kind: str, tmp_path: Path) -> None:
    sut = Sut(tmp_path)
    paths = ("../x", "..\\x", "/etc/passwd", "C:\\x", "~", "file:///etc/passwd", "", ".", "../data-secret/x",
             "../database/x", str(tmp_path / "data-secret" / "x"))  # fmt: skip
    async with door(kind, sut.server) as at:
        said = set()
        for path in paths:
            answer = await answered(at, args("read", json.dumps({"path": path})))
            assert answer.word == "failed" and CANARY not in answer.data.decode()
            said.add(answer.json["result"]["content"][0]["text"])
        assert said == {"no such file or directory"}
        answer = await answered(at, args("read", '{"path":"a.txt"}'))
        assert answer.json["result"]["content"][0]["text"] == "inside"
        await alive(at, sut)


@pytest.mark.attack("ATK-122", transports=DOORS)
@pytest.mark.parametrize("kind", DOORS)
async def test_encoded_ways_out(kind: str, tmp_path: Path) -> None:
    """What a template takes for a name, the directory behind it judges."""
    sut = Sut(tmp_path)
    paths = ("%2e%2e/%2e%2e/etc/passwd", "%252e%252e/x", "..%2fx", "%c0%ae%c0%ae/x", "..%00/x", "a.txt%00",
             "\uff0e\uff0e/x", "%ef%bc%8e%ef%bc%8e/x", "../x", "..%5cx", "%2fetc/passwd", "./../x",
             "%2e%2e%2f%2e%2e%2fx")  # fmt: skip
    async with door(kind, sut.server) as at:
        for path in paths:
            answer = await answered(at, uri(f"file:///{path}"))
            assert answer.word in ("-32602", "-32002", "-32603"), (path, answer)
            assert CANARY not in answer.data.decode() and "root:" not in answer.data.decode()
        answer = await answered(at, uri("file:///a.txt"))
        assert answer.json["result"]["contents"][0]["text"] == "inside"
        await alive(at, sut)


@pytest.mark.attack("ATK-128", transports=("stdio", "session", "websocket", "unix"))
@pytest.mark.parametrize("kind", ["stdio", "session", "websocket", "unix"])
async def test_a_uri_that_is_slow_to_match(kind: str) -> None:
    server = Server("slow")
    ran: list[str] = []

    @server.resource("a://{x*}{/y*}{?z*}")
    def a(x: str, y: str = "", z: str = "") -> str:
        ran.append("a")
        return "x"

    @server.resource("b://{+x}/{y},{z}/end")
    def b(x: str, y: str, z: str) -> str:
        ran.append("b")
        return f"{x} {y} {z}"

    async with door(kind, server) as at:
        assert (await answered(at, uri("b://p/q,r/end"))).word == "answered" and ran == ["b"]
        plain = at.message(uri("c://" + "x" * 100_000))
        for text in ("," * 100_000, "/" * 100_000, ",/" * 50_000, "a," * 50_000, "a=b&" * 25_000):
            for scheme in ("a", "b"):
                async with at.connect() as line:
                    times = []
                    for raw in (plain, at.message(uri(f"{scheme}://{text}"))):
                        started = time.process_time()
                        await line.send(raw)
                        assert (await line.answers(1))[0].word in ("-32602", "-32002", "answered")
                        times.append(time.process_time() - started)
                    assert times[1] <= times[0] + 0.05, (scheme, text[:8], times)


@pytest.mark.attack("ATK-139", transports=DOORS)
@pytest.mark.parametrize("kind", DOORS)
async def test_a_value_stays_in_its_segment(kind: str, tmp_path: Path) -> None:
    sut = Sut(tmp_path)
    base = "https://api.example.com/api/v1/users/"
    async with door(kind, sut.server) as at:
        for value in ("../../admin", "..", "x?y=1", "x#", "//evil", "%2e%2e/admin", "a/b", "\\evil", "x\r\nHost: evil"):
            answer = await answered(at, args("decode", json.dumps({"kind": "url", "data": value})))
            if answer.word == "answered":
                segment = answer.json["result"]["content"][0]["text"].removeprefix(base)
                assert not set(segment) & set("/?#\\ \r\n") and segment.startswith(tuple("x%a")), segment
            else:
                assert answer.word == "failed"
        answer = await answered(at, args("decode", '{"kind":"url","data":"ann"}'))
        assert answer.json["result"]["content"][0]["text"] == base + "ann"


@pytest.mark.attack("ATK-156", transports=DOORS)
@pytest.mark.parametrize("kind", DOORS)
async def test_what_decodes_to_more_than_it_says(kind: str, tmp_path: Path) -> None:
    sut = Sut(tmp_path)
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 9}">' for n in range(1, 9))
    async with door(kind, sut.server) as at:
        for format, data in (
            ("archive", archive(f"../{CANARY}")), ("archive", archive("/etc/x")), ("archive", "bm8="),
            ("xml", f"<!DOCTYPE x [<!ENTITY e SYSTEM 'file://{tmp_path}/x'>]><x>&e;</x>"),
            ("xml", f'<!DOCTYPE x [<!ENTITY e0 "x">{bomb}]><x>&e8;</x>'),
            ("yaml", "!!python/object/apply:os.system ['id']"), ("yaml", "a: &a [*a]"),
            ("template", "javascript:alert(1)"),
        ):  # fmt: skip
            answer = await answered(at, args("decode", json.dumps({"kind": format, "data": data})))
            assert answer.word == "failed" and CANARY not in answer.data.decode(), (format, answer)
        for format, data, said in (
            ("archive", archive("a.txt"), "['a.txt']"), ("xml", "<x>y</x>", "y"), ("yaml", "a: 1", "{'a': 1}"),
            ("template", "https://example.com/", '<a href="https://example.com/">https://example.com/</a>'),
        ):  # fmt: skip
            answer = await answered(at, args("decode", json.dumps({"kind": format, "data": data})))
            assert answer.json["result"]["content"][0]["text"] == said
        # A value is a value: what stands in braces is not looked up.
        inert = await answered(at, args("decode", '{"kind":"template","data":"https://a.example/{x.__class__}"}'))
        assert "class '" not in inert.data.decode()
        await alive(at, sut)


# What cannot be registered


@pytest.mark.attack("ATK-150")
@pytest.mark.parametrize("name", ["a b", "x\u202e", "a" * 129, "a\n", "a/b", "\u0430dd", "a\x00"])
def test_odd_names(name: str) -> None:
    server = Server("names")

    def handler() -> str:
        return "x"

    with pytest.raises(RegistrationError):
        server.tool(name=name)(handler)
    server.tool(name="a" * 128)(handler)
    with pytest.raises(RegistrationError):  # the same name twice
        server.tool(name="a" * 128)(handler)
    assert list(server.registry.tools) == ["a" * 128]


@pytest.mark.attack("ATK-151")
@pytest.mark.parametrize("name", ["password", "api_key", "token", "client_secret"])
def test_a_secret_is_not_mirrored_into_a_header(name: str) -> None:
    server = Server("headers")
    mirrored = msgspec.Meta(extra_json_schema={"x-mcp-header": "Value"})

    def with_parameter(parameter: str) -> Any:
        def made(value: str) -> str:
            return value

        code = made.__code__.replace(co_varnames=(parameter,))
        made.__code__ = code
        made.__annotations__ = {parameter: Annotated[str, mirrored], "return": str}
        return made

    with pytest.raises(RegistrationError, match=name):
        server.tool()(with_parameter(name))
    server.tool()(with_parameter("region"))
    assert list(server.registry.tools) == ["made"]


@pytest.mark.attack("ATK-152", transports=("http",))
async def test_a_schema_that_is_changed_afterwards_changes_nothing(tmp_path: Path) -> None:
    sut = Sut(tmp_path)
    published = sut.server.registry.tools["add"].definition.input_schema
    async with peer(sut.server, transport="http") as p:
        before = await p.result("tools/list")
        for change in (
            lambda: published["properties"].__setitem__("a", {}),  # type: ignore[index]
            lambda: published.__setitem__("additionalProperties", True),
            lambda: published.__setitem__("required", []),
        ):
            try:
                change()
            except TypeError:
                continue  # it cannot be changed at all
        for arguments in ({"a": "1", "b": 2}, {"a": 1, "b": 2, "c": 3}, {"b": 2}):
            result = (await p.once("tools/call", {"name": "add", "arguments": arguments}))["result"]
            assert result["isError"] is True, arguments
        assert sut.ran == []
        assert (await p.tool("add", {"a": 1, "b": 2}))["structuredContent"] == {"result": 3}
        assert await p.result("tools/list") == before


@pytest.mark.attack("ATK-152")
def test_a_signature_that_says_nothing_is_not_registered() -> None:
    server = Server("signatures")
    for handler in (lambda *args: "x", lambda **kwargs: "x", lambda x: x):
        with pytest.raises(RegistrationError):
            server.tool(name="odd")(handler)
    assert not server.registry.tools
