"""Amounts that the customer pays."""

from __future__ import annotations

from features.compute.algebra import Feature

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
    Feature("unit_price_mean_91d", "lines", "ratio", "amount", over="quantity", window_days=91, unit="currency", description="mean price paid a unit in the last 91 days"),
    Feature("refunded_amount_91d", "refunds", "sum", "amount", window_days=91, unit="currency", description="refunded in the last 91 days"),
    Feature("amount_slope_28d", "orders", "slope", "amount", window_days=28, unit="currency/day", description="change of the amount from the 28 days before to the last 28, a day"),
    Feature("amount_slope_91d", "orders", "slope", "amount", window_days=91, unit="currency/day", description="change of the amount from the 91 days before to the last 91, a day"),
    Feature("order_value_mean_28d", "orders", "mean", "amount", window_days=28, unit="currency", description="mean order of the last 28 days"),
    Feature("unit_price_mean_28d", "lines", "ratio", "amount", over="quantity", window_days=28, unit="currency", description="mean price paid a unit in the last 28 days"),
    Feature("unit_price_mean_182d", "lines", "ratio", "amount", over="quantity", window_days=182, unit="currency", description="mean price paid a unit in the last 182 days"),
    Feature("price_drift", "", "quotient", "unit_price_mean_28d", over="unit_price_mean_182d", unit="ratio", description="price paid a unit in the last 28 days ÷ that of the last 182"),
    Feature("line_amount_max_182d", "lines", "max", "amount", window_days=182, unit="currency", description="dearest line of the last 182 days"),
    Feature("refund_rate", "", "quotient", "refunded_amount_91d", over="amount_91d", unit="ratio", description="refunded ÷ paid, last 91 days"),
)
# fmt: on
