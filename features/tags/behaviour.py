"""What the customer does."""

from __future__ import annotations

import numpy as np

from features.tags.declare import Tag

PARTS = ("night", "morning", "afternoon", "evening")

TAGS = (
    Tag("active_hours", "behaviour", "part of the day with most orders (UTC)", (*(f"{part}_order_share" for part in PARTS), "orders_total"),
        lambda c, _: np.where(c["orders_total"] > 0, np.asarray(PARTS)[np.argmax([c[f"{part}_order_share"] for part in PARTS], axis=0)], "")),
    Tag("weekend_shopper", "behaviour", "at least half of the orders fall on a weekend", ("weekend_order_share",), lambda c, _: c["weekend_order_share"] >= 0.5),
    Tag("preferred_channel", "behaviour", "most used order channel", ("top_channel",), lambda c, _: c["top_channel"]),
    Tag("coupon_redeemer", "behaviour", "redeemed a coupon in the last 91 days", ("coupon_redeem_events_91d",), lambda c, _: c["coupon_redeem_events_91d"] > 0),
    Tag("browsing", "behaviour", "behaviour events in the last 28 days", ("events_28d",), lambda c, _: np.select([c["events_28d"] >= 50, c["events_28d"] >= 5, c["events_28d"] > 0], ["heavy", "regular", "light"], default="none")),
)  # fmt: skip
