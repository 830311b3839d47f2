#!/usr/bin/env python3
"""Soak: one server on every transport, honest clients in both eras, and hostile peers of many kinds at the same time.

    uv run python bench/soak.py                      five minutes
    uv run python bench/soak.py --minutes 60         an hour
    uv run python bench/soak.py --seconds 20         a look
    uv run python bench/soak.py --json FILE          the verdicts and all samples too

Three phases: quiet (honest traffic only), attack (the same and the hostile peers), and quiet again. The server has one
core and everything else another (BENCH_SRV_CPU, BENCH_LOAD_CPU); hostile peers get what the others leave of that. The
exit status is 1 when a verdict fails, 2 when the soak itself does. Linux.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = Path(os.environ.get("BENCH_PROJECT", HERE.parent))
sys.path[:0] = [str(HERE), str(HERE.parent)]

from soaking import verdicts
from soaking.wire import Line

SRV_CPU, LOAD_CPU = os.environ.get("BENCH_SRV_CPU", "0"), os.environ.get("BENCH_LOAD_CPU", "1")
QUIET = 0.15
MOST_QUIET = 300.0
WARM = 2.0
SESSION_IDLE = 10.0
SETTLE = 10.0
"""Seconds until everything has to be given back, once sessions that were left have ended: these idle for SESSION_IDLE,
and are found half as much later at most."""
KINDS = ("flood", "malformed", "slow", "half", "reset", "victim")


class Child:
    """A process of the soak, and what it says: one JSON value a line, the last `keep` of them kept until taken."""

    def __init__(self, name, *arguments, cpu, log):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(HERE)])}
        pin = ["taskset", "-c", cpu] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else []
        self.name = name
        self.dismissed = False
        self.process = subprocess.Popen(
            [*pin, sys.executable, "-m", f"soaking.{name}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=HERE,
            env=environment,
            start_new_session=True,
        )
        self._said = []
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._lock:
                self._said.append(json.loads(line))

    def take(self):
        """What it has said since the last time."""
        with self._lock:
            said, self._said = self._said, []
        return said

    def first(self, seconds=20.0):
        """What it says first."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            said = self.take()
            if said:
                return said[0]
            time.sleep(0.02)
        raise RuntimeError(f"soaking.{self.name} does not start; exit status {self.process.poll()}")

    def end(self, number=signal.SIGTERM, seconds=30.0):
        """Ask it to end, and give its exit status; None where it had to be killed."""
        self.dismissed = True
        status = self.process.poll()
        if status is None:
            self.process.send_signal(number)
            try:
                status = self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own group: its children too
        except ProcessLookupError:
            pass
        self.process.wait(5)
        self._reader.join(5)
        return status


class Soak:
    """One soak: its processes, its samples, and its phases."""

    def __init__(self, args, folder):
        self.args = args
        self.folder = folder
        self.addresses = folder / "addresses.json"
        self.log = (folder / "server.log").open("w+b")
        self.errors = (folder / "peers.log").open("w+b")
        self.samples = []
        self.took = {"warm": [], "quiet": [], "attack": [], "settle": [], "after": []}
        self.by_kind = {}
        self.lost, self.waited = [], Counter()
        self.honest, self.did = {"outcomes": {}, "words": [], "done": {}}, {}
        self.phase = "warm"
        self.early = None
        self._line = None
        self._began = time.monotonic()
        self._shown = self._trim = 0.0

    def start(self):
        from tests.support.certs import Authority

        authority = Authority(self.folder, "Soak")
        leaf = authority.leaf()
        for made, name in ((authority.pem, "ca.pem"), (leaf.certificate, "server.pem"), (leaf.key, "server.key")):
            made.rename(self.folder / name)
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_urlsafe(32))
        broken = (self.args.broken,) if self.args.broken else ()
        given = (str(self.folder), str(self.args.session_idle), *broken)
        self.server = Child("server", *given, cpu=SRV_CPU, log=self.log)
        at = self.server.first()
        self.addresses.write_text(json.dumps(at))
        self.at = at
        self.traffic = Child("honest", str(self.addresses), str(self.args.rate), cpu=LOAD_CPU, log=self.errors)
        self.probe = Child("probe", str(self.addresses), str(self.args.probe_rate), cpu=LOAD_CPU, log=self.errors)
        self.hostile = None

    def look(self):
        """One sample of everything."""
        sample = {"at": round(time.monotonic() - self._began, 2), "phase": self.phase}
        try:
            if self._line is None:
                self._line = Line("unix", self.at, timeout=10.0)
            trim = sample["at"] >= self._trim
            if trim:
                self._trim = sample["at"] + min(10.0, self.args.seconds / 20)
            answer = json.loads(self._line.ask("stats", {"trim": trim}, len(self.samples) + 1))
            sample |= answer["result"]["structuredContent"]
            self.samples.append(sample)
        except (OSError, ValueError, KeyError) as exc:
            self._line = None
            self.lost.append(f"stats: {type(exc).__name__} {exc}")
        self.hear()
        return sample

    def hear(self):
        for said in self.probe.take():
            for kind, took in said["took"].items():
                self.took[self.phase] += took
                self.by_kind.setdefault((self.phase, kind), []).extend(took)
            self.lost += said["lost"]
            self.waited[self.phase] += said["waited_ms"]
        for said in self.traffic.take():
            self.honest = said
        if self.hostile is not None:
            for said in self.hostile.take():
                self.did = said

    def spend(self, phase, seconds, until=None):
        """Let a phase pass, looking every second. `until` ends it earlier."""
        self.phase = phase
        end = time.monotonic() + seconds
        sample = {}
        while time.monotonic() < end and self.server.process.poll() is None:
            tick = time.monotonic()
            sample = self.look()
            self.show(sample)
            for child in (self.traffic, self.probe, self.hostile):
                if child is not None and child.process.poll() is not None and not child.dismissed:
                    raise RuntimeError(f"soaking.{child.name} ended by itself")
            if until is not None and until(sample):
                break
            time.sleep(max(0.05, min(end, tick + 1.0) - time.monotonic()))
        if self.server.process.poll() is not None and self.early is None:
            self.early = self.server.process.returncode
        return sample

    def show(self, sample):
        """A line that says where it is; every ten seconds where nobody watches."""
        now, tty = time.monotonic(), sys.stderr.isatty()
        if not tty and now - self._shown < 10.0:
            return
        self._shown = now
        recent = self.took[self.phase][-400:]
        line = (
            f"{sample['at']:7.0f} s  {self.phase:<6}  rss {sample.get('rss_kib', 0) / 1024:6.1f} MiB  "
            f"fds {sample.get('descriptors', 0):4}  connections {sample.get('connections', 0):4}  "
            f"sessions {sample.get('sessions', 0):4}  tasks {sample.get('tasks', 0):4}  "
            f"p99 {verdicts.percentile(recent, 0.99) / 1000:6.2f} ms  "
            f"honest {sum(self.honest['outcomes'].values()):,}  hostile {sum(self.did.values()):,}"
        )
        print(("\r\x1b[K" if tty else "") + line, end="" if tty else "\n", file=sys.stderr, flush=True)

    def run(self):
        """All phases; the verdicts."""
        total = self.args.seconds
        quiet = min(MOST_QUIET, QUIET * total)
        self.spend("warm", WARM)
        self.spend("quiet", quiet)
        before = [sample for sample in self.samples if sample["phase"] == "quiet"]
        only = (self.args.only,) if self.args.only else ()
        given = (str(self.addresses), str(self.args.strength), *only)
        os.environ["SOAK_EAGER"] = "1" if self.args.eager else ""
        self.hostile = Child("hostile", *given, cpu=LOAD_CPU, log=self.errors)
        self.spend("attack", total - 2 * quiet)
        self.hostile.end(signal.SIGKILL)  # without a farewell, as the worst of them
        self.hear()

        def settled(sample):
            return "tasks" in sample and verdicts.returned(before, sample).good

        began = time.monotonic()
        last = self.spend("settle", 1.5 * self.args.session_idle + SETTLE, settled)
        self.settled = time.monotonic() - began
        self.spend("after", quiet)
        self.probe.end()
        self.traffic.end()
        self.hear()
        status = self.server.end(seconds=15.0)
        return self.judge(before, last, status)

    def tail(self, file):
        file.seek(0)
        return file.read().decode(errors="replace")[-3000:]

    def judge(self, before, last, status):
        attack = [(s["at"], s["rss_kib"]) for s in self.samples if s["phase"] == "attack" and s["trimmed"]]
        self.log.seek(0)
        crashed = not before or "tasks" not in last
        return [
            verdicts.memory(attack[len(attack) // 2 :]),
            verdicts.Verdict("all is given back after the attack", False, "the server was gone", {})
            if crashed
            else verdicts.returned(before, last),
            verdicts.answered(self.honest["outcomes"], self.honest["words"], self.lost),
            verdicts.tail(self.took["quiet"] + self.took["after"], self.took["attack"], self.args.factor),
            verdicts.quiet_log(self.log.read().decode(errors="replace")),
            verdicts.ended(status, self.early is not None),
            verdicts.attacked(self.did, [kind for kind in KINDS if kind in (self.args.only or kind)]),
        ]

    def close(self):
        for child in ("server", "traffic", "probe", "hostile"):
            child = getattr(self, child, None)
            if child is not None:
                child.end(signal.SIGKILL, 5)

    def details(self):
        """Numbers that no verdict has: what the phases were like."""
        phases = {}
        for phase in ("quiet", "attack", "after"):
            samples = [s for s in self.samples if s["phase"] == phase]
            if not samples:
                continue
            seconds = samples[-1]["at"] - samples[0]["at"] or 1.0
            phases[phase] = {
                "seconds": round(seconds),
                "server_cpu": round((samples[-1]["cpu_ms"] - samples[0]["cpu_ms"]) / 1000 / seconds, 2),
                "loop_lag_p99_us": round(verdicts.percentile([s["lag_p99_us"] for s in samples], 0.5)),
                "most": {
                    k: max(s[k] for s in samples)
                    for k in ("rss_kib", "descriptors", "connections", "sessions", "tasks")
                },
                "probe_waited_for_cpu_ms": round(self.waited[phase], 1),
                "p99_us": {
                    kind: verdicts.percentile(took, 0.99) for (at, kind), took in self.by_kind.items() if at == phase
                },
            }
        return phases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, help="in place of --minutes")
    parser.add_argument("--rate", type=float, default=100.0, help="honest operations a second")
    parser.add_argument("--probe-rate", type=float, default=80.0, help="calls a second of the client that is measured")
    parser.add_argument("--strength", type=float, default=1.0, help="how many hostile peers; 1: two thirds of a core")
    parser.add_argument("--only", metavar="KIND,...", help="these hostile peers only, to find out who does it")
    parser.add_argument(
        "--eager", action="store_true", help="hostile peers want the CPU as others do, on a busy machine"
    )
    parser.add_argument("--factor", type=float, default=verdicts.FACTOR, help="how much the p99 may grow")
    parser.add_argument("--session-idle", type=float, default=SESSION_IDLE, help="the server's Timeouts.session_idle")
    parser.add_argument("--json", metavar="FILE", help="write verdicts and samples")
    parser.add_argument("--broken", choices=("leak", "descriptors", "stuck", "crash"), help="a server that goes wrong")
    args = parser.parse_args()
    args.seconds = args.seconds or args.minutes * 60
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(args, folder)
    good = False
    try:
        soak.start()
        judged = soak.run()
        phases = soak.details()
        good = all(verdict.good for verdict in judged)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        print(f"Settled {soak.settled:.0f} s after the attack. " + json.dumps(phases))
        for verdict in judged:
            print(f"{'pass' if verdict.good else 'FAIL'}  {verdict.name}: {verdict.text}")
        words = [*soak.honest["words"], *soak.lost]
        print("".join(f"      {word}\n" for word in words[:10]), end="")
        if args.json:
            report = {
                "good": good,
                "seconds": args.seconds,
                "verdicts": [{"name": v.name, "good": v.good, "text": v.text, **v.numbers} for v in judged],
                "settled_s": round(soak.settled, 1),
                "phases": phases,
                "honest": soak.honest,
                "samples": soak.samples,
            }
            Path(args.json).write_text(json.dumps(report, indent=1))
        return 0 if good else 1
    except (RuntimeError, OSError) as exc:
        print(f"the soak failed: {exc}\n{soak.tail(soak.log)}\n{soak.tail(soak.errors)}", file=sys.stderr)
        return 2
    finally:
        soak.close()
        if good:
            shutil.rmtree(folder)
        else:
            print(f"The logs are in {folder}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
