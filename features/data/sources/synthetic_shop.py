"""What a made-up shop sells, and the kinds of people who buy there: a general shop, or the trade of an industry pack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qianmian.packs import ReplenishmentCycle, SyntheticShopConfig

# fmt: off
CATEGORIES = (
    "grocery/dairy", "grocery/bakery", "grocery/drinks", "home/cleaning", "home/kitchen", "home/garden",
    "beauty/skin", "beauty/hair", "beauty/scent", "baby/care", "baby/food", "baby/toys",
)
# fmt: on
# four kinds of people: what they look like, and what a contact does to their orders in the week after it
SEGMENTS: tuple[dict[str, Any], ...] = (
    {"gender": "female", "age_band": "25-34", "region": "north", "income_band": "50-74K", "lift": 0.30},
    {"gender": "male", "age_band": "35-44", "region": "south", "income_band": "75-99K", "lift": 0.12},
    {"gender": "female", "age_band": "45-54", "region": "east", "income_band": "35-49K", "lift": 0.0},
    {"gender": "male", "age_band": "55-64", "region": "west", "income_band": "Under 35K", "lift": -0.35},
)


@dataclass(frozen=True)
class SyntheticShop:
    """What the shop sells and to whom; the defaults are a general shop, an industry pack describes its trade.

    Attributes
    ----------
    categories : tuple of str
        Levels joined by ``/``.
    segments : tuple of dict
        Kinds of people, as `SEGMENTS`.
    shares : tuple of float or None
        Share of each kind; None: all alike.
    likes : tuple of tuple of int, or None
        Numbers of the favourite categories of each kind; None: three each, in order.
    prices : tuple of float or None
        Typical price a category; None: drawn.
    cycles : tuple or None
        (days, spread) a category, None where its items last as long as a person's rhythm says.
    child_months : tuple or None
        (from, to) a category: only bought while the person's child is of this age, negative before birth.
    gap_days : tuple of float
        Days between a person's orders: median, least, most.
    trial_items : float
        Items an order that the person just wanted to try, beside one.
    browsers_share : float
        Share of people who look and never buy.
    events_per_person : mapping of str to float
        Other event type → how many a person has.
    event_names : mapping of str to str
        Event type → what the trade's systems call it.
    """

    categories: tuple[str, ...] = CATEGORIES
    segments: tuple[dict[str, Any], ...] = SEGMENTS
    shares: tuple[float, ...] | None = None
    likes: tuple[tuple[int, ...], ...] | None = None
    prices: tuple[float, ...] | None = None
    cycles: tuple[tuple[float, float] | None, ...] | None = None
    child_months: tuple[tuple[float, float] | None, ...] | None = None
    gap_days: tuple[float, float, float] = (9.0, 3.0, 45.0)
    trial_items: float = 0.6
    browsers_share: float = 0.0
    event_names: Mapping[str, str] = field(default_factory=dict)
    events_per_person: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, shop: SyntheticShopConfig, cycles: Mapping[str, ReplenishmentCycle]) -> SyntheticShop:
        """The shop of an industry pack."""
        names = list(shop.categories)
        kinds = [
            kind.model_dump(include={"gender", "age_band", "region", "income_band", "lift"}) for kind in shop.kinds
        ]
        return cls(
            tuple(names),
            tuple(kinds),
            tuple(kind.share for kind in shop.kinds),
            tuple(tuple(names.index(liked) for liked in kind.likes) for kind in shop.kinds),
            tuple(category.price for category in shop.categories.values()),
            tuple(
                (cycles[c.cycle].days, cycles[c.cycle].spread) if c.cycle else None for c in shop.categories.values()
            ),
            tuple(category.child_months for category in shop.categories.values()),
            shop.gap_days,
            shop.trial_items,
            shop.browsers_share,
            shop.event_names,
            shop.events_per_person,
        )
