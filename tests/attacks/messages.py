r"""Attacks that are one message: what is sent, and the one verdict that every transport has to give.

Rules of this file:
- An input is the text of a message as it goes out. Where it is refused, no handler may have run.
- `-32700` and so on are JSON-RPC error codes; `answered` is a result, `silent` is no answer.
- Every attack has twins: harmless messages of the same shape, which are answered.
- Most inputs carry `CANARY`, which no refusal may repeat.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from tests.support.everywhere import META, call

__all__ = ["ATTACKS", "CANARY", "Attack", "Input"]

CANARY = "CANARY-51c3"
_VERSION = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
_NOWHERE: Mapping[str, str] = MappingProxyType({})


class Input(NamedTuple):
    """One message."""

    text: str | bytes
    word: str
    """The verdict."""
    ran: str = ""
    """What the dispatch log gains."""
    but: Mapping[str, str] = _NOWHERE
    """Where a transport cannot say the same, and what it says instead."""
    status: int | None = None
    """The HTTP status in the newest revision, where the case names one."""


class Attack(NamedTuple):
    """One case of the catalogue."""

    id: str
    inputs: list[Input]
    twins: list[Input]
    eras: str = "both"
    """`modern`: there is no such thing in a handshake revision."""
    memory: int = 0
    """Bytes that one input may cost; 0 is not measured."""
    seconds: float = 2.0
    """CPU seconds that one input may cost, its sender's work included."""


def _refused(word: str, *texts: str | bytes, status: int | None = None) -> list[Input]:
    return [Input(text, word, status=status) for text in texts]


def _echoed(*texts: str | bytes, says: str = "x") -> list[Input]:
    return [Input(text, "answered", f"echo {says}") for text in texts]


def _message(inside: str, head: str = '"jsonrpc":"2.0","id":1,"method":"tools/call"') -> str:
    return f"{{{head},{inside}}}"


def _params(inside: str) -> str:
    return _message(f'"params":{{{inside},"_meta":{{{META}}}}}')


_SAID = f'{{"text":"{CANARY}"}}'
_ARGUMENTS = f'"arguments":{_SAID}'
_GOOD = call(arguments=_SAID)


def _with_id(id: str) -> str:
    return call(arguments=_SAID, id=id)


def _nested(depth: int, opening: str, closing: str) -> str:
    return call(arguments=_SAID, more=f',"deep":{opening * depth}1{closing * depth}')


def _meta_of(**fields: object) -> str:
    said = {_VERSION: fields.get("version"), _CAPABILITIES: fields.get("capabilities")}
    inside = {name: value for name, value in said.items() if value is not None}
    return _message(f'"params":{{"name":"echo",{_ARGUMENTS},"_meta":{json.dumps(inside)}}}')


def _version(text: str) -> str:
    return _meta_of(version=text, capabilities={})


_OVERLONG = '"' + "i" * 129 + '"'
_WIDE = "{" + ",".join(f'"{n}":0' for n in range(1_000_001)) + "}"
_QUOTE = '\\"'
# A header cannot say these, so that over HTTP it differs from the body.
_UNSAYABLE = {"http": "-32020", "asgi": "-32020"}

ATTACKS: list[Attack] = [
    Attack(
        "ATK-079",
        _refused(
            "-32700",
            _params(f'"name":"admin_reset","name":"echo",{_ARGUMENTS}'),
            _params(f'"name":"echo","name":"admin_reset",{_ARGUMENTS}'),
            _params(f'"name":"echo",{_ARGUMENTS},"name":"echo"'),
        ),
        _echoed(_params('"name":"echo","arguments":{"text":"x"}')),
    ),
    Attack(
        "ATK-080",
        _refused(
            "-32700",
            call(arguments=f'{{"text":"{CANARY}","text":"x"}}'),
            call(arguments=f'{{"text":"{CANARY}","\\u0074ext":"x"}}'),
            call(arguments=_SAID, more=',"a":{"b":1,"b":2}'),
            _params(f'"name":"admin_reset","\\u006eame":"echo",{_ARGUMENTS}'),
            _message(f'"params":{{"name":"echo",{_ARGUMENTS},"_meta":{{{META}}},"_meta":{{{META}}}}}'),
            _message(f'"id":2,"params":{{"name":"echo",{_ARGUMENTS},"_meta":{{{META}}}}}'),
        ),
        _echoed(_params('"n\\u0061me":"echo","arguments":{"\\u0074ext":"x"}'), call(more=',"a":{"b":1},"c":{"b":1}')),
    ),
    Attack(
        "ATK-081",
        _refused(
            "-32700",
            call("scale", '{"x":NaN}'),
            call("scale", '{"x":Infinity}'),
            call("scale", '{"x":-Infinity}'),
            call(arguments=_SAID, more=',"a":[NaN]'),
            _with_id("NaN"),
        ),
        [
            Input(call("scale", '{"x":1.5}'), "answered", "scale 1.5"),
            *_echoed(call(arguments='{"text":"NaN"}'), says="NaN"),
        ],
    ),
    Attack(
        "ATK-082",
        [
            *_refused("-32700", call("scale", '{"x":1e999}'), call("scale", '{"x":-1e999}')),
            *_refused("-32700", call(arguments=_SAID, more=',"a":1e999'), _with_id("1e999")),
            Input(call("scale", '{"x":1e-99999}'), "answered", "scale 0.0"),
        ],
        [Input(call("scale", '{"x":1e300}'), "answered", "scale 1e+300")],
    ),
    Attack(
        "ATK-083",
        _refused(
            "-32700",
            call("exact", f'{{"number":{"9" * 5_000}}}'),
            call("scale", f'{{"x":0.{"3" * 100_000}}}'),
            call("scale", f'{{"x":-{"9" * 100_000}}}'),
            call("scale", f'{{"x":1e{"9" * 100_000}}}'),
            call(arguments=_SAID, more=f',"a":{"9" * 1_000_000}'),
            _with_id("9" * 5_000),
        ),
        [Input(call("scale", f'{{"x":0.{"3" * 60}}}'), "answered", f"scale {1 / 3}")],
        seconds=0.1,
    ),
    Attack(
        "ATK-084",
        [
            Input(call("exact", f'{{"number":{number}}}'), "answered", f"exact {number}")
            for number in (2**53 + 1, -(2**53) - 1, 2**64 + 1, 10**40 + 1)
        ],
        [Input(call("exact", '{"number":9007199254740991}'), "answered", "exact 9007199254740991")],
    ),
    Attack(
        "ATK-085",
        _refused(
            "-32700",
            # The message, its params and their `_meta` are three levels.
            *(_nested(depth, "[", "]") for depth in (62, 65, 1_000, 100_000)),
            *(_nested(depth, '{"a":', "}") for depth in (62, 65, 1_000, 30_000)),
            _message(f'"params":{"[" * 65}{"]" * 65}'),
            "[" * 100_000,
            '{"a":' * 30_000,
        ),
        _echoed(
            call(more=f',"deep":{"[" * 61}1{"]" * 61}'), call(more=f',"deep":{"{" + chr(34) + "a" + chr(34) + ":"}1}}')
        ),
    ),
    Attack(
        "ATK-086",
        _refused(
            "-32700",
            call(arguments=_WIDE),
            call(arguments=_SAID, more=f',"a":[{"0," * 2_000_000}0]'),
            call(arguments=_SAID, more=f',"a":[{"[]," * 1_000_000}0]'),
            call(arguments=_SAID, more=f',"a":[{"{}," * 40_000}0]'),
            f'["{_QUOTE * 1_000}{"," * 200_001}',
            f'["{_QUOTE * 3_000_000}{"," * 200_001}',
        ),
        _echoed(call(more=f',"a":[{"0," * 9_000}0]')),
        memory=3 * 16 * 1024 * 1024,
    ),
    Attack(
        "ATK-087",
        _refused(
            "-32700",
            call(arguments='{"text":"\\ud800"}'),
            call(arguments='{"text":"\\udc00\\ud800"}'),
            call(arguments='{"text":"\\ud800x"}'),
            call(arguments='{"\\ud800":"x"}'),
            _with_id('"\\ud800"'),
            _with_id('"\\udc00\\ud800"'),
        ),
        _echoed(call(arguments='{"text":"\\ud83d\\ude00"}'), says="\U0001f600"),
    ),
    Attack(
        "ATK-088",
        [
            *_refused(
                "-32602", call("echo\0", _SAID), call("\0", _SAID), call("echo\n", _SAID), call("ec\x7fho", _SAID)
            ),
            *_refused(
                "-32600", _with_id('"a\\nb"'), _with_id('"\\u0000"'), _with_id('"\\u007f"'), _with_id('"\\u0085"')
            ),
        ],
        _echoed(call(id='"a b"')),
    ),
    Attack(
        "ATK-089",
        _refused(
            "-32700", _GOOD + _GOOD, _GOOD + "garbage", _GOOD + " " + _GOOD, _GOOD + "]", _GOOD + ",", "{}{}", "1 2"
        ),
        _echoed(" " + call() + "  \t"),
    ),
    Attack(
        "ATK-090",
        _refused(
            "-32700",
            _GOOD.replace('"', "'"),
            _GOOD + "// comment",
            _GOOD.replace('"id":1', '"id":/* one */1'),
            call(arguments=f'{{"text":"{CANARY}",}}'),
            _with_id("0x1"),
            _with_id("01"),
            _with_id("+1"),
            call("scale", '{"x":.5}'),
            call("scale", '{"x":1.}'),
            call(arguments=_SAID, more=',"a":True'),
            call(arguments=_SAID, more=',"a":None'),
            call(arguments=_SAID, more=',"a":undefined'),
            _GOOD.replace('"id"', "id"),
            call(arguments=f'{{"text":"{CANARY}\t"}}'),
            call(arguments='{"text":"\\x41"}'),
            b"\xef\xbb\xbf" + _GOOD.encode(),
        ),
        _echoed(call(arguments='{ "text" : "x" }'), call(more=',"a":[true,false,null,-0.5e1]')),
    ),
    Attack(
        "ATK-091",
        _refused(
            "-32600",
            *map(_with_id, ("null", "true", "false", "1.5", "1.0", "1e0", "{}", "[]", '""', _OVERLONG)),
            *map(_with_id, (str(2**53), str(-(2**53)), '["1"]', '{"$ref":1}')),
        ),
        _echoed(*(call(id=id) for id in ("0", "-1", str(2**53 - 1), '"1"', '"' + "i" * 128 + '"'))),
    ),
    Attack(
        "ATK-094",
        _refused(
            "-32600",
            *(
                _GOOD.replace('"jsonrpc":"2.0"', said)
                for said in ('"jsonrpc":"1.0"', '"jsonrpc":"2"', '"jsonrpc":2.0', '"jsonrpc":2', '"jsonrpc":null')
            ),
            _GOOD.replace('"jsonrpc":"2.0",', ""),
            _GOOD.replace('"jsonrpc":"2.0"', '"JSONRPC":"2.0"'),
        ),
        _echoed(_params('"name":"echo","arguments":{"text":"x"}')),
    ),
    Attack(
        "ATK-095",
        _refused(
            "-32600",
            _GOOD.replace('"id":1', '"id":1,"result":{}'),
            _GOOD.replace('"id":1', '"id":1,"error":{"code":1,"message":"m"}'),
            '{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"m"}}',
            _GOOD.replace('"id":1', f'"id":1,"extra":"{CANARY}"'),
            _message(f'"params":["echo","{CANARY}"]'),
            _message(f'"params":"{CANARY}"'),
            _message('"params":null'),
            _GOOD.replace('"tools/call"', "1"),
            _GOOD.replace('"tools/call"', '["tools/call"]'),
            '{"jsonrpc":"2.0","id":1}',
            "{}",
            "null",
            f'"{CANARY}"',
        ),
        _echoed(call()),
    ),
    Attack(
        "ATK-096",
        _refused("-32600", f"[{_GOOD},{_GOOD}]", "[]", "[[]]", f"[[{_GOOD}]]", f"[{_GOOD}]", "[1]"),
        _echoed(call(more=',"a":[]')),
    ),
    Attack(
        "ATK-097",
        _refused(
            "-32602",
            _meta_of(capabilities={}),
            _meta_of(version="2026-07-28"),
            _meta_of(),
            _meta_of(version="2026-07-28", capabilities=[]),
            _meta_of(version=20260728, capabilities={}),
            _message(f'"params":{{"name":"echo",{_ARGUMENTS}}}'),
            _message(f'"params":{{"name":"echo",{_ARGUMENTS},"_meta":[]}}'),
            status=400,
        ),
        _echoed(call()),
        eras="modern",
    ),
    Attack(
        "ATK-098",
        [
            *_refused("-32022", _version("9999-01-01"), _version('"; DROP'), _version(""), status=400),
            *(
                Input(_version(text), "-32022", but=_UNSAYABLE, status=400)
                for text in ("2026-07-28 ", "\x1b[2J", "2026-07-28\n", "\u202e2026")
            ),
        ],
        _echoed(call()),
        eras="modern",
    ),
    Attack(
        "ATK-100",
        [
            *(
                Input(_GOOD.replace("tools/call", name), "-32601", status=404)
                for name in (
                    "tools/callX",
                    "tools",
                    "__class__",
                    "rpc.discover",
                    "dispatch",
                    "_call_tool",
                    "TOOLS/CALL",
                )
            ),
            *_refused("-32600", _GOOD.replace("tools/call", "m" * 2**20), _GOOD.replace("tools/call", "")),
        ],
        _echoed(call()),
    ),
    Attack(
        "ATK-101",
        [
            Input(call(more=f',"{key}":"{CANARY}"'), "answered", "echo x")
            for key in (
                "io.modelcontextprotocol/serverInfo",
                "io.modelcontextprotocol/subscriptionId",
                "io.modelcontextprotocol/unheardOf",
                "modelcontextprotocol.io/principal",
                "mcp.dev/trusted",
            )
        ],
        _echoed(call(more=',"com.example/own":"x"')),
    ),
    Attack(
        "ATK-102",
        [
            Input(call(more=f',"{key}":{value}'), "answered", "echo x")
            for key, value in (
                ("baggage", json.dumps(CANARY + "x" * 2**20)),
                ("traceparent", '"00-zz"'),
                ("traceparent", f'"{CANARY}"'),
                ("traceparent", "7"),
                ("tracestate", '["a"]'),
            )
        ],
        _echoed(call(more=',"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"')),
    ),
]
