"""Garrison as a peer of the harness:  peer.py http PORT MODE NTOOLS | peer.py stdio 0 MODE NTOOLS

MODE is json (no legacy sessions) or default (Garrison's own defaults). Every default control is on; the limits on how
much one peer may send, open and have under way, and the rates at which it may call, are raised above the load, and
nothing else is changed. Plain functions
are declared inline, because they return at once; with BENCH_ASYNC they are coroutine functions.
"""

import os
import sys

from garrison import Limits, SecurityPolicy, Server
from garrison.policy.rates import Rate, Rates

ABOVE_THE_LOAD = Limits(
    connections=4096,
    connections_per_address=4096,
    in_flight=4096,
    in_flight_per_principal=100_000,
    argument_chars=1_000_000,
    message_rate=10_000_000,
    message_burst=10_000_000,
    malformed_per_minute=1_000_000,
    sessions=100_000,
    sessions_per_principal=100_000,
    subscriptions=10_000,
    subscriptions_per_principal=10_000,
)
"""One address sends all of the load."""
RATES_ABOVE = Rates(principal=Rate(10_000_000, burst=10_000_000), completion=Rate(10_000_000, burst=10_000_000))
"""One principal sends all of the load. Each call is still counted."""


def main() -> None:
    """Serve as the arguments say."""
    transport, port, mode, extra = (*sys.argv[1:], "0")[:4]
    policy = SecurityPolicy(limits=ABOVE_THE_LOAD, rates=RATES_ABOVE)
    server = Server("bench", policy=policy, legacy="stateless" if mode == "json" else "sessions")
    if os.environ.get("BENCH_ASYNC"):

        @server.tool(name="add")
        async def add_async(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        @server.tool(name="echo")
        async def echo_async(text: str) -> str:
            """Echo text."""
            return text
    else:

        @server.tool(inline=True)
        def add(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        @server.tool(inline=True)
        def echo(text: str) -> str:
            """Echo text."""
            return text

    for number in range(int(extra)):

        @server.tool(
            name=f"tool_{number:04d}",
            description=f"Extra tool number {number}: looks something up and returns text about it.",
            inline=True,
        )
        def extra_tool(query: str, limit: int = 10, verbose: bool = False) -> str:
            return query

    if transport == "stdio":
        server.run()
    else:
        server.run_http("127.0.0.1", int(port), token=os.environ.get("BENCH_TOKEN"))


if __name__ == "__main__":
    main()
