"""Planned promotions of items: what was known of them at a moment, read from the table `promotions`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

HISTORY_DAYS = 400.0  # promotions that ended earlier are not read
CATEGORY_SEPARATOR = "/"
FAR = 1e5  # days; a promotion begins and ends at most half as far from the cutoff
Ints = NDArray[np.int64]
Numbers = NDArray[Any]


@dataclass(frozen=True)
class ItemPromotions:
    """Rows of promotions of items; a promotion of a category is one of each of its items.

    They are sorted by item, then by start, kind and end, and of equal ones the first known comes first. They are what
    was said, also several times or before a plan changed; `current` is what counts. Times are days before the cutoff,
    so that those after it are negative. Moments are compared as everywhere: what is known at the cutoff was known
    before it (``known_days > 0``).

    Attributes
    ----------
    items : ndarray of int32, (m,)
    kinds : ndarray of int16, (m,)
        Index in `kind_names`.
    start_days, end_days : ndarray of float32, (m,)
        First moment, and the first moment after it: the end is no part of a promotion. −inf for an end that is not
        planned.
    known_days, replaced_days : ndarray of float32, (m,)
        Moment since which the row is known, and since which another one replaces it; −inf for none.
    reach : ndarray of float32, (m,)
        Share of the stores or customers that it reaches, 0 to 1.
    kind_names : tuple of str
        The kinds, the most frequent first; '' is a promotion without a kind.
    n_items : int
        Number of items of the catalogue.
    """

    items: NDArray[np.int32]
    kinds: NDArray[np.int16]
    start_days: NDArray[np.float32]
    end_days: NDArray[np.float32]
    known_days: NDArray[np.float32]
    replaced_days: NDArray[np.float32]
    reach: NDArray[np.float32]
    kind_names: tuple[str, ...]
    n_items: int

    def __len__(self) -> int:
        return len(self.items)

    def where(self, kept: NDArray[Any]) -> ItemPromotions:
        """Return the promotions at a mask or at ascending places."""
        columns = {name: getattr(self, name)[kept] for name in ARRAYS}
        return replace(self, **columns)

    def later(self, days: float) -> ItemPromotions:
        """Return the promotions as seen `days` days after the cutoff (before it if negative).

        Only those known then are kept.

        Examples
        --------
        >>> arrays = [np.array([value], np.float32) for value in (-3.0, -9.0, 1.0, -np.inf, 1.0)]
        >>> one = ItemPromotions(np.array([0], np.int32), np.array([0], np.int16), *arrays, ("mailer",), 1)
        >>> one.later(5).start_days.tolist(), len(one.later(-1))
        ([2.0], 0)
        """
        shift = np.float32(days)
        moved = {name: getattr(self, name) + shift for name in MOMENTS}
        return replace(self, **moved).where(moved["known_days"] > 0)

    def current(self) -> ItemPromotions:
        """Return what counts at the cutoff: no row that was replaced, and each item, kind and period once.

        A plan that is exported again with another `known_at` is the same plan; the row that was known first counts.
        """
        valid = self.where(~(self.replaced_days > 0))
        again = np.zeros(len(valid), dtype=bool)  # equal rows are neighbours
        again[1:] = np.logical_and.reduce([getattr(valid, name)[1:] == getattr(valid, name)[:-1] for name in PLAN])
        return valid.where(~again)

    def not_ended(self, days: float) -> ItemPromotions:
        """Return the promotions that did not end more than `days` days before the cutoff."""
        return self.where(self.end_days <= days)

    def renumbered(self, place: NDArray[np.integer[Any]], n_items: int) -> ItemPromotions:
        """Return the promotions of items with other numbers: `place` has the new one of each item, −1 for none."""
        kept = self.where(place[self.items] >= 0)
        items = place[kept.items].astype(np.int32)
        return replace(kept, items=items, n_items=n_items).where(np.argsort(items, kind="stable"))

    def reach_at(self, kind: int | None = None) -> Callable[[Numbers, Numbers], NDArray[np.float32]]:
        """Return a function of items and moments, in days before the cutoff, that gives the reach of what runs then.

        Of several promotions it is their sum, at most 1. All rows count: take those of `current`.

        Parameters
        ----------
        kind : int, optional
            Index in `kind_names`; by default all kinds.

        Examples
        --------
        >>> arrays = [np.array([value], np.float32) for value in (9.0, 2.0, 10.0, -np.inf, 0.5)]
        >>> one = ItemPromotions(np.array([0], np.int32), np.array([0], np.int16), *arrays, ("mailer",), 1)
        >>> one.reach_at()(np.zeros(3, np.int32), np.array([9.5, 9.0, 2.0])).tolist()
        [0.0, 0.5, 0.0]
        """
        of_kind = self if kind is None else self.where(self.kinds == kind)
        offsets = of_kind.items * (2.0 * FAR)  # so far apart that moments of different items do not mix

        def sums(days: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
            moments = offsets - np.clip(days, -FAR / 2, FAR / 2)
            order = np.argsort(moments, kind="stable")
            return moments[order], np.cumsum(np.append(0.0, of_kind.reach[order].astype(np.float64)))

        (starts, begun), (ends, over) = sums(of_kind.start_days), sums(of_kind.end_days)

        def reach(items: Numbers, days: Numbers) -> NDArray[np.float32]:
            moments = items * (2.0 * FAR) - days
            # what began until a moment, without what ended until then; rounded, because the sums do not cancel exactly
            running = begun[np.searchsorted(starts, moments, "right")] - over[np.searchsorted(ends, moments, "right")]
            return np.asarray(np.clip(np.round(running, 6), 0.0, 1.0), dtype=np.float32)

        return reach


PLAN = ("items", "kinds", "start_days", "end_days")
MOMENTS = ("start_days", "end_days", "known_days", "replaced_days")
ARRAYS = ("items", "kinds", *MOMENTS, "reach")
