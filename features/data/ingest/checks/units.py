"""Whether quantities are in one unit: fuel in thousandths of a gallon, cloth in centimetres, screws by the thousand."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table
from features.data.lake import literal

FEW_LINES = 0.02  # this share of the lines …
MOST_UNITS = 0.5  # … holds this share of the units …
MIN_TIMES_MEDIAN = 50  # … and each has at least so many times the median quantity
MIN_LINES = 100


@per_table("transactions")
def quantities_in_other_units(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn if few lines hold most units. Units and prices per unit say nothing about a customer then."""
    if "quantity" not in found.staged[table].mapped:
        return
    lines = (
        f"SELECT item_id, quantity FROM ({found.after(table)}) WHERE status = 'paid' AND quantity > 0 "
        f"AND source = {literal(found.source.name)}"
    )
    # the median costs ten times as much, and in most shops no line can be so far above it
    lowest, highest = found.rows(f"SELECT min(quantity), max(quantity) FROM ({lines})")[0]
    if lowest is None or highest < MIN_TIMES_MEDIAN * lowest:
        return
    row = found.rows(
        f"WITH lines AS MATERIALIZED ({lines}), "
        "typical AS (SELECT median(quantity) AS q, count(*) AS n, sum(quantity) AS u FROM lines) "
        "SELECT count(*), sum(l.quantity) / any_value(t.u), count(*) / any_value(t.n), any_value(t.n), "
        "any_value(t.q), mode(l.item_id ORDER BY l.item_id), median(l.quantity) "
        f"FROM lines AS l, typical AS t WHERE l.quantity >= {MIN_TIMES_MEDIAN} * t.q"
    )[0]
    if not row[0]:
        return
    count, units, share, total, usual, item_id, quantity = row
    if total >= MIN_LINES and share <= FEW_LINES and units >= MOST_UNITS:
        yield TableFinding(
            f"{count:,} of {total:,} lines ({share:.1%}) hold {units:.0%} of all units: {quantity:,.0f} a line, "
            f"most of them item {item_id}, where {usual:g} is usual",
            "if these are booked in another unit (weight, volume, thousandths), convert them in the mapping, "
            "for example `quantity: CASE WHEN unit = 'ml' THEN quantity / 1000 ELSE quantity END`",
            int(count),
        )
