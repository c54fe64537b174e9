"""Sessions: the events of a customer with at most half an hour between them, or the sessions of the source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from features.compute.views import Views
from features.profiles.analytics.rates import Rate, moments, rate_of
from features.profiles.analytics.steps import (
    BUY,
    event_rows,
    fetch_rows,
    in_window,
    materialized,
    purchase_rows,
    raise_no_sessions,
    seconds_between,
)
from features.profiles.analytics.tagged import UNTAGGED

VISIT_EVENT_COLUMNS = ("step", "page", "referrer", "channel")  # of the first and last event of a session


def sessions(views: Views, window_days: int | None = None) -> ir.Table:
    """One row per session that began in ``[as_of - window_days, as_of)``, with its rows before `as_of`.

    Returns
    -------
    ibis.expr.types.Table
        Unordered rows with the columns ``one_id``, ``session_id``; ``start`` and ``end`` (UTC, first and last row),
        ``duration_seconds``; ``events``, ``views``, ``carts`` (numbers of events); ``purchases`` (the larger of the
        number of orders and of purchase events, because one purchase may be in both); ``entry_step``, ``entry_page``,
        ``entry_referrer``, ``entry_channel`` of the first event; ``exit_step``, ``exit_page`` of the last event;
        ``bounce`` (one event and no purchase). Events that are only dates are in no session unless their source names
        one; the duration of such a session is null, and its `start` is the begin of the day.
    """
    t = event_rows(views)
    t = t.filter(t.session_id.notnull())
    # a single hash aggregate, because taking the first and last event as structs needs no sorting
    moment = ibis.struct({name: t[name] for name in ("ts", "row_id", "source")})
    event_columns = ibis.struct({name: t[name] for name in VISIT_EVENT_COLUMNS})
    visits = t.group_by(["one_id", "session_id"]).aggregate(
        start=t.ts.min(),
        last=t.ts.max(),
        events=t.count(),
        has_times=~t.date_only.any(),
        views=t.count(where=t.step == "view"),
        carts=t.count(where=t.step == "cart"),
        purchase_events=t.count(where=t.step == BUY),
        entry=event_columns.argmin(moment),
        exit=event_columns.argmax(moment),
    )
    visits = in_window(visits, "start", views, window_days)
    orders = purchase_rows(views)
    orders = orders.filter(orders.session_id.notnull()).group_by(["one_id", "session_id"])
    orders = orders.aggregate(orders=lambda t: t.count(), paid=lambda t: t.ts.max())
    made = visits.left_join(orders, ["one_id", "session_id"]).drop("one_id_right", "session_id_right")
    made = made.mutate(
        purchases=ibis.greatest(made.orders.fill_null(0), made.purchase_events),
        end=ibis.greatest(made.last, made.paid.fill_null(made.last)),
        **{f"entry_{name}": made.entry[name] for name in VISIT_EVENT_COLUMNS},
        **{f"exit_{name}": made.exit[name] for name in VISIT_EVENT_COLUMNS},
    )
    seconds = seconds_between(made.end, made.start)
    made = made.mutate(
        bounce=(made.events == 1) & (made.purchases == 0),
        duration_seconds=ibis.ifelse(made.has_times, seconds, ibis.null("float64")),
    )
    return made.select(
        "one_id",
        "session_id",
        "start",
        "end",
        "duration_seconds",
        "events",
        "views",
        "carts",
        "purchases",
        *(f"entry_{name}" for name in VISIT_EVENT_COLUMNS),
        "exit_step",
        "exit_page",
        "bounce",
    )


@dataclass(frozen=True)
class SessionSummary:
    """Statistics of the sessions of a group of customers.

    Attributes
    ----------
    tag : str or None
        Tag value of the group; None for all customers.
    sessions, customers : int
        Numbers of sessions and of customers with a session.
    sessions_per_customer, events_per_session : float
        Means.
    duration_seconds_median, duration_seconds_p90 : float or None
        Median and 90 % quantile of the duration.
    conversion, bounce : Rate
        Shares of sessions with a purchase and of bounces; the intervals account for the correlation within a customer.
    index : Rate or None
        Conversion ÷ conversion of all customers × 100.
    """

    tag: str | None
    sessions: int
    customers: int
    sessions_per_customer: float
    events_per_session: float
    duration_seconds_median: float | None
    duration_seconds_p90: float | None
    conversion: Rate
    bounce: Rate
    index: Rate | None = None

    def as_dict(self) -> dict[str, Any]:
        """The statistics as JSON-compatible data."""
        return asdict(self)


def summary(views: Views, window_days: int | None = None, tags: pa.Table | None = None) -> list[SessionSummary]:
    """Statistics of all sessions, then of each value of a tag (most sessions first).

    Parameters
    ----------
    views : Views
        Rows before the cutoff.
    window_days : int, optional
        Only sessions that began in this many days before the cutoff.
    tags : pyarrow.Table, optional
        Columns ``one_id`` and ``tag``, from `tag_column`.

    Raises
    ------
    DataError
        The window has no events, or all events are only dates.
    """
    with materialized(views, sessions(views, window_days).mutate(all_customers=ibis.literal(""))) as visits:
        base = _summaries(visits, "all_customers", None)
        if not base:
            raise_no_sessions(views, window_days)
        if tags is None:
            return base
        tagged = visits.left_join(ibis.memtable(tags), "one_id").drop("one_id_right")
        return base + _summaries(tagged.mutate(tag=tagged.tag.fill_null(UNTAGGED)), "tag", base[0])


def _summaries(visits: ir.Table, group: str, base: SessionSummary | None) -> list[SessionSummary]:
    each = visits.group_by([group, "one_id"]).aggregate(
        n=visits.count(), bought=visits.count(where=visits.purchases > 0), bounced=visits.count(where=visits.bounce)
    )
    rates = each.group_by(group).aggregate(
        customers=each.count(), **moments("conversion", each.bought, each.n), **moments("bounce", each.bounced, each.n)
    )
    sizes = visits.group_by(group).aggregate(
        sessions=visits.count(),
        events=visits.events.sum(),
        median=visits.duration_seconds.quantile(0.5),
        p90=visits.duration_seconds.quantile(0.9),
    )
    rows = fetch_rows(rates.inner_join(sizes, group).order_by([ibis.desc("sessions"), group]))
    found = []
    for row in rows:
        conversion = rate_of("conversion", row)
        found.append(
            SessionSummary(
                row[group] if base else None,
                row["sessions"],
                row["customers"],
                row["sessions"] / row["customers"],
                row["events"] / row["sessions"],
                row["median"],
                row["p90"],
                conversion,
                rate_of("bounce", row),
                conversion.index(base.conversion) if base else None,
            )
        )
    return found
