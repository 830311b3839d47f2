import os
from _common import args, make_tool

transport, port, mode, ntools = args()
from mcp.server.fastmcp import FastMCP

fast = mode == "json"
mcp = FastMCP(
    "bench",
    host="127.0.0.1",
    port=port,
    stateless_http=fast,
    json_response=fast,
    **({} if mode == "plain" else {"log_level": "WARNING"}),
)


if os.environ.get("BENCH_ASYNC"):  # async tools run on the event loop; plain ones may go to a thread

    @mcp.tool()
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @mcp.tool()
    async def echo(text: str) -> str:
        """Echo text."""
        return text

else:

    @mcp.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @mcp.tool()
    def echo(text: str) -> str:
        """Echo text."""
        return text


for i in range(ntools):
    mcp.add_tool(make_tool(i))

if transport == "stdio":
    mcp.run()
else:
    import uvicorn

    kw = (
        dict(loop="asyncio", http="h11", log_level="info")
        if mode == "plain"
        else dict(loop="uvloop", http="httptools", log_level="warning", access_log=False)
    )
    uvicorn.run(mcp.streamable_http_app(), host="127.0.0.1", port=port, **kw)
