"""Visits: a customer's events with at most half an hour between them, or what the source itself calls a session."""

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
    raise_no_events,
    seconds_between,
)
from features.profiles.analytics.tagged import UNTAGGED

VISIT_EVENT_COLUMNS = ("step", "page", "referrer", "channel")  # of a visit's first event


def sessions(views: Views, window_days: int | None = None) -> ir.Table:
    """A row a visit that began in ``[as_of - window_days, as_of)``, as far as it went before `as_of`.

    Returns
    -------
    ibis Table
        ``one_id``, ``session_id``; ``start`` and ``end`` (UTC, first and last row), ``duration_seconds``; ``events``, ``views``, ``carts`` (numbers of events),
        ``purchases`` (orders, or purchase events where they are more: the same purchase may be in both); ``entry_step``, ``entry_page``,
        ``entry_referrer``, ``entry_channel`` of the first event, ``exit_step``, ``exit_page`` of the last one; ``bounce`` (one event, nothing bought).
        Its order is the engine's.
    """
    t = event_rows(views)
    t = t.filter(t.session_id.notnull())
    # one hash aggregate: the first and the last event as structs need no sorting
    moment, event_columns = (
        ibis.struct({name: t[name] for name in ("ts", "row_id", "source")}),
        ibis.struct({name: t[name] for name in VISIT_EVENT_COLUMNS}),
    )
    visits = t.group_by(["one_id", "session_id"]).aggregate(
        start=t.ts.min(),
        last=t.ts.max(),
        events=t.count(),
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
    made = made.mutate(
        bounce=(made.events == 1) & (made.purchases == 0), duration_seconds=seconds_between(made.end, made.start)
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
    """Visits in numbers.

    Attributes
    ----------
    tag : str or None
        The group of customers; None is everybody.
    conversion, bounce : Rate
        Shares of the visits, with intervals that know that a customer's visits belong together.
    index : Rate or None
        Conversion ÷ that of everybody × 100.
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
        """For JSON."""
        return asdict(self)


def summary(views: Views, window_days: int | None = None, tags: pa.Table | None = None) -> list[SessionSummary]:
    """Everybody's visits, then those of each value of a tag (most visits first).

    Parameters
    ----------
    tags : pyarrow.Table, optional
        ``one_id`` and ``tag``, from `tag_column`.

    Raises
    ------
    DataError
        There are no events.
    """
    with materialized(views, sessions(views, window_days).mutate(everybody=ibis.literal(""))) as visits:
        base = _summaries(visits, "everybody", None)
        if not base:
            raise_no_events(views, window_days)
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
