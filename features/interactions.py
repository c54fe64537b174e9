"""`TrainingSet`: who interacted with what, when, and what is known of both. What every model is fitted on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from numpy.typing import NDArray
from scipy import sparse

from features.compute.builder import Builder
from features.compute.spec import UserFeatures
from features.id_map import IdMap
from qianmian.errors import DataError

T = TypeVar("T")
COLUMNS = (
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
        columns = {name: getattr(self, name) for name in COLUMNS}
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


class _Once:
    """A value, or not yet one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._made: tuple[Any, ...] = ()

    def of(self, work: Callable[[], Any]) -> Any:
        with self._lock:
            self._made = self._made or (work(),)
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
    _kept: dict[Hashable, _Once] = field(default_factory=dict, init=False, compare=False, repr=False)

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """What is worked out from these data for whoever asks first, and kept for the others as long as the data are.

        Two rankers cut the same past and are fed by the same models of it; a candidate may be a stage of another. Whoever asks while another thread
        works it out waits; what failed is tried again by the next.

        Examples
        --------
        >>> data = TrainingSet.of_pairs(np.array([0]), np.array([0]), n_users=1, n_items=1)
        >>> data.once("lines", lambda: len(data.interactions.users)), data.once("lines", lambda: 7)
        (1, 1)
        """
        found: T = self._kept.setdefault(key, _Once()).of(work)
        return found

    @classmethod
    def of_pairs(
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
        >>> TrainingSet.of_pairs(np.array([1, 0]), np.array([2, 2]), n_users=2, n_items=3).item_customers.tolist()
        [0, 0, 2]
        """
        m = len(users)
        ages = np.zeros(m) if age_days is None else age_days
        data = _sorted(
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

    def rewound(self, days: float) -> TrainingSet:
        """The same customers and items as they stood so many days before `as_of`: nothing younger is in it.

        Profile features are of `as_of` and left out; what is known of items has no date and stays. Made once for all who ask (`once`).

        Examples
        --------
        >>> now = TrainingSet.of_pairs(np.array([0, 0]), np.array([0, 1]), n_users=1, n_items=2, age_days=np.array([3.0, 30.0]))
        >>> now.rewound(7).interactions.items.tolist(), now.rewound(7).interactions.age_days.tolist()
        ([1], [23.0])
        """
        return self.once(("rewound", days), lambda: self._rewound(days))

    def _rewound(self, days: float) -> TrainingSet:
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


def interaction_source(builder: Builder, as_of: datetime) -> str:
    """The table that says who had which item: `transactions` when any line before `as_of` names one, else `events`.

    Raises
    ------
    DataError
        When neither names items.
    """
    states = builder.states_at(as_of)
    for table in ("transactions", "events"):
        if table in states and "item_id" in states[table].filled:
            return table
    raise DataError(
        "neither transactions nor events name items",
        where=str(builder.lake.workspace.lake),
        hint="map `item_id` in sources.yaml; without items there is nothing to recommend",
    )


def interaction_rows(builder: Builder, as_of: datetime, start: datetime | None = None) -> tuple[pa.Table, str]:
    """Who did what with which item in ``[start, as_of)``, and the table it came from.

    Paid order lines when any of them names an item, else events (`interaction_source`).

    Returns
    -------
    pyarrow.Table
        one_id, item_id, age_days, weight; basket (the order, or the visit), quantity, amount, each null where the source does not say.
    str
        ``transactions`` or ``events``.
    """
    source = interaction_source(builder, as_of)
    views = builder.views(as_of)
    rows = views["lines" if source == "transactions" else source]
    weight = ibis.literal(1.0) if source == "transactions" else rows.event_type.cases(*EVENT_WEIGHTS.items(), else_=0.0)
    timed = "ts" in builder.states[source].filled
    age = (
        (views.cut.epoch_seconds().cast("float64") - rows.ts.epoch_seconds().cast("float64")) / 86_400.0
        if timed
        else ibis.literal(0.0)
    )
    rows = rows.mutate(weight=weight.cast("float64"), age_days=age)
    rows = rows.filter(rows.item_id.notnull() & (rows.weight > 0))
    if start is not None:
        if not timed:
            raise DataError(
                "the data has no time, so no period can be cut out of it", where=source, hint="map `ts` in sources.yaml"
            )
        rows = rows.filter(rows.ts >= ibis.timestamp(start.isoformat(sep=" ")))
    if source == "transactions":
        more = {"basket": rows.source + "\x1f" + rows.order_id, "quantity": rows.quantity, "amount": rows.amount}
    else:
        unknown = ibis.null("float64")
        more = {"basket": rows.session_id, "quantity": unknown, "amount": unknown}
    return rows.select("one_id", "item_id", "age_days", "weight", **more).to_pyarrow(), source


def training_set(
    builder: Builder, as_of: datetime, *, min_item_customers: int = 5, with_features: bool = True
) -> TrainingSet:
    """Build the training set at `as_of`.

    Parameters
    ----------
    min_item_customers : int
        An item that fewer customers had before `as_of` is left out: it cannot be recommended.

    Raises
    ------
    DataError
        When no item has that many customers.
    """
    rows, source = interaction_rows(builder, as_of)
    per_item = rows.group_by("item_id").aggregate([("one_id", "count_distinct"), ("one_id", "count")])
    per_item = per_item.filter(pc.greater_equal(per_item["one_id_count_distinct"], min_item_customers))
    per_item = per_item.sort_by(
        [("one_id_count_distinct", "descending"), ("one_id_count", "descending"), ("item_id", "ascending")]
    )
    item_ids = np.asarray(per_item["item_id"].to_pylist(), dtype=np.str_)
    if not len(item_ids):
        raise DataError(
            f"no item was had by at least {min_item_customers} customers before {as_of.date()}",
            where=source,
            hint="set recommend.min_item_customers lower in qianmian.yaml, or bring more data",
        )
    people = builder.views(as_of).customers.select("one_id").distinct().order_by("one_id").to_pyarrow()
    user_ids = np.asarray(people["one_id"].to_pylist(), dtype=np.str_)
    users, items = IdMap(user_ids).rows(rows["one_id"]), IdMap(item_ids).rows(rows["item_id"])
    interactions = interactions_of(rows, users, items, (len(user_ids), len(item_ids)))
    features = None
    if with_features:
        built = builder.build(as_of).matrix()
        features = built.take(built.rows_of(user_ids))
    return TrainingSet(
        user_ids,
        item_ids,
        interactions,
        _item_attributes(builder, item_ids, source, as_of, interactions),
        features,
        as_of,
        source,
    )


def interactions_of(
    rows: pa.Table, users: NDArray[np.int64], items: NDArray[np.int64], shape: tuple[int, int]
) -> Interactions:
    """Rows of `interaction_rows` as arrays, in an order that does not depend on the engine; entries whose user or item is unknown are left out.

    Parameters
    ----------
    users, items : ndarray of int64, (m,)
        Index of each row's customer and item, −1 where it is unknown.
    """
    known = (users >= 0) & (items >= 0)
    user, item, kept = users[known].astype(np.int32), items[known].astype(np.int32), pa.array(known)
    age_days, weights = (pc.filter(rows[name], kept).to_numpy() for name in ("age_days", "weight"))
    baskets, quantities, amounts = (pc.filter(rows[name], kept) for name in ("basket", "quantity", "amount"))
    orders = None if baskets.null_count == len(baskets) else _order_numbers(user, item, age_days, baskets)
    units, paid = (None if c.null_count == len(c) else c.to_numpy().astype(np.float32) for c in (quantities, amounts))
    return _sorted(
        user,
        item,
        age_days.astype(np.float32),
        weights.astype(np.float32),
        shape,
        orders,
        units,
        paid,
    )


def _sorted(
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    age_days: NDArray[np.float32],
    weights: NDArray[np.float32],
    shape: tuple[int, int],
    orders: NDArray[np.int32] | None = None,
    quantities: NDArray[np.float32] | None = None,
    amounts: NDArray[np.float32] | None = None,
) -> Interactions:
    # an engine gives rows in whatever order its threads end in; sums of floats, and so ties, must not depend on it
    columns = (amounts, quantities, orders, weights, age_days, items, users)
    order = np.lexsort([column for column in columns if column is not None])
    return Interactions(users, items, age_days, weights, shape, orders, quantities, amounts).where(order)


def _order_numbers(
    users: NDArray[np.int32], items: NDArray[np.int32], age_days: NDArray[np.float64], baskets: pa.ChunkedArray
) -> NDArray[np.int32]:
    """Number baskets by customer, then time, then id. A line without a basket is one of its own, as is a customer's part of a shared one."""
    coded = baskets.combine_chunks().dictionary_encode()
    names = np.asarray(coded.dictionary.to_pylist(), dtype=np.str_)
    place = np.empty(len(names) + 1, dtype=np.int64)
    place[np.argsort(names)], place[-1] = np.arange(len(names)), -1
    code = coded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
    alone = np.flatnonzero(code == len(names))
    basket = place[code]
    basket[alone] = len(names) + np.argsort(np.lexsort((age_days[alone], items[alone])))
    _, first, of = np.unique(
        users.astype(np.int64) * (len(names) + len(alone) + 1) + basket, return_index=True, return_inverse=True
    )
    oldest = np.zeros(len(first))
    np.maximum.at(oldest, of, age_days)
    number = np.empty(len(first), dtype=np.int32)
    number[np.lexsort((basket[first], -oldest, users[first]))] = np.arange(len(first), dtype=np.int32)
    return number[of]


def _item_attributes(
    builder: Builder, item_ids: NDArray[np.str_], source: str, as_of: datetime, interactions: Interactions
) -> dict[str, NDArray[Any]]:
    items = builder.backend.table("items").to_pyarrow()
    at = IdMap(items["item_id"].to_pylist()).rows(item_ids)
    told = [name for name in items.column_names if name != "item_id" and items[name].null_count < len(items)]
    attributes = {name: _attribute(items[name])[at] for name in dict.fromkeys((*told, "category", "brand", "price"))}
    attributes["price"] = np.where(
        np.isnan(attributes["price"]), _paid_for_a_unit(interactions), attributes["price"]
    ).astype(np.float32)
    if (
        source == "events"
        and not attributes["category"].astype(bool).any()
        and "category" in builder.states["events"].filled
    ):
        t = builder.backend.table("events").filter(_.ts < ibis.timestamp(as_of.isoformat(sep=" ")))
        pairs = (
            t.filter(t.category.notnull() & t.item_id.notnull())
            .group_by("item_id")
            .aggregate(category=t.category.min())
            .to_pyarrow()
        )
        at = IdMap(pairs["item_id"].to_pylist()).rows(item_ids)
        attributes["category"] = np.asarray([*pairs["category"].to_pylist(), ""], dtype=np.str_)[at]
    return attributes


def _attribute(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column of `items` as an array of one entry more, the last for an item that has no row."""
    if pa.types.is_boolean(column.type):
        return np.append(column.cast(pa.int8()).fill_null(-1).to_numpy(), np.int8(-1))
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.append(column.cast(pa.float32(), safe=False).fill_null(float("nan")).to_numpy(), np.float32("nan"))
    return np.asarray([*column.cast(pa.string()).fill_null("").to_pylist(), ""], dtype=np.str_)


def _paid_for_a_unit(data: Interactions) -> NDArray[np.float32]:
    """Median amount of a unit of each item, NaN for none, (n_items,)."""
    paid = np.full(data.shape[1], np.nan, dtype=np.float32)
    if data.amounts is None:
        return paid
    units = np.ones_like(data.amounts) if data.quantities is None else data.quantities
    priced = (data.amounts > 0) & (units > 0)
    items, unit_prices = data.items[priced], data.amounts[priced] / units[priced]
    order = np.lexsort((unit_prices, items))
    sold, first, counts = np.unique(items[order], return_index=True, return_counts=True)
    paid[sold] = unit_prices[order][first + (counts - 1) // 2]
    return paid
