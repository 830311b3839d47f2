"""Honest traffic in both eras over every transport: calls, progress, questions, subscriptions, 100 KB echoes.

    python -m soaking.honest ADDRESSES [RATE]         (operations a second in all)

Each client does one random operation after the other, and is made anew after some dozens of them. Every operation must
end within its time-out: `ok`, or `refused` with an error that says so. Each second a line of JSON is printed: counts by
outcome, and the words of the first operations that ended in another way.
"""

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from garrison import Client
from garrison.errors import ConnectionLost, GarrisonError, HttpError, RemoteError, RequestTimeout
from garrison.policy.tls import TlsClientConfig
from garrison.policy.transports import HttpTransportConfig, UnixSocketConfig, WebSocketConfig

TIMEOUT = 10.0
SLACK = 5.0
NEWS = "soak://news"
BIG = "x" * 102_400
_BUSY = (429, 503, -32603)


def targets(at):
    """Every way to reach the server."""
    tls, token = TlsClientConfig(ca=at["ca"]), at["token"]
    return {
        "http": HttpTransportConfig(f"http://127.0.0.1:{at['http']}/mcp", token=token),
        "https": HttpTransportConfig(f"https://127.0.0.1:{at['https']}/mcp", token=token, tls=tls),
        "websocket": WebSocketConfig(f"ws://127.0.0.1:{at['http']}/mcp", token=token),
        "wss": WebSocketConfig(f"wss://127.0.0.1:{at['https']}/mcp", token=token, tls=tls),
        "unix": UnixSocketConfig(at["unix"]),
        "http-unix": HttpTransportConfig("http://localhost/mcp", token=token, unix_socket=at["http-unix"]),
    }


async def _add(client):
    a, b = random.randrange(1000), random.randrange(1000)
    result = await client.call_tool("add", {"a": a, "b": b})
    _must((result.structured_content or {}).get("result") == a + b)


async def _echo(client):
    result = await client.call_tool("echo", {"text": BIG})
    _must(result.content[0].text == BIG)


async def _steps(client):
    heard = []
    result = await client.call_tool("steps", {"count": 5}, on_progress=heard.append)
    _must(result.content[0].text == "done" and heard)


async def _ask(client):
    result = await client.call_tool("ask")
    _must(result.content[0].text == "accept")


async def _slow(client):
    results = await asyncio.gather(*[client.call_tool("slow", {"seconds": 0.01 * n}) for n in range(4)])
    _must(all(result.content[0].text == "done" for result in results))


async def _threaded(client):
    result = await client.call_tool("threaded", {"x": 7})
    _must(result.content[0].text == "7")


async def _subscribe(client):
    async with client.subscribe(resources=[NEWS]) as changes:
        await client.call_tool("touch")
        await asyncio.wait_for(anext(changes), TIMEOUT)


async def _list(client):
    _must([tool.name async for tool in client.tools()])


OPERATIONS = [(_add, 40), (_echo, 8), (_steps, 10), (_ask, 6), (_slow, 6), (_threaded, 8), (_subscribe, 6), (_list, 4)]
_DO, _WEIGHTS = zip(*OPERATIONS, strict=True)


class _Wrong(Exception):
    """An answer that is not the right one."""


def _must(right):
    if not right:
        raise _Wrong


async def _accept(params):
    return {"action": "accept", "content": {"name": "soak"}}


class Traffic:
    """All honest clients, and what became of what they asked."""

    def __init__(self, at, rate):
        self.outcomes = Counter()
        self.done = Counter()
        self.words = []
        self._targets = targets(at)
        self._pause = 2 * len(self._targets) / rate

    async def run(self, stopping):
        async with asyncio.TaskGroup() as group:
            for kind, target in self._targets.items():
                for era in ("modern", "legacy"):
                    group.create_task(self._client(kind, target, era, stopping))

    async def _client(self, kind, target, era, stopping):
        while not stopping.is_set():
            client = Client(target, era=era, on_elicit=_accept, timeout=TIMEOUT, cache=False)
            if await self._do(f"{kind}/{era} connect", client.connect()):
                for _ in range(random.randrange(30, 90)):
                    if stopping.is_set():
                        break
                    operation = random.choices(_DO, _WEIGHTS)[0]
                    if not await self._do(f"{kind}/{era} {operation.__name__[1:]}", operation(client)):
                        break
                    await asyncio.sleep(self._pause * random.uniform(0.2, 1.8))
            await self._do(f"{kind}/{era} close", client.aclose())
            await asyncio.sleep(0.05)

    async def _do(self, what, work):
        """Have one operation done, and count how it ended. False if the client should begin anew."""
        began, outcome, why = time.monotonic(), "ok", ""
        try:
            async with asyncio.timeout(TIMEOUT + SLACK):
                await work
        except RequestTimeout as exc:
            outcome, why = "late", str(exc)
        except TimeoutError:  # not even the client's own time-out came
            outcome = "stuck"
        except (RemoteError, HttpError) as exc:
            code = getattr(exc, "status", None) or getattr(exc, "code", None)
            outcome, why = ("refused" if code in _BUSY else "failed"), f"{code} {exc}"
        except ConnectionLost as exc:
            outcome, why = "lost", str(exc)
        except (GarrisonError, _Wrong) as exc:
            outcome, why = "failed", f"{type(exc).__name__}: {exc}"
        self.outcomes[outcome] += 1
        self.done[what.partition(" ")[2]] += 1
        if outcome != "ok" and len(self.words) < 50:
            self.words.append(f"{outcome}: {what}: {why} ({time.monotonic() - began:.1f} s)")
        return outcome in ("ok", "refused")


async def main():
    at = json.loads(Path(sys.argv[1]).read_text())
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 100.0
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    traffic = Traffic(at, rate)

    def report():
        print(json.dumps({"outcomes": traffic.outcomes, "done": traffic.done, "words": traffic.words}), flush=True)

    running = asyncio.create_task(traffic.run(stopping))
    while not running.done():
        await asyncio.wait([running], timeout=1.0)
        report()
    running.result()


if __name__ == "__main__":
    asyncio.run(main())
