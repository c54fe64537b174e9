"""The views that features aggregate, as Ibis expressions over the canonical tables with `one_id`.

A view never contains a row at or after `as_of`. `COLUMN_SOURCES` maps a view column to the canonical columns it is
derived from, so that a feature whose source never filled them is reported as unsupported instead of being zero for
everyone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import ibis
import ibis.expr.types as ir
from ibis import _

from features.compute.algebra import (
    CLOCK_COLUMNS,
    PRICE_LEVEL,
    PRICED_VIEWS,
    SESSION_GAP_SECONDS,
    SESSION_SEPARATOR,
    SORT_KEYS,
    TIME_AGGREGATES,
    TIME_COLUMNS,
    TWO_WINDOW_AGGREGATES,
    Feature,
)
from features.compute.local_time import LocalTime
from features.compute.past_profiles import past_profiles, without_later_registrations
from features.compute.price_levels import PRICED_DAYS, item_price_levels, with_price_levels
from features.data.lake import TableState, data_end
from qianmian.times import SECONDS_PER_DAY

CLOCK_TIME = "clock time"  # beside the filled columns of a table: some of its rows have more than a date
VIEW_TABLES = {
    "lines": "transactions",
    "orders": "transactions",
    "refunds": "transactions",
    "events": "events",
    "touches": "touches",
    "profiles": "profiles",
}
COLUMN_SOURCES: dict[str, tuple[tuple[str, str], ...]] = {
    "lines.category": (("items", "category"),),
    "lines.category_top": (("items", "category"),),
    "lines.brand": (("items", "brand"),),
    "orders.gap_days": (("transactions", "ts"),),
    "orders.lines": (),
    "orders.units": (("transactions", "quantity"),),
    "orders.full_amount": (("transactions", "amount"),),
    "events.category_top": (("events", "category"), ("items", "category")),
    "events.session_id": (("events", "session_id"), ("events", CLOCK_TIME)),
    "events.topic": (("contents", "topics"),),
}  # one filled pair is enough; a column not listed is the canonical column of the same name
DATED_TABLES = ("transactions", "events", "touches")
# columns from which price levels follow; a row of an event needs its item too
PRICE_SOURCES = (("transactions", "item_id"), ("transactions", "amount"), ("items", "category"))
SHARED_TABLES = ("items", "contents")  # tables without customers


def epoch_seconds(ts: ir.TimestampValue) -> ir.FloatingValue:
    """Whole seconds since 1970, as float64, because some engines return the quotient of integers as a decimal."""
    return ts.epoch_seconds().cast("float64").floor().cast("float64")  # DuckDB returns the fraction of a second too


def days_before(cutoff: ir.TimestampScalar, ts: ir.TimestampValue) -> ir.FloatingValue:
    """Days from `ts` to the later moment `cutoff`."""
    return (epoch_seconds(cutoff) - epoch_seconds(ts)) / SECONDS_PER_DAY


def view_with(view: str, columns: Collection[str]) -> str:
    """Name of the view that has these columns: rows are joined with price levels only for those who read them."""
    return PRICED_VIEWS[view] if view in PRICED_VIEWS and PRICE_LEVEL in columns else view


def is_supported(feature: Feature, states: Mapping[str, TableState]) -> bool:
    """Whether the lake has data in all columns the feature reads; True for a quotient, which depends on its parts."""
    if feature.aggregate == "quotient":
        return True
    table = VIEW_TABLES[feature.view]
    if table not in states or not states[table].rows:
        return False
    timed = feature.window_days is not None or feature.aggregate in (*TIME_AGGREGATES, *TWO_WINDOW_AGGREGATES)
    columns = feature.columns
    if columns.intersection(CLOCK_COLUMNS):
        columns = columns.difference(CLOCK_COLUMNS) | {CLOCK_TIME}
    if PRICE_LEVEL in columns:
        columns = columns.difference({PRICE_LEVEL}) | {"item_id"}
        if not all(source in states and column in states[source].filled for source, column in PRICE_SOURCES):
            return False
    if timed or columns.intersection(TIME_COLUMNS):
        columns = columns.difference(TIME_COLUMNS) | {"ts"}
    return all(
        any(source in states and source_column in states[source].filled for source, source_column in pairs) or not pairs
        for pairs in (COLUMN_SOURCES.get(f"{feature.view}.{column}", ((table, column),)) for column in columns)
    )


class PreparedTables:
    """Source tables joined with all that does not depend on `as_of`: one_id, item attributes, sessions, calendar.

    They are prepared once and shared by the views of every cutoff. If `kept`, a table of up to `MAX_CACHED_ROWS` rows
    is kept in memory as a temporary table (measured on 1.5 million lines: 1.7 CPU s once, and ten features take 0.5
    instead of 1.0 CPU s per cutoff); a larger one stays a query. Days and hours are those of `local_time`.
    """

    MAX_CACHED_ROWS = 5_000_000

    def __init__(
        self,
        backend: Any,
        states: Mapping[str, TableState],
        local_time: LocalTime,
        prefix: str = "",
        allow_undated: frozenset[str] = frozenset(),
        kept: bool = True,
    ) -> None:
        self.kept = kept
        self.backend, self.states, self.local_time, self._prefix = backend, states, local_time, prefix
        self.allow_undated = allow_undated  # attributes whose first known value holds at every earlier moment
        self._cache: dict[str, ir.Table] = {}

    def __getitem__(self, name: str) -> ir.Table:
        if name not in self._cache:
            rows = getattr(self, f"_{name}")()
            if self._is_cached(name):
                rows = self.backend.create_table(self.cached_table_name(name), rows, temp=True)
            self._cache[name] = rows
        return self._cache[name]

    def _is_cached(self, name: str) -> bool:
        small = name in self.states and self.states[name].rows <= self.MAX_CACHED_ROWS
        return self.is_part or (self.kept and small)

    @property
    def is_part(self) -> bool:
        """Whether these are the rows of some of the customers only."""
        return bool(self._prefix)

    def cached_table_name(self, name: str) -> str:
        """Name of the temporary table that caches the rows of `name`."""
        return f"rows_of_{self._prefix}{name}"

    def cache(self, names: Iterable[str]) -> None:
        """Prepare these tables under the names that cached queries refer to."""
        for name in dict.fromkeys(names):
            if name in DATED_TABLES:
                self[name]

    def customer_table(self, table: str) -> ir.Table:
        """A canonical table with customer rows, or `customers` itself."""
        return self.backend.table(self._prefix + table)

    def is_past(self, as_of: datetime) -> bool:
        """Whether `as_of` is before the end of the data, so that profiles are those of their history."""
        end = data_end(self.states)
        return end is not None and as_of < end

    def known_profiles(
        self, as_of: datetime, cutoff: ir.TimestampScalar, later_registrations: bool = False
    ) -> ir.Table:
        """The profiles known at `as_of`, one row per record, with the columns of `profiles`.

        From the end of the data on these are the current rows: a workspace in use ingests today what it scores today.
        Before it they are those of the profile history. With `later_registrations` also registrations at or after
        `as_of` are kept, for a state that is read at later moments.
        """
        current = self.customer_table("profiles")
        if self.is_past(as_of):
            history = self.customer_table("profile_history")
            current = past_profiles(current, history, cutoff, self.allow_undated)
        return current if later_registrations else without_later_registrations(current, cutoff)

    @cached_property
    def schema_key(self) -> tuple[Any, ...]:
        """Key of what the SQL of a query depends on: tables, their columns, and which are cached or have times."""
        names = (
            *("customers", "profiles", "profile_history", "transactions", "events", "touches"),
            *("items", "contents"),
        )
        tables = [
            self.customer_table(name) if name not in SHARED_TABLES else self.backend.table(name) for name in names
        ]
        states = [self.states.get(name) for name in names]
        facts = tuple(
            (self._is_cached(name), state is not None and "ts" in state.filled)
            for name, state in zip(names, states, strict=True)
        )
        return (
            self._prefix,
            self.local_time.timezone,
            self.one_ids_static,
            self.tells_merchandise,
            self.allow_undated,
            facts,
            tuple(tuple(table.schema().items()) for table in tables),
        )

    @cached_property
    def one_ids_static(self) -> bool:
        """Whether no record ever changed its customer, so that `one_id` does not depend on the cutoff."""
        records = self.backend.table("customers").group_by(["source", "source_user_id"]).aggregate(periods=_.count())
        return not records.filter(records.periods > 1).limit(1).count().to_pyarrow().as_py()

    @property
    def tells_merchandise(self) -> bool:
        """Whether some item says that it is merchandise, or that it is not."""
        return "items" in self.states and "merchandise" in self.states["items"].filled

    def _with_one_id(self, table: str) -> ir.Table:
        rows = self.customer_table(table)
        if not self.one_ids_static:
            return rows.filter(rows.source_user_id.notnull())
        customers = self.customer_table("customers").select("one_id", "source", "source_user_id")
        return rows.inner_join(customers, ["source", "source_user_id"])

    def _with_items(self, t: ir.Table, own_category: bool = False) -> ir.Table:
        """The rows with the category and brand of their item.

        A row of an item that is no merchandise (a bag, a deposit) names no item, because the customer did not choose
        it; its money counts.
        """
        items = self.backend.table("items")
        attributes = items.select("item_id", item_category=_.category, brand=_.brand)
        joined = t.left_join(attributes, "item_id").drop("item_id_right")
        category = ibis.coalesce(joined.category, joined.item_category) if own_category else joined.item_category
        joined = joined.mutate(category=category, category_top=first_part(category, "/"))
        if not self.tells_merchandise:
            return joined
        others = items.filter(~items.merchandise).select(other="item_id")
        marked = joined.left_join(others, joined.item_id == others.other)
        named = {
            name: ibis.ifelse(marked.other.isnull(), marked[name], ibis.null(marked[name].type()))
            for name in ("item_id", "category", "category_top", "brand")
        }
        return marked.mutate(**named).drop("other")

    def _transactions(self) -> ir.Table:
        return self.local_time.with_calendar(self._with_items(self._with_one_id("transactions")))

    def _events(self) -> ir.Table:
        contents = self.backend.table("contents").select("content_id", topic=first_part(_.topics, "|"))
        t = self._with_items(self._with_one_id("events"), own_category=True)
        t = t.left_join(contents, "content_id").drop("content_id_right")
        return self.local_time.with_calendar(with_sessions(t))

    def _touches(self) -> ir.Table:
        return self.local_time.with_calendar(self._with_one_id("touches"))


class Views:
    """The views at one cutoff.

    Parameters
    ----------
    rows : PreparedTables
        Prepared tables of the lake.
    as_of : datetime
        Cutoff, naive UTC. Tables without timestamps are not restricted.
    cutoff : TimestampScalar, optional
        The cutoff as an expression, for engines that have a variable for it.
    """

    def __init__(self, rows: PreparedTables, as_of: datetime, cutoff: ir.TimestampScalar | None = None) -> None:
        self.rows, self.as_of = rows, as_of
        self.later_registrations = False  # whether registrations at or after the cutoff are kept
        self._variable = cutoff is not None
        self.cutoff = timestamp(as_of) if cutoff is None else cutoff
        self._cache: dict[str, ir.Table] = {}

    def __getitem__(self, name: str) -> ir.Table:
        if name not in self._cache:
            self._cache[name] = getattr(self, f"_{name}")()
        return self._cache[name]

    def before(self, days: int) -> ir.TimestampScalar:
        """The moment `days` days before `as_of`."""
        if self._variable:
            return self.cutoff - ibis.interval(days=days)
        return timestamp(self.as_of - timedelta(days=days))

    @cached_property
    def customers(self) -> ir.Table:
        """Records known before `as_of`, with their customer at that time: one_id, source, source_user_id."""
        t = self.rows.customer_table("customers")
        t = t.filter(t.valid_from.isnull() | (t.valid_from < self.cutoff))
        if not self.rows.one_ids_static:
            always = timestamp(datetime(1, 1, 1))
            latest = ibis.row_number().over(
                group_by=["source", "source_user_id"], order_by=ibis.desc(t.valid_from.fill_null(always))
            )
            t = t.mutate(place=latest)
            t = t.filter(t.place == 0)
        return t.select("one_id", "source", "source_user_id")

    @cached_property
    def price_levels(self) -> ir.Table:
        """The price levels of the items at the cutoff, from the lines of all customers: item_id, price_level."""
        if self.rows.is_part:  # the engine has made the table from all rows
            return self.rows.customer_table("price_levels")
        t, states = self.rows.backend.table("transactions"), self.rows.states
        t = t.filter(t.status == "paid")
        if "transactions" in states and "ts" in states["transactions"].filled:
            t = t.filter(t.ts < self.cutoff, t.ts >= self.before(PRICED_DAYS))
        return item_price_levels(t, self.rows.backend.table("items"))

    def _before_cutoff(self, table: str) -> ir.Table:
        t = self.rows[table]
        states = self.rows.states
        if table in states and "ts" in states[table].filled:
            t = t.filter(t.ts < self.cutoff)
        return t if self.rows.one_ids_static else t.inner_join(self.customers, ["source", "source_user_id"])

    def _transactions(self) -> ir.Table:
        return self._before_cutoff("transactions")

    def _lines(self) -> ir.Table:
        t = self._before_cutoff("transactions")
        return t.filter(t.status == "paid")

    def _priced_lines(self) -> ir.Table:
        return self._priced(self["lines"])

    def _priced_events(self) -> ir.Table:
        return self._priced(self["events"])

    def _priced(self, rows: ir.Table) -> ir.Table:
        return rows if PRICE_LEVEL in rows.columns else with_price_levels(rows, self.price_levels)

    def _refunds(self) -> ir.Table:
        t = self._before_cutoff("transactions")
        return t.filter(t.status == "refunded")

    def _orders(self) -> ir.Table:
        t = self["lines"]
        with_clock = t.ts.min(where=~t.date_only.fill_null(False))
        orders = t.group_by(["one_id", "source", "order_id"]).aggregate(
            ts=t.ts.min(),
            # an order has a clock time if its first line has
            date_only=t.ts.min().notnull() & (with_clock.isnull() | (with_clock > t.ts.min())),
            lines=t.count(),
            units=t.quantity.sum(),
            amount=t.amount.sum(),
            discount=t.discount.sum().fill_null(0.0),
            coupon_discount=t.coupon_discount.sum().fill_null(0.0),
            store_id=t.store_id.min(),
            channel=t.channel.min(),
        )
        seconds = epoch_seconds(orders.ts)
        window = ibis.window(group_by="one_id", order_by=list(SORT_KEYS["orders"]))
        orders = orders.mutate(
            full_amount=orders.amount + orders.discount + orders.coupon_discount,
            gap_days=(seconds - seconds.lag().over(window)) / SECONDS_PER_DAY,
        )
        return self.rows.local_time.with_calendar(orders)

    def _events(self) -> ir.Table:
        return self._before_cutoff("events")

    def _touches(self) -> ir.Table:
        return self._before_cutoff("touches")

    def _profiles(self) -> ir.Table:
        known = self.rows.known_profiles(self.as_of, self.cutoff, self.later_registrations)
        return known.inner_join(self.customers, ["source", "source_user_id"])


def timestamp(moment: datetime) -> ir.TimestampScalar:
    """A naive UTC moment as an Ibis literal."""
    return ibis.timestamp(moment.isoformat(sep=" "))


def first_part(text: ir.StringValue, separator: str) -> ir.StringValue:
    """The text before the first separator; `split` is not used because some engines read the separator as a pattern."""
    at = text.find(separator)
    return ibis.ifelse(at > 0, text.substr(0, at), text)


def with_sessions(t: ir.Table) -> ir.Table:
    """Fill `session_id` of events without one: a session has at most half an hour between the events of a record.

    Only earlier rows are read, so the session of an event does not change when later rows arrive. An event that is only
    a date is in no session, unless its source names one.
    """
    only_date = t.date_only.fill_null(False)
    t = t.mutate(own=t.session_id.notnull() | only_date)
    record: dict[str, Any] = {"group_by": ["source", "source_user_id", "own"], "order_by": ["ts", "event_id"]}
    before = t.ts.lag().over(**record)
    # not in seconds, of which some engines drop the fraction
    starts = before.isnull() | (t.ts > before + ibis.interval(seconds=SESSION_GAP_SECONDS))
    t = t.mutate(starts=ibis.ifelse(starts, 1, 0))
    number = t.starts.sum().over(rows=(None, 0), **record)
    made = ibis.ifelse(t.own, ibis.null("string"), t.source_user_id + SESSION_SEPARATOR + number.cast("string"))
    return t.mutate(session_id=t.source + SESSION_SEPARATOR + ibis.coalesce(t.session_id, made)).drop("starts", "own")
