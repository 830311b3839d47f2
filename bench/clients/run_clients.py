#!/usr/bin/env python3
"""Client-side overhead of each SDK against the same cheap servers (ceilings). Same environment variables as run.py."""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("bench_run", HERE.parent / "run.py")
R = importlib.util.module_from_spec(spec)
spec.loader.exec_module(R)
ONLY = [x for x in os.environ.get("CLIENTS", "").split(",") if x]
ROUNDS, SECS = int(os.environ.get("ROUNDS", 3)), os.environ.get("SECS", "1.0")
VENV = {
    "garrison": None,
    "mcp2": "mcp2",
    "mcp1": "mcp1",
    "fastmcp": "fastmcp",
    "raw": "ceil",
    "httpx": "mcp1",
    "httpx2": "mcp2",
    "aiohttp": "aiomcp",
}
CASES = [
    (s, t)
    for t in ("memory", "stdio", "http")
    for s in VENV
    if (t == "http" or s in ("garrison", "mcp2", "mcp1", "fastmcp", "raw"))
    and not (t == "memory" and s == "raw")
    and (not ONLY or s in ONLY)
]


def python_of(sdk):
    """The interpreter with this SDK: a peer's own environment, or the project's for Garrison (None)."""
    if VENV[sdk]:
        return str(R.HOME / "v" / VENV[sdk] / "bin/python")
    return R.cmd_for("garrison", "stdio", 0, "json", 0)[0]


def main():
    srv = R.Server("ceil-raw-asyncio")
    srv.wait()
    res = {}
    for _ in range(ROUNDS):
        for s, t in CASES:
            target = (
                f"http://127.0.0.1:{srv.port}/mcp"
                if t == "http"
                else " ".join(["taskset", "-c", R.SRV_CPU, *R.cmd_for("ceil-stdio", "stdio", 0, "json", 0)])
                if t == "stdio"
                else "-"
            )
            o = subprocess.run(
                [
                    "taskset",
                    "-c",
                    R.LOAD_CPU,
                    python_of(s),
                    str(HERE / "client_bench.py"),
                    s,
                    t,
                    target,
                    SECS,
                ],
                capture_output=True,
                text=True,
                timeout=90,
                start_new_session=True,
                preexec_fn=R.pre,
            )
            if o.returncode or not o.stdout:
                print("#", s, t, o.stderr[-700:], file=sys.stderr)
                continue
            res.setdefault((s, t), []).append(json.loads(o.stdout.strip().splitlines()[-1]))
    srv.stop()
    m = lambda k, f: R.num(statistics.median(x[f] for x in res[k]), 0)
    fs = ["c1_calls_s", "c1_cpu_us", "c16_calls_s", "c16_cpu_us", "connect_first_ms", "rss_mb"]
    print("\n## clients (medians; c1 = sequential, c16 = 16 calls in flight)")
    R.table(["client", "transport", *fs], [[s, t, *[m((s, t), f) for f in fs]] for s, t in CASES if (s, t) in res])
    if os.environ.get("BENCH_OUT"):
        (Path(os.environ["BENCH_OUT"]) / ("clients" + ("-" + "-".join(ONLY) if ONLY else "") + ".json")).write_text(
            json.dumps({f"{s}/{t}": v for (s, t), v in res.items()}, indent=1)
        )


if __name__ == "__main__":
    main()
