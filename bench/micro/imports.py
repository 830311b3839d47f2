"""Start-up cost of what a Python SDK might import: CPU ms over an isolated interpreter, best of N fresh processes (wall time is too noisy on a shared machine). Run with the `ceil` venv's python."""

import resource
import subprocess
import sys

N = int(sys.argv[1]) if len(sys.argv) > 1 else 7
THINGS = [
    "pass",
    "import json",
    "import asyncio",
    "import inspect",
    "import typing",
    "import dataclasses",
    "import logging",
    "import ssl",
    "import http.client",
    "import email.message",
    "import msgspec",
    "import orjson",
    "import httptools",
    "import uvloop",
    "import asyncio, uvloop, httptools, msgspec",
    "import anyio",
    "import pydantic; pydantic.BaseModel",
    "import starlette.applications",
    "import uvicorn",
    "import granian",
    "import jsonschema",
    "import jsonschema_rs",
    "import fastjsonschema",
    "import picows",
    "import websockets.asyncio.server",
]


def run(code, *flags):
    v = []
    for _ in range(N + 1):
        r0 = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *flags, "-c", code], check=True)
        r1 = resource.getrusage(resource.RUSAGE_CHILDREN)
        v.append((r1.ru_utime + r1.ru_stime - r0.ru_utime - r0.ru_stime) * 1e3)
    return min(v[1:])


base = run("pass")
print(f"{base:8.1f} ms  bare interpreter;  -I: {run('pass', '-I'):.1f}  -I -S: {run('pass', '-I', '-S'):.1f}")
for t in THINGS[1:]:
    print(f"{run(t) - base:+8.1f} ms  {t}")
