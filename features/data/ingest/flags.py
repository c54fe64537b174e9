"""Counts of kept rows with an unusual property."""

from __future__ import annotations

from features.data.ingest.contract import StagedTable
from features.data.ingest.merge import MergedTable
from features.data.ingest.status_changes import TURNED
from features.data.lake import quote
from qianmian.schema import TABLES


def refunds_without_sale(merged: MergedTable) -> str:
    """SQL that counts kept refunds whose customer and item have no paid line, neither in the lake nor in this input.

    A sale that was marked as refunded is no such refund.
    """
    turned = f"AND r._row NOT IN (SELECT _row FROM {TURNED}) " if merged.status_changed else ""
    return (
        f"SELECT count(*) FROM ({merged.new}) AS r "
        f"WHERE r.status = 'refunded' {turned}AND r.source_user_id IS NOT NULL AND NOT EXISTS ("
        f"SELECT 1 FROM ({merged.query}) AS s WHERE s.status = 'paid' AND s.source = r.source "
        "AND s.source_user_id = r.source_user_id AND r.item_id IS NOT DISTINCT FROM s.item_id)"
    )


def flag_queries(staged: StagedTable, merged: MergedTable) -> dict[str, str]:
    """SQL that counts kept rows with an unusual property, by the name of the flag."""
    new, table = f"({merged.new})", TABLES[staged.table.name]
    flags = {
        f"{column.name}_above_{column.maximum:.0f}": f"count(*) FILTER (abs({quote(column.name)}) > {column.maximum})"
        for column in table.columns
        if column.maximum is not None and column.name in staged.mapped
    }
    if table.name in ("transactions", "events"):
        flags["no_customer"] = "count(*) FILTER (source_user_id IS NULL)"
    if table.name == "identities":
        flags["no_identifier"] = "count(*) FILTER (id_value IS NULL)"
    queries = {name: f"SELECT {count} FROM {new}" for name, count in flags.items()}
    if table.name == "transactions":
        queries["refund_by_sign"] = (
            f"SELECT count(*) FROM {staged.typed} WHERE _signed AND _row IN (SELECT _row FROM {new})"
        )
        queries["refund_without_sale"] = refunds_without_sale(merged)
    return queries
