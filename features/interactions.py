"""`TrainingSet`: who interacted with what, when, and what is known of both. What every model is fitted on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.compute.spec import UserFeatures
from features.id_map import IdMap

T = TypeVar("T")
INTERACTION_FIELDS = (
    "users",
    "items",
    "age_days",
    "weights",
    "orders",
    "quantities",
    "amounts",
)  # of `Interactions`, one entry a line
EVENT_WEIGHTS = {
    "view": 1.0,
    "search": 1.0,
    "message_click": 1.0,
    "share": 2.0,
    "favourite": 3.0,
    "cart": 3.0,
    "purchase": 5.0,
}


@dataclass(frozen=True)
class Interactions:
    """One entry a paid order line (or a behaviour event, where there are no lines with items).

    Attributes
    ----------
    users, items : ndarray of int32, (m,)
        Indices.
    age_days : ndarray of float32, (m,)
        Days between the interaction and `as_of`, > 0; 0 where the source has no time.
    weights : ndarray of float32, (m,)
        1 a line; `EVENT_WEIGHTS` for events. A `training_set` is sorted by user, item, age, weight.
    shape : tuple of int
        (n_users, n_items).
    orders : ndarray of int32, (m,), or None
        Which order (or visit) a line belongs to; of two orders of a user the larger number is the later one. None where nobody knows.
    quantities, amounts : ndarray of float32, (m,), or None
        Units, and what was paid for the line (NaN where unknown). None where the whole source does not say.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    age_days: NDArray[np.float32]
    weights: NDArray[np.float32]
    shape: tuple[int, int]
    orders: NDArray[np.int32] | None = None
    quantities: NDArray[np.float32] | None = None
    amounts: NDArray[np.float32] | None = None

    def where(self, kept: NDArray[np.bool_] | NDArray[np.integer[Any]]) -> Interactions:
        """The entries where the mask (m,) holds, or at these places."""
        columns = {name: getattr(self, name) for name in INTERACTION_FIELDS}
        return replace(self, **{name: column[kept] for name, column in columns.items() if column is not None})

    def matrix(self, half_life_days: float | None = None) -> sparse.csr_matrix:
        """Summed weights, user × item; with a half-life an interaction of age a counts ``2 ** (-a / half_life)``.

        Examples
        --------
        >>> both = Interactions(np.zeros(2, np.int32), np.zeros(2, np.int32), np.array([0, 10], np.float32), np.ones(2, np.float32), (1, 1))
        >>> float(both.matrix()[0, 0]), float(both.matrix(half_life_days=10)[0, 0])
        (2.0, 1.5)
        """
        weights = (
            self.weights
            if half_life_days is None
            else self.weights * np.exp2(-self.age_days / np.float32(half_life_days))
        )
        counts = sparse.coo_matrix((weights.astype(np.float64), (self.users, self.items)), shape=self.shape).tocsr()
        result = counts.astype(np.float32)
        result.sort_indices()
        return result


class _Memo:
    """A value, or not yet one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._made: tuple[Any, ...] = ()

    def of(self, factory: Callable[[], Any]) -> Any:
        with self._lock:
            self._made = self._made or (factory(),)
        return self._made[0]


@dataclass(frozen=True)
class TrainingSet:
    """Everything a model may learn from at `as_of`.

    Attributes
    ----------
    user_ids : ndarray of str, (n_users,)
        one_ids, sorted; customers without history included.
    item_ids : ndarray of str, (n_items,)
        By falling popularity (customers, then lines, then id): the lower index wins a tie of scores.
    item_attributes : dict of str to ndarray, each (n_items,)
        The columns of `items`: text as str ('' where unknown), numbers as float32 (NaN), yes or no as int8 (−1 unknown). `category`,
        `brand` and `price` are always there, another column when any item has it; a price nobody lists is the median of what was paid for a unit before `as_of`.
    user_features : UserFeatures or None
        Rows in the order of `user_ids`.
    """

    user_ids: NDArray[np.str_]
    item_ids: NDArray[np.str_]
    interactions: Interactions
    item_attributes: dict[str, NDArray[Any]]
    user_features: UserFeatures | None
    as_of: datetime
    source: str = "transactions"
    _memo: dict[Hashable, _Memo] = field(default_factory=dict, init=False, compare=False, repr=False)

    def memoize(self, key: Hashable, factory: Callable[[], T]) -> T:
        """What is worked out from these data for whoever asks first, and kept for the others as long as the data are.

        Two rankers cut the same past and are fed by the same models of it; a candidate may be a stage of another. Whoever asks while another thread
        works it out waits; what failed is tried again by the next.

        Examples
        --------
        >>> data = TrainingSet.from_arrays(np.array([0]), np.array([0]), n_users=1, n_items=1)
        >>> data.memoize("lines", lambda: len(data.interactions.users)), data.memoize("lines", lambda: 7)
        (1, 1)
        """
        found: T = self._memo.setdefault(key, _Memo()).of(factory)
        return found

    @classmethod
    def from_arrays(
        cls,
        users: NDArray[Any],
        items: NDArray[Any],
        *,
        n_users: int,
        n_items: int,
        age_days: NDArray[Any] | None = None,
        weights: NDArray[Any] | None = None,
        orders: NDArray[Any] | None = None,
    ) -> TrainingSet:
        """A training set of plain index arrays, each (m,), for benchmarks and tests: ids are the indices, nothing else is known.

        Examples
        --------
        >>> TrainingSet.from_arrays(np.array([1, 0]), np.array([2, 2]), n_users=2, n_items=3).item_customers.tolist()
        [0, 0, 2]
        """
        m = len(users)
        ages = np.zeros(m) if age_days is None else age_days
        data = sorted_interactions(
            np.asarray(users, dtype=np.int32),
            np.asarray(items, dtype=np.int32),
            np.asarray(ages, dtype=np.float32),
            np.ones(m, np.float32) if weights is None else np.asarray(weights, dtype=np.float32),
            (n_users, n_items),
            None if orders is None else np.asarray(orders, dtype=np.int32),
        )
        unknown = np.full(n_items, "", dtype=np.str_)
        attributes = {"category": unknown, "brand": unknown, "price": np.full(n_items, np.nan, np.float32)}
        return cls(
            np.arange(n_users).astype(np.str_),
            np.arange(n_items).astype(np.str_),
            data,
            attributes,
            None,
            datetime(1970, 1, 1),
        )

    def with_interactions(self, interactions: Interactions) -> TrainingSet:
        """The same customers and items with other interactions."""
        return replace(self, interactions=interactions)

    def with_earlier_cutoff(self, days: float) -> TrainingSet:
        """The same customers and items as they stood so many days before `as_of`: nothing younger is in it.

        Profile features are of `as_of` and left out; what is known of items has no date and stays. Made once for all who ask (`memoize`).

        Examples
        --------
        >>> now = TrainingSet.from_arrays(np.array([0, 0]), np.array([0, 1]), n_users=1, n_items=2, age_days=np.array([3.0, 30.0]))
        >>> now.with_earlier_cutoff(7).interactions.items.tolist(), now.with_earlier_cutoff(7).interactions.age_days.tolist()
        ([1], [23.0])
        """
        return self.memoize(("rewound", days), lambda: self._with_earlier_cutoff(days))

    def _with_earlier_cutoff(self, days: float) -> TrainingSet:
        data = self.interactions.where(self.interactions.age_days > days)
        data = replace(data, age_days=data.age_days - np.float32(days))
        return replace(self, interactions=data, user_features=None, as_of=self.as_of - timedelta(days=days))

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @cached_property
    def item_customers(self) -> NDArray[np.int64]:
        """Distinct customers an item, (n_items,)."""
        return np.asarray((self.interactions.matrix() > 0).sum(axis=0)).ravel().astype(np.int64)

    def user_rows(self, one_ids: NDArray[np.str_]) -> NDArray[np.int64]:
        """Index of each id in `user_ids`, −1 where unknown."""
        return IdMap(self.user_ids).rows(one_ids)


def sorted_interactions(
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    age_days: NDArray[np.float32],
    weights: NDArray[np.float32],
    shape: tuple[int, int],
    orders: NDArray[np.int32] | None = None,
    quantities: NDArray[np.float32] | None = None,
    amounts: NDArray[np.float32] | None = None,
) -> Interactions:
    """Interactions sorted by user, item, age, weight and the rest: sums of floats, and so ties, do not depend on the order given."""
    columns = (amounts, quantities, orders, weights, age_days, items, users)
    order = np.lexsort([column for column in columns if column is not None])
    return Interactions(users, items, age_days, weights, shape, orders, quantities, amounts).where(order)
