"""The claims of the built-in tags, in one table, so that they can be read and compared beside each other."""

from __future__ import annotations

from features.compute.algebra import PRICE_LEVEL, Condition
from features.definitions.timing import PARTS_OF_DAY
from features.profiles.tags.claims import Claim, Later, NextOrder, Ordering, Preference, Rising
from qianmian.schema import RISK_BANDS

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
HOURS = tuple((part, tuple(range(low, high))) for part, (low, high) in PARTS_OF_DAY.items())
YES_NO = ((True, False),)
ORDERED = Later("share of customers with an order", "orders", "any")
AMOUNT = Later("amount paid", "orders", "sum", "amount")
DISCOUNTED = Later("share of lines with a discount", "lines", "share", where=(Condition("discount", ">", 0),))
PRICES = Later("price level of the lines", "priced_lines", "mean", PRICE_LEVEL)
CONTENT = (Condition("content_id", "known", True),)
DELIVERED = (Condition("delivered", "==", True),)
CATEGORY = Later("share of lines in the favourite category", "lines", "named_share", "category_top")
BRAND = Later("share of lines of the favourite brand", "lines", "named_share", "brand")
STORE = Later("share of orders in the favourite store", "orders", "named_share", "store_id")

# fmt: off
CLAIMS: dict[str, Claim] = {
    # behaviour
    "active_hours": Preference("orders", "hour", HOURS),
    "browsing_hours": Preference("events", "hour", HOURS),
    "favourite_weekday": Preference("orders", "weekday", tuple((name, (day,)) for day, name in enumerate(WEEKDAYS))),
    "weekend_shopper": Ordering(Later("share of orders on a weekend", "orders", "share", where=(Condition("weekday", ">=", 5),)), YES_NO),
    "preferred_channel": Preference("orders", "channel"),
    "preferred_visit_channel": Preference("events", "channel"),
    "preferred_device": Preference("events", "device"),
    "browsing": Ordering(Later("events", "events", "count"), (("heavy", "regular", "light", "none"),)),
    "visit_frequency": Ordering(Later("events", "events", "count"), (("daily", "weekly", "seldom", "none"),)),
    "session_depth": Ordering(Later("events a session", "events", "rows_per", "session_id"), (("deep", "browse", "glance"),)),
    "coupon_redeemer": Ordering(Later("share of customers who redeem a coupon", "events", "any", among=(Condition("event_type", "==", "coupon_redeem"),)), YES_NO),
    "message_response": Ordering(Later("share of the delivered contacts that are opened", "touches", "share", where=(Condition("opened", "==", True),), among=DELIVERED), (("clicks", "ignores"), ("opens", "ignores"))),
    # transaction
    "value_tier": Ordering(AMOUNT, (("high", "middle", "low"),)),
    "rfm_tier": Ordering(AMOUNT, (("top", "high", "middle", "low", "bottom"),)),
    "rfm_segment": Ordering(ORDERED, (("important_value", "important_win_back"), ("general_value", "general_win_back"))),
    "price_band": Ordering(PRICES, (("premium", "middle", "budget"),)),
    "trading": Ordering(PRICES, (("up", "down"),)),
    "basket_size": Ordering(Later("lines an order", "orders", "mean", "lines"), (("large", "middle", "small"),)),
    "demand_type": Ordering(DISCOUNTED, (("price_driven", "balanced"), ("price_driven", "quality_driven"))),
    "discount_seeker": Ordering(DISCOUNTED, YES_NO),
    "coupon_user": Ordering(Later("share of orders with a coupon", "orders", "share", where=(Condition("coupon_discount", ">", 0),)), (("mostly", "sometimes", "never"),)),
    "purchase_cycle_days": Rising(Later("orders", "orders", "count"), falls=True),
    "purchase_cycle": Ordering(Later("orders", "orders", "count"), (("weekly", "fortnightly", "monthly", "quarterly", "rarely"),)),
    "average_order_value": Rising(Later("amount an order", "orders", "mean", "amount")),
    "refund_prone": Ordering(Later("share of customers with a refund", "refunds", "any"), YES_NO),
    "store_loyalty": Ordering(STORE, (("one_store", "main_store", "roaming"),), named="favourite_store"),
    "favourite_store": Preference("orders", "store_id"),
    # interest
    "favourite_category": Preference("lines", "category_top"),
    "recent_category": Preference("lines", "category_top"),
    "category_affinity": Ordering(CATEGORY, (("strong", "moderate", "weak"),), named="favourite_category"),
    "favourite_brand": Preference("lines", "brand"),
    "brand_affinity": Ordering(BRAND, (("strong", "moderate", "weak"),), named="favourite_brand"),
    "favourite_item": Preference("lines", "item_id"),
    "repertoire": Ordering(Later("lines an item", "lines", "rows_per", "item_id"), (("repeats", "mixes", "explores"),)),
    "variety": Ordering(CATEGORY, (("focused", "mixed", "wide"),), named="favourite_category"),
    "browsed_category": Preference("events", "category_top"),
    "favourite_topic": Preference("events", "topic"),
    "content_reader": Ordering(Later("events with content", "events", "count", among=CONTENT), (("heavy", "regular", "light", "none"),)),
    # lifecycle
    "lifecycle_stage": Ordering(ORDERED, (("loyal", "active", "at_risk", "asleep", "lost"),), days=(28, 84)),
    "buyer_stage": Ordering(ORDERED, (("loyal", "repeat", "first_time"),)),
    "days_to_next_order": NextOrder("next_order_earliest", "next_order_latest"),
    "next_order_date": NextOrder("next_order_earliest", "next_order_latest"),
    "replenishment": Ordering(ORDERED, (("due", "not_yet"), ("due", "missed")), days=(7,)),
    "spending_trend": Ordering(AMOUNT, (("rising", "falling"),)),
    "engagement_trend": Ordering(Later("events", "events", "count"), (("rising", "falling"),)),
    "churn_risk": Ordering(ORDERED, (RISK_BANDS,)),
    "predicted_orders": Rising(Later("orders", "orders", "count")),
    "predicted_clv": Rising(AMOUNT),
    "left_risk": Ordering(ORDERED, (RISK_BANDS,)),
}
# fmt: on
