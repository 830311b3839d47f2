"""A whole server: one tool. `garrison call examples/quickstart.py add a=19 b=23` calls it."""

from garrison import Server

server = Server("calculator")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


if __name__ == "__main__":
    server.run()
