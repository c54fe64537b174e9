"""Time since the customer's first and last events."""

from __future__ import annotations

from features.compute.algebra import Feature

NEVER = 9_999.0  # days; a customer without such an event counts as longer ago than any other customer

FEATURES = (
    Feature(
        "days_since_last_order",
        "orders",
        "recency",
        default=NEVER,
        unit="days",
        description="time since the last paid order",
    ),
    Feature(
        "days_since_first_order",
        "orders",
        "age",
        default=0.0,
        unit="days",
        description="time since the first paid order",
        grows_with_calendar=True,
    ),
    Feature(
        "days_since_last_refund",
        "refunds",
        "recency",
        default=NEVER,
        unit="days",
        description="time since the last refunded line",
    ),
    Feature(
        "days_since_last_event",
        "events",
        "recency",
        default=NEVER,
        unit="days",
        description="time since the last behaviour event",
    ),
    Feature(
        "days_since_last_touch",
        "touches",
        "recency",
        default=NEVER,
        unit="days",
        description="time since the last campaign contact",
    ),
)
