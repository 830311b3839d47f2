"""Hostile peers, many kinds at once: floods with and without a token, malformed storms, slow readers, half-open
connections, resets in the middle of everything, and client processes that are killed.

    python -m soaking.hostile ADDRESSES [STRENGTH [KIND,...]]       (1.0 and all: as the numbers in `_KINDS` say)

Rules of this file:
- Each peer does the same again and again, from an address of its kind (127.0.3.x): what goes on one connection as fast as
  the server takes it, what needs a new one or an answer each time after `_PAUSE`. So the server is busy with them and not
  without any time left, in which case nothing it does could keep the others from waiting.
- It runs when nothing else on its core wants to (SCHED_IDLE), so that it does not take the CPU of those who are measured;
  with SOAK_EAGER in the environment it does, on a machine that is never idle.
- Whatever the server does to a hostile connection is fine; what a peer did is counted, once a second, on a line of JSON.
"""

import asyncio
import json
import os
import random
import signal
import socket
import ssl
import sys
from collections import Counter
from pathlib import Path

from .wire import call, frame, post, reset_on_close, upgrade

_PAUSE = 0.01
_ERRORS = (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError)
_GARBAGE = (
    b"\x00\x01\x02\x03" * 64,
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"POST /mcp HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0" + b"\x00" * 100,
)
_MALFORMED = (
    b"{",
    b"[" * 200,
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"a":1,"a":2}}',
    b'{"jsonrpc":"1.0","id":1,"method":"x"}',
    b'{"jsonrpc":"2.0","id":NaN,"method":"x"}',
    b'"\xff\xfe"',
    b'{"jsonrpc":"2.0","id":1,"result":{}}',
    b"[" + b"0," * 20_000 + b"0]",
)


class Hostile:
    """All hostile peers and what they did."""

    def __init__(self, at, addresses):
        self.at = at
        self.addresses = addresses
        self.token = at["token"]
        self.host = f"127.0.0.1:{at['http']}"
        self.did = Counter()
        self.tls = ssl.create_default_context(cafile=at["ca"])

    async def open(self, source, *, secure=False, small=False):
        """A connection from the address of this kind; `small` gives it hardly any room for what it does not read."""
        sock = socket.socket()
        sock.setblocking(False)
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((source, 0))
        try:
            port = self.at["https" if secure else "http"]
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return sock

    async def streams(self, source, *, secure=False, small=False):
        """The same, as a reader and a writer; with TLS where it is asked for."""
        sock = await self.open(source, secure=secure, small=small)
        options = {"ssl": self.tls, "server_hostname": "127.0.0.1"} if secure else {}
        try:
            return await asyncio.open_connection(sock=sock, **options)
        except BaseException:
            sock.close()
            raise

    async def websocket(self, source, *, secure=False):
        reader, writer = await self.streams(source, secure=secure)
        writer.write(upgrade(f"127.0.0.1:{self.at['https' if secure else 'http']}", self.token))
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    # Floods

    async def _pour(self, reader, writer, data, messages, what):
        """Send without waiting for answers, which are read and forgotten, and without caring for a goodbye."""

        async def drink():
            while await reader.read(1 << 16):
                pass

        drinking = asyncio.create_task(drink())
        writer.transport.set_write_buffer_limits(0)
        try:
            while not writer.is_closing():
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0)
                self.did[what if not drinking.done() else "flood.after the end"] += messages
        finally:
            drinking.cancel()
            writer.close()

    async def flood_http(self, source):
        """A valid token, and as many requests as one can send ahead."""
        batch = b"".join(post(self.host, call("add", {"a": n, "b": 1}, n), token=self.token) for n in range(32))
        reader, writer = await self.streams(source)
        await self._pour(reader, writer, batch, 32, "flood.http")

    async def flood_websocket(self, source):
        reader, writer = await self.websocket(source)
        batch = b"".join(frame(call("add", {"a": n, "b": 1}, n)) for n in range(32))
        await self._pour(reader, writer, batch, 32, "flood.websocket")

    async def flood_pings(self, source):
        """Control frames and fragments of one byte."""
        reader, writer = await self.websocket(source)
        batch = frame(b"x", 0x89) * 16 + frame(b" ", 0x01) + frame(b" ", 0x00) * 30 + frame(b"{", 0x80)
        await self._pour(reader, writer, batch, 17, "flood.frames")

    async def flood_unix(self, source):
        reader, writer = await asyncio.open_unix_connection(self.at["unix"])
        batch = b"".join(call("add", {"a": n, "b": 1}, n) + b"\n" for n in range(32))
        await self._pour(reader, writer, batch, 32, "flood.unix")

    async def flood_large(self, source):
        """Large messages that are read, parsed and answered. Each takes the loop as long as it is large."""
        reader, writer = await self.streams(source)
        data = post(self.host, call("echo", {"text": "x" * 1_000_000}), name="echo", token=self.token)
        await self._pour(reader, writer, data, 1, "flood.large")

    async def flood_unauthenticated(self, source):
        """No token, or a wrong one: a new connection each, as each is closed after its 401."""
        reader, writer = await self.streams(source)
        try:
            token = random.choice((None, "wrong-" + "x" * 30))
            writer.write(post(self.host, call("add", {"a": 1, "b": 1}), token=token))
            answer = await asyncio.wait_for(reader.read(4096), 5)
            self.did["flood.401" if b" 401 " in answer[:16] else "flood.other"] += 1
        finally:
            writer.close()

    # Malformed

    async def malformed_http(self, source):
        reader, writer = await self.streams(source)
        try:
            writer.write(random.choice(_GARBAGE))
            await asyncio.wait_for(reader.read(4096), 3)
            self.did["malformed.http"] += 1
        finally:
            writer.close()

    async def malformed_json(self, source):
        """On one connection for as long as it lasts."""
        reader, writer = await self.streams(source)
        try:
            while True:
                writer.write(post(self.host, random.choice(_MALFORMED), token=self.token))
                if not await asyncio.wait_for(reader.read(1 << 16), 5):
                    return
                self.did["malformed.json"] += 1
                await asyncio.sleep(_PAUSE)
        finally:
            writer.close()

    async def malformed_websocket(self, source):
        reader, writer = await self.websocket(source)
        try:
            bad = (
                frame(random.choice(_MALFORMED)),
                frame(b"\xff", 0x81),
                frame(b"x", 0x82),
                frame(b"x", 0xF1),
                frame(b"x", 0x80),
                b"\x81\x05hello",
                b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                frame(b"\x03", 0x88),
            )
            writer.write(random.choice(bad))
            await asyncio.wait_for(reader.read(1 << 16), 5)
            self.did["malformed.websocket"] += 1
        finally:
            writer.close()

    async def malformed_lines(self, source):
        reader, writer = await asyncio.open_unix_connection(self.at["unix"])
        try:
            while True:
                writer.write(random.choice(_MALFORMED) + b"\n")
                if not await asyncio.wait_for(reader.read(1 << 16), 5):
                    return
                self.did["malformed.lines"] += 1
                await asyncio.sleep(_PAUSE)
        finally:
            writer.close()

    # Slow

    async def slow_reader(self, source):
        """Asks for a long stream and reads nothing of it, or a few bytes a second."""
        reader_of = random.choice(("http", "websocket"))
        arguments = {"count": 2000, "size": 4096, "patient": random.random() < 0.5}
        body = json.loads(call("chatter", arguments))
        body["params"]["_meta"] = {**body["params"]["_meta"], "progressToken": "t"}
        body = json.dumps(body).encode()
        sock = await self.open(source, small=True)
        loop = asyncio.get_running_loop()
        try:
            if reader_of == "websocket":
                await loop.sock_sendall(sock, upgrade(self.host, self.token))
                await loop.sock_recv(sock, 1024)
                await loop.sock_sendall(sock, frame(body))
            else:
                await loop.sock_sendall(sock, post(self.host, body, name="chatter", token=self.token))
            self.did["slow.reader"] += 1
            trickle = random.random() < 0.5
            async with asyncio.timeout(40):
                while True:
                    await asyncio.sleep(1)
                    if trickle and not await loop.sock_recv(sock, 64):
                        return
        finally:
            sock.close()

    async def slow_writer(self, source):
        """A body that comes byte by byte."""
        reader, writer = await self.streams(source)
        try:
            writer.write(post(self.host, b"{", token=self.token, length=5000))
            self.did["slow.writer"] += 1
            async with asyncio.timeout(60):
                while not (reader.at_eof() or writer.is_closing()):
                    writer.write(b" ")
                    await asyncio.sleep(0.5)
        finally:
            writer.close()

    # Half-open

    async def half_open(self, source):
        """Something is begun and not ended: nothing at all, half a head, half a handshake, half a frame."""
        kind = random.choice(("nothing", "head", "tls", "tls.nothing", "frame", "frame.large"))
        if kind.startswith("frame"):
            reader, writer = await self.websocket(source)
            whole = frame(b"x" * (200_000 if kind == "frame.large" else 50))
            writer.write(whole[: len(whole) // 2])
        else:
            reader, writer = await self._bare(source, secure=kind.startswith("tls"))
            begun = {"head": post(self.host, b"{}")[:60], "tls": _hello()[:80]}
            writer.write(begun.get(kind, b""))
        self.did["half." + kind] += 1
        try:
            async with asyncio.timeout(random.uniform(5, 45)):
                while await reader.read(4096):
                    pass
        finally:
            writer.close()

    async def _bare(self, source, *, secure):
        return await asyncio.open_connection(sock=await self.open(source, secure=secure))

    # Kills

    async def reset(self, source):
        """A RST in the middle of a body, a stream, a WebSocket message, a TLS record or a session."""
        kind = random.choice(("body", "stream", "frame", "tls", "session"))
        secure = kind == "tls"
        if kind == "frame":
            reader, writer = await self.websocket(source)
        else:
            reader, writer = await self.streams(source, secure=secure)
        sock = writer.get_extra_info("socket")
        reset_on_close(sock)
        host = f"127.0.0.1:{self.at['https']}" if secure else self.host
        try:
            if kind == "body":
                writer.write(post(self.host, b"x" * 1000, token=self.token, length=100_000))
            elif kind == "frame":
                writer.write(frame(call("slow", {"seconds": 2.0})) + frame(b"x" * 5000)[:2500])
            elif kind == "session":
                writer.write(_initialize(self.host, self.token))
                await asyncio.wait_for(reader.read(4096), 5)
            else:
                body = call("chatter", {"count": 2000, "size": 512, "patient": True})
                body = body.replace(b'"_meta":{', b'"_meta":{"progressToken":1,')
                writer.write(post(host, body, name="chatter", token=self.token))
                await asyncio.wait_for(reader.read(2048), 5)
            await asyncio.sleep(random.uniform(0, 0.2))
            self.did["reset." + kind] += 1
        finally:
            writer.transport.abort()

    async def victim(self, source):
        """A process full of honest clients, killed at some moment."""
        process = await asyncio.create_subprocess_exec(
            *("nice", "-n", "10", sys.executable, "-m", "soaking.honest", self.addresses, "60"),
            cwd=Path(__file__).resolve().parents[1],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await process.stdout.readline()  # it is at work
            await asyncio.sleep(random.uniform(0, 4))
            self.did["victim.killed"] += process.returncode is None
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


_KINDS = {
    "flood_http": 32,
    "flood_websocket": 4,
    "flood_pings": 2,
    "flood_unix": 4,
    "flood_large": 1,
    "flood_unauthenticated": 4,
    "malformed_http": 2,
    "malformed_json": 2,
    "malformed_websocket": 2,
    "malformed_lines": 2,
    "slow_reader": 8,
    "slow_writer": 4,
    "half_open": 60,
    "reset": 2,
    "victim": 1,
}
"""Peers of each kind, at strength 1: together they keep a server busy for about two thirds of its time."""


def _hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def _initialize(host, token):
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}).encode()
    head = f"POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
    return f"{head}Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _again(peer, source, did):
    while True:
        try:
            await peer(source)
        except _ERRORS as exc:
            did["ended." + type(exc).__name__] += 1
        await asyncio.sleep(_PAUSE)


async def main():
    at = json.loads(Path(sys.argv[1]).read_text())
    strength = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    hostile = Hostile(at, sys.argv[1])
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    peers = []
    only = sys.argv[3].split(",") if len(sys.argv) > 3 else list(_KINDS)
    for number, (kind, count) in enumerate(_KINDS.items(), 1):
        if kind not in only:
            continue
        for _ in range(max(1, round(count * strength))):
            peers.append(asyncio.create_task(_again(getattr(hostile, kind), f"127.0.3.{number}", hostile.did)))
            await asyncio.sleep(0)
    while not stopping.is_set() and not any(peer.done() for peer in peers):
        try:
            await asyncio.wait_for(stopping.wait(), 1.0)
        except TimeoutError:
            print(json.dumps(hostile.did), flush=True)
    for peer in peers:
        peer.cancel()
    for result in await asyncio.gather(*peers, return_exceptions=True):
        if not isinstance(result, asyncio.CancelledError):
            raise result  # a mistake of ours


def step_back():
    """Let everybody else on this core go first; not so the victims, who are clients like others."""
    os.sched_setscheduler(0, os.SCHED_IDLE | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    try:
        Path("/proc/self/autogroup").write_text("19")  # where each session has a share of its own
    except OSError:
        pass


if __name__ == "__main__":
    if not os.environ.get("SOAK_EAGER"):
        step_back()
    try:
        import uvloop as loops
    except ImportError:
        loops = asyncio
    loops.run(main())
