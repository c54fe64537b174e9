"""Description of a synthetic shop: categories, prices, cycles and segments of a general shop or an industry pack."""

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
# four segments: their attributes, and the effect of a contact on their orders in the week after it
SEGMENTS: tuple[dict[str, Any], ...] = (
    {"gender": "female", "age_band": "25-34", "region": "north", "income_band": "50-74K", "lift": 0.30},
    {"gender": "male", "age_band": "35-44", "region": "south", "income_band": "75-99K", "lift": 0.12},
    {"gender": "female", "age_band": "45-54", "region": "east", "income_band": "35-49K", "lift": 0.0},
    {"gender": "male", "age_band": "55-64", "region": "west", "income_band": "Under 35K", "lift": -0.35},
)

# share of the peak's surplus that each month of the year has, January to December
SEASON_SHAPE = (0.15, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.4, 1.0, 1.0)


def season_factors(strength: float) -> tuple[float, ...]:
    """Return the factor by which each month, January to December, multiplies the buying rate of every person.

    The factor is proportional to 1 + `strength` in November and December and to 1 in a quiet month; October, January
    and September lie between. The mean of the twelve months is 1.
    """
    raw = [1.0 + strength * share for share in SEASON_SHAPE]
    return tuple(value * len(raw) / sum(raw) for value in raw)


@dataclass(frozen=True)
class SyntheticShop:
    """Description of a synthetic shop; the defaults are a general shop.

    Attributes
    ----------
    categories : tuple of str
        Category paths, levels joined by ``/``.
    segments : tuple of dict
        Customer segments, as `SEGMENTS`.
    shares : tuple of float or None
        Share of each segment; None: equal shares.
    likes : tuple of tuple of int, or None
        Indices of the preferred categories of each segment; None: three each, in order.
    prices : tuple of float or None
        Typical price per category; None: random.
    cycles : tuple or None
        (days, spread) of the repurchase cycle per category; None where it depends on the person's order gap.
    child_months : tuple or None
        (from, to) per category: age in months of the person's child during which the category is bought, negative
        before birth.
    gap_days : tuple of float
        Days between the orders of a person: median, minimum, maximum.
    trial_items : float
        Mean number of trial items per order, in addition to one.
    browsers_share : float
        Share of people who view items and never buy.
    event_names : mapping of str to str
        Event type → name in the systems of the industry.
    events_per_person : mapping of str to float
        Other event type → mean number of events per person.
    season_strength : float
        By how much more often people buy in the peak months than in quiet ones, relative to the quiet months: with 2,
        three times as often. 0: no season. See `season_factors`.
    intent : bool
        Whether events come from needs (`synthetic_intent`).
    demand_types : bool
        Whether people have demand types (`synthetic_demand`).
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
    season_strength: float = 0.0
    intent: bool = False
    demand_types: bool = False

    @classmethod
    def of(cls, shop: SyntheticShopConfig, cycles: Mapping[str, ReplenishmentCycle]) -> SyntheticShop:
        """Build the shop of an industry pack."""
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
