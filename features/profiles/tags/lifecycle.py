"""Lifecycle tags: stages, next order, trends and churn risk, by the purchase process of the shop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from features.definitions.recency import NEVER
from features.profiles.lifecycle import (
    BUYER_STAGE_FEATURES,
    INACTIVITY_CONTACTS,
    INACTIVITY_RESPONSES,
    INACTIVITY_VISITS,
    LIFECYCLE_FEATURES,
    LONG_GAPS,
    PREVIOUS_STAGE,
    buyer_stage,
    falling_asleep_reason,
    lifecycle_stage,
    replenishment,
)
from features.profiles.purchase_process.process import PurchaseProcess
from features.profiles.tags.behaviour import VISIT_EVENTS
from features.profiles.tags.declare import Columns, Fitted, Tag, TagContext, yes_no
from qianmian.schema import BUYER_STAGES, INACTIVITY_REASONS, LIFECYCLE_STAGES, RISK_BANDS
from qianmian.settings import Settings

EPOCH = datetime(1970, 1, 1)
AS_OF_DAY = "as_of_day"  # of the parameters of the purchase process
POINTS_DAYS = 30.0
MIN_ORDERS = 3  # minimum orders for a gap before the last one
LATEST_DAYS = 730.0  # a date later than that is not given
EARLIEST, LATEST = 0.1, 0.9  # probabilities of the bounds of the next order


def store_process(_: Columns, context: TagContext) -> Fitted:
    """The parameters of the purchase process, stored with each tag that uses it; its day is that of the workspace."""
    if context.process is None:
        return {}
    as_of = EPOCH + timedelta(days=context.process.as_of_day)
    return replace(context.process, as_of_day=local_day(as_of, context.settings)).as_fitted()


def local_day(moment: datetime, settings: Settings) -> float:
    """Days since 1970 of a moment, naive UTC, by the clocks of the workspace."""
    local = moment.replace(tzinfo=UTC).astimezone(ZoneInfo(settings.calendar_timezone)).replace(tzinfo=None)
    return (local - EPOCH) / timedelta(days=1)


def counted_from(parameters: Fitted, moment: datetime, settings: Settings) -> Fitted:
    """The parameters of a statistic, for features of a later moment: a date is so many days after that one."""
    return {**parameters, AS_OF_DAY: [local_day(moment, settings)]} if AS_OF_DAY in parameters else parameters


def stored_process(context: TagContext) -> PurchaseProcess:
    """The purchase process whose parameters are stored with the tag."""
    return PurchaseProcess.of(context.fitted)


def days_to_next_order(columns: Columns, context: TagContext) -> NDArray[Any]:
    """Median of the time to the next order, in days; NaN without orders, and beyond two years."""
    days = stored_process(context).days_to_order(columns)
    return np.where((columns["orders_total"] > 0) & (days <= LATEST_DAYS), days, np.nan)


def next_order_date(probability: float = 0.5) -> Callable[[Columns, TagContext], NDArray[Any]]:
    """The date at which the next order has come with this probability; unknown without orders or beyond two years.

    The median falls on the date; a bound of the interval is the begin of the date, to the nearest day.
    """
    offset = 0.0 if probability == 0.5 else 0.5

    def rule(columns: Columns, context: TagContext) -> NDArray[Any]:
        process = stored_process(context)
        days = process.days_to_order(columns, probability)
        known = (columns["orders_total"] > 0) & (days <= LATEST_DAYS)
        dates = np.floor(process.as_of_day + np.where(known, days, 0.0) + offset).astype("datetime64[D]")
        return np.where(known, dates.astype(str), "")

    return rule


def reactivated(columns: Columns, context: TagContext) -> NDArray[Any]:
    """Whether a recent order ended a silence of `LONG_GAPS` own gaps, by the mean of the gaps before it."""
    process, orders = stored_process(context), columns["orders_total"]
    earlier = columns["days_since_first_order"] - columns["days_since_last_order"] - columns["last_gap_days"]
    before = (process.typical_gap_days + earlier) / np.maximum(orders - 1, 1)
    recent = columns["days_since_last_order"] <= context.settings.lifecycle.new_days
    return yes_no((columns["last_gap_days"] >= LONG_GAPS * before) & recent, orders >= MIN_ORDERS)


def points_expiring(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Whether points expire soon; unknown without an expiry date."""
    days_since_expiry = columns["days_since_points_expired"]
    has_points = np.ones(len(days_since_expiry), dtype=bool)
    if "profile_points_balance" in columns:
        has_points = columns["profile_points_balance"] > 0
    return yes_no(has_points & (days_since_expiry <= 0) & (days_since_expiry > -POINTS_DAYS), days_since_expiry < NEVER)


def trend(change: str, rows: str, names: tuple[str, str, str]) -> Any:
    """Direction of a change of more than 20 %; unknown without rows."""
    return lambda c, _: np.select(
        [c[rows] <= 0, c[change] > 0.2, c[change] < -0.2], ["", names[0], names[2]], default=names[1]
    )


def process_tag(
    name: str,
    description: str,
    rule: Callable[[Columns, TagContext], NDArray[Any]],
    more: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    values: tuple[str, ...] = (),
    ttl_days: int = 35,
) -> Tag:
    """A lifecycle tag by the purchase process; `more` and `optional` are features beside `LIFECYCLE_FEATURES`."""
    return Tag(
        name,
        "lifecycle",
        description,
        (*LIFECYCLE_FEATURES, *more),
        rule,
        optional,
        how="statistic",
        fit=store_process,
        needs_process=True,
        values=values,
        ttl_days=ttl_days,
    )


TREND_LEVELS = ("rising", "steady", "falling")
# fmt: off
TAGS = (
    process_tag("lifecycle_stage", "prospect, new (first order in the last 30 days), then by the probability of an order within the return time (four typical gaps of the shop): loyal (10 orders in a year) and active from 60 %, at_risk from 40 %, asleep from 25 %, lost",
        lambda c, context: lifecycle_stage(c, stored_process(context), context.settings.lifecycle), values=LIFECYCLE_STAGES),
    Tag("previous_lifecycle_stage", "lifecycle", "lifecycle stage in the profiles that were published before, of an earlier date", (PREVIOUS_STAGE,), lambda c, _: c[PREVIOUS_STAGE], values=LIFECYCLE_STAGES),
    Tag("buyer_stage", "lifecycle", "prospect, first-time, repeat or loyal buyer by the number of orders", BUYER_STAGE_FEATURES, lambda c, context: buyer_stage(c, context.settings.lifecycle), values=BUYER_STAGES),
    Tag("days_since_last_order", "lifecycle", "time since the last order", ("days_since_last_order", "orders_total"), lambda c, _: np.where(c["orders_total"] > 0, c["days_since_last_order"], np.nan)),
    process_tag("days_to_next_order", "expected time to the next order (median), given the own rhythm and the silence so far", days_to_next_order, ttl_days=7),
    process_tag("next_order_date", "date of the next order (median)", next_order_date(), ttl_days=7),
    process_tag("next_order_earliest", "day before which the next order comes with a probability of 10 %", next_order_date(EARLIEST), ttl_days=7),
    process_tag("next_order_latest", "day before which the next order comes with a probability of 90 %", next_order_date(LATEST), ttl_days=7),
    process_tag("replenishment", "the next order is due (expected within one typical gap of the shop), not_yet, overdue (expected later, and silent for more than two own gaps) or missed (unlikely within the return time)",
        lambda c, context: replenishment(c, stored_process(context), context.settings.lifecycle), values=("not_yet", "due", "overdue", "missed"), ttl_days=7),
    process_tag("reactivated", "ordered lately after a silence of four own gaps", reactivated, ("last_gap_days",)),
    Tag("spending_trend", "lifecycle", "amount of the last 28 days against the 28 before, by a fifth", ("amount_trend_28d", "orders_56d"), trend("amount_trend_28d", "orders_56d", TREND_LEVELS), values=TREND_LEVELS),
    Tag("engagement_trend", "lifecycle", "events of the last 7 days against the 7 before, by a fifth", ("events_trend_7d", "events_28d"), trend("events_trend_7d", "events_28d", TREND_LEVELS), values=TREND_LEVELS, ttl_days=7, requires_recorded=((*VISIT_EVENTS, "message_open", "message_click"),)),
    Tag("points_expiring", "lifecycle", "holds points that lapse within 30 days", ("days_since_points_expired",), points_expiring, optional_features=("profile_points_balance",), ttl_days=7),
    process_tag("falling_asleep_reason", "why a sleeper fell asleep, from what happened between the last order and then: no offer, irrelevant pushes, no interest",
        lambda c, context: falling_asleep_reason(c, stored_process(context), context.settings.lifecycle), (INACTIVITY_CONTACTS,), (INACTIVITY_RESPONSES, INACTIVITY_VISITS), values=INACTIVITY_REASONS),
    Tag("left_risk", "lifecycle", "risk band of the model that says who has left: no order in a window of four own gaps, at least 84 days", how="model", values=RISK_BANDS),
    Tag("churn_risk", "lifecycle", "risk band of the churn model, of the customers it asks about", how="model", values=RISK_BANDS),
    Tag("uplift_decile", "lifecycle", "tenth of the customers by what a contact of the campaign is expected to change, 1 for the most", how="model", ttl_days=35),
    Tag("predicted_orders", "lifecycle", "expected number of orders within the horizon of the value model, of customers with an order", how="model", ttl_days=35),
)
# fmt: on
