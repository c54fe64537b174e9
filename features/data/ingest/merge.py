"""Merge staged rows with the lake: new, duplicate, superseded or conflicting rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb

from features.data.ingest.columns import column_list
from features.data.ingest.contract import StagedTable
from features.data.ingest.merge_dimensions import merge_dimension
from features.data.ingest.merge_facts import MergedFacts, changed_rows, merge_fact
from features.data.ingest.merge_rows import MergeRows
from features.data.lake import quote

# In a dimension the newer row replaces the older one with the same key; a fact is never overwritten.
DIMENSIONS = frozenset({"profiles", "identities", "items", "contents", "campaigns"})
CONFLICT_REASON = "same key, different content: another row has this key, and facts are not overwritten"


@dataclass(frozen=True)
class MergedTable:
    """Result of merging a staged table with the lake.

    Attributes
    ----------
    query : str
        SELECT of the complete new content of the table, new rows in the order of the input.
    rows : str
        The same in no order, for counts: DuckDB sorts a subquery even if nothing depends on its order.
    new : str
        SELECT of the kept rows.
    verdicts : str
        Temp table (_row, verdict) of the rows that are not kept: 'duplicate', 'superseded' or 'conflict'.
    kept, duplicates, superseded, conflicts : int
        Number of rows by result.
    updated : int
        Kept rows that replace an older row with the same key.
    changed : bool
        Whether `query` differs from the lake: also if a dimension only learns that a known row still holds.
    status_changed : int
        Order lines whose status changed.
    further_lines : int
        Lines that were added to an order after the first file, or ingest, that holds it.
    """

    query: str
    rows: str
    new: str
    verdicts: str
    kept: int
    duplicates: int
    superseded: int
    conflicts: int
    updated: int
    changed: bool
    status_changed: int = 0
    further_lines: int = 0


def merge(
    connection: duckdb.DuckDBPyConnection,
    staged: StagedTable,
    lake_columns: Mapping[str, str],
    now: datetime | None = None,
) -> MergedTable:
    """Merge the valid rows of `staged` with the view ``lake_<table>``.

    Parameters
    ----------
    lake_columns : mapping of str to str
        Columns of the view: name → SQL type.
    now : datetime, optional
        Moment of the ingest, naive UTC: the date of rows of a dimension that have none.
    """
    rows = MergeRows.of(staged, lake_columns)
    table, good, known, verdicts = rows.table, rows.good, rows.known, rows.verdicts
    facts = MergedFacts()
    if table.name in DIMENSIONS:
        updated = merge_dimension(connection, rows, now)
    else:
        facts = merge_fact(connection, rows)
        updated = facts.status.updated
        if rows.replaced:
            updated += int((connection.execute(f"SELECT count(*) FROM ({rows.replaced})").fetchone() or (0,))[0])
    counts = {
        str(verdict): int(count)
        for verdict, count in connection.execute(f"SELECT verdict, count(*) FROM {verdicts} GROUP BY 1").fetchall()
    }
    total = int(
        (connection.execute(f"SELECT count(*) FROM {staged.typed} WHERE _reason IS NULL").fetchone() or (0,))[0]
    )
    names = column_list(rows.columns)
    if table.name in DIMENSIONS:
        new = f"SELECT _row, {names} FROM final_{table.name} WHERE NOT _same"
        written = f"SELECT _row, {names} FROM final_{table.name} WHERE _written"
        # IS NOT DISTINCT FROM, because the key of a sighting without a time contains a null
        keys = " AND ".join(f"l.{quote(key)} IS NOT DISTINCT FROM n.{quote(key)}" for key in table.key)
        old = f"SELECT {names} FROM ({known}) AS l WHERE NOT EXISTS (SELECT 1 FROM ({written}) AS n WHERE {keys})"
        changed = bool((connection.execute(f"SELECT count(*) FROM ({written})").fetchone() or (0,))[0])
    else:
        if facts.status.applied:
            good, known = changed_rows(rows)
        new = f"SELECT * FROM ({good})" + (f" WHERE _row NOT IN (SELECT _row FROM {verdicts})" if counts else "")
        old, written = f"SELECT {names} FROM ({known})", new
        changed = total > sum(counts.values())
    return MergedTable(
        f"{old} UNION ALL (SELECT {names} FROM ({written}) ORDER BY _row)",
        f"{old} UNION ALL SELECT {names} FROM ({written})",
        new,
        verdicts,
        kept=total - sum(counts.values()),
        duplicates=counts.get("duplicate", 0),
        superseded=counts.get("superseded", 0),
        conflicts=counts.get("conflict", 0),
        updated=updated,
        changed=changed,
        status_changed=facts.status.changed,
        further_lines=facts.further,
    )
