"""Size and composition of the customer's orders."""

from __future__ import annotations

from features.compute.algebra import Feature

# fmt: off
FEATURES = (
    Feature("basket_lines_mean_91d", "orders", "mean", "lines", window_days=91, unit="lines", description="mean lines an order, last 91 days"),
    Feature("basket_lines_mean", "orders", "mean", "lines", unit="lines", description="mean lines an order"),
    Feature("basket_lines_max", "orders", "max", "lines", unit="lines", description="largest order in lines", grows_with_calendar=True),
    Feature("basket_units_mean", "orders", "mean", "units", unit="units", description="mean units an order"),
    Feature("items_distinct_91d", "lines", "distinct", "item_id", window_days=91, unit="items", description="different items bought in the last 91 days"),
    Feature("items_distinct", "lines", "distinct", "item_id", unit="items", description="different items bought ever", grows_with_calendar=True),
    Feature("lines_total", "lines", "count", unit="lines", description="order lines ever", grows_with_calendar=True),
    Feature("lines_per_item", "", "quotient", "lines_total", over="items_distinct", unit="lines", description="lines an item: how much the customer repeats", grows_with_calendar=True),
    Feature("stores_distinct", "orders", "distinct", "store_id", unit="stores", description="different stores", grows_with_calendar=True),
    Feature("top_store_share", "orders", "top_share", "store_id", unit="0..1", description="share of orders in the most used store", grows_with_calendar=True),
    Feature("top_channel", "orders", "top", "channel", default="", description="most used order channel"),
)
# fmt: on
