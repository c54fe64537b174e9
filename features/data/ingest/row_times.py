"""What the times of one input are: dates or moments, with or without an offset, in hours that clocks skip or repeat."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb

from features.data.lake import literal
from features.data.sources.base import RawTable
from features.data.sources.casting import ColumnCast
from features.data.sources.casting_times import SKIPPED, local_of_utc
from features.data.sources.clock_changes import clock_changes
from qianmian.schema import Table

_QUARTER_HOUR = 900_000_000  # microseconds; all offsets from UTC are multiples of it


@dataclass(frozen=True)
class RowTimes:
    """Counts of the rows of one input by what their `ts` is.

    Attributes
    ----------
    rows : int
        Accepted rows with a time.
    date_only : int
        Those whose time is a date.
    naive : int
        Those whose time has no offset, so that it was read in the time zone of the source; dates are left out.
    repeated : int
        Those of `naive` whose time occurs twice in that zone.
    skipped : int
        Rejected rows, because their time does not exist in that zone.
    """

    rows: int
    date_only: int
    naive: int
    repeated: int
    skipped: int


@contextlib.contextmanager
def session_timezone(connection: duckdb.DuckDBPyConnection, timezone: str) -> Iterator[None]:
    """Let functions over instants (date_trunc, extract, ::DATE) compute in a time zone; in UTC again afterwards."""
    connection.execute(f"SET TimeZone={literal(timezone)}")
    try:
        yield
    finally:
        connection.execute("SET TimeZone='UTC'")


def mark_dates(connection: duckdb.DuckDBPyConnection, typed: str, timezone: str, by: str | None) -> None:
    """Set `date_only` where all times of one group of the rows are midnight in `timezone`.

    Many exports write dates as ``2024-05-01 00:00:00``. A group with one other time keeps the values of its rows.

    Parameters
    ----------
    typed : str
        Temp table of the cast rows.
    by : str or None
        Column whose values are the groups; None if all rows are one group.
    """
    group = by or "''"
    found = connection.execute(
        f"SELECT {group} FROM {typed} WHERE _reason IS NULL AND ts IS NOT NULL GROUP BY 1 "
        f"HAVING bool_and(epoch_us(ts) % {_QUARTER_HOUR} = 0) AND NOT bool_and(coalesce(date_only, false))"
    ).fetchall()
    local = local_of_utc("ts", timezone)
    for (value,) in found:
        rows = f"_reason IS NULL AND ts IS NOT NULL AND {group} = {literal(str(value))}"
        # a day may begin at one o'clock, where the clocks are put forward at midnight
        first = f"({local} = date_trunc('day', {local}) OR coalesce(date_only, false))"
        if connection.execute(f"SELECT bool_and({first}) FROM {typed} WHERE {rows}").fetchone() == (True,):
            connection.execute(f"UPDATE {typed} SET date_only = true WHERE {rows}")


def row_times(
    connection: duckdb.DuckDBPyConnection,
    raw_table: RawTable,
    raw: str,
    typed: str,
    table: Table,
    casts: Mapping[str, ColumnCast],
    timezone: str,
) -> RowTimes | None:
    """Complete `date_only` of the cast rows, and count the rows by what their `ts` is; None without a `ts`.

    Parameters
    ----------
    raw, typed : str
        Temp tables of the raw rows and of the cast rows.
    casts : mapping of str to ColumnCast
        Casts of the mapped columns; that of ``ts`` is over a column of that name.
    """
    if "ts" not in casts:
        return None
    has_dates = table.column("date_only") is not None
    if has_dates:
        mark_dates(connection, typed, timezone, "event_type" if table.column("event_type") else None)
    dates = "date_only" if has_dates else "false"
    rows, date_only, skipped = _counts(
        connection,
        f"SELECT count(*) FILTER (_reason IS NULL AND ts IS NOT NULL), count(*) FILTER (_reason IS NULL AND {dates}), "
        f"count(*) FILTER (contains(_reason, {literal(SKIPPED)})) FROM {typed}",
    )
    naive = raw_table.naive_conditions.get("ts", casts["ts"].naive)
    # a condition of the source is over the raw columns, that of the cast over the value of the expression
    value = "" if "ts" in raw_table.naive_conditions else f", ({raw_table.columns['ts']}) AS ts"
    texts = (
        f"SELECT rowid AS _row, ({naive}) AS naive FROM (SELECT {'*, ' if not value else ''}rowid{value} FROM {raw})"
    )
    if naive in ("true", "false"):
        naive_rows = rows if naive == "true" else 0
    else:
        rejected = f"SELECT _row FROM {typed} WHERE _reason IS NOT NULL"
        count = f"SELECT count(*) FILTER (naive) FROM ({texts}) WHERE _row NOT IN ({rejected})"
        (naive_rows,) = _counts(connection, count)
    repeated = 0
    twice = _repeated_condition(connection, typed, timezone) if naive_rows > date_only else ""
    if twice:
        (repeated,) = _counts(
            connection,
            f"SELECT count(*) FILTER (naive) FROM (SELECT _row FROM {typed} "
            f"WHERE _reason IS NULL AND NOT coalesce({dates}, false) AND ({twice})) JOIN ({texts}) USING (_row)",
        )
    return RowTimes(rows, date_only, max(naive_rows - date_only, 0), repeated, skipped)


def _repeated_condition(connection: duckdb.DuckDBPyConnection, typed: str, timezone: str) -> str:
    """SQL condition of the rows in hours that occur twice, of which a time without an offset means the second."""
    first, last = connection.execute(f"SELECT min(ts), max(ts) FROM {typed} WHERE _reason IS NULL").fetchone() or ()
    if timezone == "UTC" or first is None:
        return ""
    spans = [change.repeated for change in clock_changes(timezone) if change.repeated and first <= change.at <= last]
    return " OR ".join(f"ts >= TIMESTAMP '{begin}' AND ts < TIMESTAMP '{end}'" for begin, end in filter(None, spans))


def _counts(connection: duckdb.DuckDBPyConnection, query: str) -> list[int]:
    return [int(count) for count in connection.execute(query).fetchone() or ()]
