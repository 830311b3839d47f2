#!/usr/bin/env python3
"""Samples a server under load with py-spy and says where the time goes.
profile.py PEER [MODE WIRE] [--secs 6]   (py-spy of the ceil venv; run as root or with ptrace allowed)"""

import collections
import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("bench_run", HERE.parent / "run.py")
R = importlib.util.module_from_spec(spec)
spec.loader.exec_module(R)


def pkg(frame):
    m = re.search(r"\(([^()]*?)(:\d+)?\)$", frame)
    f = m[1] if m else frame
    f = f.replace("\\", "/")
    for k in (
        "garrison",
        "msgspec",
        "uvicorn",
        "starlette",
        "anyio",
        "pydantic",
        "mcp_types",
        "mcp",
        "fastmcp",
        "sse_starlette",
        "jsonschema",
        "referencing",
        "opentelemetry",
        "asyncio",
        "json",
        "logging",
        "contextlib",
        "httpx2",
        "httpcore2",
        "typing",
        "inspect",
        "email",
        "uncalled_for",
        "key_value",
        "rpds",
        "attr",
        "dataclasses",
        "threading",
        "concurrent",
        "weakref",
        "uuid",
        "copy",
        "re",
        "abc",
        "enum",
        "functools",
        "contextvars",
    ):
        if re.search(rf"(^|/){k}(/|\.py|$)", f):
            return k
    return f


def main():
    a = [x for x in sys.argv[1:] if not x.startswith("--")]
    peer, mode, wire = a[0], a[1] if len(a) > 1 else "json", a[2] if len(a) > 2 else "modern"
    secs = 6
    srv = R.Server(peer, mode)
    srv.wait()
    with tempfile.TemporaryDirectory() as td:
        d = Path(td)
        nreq, exp = R.write_reqs(d, srv.port, "add", wire, 16)
        R.load_http(srv, d, nreq, exp, 16, 1, 0)
        pid = max(srv.pids(), key=lambda x: x[1])[0]
        pyspy = str(R.HOME / "v/ceil/bin/py-spy")
        ps = subprocess.Popen(
            [pyspy, "record", "-p", str(pid), "-d", str(secs), "-r", "250", "-f", "raw", "-F", "-o", f"{td}/p.txt"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        time.sleep(0.3)
        o = R.load_http(srv, d, nreq, exp, 16, secs, 0, tries=1)
        ps.wait(30)
        srv.stop()
        stacks = []
        for ln in open(f"{td}/p.txt"):
            st, _, n = ln.rstrip().rpartition(" ")
            st = st.split(";")
            if "Condition.wait" not in st[-1] and "Condition._acquire_restore" not in st[-1]:  # idle worker threads
                stacks.append((st, int(n)))
    tot = sum(n for _, n in stacks)
    selfp, selff, incl = collections.Counter(), collections.Counter(), collections.Counter()
    for st, n in stacks:
        selfp[pkg(st[-1])] += n
        selff[st[-1]] += n
        for f in set(st):
            incl[f] += n
    print(
        f"\n## profile {peer} {mode}/{wire}: {o['rps']:.0f} req/s while sampled, {o['cpu_us_per_req']} us CPU per request, {tot} samples"
    )
    print("self time by package: " + ", ".join(f"{k} {v / tot:.0%}" for k, v in selfp.most_common(16)))
    print("-- self time by function")
    for f, n in selff.most_common(22):
        print(f"  {n / tot:6.1%}  {f}")
    print("-- inclusive")
    for f, n in incl.most_common(75):
        print(f"  {n / tot:6.1%}  {f}")


if __name__ == "__main__":
    main()
