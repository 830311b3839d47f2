"""A client: it starts the quick start's server, asks what there is, and calls a tool.

Given a URL, it talks to a server that runs already: `python client.py http://127.0.0.1:8000/mcp`, with the server's
token in GARRISON_TOKEN.
"""

import asyncio
import os
import sys
from pathlib import Path

from garrison import Client


async def main(target: str | list[str], token: str | None) -> None:
    async with Client(target, token=token) as client:
        print("speaks", client.protocol_version)
        async for tool in client.tools():
            print("offers", tool.name)
        result = await client.call_tool("add", {"a": 19, "b": 23})
        print("19 + 23 =", result.structured_content["result"])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1], os.environ.get("GARRISON_TOKEN")))
    else:
        asyncio.run(main([sys.executable, str(Path(__file__).with_name("quickstart.py"))], None))
