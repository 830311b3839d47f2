"""`SqlQuery`: a parameter of a tool in which a model writes a SELECT.

    shop = SafeSQL("shop.db", tables={"orders": ["id", "customer", "total"]})

    class Ask(SqlQuery, db=shop):
        "One SELECT of the shop's orders."

    @server.tool()
    async def ask(query: Ask) -> dict[str, object]:
        return (await query.fetch()).as_json()

Rules of this file:
- A bound query is checked when the arguments are; a handler never sees one that is not allowed.
- Without `db=` a query is text and no more; `SafeSQL.ask` checks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from ..errors import ConfigurationError
from .parameter import Parameter, ParameterError
from .sql_text import SqlTextError

if TYPE_CHECKING:
    from typing import Self

    from .sql import SafeSQL
    from .sql_check import Checked, Checker
    from .sql_rows import Rows

__all__ = ["SqlQuery"]

_MOST: Final = 4096
"""Characters of a query without a database."""


class SqlQuery(Parameter):
    """A query that a model wrote. Bind it to a database by a subclass: `class Ask(SqlQuery, db=shop)`.

    Args of a subclass:
        db: the database. Its tables have to say their columns.

    Raises:
        ConfigurationError: when a class is bound: a table says no columns, or sqlglot is not installed.
    """

    db: ClassVar[SafeSQL | None] = None

    def __init_subclass__(cls, *, db: SafeSQL | None = None) -> None:
        super().__init_subclass__()
        if db is not None:
            db.checker  # noqa: B018 - made now, so that what is missing is missed at the start
            cls.db = db

    def __init__(self, text: str) -> None:
        self.text = text
        """What the model wrote: untrusted text. It is never run."""
        self._checked: Checked | None = None

    @classmethod
    def json_schema(cls) -> dict[str, object]:
        """A text, with the tables and columns that may be asked for where the class is bound."""
        if cls.db is None:
            return {"type": "string", "minLength": 1, "maxLength": _MOST}
        return {
            "type": "string",
            "minLength": 1,
            "maxLength": cls.db.checker.max_chars,
            "description": cls.db.describe(),
        }

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Take the text, and check it where the class is bound.

        Raises:
            ParameterError: the query is not allowed.
        """
        query = cls(str(value))
        if cls.db is not None:
            try:
                query._checked = cls.db.checker.check(query.text)
            except SqlTextError as exc:
                raise ParameterError(f"{exc} (SafeSQL.tables, SafeSQL.functions)") from None
        return query

    def checked(self, checker: Checker) -> Checked:
        """The query to run.

        Raises:
            SqlTextError: the query is not allowed.
        """
        if self._checked is not None and self.db is not None and self.db.checker is checker:
            return self._checked
        return checker.check(self.text)

    async def fetch(self) -> Rows:
        """Run it. See `SafeSQL.ask`."""
        return await self._bound().ask(self)

    def fetch_sync(self) -> Rows:
        """Run it in this thread. See `SafeSQL.ask`."""
        return self._bound().sync.ask(self)

    def _bound(self) -> SafeSQL:
        if self.db is None:
            raise ConfigurationError(f"{type(self).__name__} has no database: class Ask(SqlQuery, db=...)")
        return self.db

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"
