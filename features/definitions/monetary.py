"""Amounts that the customer pays."""

from __future__ import annotations

from features.compute.algebra import PRICE_LEVEL, Condition, Feature

PRICED = (Condition(PRICE_LEVEL, "known", True),)  # lines whose item has a price level

# fmt: off
FEATURES = (
    Feature("amount_total", "orders", "sum", "amount", unit="currency", description="paid ever", grows_with_calendar=True),
    *(
        Feature(f"amount_{days}d", "orders", "sum", "amount", window_days=days, unit="currency", description=f"paid in the last {days} days", grows_with_calendar=days >= 365)
        for days in (28, 91, 365)
    ),
    Feature("amount_trend_28d", "orders", "trend", "amount", window_days=28, unit="-1..1", description="amount of the last 28 days against the 28 before"),
    Feature("order_value_mean_91d", "orders", "mean", "amount", window_days=91, unit="currency", description="mean order of the last 91 days"),
    Feature("order_value_mean", "orders", "mean", "amount", unit="currency", description="mean order ever"),
    Feature("order_value_max", "orders", "max", "amount", unit="currency", description="largest order ever", grows_with_calendar=True),
    Feature("order_value_std", "orders", "std", "amount", unit="currency", description="spread of the order values"),
    Feature("refunded_amount_91d", "refunds", "sum", "amount", window_days=91, unit="currency", description="refunded in the last 91 days"),
    Feature("amount_slope_28d", "orders", "slope", "amount", window_days=28, unit="currency/day", description="change of the amount from the 28 days before to the last 28, a day"),
    Feature("amount_slope_91d", "orders", "slope", "amount", window_days=91, unit="currency/day", description="change of the amount from the 91 days before to the last 91, a day"),
    Feature("order_value_mean_28d", "orders", "mean", "amount", window_days=28, unit="currency", description="mean order of the last 28 days"),
    Feature("price_level_mean_56d", "lines", "mean", PRICE_LEVEL, window_days=56, unit="log ratio", description="mean price level of the lines of the last 56 days: 0.1 is 10 % dearer than usual in the categories"),
    Feature("price_level_mean", "lines", "mean", PRICE_LEVEL, unit="log ratio", description="mean price level of all lines"),
    Feature("price_level_std", "lines", "std", PRICE_LEVEL, unit="log ratio", description="spread of the price levels of all lines"),
    Feature("price_level_lines_56d", "lines", "count", where=PRICED, window_days=56, unit="lines", description="order lines of the last 56 days that have a price level"),
    Feature("price_level_lines", "lines", "count", where=PRICED, unit="lines", description="order lines that have a price level", grows_with_calendar=True),
    Feature("line_amount_max_182d", "lines", "max", "amount", window_days=182, unit="currency", description="dearest line of the last 182 days"),
    Feature("refund_rate", "", "quotient", "refunded_amount_91d", over="amount_91d", unit="ratio", description="refunded ÷ paid, last 91 days"),
)
# fmt: on
