"""Rows with a wrong clock: a few of them, long before or after all others."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table
from features.data.time_range import empty_stretches, rows_per_day


@per_table("transactions", "events")
def rows_far_from_the_others(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Name the few rows on the far side of a long stretch without rows, which the default cutoff does not follow."""
    if "ts" not in found.staged[table].mapped:
        return
    after = f"({found.after(table)})"
    days = rows_per_day(found.connection, after)
    for stretch in empty_stretches(days):
        example = ""
        if table == "transactions":
            first = f"SELECT min(order_id) FROM {after} WHERE ts::DATE = DATE '{stretch.first}'"
            example = f", for example order_id {found.rows(first)[0][0]}"
        yield TableFinding(
            f"{stretch.text}; {sum(count for _, count in days):,} rows in all{example}",
            "correct the time of these rows, or leave them out, if a clock was wrong; profiles and training "
            "end with the others, unless --as-of says otherwise",
            stretch.rows,
        )
