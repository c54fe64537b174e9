"""The row sets features are declared over, as Ibis expressions: canonical tables with `one_id`, cut at `as_of`.

A view never contains a row at or after `as_of`. `NEEDS` says which canonical columns a view column is made of, so that a
feature whose source never filled them is off instead of silently zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import ibis
import ibis.expr.types as ir
from ibis import _

from features.algebra import Feature
from features.lake import TableState

TABLE_OF = {
    "lines": "transactions",
    "orders": "transactions",
    "refunds": "transactions",
    "events": "events",
    "touches": "touches",
    "profiles": "profiles",
}
MADE_OF: dict[str, tuple[tuple[str, str], ...]] = {
    "lines.category": (("items", "category"),),
    "lines.category_top": (("items", "category"),),
    "lines.brand": (("items", "brand"),),
    "orders.gap_days": (("transactions", "ts"),),
    "orders.lines": (),
    "orders.units": (("transactions", "quantity"),),
    "orders.full_amount": (("transactions", "amount"),),
    "events.category_top": (("events", "category"), ("items", "category")),
}  # any of the pairs is enough; a column not listed is the canonical column of the same name
TIME_COLUMNS = ("hour", "weekday", "day", "week")


def is_supported(feature: Feature, states: Mapping[str, TableState]) -> bool:
    """Whether the lake holds anything the feature could be made of (a quotient is judged by its parts)."""
    if feature.aggregate == "quotient":
        return True
    table = TABLE_OF[feature.view]
    if table not in states or not states[table].rows:
        return False
    timed = feature.window_days is not None or feature.aggregate in ("recency", "age", "trend")
    columns = {c for c in (feature.column, feature.over, *(condition.column for condition in feature.where)) if c}
    if timed or columns.intersection(TIME_COLUMNS):
        columns = columns.difference(TIME_COLUMNS) | {"ts"}
    return all(
        any(source in states and made_of in states[source].filled for source, made_of in pairs) or not pairs
        for pairs in (MADE_OF.get(f"{feature.view}.{column}", ((table, column),)) for column in columns)
    )


class Rows:
    """The rows of one lake connection with everything that does not depend on `as_of`: one_id, item traits, calendar.

    Made once and shared by the views of every moment. A table of up to `KEPT_ROWS` rows is kept in memory as a temporary
    table (measured on 1.4 million lines: 0.6 s once instead of 1.1 s a moment); a larger one stays a query.
    """

    KEPT_ROWS = 5_000_000

    def __init__(self, backend: Any, states: Mapping[str, TableState]) -> None:
        self.backend, self.states = backend, states
        self._made: dict[str, ir.Table] = {}

    def __getitem__(self, name: str) -> ir.Table:
        if name not in self._made:
            rows = getattr(self, f"_{name}")()
            if name in self.states and self.states[name].rows <= self.KEPT_ROWS:
                rows = self.backend.create_table(f"rows_of_{name}", rows, temp=True)
            self._made[name] = rows
        return self._made[name]

    def _owned(self, table: str) -> ir.Table:
        customers = self.backend.table("customers").select("one_id", "source", "source_user_id")
        return self.backend.table(table).inner_join(customers, ["source", "source_user_id"])

    def _with_items(self, t: ir.Table, own_category: bool = False) -> ir.Table:
        items = self.backend.table("items").select("item_id", item_category=_.category, brand=_.brand)
        joined = t.left_join(items, "item_id").drop("item_id_right")
        category = ibis.coalesce(joined.category, joined.item_category) if own_category else joined.item_category
        return joined.mutate(category=category, category_top=category.split("/")[0])

    def _transactions(self) -> ir.Table:
        t = self._owned("transactions").mutate(order_key=_.source + "\x1f" + _.order_id)
        return with_calendar(self._with_items(t))

    def _events(self) -> ir.Table:
        return with_calendar(self._with_items(self._owned("events"), own_category=True))

    def _touches(self) -> ir.Table:
        return with_calendar(self._owned("touches"))


class Views:
    """The views at one moment.

    Parameters
    ----------
    rows : Rows
    as_of : datetime
        Naive UTC. A table without any time has no cut to make.
    """

    def __init__(self, rows: Rows, as_of: datetime) -> None:
        self.rows, self.as_of = rows, as_of
        self.cut = ibis.timestamp(as_of.isoformat(sep=" "))
        self._made: dict[str, ir.Table] = {}

    def __getitem__(self, name: str) -> ir.Table:
        if name not in self._made:
            self._made[name] = getattr(self, f"_{name}")()
        return self._made[name]

    @property
    def customers(self) -> ir.Table:
        """Every customer known before `as_of`: one_id, source, source_user_id."""
        t = self.rows.backend.table("customers")
        return t.filter(t.valid_from.isnull() | (t.valid_from < self.cut)).select("one_id", "source", "source_user_id")

    def _before(self, table: str) -> ir.Table:
        t = self.rows[table]
        states = self.rows.states
        return t.filter(t.ts < self.cut) if table in states and "ts" in states[table].filled else t

    def _lines(self) -> ir.Table:
        t = self._before("transactions")
        return t.filter(t.status == "paid")

    def _refunds(self) -> ir.Table:
        t = self._before("transactions")
        return t.filter(t.status == "refunded")

    def _orders(self) -> ir.Table:
        t = self["lines"]
        orders = t.group_by(["one_id", "order_key"]).aggregate(
            ts=t.ts.min(), lines=t.count(), units=t.quantity.sum(), amount=t.amount.sum(),
            discount=t.discount.sum().fill_null(0.0), coupon_discount=t.coupon_discount.sum().fill_null(0.0),
            store_id=t.store_id.min(), channel=t.channel.min(),
        )  # fmt: skip
        seconds = orders.ts.epoch_seconds().cast("float64")
        window = ibis.window(group_by="one_id", order_by=["ts", "order_key"])
        orders = orders.mutate(
            full_amount=orders.amount + orders.discount + orders.coupon_discount, gap_days=(seconds - seconds.lag().over(window)) / 86_400.0
        )
        return with_calendar(orders)

    def _events(self) -> ir.Table:
        return self._before("events")

    def _touches(self) -> ir.Table:
        return self._before("touches")

    def _profiles(self) -> ir.Table:
        t = self.rows.backend.table("profiles")
        customers = self.rows.backend.table("customers").select("one_id", "source", "source_user_id")
        return t.inner_join(customers, ["source", "source_user_id"])


def with_calendar(t: ir.Table) -> ir.Table:
    """`hour`, `weekday` (Monday 0), `day` and `week` (its Monday) of `ts`, in UTC."""
    return t.mutate(hour=_.ts.hour(), weekday=_.ts.day_of_week.index(), day=_.ts.date(), week=_.ts.truncate("W").date())
