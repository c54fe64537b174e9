"""Counts of kept rows with an unusual property."""

from __future__ import annotations

import duckdb

from features.data.ingest.contract import StagedTable
from features.data.ingest.merge import MergedTable
from features.data.ingest.status_changes import TURNED
from features.data.lake import quote
from qianmian.schema import TABLES


def _refunds_without_sale(merged: MergedTable) -> str:
    """SQL that counts kept refunds whose customer and item have no paid line, neither in the lake nor in this input.

    A sale that was marked as refunded is no such refund.
    """
    turned = f"AND r._row NOT IN (SELECT _row FROM {TURNED}) " if merged.status_changed else ""
    return (
        f"SELECT count(*) FROM ({merged.new}) AS r "
        f"WHERE r.status = 'refunded' {turned}AND r.source_user_id IS NOT NULL AND NOT EXISTS ("
        f"SELECT 1 FROM ({merged.rows}) AS s WHERE s.status = 'paid' AND s.source = r.source "
        "AND s.source_user_id = r.source_user_id AND r.item_id IS NOT DISTINCT FROM s.item_id)"
    )


def flags(connection: duckdb.DuckDBPyConnection, staged: StagedTable, merged: MergedTable) -> dict[str, int]:
    """Count kept rows with an unusual property, by the name of the flag."""
    new, table = f"({merged.new})", TABLES[staged.table.name]
    counts = {
        f"{column.name}_above_{column.maximum:.0f}": f"count(*) FILTER (abs({quote(column.name)}) > {column.maximum})"
        for column in table.columns
        if column.maximum is not None and column.name in staged.mapped
    }
    if table.name in ("transactions", "events"):
        counts["no_customer"] = "count(*) FILTER (source_user_id IS NULL)"
    if table.name == "identities":
        counts["no_identifier"] = "count(*) FILTER (id_value IS NULL)"
    if table.name == "transactions":
        counts["refunds"] = "count(*) FILTER (status = 'refunded')"
    found: dict[str, int] = {}
    if counts:
        row = connection.execute(f"SELECT {', '.join(counts.values())} FROM {new}").fetchone() or ()
        found = {name: int(count) for name, count in zip(counts, row, strict=True)}
    if found.pop("refunds", 0):
        by_sign = f"SELECT count(*) FROM {staged.typed} WHERE _signed AND _row IN (SELECT _row FROM {new})"
        for name, query in (("refund_by_sign", by_sign), ("refund_without_sale", _refunds_without_sale(merged))):
            found[name] = int((connection.execute(query).fetchone() or (0,))[0])
    return found
