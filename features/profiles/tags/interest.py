"""Interest tags: preferred categories, brands, items and topics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.profiles.tags.behaviour import VISIT_EVENTS
from features.profiles.tags.declare import Columns, Tag, TagContext

MIN_LINES = 5  # minimum lines to state a preference


def first_known(*names: str) -> Callable[[Columns, TagContext], NDArray[Any]]:
    """The first of these features that is supported and known."""

    def rule(columns: Columns, _: TagContext) -> NDArray[Any]:
        present = [columns[name] for name in names if name in columns]
        return np.select([column != "" for column in present], present, default="")

    return rule


def affinity(share: str) -> Callable[[Columns, TagContext], NDArray[Any]]:
    """Level of the share of the favourite value in all purchased lines."""
    return lambda c, _: np.select(
        [c["lines_total"] < MIN_LINES, c[share] >= 0.6, c[share] >= 0.4], ["", "strong", "moderate"], default="weak"
    )


def repertoire(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Whether the customer buys the same items repeatedly or different ones."""
    per_item = columns["lines_per_item"]
    return np.select(
        [columns["lines_total"] < MIN_LINES, per_item < 1.3, per_item < 2.5],
        ["", "explores", "mixes"],
        default="repeats",
    )


def content_reader(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Level of the number of content events in the last 28 days."""
    events = columns["content_events_28d"]
    return np.select([events >= 20, events >= 4, events > 0], ["heavy", "regular", "light"], default="none")


AFFINITY_LEVELS = ("weak", "moderate", "strong")
# fmt: off
TAGS = (
    Tag("favourite_category", "interest", "broadest category bought most", ("top_category",), lambda c, _: c["top_category"]),
    Tag("recent_category", "interest", "broadest category bought most in the last 91 days", ("top_category_91d",), lambda c, _: c["top_category_91d"]),
    Tag("entry_need", "interest", "what the customer came for: category of the first purchase, else of the first event", (), first_known("first_category", "first_viewed_category"), optional_features=("first_category", "first_viewed_category"), kind="static"),
    Tag("category_affinity", "interest", "share of lines in the favourite category: weak, moderate (40 %), strong (60 %)", ("top_category_share", "lines_total"), affinity("top_category_share"), values=AFFINITY_LEVELS),
    Tag("favourite_brand", "interest", "brand bought most", ("top_brand",), lambda c, _: c["top_brand"]),
    Tag("brand_affinity", "interest", "share of lines of the favourite brand: weak, moderate (40 %), strong (60 %)", ("top_brand_share", "lines_total"), affinity("top_brand_share"), values=AFFINITY_LEVELS),
    Tag("favourite_item", "interest", "item bought most often", ("top_item",), lambda c, _: c["top_item"]),
    Tag("repertoire", "interest", "lines an item: explores (under 1.3), mixes, repeats (2.5 and more)", ("lines_per_item", "lines_total"), repertoire, values=("explores", "mixes", "repeats")),
    Tag("variety", "interest", "spread of purchases over categories", ("category_entropy", "orders_total"),
        lambda c, _: np.select([c["orders_total"] <= 0, c["category_entropy"] < 0.7, c["category_entropy"] < 1.4], ["", "focused", "mixed"], default="wide"), values=("focused", "mixed", "wide")),
    Tag("browsed_category", "interest", "broadest category of the last 28 days' events", ("top_viewed_category_28d",), lambda c, _: c["top_viewed_category_28d"], requires_recorded=(VISIT_EVENTS,)),
    Tag("favourite_topic", "interest", "topic of the longest dwell time in the last 91 days, else of most events", (), first_known("top_topic_91d", "top_read_topic_91d"), optional_features=("top_topic_91d", "top_read_topic_91d")),
    Tag("topic_dwell_seconds", "interest", "time spent on that topic in the last 91 days", ("topic_seconds_91d", "top_topic_share_91d"),
        lambda c, _: np.where(c["topic_seconds_91d"] > 0, c["topic_seconds_91d"] * c["top_topic_share_91d"], np.nan)),
    Tag("content_reader", "interest", "content met in the last 28 days: none, light (1–3), regular (4–19), heavy", ("content_events_28d",), content_reader, values=("none", "light", "regular", "heavy")),
)
# fmt: on
