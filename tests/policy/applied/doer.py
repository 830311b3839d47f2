"""A local server that does what its one tool is told, and says what came of it: for what a program may do here.

    print(await client.call_tool("do", {"what": "read", "path": "/etc/passwd"}))

`what` is the name of a function of `BODY`, the other arguments are its own. It needs nothing but Python's library.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["doer", "starting"]

BODY = """
import json, os, resource, socket, subprocess, sys, time


def say(message, **answer):
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)


def give(message, **result):
    say(message, result={"resultType": "complete", **result})


def argument():
    return sys.argv[-1]


def name():
    return sys.argv[0]


def program():
    return os.path.basename(sys.executable)


def variable(name):
    return os.environ.get(name, "")


def folder():
    return os.path.basename(os.getcwd())


def home():
    return os.path.basename(os.environ["HOME"])


def read(path):
    with open(path) as file:
        return file.read()


def write(path):
    with open(path, "w") as file:
        file.write("written")
    return "written"


def run(path):
    return subprocess.run([path], capture_output=True, text=True).stdout


def connect(port):
    socket.create_connection(("127.0.0.1", port), 5).close()
    return "connected"


def allocate(size):
    return "had" if bytearray(size) else ""


def fork(number):
    children = [subprocess.Popen(["/bin/sleep", "0.6"]) for _ in range(number)]
    return "had" if not any(child.wait() for child in children) else ""


def files(number):
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(number)]
    for each in held:
        os.close(each)
    return "had"


def compute(seconds):
    ending = time.process_time() + seconds
    while time.process_time() < ending:
        pass
    return "had"


def errors(size):
    sys.stderr.write("e" * size)
    sys.stderr.flush()
    return "had"


def wait(seconds):
    time.sleep(seconds)
    return "had"


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, params = message["method"], message.get("params", {})
    if method == "server/discover":
        offered = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        give(message, ttlMs=0, cacheScope="private", instructions="Ask for anything.", **offered)
    elif method == "tools/list":
        tool = {"name": "do", "description": "Does it.", "inputSchema": {"type": "object"}}
        give(message, tools=[tool], ttlMs=0, cacheScope="private")
    elif method == "tools/call":
        given = dict(params["arguments"])
        try:
            text = globals()[given.pop("what")](**given)
        except (OSError, MemoryError) as error:
            text = type(error).__name__
        give(message, content=[{"type": "text", "text": text}])
    else:
        say(message, error={"code": -32601, "message": "no"})
"""


def doer(folder: Path, name: str = "doer.py") -> Path:
    """The server as a script that can be started by itself."""
    path = folder / name
    path.write_text(f"#!{sys.executable} -IS\n{BODY}")
    path.chmod(0o755)
    return path


def starting(folder: Path, *arguments: str) -> list[str]:
    """What starts it."""
    return [sys.executable, "-IS", str(doer(folder)), *arguments]
