#!/usr/bin/env python3
"""What each control costs a call: the live path of a running listener, with the control and without it.

    uv run python bench/controls.py [--rounds 15] [--calls 4000] [--json FILE]

One connection, one request at a time, no socket and no peer: the bytes of a request go into the connection that the
listener made, and the bytes of the answer come out of it. "Without" is the same code with the lines of the control
taken out (`without`), or a function put in its place. Rounds with and without take turns, and the table has the median
of their differences and its middle half, in microseconds of CPU. Limits are those of `peer.py`: above the load.
"""

import argparse
import __future__
import asyncio
import contextlib
import gc
import inspect
import json
import ssl
import statistics
import sys
import tempfile
import textwrap
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE), str(HERE.parent)]

import jiter
import verify
from peer import ABOVE_THE_LOAD, RATES_ABOVE
from soaking.wire import call, frame, post

from garrison import SecurityPolicy, Server, events
from garrison.auth import DpopKey, JwtVerifier, ResourceServer
from garrison.auth.resource import JwksCache, Verified
from garrison.gate.http import HttpGate
from garrison.policy.principal import LOCAL
from garrison.policy.tls import TlsServerConfig
from garrison.policy.transports import UnixSocketConfig, WebSocketConfig
from garrison.server import runner
from garrison.server.http import HttpApplication
from garrison.server.serve import HttpServing, UnixServing, duplex
from garrison.transports.http import connection, exchange
from garrison.transports.http.connection import HttpConnection
from garrison.transports.http.requests import RequestReader
from garrison.transports.peer import Peer
from garrison.transports.unix import UnixShell
from garrison.transports.websocket import WebSocketShell

TOKEN = "a-token-that-is-long-enough-0123456789abcdef"
ORIGIN = "https://app.example"


class Sink:
    """A transport that keeps the last bytes written."""

    def __init__(self):
        self.last = b""

    def write(self, data):
        self.last = data

    def is_closing(self):
        return False

    def get_write_buffer_size(self):
        return 0

    def can_write_eof(self):
        return True

    def __getattr__(self, name):
        return lambda *_: None


def make(auth=None, rule=None, **policy):
    server = Server("controls", policy=SecurityPolicy(limits=ABOVE_THE_LOAD, rates=RATES_ABOVE, **policy), auth=auth)

    @server.tool(inline=True, **(rule or {}))
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool()
    async def later(a: int, b: int) -> int:
        return a + b

    return server


def arrive(serving, address="127.0.0.1"):
    """A connection of this listener, whose bytes go nowhere."""
    listener, sink = serving.listener, Sink()
    place = listener.floods.join(address, listener.now(), lambda: None)
    guest = listener.arrive(Peer(address, uid=0), place)
    guest.connection_made(sink)
    return guest, sink


def without(function, first, after):
    """A function without the lines from the one that begins with `first` up to the one that begins with `after`.

    Raises:
        LookupError: it has no such lines any more.
    """
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    start = next((n for n, line in enumerate(lines) if line.strip().startswith(first)), None)
    end = next(
        (n for n, line in enumerate(lines) if start is not None and n > start and line.strip().startswith(after)), None
    )
    if start is None or end is None:
        raise LookupError(f"{function.__qualname__}: no lines from {first!r} to {after!r}")
    made = {}
    source = "\n".join(lines[:start] + lines[end:])
    exec(
        compile(source, function.__qualname__, "exec", __future__.annotations.compiler_flag), function.__globals__, made
    )
    return made[function.__name__]


@contextlib.contextmanager
def put(where, name, value):
    """Have another value in place for a while."""
    own = name in vars(where) if not isinstance(where, dict) else True
    before = where[name] if isinstance(where, dict) else getattr(where, name)
    (where.__setitem__(name, value) if isinstance(where, dict) else setattr(where, name, value))
    try:
        yield
    finally:
        if isinstance(where, dict):
            where[name] = before
        elif own:
            setattr(where, name, before)
        else:
            delattr(where, name)


class Bench:
    """Rounds of calls, with something and without it."""

    def __init__(self, rounds, calls):
        self.rounds, self.calls = rounds, calls
        self.rows = []

    async def _time(self, work):
        gc.collect()
        before = time.thread_time()
        for _ in range(self.calls):
            waits = work()
            if waits is not None:
                await waits
        return (time.thread_time() - before) / self.calls * 1e6

    async def pair(self, name, work, absent, other=None):
        """Compare.

        Args:
            name: of the row.
            work: one call; may give what to wait for.
            absent: a function that makes a context in which the control is absent.
            other: the call that is made there, if it is another one.
        """
        other = other or work
        with_it, differences = [], []
        await self._time(work)
        for number in range(self.rounds):

            async def absent_time():
                with absent():
                    return await self._time(other)

            if number % 2:
                bare, full = await absent_time(), await self._time(work)
            else:
                full, bare = await self._time(work), await absent_time()
            with_it.append(full)
            differences.append(full - bare)
        low, middle, high = statistics.quantiles(differences, n=4)
        self.rows.append((name, statistics.median(with_it), middle, low, high))
        print(
            f"{name:<66} {middle:+7.2f}   ({low:+.2f} to {high:+.2f})   of {statistics.median(with_it):.2f}", flush=True
        )


def nothing():
    return contextlib.nullcontext()


def both(*contexts):
    """Several contexts at once, made anew each time."""

    @contextlib.contextmanager
    def entered():
        with contextlib.ExitStack() as stack:
            for make_context in contexts:
                stack.enter_context(make_context())
            yield

    return entered


async def http(bench):
    """What stands in the way of a request over HTTP."""
    async with HttpServing(make(allowed_origins=(ORIGIN,)), "127.0.0.1", 0, token=TOKEN) as serving:
        host = f"127.0.0.1:{serving.port}"
        listener, application = serving.listener, serving.listener.application
        plain = post(host, call("add", {"a": 19, "b": 23}), token=TOKEN)
        guest, sink = arrive(serving)
        parse = lambda: put(listener, "heads", Unknown())

        def known():
            guest.data_received(plain)

        known()
        known()
        if b"42" not in sink.last:
            raise RuntimeError(sink.last)
        row = bench.pair
        await row("heads that are known are not parsed (a saving)", known, parse)
        with parse():
            check = HttpGate.check
            bare = lambda head: setattr(head, "principal", LOCAL)
            await row("all checks of a head, token too", known, lambda: put(application, "check", bare))
            bound = lambda function: put(application, "check", function.__get__(application.check.__self__))
            open_to_all = without(check, "host = fields.get", "methods = ")
            gate = application.check.__self__
            taken = lambda head: setattr(head, "principal", LOCAL)
            unbounded = without(RequestReader.on_header, "self._head_bytes +=", "head.add(")
            await row("  Host and Origin", known, lambda: bound(open_to_all))
            await row("  token, compared in constant time", known, lambda: put(gate, "_authenticate", taken))
            await row("size and count of the head", known, lambda: put(RequestReader, "on_header", unbounded))
            await row("no field twice that decides", known, lambda: put(exchange.Head, "add", _plain_add))
        unmetered = without(HttpConnection._serve, "if head.client is not None", "listener.application.handle")
        await row("message meter", known, lambda: put(HttpConnection, "_serve", unmetered))
        await row(
            "strict JSON with its limits, over the bare parser",
            known,
            lambda: put(application, "_decode", jiter.from_json),
        )
        await row(
            "headers that repeat the body are held against it",
            known,
            lambda: put(HttpApplication, "_match", lambda self, head, request: None),
        )
        ok = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        await row("security fields of the answer", known, lambda: put(vars(connection), "_JSON_OK", ok))

        page = plain.replace(b"\r\nContent-Type", b"\r\nOrigin: " + ORIGIN.encode() + b"\r\nContent-Type", 1)
        from_page = lambda: guest.data_received(page)
        from_page()
        await row("a page of a listed origin: its field, and CORS fields of the answer", from_page, nothing, known)

        waiting = post(host, call("later", {"a": 19, "b": 23}), name="later", token=TOKEN)

        async def until_answered():
            while not sink.last:
                await asyncio.sleep(0)

        def asynchronous():
            sink.last = b""
            guest.data_received(waiting)
            return until_answered()

        await asynchronous()
        unasked = without(runner.Runner._start, "under_way = ", "def ended")
        start = lambda: put(runner.Runner, "_start", unasked)
        count = lambda: put(runner.Runner, "_count", lambda self, running, more: None)
        await row("requests under way of a principal (coroutine tools)", asynchronous, both(start, count))

        wrong = plain.replace(host.encode(), b"evil.example")
        silent = lambda: put(events, "record", lambda *_, **__: None)

        def refused():
            stranger, _ = arrive(serving, "127.0.9.9")
            stranger.data_received(wrong)
            stranger.connection_lost(None)

        await row("security event of a refusal, in a flood (counted)", refused, silent)
        written = lambda: events._write(
            "host.refused", "Host not served here", "127.0.0.1", "SecurityPolicy.allowed_hosts"
        )
        await row("security event, written (20 a second of each name at most)", written, nothing, lambda: None)


class Unknown:
    """Heads of which none is known."""

    def match(self, data):
        return None

    def learn(self, data, head):
        return


def _plain_add(self, name, value):
    self.fields[name.lower()] = value


async def proxied(bench):
    """A listener behind a proxy, beside one that is not."""
    async with HttpServing(make(), "127.0.0.1", 0, token=TOKEN) as one:
        async with HttpServing(make(trusted_proxies=("127.0.0.1",)), "127.0.0.1", 0, token=TOKEN) as two:
            body = call("add", {"a": 19, "b": 23})
            (guest, _), (behind, sink) = arrive(one), arrive(two)
            plain = post(f"127.0.0.1:{one.port}", body, token=TOKEN)
            forwarded = post(f"127.0.0.1:{two.port}", body, token=TOKEN)
            forwarded = forwarded.replace(
                b"\r\nContent-Type", b"\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nContent-Type", 1
            )
            alone, through = (lambda: guest.data_received(plain)), (lambda: behind.data_received(forwarded))
            alone(), alone(), through(), through()
            if b"42" not in sink.last:
                raise RuntimeError(sink.last)
            await bench.pair(
                "trusted proxy: its peer, two fields, whose meter; the gate each time", through, nothing, alone
            )


async def protected(bench):
    """A listener that takes tokens of an issuer, beside one that takes the one token."""
    jwt = JwtVerifier(verify.ISSUER, verify.RESOURCE, jwks=JwksCache(verify.ISSUER, verify.JWKS, fetch=verify.Web()))
    now = time.time()
    times = {"iat": now, "exp": now + 3600}
    key = DpopKey.generate()
    bearer, bound = verify.token(**times), verify.token(cnf={"jkt": key.thumbprint}, **times)
    for text in (bearer, bound):
        found = jwt.verify(text, now)
        _ = found if isinstance(found, Verified) else await found
    body = call("add", {"a": 19, "b": 23})

    def asking(serving, token, scheme=b"Bearer", more=b""):
        plain = post(f"127.0.0.1:{serving.port}", body, token=token)
        plain = plain.replace(b"Bearer ", scheme + b" ", 1)
        return plain.replace(b"\r\nContent-Type", more + b"\r\nContent-Type", 1)

    async with (
        HttpServing(make(), "127.0.0.1", 0, token=TOKEN) as one,
        HttpServing(make(ResourceServer(verify.RESOURCE, jwt), {"public": True}), "127.0.0.1", 0) as open_to_all,
        HttpServing(make(ResourceServer(verify.RESOURCE, jwt), {"scopes": ["a"]}), "127.0.0.1", 0) as ruled,
    ):
        (fixed, _), (free, _), (guest, sink) = arrive(one), arrive(open_to_all), arrive(ruled)
        plain, public, scoped = asking(one, TOKEN), asking(open_to_all, bearer), asking(ruled, bearer)
        alone = lambda: fixed.data_received(plain)
        tokens = lambda: free.data_received(public)
        scopes = lambda: guest.data_received(scoped)
        for _ in range(3):
            alone(), tokens(), scopes()
        if b"42" not in sink.last:
            raise RuntimeError(sink.last)
        await bench.pair("a JWT that comes again, over a fixed token; rules and callers", tokens, nothing, alone)
        await bench.pair("  scopes of a tool, over public=True", scopes, nothing, tokens)
        proofs = [
            asking(ruled, bound, b"DPoP", b"\r\nDPoP: " + _proof(key, bound).encode())
            for _ in range((bench.rounds + 2) * bench.calls)
        ]
        waiting = iter(proofs)
        proven = lambda: guest.data_received(next(waiting))
        proven()
        if b"42" not in sink.last:
            raise RuntimeError(sink.last)
        await bench.pair("DPoP: a proof of each request, over a bearer token", proven, nothing, scopes)


def _proof(key, token):
    return key.proof("POST", verify.RESOURCE, access_token=token, now=time.time())


async def framed(bench, folder):
    """Framing and flow control of a WebSocket and of a Unix socket, over the conversation behind them."""
    body = call("add", {"a": 19, "b": 23})
    async with HttpServing(make(), "127.0.0.1", 0, token=TOKEN, websocket=WebSocketConfig()) as serving:
        listener, sink = serving.listener, Sink()
        place = listener.floods.join("127.0.0.1", listener.now(), lambda: None)
        shell = WebSocketShell(listener, place, lambda shell: duplex(serving.core, shell, LOCAL))
        shell.connection_made(sink)
        bare = duplex(serving.core, shell, LOCAL)
        bare.send = lambda message: None
        data = frame(body)
        whole, direct = (lambda: shell.data_received(data)), (lambda: bare.receive(body))
        whole(), direct()
        if b"42" not in sink.last:
            raise RuntimeError(sink.last)
        await bench.pair("WebSocket: frames, mask, UTF-8, meter, flow control", whole, nothing, direct)
    async with UnixServing(make(), UnixSocketConfig(str(folder / "c.sock"))) as serving:
        guest, sink = arrive(serving)
        bare = duplex(serving.core, guest, LOCAL)
        bare.send = lambda message: None
        data = body + b"\n"
        whole, direct = (lambda: guest.data_received(data)), (lambda: bare.receive(body))
        whole(), direct()
        if b"42" not in sink.last:
            raise RuntimeError(sink.last)
        await bench.pair("Unix socket: lines, meter, flow control", whole, nothing, direct)


async def encrypted(bench, folder):
    """TLS records: the request's is opened, the answer's is sealed. The kernel and the loop are in `transports.py`."""
    from tests.support.certs import Authority

    from garrison.transports.tls import Rotation

    authority = Authority(folder)
    leaf = authority.leaf()
    context = Rotation(TlsServerConfig(certificate=leaf.certificate, key=leaf.key)).context
    client_in, client_out, server_in, server_out = (ssl.MemoryBIO() for _ in range(4))
    client = ssl.create_default_context(cafile=authority.pem).wrap_bio(
        client_in, client_out, server_hostname="127.0.0.1"
    )
    server = context.wrap_bio(server_in, server_out, server_side=True)
    for _ in range(4):
        for end in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            server_in.write(client_out.read()), client_in.write(server_out.read())
    request, answer = post("127.0.0.1:8000", call("add", {"a": 19, "b": 23}), token=TOKEN), b"x" * 320
    sealed = []
    for _ in range((bench.rounds + 2) * bench.calls):
        client.write(request)
        sealed.append(client_out.read())
    records = iter(sealed)

    def secure():
        server_in.write(next(records))
        server.read(65536)
        server.write(answer)
        server_out.read()

    await bench.pair("TLS 1.3 records of a request and an answer", secure, nothing, lambda: None)


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    bench = Bench(max(7, args.rounds), args.calls)
    import logging

    logging.getLogger("garrison.security").addHandler(logging.StreamHandler(open("/dev/null", "w")))
    logging.getLogger("garrison.security").propagate = False
    with tempfile.TemporaryDirectory() as folder:
        await http(bench)
        await proxied(bench)
        await protected(bench)
        await framed(bench, Path(folder))
        await encrypted(bench, Path(folder))
    print("\n| control | us per call | middle half | of a call that takes |\n|---|---|---|---|")
    for name, whole, middle, low, high in bench.rows:
        print(f"| {name.strip()} | {middle:+.2f} | {low:+.2f} to {high:+.2f} | {whole:.1f} |")
    if args.json:
        keys = ("control", "call_us", "us", "low", "high")
        Path(args.json).write_text(json.dumps([dict(zip(keys, row, strict=True)) for row in bench.rows], indent=1))


if __name__ == "__main__":
    asyncio.run(main())
