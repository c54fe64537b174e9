"""The rows journeys are made of: behaviour events and purchases of each customer in one order, every one with its visit."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal, NoReturn

import ibis
import ibis.expr.types as ir

from features.compute.algebra import SESSION_GAP_SECONDS
from features.compute.views import Views
from qianmian.errors import DataError
from qianmian.schema import EVENT_TYPES

BUY = "buy"
STEPS = (*(kind for kind in EVENT_TYPES if kind != "purchase"), BUY)
EVENT, PURCHASE = 0, 1
SORT_COLUMNS = (
    "ts",
    "kind",
    "row_id",
    "source",
)  # an event before a purchase of the same instant; the rest only breaks ties
COLUMNS = (
    "one_id",
    "source",
    "ts",
    "kind",
    "row_id",
    "step",
    "item_id",
    "category",
    "category_top",
    "page",
    "session_id",
)
Purchases = Literal["orders", "lines"]


def steps(views: Views, purchases: Purchases = "orders", with_visits: bool = True) -> ir.Table:
    """Events and purchases before `views.as_of`, as one table.

    A `purchase` event and a paid order are both the step ``buy``.

    Parameters
    ----------
    purchases : {"orders", "lines"}
        A row an order, or a row a line with its item.
    with_visits : bool
        Say the visit of purchases too, which costs a pass; else theirs is null.

    Returns
    -------
    ibis Table
        `COLUMNS`; kind is 0 for an event, 1 for a purchase.
    """
    return event_rows(views).select(*COLUMNS).union(purchase_rows(views, purchases, with_visits).select(*COLUMNS))


def event_rows(views: Views) -> ir.Table:
    """The events, with `referrer` and `channel`."""
    t = views["events"]
    return t.select(
        "one_id",
        "source",
        "ts",
        "item_id",
        "category",
        "category_top",
        "page",
        "session_id",
        "referrer",
        "channel",
        kind=ibis.literal(EVENT, "int8"),
        row_id=t.event_id,
        step=ibis.ifelse(t.event_type == "purchase", BUY, t.event_type),
    )


def purchase_rows(views: Views, purchases: Purchases = "orders", with_visits: bool = True) -> ir.Table:
    """Paid orders or lines.

    One belongs to the visit of the customer's last event before it (of several at that instant the one whose `session_id` is
    greatest) when that was at most half an hour ago; else it has none, as a purchase in a store.
    """
    t = views[purchases]
    text, lines = ibis.null("string"), purchases == "lines"
    t = t.filter(t.ts.notnull()).select(
        "one_id",
        "source",
        "ts",
        kind=ibis.literal(PURCHASE, "int8"),
        row_id=t.order_id + "\x1f" + t.line_no.cast("string") if lines else t.order_id,
        step=ibis.literal(BUY),
        item_id=t.item_id if lines else text,
        category=t.category if lines else text,
        category_top=t.category_top if lines else text,
        page=text,
    )
    if not with_visits:
        return t.mutate(session_id=text)
    events = views["events"]
    seen = events.group_by("one_id", seen=events.ts).aggregate(visit=events.session_id.max())
    t = t.asof_join(seen, on=t.ts >= seen.seen, predicates="one_id")
    lately = t.ts <= t.seen + ibis.interval(seconds=SESSION_GAP_SECONDS)
    return t.mutate(session_id=ibis.ifelse(lately, t.visit, None)).drop("one_id_right", "seen", "visit")


def in_window(t: ir.Table, column: str, views: Views, window_days: int | None) -> ir.Table:
    """Rows of ``[as_of - window_days, as_of)``; all rows for None."""
    if window_days is None:
        return t
    return t.filter(t[column] >= ibis.timestamp((views.as_of - timedelta(days=window_days)).isoformat(sep=" ")))


def seconds_between(later: ir.TimestampValue, earlier: ir.TimestampValue) -> ir.FloatingValue:
    """Whole seconds, as float64."""
    return (later.epoch_seconds() - earlier.epoch_seconds()).cast("float64")


def raise_no_events(views: Views, window_days: int | None = None) -> NoReturn:
    """Journeys nobody made are not described.

    Raises
    ------
    DataError
        Always: no behaviour event of a known customer lies before `as_of` (and in the window).
    """
    reach = f" in the {window_days} days before" if window_days else " before"
    raise DataError(
        "there is no behaviour event of a known customer",
        where=f"events{reach} {views.as_of}",
        hint="map `events` in sources.yaml (docs/data.md) and ingest, or choose another --as-of or a longer --window-days",
    )


def has_events(views: Views, window_days: int | None = None) -> bool:
    """Whether there is any behaviour event to describe."""
    return bool(in_window(views["events"], "ts", views, window_days).limit(1).count().execute())


@contextlib.contextmanager
def materialized(views: Views, t: ir.Table) -> Iterator[ir.Table]:
    """A result that several queries read, computed once into a temporary table."""
    backend, name = views.rows.backend, f"journeys_{uuid.uuid4().hex}"
    try:
        yield backend.create_table(name, t, temp=True)
    finally:
        # not `drop_table`: Ibis 12 loses the table's name with sqlglot 30
        backend.raw_sql(f'DROP TABLE IF EXISTS "{name}"')


def fetch_rows(t: ir.Table) -> list[dict[str, Any]]:
    """A small result as dictionaries."""
    found: list[dict[str, Any]] = t.to_pyarrow().to_pylist()
    return found
