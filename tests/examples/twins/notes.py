"""VULNERABLE ON PURPOSE: the notes server without its protections, for the tests to attack. Run it for nobody."""

import sqlite3
from pathlib import Path

from garrison import Context, Server
from garrison.auth import JwtVerifier, ResourceServer


def serve(database: Path = Path("notes.sqlite"), resource: str = "", issuer: str = "") -> Server:
    auth = ResourceServer(resource, JwtVerifier(issuer, resource), hierarchy={"notes:write": ["notes:read"]})
    server = Server("notes-vulnerable", auth=auth)
    notes = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
    notes.execute("CREATE TABLE IF NOT EXISTS notes (id integer PRIMARY KEY, owner text, text text)")

    def found(id: object) -> str:
        row = notes.execute(f"SELECT text FROM notes WHERE id = {id}").fetchone()  # UNSAFE: whose it is, and the text
        return str(row[0])

    @server.tool(scopes=["notes:write"])
    async def add_note(text: str, key: str, ctx: Context) -> str:
        owner = ctx.principal.subject  # UNSAFE: of any organization
        return f"note {notes.execute('INSERT INTO notes (owner, text) VALUES (?, ?)', (owner, text)).lastrowid} is kept"

    @server.tool(scopes=["notes:read"])
    async def list_notes(ctx: Context) -> list[dict[str, object]]:
        mine = "SELECT id, text FROM notes WHERE owner = ? ORDER BY id DESC"
        return [{"id": id, "begins": text[:60]} for id, text in notes.execute(mine, (ctx.principal.subject,))]

    @server.tool(scopes=["notes:read"])
    async def read_note(id: int | str) -> str:
        return found(id)

    @server.tool(scopes=["notes:write"])
    async def delete_note(id: int, key: str) -> str:
        notes.execute("DELETE FROM notes WHERE id = ?", (id,))  # UNSAFE: whosever it is, and nobody is asked
        return f"note {id} is deleted"

    @server.resource("notes://{id}", scopes=["notes:read"], mime_type="text/plain")
    async def note(id: str) -> str:
        return found(id)

    return server
