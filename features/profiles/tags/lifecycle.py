"""Lifecycle tags: stages, next order, trends and churn risk, relative to each customer's mean gap between orders."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.definitions.recency import NEVER
from features.profiles.lifecycle import (
    BUYER_STAGE_FEATURES,
    LIFECYCLE_FEATURES,
    bounded_gap_days,
    buyer_stage,
    falling_asleep_reason,
    lifecycle_stage,
)
from features.profiles.tags.behaviour import VISIT_EVENTS
from features.profiles.tags.declare import Columns, Tag, TagContext, yes_no
from features.profiles.tags.inactivity import INACTIVITY_CONTACTS, INACTIVITY_RESPONSES, INACTIVITY_VISITS
from qianmian.schema import BUYER_STAGES, INACTIVITY_REASONS, LIFECYCLE_STAGES, RISK_BANDS

POINTS_DAYS = 30.0
MIN_ORDERS = 3  # minimum orders for a mean gap


def days_to_next_order(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Mean gap between orders minus the days since the last order; NaN below `MIN_ORDERS` orders."""
    return np.where(
        columns["orders_total"] < MIN_ORDERS, np.nan, columns["gap_days_mean"] - columns["days_since_last_order"]
    )


def replenishment(columns: Columns, context: TagContext) -> NDArray[Any]:
    """State of the next order, by the days since the last order in units of the mean gap."""
    rules = context.settings.lifecycle
    recency = columns["days_since_last_order"] / np.maximum(columns["gap_days_mean"], 1.0)
    conditions = [columns["orders_total"] < MIN_ORDERS, recency < 0.8, recency < 1.3, recency < rules.at_risk_gaps]
    return np.select(conditions, ["", "not_yet", "due", "overdue"], default="missed")


def reactivated(columns: Columns, context: TagContext) -> NDArray[Any]:
    """Whether a recent order ended a gap in which the customer was asleep, by the mean of the earlier gaps."""
    rules, orders = context.settings.lifecycle, columns["orders_total"]
    before = (columns["gap_days_mean"] * (orders - 1) - columns["last_gap_days"]) / np.maximum(orders - 2, 1)
    woke = columns["last_gap_days"] >= rules.asleep_gaps * bounded_gap_days(before, rules)
    return yes_no(woke & (columns["days_since_last_order"] <= rules.new_days), orders >= MIN_ORDERS)


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


TREND_LEVELS = ("rising", "steady", "falling")
# fmt: off
TAGS = (
    Tag("lifecycle_stage", "lifecycle", "prospect, new, active, loyal, at_risk, asleep or lost by the customer's own rhythm", LIFECYCLE_FEATURES, lambda c, context: lifecycle_stage(c, context.settings.lifecycle), values=LIFECYCLE_STAGES),
    Tag("buyer_stage", "lifecycle", "prospect, first-time, repeat or loyal buyer by the number of orders", BUYER_STAGE_FEATURES, lambda c, context: buyer_stage(c, context.settings.lifecycle), values=BUYER_STAGES),
    Tag("days_since_last_order", "lifecycle", "time since the last order", ("days_since_last_order", "orders_total"), lambda c, _: np.where(c["orders_total"] > 0, c["days_since_last_order"], np.nan)),
    Tag("days_to_next_order", "lifecycle", "own mean gap less the time since the last order; negative: overdue; from three orders on", ("gap_days_mean", "days_since_last_order", "orders_total"), days_to_next_order),
    Tag("replenishment", "lifecycle", "time since the last order in own mean gaps: not_yet, due (0.8), overdue (1.3), missed (at risk); from three orders on", ("gap_days_mean", "days_since_last_order", "orders_total"), replenishment, values=("not_yet", "due", "overdue", "missed"), ttl_days=7),
    Tag("reactivated", "lifecycle", "ordered lately after a silence of four own gaps", ("last_gap_days", "gap_days_mean", "days_since_last_order", "orders_total"), reactivated),
    Tag("spending_trend", "lifecycle", "amount of the last 28 days against the 28 before, by a fifth", ("amount_trend_28d", "orders_56d"), trend("amount_trend_28d", "orders_56d", TREND_LEVELS), values=TREND_LEVELS),
    Tag("engagement_trend", "lifecycle", "events of the last 7 days against the 7 before, by a fifth", ("events_trend_7d", "events_28d"), trend("events_trend_7d", "events_28d", TREND_LEVELS), values=TREND_LEVELS, ttl_days=7, requires_recorded=((*VISIT_EVENTS, "message_open", "message_click"),)),
    Tag("points_expiring", "lifecycle", "holds points that lapse within 30 days", ("days_since_points_expired",), points_expiring, optional_features=("profile_points_balance",), ttl_days=7),
    Tag("falling_asleep_reason", "lifecycle", "why a sleeper fell asleep, from what happened between the last order and then: no offer, irrelevant pushes, no interest", (*LIFECYCLE_FEATURES, INACTIVITY_CONTACTS), lambda c, context: falling_asleep_reason(c, context.settings.lifecycle), optional_features=(INACTIVITY_RESPONSES, INACTIVITY_VISITS), values=INACTIVITY_REASONS),
    Tag("churn_risk", "lifecycle", "risk band of the churn model, of the customers it asks about", how="model", values=RISK_BANDS),
)
# fmt: on
