"""The arguments of `Client`, against live and scripted servers."""

from __future__ import annotations

import asyncio
from typing import Any

from garrison import Client, Context, SecurityPolicy, Server, Timeouts, __version__
from garrison.auth.client.settings import AuthSettings
from tests.client.fakes import http_server, modern, program, text
from tests.client.oauth import said, scene
from tests.client.test_oauth_programs import ROBOT, SECRET
from tests.support.mcp import LEGACY, MODERN
from tests.support.raw_http import TOKEN, serving

from .case import case
from .limits import asking, said_by
from .scene import YES, folder, outcome
from .transports import echoed, proxying, secured, two

POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=0.2, connect=5, request=5))


@case(Client, "target", first=("one", "one"), changed=("other", "other"))
async def target(value: str) -> object:
    async with two() as servers:
        return await echoed(servers[value].url, token=TOKEN)


async def called(**options: Any) -> Any:
    """The request of a tool call, as a server gets it."""
    async with http_server(modern({"tools/call": lambda request: text("ok")})) as fake:
        async with Client(fake.url, policy=POLICY, **options) as client:
            assert said_by(await client.call_tool("x")) == "ok"
        return fake.requests[-1]


async def client_info(**options: Any) -> dict[str, Any]:
    return (await called(**options)).params["_meta"]["io.modelcontextprotocol/clientInfo"]


@case(Client, "name", default="garrison", changed=("mine", "mine"))
async def name(value: str) -> object:
    return (await client_info(name=value))["name"]


@case(Client, "version", default=__version__, changed=("9.9", "9.9"))
async def version(value: str | None) -> object:
    return (await client_info(version=value))["version"]


@case(Client, "token", default=None, changed=("secret", "Bearer secret"))
async def token(value: str | None) -> object:
    return (await called(token=value)).headers.get("authorization")


@case(Client, "headers", default=None, changed=({"X-A": "1"}, "1"))
async def headers(value: dict[str, str] | None) -> object:
    return (await called(headers=value)).headers.get("x-a")


def working() -> Server:
    """A server that does what the handlers below hear of."""
    server = Server("working", policy=POLICY)

    @server.tool()
    async def slow() -> str:
        await asyncio.sleep(0.25)
        return "slow"

    @server.tool()
    async def report(ctx: Context) -> str:
        await ctx.log("info", "hello")
        await ctx.progress(1)
        return "reported"

    @server.tool()
    async def sample(ctx: Context) -> str:
        return str((await ctx.sample("Say", max_tokens=1)).model)

    @server.tool()
    async def roots(ctx: Context) -> str:
        return str((await ctx.list_roots())[0].uri)

    return server


async def asked(tool: str, **options: Any) -> object:
    """What comes of one call: the text, or "failed"."""
    async with serving(working()) as running:
        async with Client(running.url, token=TOKEN, **{"policy": POLICY, **options}) as client:

            async def call() -> str:
                return said_by(await client.call_tool(tool))

            return await outcome(call())


@case(Client, "timeout", default="slow", changed=(0.1, "RequestTimeout"))
async def timeout(value: float | None) -> object:
    return await asked("slow", timeout=value)


@case(Client, "policy", default="slow", changed=(SecurityPolicy(timeouts=Timeouts(request=0.1)), "RequestTimeout"))
async def policy(value: SecurityPolicy | None) -> object:
    return await asked("slow", policy=value)


async def spoken(**options: Any) -> str:
    """The revision that is agreed on with a server that speaks all."""
    async with serving(working()) as running, Client(running.url, token=TOKEN, policy=POLICY, **options) as client:
        return client.protocol_version


@case(Client, "era", default=MODERN, changed=("legacy", LEGACY[0]))
async def era(value: Any) -> object:
    return await spoken(era=value)


@case(Client, "versions", default=MODERN, changed=(["2025-06-18"], "2025-06-18"))
async def versions(value: list[str] | None) -> object:
    return await spoken(versions=value)


@case(Client, "on_elicit", default="RemoteError", changed=(lambda params: YES, "asked"))
async def on_elicit(value: Any) -> object:
    async with serving(asking(1, policy=POLICY)) as running:
        async with Client(running.url, token=TOKEN, policy=POLICY, on_elicit=value) as client:

            async def call() -> str:
                return said_by(await client.call_tool("ask"))

            return await outcome(call())


def sampled(params: object) -> Any:
    return {"role": "assistant", "model": "m1", "content": {"type": "text", "text": "x"}}


@case(Client, "on_sample", default="RemoteError", changed=(sampled, "m1"))
async def on_sample(value: Any) -> object:
    return await asked("sample", on_sample=value)


@case(Client, "on_roots", default="RemoteError", changed=(["file:///a"], "file:///a"))
async def on_roots(value: Any) -> object:
    return await asked("roots", on_roots=value)


def hearing_case(name: str, changed: object, **others: Any) -> None:
    """A function that hears what a call brings; by default nobody does."""

    @case(Client, name, default=[], changed=("heard", changed))
    async def observe(value: object) -> object:
        heard: list[Any] = []
        options = {**others, name: heard.append if value else None}
        assert await asked("report", **options) == "reported"
        return [getattr(each, "data", None) or getattr(each, "progress", None) or each.method for each in heard]


hearing_case("on_log", ["hello"], log_level="info")
hearing_case("on_progress", [1])
hearing_case("on_notification", ["notifications/message"], log_level="info")


@case(Client, "log_level", default=[], changed=("info", ["hello"]))
async def log_level(value: Any) -> object:
    heard: list[Any] = []
    assert await asked("report", log_level=value, on_log=heard.append) == "reported"
    return [each.data for each in heard]


@case(Client, "cache", default=(4, 4), changed=(False, (4, 5)))
async def cache(value: bool) -> object:
    """How many tools there are, before and after another one of which nobody is told."""
    server = working()
    async with serving(server) as running, Client(running.url, token=TOKEN, policy=POLICY, cache=value) as client:
        before = len((await client.list_tools()).tools)
        server.add_tool(lambda: "x", "new", structured_output=False)
        return before, len((await client.list_tools()).tools)


@case(Client, "proxy", default=("one", []), changed=("the proxy", ("one", ["CONNECT"])))
async def proxy(value: object) -> object:
    async with secured() as (running, believing), proxying() as (url, heads):
        return await echoed(running.url, token=TOKEN, tls=believing, proxy=url if value else None), heads


@case(Client, "tls", default="ConnectionFailed", changed=("believing", "one"))
async def tls(value: object) -> object:
    async with secured() as (running, believing):
        return await outcome(echoed(running.url, token=TOKEN, tls=believing if value else None))


async def renewed(status: int, headers: object) -> str:
    return f"Bearer {TOKEN}"


@case(Client, "challenge", default="AuthenticationRequired", changed=(renewed, "one"))
async def challenge(value: Any) -> object:
    async with two() as servers:
        return await outcome(echoed(servers["one"].url, token="an-older-token-of-mine", challenge=value))


LOCAL = """
print("started", file=sys.stderr, flush=True)
for m in messages():
    if m.get("method") == "server/discover": discover(m)
    elif m.get("method") == "tools/call": text(m, [os.environ.get("A_SETTING"), os.path.basename(os.getcwd())])
"""


async def local(**options: Any) -> str:
    """Variable and directory of a server that was started here."""
    async with Client(program(LOCAL), policy=POLICY, **options) as client:
        return said_by(await client.call_tool("x"))


@case(Client, "env", default=True, changed=({"A_SETTING": "a value"}, False))
async def env(value: Any) -> object:
    return "None" in await local(env=value)


@case(Client, "cwd", default=False, changed=("a folder", True))
async def cwd(value: object) -> object:
    with folder() as place:
        return place.name in await local(cwd=place if value else None)


READING = """
for m in messages():
    if m.get("method") == "server/discover": discover(m)
    elif m.get("method") == "tools/call":
        try: text(m, open(m["params"]["arguments"]["path"]).read())
        except OSError as error: text(m, type(error).__name__)
"""


@case(Client, "sandbox", default="secret", changed=("auto", "PermissionError"), peer=True)
async def sandbox(value: Any) -> object:
    with folder() as place:
        (place / "f").write_text("secret")
        async with Client(program(READING), policy=POLICY, sandbox=value) as client:
            return said_by(await client.call_tool("x", {"path": str(place / "f")}))


@case(Client, "on_stderr", default=b"", changed=("heard", b"started"))
async def on_stderr(value: object) -> object:
    heard: list[bytes] = []
    await local(on_stderr=heard.append if value else None)
    return b"".join(heard).strip()


@case(Client, "auth", default="AuthenticationRequired", changed=(SECRET, "ok"))
async def auth(value: AuthSettings | None) -> object:
    async with scene(clients=[ROBOT]) as (_, server, _):

        async def call() -> str:
            async with Client(server.url, auth=value, policy=POLICY, era="modern") as client:
                return await said(client)

        return await outcome(call())
