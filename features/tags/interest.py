"""What the customer likes."""

from __future__ import annotations

import numpy as np

from features.tags.declare import Tag

TAGS = (
    Tag("favourite_category", "interest", "broadest category bought most", ("top_category",), lambda c, _: c["top_category"]),
    Tag("favourite_brand", "interest", "brand bought most", ("top_brand",), lambda c, _: c["top_brand"]),
    Tag("browsed_category", "interest", "broadest category of the last 28 days' events", ("top_viewed_category_28d",), lambda c, _: c["top_viewed_category_28d"]),
    Tag("variety", "interest", "spread of purchases over categories", ("category_entropy", "orders_total"),
        lambda c, _: np.select([c["orders_total"] <= 0, c["category_entropy"] < 0.7, c["category_entropy"] < 1.4], ["", "focused", "mixed"], default="wide")),
)  # fmt: skip
