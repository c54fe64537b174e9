"""Whether refunds are rows beside their sales, or sales that were marked as refunded."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table
from features.data.lake import literal
from features.returns import are_credit_notes, is_unclear


@per_table("transactions")
def unclear_refunds(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn if nothing declares how the source records refunds, and the rows do not tell it clearly.

    Only refunds without a sale in their own order are in doubt.
    """
    if found.raw[table].refunds is not None:
        return
    rows = (
        "SELECT hash(source_user_id, item_id) AS pair, hash(order_id) AS number, coalesce(ts, '-infinity') AS ts, "
        f"status FROM ({found.after(table)}) WHERE source = {literal(found.source.name)} "
        "AND source_user_id IS NOT NULL AND item_id IS NOT NULL"
    )
    if not found.rows(f"SELECT 1 FROM ({rows}) WHERE status = 'refunded' LIMIT 1"):
        return
    refunds, matched, sales, pairs = found.rows(
        f"WITH lines AS ({rows}), sold AS (SELECT * FROM lines WHERE status = 'paid'), "
        "alone AS (SELECT * FROM lines AS r WHERE status = 'refunded' AND NOT EXISTS (SELECT 1 FROM sold AS s "
        "WHERE s.pair = r.pair AND s.number = r.number AND s.ts < r.ts + INTERVAL 1 DAY)), "
        "firsts AS (SELECT pair, min(ts) AS first, count(*) AS lines FROM sold GROUP BY pair) "
        "SELECT count(*), count(*) FILTER (f.first <= a.ts), (SELECT sum(lines) FROM firsts), "
        "(SELECT count(*) FROM firsts) FROM alone AS a LEFT JOIN firsts AS f USING (pair)"
    )[0]
    repeat_share = 1.0 - pairs / sales if sales else 0.0
    if is_unclear(matched, refunds, repeat_share):
        guessed = "separate" if are_credit_notes(matched, refunds, repeat_share) else "in_place"
        yield TableFinding(
            f"{refunds:,} refunds have no sale in their own order, and {matched / refunds:.0%} of them have an earlier "
            f"sale of the item to the customer: they are read as `{guessed}`, but may be the other",
            "under tables.transactions write `refunds: in_place` if the row of a sale becomes its refund (it then "
            "takes back no other sale), or `refunds: separate` if a refund is a row beside the sale",
            refunds,
        )
