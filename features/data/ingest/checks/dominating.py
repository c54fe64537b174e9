"""One id that stands for many: a walk-in account among the customers, a bag or a deposit among the items."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, IngestWarning
from features.data.ingest.checks.order_numbers import ORDERS
from features.data.ingest.checks.spelling import distinct_ids
from features.data.lake import literal

MIN_ROW_SHARE = 0.02  # of all rows with a customer
MIN_TIMES_MEDIAN = 20  # times the rows of the median customer
MIN_ORDER_SHARE = 0.5  # of the orders with several items
MIN_ORDERS, MIN_ITEMS = 30, 5  # in a smaller shop, an item of every order says nothing


def customer_with_many_rows(found: CheckInput) -> Iterator[IngestWarning]:
    """Name customers that hold a large share of all rows: walk-in, guest and test accounts."""
    for table in ("transactions", "events"):
        if table not in found.merged:
            continue
        counted = distinct_ids(found, table, "source_user_id")
        rows = found.rows(
            f"SELECT i, rows, rows / (SELECT sum(rows) FROM {counted}) AS share FROM {counted} "
            f"WHERE rows >= {MIN_TIMES_MEDIAN} * (SELECT median(rows) FROM {counted}) "
            f"AND rows >= {MIN_ROW_SHARE} * (SELECT sum(rows) FROM {counted}) ORDER BY rows DESC, 1 LIMIT 5"
        )
        if rows:
            ids = [str(row[0]) for row in rows]
            listed = "; ".join(f"{user_id} has {count:,} rows ({share:.0%})" for user_id, count, share in rows)
            yield IngestWarning(
                table,
                "customer_with_many_rows",
                f"one customer id holds many rows: {listed}",
                "if it is a walk-in, guest or test account, add the line "
                f"`no_customer: [{', '.join(map(_quoted, ids))}]` to sources.yaml",
                sum(int(row[1]) for row in rows),
            )


def item_in_most_orders(found: CheckInput) -> Iterator[IngestWarning]:
    """Name items of most orders: bags, deposits, shipping. A recommender would offer them to everyone."""
    if "transactions" not in found.merged or "item_id" not in found.staged["transactions"].mapped:
        return
    declared = f"SELECT item_id FROM ({found.after('items')}) WHERE merchandise = false"
    lines = (
        f"SELECT order_id, item_id FROM ({found.after('transactions')}) "
        f"WHERE status = 'paid' AND source = {literal(found.source.name)}"
    )
    if not _may_be_in_most_orders(found, lines):
        return
    rows = found.rows(
        f"WITH lines AS ({lines}), "
        "several AS (SELECT order_id FROM lines GROUP BY 1 HAVING count(DISTINCT item_id) > 1), "
        "total AS (SELECT count(*) AS orders FROM several), "
        "counted AS (SELECT item_id, count(DISTINCT order_id) AS orders FROM lines SEMI JOIN several USING (order_id) "
        "WHERE item_id IS NOT NULL GROUP BY 1) "
        "SELECT item_id, counted.orders, counted.orders / total.orders FROM counted, total "
        f"WHERE total.orders >= {MIN_ORDERS} AND (SELECT count(*) FROM counted) >= {MIN_ITEMS} "
        f"AND counted.orders >= {MIN_ORDER_SHARE} * total.orders AND item_id NOT IN ({declared}) "
        "ORDER BY 2 DESC, 1 LIMIT 5"
    )
    if rows:
        listed = "; ".join(f"{item_id} in {orders:,} ({share:.0%})" for item_id, orders, share in rows)
        ids = ", ".join(_quoted(str(row[0])) for row in rows)
        yield IngestWarning(
            "transactions",
            "item_in_most_orders",
            f"one item is in most of the orders with several items: {listed}",
            "if customers do not choose it (bag, deposit, shipping), add the line "
            f"`not_merchandise: [{ids}]` to sources.yaml",
            sum(int(row[1]) for row in rows),
        )


def _may_be_in_most_orders(found: CheckInput, lines: str) -> bool:
    """Whether any item has as many lines as `item_in_most_orders` asks for orders, which costs a third to find out."""
    counted = distinct_ids(found, "transactions", "item_id")
    items, most = found.rows(f"SELECT count(*), max(rows) FROM {counted}")[0]
    if items < MIN_ITEMS:
        return False
    several = f"SELECT 1 FROM {ORDERS} WHERE several_items"
    if ORDERS not in found.prepared:
        several = (
            f"SELECT 1 FROM (SELECT hash(order_id) AS number, hash(item_id) AS item FROM ({lines}) "
            "WHERE item_id IS NOT NULL) GROUP BY number HAVING min(item) <> max(item)"
        )
    orders = int(found.rows(f"SELECT count(*) FROM ({several})")[0][0])
    return orders >= MIN_ORDERS and most >= MIN_ORDER_SHARE * orders


def _quoted(text: str) -> str:
    """The id as a YAML text in a list."""
    return text if text.isidentifier() else "'" + text.replace("'", "''") + "'"
