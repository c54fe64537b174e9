"""Whether the amount of an order line is that of the line, or the total of its order, repeated on each line."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table
from features.data.lake import literal, quote
from features.data.sources.expressions import in_expression
from features.data.sources.propose.names import rank_of
from qianmian.yaml_files import quoted

MIN_ORDERS = 20  # orders with several items; in fewer, equal amounts may be a coincidence
MIN_EQUAL_SHARE = 0.95
FIRST_LINES, MIN_FIRST_SHARE = 50_000, 0.5  # in most shops the first lines show that the amounts are those of lines
MIN_VARYING_SHARE = 0.5  # of the items in several orders: an item with one price everywhere has amounts of its own


@per_table("transactions")
def order_totals(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn if all lines of nearly every order have one amount, which differs between the orders and for one item."""
    staged = found.staged[table]
    if not {"amount", "item_id"} <= staged.mapped or not found.merged[table].kept:
        return
    lines = (
        f"SELECT hash(order_id) AS number, order_id, hash(item_id) AS item, amount FROM ({found.after(table)}) "
        f"WHERE status = 'paid' AND amount > 0 AND item_id IS NOT NULL AND source = {literal(found.source.name)}"
    )
    of_orders = (
        "SELECT number, any_value(order_id) AS order_id, count(*) AS lines, min(amount) AS lowest, "
        "max(amount) AS highest FROM ({}) GROUP BY number HAVING min(item) <> max(item)"
    )
    first_orders, first_equal = found.rows(
        f"SELECT count(*), count(*) FILTER (lowest = highest) FROM ({of_orders.format(f'{lines} LIMIT {FIRST_LINES}')})"
    )[0]
    if first_orders >= MIN_ORDERS and first_equal < MIN_FIRST_SHARE * first_orders:
        return
    found.connection.execute(f"CREATE OR REPLACE TEMP TABLE amounts_of_orders AS {of_orders.format(lines)}")
    orders, equal, lowest, highest, extra = found.rows(
        "SELECT count(*), count(*) FILTER (lowest = highest), min(lowest), max(highest), "
        "sum(lines - 1) FILTER (lowest = highest) FROM amounts_of_orders"
    )[0]
    if orders < MIN_ORDERS or equal < MIN_EQUAL_SHARE * orders or lowest == highest:
        return
    varying, items = found.rows(
        "SELECT count(*) FILTER (lowest <> highest), count(*) FROM (SELECT item, min(amount) AS lowest, "
        f"max(amount) AS highest FROM ({lines}) SEMI JOIN amounts_of_orders USING (number) GROUP BY item "
        "HAVING min(number) <> max(number))"
    )[0]
    if items and varying < MIN_VARYING_SHARE * items:
        return
    order, count, amount = found.rows(
        "SELECT order_id, lines, highest FROM amounts_of_orders WHERE lowest = highest ORDER BY lines DESC, order_id "
        "LIMIT 1"
    )[0]
    yield TableFinding(
        f"in {equal:,} of {orders:,} orders with several items, all lines have the same amount, for example {amount:g} "
        f"on each of the {count:,} lines of order {order}: it looks like the total of the order, which counts once a "
        "line then",
        f"map the amount of the line, {_line(found, table)}",
        int(extra),
    )


def _plain(expression: str) -> str:
    """An expression in SQL as one writes it; a column without the quotes that it does not need."""
    name = expression[1:-1]
    return in_expression(name) if expression == quote(name) else f"({expression})"


def _line(found: CheckInput, table: str) -> str:
    """The line of `sources.yaml` that maps the amount of a line; with columns of the file, if it has a price."""
    raw_table, staged = found.raw[table], found.staged[table]
    for wanted in ("unit_price", "amount"):
        ranked = [(rank, name) for name in staged.findings.unused if (rank := rank_of(wanted, name)) is not None]
        if ranked:
            price = in_expression(min(ranked)[1])
            if wanted == "unit_price" and "quantity" in raw_table.columns:
                price = f"{_plain(raw_table.columns['quantity'])} * {price}"
            return f"`amount: {quoted(price)}`"
    return "such as `amount: quantity * price`; if the export has no price of a line, leave `amount` out"
