"""Timing of orders: gaps between orders, hours and weekdays, in the time zone of the workspace."""

from __future__ import annotations

from features.compute.algebra import Condition, Feature

PARTS_OF_DAY = {"night": (0, 6), "morning": (6, 12), "afternoon": (12, 18), "evening": (18, 24)}

# fmt: off
FEATURES = (
    Feature("gap_days_mean", "orders", "mean", "gap_days", default=365.0, unit="days", description="mean gap between orders"),
    Feature("gap_days_std", "orders", "std", "gap_days", unit="days", description="spread of the gaps between orders"),
    Feature("gap_days_max", "orders", "max", "gap_days", default=365.0, unit="days", description="longest gap between orders", grows_with_calendar=True),
    Feature("gap_days_mean_91d", "orders", "mean", "gap_days", window_days=91, default=365.0, unit="days", description="mean gap before the orders of the last 91 days"),
    Feature("gaps_silent", "", "quotient", "days_since_last_order", over="gap_days_mean", unit="gaps", description="time since the last order in the customer's own mean gaps"),
    Feature("gaps_silent_max", "", "quotient", "days_since_last_order", over="gap_days_max", unit="gaps", description="time since the last order in the customer's own longest gap", grows_with_calendar=True),
    *(
        Feature(f"{part}_order_share", "orders", "share", where=(Condition("hour", ">=", low), Condition("hour", "<", high)), unit="0..1",
                description=f"share of orders between {low} and {high} o'clock")
        for part, (low, high) in PARTS_OF_DAY.items()
    ),
    Feature("weekend_order_share", "orders", "share", where=(Condition("weekday", ">=", 5),), unit="0..1", description="share of orders on Saturday or Sunday"),
    Feature("weekday_entropy", "orders", "entropy", "weekday", unit="nats", description="spread of the orders over the weekdays", grows_with_calendar=True),
    Feature("gap_variation", "", "quotient", "gap_days_std", over="gap_days_mean", unit="ratio", description="spread of the gaps ÷ their mean: 0 is a clock, 1 is chance"),
    Feature("last_gap_days", "orders", "last", "gap_days", default=0.0, unit="days", description="gap before the last order"),
    Feature("order_gap_days_mean_182d", "orders", "gap_mean", window_days=182, default=182.0, unit="days", description="mean time between the orders of the last 182 days"),
    Feature("order_gap_days_std_182d", "orders", "gap_std", window_days=182, unit="days", description="spread of the time between the orders of the last 182 days"),
    Feature("order_hour_entropy", "orders", "entropy", "hour", unit="nats", description="spread of the orders over the hours of the day", grows_with_calendar=True),
    Feature("top_weekday", "orders", "top", "weekday", default="", description="weekday of most orders, 0 is Monday"),
)
# fmt: on
