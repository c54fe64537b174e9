"""The rows of behaviour analytics: events and purchases of each customer in one table, each with its session."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal, NoReturn

import ibis
import ibis.expr.types as ir
from ibis import _

from features.compute.algebra import SESSION_GAP_SECONDS, SESSION_SEPARATOR
from features.compute.views import Views
from qianmian.errors import DataError
from qianmian.schema import EVENT_TYPES

BUY = "buy"
STEPS = (*(kind for kind in EVENT_TYPES if kind != "purchase"), BUY)
# the steps in the order in which customers usually take them
FUNNEL_ORDER = (
    *("message_open", "message_click", "register", "login", "lead", "service"),
    *("search", "view", "favourite", "share", "cart", "coupon_redeem", BUY),
)
EVENT, PURCHASE = 0, 1
# at equal times an event comes before a purchase; the last two columns only break ties
SORT_COLUMNS = ("placed", "kind", "row_id", "source")
PLACED_COLUMNS = ("one_id", "source", "ts", "day", "date_only", "placed")  # of rows of either kind
ITEM_COLUMNS = ("item_id", "category", "category_top")
COLUMNS = (*PLACED_COLUMNS, "kind", "row_id", "step", *ITEM_COLUMNS, "page", "session_id")
DAY_VISIT = SESSION_SEPARATOR  # before the day, in the `session_id` of a visit of rows that are only dates
Purchases = Literal["orders", "lines"]


def steps(views: Views, purchases: Purchases = "orders", with_visits: bool = True) -> ir.Table:
    """Events and purchases before `views.as_of`, as one table.

    A `purchase` event and a paid order are both the step ``buy``. A row that is only a date may have happened at any
    time of its local day, so its `ts` is the begin of that day. In a path it comes as early as it can, a purchase as
    late as it can (`placed`).

    Parameters
    ----------
    views : Views
        Rows before the cutoff.
    purchases : {"orders", "lines"}
        One row per order, or one row per line with its item.
    with_visits : bool
        Assign visits to purchases, which needs a join; otherwise their `session_id` is null.

    Returns
    -------
    ibis.expr.types.Table
        Columns `COLUMNS`; kind is 0 for an event, 1 for a purchase. `session_id` is the visit: a session, or the local
        day of an event that is only a date, with the purchases of that day that belong to no session.
    """
    events = event_rows(views)
    bought = purchase_rows(views, purchases, with_visits)
    visit = DAY_VISIT + events.day.cast("string")
    in_day = ibis.ifelse(events.date_only & events.session_id.isnull(), visit, events.session_id)
    if with_visits:
        days = events.filter(events.date_only & events.session_id.isnull())
        days = days.select("one_id", "day").distinct().mutate(visit=DAY_VISIT + _.day.cast("string"))
        bought = bought.left_join(days, ["one_id", "day"]).drop("one_id_right", "day_right")
        bought = bought.mutate(session_id=bought.session_id.coalesce(bought.visit))
    return events.mutate(session_id=in_day).select(*COLUMNS).union(bought.select(*COLUMNS))


def recorded_steps(views: Views, window_days: int | None = None, with_items: bool = False) -> dict[str, int]:
    """Number of rows of each step that is recorded, in the order of `FUNNEL_ORDER`.

    Parameters
    ----------
    views : Views
        Rows before the cutoff.
    window_days : int, optional
        Count only rows in ``[as_of - window_days, as_of)``.
    with_items : bool
        Count only rows that name an item.
    """
    rows = in_window(steps(views, "lines" if with_items else "orders", with_visits=False), "ts", views, window_days)
    if with_items:
        rows = rows.filter(rows.item_id.notnull())
    counts = {row["step"]: row["rows"] for row in fetch_rows(rows.group_by("step").aggregate(rows=rows.count()))}
    return {step: counts[step] for step in FUNNEL_ORDER if counts.get(step)}


def event_rows(views: Views) -> ir.Table:
    """Events as rows of `steps`, with the additional columns `referrer` and `channel`; `session_id` is a session."""
    t = _placed(views, views["events"], as_late=False)
    return t.select(
        *PLACED_COLUMNS,
        *ITEM_COLUMNS,
        "page",
        "session_id",
        "referrer",
        "channel",
        kind=ibis.literal(EVENT, "int8"),
        row_id=t.event_id,
        step=ibis.ifelse(t.event_type == "purchase", BUY, t.event_type),
    )


def purchase_rows(views: Views, purchases: Purchases = "orders", with_visits: bool = True) -> ir.Table:
    """Paid orders or lines as rows of `steps`; `session_id` is a session.

    A purchase belongs to the session of the customer's last event before it, if that event is at most half an hour
    older (among events at the same time, the one with the largest `session_id`). One that is only a date belongs to the
    last session of its local day. Otherwise it has no session, as a purchase in a store.
    """
    t = views[purchases]
    text, lines = ibis.null("string"), purchases == "lines"
    t = _placed(views, t.filter(t.ts.notnull()), as_late=True)
    t = t.select(
        *PLACED_COLUMNS,
        kind=ibis.literal(PURCHASE, "int8"),
        row_id=t.order_id + "\x1f" + t.line_no.cast("string") if lines else t.order_id,
        step=ibis.literal(BUY),
        **{name: t[name] if lines else text for name in ITEM_COLUMNS},
        page=text,
    )
    if not with_visits:
        return t.mutate(session_id=text)
    events = views["events"]
    events = events.filter(events.session_id.notnull()).mutate(date_only=events.date_only.fill_null(False))
    seen = events.filter(~events.date_only).group_by("one_id", seen=_.ts).aggregate(visit=_.session_id.max())
    t = t.asof_join(seen, on=t.ts >= seen.seen, predicates="one_id")
    in_session = ~t.date_only & (t.ts <= t.seen + ibis.interval(seconds=SESSION_GAP_SECONDS))
    t = t.mutate(session_id=ibis.ifelse(in_session, t.visit, None)).drop("one_id_right", "seen", "visit")
    moment = ibis.struct({"ts": events.ts, "session_id": events.session_id})
    last = events.group_by(["one_id", "day"]).aggregate(visit=events.session_id.argmax(moment))
    t = t.left_join(last, ["one_id", "day"]).drop("one_id_right", "day_right")
    return t.mutate(session_id=ibis.ifelse(t.date_only, t.visit, t.session_id)).drop("visit")


def _placed(views: Views, t: ir.Table, as_late: bool) -> ir.Table:
    """Rows with `ts` and `placed` of `steps`; `date_only` is never null."""
    t = t.mutate(date_only=t.date_only.fill_null(False))
    begin, end = day_bounds(views, t.day)
    ts = ibis.ifelse(t.date_only, begin, t.ts)
    return t.mutate(ts=ts, placed=ibis.ifelse(t.date_only, end, t.ts) if as_late else ts)


def day_bounds(views: Views, day: ir.DateValue) -> tuple[ir.TimestampValue, ir.TimestampValue]:
    """First and last moment of days in the time zone of the workspace, in UTC."""
    begin, clock = day.cast("timestamp"), views.rows.local_time
    return clock.utc(begin), clock.utc(begin + ibis.interval(days=1)) - ibis.interval(microseconds=1)


def in_window(t: ir.Table, column: str, views: Views, window_days: int | None) -> ir.Table:
    """Rows in ``[as_of - window_days, as_of)``; all rows if `window_days` is None."""
    if window_days is None:
        return t
    return t.filter(t[column] >= ibis.timestamp((views.as_of - timedelta(days=window_days)).isoformat(sep=" ")))


def seconds_between(later: ir.TimestampValue, earlier: ir.TimestampValue) -> ir.FloatingValue:
    """Whole seconds between two moments, as float64."""
    return (later.epoch_seconds() - earlier.epoch_seconds()).cast("float64")


def raise_no_events(views: Views, window_days: int | None = None) -> NoReturn:
    """Raise the error for a window without events.

    Raises
    ------
    DataError
        Always: no customer has a behaviour event before `as_of` (and in the window).
    """
    reach = f" in the {window_days} days before" if window_days else " before"
    raise DataError(
        "no behaviour event of a known customer was found",
        where=f"events{reach} {views.as_of}",
        hint="map `events` in sources.yaml (docs/data-reference.md) and ingest, "
        "or choose another --as-of or a longer --window-days",
    )


def raise_no_sessions(views: Views, window_days: int | None = None) -> NoReturn:
    """Raise the error for a window without sessions.

    Raises
    ------
    DataError
        Always: there is no event in the window, or none has a clock time.
    """
    events = views["events"]
    if has_events(views, window_days) and not events.filter(events.session_id.notnull()).limit(1).count().execute():
        raise DataError(
            "the events are dates without a clock time, so they make no sessions",
            where=f"events before {views.as_of}",
            hint="map a time with hours and minutes to `ts` of events, or a `session_id`; "
            "`analytics funnel` and `analytics paths` read dates too",
        )
    raise_no_events(views, window_days)


def has_events(views: Views, window_days: int | None = None) -> bool:
    """Whether the window has any behaviour event."""
    return bool(in_window(views["events"], "ts", views, window_days).limit(1).count().execute())


@contextlib.contextmanager
def materialized(views: Views, t: ir.Table) -> Iterator[ir.Table]:
    """Store a result that several queries read in a temporary table, dropped at the end of the block."""
    backend, name = views.rows.backend, f"analytics_{uuid.uuid4().hex}"
    try:
        yield backend.create_table(name, t, temp=True)
    finally:
        # not `drop_table`, because Ibis 12 loses the table name with sqlglot 30
        backend.raw_sql(f'DROP TABLE IF EXISTS "{name}"')


def fetch_rows(t: ir.Table) -> list[dict[str, Any]]:
    """The rows of a small result as dictionaries."""
    found: list[dict[str, Any]] = t.to_pyarrow().to_pylist()
    return found
