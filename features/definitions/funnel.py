"""Conversion from views, carts and favourites to purchases, and abandoned carts."""

from __future__ import annotations

from features.compute.algebra import Condition, Feature
from features.definitions.recency import NEVER

# fmt: off
FEATURES = (
    *(
        Feature(f"days_since_last_{kind}", "events", "recency", where=(Condition("event_type", "==", kind),), default=NEVER, unit="days",
                description=f"time since the last '{kind}' event")
        for kind in ("view", "cart", "favourite", "search", "purchase")
    ),
    Feature("cart_items_28d", "events", "distinct", "item_id", where=(Condition("event_type", "==", "cart"),), window_days=28, unit="items", description="items put into the cart in the last 28 days"),
    Feature("favourite_items_91d", "events", "distinct", "item_id", where=(Condition("event_type", "==", "favourite"),), window_days=91, unit="items", description="items marked as favourite in the last 91 days"),
    Feature("cart_per_view", "", "quotient", "cart_events_91d", over="view_events_91d", unit="ratio", description="carts a view, last 91 days"),
    Feature("favourite_per_view", "", "quotient", "favourite_events_91d", over="view_events_91d", unit="ratio", description="favourites a view, last 91 days"),
    Feature("purchase_per_view", "", "quotient", "purchase_events_91d", over="view_events_91d", unit="ratio", description="purchase events a view, last 91 days"),
    Feature("purchase_per_cart", "", "quotient", "purchase_events_91d", over="cart_events_91d", unit="ratio", description="purchase events a cart, last 91 days"),
    Feature("first_viewed_category", "events", "first", "category_top", default="", description="broadest category of the first event that has one: what the customer came for"),
    Feature("last_viewed_category", "events", "last", "category_top", default="", description="broadest category of the last event that has one"),
)
# fmt: on
