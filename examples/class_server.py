"""A server as a class: state lives in the instance, and decorators mark the methods."""

from garrison import ResourceContents, Server, ToolOutput, mcp_server, prompt, resource, tool


@mcp_server(name="notes", version="1.0.0")
class Notes:
    """Notes that are kept as long as the server runs."""

    def __init__(self) -> None:
        self._notes: dict[str, str] = {}

    @tool(description="Keep a note under a name")
    async def write(self, name: str, text: str) -> ToolOutput:
        if not text.strip():
            return ToolOutput.error("A note needs text")
        self._notes[name] = text
        return ToolOutput.text(f"Kept {name}")

    @resource("notes://{name}")
    async def read(self, name: str) -> ResourceContents:
        """One note."""
        return ResourceContents.text(f"notes://{name}", self._notes.get(name, "(no such note)"))

    @prompt()
    async def summarize(self, name: str) -> str:
        """Have a note put in fewer words."""
        return f"Summarize this note: {self._notes.get(name, '')}"


notes = Notes()

if __name__ == "__main__":
    Server.of(notes).run()
