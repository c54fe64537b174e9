"""Whether times are what they seem: dates, hours that clocks skip or repeat, other formats and units."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table

DATED = ("transactions", "events")  # tables that tell dates from moments
TIMED = (*DATED, "touches")


@per_table(*DATED)
def dates_without_clock_times(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn of rows that have a date and no clock time: they have no hour, and no order within the day."""
    if "ts" not in found.staged[table].mapped:
        return
    group = "event_type" if table == "events" else f"'{table}'"
    rows = found.rows(
        f"SELECT {group}, count(*) FILTER (date_only), count(*) FROM ({found.new(table)}) WHERE ts IS NOT NULL "
        "GROUP BY 1 HAVING bool_or(date_only) ORDER BY 1"
    )
    if rows:
        shares = (
            name if dates == all_rows else f"{name} ({dates:,} of {all_rows:,})" for name, dates, all_rows in rows
        )
        yield TableFinding(
            f"the times of {', '.join(shares)} are dates without a clock time: no hours, ordered by day",
            "export the clock times as well, if the system has them; dates alone need no time zone",
            sum(dates for _, dates, _ in rows),
        )


@per_table()
def changed_clocks(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn of local times that do not exist, which are rejected, and of those that occur twice."""
    times, zone = found.staged[table].times, found.source.timezone
    if times is None or not times.repeated + times.skipped:
        return
    parts = []
    if times.repeated:
        parts.append(
            f"{times.repeated:,} rows are in the hour that occurs twice when the clocks of {zone} go back, "
            "and are read as the second one"
        )
    if times.skipped:
        parts.append(f"{times.skipped:,} rows are rejected, because the clocks of {zone} skip their hour")
    yield TableFinding(
        "; ".join(parts),
        "export times with an offset from UTC; if the clocks of the source never change, `timezone` is another one",
        times.repeated + times.skipped,
    )


@per_table()
def unread_time_formats(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Say which format rejected times have, and how it is read."""
    for times in found.staged[table].unread_times:
        yield TableFinding(
            f"{times.rows:,} rows are rejected, because {times.column} looks like {times.looks_like}",
            times.fix,
            times.rows,
        )


@per_table(*TIMED)
def times_of_1970(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn of times in the first weeks of 1970: seconds since 1970 that were divided as if they were milliseconds."""
    if "ts" not in found.staged[table].mapped:
        return
    [(rows, all_rows)] = found.rows(
        "SELECT count(*) FILTER (ts < TIMESTAMP '1970-03-01' AND ts >= TIMESTAMP '1970-01-01'), count(ts) "
        f"FROM ({found.new(table)})"
    )
    if rows * 2 > all_rows:
        yield TableFinding(
            f"{rows:,} of {all_rows:,} rows are dated January or February 1970",
            "the numbers are seconds since 1970 already: write to_timestamp(column) without a division",
            rows,
        )
