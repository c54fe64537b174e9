"""Rows with a wrong clock: a few of them, long before or after all others."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, IngestWarning
from features.data.time_range import empty_stretches, rows_per_day


def rows_far_from_the_others(found: CheckInput) -> Iterator[IngestWarning]:
    """Name the few rows on the far side of a long stretch without rows, which the default cutoff does not follow."""
    for table in ("transactions", "events"):
        if table in found.merged and "ts" in found.staged[table].mapped:
            for stretch in empty_stretches(rows_per_day(found.connection, f"({found.after(table)})")):
                yield IngestWarning(
                    table,
                    "rows_far_from_the_others",
                    stretch.text,
                    "correct the time of these rows if a clock was wrong; profiles and training end with the others, "
                    "unless --as-of says otherwise",
                    stretch.rows,
                )
