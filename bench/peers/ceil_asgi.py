"""Minimal raw ASGI app. CEIL_SERVER: uvicorn | uvicorn-h11 | granian | hypercorn | starlette (starlette under uvicorn)."""

import os
from _common import args
from _ceil import handle

transport, port, mode, ntools = args()
SERVER = os.environ.get("CEIL_SERVER", "uvicorn")


async def app(scope, receive, send):
    if scope["type"] != "http":
        if scope["type"] == "lifespan":
            while True:
                m = await receive()
                await send({"type": m["type"] + ".complete"})
                if m["type"].endswith("shutdown"):
                    return
        return
    body = b""
    while True:
        m = await receive()
        body += m.get("body", b"")
        if not m.get("more_body"):
            break
    out = handle(body)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(out))],
        }
    )
    await send({"type": "http.response.body", "body": out})


if SERVER == "starlette":
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def ep(request: Request):
        return Response(handle(await request.body()), media_type="application/json")

    app = Starlette(routes=[Route("/mcp", ep, methods=["POST"])])

if __name__ == "__main__":
    if SERVER in ("uvicorn", "starlette", "uvicorn-h11"):
        import uvicorn

        h11 = SERVER == "uvicorn-h11"
        uvicorn.run(
            app,
            host="127.0.0.1",
            port=port,
            loop="asyncio" if h11 else "uvloop",
            http="h11" if h11 else "httptools",
            log_level="warning",
            access_log=False,
        )
    elif SERVER == "granian":
        from granian import Granian

        Granian(
            "ceil_asgi:app",
            address="127.0.0.1",
            port=port,
            interface="asgi",
            workers=1,
            loop="uvloop",
            log_access=False,
            log_enabled=False,
        ).serve()
    elif SERVER == "hypercorn":
        import asyncio
        import uvloop
        from hypercorn.asyncio import serve
        from hypercorn.config import Config

        c = Config()
        c.bind = [f"127.0.0.1:{port}"]
        c.accesslog = None
        uvloop.run(serve(app, c))
