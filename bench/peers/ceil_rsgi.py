"""Minimal RSGI app under granian."""

from _common import args
from _ceil import handle

H = [("content-type", "application/json")]


async def app(scope, proto):
    proto.response_bytes(200, H, handle(await proto()))


if __name__ == "__main__":
    transport, port, mode, ntools = args()
    from granian import Granian

    Granian(
        "ceil_rsgi:app",
        address="127.0.0.1",
        port=port,
        interface="rsgi",
        workers=1,
        loop="uvloop",
        log_access=False,
        log_enabled=False,
    ).serve()
