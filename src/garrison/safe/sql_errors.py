"""What a model is told of a query that was not run, or that the database gave up.

    ToolError
    ├── SqlRefused     a rule of SafeSQL or the read-only database turned it away
    └── SqlFailed      it ran out of time, broke a constraint, or means nothing to the database

Rules of this file:
- Texts are constant but for names and numbers of the program's own settings. No SQL, no value, no word of a driver.
- Every refusal is one security event, which names the setting.
- What a driver raises beyond these goes on as it is: it is the program's error, and the peer reads an error id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .. import events
from ..errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SqlFailed", "SqlRefused", "late", "refused", "told"]

_SQLITE_ERROR: Final = 1
_SQLITE_READONLY: Final = 8
_SQLITE_INTERRUPT: Final = 9
_SQLITE_TOOBIG: Final = 18
_SQLITE_CONSTRAINT: Final = 19
_SQLITE_AUTH: Final = 23
"""Primary result codes of SQLite, "Result and Error Codes"."""
_CANCELLED: Final = frozenset({"57014", "55P03"})
"""PostgreSQL appendix A: query_canceled, lock_not_available."""
_READ_ONLY: Final = frozenset({"25006", "0A000"})
"""read_only_sql_transaction, and feature_not_supported: a cursor of the server is for a query that reads."""


class SqlRefused(ToolError):
    """The query is not allowed, and nothing of it was run. The text names the rule."""


class SqlFailed(ToolError):
    """The database did not carry the query out: time, a constraint, or a query it cannot make sense of."""


def refused(rule: str, setting: str = "") -> SqlRefused:
    """The error for a broken rule, after its security event.

    Args:
        rule: the rule, as the end of a sentence that begins with "The query".
        setting: the setting that would let it pass.
    """
    events.record("sql.refused", rule, setting=setting)
    return SqlRefused(f"The query {rule} ({setting})" if setting else f"The query {rule}")


def late(seconds: float) -> SqlFailed:
    """The error for a query that ran out of time, after its security event."""
    events.record("limit.reached", f"a query took longer than {seconds:g} s", setting="SafeSQL.timeout")
    return SqlFailed(f"The query took longer than {seconds:g} s (SafeSQL.timeout)")


def told(error: Exception, *, seconds: float, asked: bool, write: bool) -> SqlRefused | SqlFailed | None:
    """What to raise in place of a driver's error; None for the error itself.

    Args:
        error: what a driver raised.
        seconds: the time-out of the query.
        asked: the text came from a model, which can write a better one.
        write: the statement was one that writes.
    """
    code, state = _code(error), _state(error)
    if code == _SQLITE_INTERRUPT or state in _CANCELLED or isinstance(error, TimeoutError):
        return late(seconds)
    if code == _SQLITE_AUTH or (code == _SQLITE_ERROR and str(error).startswith("not authorized")):  # of a function
        return refused("does what the database was told to refuse", "SafeSQL.tables, SafeSQL.write")
    if not write and (code == _SQLITE_READONLY or state in _READ_ONLY):
        return refused("writes, and this is for reading", "SafeSQL.write")
    if code == _SQLITE_CONSTRAINT or state.startswith("23") or "IntegrityError" in _kinds(error):
        return SqlFailed("The change breaks a rule of the database: a key, a reference or a check")
    if code == _SQLITE_TOOBIG:
        return SqlFailed("A value is larger than a result may be (SafeSQL.max_bytes)")
    if asked and (code == _SQLITE_ERROR or state[:2] in ("22", "42")):
        return SqlFailed("The database cannot run this query: look at its names, types and functions")
    return None


def _code(error: Exception) -> int:
    """SQLite's primary result code, 0 for errors of others. Python documents the attribute."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0


def _state(error: Exception) -> str:
    """The SQLSTATE, empty where the driver says none: psycopg and asyncpg use `sqlstate`, psycopg2 `pgcode`."""
    for name in ("sqlstate", "pgcode"):
        state = getattr(error, name, None)
        if isinstance(state, str):
            return state
    return ""


def _kinds(error: Exception) -> Iterator[str]:
    """The names of its classes: PEP 249 fixes those of every driver, and no class above them."""
    return (kind.__name__ for kind in type(error).__mro__)
