"""First, last and most frequent purchases, and how concentrated the purchases are."""

from __future__ import annotations

from features.compute.algebra import Feature

# fmt: off
FEATURES = (
    Feature("first_category", "lines", "first", "category_top", default="", description="broadest category of the first line bought: the need the customer came with"),
    Feature("last_category", "lines", "last", "category_top", default="", description="broadest category of the last line bought"),
    Feature("last_item", "lines", "last", "item_id", default="", description="the item bought last", is_identifier=True),
    Feature("top_item", "lines", "top", "item_id", default="", description="the item bought most often", is_identifier=True),
    Feature("top_item_share", "lines", "top_share", "item_id", unit="0..1", description="share of lines of that item", grows_with_calendar=True),
    Feature("item_entropy_182d", "lines", "entropy", "item_id", window_days=182, unit="nats", description="spread of the lines of the last 182 days over the items"),
    Feature("lines_91d", "lines", "count", window_days=91, unit="lines", description="order lines in the last 91 days"),
    Feature("recent_lines_per_item", "", "quotient", "lines_91d", over="items_distinct_91d", unit="lines", description="lines an item, last 91 days"),
    Feature("first_channel", "orders", "first", "channel", default="", description="channel of the first order"),
    Feature("last_channel", "orders", "last", "channel", default="", description="channel of the last order"),
    Feature("channels_distinct_182d", "orders", "distinct", "channel", window_days=182, unit="channels", description="order channels of the last 182 days"),
    Feature("first_store", "orders", "first", "store_id", default="", description="store of the first order", is_identifier=True),
    Feature("last_store", "orders", "last", "store_id", default="", description="store of the last order", is_identifier=True),
    Feature("top_store", "orders", "top", "store_id", default="", description="most used store", is_identifier=True),
    Feature("first_order_value", "orders", "first", "amount", unit="currency", description="amount of the first order"),
    Feature("last_order_value", "orders", "last", "amount", unit="currency", description="amount of the last order"),
)
# fmt: on
