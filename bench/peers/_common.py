"""Argument contract of every peer script:  PEER.py http PORT MODE NTOOLS | PEER.py stdio 0 MODE NTOOLS
MODE: json    = stateless, single JSON answers (the fastest documented configuration; uvloop + httptools where it can)
      default = the SDK's own defaults for Streamable HTTP (sessions, SSE answers), same event loop as `json`
      plain   = the documented one-line run() call with only the SDK's required dependencies (asyncio + h11, access log on)
NTOOLS: how many extra tools to register besides add and echo."""

import sys


def args():
    a = sys.argv[1:] + [None] * 4
    return a[0] or "http", int(a[1] or 8000), a[2] or "json", int(a[3] or 0)


def make_tool(i):
    def tool(query: str, limit: int = 10, verbose: bool = False) -> str:
        return query

    tool.__name__ = f"tool_{i:04d}"
    tool.__doc__ = f"Extra tool number {i}: looks something up and returns text about it."
    return tool
