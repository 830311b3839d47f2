#!/usr/bin/env python3
"""Benchmarks MCP servers side by side. See README.md. Needs Python >= 3.11, the standard library only, Linux.

run.py http   [--peers a,b] [--cells json/modern,default/session] [--conc 1,16,64] [--payload add|echo:102400] [--rounds 3] [--secs 1.5]
run.py stdio  [--peers ..] [--windows 1,64] [--rounds 3]
run.py cold   [--peers ..] [--rounds 7]         process start -> first answer (stdio and HTTP), import time, RSS
run.py mem    [--peers ..]                      RSS idle, after 10k calls, per 1000 sessions / open streams
run.py list   [--peers ..] [--ntools 1000]      tools/list of many tools; tools/call on such a server
run.py one    --cmd "python srv.py {port}" ...  any server command (must serve /mcp with tools add and echo)
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ.get("BENCH_HOME", HERE / ".home"))
PROJECT = Path(os.environ.get("BENCH_PROJECT", HERE.parent))
LOAD = Path(os.environ.get("BENCH_LOAD", HOME / "mcpload"))
SRV_CPU, LOAD_CPU = os.environ.get("BENCH_SRV_CPU", "0"), os.environ.get("BENCH_LOAD_CPU", "1")
NICE = []


def pre():
    """BENCH_NICE=-20 on a machine shared with other work: give this session's scheduling group that weight."""
    if os.environ.get("BENCH_NICE"):
        try:
            os.nice(int(os.environ["BENCH_NICE"]))
            Path("/proc/self/autogroup").write_text(os.environ["BENCH_NICE"])
        except OSError:
            pass


GAP = float(os.environ.get("BENCH_GAP", "0"))  # idle seconds after each load window, to leave a shared machine some air
PIN_SRV, PIN_LOAD = [*NICE, "taskset", "-c", SRV_CPU], [*NICE, "taskset", "-c", LOAD_CPU]
TCK = os.sysconf("SC_CLK_TCK")
PEERS = tomllib.loads((HERE / "peers.toml").read_text())
V26, V25 = "2026-07-28", "2025-11-25"
META = {
    "io.modelcontextprotocol/protocolVersion": V26,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1.0.0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
ID = "@@ID@@@@"
TOKEN = os.environ.setdefault(
    "BENCH_TOKEN", "bench-token-0123456789abcdefghijklmnopqrstuvwxyz"
)  # sent to every peer; one that asks for a token is started with it


def build_load():
    if not LOAD.exists() or LOAD.stat().st_mtime < (HERE / "load/mcpload.c").stat().st_mtime:
        LOAD.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O2", "-w", "-o", str(LOAD), str(HERE / "load/mcpload.c")], check=True)


def body(method, params=None, modern=False, mid=ID):
    p = dict(params or {})
    if modern:
        p["_meta"] = META
    m = {"jsonrpc": "2.0", "id": mid, "method": method, "params": p}
    if mid is None:
        del m["id"]
    return json.dumps(m, separators=(",", ":")).replace(f'"{ID}"', ID)


def http_req(port, method, params, wire, session=None):
    modern = wire == "modern"
    b = body(method, params, modern).encode()
    h = [
        "POST /mcp HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        f"MCP-Protocol-Version: {V26 if modern else V25}",
    ]
    if modern:
        h.append(f"Mcp-Method: {method}")
        if n := (params or {}).get("name"):
            h.append(f"Mcp-Name: {n}")
    h.append(f"Authorization: Bearer {TOKEN}")
    if session:
        h.append(f"Mcp-Session-Id: {session}")
    h.append(f"Content-Length: {len(b)}")
    return "\r\n".join(h).encode() + b"\r\n\r\n" + b


def payload(name):
    if name.startswith("echo:"):
        n = int(name[5:])
        return "tools/call", {"name": "echo", "arguments": {"text": "x" * n}}, "x" * 64
    if name == "list":
        return "tools/list", {}, '"tools"'
    if name == "ping":
        return "ping", {}, '"result"'
    return "tools/call", {"name": "add", "arguments": {"a": 19, "b": 23}}, "42"


class Server:
    def __init__(self, name, mode="json", ntools=0, cmd=None, quiet=True):
        PEERS.get(name, {})
        self.name, self.mode = name, mode
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        self.port = s.getsockname()[1]
        s.close()
        argv = (
            cmd_for(name, "http", self.port, mode, ntools)
            if cmd is None
            else [a.replace("{port}", str(self.port)).replace("{mode}", mode) for a in shlex.split(cmd)]
        )
        self.err = tempfile.TemporaryFile()
        self.t0 = time.perf_counter()
        self.proc = subprocess.Popen(
            [*PIN_SRV, *argv],
            stdin=subprocess.DEVNULL,
            stdout=self.err,
            stderr=self.err,
            start_new_session=True,
            preexec_fn=pre,
            env=env_for(name),
            cwd=HERE / "peers",
        )
        self.ready_ms = None

    def tail(self):
        self.err.seek(0)
        return self.err.read()[-1500:].decode(errors="replace")

    def wait(self, timeout=25, probe=None):
        """Polls until a real request is answered; returns ms from start."""
        while time.perf_counter() - self.t0 < timeout:
            if self.proc.poll() is not None:
                raise RuntimeError(f"{self.name} exited {self.proc.returncode}: {self.tail()}")
            try:
                s = socket.create_connection(("127.0.0.1", self.port), 5)
            except OSError:
                time.sleep(0.002)
                continue
            with s:
                if probe:
                    s.sendall(probe.replace(ID.encode(), b"10000000"))
                    try:
                        if not s.recv(65536):
                            continue
                    except OSError:
                        continue
            self.ready_ms = (time.perf_counter() - self.t0) * 1000
            return self.ready_ms
        raise RuntimeError(f"{self.name} not up: {self.tail()}")

    def pids(self):
        out = []
        for d in os.listdir("/proc"):
            if d.isdigit():
                try:
                    st = open(f"/proc/{d}/stat").read().rsplit(")", 1)[1].split()
                    if int(st[3]) == self.proc.pid:
                        out.append((int(d), int(st[11]) + int(st[12])))
                except (OSError, IndexError):
                    pass
        return out

    def cpu(self):
        """(seconds on CPU, seconds runnable but waiting for the CPU), all threads of the process tree."""
        on = wait = ticks = 0
        for pid, tk in self.pids():
            ticks += tk
            try:
                for t in os.listdir(f"/proc/{pid}/task"):
                    x = open(f"/proc/{pid}/task/{t}/schedstat").read().split()
                    on += int(x[0])
                    wait += int(x[1])
            except OSError:
                pass
        return max(on / 1e9, ticks / TCK - 0.02), wait / 1e9  # ticks also count threads that have ended

    def rss(self):
        kb = 0
        for pid, _ in self.pids():
            try:
                m = re.search(r"^Pss:\s+(\d+)", open(f"/proc/{pid}/smaps_rollup").read(), re.M)
                kb += int(m[1])
            except (OSError, TypeError):
                pass
        return kb / 1024

    def stop(self):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.proc.pid, sig)
            except ProcessLookupError:
                break
            try:
                self.proc.wait(2)
            except subprocess.TimeoutExpired:
                continue
            if not self.pids():
                break
        self.proc.wait(5)


def py_of(m):
    return str(HOME / "v" / m[1] / "bin" / "python")


def cmd_for(name, transport, port, mode, ntools):
    c = [
        re.sub(r"\{py:([^}]+)\}", py_of, a)
        .replace("{peers}", str(HERE / "peers"))
        .replace("{project}", str(PROJECT))
        .replace("{venv}", os.environ.get("BENCH_VENV", ".venv"))
        for a in PEERS[name]["cmd"]
    ]
    return c + [transport, str(port), mode, str(ntools)]


def env_for(name):
    e = {
        **os.environ,
        "BENCH_HOME": str(HOME),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONUNBUFFERED": "1",
        "NODE_ENV": "production",
    }
    e.update(PEERS.get(name, {}).get("env", {}))
    return e


def post(port, method, params, wire, session=None, timeout=10, mid=10000000):
    """One request with the standard library; returns (status, headers, body)."""
    import http.client

    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    raw = http_req(port, method, params, wire, session)
    head, b = raw.split(b"\r\n\r\n", 1)
    hs = dict(l.split(": ", 1) for l in head.decode().split("\r\n")[1:])
    b = b.replace(ID.encode(), str(mid).encode())
    if mid is None:
        b = body(method, params, False, None).encode()
        hs["Content-Length"] = str(len(b))
    c.request("POST", "/mcp", b, hs)
    r = c.getresponse()
    out = (r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
    c.close()
    return out


def new_session(port):
    st, h, b = post(
        port,
        "initialize",
        {"protocolVersion": V25, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
        "legacy",
    )
    if st != 200:
        raise RuntimeError(f"initialize: {st} {b[:300]}")
    sid = h.get("mcp-session-id")
    post(port, "notifications/initialized", {}, "legacy", sid, mid=None)
    return sid


def write_reqs(dirp, port, pay, wire, n):
    method, params, expect = payload(pay)
    nreq = n if wire == "session" else 1
    for i in range(nreq):
        sid = new_session(port) if wire == "session" else None
        (dirp / f"req-{i}").write_bytes(http_req(port, method, params, wire, sid))
    return nreq, expect


def steal():
    """Seconds the hypervisor took from the two cores in use."""
    t = 0
    for ln in open("/proc/stat"):
        f = ln.split()
        if f[0] in (f"cpu{SRV_CPU}", f"cpu{LOAD_CPU}") and len(f) > 8:
            t += int(f[8])
    return t / TCK


def load_http(srv, dirp, nreq, expect, conc, secs, warm, tries=2):
    """One load window; on a busy machine windows in which server or load had to wait for a CPU are tried again."""
    best = None
    for _ in range(tries):
        c0, w0 = srv.cpu()
        s0 = steal()
        t0 = time.perf_counter()
        r = subprocess.run(
            [
                *PIN_LOAD,
                str(LOAD),
                "http",
                "--port",
                str(srv.port),
                "--reqdir",
                str(dirp),
                "--nreq",
                str(nreq),
                "--conc",
                str(conc),
                "--secs",
                str(secs),
                "--warm",
                str(warm),
                "--expect",
                expect,
            ],
            capture_output=True,
            timeout=secs + warm + 20,
            start_new_session=True,
            preexec_fn=pre,
        )
        dt = time.perf_counter() - t0
        c1, w1 = srv.cpu()
        if not r.stdout:
            return {"error": r.stderr.decode()[:500]}
        d = json.loads(r.stdout)
        d["server_cpu_pct"] = round((c1 - c0) / dt * 100, 1)
        d["server_wait_pct"] = round((w1 - w0) / dt * 100, 1)
        d["load_wait_pct"] = round(d["load_wait_ms"] / 10 / dt, 1)
        d["steal_pct"] = round((steal() - s0) / dt * 100, 1)
        d["cpu_us_per_req"] = round((c1 - c0) * 1e6 / d["all_requests"], 2) if d["all_requests"] else None
        if r.stderr:
            d["note"] = r.stderr.decode(errors="replace")[:400]
        time.sleep(GAP)
        d["contended"] = round(max(0, d["server_wait_pct"]) + d["load_wait_pct"] + d["steal_pct"], 1)
        if best is None or d["contended"] < best["contended"]:
            best = d
        if best["contended"] < 15 or not d["requests"]:
            break
    return best


def med(rows, k):
    v = [r[k] for r in rows if r.get(k) is not None]
    return statistics.median(v) if v else None


def table(headers, rows):
    w = [max(len(str(x)) for x in col) for col in zip(headers, *rows)] if rows else [len(h) for h in headers]
    f = lambda r: (
        "| " + " | ".join(str(x).ljust(w[i]) if i == 0 else str(x).rjust(w[i]) for i, x in enumerate(r)) + " |"
    )
    print("\n".join([f(headers), "|" + "|".join("-" * (x + 2) for x in w) + "|", *map(f, rows)]), flush=True)


def num(x, d=0):
    return "-" if x is None else f"{x:,.{d}f}"


def save(args, name, data):
    if args.out:
        p = Path(args.out)
        p.mkdir(parents=True, exist_ok=True)
        (p / f"{name}.json").write_text(json.dumps(data, indent=1))


def select(args, need):
    names = args.peers.split(",") if args.peers else [n for n, p in PEERS.items() if need(p)]
    return [n for n in names if n in PEERS and need(PEERS[n])]


def cmd_http(args):
    allres = {}
    concs = [int(c) for c in args.conc.split(",")]
    for cell in args.cells.split(","):
        mode, wire = cell.split("/")
        names = (
            ["cmd"] if args.cmd else select(args, lambda p: mode in p.get("modes", []) and wire in p.get("wires", []))
        )
        with tempfile.TemporaryDirectory() as td:
            live = {}
            for n in names:
                s = Server(n, mode, args.ntools, cmd=args.cmd)
                try:
                    s.wait()
                    d = Path(td) / n
                    d.mkdir()
                    nreq, expect = write_reqs(d, s.port, args.payload, wire, max(concs))
                    live[n] = (s, d, nreq, expect)
                    w = load_http(s, d, nreq, expect, min(4, max(concs)), 0.7, 0.2)  # warm up
                    if w.get("errors") or not w.get("requests"):
                        print(f"# {n} {cell}: {w}", file=sys.stderr)
                except Exception as e:
                    print(f"# {n} {cell} left out: {e}", file=sys.stderr)
                    s.stop()
            res = {}
            order = list(live)
            for rnd in range(args.rounds):
                order = order[1:] + order[:1]
                for c in concs:
                    for n in order:
                        s, d, nreq, expect = live[n]
                        res.setdefault((n, c), []).append(load_http(s, d, nreq, expect, c, args.secs, 0.2))
            for s, *_ in live.values():
                s.stop()
        print(
            f"\n## HTTP {cell} payload={args.payload} (median of {args.rounds} rounds x {args.secs}s, server on one core)"
        )
        base = {c: med(res.get((args.base, c), []), "rps") for c in concs}
        rows = []
        for n in live:
            row = [PEERS.get(n, {}).get("label", n)]
            for c in concs:
                r = res[(n, c)]
                rps = med(r, "rps")
                row += [
                    num(rps),
                    num(med(r, "p50_us")),
                    num(med(r, "p99_us")),
                    num(med(r, "cpu_us_per_req")),
                    num(med(r, "contended")),
                ]
                if base[c]:
                    row.append(num(rps / base[c], 2) if rps is not None else "-")
            e = sum(x.get("errors", 0) for c in concs for x in res[(n, c)])
            rows.append(row + [e])
        h = ["peer"]
        for c in concs:
            h += [f"rps c{c}", "p50us", "p99us", "cpu us/req", "cont%"] + (["x base"] if base[c] else [])
        rows.sort(key=lambda r: r[0].startswith("ceil"))
        table(h + ["errors"], rows)
        allres[cell] = {f"{n}@{c}": v for (n, c), v in res.items()}
    save(
        args,
        f"http-{args.payload.replace(':', '')}-t{args.ntools}-{args.cells.replace('/', '_').replace(',', '+')}"
        + (f"-{args.tag}" if args.tag else ""),
        allres,
    )


def stdio_setup(wire, d):
    init = body(
        "initialize",
        {"protocolVersion": V25, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
        mid=1,
    )
    note = body("notifications/initialized", mid=None)
    if wire == "modern":
        init, note = body("server/discover", {}, True, mid=1), None
    (d / "setup").write_text(init + "\n" + (note + "\n" if note else ""))


def load_stdio(name, d, window, secs, warm, expect, ntools=0):
    r = subprocess.run(
        [
            *PIN_LOAD,
            str(LOAD),
            "stdio",
            "--setup",
            str(d / "setup"),
            "--nsetup",
            "1",
            "--req",
            str(d / "req"),
            "--window",
            str(window),
            "--secs",
            str(secs),
            "--warm",
            str(warm),
            "--expect",
            expect,
            "--",
            *PIN_SRV,
            *cmd_for(name, "stdio", 0, "json", ntools),
        ],
        capture_output=True,
        timeout=100,
        start_new_session=True,
        preexec_fn=pre,
        env=env_for(name),
        cwd=HERE / "peers",
    )
    if not r.stdout:
        return {"error": r.stderr.decode()[:500]}
    o = json.loads(r.stdout)
    o["cpu_us_per_req"] = round(o["server_cpu_s"] * 1e6 / (o["rps"] * secs), 2) if o["rps"] else None
    time.sleep(GAP)
    if r.stderr and not o["requests"]:
        o["note"] = r.stderr.decode(errors="replace")[-600:]
    return o


def cmd_stdio(args):
    wins = [int(w) for w in args.windows.split(",")]
    allres = {}
    for wire in args.wires.split(","):
        names = select(args, lambda p: p.get("stdio"))
        if wire == "modern":
            names = [n for n in names if "modern" in PEERS[n].get("wires", ["modern"])]
        res = {}
        with tempfile.TemporaryDirectory() as td:
            d = Path(td)
            method, params, expect = payload(args.payload)
            (d / "req").write_text(body(method, params, wire == "modern") + "\n")
            stdio_setup(wire, d)
            for rnd in range(args.rounds):
                names = names[1:] + names[:1]
                for w in wins:
                    for n in names:
                        o = load_stdio(n, d, w, args.secs, 0.4, expect)
                        if o.get("error") or o.get("note"):
                            print(f"# {n}: {o}", file=sys.stderr)
                        res.setdefault((n, w), []).append(o)
        print(f"\n## stdio wire={wire} payload={args.payload}")
        rows = []
        base = {w: med(res.get((args.base, w), []), "rps") for w in wins}
        for n in [x for x in PEERS if x in names]:
            row = [PEERS[n]["label"]]
            for w in wins:
                r = res[(n, w)]
                row += [num(med(r, "rps")), num(med(r, "p50_us")), num(med(r, "p99_us")), num(med(r, "cpu_us_per_req"))]
                if base[w]:
                    row.append(num((med(r, "rps") or 0) / base[w], 2))
            rows.append(row + [sum(x.get("errors", 0) for w in wins for x in res[(n, w)])])
        h = ["peer"]
        for w in wins:
            h += [f"rt/s w{w}", "p50us", "p99us", "cpu us/req"] + (["x base"] if base[w] else [])
        table(h + ["errors"], rows)
        allres[wire] = {f"{n}@{w}": v for (n, w), v in res.items()}
    save(args, f"stdio-{args.payload.replace(':', '')}", allres)


def cmd_cold(args):
    names = select(args, lambda p: True)
    res = {n: [] for n in names}
    with tempfile.TemporaryDirectory() as td:
        d = Path(td)
        (d / "req").write_text(body("tools/call", payload("add")[1]) + "\n")
        stdio_setup("legacy", d)
        for rnd in range(args.rounds + 1):
            for n in names:
                p, row = PEERS[n], {}
                if p.get("stdio"):
                    o = load_stdio(n, d, 1, 0.05, 0, "42")
                    row["stdio_ms"], row["stdio_rss_mb"] = o.get("first_answer_ms"), (o.get("rss_kb") or 0) / 1024
                if p.get("modes"):
                    s = Server(n, "json")
                    try:
                        w = p["wires"][0]
                        pr = (
                            http_req(s.port, "tools/list", {}, w)
                            if w != "session"
                            else http_req(
                                s.port,
                                "initialize",
                                {
                                    "protocolVersion": V25,
                                    "capabilities": {},
                                    "clientInfo": {"name": "b", "version": "1"},
                                },
                                "legacy",
                            )
                        )
                        row["http_ms"] = s.wait(probe=pr)
                        row["http_rss_mb"] = s.rss()
                    except Exception as e:
                        print(f"# {n}: {e}", file=sys.stderr)
                    s.stop()
                if p.get("import"):
                    py = cmd_for(n, "stdio", 0, "json", 0)[0]
                    code = (
                        "import time,sys;n0=len(sys.modules);t=time.perf_counter();%s;print((time.perf_counter()-t)*1000,len(sys.modules)-n0)"
                        % p["import"]
                    )
                    o = subprocess.run(
                        [*PIN_SRV, py, "-c", code],
                        capture_output=True,
                        text=True,
                        cwd=td,
                        start_new_session=True,
                        preexec_fn=pre,
                    )
                    if o.stdout:
                        row["import_ms"], row["modules"] = map(float, o.stdout.split()[-2:])
                if rnd:  # round 0 writes bytecode and warms the page cache
                    res[n].append(row)
    keys = ["import_ms", "modules", "stdio_ms", "stdio_rss_mb", "http_ms", "http_rss_mb"]
    print(f"\n## cold start (median of {args.rounds}; process start -> first answer)")
    table(["peer", *keys], [[PEERS[n]["label"], *[num(med(res[n], k), 1) for k in keys]] for n in names])
    save(args, "cold", res)


def cmd_mem(args):
    names = select(args, lambda p: p.get("modes"))
    res = {}
    for n in names:
        p = PEERS[n]
        row = {}
        with tempfile.TemporaryDirectory() as td:
            d = Path(td)
            mode = "json"
            wire = p["wires"][0]
            try:
                s = Server(n, mode)
                s.wait()
                time.sleep(0.5)
                row["idle_mb"] = s.rss()
                nreq, expect = write_reqs(d, s.port, "add", wire, 16)
                total = 0
                while total < 10000 and time.perf_counter() - s.t0 < 40:
                    r = load_http(s, d, nreq, expect, 16, 2, 0)
                    total += r.get("requests", 0)
                    if not r.get("requests"):
                        break
                row["calls"] = total
                row["after_mb"] = s.rss()
                s.stop()
            except Exception as e:
                print(f"# {n}: {e}", file=sys.stderr)
                s.stop()
            if "session" in p["wires"]:
                s = Server(n, "default" if "default" in p["modes"] else p["modes"][0])
                try:
                    s.wait()
                    for _ in range(5):
                        new_session(s.port)
                    a, t = s.rss(), time.perf_counter()
                    k = 0
                    while k < args.n and time.perf_counter() - t < 25:
                        new_session(s.port)
                        k += 1
                    row["session_kb"] = (s.rss() - a) * 1024 / max(k, 1)
                    row["sessions_per_s"] = k / (time.perf_counter() - t)
                    row["sessions"] = k
                except Exception as e:
                    print(f"# {n} sessions: {e}", file=sys.stderr)
                s.stop()
            if "modern" in p["wires"] and not n.startswith("ceil"):
                s = Server(n, "default" if "default" in p["modes"] else p["modes"][0])
                try:
                    s.wait()
                    post(s.port, "tools/list", {}, "modern")
                    a = s.rss()
                    (d / "req-0").write_bytes(
                        http_req(
                            s.port, "subscriptions/listen", {"notifications": {"toolsListChanged": True}}, "modern"
                        )
                    )
                    h = subprocess.Popen(
                        [
                            *PIN_LOAD,
                            str(LOAD),
                            "hold",
                            "--port",
                            str(s.port),
                            "--reqdir",
                            str(d),
                            "--nreq",
                            "1",
                            "--conc",
                            str(args.n),
                            "--secs",
                            "4",
                        ],
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                    )
                    line = h.stdout.readline()
                    held = int(line.split()[1])
                    time.sleep(0.5)
                    row["streams"] = held
                    row["stream_kb"] = (s.rss() - a) * 1024 / held if held else None
                    err = h.communicate(timeout=15)[1]
                    if held < args.n:
                        row["stream_note"] = err[:300]
                        print(f"# {n} streams held {held}: {err[:300]}", file=sys.stderr)
                except Exception as e:
                    print(f"# {n} streams: {e}", file=sys.stderr)
                s.stop()
        res[n] = row
    keys = ["idle_mb", "after_mb", "calls", "session_kb", "sessions_per_s", "stream_kb", "streams"]
    print("\n## memory (Pss of the process tree; per session / per open listen stream in KiB)")
    table(["peer", *keys], [[PEERS[n]["label"], *[num(res[n].get(k), 1) for k in keys]] for n in names])
    save(args, "mem", res)


def cmd_list(args):
    res = {}
    rows = []
    for n in select(args, lambda p: p.get("modes") and not p["label"].startswith("ceil")):
        p = PEERS[n]
        wire = p["wires"][0]
        r = {}
        try:
            with tempfile.TemporaryDirectory() as td:
                s = Server(n, "json", args.ntools)
                r["start_ms"] = s.wait()
                for pay in ("list", "add"):
                    d = Path(td) / pay
                    d.mkdir()
                    nreq, expect = write_reqs(d, s.port, pay, wire, 1)
                    o = load_http(s, d, nreq, expect, 1, args.secs, 0.5)
                    r[pay] = o
                r["list_bytes"] = r["list"]["bytes_in"] / max(1, r["list"]["requests"] + r["list"]["errors"])
                r["rss_mb"] = s.rss()
                s.stop()
        except Exception as e:
            print(f"# {n}: {e}", file=sys.stderr)
            s.stop()
            continue
        res[n] = r
        rows.append(
            [
                p["label"],
                wire,
                num(r["start_ms"]),
                num(r["list"]["p50_us"] / 1000, 2),
                num(r["list"]["p99_us"] / 1000, 2),
                num(r["list_bytes"]),
                num(r["add"]["p50_us"]),
                num(r["rss_mb"], 1),
                r["list"]["errors"] + r["add"]["errors"],
            ]
        )
    print(f"\n## {args.ntools} tools")
    table(
        ["peer", "wire", "start ms", "list p50 ms", "list p99 ms", "answer bytes", "add p50 us", "rss MB", "errors"],
        rows,
    )
    save(args, f"list-{args.ntools}", res)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=["http", "stdio", "cold", "mem", "list", "one"])
    ap.add_argument("--peers", default="")
    ap.add_argument("--cells", default="json/modern,json/legacy,default/session")
    ap.add_argument("--conc", default="1,16,64")
    ap.add_argument("--windows", default="1,64")
    ap.add_argument("--wires", default="legacy")
    ap.add_argument("--payload", default="add")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--secs", type=float, default=1.5)
    ap.add_argument("--ntools", type=int, default=0)
    ap.add_argument("--n", type=int, default=1000)
    ap.add_argument("--base", default="mcp2")
    ap.add_argument("--cmd", default=None)
    ap.add_argument("--out", default=os.environ.get("BENCH_OUT", ""))
    ap.add_argument("--tag", default="")
    a = ap.parse_args()
    build_load()
    if a.what == "list" and not a.ntools:
        a.ntools = 1000
    if a.what == "one":
        if not a.cmd:
            ap.error("one needs --cmd")
        PEERS["cmd"] = {
            "label": a.cmd,
            "modes": ["json", "default", "plain"],
            "wires": ["modern", "legacy", "session"],
            "cmd": [],
        }
        return cmd_http(a)
    {"http": cmd_http, "stdio": cmd_stdio, "cold": cmd_cold, "mem": cmd_mem, "list": cmd_list}[a.what](a)


if __name__ == "__main__":
    main()
