"""Purchase days of customers and items before a cutoff, and statistics of the intervals between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions

MAX_GAP_DAYS = 36_500.0
MAX_UNITS = 20.0  # limit of the units of a purchase, because some items (fuel) are sold by thousands of units
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PurchaseDays:
    """Days on which a customer bought an item, sorted by customer, item and day; one entry per day.

    Attributes
    ----------
    users, items : ndarray of int64, (m,)
        Customer and item of each entry.
    days : ndarray of int64, (m,)
        Days relative to `as_of`: −1 is the day before it, 0 the day that begins with it.
    units : ndarray of float64, (m,)
        Logarithm of the units bought; 0 if unknown.
    """

    users: Ints
    items: Ints
    days: Ints
    units: Floats

    @classmethod
    def of(cls, data: Interactions, elapsed_days: float = 0.0) -> PurchaseDays:
        """Convert order lines to purchase days; ages count back from `elapsed_days` after `as_of`."""
        units = np.ones(len(data.users))
        if data.quantities is not None:
            units = np.nan_to_num(data.quantities.astype(np.float64), nan=1.0)
        days = np.floor(elapsed_days - data.age_days.astype(np.float64)).astype(np.int64)
        return cls.merged(data.users.astype(np.int64), data.items.astype(np.int64), days, units)

    @classmethod
    def merged(cls, users: Ints, items: Ints, days: Ints, units: Floats) -> PurchaseDays:
        """Sort entries and add up those of one day."""
        first, wide = days.min(initial=0), np.int64(items.max(initial=0)) + 1
        n_days = np.int64(days.max(initial=0) - first + 1)
        keys = (users * wide + items) * n_days + (days - first)  # sorting one key is faster than sorting by three
        order = np.argsort(keys, kind="stable")
        users, items, days = users[order], items[order], days[order]
        begins = run_starts(users, items, days)
        summed = np.bincount(np.cumsum(begins) - 1, units[order], minlength=int(begins.sum()))
        return cls(users[begins], items[begins], days[begins], np.log(np.clip(summed, 1.0, MAX_UNITS)))

    def joined(self, other: PurchaseDays) -> PurchaseDays:
        """Merge with other purchase days; entries of the same day are added up."""
        return PurchaseDays.merged(
            np.concatenate([self.users, other.users]),
            np.concatenate([self.items, other.items]),
            np.concatenate([self.days, other.days]),
            np.concatenate([np.exp(self.units), np.exp(other.units)]),
        )

    def where(self, kept: NDArray[np.bool_] | Ints) -> PurchaseDays:
        """Select entries by a mask or by indices."""
        return PurchaseDays(self.users[kept], self.items[kept], self.days[kept], self.units[kept])

    def by_item_group(self, group: Ints) -> PurchaseDays:
        """Return the days on which a customer bought any item of a group, without units, which differ between items."""
        groups, first = np.int64(group.max(initial=0)) + 1, self.days.min(initial=0)
        span = np.int64(self.days.max(initial=0) - first + 1)
        keys = np.sort((self.users * groups + group[self.items]) * span + (self.days - first))
        keys = keys[run_starts(keys)]  # `np.unique` hashes the keys, which takes ten times as long
        return PurchaseDays(keys // span // groups, keys // span % groups, keys % span + first, np.zeros(len(keys)))


@dataclass(frozen=True)
class PurchaseIntervals:
    """Statistics of the purchase days of each (customer, item) or (customer, group) pair at a cutoff; each (p,).

    Attributes
    ----------
    users, items : ndarray of int64
        Customer and item (or group) of each pair.
    times : ndarray of float64
        Number of purchase days.
    recency_days : ndarray of float64
        Days since the last purchase, ≥ ½.
    gaps, log_gaps, squares : ndarray of float64
        Number, sum and sum of squares of the log gaps, the logarithms of the days between two purchases.
    weights, weighted, weights_squared : ndarray of float64
        Sums of the weights, of the weighted log gaps, and of the squared weights; the weight of a gap is `gap_decay` to
        the power of the number of later gaps.
    excess : ndarray of float64
        Log units of the last purchase minus the mean of the earlier ones.
    units_squares, units_log_gaps : ndarray of float64
        Sum of squares of the centred log units, and sum of their products with the following log gap.
    recent, purchases_120d : ndarray of float64
        Purchase days, decayed with half-lives of 60 and 120 days.
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
        """Compute the statistics at `moment`, in days after `as_of`; `days` must not contain later days."""
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
        mean_units = summed(before) / np.maximum(gaps, 1.0)
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
            np.where(gaps > 0, days.units[last] - mean_units, 0.0),
            np.maximum(summed(before**2) - gaps * mean_units**2, 0.0),
            summed(before * log_gap) - mean_units * log_gaps,
            summed(np.exp2(-ages / 60.0)),
            summed(np.exp2(-ages / 120.0)),
        )


@dataclass(frozen=True)
class PurchaseHistory:
    """Purchase days before a cutoff, by item and by item group, and their statistics."""

    moment: float
    days: PurchaseDays
    intervals: PurchaseIntervals
    group_days: PurchaseDays
    group_intervals: PurchaseIntervals

    @classmethod
    def at(cls, moment: float, days: PurchaseDays, group_days: PurchaseDays, gap_decay: float) -> PurchaseHistory:
        """Compute the statistics of purchase days, all of which are before `moment`."""
        return cls(
            moment,
            days,
            PurchaseIntervals.at(moment, days, gap_decay),
            group_days,
            PurchaseIntervals.at(moment, group_days, gap_decay),
        )

    def decay_weights(self, days: PurchaseDays, half_life_days: float) -> Floats:
        """Return weights of purchase days that decay with their age."""
        found: Floats = np.exp2(-np.maximum(self.moment - days.days - 0.5, 0.5) / half_life_days)
        return found


def group_sums(groups: Ints, values: NDArray[Any], n_groups: int) -> Floats:
    """Sum the values of each group, (n_groups,)."""
    return np.bincount(groups, values, n_groups).astype(np.float64)


def run_starts(*keys: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Return where a new combination of sorted keys begins, bool, (m,)."""
    begins = np.ones(len(keys[0]), dtype=bool)
    if len(begins) > 1:
        begins[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return begins
