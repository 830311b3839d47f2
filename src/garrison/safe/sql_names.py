"""What a model's query may be made of: kinds of nodes, types, functions, and words of the grammar.

Rules of this file:
- Lists of what is allowed. What a list does not name is refused, also what a newer sqlglot brings.
- A function is listed when it only computes: it reads no file, no setting and no catalogue, waits for nothing, takes no
  lock, runs no text, and cannot make much out of little by a number alone (`repeat`, `lpad`, `printf`, `zeroblob`).
"""

from __future__ import annotations

from typing import Final

__all__ = ["FUNCTIONS", "NODES", "TYPES", "WORDS"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NODES: Final = _words("""
    Select From Where Group Having Order Ordered Limit Offset Distinct Join Table TableAlias Subquery With CTE
    Union Except Intersect Column Identifier Literal Alias Star Null Boolean Paren Tuple Var
    And Or Not EQ NEQ GT GTE LT LTE NullSafeEQ NullSafeNEQ Is In Between Like ILike Escape Exists
    Add Sub Mul Div IntDiv Mod Neg DPipe Case If Cast DataType DataTypeParam Interval AtTimeZone
    Window WindowSpec Filter WithinGroup Extract CurrentDate CurrentTime CurrentTimestamp
    JSONExtract JSONExtractScalar JSONPath JSONPathRoot JSONPathKey JSONPathSubscript
    """)
"""Classes of sqlglot's expressions; those of functions come from `FUNCTIONS`."""

TYPES: Final = _words("""
    BOOLEAN SMALLINT INT BIGINT DECIMAL FLOAT DOUBLE TEXT VARCHAR CHAR DATE TIME TIMESTAMP TIMESTAMPTZ TIMESTAMPNTZ
    INTERVAL UUID JSON JSONB DATETIME
    """)
"""Types of a CAST, by sqlglot's names."""

_EVERYWHERE: Final = _words("""
    count sum avg min max
    row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value
    abs ceil ceiling floor round sign mod power sqrt exp ln
    coalesce nullif lower upper length trim ltrim rtrim replace substr substring concat concat_ws
    """)

FUNCTIONS: Final = {
    "sqlite": _EVERYWHERE
    | _words("""
        total group_concat string_agg ifnull iif instr typeof log trunc date time datetime julianday strftime unixepoch
        json_extract json_array_length
        """),
    "postgres": _EVERYWHERE
    | _words("""
        string_agg array_agg bool_and bool_or every stddev stddev_pop stddev_samp variance var_pop var_samp corr
        percentile_cont percentile_disc mode
        trunc log greatest least char_length left right btrim position strpos reverse initcap split_part starts_with
        to_char to_date to_timestamp date_trunc date_part extract age now make_date
        """),
}
"""Functions that every query may call, by dialect."""

WORDS: Final = _words("""
    select distinct all on from as in exists any where and or not is between like ilike escape case when then else end
    having by order group over filter within partition union except intersect join inner left right full outer cross
    with materialized limit offset cast using
    decimal numeric varchar char timestamp timestamptz time interval float real double int
    """)
"""Words after which a parenthesis or a string may stand that are no functions."""
