"""Notes of several organizations, for people who sign in.

    uv run garrison run examples/notes.py --http 127.0.0.1:8000 --dev
    uv run garrison login http://127.0.0.1:8000/mcp --client-id notes-cli --scope notes:write
    uv run garrison call http://127.0.0.1:8000/mcp add_note text=milk key=1

    uv run garrison run examples/notes.py --http 127.0.0.1:8000 --public-url https://notes.example.com/mcp \\
        --resource https://notes.example.com/mcp --issuer https://auth.example.com --audit notes.audit.jsonl

Everybody has their own notes. Who that is (issuer, organization and subject), the verified token says, and it stands in
every statement. `--dev` starts an authorization server for this machine, where you may be alice of the organization
red, or bob of blue.
"""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from garrison import ConfigurationError, Context, Rate, Rates, ResourceNotFound, SecurityPolicy, Server, ToolError
from garrison.audit import AuditLog
from garrison.auth import JwtVerifier, ResourceServer
from garrison.safe import SafeSQL

Id = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Text = Annotated[str, Meta(min_length=1, max_length=10_000)]
Key = Annotated[str, Meta(min_length=1, max_length=64)]
TABLE = "CREATE TABLE IF NOT EXISTS notes (id integer PRIMARY KEY AUTOINCREMENT, owner text, text text) STRICT"


def serve(
    database: Path = Path("notes.sqlite"),
    resource: str = "http://127.0.0.1:8000/mcp",
    issuer: str | None = None,
    tenant_claim: str = "tenant",
    tenant_rate: str = "1200/minute",
    audit: Path | None = None,
    dev: bool = False,
    dev_port: int = 9000,
) -> Server:
    """Notes of several organizations, for people who sign in.

    Args:
        database: the SQLite file, made where there is none
        resource: the URL of this server, as its clients write it
        issuer: the authorization server whose tokens are taken
        tenant_claim: the claim of its tokens that names the organization
        tenant_rate: how often one organization may ask, all its people together
        audit: the file in which every call is recorded
        dev: start an authorization server for this machine, and take its tokens
        dev_port: its port
    """
    if dev == (issuer is not None):
        raise ConfigurationError("say whose tokens are taken: --issuer URL, or --dev to try it on this machine")
    who = issuer or f"http://127.0.0.1:{dev_port}"
    auth = ResourceServer(
        resource,
        JwtVerifier(who, resource, tenant_claim=tenant_claim),
        scopes_supported=["notes:read", "notes:write"],
        hierarchy={"notes:write": ["notes:read"]},
    )
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(TABLE)
    notes = SafeSQL(database, tables={"notes": ["id", "owner", "text"]}, write=True)
    server = Server(
        "notes",
        auth=auth,
        policy=SecurityPolicy(rates=Rates(tenant=Rate.of(tenant_rate))),
        audit=AuditLog(audit, fields={"delete_note": ["id"]}) if audit else None,
        lifespan=(lambda: _development(dev_port)) if dev else None,
    )

    async def own(ctx: Context, id: int) -> str | None:
        row = await notes.get("notes", owner=ctx.principal.account, id=id)
        return None if row is None else str(row["text"])

    @server.tool(scopes=["notes:write"], idempotent_by="key")
    async def add_note(text: Text, key: Key, ctx: Context) -> str:
        """Keep a note. Make up a key for each; calling again with the same key keeps nothing more."""
        made = await notes.insert("notes", {"owner": ctx.principal.account, "text": text}, returning=["id"])
        return f"note {made['id']} is kept"

    @server.tool(scopes=["notes:read"])
    async def list_notes(ctx: Context) -> list[dict[str, object]]:
        """List one's own notes, the newest first: 200 at most, and of each the beginning."""
        rows = await notes.select("notes", where={"owner": ctx.principal.account}, order_by="-id", limit=200)
        return [{"id": row["id"], "begins": str(row["text"])[:60]} for row in rows]

    @server.tool(scopes=["notes:read"])
    async def read_note(id: Id, ctx: Context) -> str:
        """Read a note of one's own."""
        text = await own(ctx, id)
        if text is None:
            raise ToolError("you have no such note")
        return text

    @server.tool(scopes=["notes:write"], destructive=True, confirm="Delete this note?", idempotent_by="key")
    async def delete_note(id: Id, key: Key, ctx: Context) -> str:
        """Delete a note of one's own. Make up a key for each."""
        if not await notes.delete("notes", where={"owner": ctx.principal.account, "id": id}):
            raise ToolError("you have no such note")
        return f"note {id} is deleted"

    @server.resource("notes://{id}", scopes=["notes:read"], mime_type="text/plain")
    async def note(id: Id, ctx: Context) -> str:
        """A note of one's own."""
        text = await own(ctx, id)
        if text is None:
            raise ResourceNotFound(f"notes://{id}")
        return text

    return server


@asynccontextmanager
async def _development(port: int) -> AsyncIterator[None]:
    from garrison.testing import DevAuthorizationServer, DevClient, User

    people = [User("alice", tenant="red"), User("bob", tenant="blue")]
    program = DevClient("notes-cli", ["http://127.0.0.1/callback"], name="garrison")
    async with DevAuthorizationServer(people, clients=[program], scopes=["notes:read", "notes:write"], port=port):
        yield


if __name__ == "__main__":
    serve(dev=True).run_http()
