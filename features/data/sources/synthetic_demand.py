"""Demand types of the synthetic shop: who buys at a discount, who buys the dearer items, and who reads.

With `demand_types` every person has one of `DEMAND_TYPES`, at random. A price-driven person takes cheaper items of a
category and buys at a discount, a quality-driven one takes dearer items, a content-driven one reads more. What is
viewed follows from what is wanted, so the first sessions show it too. Without `demand_types` nothing is drawn here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from features.data.sources.synthetic_columns import Floats, Ints
from features.data.sources.synthetic_people import LATE_ARRIVALS
from qianmian.schema import DEMAND_TYPES

DEMAND = "demand"  # of the people: place of each in `DEMAND_TYPES`
GENERATOR = "demand_generator"
TILT = {"price_driven": -2.0, "quality_driven": 2.0}  # weight of an item: price to this power
DISCOUNT_RATE, DISCOUNTS = 0.2, {"price_driven": 0.5}  # share of lines with a discount; of the others
READING, OTHERS_READING = {"content_driven": 4.0}, 0.5  # factor of the visits to contents


def draw_demand_types(rng: np.random.Generator, people: Mapping[str, Any], days: int) -> dict[str, Any]:
    """Columns of the people: their demand types, and the generator of the choices that follow from them.

    Those who arrive later do so until the last day, so that the shop has newcomers at any time.
    """
    start = people["start"] / LATE_ARRIVALS
    churn = people["churn"] + start - people["start"]
    return {
        DEMAND: rng.integers(0, len(DEMAND_TYPES), len(start)),
        GENERATOR: rng,
        "start": start,
        "churn": np.where(churn < days, churn, np.nan),
    }


def chosen_items(people: Mapping[str, Any], items: Mapping[str, Any], person: Ints, item: Ints, each: int) -> Ints:
    """The items, of which those of price- and quality-driven people are others of the same category.

    Parameters
    ----------
    people, items : mapping
    person, item : int array, shape (n,)
        Who takes which item.
    each : int
        Items of a category, by popularity.
    """
    if DEMAND not in people:
        return item
    found, rng = item.copy(), people[GENERATOR]
    price = np.log(items["price"]).reshape(-1, each)
    for name, power in TILT.items():
        rows = np.flatnonzero(people[DEMAND][person] == DEMAND_TYPES.index(name))
        weight = np.exp(power * price) / np.arange(1, each + 1)
        steps = np.cumsum(weight, axis=1) / weight.sum(axis=1, keepdims=True)
        rank = (rng.random(len(rows))[:, None] > steps[item[rows] // each]).sum(axis=1)
        found[rows] = item[rows] // each * each + np.minimum(rank, each - 1)
    return found


def discount_rate(people: Mapping[str, Any], person: Ints) -> float | Floats:
    """Probability that a line of a person is discounted."""
    if DEMAND not in people:
        return DISCOUNT_RATE
    rates = np.array([DISCOUNTS.get(name, DISCOUNT_RATE / 2) for name in DEMAND_TYPES])
    return np.asarray(rates[people[DEMAND][person]])


def reading_factor(people: Mapping[str, Any]) -> float | Floats:
    """Factor of the visits of each person to contents."""
    if DEMAND not in people:
        return 1.0
    factors = np.array([READING.get(name, OTHERS_READING) for name in DEMAND_TYPES])
    return np.asarray(factors[people[DEMAND]])
