"""`Trails`: what users did, one after the other, with interactions of every type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import INTERACTION_TYPES, Interactions, TrainingSet
from models.persist import Arrays
from models.recommend.query import Query
from models.user_arrays import UserLines

# a user who does nothing for this long has left; the usual definition of web analytics
VISIT_GAP_DAYS = 30.0 / 1440.0
TRAIL_LENGTH = 300  # newest entries of each user that are kept with a model
VIEW = INTERACTION_TYPES.index("view")


TRAIL_ARRAYS = UserLines(starts="trail_starts", columns=("trail_items", "trail_ages", "trail_kinds"))  # of `state`


@dataclass(frozen=True)
class Trails:
    """Entries of n rows (users, or examples), sorted by row and within a row from the oldest to the newest.

    Attributes
    ----------
    rows, items : ndarray of int64, (m,)
        Row and item of each entry.
    ages : ndarray of float64, (m,)
        Age of each entry in days, ≥ 0.
    kinds : ndarray of int8, (m,)
        Type of each entry, as a position in `INTERACTION_TYPES`.
    shape : tuple of int
        (n_rows, n_items).
    """

    rows: NDArray[np.int64]
    items: NDArray[np.int64]
    ages: NDArray[np.float64]
    kinds: NDArray[np.int8]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, *parts: Interactions | None, shape: tuple[int, int], untyped: int = 0) -> Trails:
        """Merge interactions of the target and of other types; entries without a type have the type `untyped`."""
        known = [part for part in parts if part is not None]
        kinds = [np.full(len(part), untyped, np.int8) if part.types is None else part.types for part in known]
        return cls(
            np.concatenate([np.empty(0, np.int64), *(part.users for part in known)]).astype(np.int64),
            np.concatenate([np.empty(0, np.int64), *(part.items for part in known)]).astype(np.int64),
            np.concatenate([np.empty(0, np.float64), *(part.age_days for part in known)]).astype(np.float64),
            np.concatenate([np.empty(0, np.int8), *kinds]),
            shape,
        ).sorted()

    @classmethod
    def of_training(cls, train: TrainingSet) -> Trails:
        """Interactions of all types of a training set; its rows are the users."""
        shape, untyped = (train.n_users, train.n_items), untyped_kind(train)
        return train.memoize(
            "trails", lambda: cls.of(train.interactions, train.auxiliary, shape=shape, untyped=untyped)
        )

    def sorted(self) -> Trails:
        """Copy in the order that the class requires; entries of the same age go by type and item."""
        return self.where(np.lexsort((self.items, self.kinds, -self.ages, self.rows)))

    def where(self, kept: NDArray[np.bool_] | NDArray[np.integer[Any]]) -> Trails:
        """Entries selected by a mask or by positions."""
        return Trails(self.rows[kept], self.items[kept], self.ages[kept], self.kinds[kept], self.shape)

    def before(self, days: float) -> Trails:
        """Entries older than `days`, with ages as they were `days` days earlier."""
        older = self.where(self.ages > days)
        return Trails(older.rows, older.items, older.ages - days, older.kinds, self.shape)

    def newest(self, n: int = TRAIL_LENGTH) -> Trails:
        """The n newest entries of each row."""
        return self.where(self.place_from_end < n)

    def sampled(self, most: int) -> Trails:
        """The entries of so many rows, drawn at random with a fixed seed, that about `most` entries remain."""
        if len(self) <= most:
            return self
        kept_rows = np.random.default_rng(0).random(self.shape[0]) < most / len(self)
        return self.where(kept_rows[self.rows])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Position of the first entry of each row, and the number of entries, int64 array, (n_rows + 1,)."""
        return np.searchsorted(self.rows, np.arange(self.shape[0] + 1)).astype(np.int64)

    @cached_property
    def place_from_end(self) -> NDArray[np.int64]:
        """Number of later entries of the row, for each entry, int64 array, (m,)."""
        ends = np.searchsorted(self.rows, self.rows, side="right")
        return np.asarray(ends - 1 - np.arange(len(self)), dtype=np.int64)

    def visits(self, gap_days: float = VISIT_GAP_DAYS) -> NDArray[np.int64]:
        """Visit of each entry, numbered from 0 in the order of the entries, int64 array, (m,).

        A visit ends when the user does nothing for longer than `gap_days`. What has a date and no clock time is one
        visit a day.
        """
        begins = np.ones(len(self), dtype=bool)
        begins[1:] = (self.rows[1:] != self.rows[:-1]) | (self.ages[:-1] - self.ages[1:] > gap_days)
        return np.cumsum(begins) - 1

    def last_visits(self, gap_days: float = VISIT_GAP_DAYS) -> Trails:
        """The entries of the last visit of each row."""
        visits, ends = self.visits(gap_days), np.searchsorted(self.rows, self.rows, side="right") - 1
        return self.where(visits == visits[ends])

    def state(self) -> Arrays:
        """The entries as arrays, to save them."""
        return {
            "trail_starts": self.starts,
            "trail_items": self.items.astype(np.int32),
            "trail_ages": self.ages,
            "trail_kinds": self.kinds,
        }

    @classmethod
    def restore(cls, state: Arrays, n_items: int) -> Trails:
        """What `state` returned."""
        lengths = np.diff(state["trail_starts"])
        rows, items = np.repeat(np.arange(len(lengths)), lengths), state["trail_items"].astype(np.int64)
        return cls(rows, items, state["trail_ages"], state["trail_kinds"], (len(lengths), n_items))

    def of_query(self, query: Query, untyped: int = 0) -> Trails:
        """Trails of the users of a query: these entries, aged until now, what is recent, and the context items.

        A context item counts as a view of this moment.
        """
        n, n_items = len(query), self.shape[1]
        known = np.flatnonzero(query.users >= 0)
        first = self.starts[query.users[known]]
        counts = self.starts[query.users[known] + 1] - first
        place = np.arange(counts.sum()) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        looked = query.items if query.items is not None else []
        lengths = [len(items) for items in looked]
        recent = Trails.of(query.recent_interactions, query.recent_auxiliary, shape=(n, n_items), untyped=untyped)
        shown = np.concatenate([np.empty(0, np.int64), *looked]).astype(np.int64)
        return Trails(
            np.concatenate([np.repeat(known, counts), recent.rows, np.repeat(np.arange(len(lengths)), lengths)]),
            np.concatenate([self.items[place], recent.items, shown]),
            np.concatenate([self.ages[place] + query.elapsed_days, recent.ages, np.zeros(len(shown))]),
            np.concatenate([self.kinds[place], recent.kinds, np.full(len(shown), VIEW, np.int8)]),
            (n, n_items),
        ).sorted()


def untyped_kind(train: TrainingSet) -> int:
    """Type of the interactions of the target that name no type, as a position in `INTERACTION_TYPES`."""
    return INTERACTION_TYPES.index(train.target) if train.target in INTERACTION_TYPES else 0


def auxiliary_kinds(train: TrainingSet) -> NDArray[np.int8]:
    """Types of interaction beside the target that occur, as positions in `INTERACTION_TYPES`."""
    types = None if train.auxiliary is None else train.auxiliary.types
    return np.empty(0, np.int8) if types is None else np.unique(types).astype(np.int8)


def has_visits(train: TrainingSet) -> bool:
    """Whether there are interactions before purchases, so that visits say more than orders do."""
    types = train.interactions.types
    return len(auxiliary_kinds(train)) > 0 or (types is not None and bool((types > 0).any())) or train.target == "view"
