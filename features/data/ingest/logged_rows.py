"""Rows that accepted events have told, beside what their source itself tells: its own rows count.

A shop may send a purchase as an event at once, and its export with the same order at night. The export knows more (all
lines, their numbers, discounts), so its order takes the place of the one that the events told, and an event of an
order that the lake has from an export is a duplicate. Only a refund or a cancellation changes such an order.
"""

from __future__ import annotations

from features.data.ingest.columns import column_list
from features.data.ingest.contract import StagedTable
from features.data.lake import quote
from features.data.tables import LOGGED

# Columns that say which rows of the source and which events tell the same: all lines of an order
SAME = {"events": ("source", "event_id"), "transactions": ("source", "order_id")}


def are_replaced(staged: StagedTable, relation: str) -> str:
    """SQL condition over the lake's rows: events told them, and the staged rows are the source's own."""
    same = " AND ".join(f"t.{name} = {relation}.{name}" for name in SAME[staged.table.name])
    own = f"SELECT 1 FROM {staged.typed} AS t WHERE t._reason IS NULL AND {same}"
    return f"({relation}.{quote(LOGGED)} IS TRUE AND EXISTS ({own}))"


def told_by_source(staged: StagedTable, good: str, known: str) -> str:
    """SELECT _row of the rows of events whose order or event the lake has from the source itself."""
    sale = " WHERE status = 'paid'" if staged.table.name == "transactions" else ""
    own = f"SELECT * FROM ({known}) WHERE {quote(LOGGED)} IS NOT TRUE"
    return f"SELECT _row FROM ({good}) SEMI JOIN ({own}) USING ({column_list(SAME[staged.table.name])}){sale}"
