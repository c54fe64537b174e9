"""What was bought before a moment: purchase days of customers and items, and what the gaps between them tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions

MAX_GAP_DAYS = 36_500.0
MAX_UNITS = 20.0  # fuel is sold by thousands of units
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PurchaseDays:
    """Days on which a customer bought an item, sorted by customer, item, day; one entry a day.

    Attributes
    ----------
    users, items : ndarray of int64, (m,)
    days : ndarray of int64, (m,)
        The day before `as_of` is −1, the day that begins with it 0.
    units : ndarray of float64, (m,)
        Logarithm of the units bought, 0 where unknown.
    """

    users: Ints
    items: Ints
    days: Ints
    units: Floats

    @classmethod
    def of(cls, data: Interactions, elapsed_days: float = 0.0) -> PurchaseDays:
        """Lines as days; ages count back from so many days after `as_of`."""
        units = (
            np.ones(len(data.users))
            if data.quantities is None
            else np.nan_to_num(data.quantities.astype(np.float64), nan=1.0)
        )
        days = np.floor(elapsed_days - data.age_days.astype(np.float64)).astype(np.int64)
        return cls.merged(data.users.astype(np.int64), data.items.astype(np.int64), days, units)

    @classmethod
    def merged(cls, users: Ints, items: Ints, days: Ints, units: Floats) -> PurchaseDays:
        """Entries in any order, those of one day added up."""
        first, wide = days.min(initial=0), np.int64(items.max(initial=0)) + 1
        keys = (users * wide + items) * np.int64(days.max(initial=0) - first + 1) + (
            days - first
        )  # one key sorts faster than three
        order = np.argsort(keys, kind="stable")
        users, items, days = users[order], items[order], days[order]
        begins = run_starts(users, items, days)
        summed = np.bincount(np.cumsum(begins) - 1, units[order], minlength=int(begins.sum()))
        return cls(users[begins], items[begins], days[begins], np.log(np.clip(summed, 1.0, MAX_UNITS)))

    def joined(self, other: PurchaseDays) -> PurchaseDays:
        """Both; where they name the same day it is one, with the units of both."""
        return PurchaseDays.merged(
            np.concatenate([self.users, other.users]),
            np.concatenate([self.items, other.items]),
            np.concatenate([self.days, other.days]),
            np.concatenate([np.exp(self.units), np.exp(other.units)]),
        )

    def where(self, kept: NDArray[np.bool_] | Ints) -> PurchaseDays:
        """The entries where the mask holds, or at these places."""
        return PurchaseDays(self.users[kept], self.items[kept], self.days[kept], self.units[kept])

    def by_item_group(self, group: Ints) -> PurchaseDays:
        """Days on which a customer bought anything of a group of items; units of different items do not add up and are left out."""
        groups, first = np.int64(group.max(initial=0)) + 1, self.days.min(initial=0)
        span = np.int64(self.days.max(initial=0) - first + 1)
        keys = np.sort((self.users * groups + group[self.items]) * span + (self.days - first))
        keys = keys[run_starts(keys)]  # numpy's own `unique` hashes, which takes ten times as long
        return PurchaseDays(keys // span // groups, keys // span % groups, keys % span + first, np.zeros(len(keys)))


@dataclass(frozen=True)
class PurchaseIntervals:
    """What the purchase days of a customer and an item (or a group of items) tell at a moment; one entry a pair, each (p,).

    Attributes
    ----------
    times : purchase days.
    recency_days : days since the last one, ≥ ½.
    gaps, log_gaps, squares : number, sum and sum of squares of the logarithms of the days between two purchases.
    weights, weighted, weights_squared : the same sums with a weight of `gap_decay` to the power of the gaps since.
    excess, units_squares, units_log_gaps : units bought last over what was usual; within-pair sums of squares and products of units and the gap after.
    recent, purchases_120d : purchase days that fade with half-lives of 60 and 120 days.
    """

    users: Ints
    items: Ints
    times: Floats
    recency_days: Floats
    gaps: Floats
    log_gaps: Floats
    squares: Floats
    weights: Floats
    weighted: Floats
    weights_squared: Floats
    excess: Floats
    units_squares: Floats
    units_log_gaps: Floats
    recent: Floats
    purchases_120d: Floats

    @classmethod
    def at(cls, moment: float, days: PurchaseDays, gap_decay: float) -> PurchaseIntervals:
        """As they stand so many days after `as_of`; nothing of `days` may be later."""
        m = len(days.users)
        begins = run_starts(days.users, days.items)
        pair, first = np.cumsum(begins) - 1, np.flatnonzero(begins)
        n = len(first)
        times = np.diff(np.append(first, m))
        last = first + times - 1

        def summed(values: Floats) -> Floats:
            return group_sums(pair, values, n)

        inside = ~begins
        log_gap = np.zeros(m)
        log_gap[inside] = np.log(np.clip((days.days[1:] - days.days[:-1])[inside[1:]], 1.0, MAX_GAP_DAYS))
        gaps_after = np.repeat(last, times) - np.arange(m)
        weight = np.where(inside, gap_decay ** gaps_after.astype(np.float64), 0.0)
        before = np.where(inside, np.append(0.0, days.units[:-1])[:m], 0.0)
        gaps, log_gaps = times - 1.0, summed(log_gap)
        usual = summed(before) / np.maximum(gaps, 1.0)
        ages = np.maximum(moment - days.days - 0.5, 0.5)
        return cls(
            days.users[first],
            days.items[first],
            times.astype(np.float64),
            ages[last],
            gaps,
            log_gaps,
            summed(log_gap**2),
            summed(weight),
            summed(weight * log_gap),
            summed(weight**2),
            np.where(gaps > 0, days.units[last] - usual, 0.0),
            np.maximum(summed(before**2) - gaps * usual**2, 0.0),
            summed(before * log_gap) - usual * log_gaps,
            summed(np.exp2(-ages / 60.0)),
            summed(np.exp2(-ages / 120.0)),
        )


@dataclass(frozen=True)
class PurchaseHistory:
    """Everything a moment knows: purchase days before it, of items and of groups of items, and what they tell."""

    moment: float
    days: PurchaseDays
    intervals: PurchaseIntervals
    group_days: PurchaseDays
    group_intervals: PurchaseIntervals

    @classmethod
    def at(cls, moment: float, days: PurchaseDays, group_days: PurchaseDays, gap_decay: float) -> PurchaseHistory:
        """Of days before the moment."""
        return cls(
            moment,
            days,
            PurchaseIntervals.at(moment, days, gap_decay),
            group_days,
            PurchaseIntervals.at(moment, group_days, gap_decay),
        )

    def decay_weights(self, days: PurchaseDays, half_life_days: float) -> Floats:
        """Weights of purchase days by their age."""
        found: Floats = np.exp2(-np.maximum(self.moment - days.days - 0.5, 0.5) / half_life_days)
        return found


def group_sums(groups: Ints, values: NDArray[Any], n_groups: int) -> Floats:
    """Sum of the values of each group, (n_groups,)."""
    return np.bincount(groups, values, n_groups).astype(np.float64)


def run_starts(*keys: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Where a new combination begins in sorted arrays, (m,)."""
    begins = np.ones(len(keys[0]), dtype=bool)
    if len(begins) > 1:
        begins[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return begins
