"""Whether an order number names one order, or restarts: each day, or at each till."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table

# A shop that is open past midnight has orders over two dates; the same number a day later is about 24 hours later.
SAME_ORDER_HOURS = 20
# Most orders of a shop are of one day; shipments in parts and late additions are fewer, and within a quarter.
MAX_SHARE_OVER_DAYS, MAX_SHARE_OVER_QUARTERS, QUARTER_DAYS = 0.5, 0.05, 90
MAX_SHARE_OVER_CUSTOMERS = 0.01
ORDERS = "order_spread"  # temp table of the orders; in `CheckInput.prepared` if it has all that were paid
MIN_ORDERS = 3  # fewer are noise, unless they are at least half of all


@per_table("transactions")
def order_numbers(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn if orders spread over several days or customers: their numbers restart, and orders are merged.

    Refunds are left out, because they come later under the number of their order. Only orders of this ingest are
    compared, together with what the lake holds under their numbers.
    """
    merged = found.merged[table]
    if not merged.kept:
        return
    sold = (
        "SELECT hash(source, order_id) AS number, ts, source_user_id, "
        "CASE WHEN item_id IS NOT NULL THEN hash(item_id) END AS item FROM ({}) WHERE {}status = 'paid'"
    )
    rows = sold.format(found.after(table), "")
    if not found.rows("SELECT 1 FROM lake_transactions LIMIT 1"):
        found.prepared.add(ORDERS)
    else:
        touched = f"SELECT hash(source, order_id) FROM ({merged.new})"
        rows = sold.format(found.after(table), f"hash(source, order_id) IN ({touched}) AND ")
    customer = "CASE WHEN source_user_id IS NOT NULL THEN hash(source_user_id) END"
    found.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {ORDERS} AS SELECT number, count(*) AS lines, "
        "min(item) <> max(item) AS several_items, "
        f"max(ts) - min(ts) >= INTERVAL {SAME_ORDER_HOURS} HOUR AS over_days, "
        f"max(ts) - min(ts) > INTERVAL {QUARTER_DAYS} DAY AS over_quarters, "
        f"min({customer}) <> max({customer}) AS over_customers FROM ({rows}) GROUP BY number"
    )
    orders, days, quarters, customers = found.rows(
        "SELECT count(*), count(*) FILTER (over_days), count(*) FILTER (over_quarters), "
        f"count(*) FILTER (over_customers) FROM {ORDERS}"
    )[0]
    restarts = _is_much(days, orders, MAX_SHARE_OVER_DAYS) or _is_much(quarters, orders, MAX_SHARE_OVER_QUARTERS)
    shared = _is_much(customers, orders, MAX_SHARE_OVER_CUSTOMERS)
    if not restarts and not shared:
        return
    chosen = "over_days" if restarts else "over_customers"
    spread = found.rows(
        f"WITH worst AS (SELECT number FROM {ORDERS} WHERE "
        f"{chosen} ORDER BY lines DESC, number LIMIT 1) SELECT any_value(order_id), count(*), "
        f"count(DISTINCT ts::DATE), count(DISTINCT source_user_id) FROM ({found.after(table)}) "
        "WHERE status = 'paid' AND hash(source, order_id) = (SELECT number FROM worst)"
    )[0]
    kinds = [f"{days:,} over more than one day"] if days else []
    kinds += [f"{customers:,} over more than one customer"] if customers else []
    dates = f"{spread[2]:,} days" if spread[2] else "no day"
    fixes = ["the date: `order_id: concat(date, '-', receipt)`"] if restarts else []
    fixes += ["the till or the store: `order_id: concat(store, '-', receipt)`"] if shared else []
    yield TableFinding(
        f"of {orders:,} order numbers {' and '.join(kinds)}, for example {spread[0]} with {spread[1]:,} lines "
        f"of {dates} and {spread[3]:,} customers; all lines under one number count as one order",
        f"put into the number what makes it unique, with the columns of your file: {' and '.join(fixes)}; "
        "then ingest into a new workspace",
        found.rows(f"SELECT sum(lines) FROM {ORDERS} WHERE {chosen}")[0][0],
    )


def _is_much(count: int, orders: int, share: float) -> bool:
    return count > share * orders and (count >= MIN_ORDERS or 2 * count >= orders)
