"""Purchase frequency."""

from __future__ import annotations

from features.compute.algebra import Feature

FEATURES = (
    Feature("orders_total", "orders", "count", unit="orders", description="paid orders ever", grows_with_calendar=True),
    *(
        Feature(
            f"orders_{days}d",
            "orders",
            "count",
            window_days=days,
            unit="orders",
            description=f"paid orders in the last {days} days",
            grows_with_calendar=days >= 365,
        )
        for days in (7, 14, 28, 56, 91, 182, 365)
    ),
    *(
        Feature(
            f"order_days_{days}d",
            "orders",
            "distinct",
            "day",
            window_days=days,
            unit="days",
            description=f"days with an order in the last {days}",
        )
        for days in (28, 91)
    ),
    Feature(
        "order_weeks_91d",
        "orders",
        "distinct",
        "week",
        window_days=91,
        unit="weeks",
        description="weeks with an order in the last 91 days",
    ),
    *(
        Feature(
            f"orders_trend_{days}d",
            "orders",
            "trend",
            window_days=days,
            unit="-1..1",
            description=f"orders of the last {days} days against the {days} before",
        )
        for days in (14, 28, 91)
    ),
    Feature("lines_28d", "lines", "count", window_days=28, unit="lines", description="order lines in the last 28 days"),
    Feature(
        "units_91d",
        "lines",
        "sum",
        "quantity",
        window_days=91,
        unit="units",
        description="units bought in the last 91 days",
    ),
    Feature(
        "refunded_lines_91d",
        "refunds",
        "count",
        window_days=91,
        unit="lines",
        description="lines refunded in the last 91 days",
    ),
    Feature(
        "orders_slope_28d",
        "orders",
        "slope",
        window_days=28,
        unit="orders/day",
        description="change of the orders from the 28 days before to the last 28, a day",
    ),
)
