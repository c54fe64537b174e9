"""Transaction tags: value, RFM, prices, purchase cycle and stores.

Tiers rank a customer among all customers; their quantile edges are fitted on all customers and stored with the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.profiles.tags.declare import (
    Columns,
    Fitted,
    Tag,
    TagContext,
    quantile_bin,
    quantile_edges,
    quantile_tag,
    yes_no,
)
from qianmian.schema import DEMAND_TYPES

RFM = ("days_since_last_order", "orders_365d", "amount_365d")
RFM_TIERS = ("bottom", "low", "middle", "high", "top")
# the usual eight RFM classes: monetary value is the most significant bit, then recency, then frequency
RFM_SEGMENTS = (
    "general_win_back",
    "general_keep",
    "general_develop",
    "general_value",
    "important_win_back",
    "important_keep",
    "important_develop",
    "important_value",
)
DEMAND_BINS = 20  # quantile bins of a demand driver, 5 % each
DEMAND_THRESHOLD = 2 / 3
DEMAND_FEATURES = dict(
    zip(DEMAND_TYPES, ("discounted_line_share_182d", "price_level_mean", "content_event_share_91d"), strict=False)
)
PRICE_LEVELS = ("price_level_mean", "price_level_std", "price_level_lines")
PRICE_BANDS = ("budget", "middle", "premium")
MIN_PRICED_LINES = 20  # with a price level; fewer say little about a customer
EDGE_ERRORS = 0.5  # a mean within so many standard errors of an edge may as well belong to the next band
MIN_RECENT_LINES = 5  # in the last 56 days
CHANGE_ERRORS = 1.64  # one in ten customers without any change is beyond


def fit_rfm(quantiles: int) -> Any:
    """Fit the quantile edges of recency, frequency and monetary value among the buyers of the last 365 days."""

    def fit(columns: Columns, _: TagContext) -> Fitted:
        buyers = columns["orders_365d"] > 0
        return {name: quantile_edges(columns[name][buyers], quantiles) for name in RFM}

    return fit


def rfm_scores(columns: Columns, context: TagContext) -> list[NDArray[np.int64]]:
    """Quantile bin of recency, frequency and monetary value of each customer; the best bin is the highest."""
    recency, orders, money = (
        np.searchsorted(np.asarray(context.fitted[name]), columns[name], side="right") for name in RFM
    )
    return [len(context.fitted[RFM[0]]) - recency, orders, money]


def rfm_tier(columns: Columns, context: TagContext) -> NDArray[Any]:
    """Tier by the sum of the three scores in quintiles, from 0 to 12."""
    total = np.sum(rfm_scores(columns, context), axis=0)
    names = np.asarray(RFM_TIERS)[np.searchsorted([2, 4, 7, 10], total, side="right")]
    return np.where(columns["orders_365d"] > 0, names, "")


def rfm_segment(columns: Columns, context: TagContext) -> NDArray[Any]:
    """RFM class: above or below the median buyer in each of the three."""
    recent, often, money = rfm_scores(columns, context)
    segments = np.asarray(RFM_SEGMENTS)[(4 * money + 2 * recent + often).clip(0, 7)]
    return np.where(columns["orders_365d"] > 0, segments, "")


def has_price_level(columns: Columns, min_lines: int = MIN_PRICED_LINES) -> NDArray[np.bool_]:
    """Whether the customer has enough lines with a price level."""
    return np.asarray(columns["price_level_lines"] >= min_lines)


def price_level_edges(columns: Columns, parts: int, min_lines: int = MIN_PRICED_LINES) -> list[float]:
    """Inner quantile edges of the mean price level; empty if the customers with enough lines do not differ."""
    levels = columns["price_level_mean"][has_price_level(columns, min_lines)]
    edges = np.quantile(levels, np.linspace(0, 1, parts + 1)[1:-1]).tolist() if len(levels) else []
    return edges if edges and edges[0] < edges[-1] else []


def fit_price_band(columns: Columns, _: TagContext) -> Fitted:
    """Fit the edges of the thirds of the mean price level."""
    return {"edges": price_level_edges(columns, len(PRICE_BANDS))}


def price_band(columns: Columns, context: TagContext) -> NDArray[Any]:
    """Third of the mean price level; unknown if chance could have moved the customer over the nearest edge."""
    level, edges = columns["price_level_mean"], np.asarray(context.fitted["edges"])
    if not len(edges):
        return np.full(len(level), "")
    error = columns["price_level_std"] / np.sqrt(np.maximum(columns["price_level_lines"], 1.0))
    distance = np.abs(level[:, None] - edges).min(axis=1, initial=np.inf)
    names = np.asarray(PRICE_BANDS)[np.searchsorted(edges, level, side="right")]
    return np.where(has_price_level(columns) & (distance >= EDGE_ERRORS * error), names, "")


def fit_demand(columns: Columns, _: TagContext, min_lines: int = MIN_PRICED_LINES) -> Fitted:
    """Fit the quantile edges of each demand driver: of the price level, and of the other values above zero."""
    return {
        driver: price_level_edges(columns, DEMAND_BINS, min_lines)
        if name in PRICE_LEVELS
        else quantile_edges(columns[name], DEMAND_BINS)
        for driver, name in DEMAND_FEATURES.items()
        if name in columns
    }


def demand_type(columns: Columns, context: TagContext, min_lines: int = MIN_PRICED_LINES) -> NDArray[Any]:
    """The demand driver in which the customer ranks highest, if this is in the upper third of all customers.

    The measure is the rank among all customers, not a fixed number, because assortments and discounts differ between
    shops.
    """
    drivers = [
        driver for driver in DEMAND_FEATURES if context.fitted.get(driver) and DEMAND_FEATURES[driver] in columns
    ]
    if not drivers:
        return np.where(has_price_level(columns, min_lines), DEMAND_TYPES[-1], "")
    bins = [
        np.searchsorted(context.fitted[driver], columns[name], side="right")
        if (name := DEMAND_FEATURES[driver]) in PRICE_LEVELS
        else quantile_bin(columns[name], context.fitted[driver])
        for driver in drivers
    ]
    ranks = (np.array(bins) + 1) / DEMAND_BINS
    leading_driver = np.asarray(drivers)[ranks.argmax(axis=0)]
    return np.select(
        [~has_price_level(columns, min_lines), ranks.max(axis=0) > DEMAND_THRESHOLD],
        ["", leading_driver],
        default=DEMAND_TYPES[-1],
    )


def purchase_cycle(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Name of the mean gap between orders."""
    gap = columns["gap_days_mean"]
    names = ["", "weekly", "fortnightly", "monthly", "quarterly"]
    return np.select(
        [columns["orders_total"] < 2, gap <= 10, gap <= 20, gap <= 45, gap <= 120], names, default="rarely"
    )


def purchase_regularity(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Class of the coefficient of variation of the gaps; it is 1 for a Poisson process."""
    spread = columns["gap_variation"]
    return np.select(
        [columns["orders_total"] < 4, spread < 0.5, spread < 1.0], ["", "regular", "uneven"], default="bursts"
    )


def coupon_user(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Class of the share of orders with a coupon in the last 91 days."""
    share = columns["coupon_order_share_91d"]
    return np.select(
        [columns["orders_91d"] <= 0, share <= 0, share < 0.5], ["", "never", "sometimes"], default="mostly"
    )


def trading(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Direction of the mean price level, last 56 days against the days before; steady if chance could explain it."""
    recent, whole = columns["price_level_lines_56d"], columns["price_level_lines"]
    before = whole - recent
    known = (recent >= MIN_RECENT_LINES) & (before >= MIN_PRICED_LINES)
    n, m = np.where(known, recent, 1.0), np.where(known, before, 1.0)
    level_before = (whole * columns["price_level_mean"] - recent * columns["price_level_mean_56d"]) / m
    change = columns["price_level_mean_56d"] - level_before
    limit = CHANGE_ERRORS * columns["price_level_std"] * np.sqrt(1 / n + 1 / m)
    return np.select([~known, change > limit, change < -limit], ["", "up", "down"], default="steady")


def store_loyalty(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Class of the share of orders in the most used store."""
    share = columns["top_store_share"]
    return np.select(
        [columns["orders_total"] < 3, share >= 0.8, share >= 0.5], ["", "one_store", "main_store"], default="roaming"
    )


# fmt: off
TAGS = (
    quantile_tag("value_tier", "transaction", "thirds by amount paid in the last 365 days", "amount_365d", ("low", "middle", "high")),
    Tag("rfm_tier", "transaction", "fifths of recency, frequency and money of the last 365 days, summed", RFM, rfm_tier, how="statistic", fit=fit_rfm(5), values=RFM_TIERS),
    Tag("rfm_segment", "transaction", "recency, frequency and money each above or below the median buyer: eight classes", RFM, rfm_segment, how="statistic", fit=fit_rfm(2), values=RFM_SEGMENTS),
    Tag("price_band", "transaction", "thirds by mean price level of all lines: how dear the chosen goods are within their categories; from 20 lines on, unknown close to an edge", PRICE_LEVELS, price_band, how="statistic", fit=fit_price_band, values=PRICE_BANDS),
    quantile_tag("basket_size", "transaction", "thirds by mean lines an order", "basket_lines_mean", ("small", "middle", "large")),
    Tag("demand_type", "transaction", "what moves the customer most, against all customers: price (discounted lines), quality (price level) or content (events with content); from 20 lines on",
        ("discounted_line_share_182d", "price_level_mean", "price_level_lines"), demand_type, optional_features=("content_event_share_91d",), how="statistic", fit=fit_demand, values=DEMAND_TYPES),
    Tag("expected_demand_type", "transaction", "what will move a customer with few purchases most, by what the first sessions show: price, quality, content or neither", how="model", values=DEMAND_TYPES),
    Tag("discount_seeker", "transaction", "more than 60 % of the lines of the last 91 days were discounted", ("discounted_line_share_91d", "lines_91d"), lambda c, _: yes_no(c["discounted_line_share_91d"] > 0.6, c["lines_91d"] > 0)),
    Tag("coupon_user", "transaction", "orders of the last 91 days with a coupon: never, sometimes, mostly (half and more)", ("coupon_order_share_91d", "orders_91d"), coupon_user, values=("never", "sometimes", "mostly")),
    Tag("trading", "transaction", "mean price level of the last 56 days against all lines before: up, steady, down; a change that chance explains is steady", ("price_level_mean_56d", "price_level_lines_56d", *PRICE_LEVELS), trading, values=("up", "steady", "down")),
    Tag("purchase_cycle_days", "transaction", "mean gap between orders", ("gap_days_mean", "orders_total"), lambda c, _: np.where(c["orders_total"] > 1, c["gap_days_mean"], np.nan)),
    Tag("purchase_cycle", "transaction", "mean gap between orders in words: weekly (10 days), fortnightly (20), monthly (45), quarterly (120), rarely", ("gap_days_mean", "orders_total"), purchase_cycle, values=("weekly", "fortnightly", "monthly", "quarterly", "rarely")),
    Tag("purchase_regularity", "transaction", "spread of the gaps ÷ their mean: regular (under 0.5), uneven (under 1), bursts; from four orders on", ("gap_variation", "orders_total"), purchase_regularity, values=("regular", "uneven", "bursts")),
    Tag("average_order_value", "transaction", "mean amount of an order", ("order_value_mean", "orders_total"), lambda c, _: np.where(c["orders_total"] > 0, c["order_value_mean"], np.nan)),
    Tag("refund_prone", "transaction", "refunds of the last 91 days are more than 10 % of what was paid", ("refund_rate", "amount_91d"), lambda c, _: yes_no(c["refund_rate"] > 0.1, c["amount_91d"] > 0)),
    Tag("store_loyalty", "transaction", "share of orders in the most used store: roaming, main_store (half), one_store (80 %); from three orders on", ("top_store_share", "orders_total"), store_loyalty, values=("roaming", "main_store", "one_store")),
    Tag("favourite_store", "transaction", "most used store", ("top_store",), lambda c, _: c["top_store"]),
    Tag("predicted_clv", "transaction", "expected amount paid within the horizon of the value model, of customers with an order", how="model", ttl_days=35),
)
# fmt: on
