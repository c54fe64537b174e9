"""`TrainingSet`: customers, items, their interactions and features; every model is fitted on one."""

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
# the columns of `Interactions`; `shape` is no column
INTERACTION_FIELDS = (
    "users",
    "items",
    "age_days",
    "weights",
    "orders",
    "quantities",
    "amounts",
    "returned_days",
)
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
    """Interactions as parallel arrays: one entry per paid order line, or per event where no order line names an item.

    Lines that were given back are no interactions, nor are lines of items that are no merchandise (bags, deposits). Of
    a line that was given back in part, `quantities` and `amounts` are those that were kept.
    `features.training_data.training_set` sorts the entries by user, item, age and weight.

    Attributes
    ----------
    users, items : int32 array, shape (m,)
        Row and column indices.
    age_days : float32 array, shape (m,)
        Days between the interaction and `as_of`, > 0; 0 where the source has no timestamps.
    weights : float32 array, shape (m,)
        1 per order line; `EVENT_WEIGHTS` for events.
    shape : tuple of int
        (n_users, n_items).
    orders : int32 array, shape (m,), or None
        Order (or visit) of each line; the later of two orders of a user has the larger number. None if unknown.
    quantities, amounts : float32 array, shape (m,), or None
        Units and amount paid for the line, NaN if unknown. None if the source has no such column.
    returned_days : float32 array, shape (m,), or None
        Only in `TrainingSet.returned`: days between the return of the line and `as_of`, > 0.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    age_days: NDArray[np.float32]
    weights: NDArray[np.float32]
    shape: tuple[int, int]
    orders: NDArray[np.int32] | None = None
    quantities: NDArray[np.float32] | None = None
    amounts: NDArray[np.float32] | None = None
    returned_days: NDArray[np.float32] | None = None

    def where(self, kept: NDArray[np.bool_] | NDArray[np.integer[Any]]) -> Interactions:
        """Entries selected by a boolean mask of shape (m,) or by an index array."""
        columns = {name: getattr(self, name) for name in INTERACTION_FIELDS}
        return replace(self, **{name: column[kept] for name, column in columns.items() if column is not None})

    def without_returned(self) -> tuple[Interactions, Interactions | None]:
        """Divide entries of which some were returned: those without a return, and the returned ones (None if none)."""
        if self.returned_days is None:
            return self, None
        returned = ~np.isnan(self.returned_days)
        kept = replace(self, returned_days=None).where(~returned)
        return kept, self.where(returned) if returned.any() else None

    def rewound(self, days: float) -> Interactions:
        """Return the entries older than `days`, with ages as they were `days` days earlier."""
        older = self.where(self.age_days > days)
        back = None if older.returned_days is None else older.returned_days - np.float32(days)
        return replace(older, age_days=older.age_days - np.float32(days), returned_days=back)

    def merged(self, other: Interactions) -> Interactions:
        """Add the entries of another array of the same users and items, and sort them; returns are forgotten."""
        names = [name for name in INTERACTION_FIELDS if getattr(self, name) is not None and name != "returned_days"]
        columns = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        return sorted_interactions(**columns, shape=self.shape)

    def matrix(self, half_life_days: float | None = None) -> sparse.csr_matrix:
        """Sum the weights into a user × item matrix.

        Parameters
        ----------
        half_life_days : float, optional
            With a half-life, the weight of an interaction of age a is multiplied by ``2 ** (-a / half_life_days)``.

        Returns
        -------
        csr_matrix of float32, shape (n_users, n_items)

        Examples
        --------
        >>> zeros, ones = np.zeros(2, np.int32), np.ones(2, np.float32)
        >>> both = Interactions(zeros, zeros, np.array([0, 10], np.float32), ones, (1, 1))
        >>> float(both.matrix()[0, 0]), float(both.matrix(half_life_days=10)[0, 0])
        (2.0, 1.5)
        """
        weights = self.weights
        if half_life_days is not None:
            weights = weights * np.exp2(-self.age_days / np.float32(half_life_days))
        counts = sparse.coo_matrix((weights.astype(np.float64), (self.users, self.items)), shape=self.shape).tocsr()
        result = counts.astype(np.float32)
        result.sort_indices()
        return result


class _Memo:
    """A value that is computed once, under a lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._value: tuple[Any, ...] = ()  # empty until computed: the value itself may be None

    def of(self, factory: Callable[[], Any]) -> Any:
        with self._lock:
            self._value = self._value or (factory(),)
        return self._value[0]


@dataclass(frozen=True)
class TrainingSet:
    """Everything a model may learn from: the data before the cutoff `as_of`.

    Attributes
    ----------
    user_ids : str array, shape (n_users,)
        Sorted one_ids, including customers without history.
    item_ids : str array, shape (n_items,)
        Items by descending popularity (customers, then lines, then id). The lower index wins a tie of scores.
    interactions : Interactions
        Interactions before `as_of`.
    item_attributes : dict of str to array, each of shape (n_items,)
        Columns of the table `items`: text as str ('' if unknown), numbers as float32 (NaN if unknown), booleans as
        int8 (−1 if unknown). `category`, `brand` and `price` are always present, another column when any item has a
        value. A missing list price is the median price paid per unit before `as_of`.
    user_features : UserFeatures or None
        Profile features, rows in the order of `user_ids`.
    as_of : datetime
        Cutoff, naive UTC: later data are not included.
    source : str
        Table the interactions come from: ``transactions``, ``events`` or ``contents``.
    returned : Interactions or None
        Lines that were given back before `as_of`, with `returned_days`. At a cutoff before their return they are
        interactions (`with_earlier_cutoff`). None if there are none.
    """

    user_ids: NDArray[np.str_]
    item_ids: NDArray[np.str_]
    interactions: Interactions
    item_attributes: dict[str, NDArray[Any]]
    user_features: UserFeatures | None
    as_of: datetime
    source: str = "transactions"
    returned: Interactions | None = field(default=None, kw_only=True)
    _memo: dict[Hashable, _Memo] = field(default_factory=dict, init=False, compare=False, repr=False)

    def memoize(self, key: Hashable, factory: Callable[[], T]) -> T:
        """Return the cached value of `key`; the first call computes it with `factory`.

        The value lives as long as this training set. Models that need the same intermediate result (an earlier cutoff,
        a fitted first stage) share it. A call that arrives while another thread computes the value waits for it. When
        `factory` fails, nothing is cached and the next call computes the value again.

        Parameters
        ----------
        key : hashable
            Name of the value and all parameters it depends on.
        factory : callable
            Called without arguments.

        Examples
        --------
        >>> data = TrainingSet.from_arrays(np.array([0]), np.array([0]), n_users=1, n_items=1)
        >>> data.memoize("lines", lambda: len(data.interactions.users)), data.memoize("lines", lambda: 7)
        (1, 1)
        """
        value: T = self._memo.setdefault(key, _Memo()).of(factory)
        return value

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
        """Build a training set from index arrays of shape (m,), for benchmarks and tests.

        The ids are the indices; item attributes are unknown.

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
        """Copy with the same customers and items and other interactions; returned lines are forgotten."""
        return replace(self, interactions=interactions, returned=None)

    def with_earlier_cutoff(self, days: float) -> TrainingSet:
        """Return the training set as it was `days` days before `as_of`, without later interactions and returns.

        Profile features are computed at `as_of` and therefore dropped. Item attributes carry no date and stay. The
        result is cached (`memoize`).

        Examples
        --------
        >>> age_days = np.array([3.0, 30.0])
        >>> now = TrainingSet.from_arrays(np.array([0, 0]), np.array([0, 1]), n_users=1, n_items=2, age_days=age_days)
        >>> week_ago = now.with_earlier_cutoff(7).interactions
        >>> week_ago.items.tolist(), week_ago.age_days.tolist()
        ([1], [23.0])
        """
        return self.memoize(("rewound", days), lambda: self._with_earlier_cutoff(days))

    def _with_earlier_cutoff(self, days: float) -> TrainingSet:
        data, returned = self.interactions.rewound(days), self.returned
        if returned is not None:
            returned = returned.rewound(days)
            assert returned.returned_days is not None
            not_yet = returned.returned_days <= 0  # returned at or after the earlier cutoff
            data, returned = data.merged(returned.where(not_yet)), returned.where(~not_yet)
        as_of = self.as_of - timedelta(days=days)
        return replace(self, interactions=data, user_features=None, as_of=as_of, returned=returned)

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @cached_property
    def item_customers(self) -> NDArray[np.int64]:
        """Distinct customers per item, int64 array, shape (n_items,)."""
        return np.asarray((self.interactions.matrix() > 0).sum(axis=0)).ravel().astype(np.int64)

    def user_rows(self, one_ids: NDArray[np.str_]) -> NDArray[np.int64]:
        """Index of each id in `user_ids`, −1 for an unknown user."""
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
    returned_days: NDArray[np.float32] | None = None,
) -> Interactions:
    """Sort interactions by user, item, age, weight and the remaining columns.

    Float sums, and therefore ties of scores, then do not depend on the order of the input.
    """
    columns = (returned_days, amounts, quantities, orders, weights, age_days, items, users)
    order = np.lexsort([column for column in columns if column is not None])
    return Interactions(users, items, age_days, weights, shape, orders, quantities, amounts, returned_days).where(order)
