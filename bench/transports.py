#!/usr/bin/env python3
"""Throughput and CPU per call of `add` over every transport of one server, beside plain HTTP.

    uv run python bench/transports.py [--rounds 5] [--secs 1.0] [--conc 1,16] [--json FILE]

The server has one core and the load another, as in `run.py`. The load is one lean process: it sends bytes that were made
before and looks for the end of each answer. It may not be what is measured, so the table says how busy each end was: the
server's core is near 100 % where the server was the limit. All figures are medians of rounds that take turns.
"""

import argparse
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = Path(os.environ.get("BENCH_PROJECT", HERE.parent))
sys.path[:0] = [str(PROJECT / "src"), str(HERE), str(HERE.parent)]

from soaking.wire import Line, frame_answer, http_answer, line_answer

SRV_CPU, LOAD_CPU = os.environ.get("BENCH_SRV_CPU", "0"), os.environ.get("BENCH_LOAD_CPU", "1")
KINDS = ("http", "https", "websocket", "wss", "unix", "http-unix")
LABELS = {
    "http": "HTTP",
    "https": "HTTPS (TLS 1.3)",
    "websocket": "WebSocket",
    "wss": "WebSocket over TLS",
    "unix": "Unix socket, one message a line",
    "http-unix": "HTTP over a Unix socket",
}
TOKEN = "a-token-that-is-long-enough-0123456789abcdef"


def serve(folder):
    """All transports in one process, with the limits and rates of `peer.py`."""
    import asyncio
    from contextlib import AsyncExitStack

    from garrison import SecurityPolicy, Server
    from garrison.policy.tls import TlsServerConfig
    from garrison.policy.transports import UnixSocketConfig, WebSocketConfig
    from garrison.server.serve import _loop_factory
    from peer import ABOVE_THE_LOAD, RATES_ABOVE

    server = Server("transports", policy=SecurityPolicy(limits=ABOVE_THE_LOAD, rates=RATES_ABOVE))

    @server.tool(inline=True)
    def add(a: int, b: int) -> int:
        return a + b

    async def main():
        tls = TlsServerConfig(certificate=folder / "leaf.pem", key=folder / "leaf.key")
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            plain = await enter(server.http(port=0, token=TOKEN, websocket=WebSocketConfig()))
            secure = await enter(server.http(port=0, token=TOKEN, websocket=WebSocketConfig(), tls=tls))
            local = await enter(server.http(token=TOKEN, unix=UnixSocketConfig(str(folder / "http.sock"))))
            lines = await enter(server.unix(str(folder / "lines.sock")))
            at = {"http": plain.port, "https": secure.port, "http-unix": local.unix.path, "unix": lines.config.path}
            print(json.dumps({**at, "token": TOKEN, "ca": str(folder / "ca.pem")}), flush=True)
            await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())


def load(at, kind, count, seconds):
    """One window: `count` connections, one call at a time on each. Prints what was done."""
    lines = [Line(kind, at) for _ in range(count)]
    whole = line_answer if kind == "unix" else frame_answer if kind in ("websocket", "wss") else http_answer
    data = lines[0].request("add", {"a": 19, "b": 23}, 10_000_000)
    poll = select.epoll()
    by_number = {}
    for line in lines:
        if kind != "unix" and kind != "http-unix":
            line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.ask("add", {"a": 19, "b": 23}, 10_000_000)
        line.sock.setblocking(False)
        by_number[line.sock.fileno()] = (line.sock, bytearray())
        poll.register(line.sock.fileno(), select.EPOLLIN)
    began, done, wrong, took, sent = time.perf_counter(), 0, 0, [], {}
    cpu = time.process_time()
    for number, (sock, _) in by_number.items():
        sent[number] = time.perf_counter()
        sock.send(data)
    while True:
        now = time.perf_counter()
        if now - began >= seconds:
            break
        for number, _ in poll.poll(0.1):
            sock, held = by_number[number]
            while True:  # a TLS record may hold more than the poll knows of
                try:
                    held += sock.recv(65536)
                except (BlockingIOError, OSError):
                    break
                if whole(held):
                    break
            end = whole(held)
            if not end:
                continue
            wrong += b"42" not in held[:end]
            del held[:end]
            now = time.perf_counter()
            took.append(now - sent[number])
            done += 1
            sent[number] = now
            sock.send(data)
    spent = time.perf_counter() - began
    took.sort()
    print(
        json.dumps(
            {
                "rps": done / spent,
                "wrong": wrong,
                "p50_us": took[len(took) // 2] * 1e6,
                "p99_us": took[int(len(took) * 0.99)] * 1e6,
                "load_busy": (time.process_time() - cpu) / spent,
                "done": done,
            }
        )
    )


def on_cpu(process):
    """Seconds a process was on a CPU."""
    tasks = Path(f"/proc/{process.pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


def measure(args, folder):
    from tests.support.certs import Authority

    authority = Authority(folder)
    leaf = authority.leaf()
    authority.pem.rename(folder / "ca.pem")
    leaf.certificate.rename(folder / "leaf.pem")
    leaf.key.rename(folder / "leaf.key")
    me = [sys.executable, str(HERE / "transports.py")]
    server = subprocess.Popen(["taskset", "-c", SRV_CPU, *me, "--serve", str(folder)], stdout=subprocess.PIPE)
    try:
        at = json.loads(server.stdout.readline())
        results = {}
        for turn in range(args.rounds + 1):
            for count in args.conc:
                order = KINDS[turn % len(KINDS) :] + KINDS[: turn % len(KINDS)]
                for kind in order:
                    before = on_cpu(server)
                    given = json.dumps([at, kind, count, args.secs])
                    run = subprocess.run(
                        ["taskset", "-c", LOAD_CPU, *me, "--load", given], capture_output=True, text=True
                    )
                    if run.returncode:
                        raise RuntimeError(f"{kind}: {run.stderr[-600:]}")
                    row = json.loads(run.stdout)
                    used = on_cpu(server) - before
                    row |= {"cpu_us": used / max(1, row["done"]) * 1e6, "server_busy": used / args.secs}
                    if row["wrong"]:
                        raise RuntimeError(f"{kind}: {row['wrong']} wrong answers")
                    if turn:  # the first warms up
                        results.setdefault((kind, count), []).append(row)
        return results
    finally:
        server.kill()
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secs", type=float, default=1.0)
    parser.add_argument("--conc", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
    elif args.load:
        load(*args.load)
    else:
        with tempfile.TemporaryDirectory() as folder:
            results = measure(args, Path(folder))
        middle = {
            key: {name: statistics.median(row[name] for row in rows) for name in rows[0]}
            for key, rows in results.items()
        }
        head = "".join(f" c{n} calls/s | p50 us | CPU us | x HTTP | server, load busy % |" for n in args.conc)
        print(f"| transport |{head}\n|---|{'---|' * 5 * len(args.conc)}")
        for kind in KINDS:
            cells = []
            for n in args.conc:
                row = middle[kind, n]
                cells.append(
                    f" {row['rps']:,.0f} | {row['p50_us']:.0f} | {row['cpu_us']:.1f} | "
                    f"{row['rps'] / middle['http', n]['rps']:.2f} | {row['server_busy']:.0%}, {row['load_busy']:.0%} |"
                )
            print(f"| {LABELS[kind]} |{''.join(cells)}")
        if args.json:
            Path(args.json).write_text(json.dumps({f"{k}@{n}": rows for (k, n), rows in results.items()}, indent=1))


if __name__ == "__main__":
    main()
