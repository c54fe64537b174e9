"""What the customer pays."""

from __future__ import annotations

from features.algebra import Feature

FEATURES = (
    Feature("amount_total", "orders", "sum", "amount", unit="currency", description="paid ever"),
    *(
        Feature(f"amount_{days}d", "orders", "sum", "amount", window_days=days, unit="currency", description=f"paid in the last {days} days")
        for days in (28, 91, 365)
    ),
    Feature("amount_trend_28d", "orders", "trend", "amount", window_days=28, unit="-1..1", description="amount of the last 28 days against the 28 before"),
    Feature("order_value_mean_91d", "orders", "mean", "amount", window_days=91, unit="currency", description="mean order of the last 91 days"),
    Feature("order_value_mean", "orders", "mean", "amount", unit="currency", description="mean order ever"),
    Feature("order_value_max", "orders", "max", "amount", unit="currency", description="largest order ever"),
    Feature("order_value_std", "orders", "std", "amount", unit="currency", description="spread of the order values"),
    Feature("unit_price_mean_91d", "lines", "ratio", "amount", over="quantity", window_days=91, unit="currency", description="mean price paid a unit in the last 91 days"),
    Feature("refunded_amount_91d", "refunds", "sum", "amount", window_days=91, unit="currency", description="refunded in the last 91 days"),
)  # fmt: skip
