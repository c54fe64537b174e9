"""Funnels: how many customers, sessions or items pass ordered steps, with times and drop-off by tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from features.compute.views import Views
from features.profiles.analytics.rates import Rate, moments, rate_of
from features.profiles.analytics.steps import (
    BUY,
    STEPS,
    day_bounds,
    fetch_rows,
    has_events,
    in_window,
    materialized,
    raise_no_events,
    recorded_steps,
    seconds_between,
    steps,
)
from features.profiles.analytics.tagged import UNTAGGED
from qianmian.errors import DataError, UsageError
from qianmian.times import SECONDS_PER_DAY

DEFAULT_STEPS = ("view", "cart", "buy")
Per = Literal["customer", "session", "item"]
ENTITY_KEYS: dict[str, list[str]] = {
    "customer": ["one_id"],
    "session": ["one_id", "session_id"],
    "item": ["one_id", "item_id"],
}


@dataclass(frozen=True)
class FunnelStep:
    """One step of a funnel.

    Attributes
    ----------
    step : str
        Name of the step.
    reached : int
        Number of customers, sessions or customer-item pairs that reached the step.
    conversion : Rate or None
        Share of those that reached the previous step; None for the first step.
    overall : Rate
        Share of those that reached the first step.
    hours_median, hours_p90 : float or None
        Hours from the previous step (the latest one that led here) to the first arrival at this step, of those for whom
        both have a clock time; None if there are none.
    """

    step: str
    reached: int
    conversion: Rate | None
    overall: Rate
    hours_median: float | None
    hours_p90: float | None


@dataclass(frozen=True)
class FunnelGroup:
    """The funnel of the customers with one value of a tag.

    Attributes
    ----------
    tag : str
        Tag value.
    customers : int
        Number of customers.
    reached : tuple of int
        Numbers that reached each step.
    conversion : tuple of Rate
        Shares of the previous step, from the second step on.
    drop_off_index : tuple of Rate
        Drop-off ÷ drop-off of all customers × 100, from the second step on; above 100 is worse.
    """

    tag: str
    customers: int
    reached: tuple[int, ...]
    conversion: tuple[Rate, ...]
    drop_off_index: tuple[Rate, ...]


@dataclass(frozen=True)
class Funnel:
    """A funnel, and optionally its groups by a tag (largest first)."""

    per: str
    steps: tuple[FunnelStep, ...]
    groups: tuple[FunnelGroup, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The funnel as JSON-compatible data."""
        return asdict(self)

    def as_table(self) -> pa.Table:
        """The funnel as a table: one row per step of all customers (tag null) and of each group."""
        overall = [
            {
                "tag": None,
                "step": s.step,
                "reached": s.reached,
                **_rate_columns("conversion", s.conversion),
                **_rate_columns("overall", s.overall),
                "hours_median": s.hours_median,
                "hours_p90": s.hours_p90,
                **_rate_columns("drop_off_index", None),
            }
            for s in self.steps
        ]
        grouped = [
            {
                "tag": group.tag,
                "step": step.step,
                "reached": group.reached[k],
                **_rate_columns("conversion", group.conversion[k - 1] if k else None),
                **_rate_columns("overall", None),
                "hours_median": None,
                "hours_p90": None,
                **_rate_columns("drop_off_index", group.drop_off_index[k - 1] if k else None),
            }
            for group in self.groups
            for k, step in enumerate(self.steps)
        ]
        texts = {"tag": pa.string(), "step": pa.string(), "reached": pa.int64()}
        return pa.Table.from_pylist(
            overall + grouped, pa.schema([(name, texts.get(name, pa.float64())) for name in overall[0]])
        )


def _rate_columns(name: str, found: Rate | None) -> dict[str, float | None]:
    return {
        name: found.value if found else None,
        f"{name}_low": found.low if found else None,
        f"{name}_high": found.high if found else None,
    }


def choose_steps(views: Views, per: Per = "customer", window_days: int | None = None) -> tuple[str, ...]:
    """The steps of a funnel that the data have: those of `DEFAULT_STEPS`, or all recorded ones if these are too few.

    Parameters
    ----------
    views : Views
        Rows before the cutoff.
    per : {"customer", "session", "item"}
        Unit that is counted; pairs of customer and item need rows that name an item.
    window_days : int, optional
        Look only at rows in ``[as_of - window_days, as_of)``.

    Returns
    -------
    tuple of str
        At least two steps, in the order of `FUNNEL_ORDER`.

    Raises
    ------
    DataError
        Fewer than two steps are recorded; the error names those that are.
    """
    recorded = recorded_steps(views, window_days, with_items=per == "item")
    usual = tuple(step for step in DEFAULT_STEPS if step in recorded)
    chosen = usual if len(usual) > 1 else tuple(recorded)
    if len(chosen) < 2:
        raise DataError(
            f"a funnel needs two steps, and fewer are recorded{' with an item' if per == 'item' else ''}",
            where=f"events and orders before {views.as_of}",
            got=", ".join(f"{step} ({count:,} rows)" for step, count in recorded.items()) or "no step",
            allowed=", ".join(STEPS),
            hint="map `events` in sources.yaml (docs/data-reference.md) and ingest, or choose another --as-of, --per "
            "or --window-days",
        )
    return chosen


def funnel(
    views: Views,
    step_names: Sequence[str] = DEFAULT_STEPS,
    *,
    window_days: int | None = None,
    within_days: float | None = None,
    within_session: bool = False,
    per: Per = "customer",
    tags: pa.Table | None = None,
    windows: pa.Table | None = None,
) -> Funnel:
    """Count how many pass the steps in order.

    Each step is an event at or after that of the previous step; events at the same time count as ordered, because their
    order is unknown. An event that is only a date may have happened at any time of its local day, before or after the
    other events of the day. Of all sequences of events, the one that reaches the furthest step counts, from any first
    step.

    Parameters
    ----------
    views : Views
        Rows before the cutoff.
    step_names : sequence of str
        Two or more distinct names of `STEPS`; ``buy`` is a paid order or a purchase event.
    window_days : int, optional
        Use only rows in ``[as_of - window_days, as_of)``.
    within_days : float, optional
        Maximum time from the first to the last step, in days.
    within_session : bool
        All steps must be in one session.
    per : {"customer", "session", "item"}
        Unit that is counted: customers, sessions (for events that are only dates: local days of a customer), or
        customer-item pairs in which the item itself passes all steps.
    tags : pyarrow.Table, optional
        Columns ``one_id`` and ``tag``, from `tag_column`, for the drop-off of each group.
    windows : pyarrow.Table, optional
        Columns ``one_id``, ``start`` and ``end``: use only rows of these customers in ``[start, end)``.

    Raises
    ------
    UsageError
        Steps are unknown or repeated, or there are fewer than two.
    DataError
        The window has no events.

    Notes
    -----
    Each step needs one pass over the rows. The latest start of a sequence that reaches a row is the running maximum of
    those before it, and the latest start leaves the most time (as in `windowFunnel` of ClickHouse). A row that is only
    a date is repeated at the begin and at the end of its day and at each moment of that day at which another step
    happens: if there is an order of the steps in which it takes part, there is one in which it happens at one of these
    moments, and none with a later start.
    """
    names = validate_steps(step_names)
    if per not in get_args(Per):
        raise UsageError("unknown unit of the funnel", where="--per", got=per, allowed=", ".join(get_args(Per)))
    if within_days is not None and within_days <= 0:
        raise UsageError(
            "the maximum time must be positive", where="--within-days", got=within_days, allowed="more than 0"
        )
    entity = ENTITY_KEYS[per]
    keys = [*entity, "session_id"] if within_session and per != "session" else entity
    all_steps = steps(views, "lines" if per == "item" else "orders", "session_id" in keys)
    rows = in_window(all_steps, "ts", views, window_days)
    rows = rows.filter(rows.step.isin(names), *(rows[key].notnull() for key in keys))
    rows = rows.select(*keys, "ts", "step", "day", "date_only")
    if windows is not None:
        own = ibis.memtable(windows.select(["one_id", "start", "end"]))
        inside = rows.inner_join(own, "one_id")
        rows = inside.filter(inside.ts >= inside.start, inside.ts < inside.end).select(*rows.columns)
    rows = _at_every_moment(rows, keys, views)
    with materialized(views, _entities(rows, names, entity, keys, within_days)) as found:
        each = found.group_by("one_id").aggregate(**{f"n{k}": found[f"reached{k}"].sum() for k in range(len(names))})
        times = found.aggregate(
            **{f"hours{k}_{q}": found[f"hours{k}"].quantile(q / 100) for k in range(1, len(names)) for q in (50, 90)}
        )
        row = fetch_rows(_rates(each.mutate(all_customers=ibis.literal("")), "all_customers", len(names)))
        overall = row[0] if row else {}
        if not row and not has_events(views, window_days):
            raise_no_events(views, window_days)
        step_times = fetch_rows(times)[0]
        made = tuple(_step(name, k, overall, step_times) for k, name in enumerate(names))
        if tags is None or not row:
            return Funnel(per, made)
        tagged = each.left_join(ibis.memtable(tags), "one_id").drop("one_id_right")
        groups = fetch_rows(_rates(tagged.mutate(tag=tagged.tag.fill_null(UNTAGGED)), "tag", len(names)))
    return Funnel(per, made, tuple(_group(row, made) for row in groups))


def validate_steps(wanted: Sequence[str]) -> tuple[str, ...]:
    """Validate the names of steps; ``purchase`` is an alias of ``buy``.

    Raises
    ------
    UsageError
        Steps are unknown or repeated, or there are fewer than two.

    Examples
    --------
    >>> validate_steps(["view", "purchase"])
    ('view', 'buy')
    """
    names = tuple(BUY if name == "purchase" else name for name in wanted)
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        raise UsageError("unknown step", where="--steps", got=", ".join(unknown), allowed=", ".join(STEPS))
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(
            "a funnel requires two or more distinct steps",
            where="--steps",
            got=", ".join(names),
            hint="--steps view,cart,buy",
        )
    return names


def _at_every_moment(t: ir.Table, keys: list[str], views: Views) -> ir.Table:
    """The rows, and those that are only dates again at each moment of their day that may matter (see `funnel`)."""
    timed = t.filter(~t.date_only).select(*keys, "day", "ts").distinct()
    dates = t.filter(t.date_only).distinct()
    at_end = dates.mutate(ts=day_bounds(views, dates.day)[1].cast(t.ts.type()))
    again = dates.drop("ts").inner_join(timed, [*keys, "day"]).select(*t.columns)
    return t.union(at_end.select(*t.columns), again)


def _entities(
    t: ir.Table, names: Sequence[str], entity: list[str], keys: list[str], within_days: float | None
) -> ir.Table:
    """One row per counted unit: reached0 … (0 or 1), and hours1 … since the previous step."""
    never = ibis.null("timestamp(6)")
    # rows with equal times are peers of a range window, so a step may have the time of the previous one
    so_far = ibis.window(group_by=keys, order_by="ts", range=(None, 0))
    t = t.mutate(start0=ibis.ifelse(t.step == names[0], t.ts, never))
    t = t.mutate(at0=t.start0, timed0=ibis.ifelse(t.date_only, never, t.start0), before0=never)
    for k, name in enumerate(names[1:], 1):
        t = t.mutate(start=t[f"start{k - 1}"].max().over(so_far), before=t[f"timed{k - 1}"].max().over(so_far))
        reached = (t.step == name) & t.start.notnull()
        if within_days is not None:
            reached &= t.ts <= t.start + ibis.interval(seconds=round(within_days * SECONDS_PER_DAY))
        # the latest previous step has the latest start, so `before` and `start` belong to one sequence
        t = t.mutate(
            **{
                f"start{k}": ibis.ifelse(reached, t.start, never),
                f"at{k}": ibis.ifelse(reached, t.ts, never),
                f"timed{k}": ibis.ifelse(reached & ~t.date_only, t.ts, never),
                f"before{k}": ibis.ifelse(reached & ~t.date_only, t.before, never),
            }
        ).drop("start", "before")
    reached_at = {f"reached{k}": t[f"at{k}"].notnull().any().cast("int64") for k in range(len(names))}
    hours = {}
    for k in range(1, len(names)):
        step_hours = seconds_between(t.ts, t[f"before{k}"]) / 3_600.0
        # among several rows that reach the step at the same time, the quickest counts
        first = ibis.struct({"at": t[f"at{k}"], "took": step_hours})
        hours[f"hours{k}"] = step_hours.argmin(first, where=t[f"at{k}"].notnull())
    found = t.group_by(entity).aggregate(**reached_at, **hours)
    return found.filter(found.reached0 > 0)


def _rates(each: ir.Table, group: str, count: int) -> ir.Table:
    made: dict[str, ir.Scalar] = {"customers": each.count()}
    for k in range(count):
        made |= {f"reached{k}": each[f"n{k}"].sum(), **moments(f"overall{k}", each[f"n{k}"], each.n0)}
        if k:
            made |= moments(f"step{k}", each[f"n{k}"], each[f"n{k - 1}"])
    found = each.group_by(group).aggregate(**made)
    return found.order_by([ibis.desc("reached0"), group])


def _step(name: str, k: int, row: dict[str, Any], times: dict[str, Any]) -> FunnelStep:
    parts = ("y", "n", "yy", "yn", "nn", "m")
    empty = {f"{of}{k}_{part}": 0 for of in ("overall", "step") for part in parts}
    row = row or {**empty, f"reached{k}": 0}
    conversion = rate_of(f"step{k}", row) if k else None
    return FunnelStep(
        name,
        row[f"reached{k}"],
        conversion,
        rate_of(f"overall{k}", row),
        times.get(f"hours{k}_50"),
        times.get(f"hours{k}_90"),
    )


def _group(row: dict[str, Any], overall: Sequence[FunnelStep]) -> FunnelGroup:
    conversion = tuple(rate_of(f"step{k}", row) for k in range(1, len(overall)))
    index = tuple(
        own.complement.index(step.conversion.complement)
        for own, step in zip(conversion, overall[1:], strict=True)
        if step.conversion is not None
    )
    return FunnelGroup(
        row["tag"], row["customers"], tuple(row[f"reached{k}"] for k in range(len(overall))), conversion, index
    )
