"""How the customer buys. Tiers are quantiles of the customers of the build, so a single row is tagged by the table it comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.tags.declare import Tag


def tiers(values: NDArray[Any], names: tuple[str, ...]) -> NDArray[np.str_]:
    """Equal shares of the customers with a value above zero, lowest first; '' for the others."""
    positive = values > 0
    if not positive.any():
        return np.full(len(values), "", dtype=np.str_)
    edges = np.quantile(values[positive], np.linspace(0, 1, len(names) + 1)[1:-1])
    return np.where(positive, np.asarray(names)[np.searchsorted(edges, values, side="right")], "")


TAGS = (
    Tag("value_tier", "transaction", "thirds by amount paid in the last 365 days", ("amount_365d",), lambda c, _: tiers(c["amount_365d"], ("low", "middle", "high"))),
    Tag("price_band", "transaction", "thirds by mean price paid a unit in the last 91 days", ("unit_price_mean_91d",), lambda c, _: tiers(c["unit_price_mean_91d"], ("budget", "middle", "premium"))),
    Tag("discount_seeker", "transaction", "more than 60 % of the lines of the last 91 days were discounted", ("discounted_line_share_91d",), lambda c, _: c["discounted_line_share_91d"] > 0.6),
    Tag("purchase_cycle_days", "transaction", "mean gap between orders", ("gap_days_mean", "orders_total"), lambda c, _: np.where(c["orders_total"] > 1, c["gap_days_mean"], np.nan)),
    Tag("average_order_value", "transaction", "mean amount of an order", ("order_value_mean", "orders_total"), lambda c, _: np.where(c["orders_total"] > 0, c["order_value_mean"], np.nan)),
    Tag("basket_size", "transaction", "thirds by mean lines an order", ("basket_lines_mean",), lambda c, _: tiers(c["basket_lines_mean"], ("small", "middle", "large"))),
)  # fmt: skip
