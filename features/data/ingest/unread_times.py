"""Formats of the times of one input that could not be read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from features.data.lake import literal, quote
from features.data.sources.expressions import in_expression
from features.data.sources.time_formats import TimeFormat, guess, too_late

SAMPLE = 1000  # rejected values that are looked at
OUT_OF_RANGE = "is not between"
UNREADABLE = ("is not a time", "is not a date", "has a year before 1000")
_IN = " (in "  # follows the name of a column of the file inside an expression


@dataclass(frozen=True)
class UnreadTimes:
    """Times of one column that could not be read, and what they look like.

    Attributes
    ----------
    table, column : str
        Canonical table, and its column or the column of the file.
    looks_like : str
        Name of the format.
    fix : str
        Line of `sources.yaml` that reads it.
    rows : int
        Number of rejected rows.
    """

    table: str
    column: str
    looks_like: str
    fix: str
    rows: int


def unread_times(
    connection: duckdb.DuckDBPyConnection, table: str, raw: str, typed: str, expressions: Mapping[str, str]
) -> tuple[UnreadTimes, ...]:
    """Look at the times that were rejected.

    Parameters
    ----------
    table : str
        Canonical table.
    raw, typed : str
        Temp tables of the raw rows and of the cast rows.
    expressions : mapping of str to str
        Canonical column → SQL of its raw value over `raw`.
    """
    reasons = connection.execute(
        f"SELECT _reason, count(*) FROM {typed} WHERE _reason IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    found: dict[str, UnreadTimes] = {}
    for reason, rows in reasons:
        for what in (*UNREADABLE, OUT_OF_RANGE):
            name, separator, rest = str(reason).partition(f" {what}")
            inside = rest.startswith(_IN)
            if not separator or name in found or not (inside or name in expressions):
                continue
            rejected = f"SELECT _row FROM {typed} WHERE _reason = {literal(str(reason))}"
            sql = quote(name) if inside else expressions[name]
            # from all over the input: the first rows may be the first days of a month
            values = (
                f"SELECT ({sql}) AS v FROM {raw} WHERE rowid IN ({rejected} ORDER BY hash(_row), _row LIMIT {SAMPLE})"
            )
            known = _late(connection, values) if what == OUT_OF_RANGE else _unread(connection, values, sql)
            if known is not None:
                found[name] = UnreadTimes(table, name, known.looks_like, _fix(known, "" if inside else name), int(rows))
    return tuple(found.values())


def _unread(connection: duckdb.DuckDBPyConnection, values: str, sql: str) -> TimeFormat | None:
    try:
        rows = connection.execute(f"SELECT DISTINCT v::VARCHAR FROM ({values}) WHERE v IS NOT NULL").fetchall()
    except duckdb.BinderException:  # the reason is about an expression, and not about a column of the file
        return None
    texts = [str(value) for (value,) in rows]
    return guess(texts, shown(sql)) or _zero_dates(texts, shown(sql))


def _zero_dates(texts: Sequence[str], column: str) -> TimeFormat | None:
    """MySQL's date without a value, if one of the texts is it."""
    zeros = sorted({text for text in texts if text.startswith("0000-00-00")})
    if not zeros:
        return None
    return TimeFormat("0000-00-00, which MySQL writes for no date", (f"nullif({column}, {literal(zeros[0])})",))


def _late(connection: duckdb.DuckDBPyConnection, values: str) -> TimeFormat | None:
    try:
        row = connection.execute(f"SELECT median(epoch(v)) FROM ({values}) WHERE isfinite(v)").fetchone()
    except duckdb.BinderException:  # texts have no epoch
        return None
    return too_late(float(row[0])) if row and row[0] is not None else None


def _fix(found: TimeFormat, column: str) -> str:
    if not found.expressions:
        return "export the column in one format"
    lines = " or ".join(f'"{expression}"' if '"' not in expression else expression for expression in found.expressions)
    return f"write in sources.yaml: {f'{column}: ' if column else ''}{lines}"


def shown(sql: str) -> str:
    """A column as it is written in an expression; the word "column" for what is computed."""
    bare = sql.strip("()")
    if not re.fullmatch(r'"(?:[^"]|"")+"', bare):
        return "column"
    return in_expression(bare[1:-1].replace('""', '"'))
