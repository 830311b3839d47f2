"""The least work an honest MCP server must do for tools/call, shared by the ceilings:
decode the JSON-RPC envelope, look the tool up, decode its arguments against their types, call it, encode the answer."""

import os

import msgspec

JSONLIB = os.environ.get("CEIL_JSON", "msgspec")


class AddArgs(msgspec.Struct):
    a: int
    b: int


class EchoArgs(msgspec.Struct):
    text: str


class Params(msgspec.Struct):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    meta: msgspec.Raw = msgspec.field(name="_meta", default=msgspec.Raw(b"{}"))


class Request(msgspec.Struct):
    method: str
    id: int | str | None = None
    params: Params | None = None
    jsonrpc: str = "2.0"


class Text(msgspec.Struct):
    text: str
    type: str = "text"


class Structured(msgspec.Struct):
    result: object


class CallResult(msgspec.Struct):
    content: list[Text]
    structuredContent: Structured
    resultType: str = "complete"


class Response(msgspec.Struct):
    id: int | str | None
    result: object
    jsonrpc: str = "2.0"


dec = msgspec.json.Decoder(Request).decode
enc = msgspec.json.Encoder().encode
TOOLS = {
    "add": (msgspec.json.Decoder(AddArgs).decode, lambda x: x.a + x.b),
    "echo": (msgspec.json.Decoder(EchoArgs).decode, lambda x: x.text),
}
INIT = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "ceil", "version": "1"},
}


DISCOVER = {
    "supportedVersions": ["2026-07-28", "2025-11-25"],
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "ceil", "version": "1"},
    "resultType": "complete",
    "ttlMs": 60000,
    "cacheScope": "private",
}
TOOLS_LIST = {
    "tools": [
        {
            "name": "add",
            "description": "Add two numbers.",
            "inputSchema": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
            "outputSchema": {"type": "object", "properties": {"result": {"type": "integer"}}, "required": ["result"]},
        },
        {
            "name": "echo",
            "description": "Echo text.",
            "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
            "outputSchema": {"type": "object", "properties": {"result": {"type": "string"}}, "required": ["result"]},
        },
    ],
    "resultType": "complete",
    "ttlMs": 60000,
    "cacheScope": "private",
}
STATIC = {"initialize": INIT, "server/discover": DISCOVER, "tools/list": TOOLS_LIST}


def handle(body: bytes) -> bytes:
    r = dec(body)
    if r.method == "tools/call":
        p = r.params
        d, fn = TOOLS[p.name]
        v = fn(d(p.arguments))
        return enc(Response(r.id, CallResult([Text(v if type(v) is str else str(v))], Structured(v))))
    if r.id is None:
        return b""
    return enc(Response(r.id, STATIC.get(r.method, {})))


if JSONLIB in ("json", "orjson"):
    if JSONLIB == "json":
        import json

        loads = json.loads
        _d = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
        dumps = lambda o: _d(o).encode()
    else:
        import orjson

        loads, dumps = orjson.loads, orjson.dumps

    def handle(body: bytes) -> bytes:  # noqa: F811
        r = loads(body)
        m, i = r.get("method"), r.get("id")
        if m == "tools/call":
            p = r["params"]
            a = p["arguments"]
            if p["name"] == "add":
                x, y = a["a"], a["b"]
                if type(x) is not int or type(y) is not int:
                    raise TypeError
                v = x + y
            else:
                v = a["text"]
                if type(v) is not str:
                    raise TypeError
            return dumps(
                {
                    "jsonrpc": "2.0",
                    "id": i,
                    "result": {
                        "content": [{"type": "text", "text": str(v)}],
                        "structuredContent": {"result": v},
                        "resultType": "complete",
                    },
                }
            )
        return dumps({"jsonrpc": "2.0", "id": i, "result": STATIC.get(m, {})}) if i is not None else b""
