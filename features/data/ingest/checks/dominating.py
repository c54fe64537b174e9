"""One id that stands for many: a walk-in account among the customers, a bag or a deposit among the items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table
from features.data.ingest.checks.order_numbers import ORDERS
from features.data.ingest.checks.spelling import distinct_ids
from features.data.lake import literal
from features.data.placeholders import is_guest
from features.data.shared_accounts import find_shared_accounts

MAX_SHOWN = 5

MIN_ORDER_SHARE = 0.5  # of the orders with several items
MIN_ORDERS, MIN_ITEMS = 30, 5  # in a smaller shop, an item of every order says nothing


@per_table("transactions", "events")
def shared_accounts(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Name the accounts that no one person can have: those that churn and lookalike leave out, and others like them.

    Accounts of all sources are compared, as the later steps do; those of the source that is read are named. If records
    are linked later, a customer may have more rows than its records.
    """
    account = "source || chr(31) || source_user_id AS account"
    rows = (
        f"SELECT * FROM ({found.after(table)}) "
        f"WHERE source_user_id IS NOT NULL{' AND status = $$paid$$' if table == 'transactions' else ''}"
    )
    counted = found.connection.execute(
        f"SELECT {account}, lines FROM (SELECT source, source_user_id, count(*)::DOUBLE AS lines FROM ({rows}) "
        "GROUP BY ALL) ORDER BY 1"
    ).fetch_arrow_table()

    def orders_per_day(accounts: Sequence[str]) -> Mapping[str, float]:
        zone = literal(found.settings.calendar_timezone)
        daily = found.connection.execute(
            "SELECT account, count(*) / count(DISTINCT day) FROM ("
            f"SELECT {account}, ((min(ts) AT TIME ZONE 'UTC') AT TIME ZONE {zone})::DATE AS day FROM ({rows}) "
            "WHERE list_contains($1, account) GROUP BY account, order_id) GROUP BY 1",
            [list(accounts)],
        )
        return dict(daily.fetchall())

    dated = table == "transactions" and "ts" in found.staged[table].mapped
    accounts = find_shared_accounts(
        counted["account"].to_pylist(),
        counted["lines"].to_numpy(),
        found.settings.identity.shared_account_share,
        orders_per_day if dated else None,
    )
    source = f"{found.source.name}\x1f"
    own = [(account.one_id.removeprefix(source), account) for account in accounts if account.one_id.startswith(source)]
    if own:
        what = "order lines" if table == "transactions" else "events"
        listed = "; ".join(
            f"{name} has {account.lines:,} {what} ({account.share:.0%})"
            + (f", {account.orders_per_day:.1f} orders a day" if account.orders_per_day else "")
            for name, account in own[:MAX_SHOWN]
        )
        ids = ", ".join(_quoted(name) for name, _ in own[:MAX_SHOWN])
        left_out = (
            "it gets no churn score and is in no lookalike audience; models learn from its orders"
            if dated
            else "it is kept as one customer everywhere"
        )
        yield TableFinding(
            f"no one person can have so many rows: {listed}; {left_out}",
            f"if it is a walk-in, guest or test account, add the line `no_customer: [{ids}]` to sources.yaml",
            sum(account.lines for _, account in own),
        )


@per_table("transactions", "events", "profiles", "touches")
def guest_ids(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Name customer ids that say that the customer is unknown (`is_guest`), however few rows they have."""
    if "source_user_id" not in found.staged[table].mapped:
        return
    distinct = distinct_ids(found, table, "source_user_id")
    known = [str(row[0]) for row in found.rows(f"SELECT i FROM {distinct} WHERE {is_guest('i')} ORDER BY rows DESC, i")]
    if not known:
        return
    # only ids that this input has: what is declared now may be in the lake from an earlier ingest
    ids = ", ".join(map(literal, known))
    read = found.rows(
        f"SELECT source_user_id, count(*) FROM {found.staged[table].typed} "
        f"WHERE _reason IS NULL AND source_user_id IN ({ids}) GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    if read:
        listed = ", ".join(f"{name} ({count:,} rows)" for name, count in read[:MAX_SHOWN])
        listed += " …" if len(read) > MAX_SHOWN else ""
        yield TableFinding(
            f"customer ids say that they are guests, and each counts as one customer: {listed}",
            f"add the line `no_customer: [{', '.join(_quoted(str(name)) for name, _ in read)}]` to sources.yaml",
            sum(int(row[1]) for row in read),
        )


@per_table("transactions")
def item_in_most_orders(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Name items of most orders: bags, deposits, shipping. A recommender would offer them to everyone."""
    if "item_id" not in found.staged[table].mapped:
        return
    declared = f"SELECT item_id FROM ({found.after('items')}) WHERE merchandise = false"
    lines = (
        f"SELECT order_id, item_id FROM ({found.after(table)}) "
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
        yield TableFinding(
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
