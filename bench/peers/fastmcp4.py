import os
import sys
from _common import args, make_tool

transport, port, mode, ntools = args()
sys.path = [p for p in sys.path if not p.endswith("peers")]  # this file's name would shadow the package
sys.modules.pop("fastmcp", None)
from fastmcp import FastMCP

mcp = FastMCP("bench")


if os.environ.get("BENCH_ASYNC"):  # async tools run on the event loop; plain ones may go to a thread

    @mcp.tool
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @mcp.tool
    async def echo(text: str) -> str:
        """Echo text."""
        return text

else:

    @mcp.tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @mcp.tool
    def echo(text: str) -> str:
        """Echo text."""
        return text


for i in range(ntools):
    mcp.tool(make_tool(i))

if transport == "stdio":
    mcp.run(show_banner=False)
else:
    import uvicorn

    fast = mode == "json"
    app = mcp.http_app(json_response=fast, stateless_http=fast)
    kw = (
        dict(loop="asyncio", http="h11", log_level="info")
        if mode == "plain"
        else dict(loop="uvloop", http="httptools", log_level="warning", access_log=False)
    )
    uvicorn.run(app, host="127.0.0.1", port=port, **kw)
