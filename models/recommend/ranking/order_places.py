"""Orders of users from their lines, and sums over runs of sorted rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OrderPlaces:
    """The orders of n users; without order numbers, the lines of a user on one day are an order.

    Attributes
    ----------
    owner, when : (n_orders,)
        User and age of each order, sorted by user and age.
    first : (n_users,)
        First order of each user.
    place : (n_lines,)
        Number of orders of the user that are younger than the order of the line.
    """

    owner: Ints
    when: NDArray[np.float64]
    first: Ints
    place: Ints

    @classmethod
    def of(cls, users: Ints, ages: NDArray[np.float64], orders: NDArray[np.int32] | None, n_users: int) -> OrderPlaces:
        """Group lines, (n_lines,), into orders; `orders` are their numbers."""
        names = np.floor(ages).astype(np.int64) if orders is None else orders.astype(np.int64)
        names -= names.min(initial=0)
        keys = users * (int(names.max(initial=0)) + 1) + names
        by = np.argsort(keys)
        changed = changes(keys[by])
        starts = np.flatnonzero(changed)
        owner = users[by[starts]]
        when = np.minimum.reduceat(ages[by], starts) if len(starts) else np.empty(0)
        order = np.lexsort((when, owner))
        younger = np.empty(len(order), dtype=np.int64)
        first = np.searchsorted(owner, np.arange(n_users))
        younger[order] = np.arange(len(order)) - first[owner]  # `owner` is sorted, and `order` keeps it
        place = np.empty(len(by), dtype=np.int64)
        place[by] = younger[np.cumsum(changed) - 1]
        return cls(owner, when[order], first, place)

    @cached_property
    def span(self) -> int:
        """More than any place."""
        return int(self.place.max(initial=0)) + 1

    def age(self, users: Ints, places: Ints) -> NDArray[np.float64]:
        """Age of the orders at places of users."""
        found: NDArray[np.float64] = self.when[self.first[users] + places]
        return found


def changes(values: Ints) -> NDArray[np.bool_]:
    """Whether each value differs from the one before; true for the first."""
    changed = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed


def run_lengths(starts: Ints, end: int) -> Ints:
    """Lengths of the runs that begin at `starts`, the last of which ends at `end`."""
    lengths = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
    lengths[-1:] = end - starts[-1:]
    return lengths


def run_sums(values: NDArray[Any], starts: Ints) -> NDArray[np.float64]:
    """Sum the runs of values that begin at `starts`, each in its order, from which `np.add.reduceat` would deviate."""
    runs = np.repeat(np.arange(len(starts)), run_lengths(starts, len(values)))
    return np.bincount(runs, values, minlength=len(starts)).astype(np.float64, copy=False)
