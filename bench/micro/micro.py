"""Cost of the building blocks of one tools/call, CPU us each (best of 5). Run with the `ceil` venv's python."""

import asyncio
import contextvars
import inspect
import json
import time

import anyio
import anyio.to_thread
import fastjsonschema
import jsonschema
import jsonschema_rs
import msgspec
import orjson
import pydantic
import uvloop

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1.0.0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
REQ = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 12345678,
        "method": "tools/call",
        "params": {"name": "add", "arguments": {"a": 19, "b": 23}, "_meta": META},
    }
).encode()
RES = {
    "jsonrpc": "2.0",
    "id": 12345678,
    "result": {
        "content": [{"type": "text", "text": "42"}],
        "structuredContent": {"result": 42},
        "resultType": "complete",
        "isError": False,
    },
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
ARGS = {"a": 19, "b": 23}


def best(f, n=20000):
    b = 1e9
    for _ in range(5):
        t = time.process_time()
        for _ in range(n):
            f()
        b = min(b, (time.process_time() - t) / n)
    return b * 1e6


class Args(msgspec.Struct):
    a: int
    b: int


class Params(msgspec.Struct):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    meta: dict | None = msgspec.field(name="_meta", default=None)


class Env(msgspec.Struct):
    jsonrpc: str
    method: str
    id: int | str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")


class EnvP(msgspec.Struct):
    jsonrpc: str
    method: str
    id: int | str | None = None
    params: Params | None = None


class PArgs(pydantic.BaseModel):
    a: int
    b: int


class PParams(pydantic.BaseModel):
    name: str
    arguments: dict | None = None
    meta: dict | None = pydantic.Field(None, alias="_meta")


class PEnv(pydantic.BaseModel):
    jsonrpc: str
    method: str
    id: int | str | None = None
    params: dict | None = None


class PRes(pydantic.BaseModel):
    jsonrpc: str
    id: int | str
    result: dict


d0, d1, d2, da = (
    msgspec.json.Decoder().decode,
    msgspec.json.Decoder(EnvP).decode,
    msgspec.json.Decoder(Params).decode,
    msgspec.json.Decoder(Args).decode,
)
e = msgspec.json.Encoder().encode
raw_args = b'{"a":19,"b":23}'
fjs = fastjsonschema.compile(SCHEMA)
jsv = jsonschema.Draft202012Validator(SCHEMA)
jrs = jsonschema_rs.validator_for(SCHEMA)
pa = pydantic.TypeAdapter(PArgs)
big = json.dumps({"text": "x" * 102400})
bigb = big.encode()


def add(a: int, b: int) -> int:
    return a + b


rows = [
    ("decode request: json.loads", lambda: json.loads(REQ)),
    ("decode request: orjson.loads", lambda: orjson.loads(REQ)),
    ("decode request: msgspec untyped", lambda: d0(REQ)),
    ("decode request: msgspec Struct, arguments Raw", lambda: d1(REQ)),
    ("decode request: pydantic model_validate_json (envelope)", lambda: PEnv.model_validate_json(REQ)),
    (
        "decode request: json.loads + pydantic envelope + params",
        lambda: PParams.model_validate(PEnv.model_validate(json.loads(REQ)).params),
    ),
    ("arguments: msgspec Struct from bytes", lambda: da(raw_args)),
    ("arguments: msgspec.convert from dict", lambda: msgspec.convert(ARGS, Args)),
    ("arguments: pydantic TypeAdapter python", lambda: pa.validate_python(ARGS)),
    ("arguments: pydantic TypeAdapter json", lambda: pa.validate_json(raw_args)),
    ("arguments: fastjsonschema", lambda: fjs(ARGS)),
    ("arguments: jsonschema_rs", lambda: jrs.is_valid(ARGS)),
    ("arguments: jsonschema (validator kept)", lambda: jsv.is_valid(ARGS)),
    ("encode answer: json.dumps", lambda: json.dumps(RES, separators=(",", ":")).encode()),
    ("encode answer: orjson", lambda: orjson.dumps(RES)),
    ("encode answer: msgspec", lambda: e(RES)),
    (
        "encode answer: pydantic model_dump + json.dumps",
        lambda: json.dumps(PRes.model_validate(RES).model_dump(mode="json", by_alias=True, exclude_none=True)).encode(),
    ),
    ("inspect.signature (cold)", lambda: inspect.signature(add)),
    ("contextvars.copy_context", contextvars.copy_context),
    ("decode 100 KB string: json.loads", lambda: json.loads(bigb)),
    ("decode 100 KB string: orjson", lambda: orjson.loads(bigb)),
    ("decode 100 KB string: msgspec", lambda: d0(bigb)),
    ("encode 100 KB string: json.dumps ascii", lambda: json.dumps({"text": "x" * 102400}).encode()),
    ("encode 100 KB string: msgspec", lambda: e({"text": "x" * 102400})),
    ("encode 100 KB string: orjson", lambda: orjson.dumps({"text": "x" * 102400})),
]


async def aio():
    loop = asyncio.get_running_loop()
    out = []

    async def noop():
        pass

    async def t(name, f, n=5000):
        b = 1e9
        for _ in range(3):
            c = time.process_time()
            for _ in range(n):
                await f()
            b = min(b, (time.process_time() - c) / n)
        out.append((name, b * 1e6))

    async def coro():
        await noop()

    async def task():
        await asyncio.create_task(noop())

    async def eager():
        tk = asyncio.Task(noop(), loop=loop, eager_start=True)
        if not tk.done():
            await tk

    async def tg():
        async with anyio.create_task_group() as g:
            g.start_soon(noop)

    async def stg():
        async with asyncio.TaskGroup() as g:
            g.create_task(noop())

    async def mem():
        s, r = anyio.create_memory_object_stream(1)
        await s.send(1)
        await r.receive()
        s.close(), r.close()

    async def scope():
        with anyio.move_on_after(5):
            pass

    async def astimeout():
        async with asyncio.timeout(5):
            pass

    async def thr():
        await anyio.to_thread.run_sync(add, 1, 2)

    async def ex():
        await loop.run_in_executor(None, add, 1, 2)

    await t("await a coroutine", coro)
    await t("asyncio.create_task + await", task)
    await t("eager task", eager)
    await t("asyncio.TaskGroup, one task", stg)
    await t("anyio task group, one task", tg)
    await t("anyio memory stream: create, send, receive, close", mem)
    await t("anyio.move_on_after", scope)
    await t("asyncio.timeout", astimeout)
    await t("loop.run_in_executor", ex, 2000)
    await t("anyio.to_thread.run_sync", thr, 2000)
    return out


if __name__ == "__main__":
    for name, f in rows:
        print(f"{best(f, 2000 if '100 KB' in name else 20000):9.2f}  {name}")
    for name, f in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
        for n, v in f(aio()):
            print(f"{v:9.2f}  [{name}] {n}")
