"""The well-behaved client whose waiting is measured: one call at a time, on a connection of each transport.

    python -m soaking.probe ADDRESSES RATE        (calls a second, all transports together)

It blocks on plain sockets, so that nothing of its own stands between a call and its answer. Each second it prints a
line of JSON: microseconds of every call by transport, what was not answered, and how long it waited for a CPU itself.
"""

import json
import random
import signal
import sys
import time
from pathlib import Path

from .wire import Line

KINDS = ("http", "https", "websocket", "unix")
SOURCE = "127.0.2.1"
TIMEOUT = 10.0


def waited():
    """Milliseconds this process was runnable and had no CPU."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e6


def main():
    at = json.loads(Path(sys.argv[1]).read_text())
    pause = 1.0 / float(sys.argv[2])
    running = True

    def stop(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    lines, number = {}, 0
    took, lost, since, cpu = {kind: [] for kind in KINDS}, [], time.monotonic(), waited()
    while running:
        for kind in KINDS:
            number += 1
            began = time.perf_counter()
            try:
                line = lines.get(kind) or lines.setdefault(kind, Line(kind, at, SOURCE, TIMEOUT))
                began = time.perf_counter()
                if b'"isError":true' in line.ask("add", {"a": number, "b": 1}, number):
                    lost.append(f"{kind}: error")
                took[kind].append(round((time.perf_counter() - began) * 1e6))
            except (OSError, ValueError) as exc:
                lost.append(f"{kind}: {type(exc).__name__} {exc} after {time.perf_counter() - began:.1f} s")
                if kind in lines:
                    lines.pop(kind).close()
            time.sleep(pause * random.uniform(0.5, 1.5))
        if time.monotonic() - since >= 1.0:
            now = waited()
            print(json.dumps({"took": took, "lost": lost, "waited_ms": round(now - cpu, 1)}), flush=True)
            took, lost, since, cpu = {kind: [] for kind in KINDS}, [], time.monotonic(), now


if __name__ == "__main__":
    main()
