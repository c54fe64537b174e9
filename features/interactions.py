"""`TrainingSet`: customers, items, their interactions and features; every model is fitted on one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.compute.spec import UserFeatures
from features.id_map import IdMap
from features.interaction_arrays import (
    INTERACTION_FIELDS,
    Interactions,
    distinct_customers,
    sorted_interactions,
)
from features.interaction_types import INTERACTION_TYPES, PURCHASE, checked_type_weights
from features.promotions import ItemPromotions

__all__ = [  # what a model needs to know of interactions
    "INTERACTION_FIELDS",
    "INTERACTION_TYPES",
    "READ_WEIGHT",
    "ContentSet",
    "Interactions",
    "TrainingSet",
    "sorted_interactions",
]

READ_WEIGHT = 1.0  # an event of at least this weight counts as a complete read
T = TypeVar("T")


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
class EarlierCutoff:
    """A training set as of an earlier cutoff that was built by itself, and what followed it.

    Attributes
    ----------
    days : float
        Days from its cutoff to that of the later training set.
    train : TrainingSet
        The data before it, with customers and items of its own.
    later : Interactions
        Interactions of the target in those days, by its customers with its items.
    """

    days: float
    train: TrainingSet
    later: Interactions


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
        Interactions of the target before `as_of`.
    item_attributes : dict of str to array, each of shape (n_items,)
        Columns of the table `items`: text as str ('' if unknown), numbers as float32 (NaN if unknown), booleans as
        int8 (−1 if unknown). `category`, `brand` and `price` are always present, another column when any item has a
        value. A missing list price is the median price paid per unit before `as_of`.
    user_features : UserFeatures or None
        Profile features, rows in the order of `user_ids`.
    as_of : datetime
        Cutoff, naive UTC: later data are not included.
    source : str
        Tables the interactions come from: ``transactions``, ``events``, ``transactions and events`` or ``contents``.
    auxiliary : Interactions or None
        Interactions of the other types before `as_of` (views, carts, …), each of weight 1, with `types`; `orders` are
        visits, numbered independently of those of `interactions`. None if there are none.
    target : str
        What is recommended: a type of interaction, or ``any`` for all types, which are then `interactions`.
    items_left_out : int
        Items with enough customers that are left out because the catalogue would be too large.
    returned : Interactions or None
        Lines that were given back before `as_of`, with `returned_days`. At a cutoff before their return they are
        interactions (`with_earlier_cutoff`). None if there are none.
    promotions : ItemPromotions or None
        Promotions of the items that were known before `as_of`, past and planned. None if the lake has none.
    """

    user_ids: NDArray[np.str_]
    item_ids: NDArray[np.str_]
    interactions: Interactions
    item_attributes: dict[str, NDArray[Any]]
    user_features: UserFeatures | None
    as_of: datetime
    source: str = "transactions"
    returned: Interactions | None = field(default=None, kw_only=True)
    auxiliary: Interactions | None = field(default=None, kw_only=True)
    target: str = field(default=PURCHASE, kw_only=True)
    items_left_out: int = field(default=0, kw_only=True)
    promotions: ItemPromotions | None = field(default=None, kw_only=True)
    _memo: dict[Hashable, _Memo] = field(default_factory=dict, init=False, compare=False, repr=False)

    def memoize(self, key: Hashable, factory: Callable[[], T]) -> T:
        """Return the cached value of `key`; the first call computes it with `factory`.

        The value lives as long as this training set, unless it is freed before (`forget`, `release`). Models that need
        the same intermediate result (an earlier cutoff, a fitted first stage) share it. A call that arrives while
        another thread computes the value waits for it. When `factory` fails, nothing is cached and the next call
        computes the value again.

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

    def remember_earlier(self, earlier: EarlierCutoff) -> None:
        """Let models that learn from earlier cutoffs use one that exists, and share what was computed for it.

        It belongs to this training set only: a copy with other interactions does not have it.
        """
        self._memo.setdefault("earlier cutoff", _Memo()).of(lambda: earlier)

    @property
    def earlier(self) -> EarlierCutoff | None:
        """The earlier cutoff of `remember_earlier`, if there is one."""
        memo = self._memo.get("earlier cutoff")
        found: EarlierCutoff | None = None if memo is None else memo.of(lambda: None)
        return found

    def forget(self, kept: Collection[str]) -> None:
        """Free cached values, also earlier cutoffs, except those whose key begins with a name in `kept`.

        The key of a fitted model is ``("model", name, …)``; it is kept by its name.
        """
        for key in list(self._memo):
            if not any(name in kept for name in (key[:2] if isinstance(key, tuple) else (key,))):
                self.release(key)

    def forget_earlier_cutoffs(self) -> None:
        """Free the results of `with_earlier_cutoff`, with what was computed for them."""
        for key in list(self._memo):  # a copy, because other threads add values meanwhile
            if isinstance(key, tuple) and key[0] == "rewound":
                self.release(key)

    def release(self, key: Hashable) -> None:
        """Free the cached value of a key, if there is one."""
        self._memo.pop(key, None)

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
        """Copy with other interactions of the target; returned lines and auxiliary interactions are forgotten."""
        return replace(self, interactions=interactions, returned=None, auxiliary=None)

    def with_earlier_cutoff(self, days: float) -> TrainingSet:
        """Return the training set as it was `days` days before `as_of`, without later interactions, returns and plans.

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
        auxiliary = None if self.auxiliary is None else self.auxiliary.rewound(days)
        as_of = self.as_of - timedelta(days=days)
        past = replace(self, interactions=data, user_features=None, as_of=as_of, returned=returned)
        promotions = None if self.promotions is None else self.promotions.later(-days)
        return replace(past, auxiliary=auxiliary, promotions=promotions)

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @cached_property
    def item_customers(self) -> NDArray[np.int64]:
        """Distinct customers per item in the target, int64 array, shape (n_items,)."""
        return distinct_customers(self.interactions.users, self.interactions.items, self.interactions.shape)

    @cached_property
    def item_customers_of_any_type(self) -> NDArray[np.int64]:
        """Distinct customers per item in all types of interactions, int64 array, shape (n_items,)."""
        if self.auxiliary is None:
            return self.item_customers
        parts = (self.interactions, self.auxiliary)
        users, items = (np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "items"))
        return distinct_customers(users, items, self.interactions.shape)

    @property
    def history_days(self) -> float:
        """Days from the oldest interaction of any type to `as_of`; 0 for undated data."""
        parts = [self.interactions] if self.auxiliary is None else [self.interactions, self.auxiliary]
        return max(float(part.age_days.max(initial=0.0)) for part in parts)

    @cached_property
    def has_interactions(self) -> NDArray[np.bool_]:
        """Whether each user has interactions of any type, bool array, shape (n_users,)."""
        known = np.zeros(self.n_users, dtype=bool)
        known[self.interactions.users] = True
        if self.auxiliary is not None:
            known[self.auxiliary.users] = True
        return known

    def matrix(
        self, half_life_days: float | None = None, type_weights: Mapping[str, float] | None = None
    ) -> sparse.csr_matrix:
        """Sum the weights of the target and of auxiliary interactions into a user × item matrix.

        Parameters
        ----------
        half_life_days : float, optional
            As in `Interactions.matrix`.
        type_weights : mapping of str to float, optional
            Weight of an interaction of each auxiliary type, beside one of the target, which counts 1; a type that is
            not named does not count. Where the target is ``any``, the weights replace those of the named types. None:
            the target alone.

        Returns
        -------
        csr_matrix of float32, shape (n_users, n_items)

        Raises
        ------
        UsageError
            A type is unknown, or a weight is negative or not finite.

        Examples
        --------
        >>> data = TrainingSet.from_arrays(np.array([0]), np.array([0]), n_users=1, n_items=2)
        >>> viewed = replace(data.interactions, items=np.array([1], np.int32), types=np.array([1], np.int8))
        >>> data = replace(data, auxiliary=viewed)
        >>> data.matrix().toarray().tolist(), data.matrix(None, {"view": 0.5}).toarray().tolist()
        ([[1.0, 0.0]], [[1.0, 0.5]])
        """
        if type_weights is None:
            return self.interactions.matrix(half_life_days)
        weights = checked_type_weights(type_weights)
        counts = self.interactions.weighted(weights).matrix(half_life_days)
        if self.auxiliary is not None:
            counts = (counts + self.auxiliary.matrix_of_types(half_life_days, weights)).tocsr()
            counts.sort_indices()
        return counts

    def user_rows(self, one_ids: NDArray[np.str_]) -> NDArray[np.int64]:
        """Index of each id in `user_ids`, −1 for an unknown user."""
        return IdMap(self.user_ids).rows(one_ids)


@dataclass(frozen=True)
class ContentSet(TrainingSet):
    """A `TrainingSet` whose items are contents; `source` is ``contents``.

    `item_attributes` are the columns of the table `contents`; `category` is the type. Contents without interactions are
    items too, after all others. An entry of `interactions` is an event about a content, weighted by
    `engagement_weights`.

    Attributes
    ----------
    purchases : TrainingSet or None
        Purchases of the same customers, without profile features. None if the lake has no items.
    """

    purchases: TrainingSet | None = None

    def with_earlier_cutoff(self, days: float) -> ContentSet:
        """Return the set as it was `days` days before `as_of`, purchases included; see `TrainingSet`."""
        before = super().with_earlier_cutoff(days)
        assert isinstance(before, ContentSet)
        return replace(before, purchases=None if self.purchases is None else self.purchases.with_earlier_cutoff(days))
