"""Columns of the input that the mapping does not use, and what the status of an order in one of them says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import duckdb

from features.data.lake import literal, quote
from features.data.sources.base import RawTable
from features.data.sources.propose.names import canonical_of
from features.data.sources.propose.words import STATUSES

MIN_KNOWN_SHARE = 0.95  # of the distinct values of a column with statuses
MAX_WORDS = 40  # a column with more values holds something else
FIRST_ROWS = 10_000  # few columns have a word of a status in their first rows; only those are read entirely
NO_SALE = ("refunded", "cancelled")
_TEXT = re.compile(r"'(?:[^']|'')*'")


@dataclass(frozen=True)
class UnusedStatus:
    """A column that says which orders were refunded or cancelled, although every row counts as paid.

    Attributes
    ----------
    column : str
        Its name.
    words : mapping of str to tuple of str
        Status → texts of the column that mean it.
    rows : int
        Rows with one of the texts that count as paid.
    """

    column: str
    words: Mapping[str, tuple[str, ...]]
    rows: int


def unused_columns(connection: duckdb.DuckDBPyConnection, raw_table: RawTable, raw: str) -> tuple[str, ...]:
    """Columns of the temp table `raw` that no expression of the mapping reads, in their order."""
    names = _columns(connection, raw)
    used = {name for name in names if _reads(raw_table.columns.values(), name)}
    return tuple(name for name in names if name not in used and name != raw_table.file_column)


def unused_status(
    connection: duckdb.DuckDBPyConnection, raw_table: RawTable, raw: str, typed: str
) -> UnusedStatus | None:
    """The unused column that says which orders are no sales; None if there is none, or `status` reads a column.

    Parameters
    ----------
    raw, typed : str
        Names of the temp tables with the raw and the cast rows.
    """
    if raw_table.table != "transactions":
        return None
    status = [expression for name, expression in raw_table.columns.items() if name == "status"]
    if any(_reads(status, column) for column in _columns(connection, raw)):
        return None
    for column in unused_columns(connection, raw_table, raw):
        first = _words(connection, f"(SELECT * FROM {raw} LIMIT {FIRST_ROWS})", column)
        if not any(canonical_of(word, STATUSES) for word in first):
            continue
        meanings = {word: canonical_of(word, STATUSES) for word in _words(connection, raw, column)}
        no_sale = [word for word, meaning in meanings.items() if meaning in NO_SALE]
        known = sum(meaning is not None for meaning in meanings.values())
        if not no_sale or known < MIN_KNOWN_SHARE * len(meanings):
            continue
        row = connection.execute(
            f"SELECT count(*) FROM {typed} JOIN (SELECT rowid AS _row, {quote(column)}::VARCHAR AS word FROM {raw}) "
            f"USING (_row) WHERE _reason IS NULL AND status = 'paid' AND word IN ({', '.join(map(literal, no_sale))})"
        ).fetchone()
        if row and row[0]:  # else the sign of their numbers makes them refunds
            words = {name: tuple(word for word in no_sale if meanings[word] == name) for name in NO_SALE}
            return UnusedStatus(column, words, int(row[0]))
    return None


def _columns(connection: duckdb.DuckDBPyConnection, raw: str) -> list[str]:
    return [str(row[0]) for row in connection.execute(f"DESCRIBE {raw}").fetchall()]


def _reads(expressions: Iterable[str], column: str) -> bool:
    """Whether an SQL expression reads a column; texts in it are none.

    Examples
    --------
    >>> _reads(['"Order Status"'], "Order Status"), _reads(["qty * paid"], "paid"), _reads(["'paid'"], "paid")
    (True, True, False)
    """
    name = re.compile(rf"(?<!\w){re.escape(column)}(?!\w)")
    return any(name.search(_TEXT.sub("''", expression)) for expression in expressions)


def _words(connection: duckdb.DuckDBPyConnection, relation: str, column: str) -> list[str]:
    """The distinct texts of a column; none if there are more than `MAX_WORDS`."""
    cell = f"{quote(column)}::VARCHAR"
    words = connection.execute(
        f"SELECT DISTINCT {cell} AS word FROM {relation} WHERE trim({cell}) <> '' ORDER BY word LIMIT {MAX_WORDS + 1}"
    ).fetchall()
    return [str(word) for (word,) in words] if len(words) <= MAX_WORDS else []
