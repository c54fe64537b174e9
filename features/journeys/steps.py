"""The rows journeys are made of: behaviour events and purchases of each customer in one order, every one with its visit."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal

import ibis
import ibis.expr.types as ir

from features.views import SESSION_GAP_SECONDS, Views
from qianmian.errors import DataError
from qianmian.schema import EVENT_TYPES

BUY = "buy"
STEPS = (*(kind for kind in EVENT_TYPES if kind != "purchase"), BUY)
IN_TIME = ("ts", "kind", "row_id", "source")  # an event before a purchase of the same instant; the rest only breaks ties
EVENT, PURCHASE = 0, 1


def steps(views: Views, purchases: Literal["orders", "lines"] = "orders") -> ir.Table:
    """Events and purchases before `views.as_of`, as one table.

    A `purchase` event and a paid order are both the step ``buy``. A purchase belongs to the visit of the customer's last event
    before it when that was at most half an hour ago; else it has none (a purchase in a store).

    Parameters
    ----------
    purchases : {"orders", "lines"}
        A row an order, or a row a line with its item.

    Returns
    -------
    ibis Table
        one_id, source, ts, kind (0 event, 1 purchase), row_id, step, item_id, category, category_top, page, referrer, channel,
        session_id.
    """
    events = views["events"]
    text = ibis.null("string")
    happened = events.select(
        "one_id", "source", "ts", kind=ibis.literal(EVENT, "int8"), row_id=events.event_id,
        step=ibis.ifelse(events.event_type == "purchase", BUY, events.event_type), item_id=events.item_id,
        category=events.category, category_top=events.category_top, page=events.page, referrer=events.referrer,
        channel=events.channel, session_id=events.session_id,
    )  # fmt: skip
    t = views[purchases]
    t = t.filter(t.ts.notnull())
    lines = purchases == "lines"
    bought = t.select(
        "one_id", "source", "ts", kind=ibis.literal(PURCHASE, "int8"),
        row_id=t.order_id + "\x1f" + t.line_no.cast("string") if lines else t.order_id, step=ibis.literal(BUY),
        item_id=t.item_id if lines else text, category=t.category if lines else text, category_top=t.category_top if lines else text,
        page=text, referrer=text, channel=t.channel, session_id=text,
    )  # fmt: skip
    return _with_visits(happened.union(bought))


def _with_visits(t: ir.Table) -> ir.Table:
    """`session_id` of purchases: that of the event before them."""
    is_event = t.kind == EVENT
    number = is_event.cast("int64").sum().over(group_by="one_id", order_by=list(IN_TIME), rows=(None, 0))
    t = t.mutate(event_number=number)
    group = ["one_id", "event_number"]
    # a group is one event and the purchases up to the next one
    t = t.mutate(seen=ibis.ifelse(t.kind == EVENT, t.ts, None).max().over(group_by=group), visit=t.session_id.max().over(group_by=group))
    lately = (t.event_number > 0) & (t.ts <= t.seen + ibis.interval(seconds=SESSION_GAP_SECONDS))
    return t.mutate(session_id=ibis.ifelse(lately, t.visit, None)).drop("event_number", "seen", "visit")


def in_window(t: ir.Table, column: str, views: Views, window_days: int | None) -> ir.Table:
    """Rows of ``[as_of - window_days, as_of)``; all rows for None."""
    if window_days is None:
        return t
    return t.filter(t[column] >= ibis.timestamp((views.as_of - timedelta(days=window_days)).isoformat(sep=" ")))


def seconds_between(later: ir.TimestampValue, earlier: ir.TimestampValue) -> ir.FloatingValue:
    """Whole seconds, as float64."""
    return (later.epoch_seconds() - earlier.epoch_seconds()).cast("float64")


def require_events(views: Views, window_days: int | None = None) -> None:
    """Refuse to describe journeys nobody made.

    Raises
    ------
    DataError
        When no behaviour event of a known customer lies before `as_of` (and in the window).
    """
    if not in_window(views["events"], "ts", views, window_days).limit(1).count().execute():
        reach = f" in the {window_days} days before" if window_days else " before"
        raise DataError(
            "there is no behaviour event of a known customer", where=f"events{reach} {views.as_of}",
            hint="map `events` in sources.yaml (docs/data.md) and ingest, or choose another --as-of or a longer --window-days",
        )  # fmt: skip


@contextlib.contextmanager
def kept(views: Views, t: ir.Table) -> Iterator[ir.Table]:
    """A result that several queries read, computed once into a temporary table."""
    backend, name = views.rows.backend, f"journeys_{uuid.uuid4().hex}"
    try:
        yield backend.create_table(name, t, temp=True)
    finally:
        # not `drop_table`: Ibis 12 loses the table's name with sqlglot 30
        backend.raw_sql(f'DROP TABLE IF EXISTS "{name}"')


def rows_of(t: ir.Table) -> list[dict[str, Any]]:
    """A small result as dictionaries."""
    found: list[dict[str, Any]] = t.to_pyarrow().to_pylist()
    return found
