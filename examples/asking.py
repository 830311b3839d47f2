"""A tool that asks the user before it acts. One `await` works with clients of every revision."""

from dataclasses import dataclass

from garrison import Context, Server

server = Server("travel")


@dataclass
class Booking:
    """What the user fills in."""

    seats: int = 1
    window: bool = True


@server.tool()
async def book(city: str, ctx: Context) -> str:
    """Book a journey, after the user has agreed."""
    answer = await ctx.elicit(f"How shall the journey to {city} be booked?", Booking)
    if not answer.accepted or answer.content is None:
        return "Nothing was booked."
    place = "at the window" if answer.content.window else "at the aisle"
    return f"Booked {answer.content.seats} to {city}, {place}."


if __name__ == "__main__":
    server.run()
